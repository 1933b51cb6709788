//! Priority and fairness (KEP-1040): each request belongs to a flow of a priority level; a level has seats, and where they are taken its
//! requests wait in queues that are served fairly, so that one loud client delays itself and hardly anyone else.
//!
//! - `plan`: FlowSchemas and PriorityLevelConfigurations, compiled for matching.
//! - `seats`: who may run and who waits: pure, behind one lock.
//! - `defaults`: the objects that upstream brings; `keep` makes and mends them, and follows what users change.
//!
//! Seats are lent at the moment they are wanted and come back as soon as the borrower's request ends; upstream moves the limits every ten
//! seconds. Queues are served by start-time fair queuing, which needs no clock. Absent: extra seats for the watch events that a write causes.

mod defaults;
pub(crate) mod keep;
mod plan;
mod seats;

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::HeaderValue;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::chain::Call;
use crate::errors::DoorError;
use crate::request_info::Info;
use plan::{Plan, Schema};
use seats::{Arrival, Seats};

/// Objects that one seat lists; upstream says 100, and a list costs us less than a tenth.
const OBJECTS_PER_SEAT: usize = 1000;
const WIDEST: u32 = 10;

pub struct Flow {
    plan: ArcSwap<Plan>,
    seats: Arc<Mutex<Seats>>,
    patience: Duration,
    /// Off with `--enable-priority-and-fairness=false`.
    enabled: bool,
}

/// What a request is told of the way it went (`X-Kubernetes-PF-*`).
#[derive(Clone)]
pub(crate) struct Ids {
    pub(crate) schema: HeaderValue,
    pub(crate) level: HeaderValue,
}

/// A seat, given back when dropped.
pub(crate) struct Permit {
    seats: Arc<Mutex<Seats>>,
    level: usize,
    width: u32,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.seats.lock().leave(self.level, self.width);
    }
}

/// A place in a queue. Dropped before its turn, it is given up; dropped in the moment of its turn, the seat goes back.
struct Waiting {
    seats: Arc<Mutex<Seats>>,
    level: usize,
    width: u32,
    ticket: u64,
    seated: bool,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.seated {
            return;
        }
        let mut seats = self.seats.lock();
        if !seats.give_up(self.level, self.ticket) {
            seats.leave(self.level, self.width);
        }
    }
}

impl Flow {
    /// `total` are the seats of the whole server (upstream: both in-flight limits together), `patience` how long a request may wait.
    pub(crate) fn new(total: u32, patience: Duration, enabled: bool) -> Self {
        let mut seats = Seats::new(total);
        let plan = Plan::compile(&defaults::schemas(), &defaults::levels(), &mut seats, None);
        Flow { plan: ArcSwap::from_pointee(plan), seats: Arc::new(Mutex::new(seats)), patience, enabled }
    }

    pub(crate) fn reconfigure(&self, schemas: &[serde_json::Value], levels: &[serde_json::Value]) {
        let before = self.plan.load_full();
        let plan = Plan::compile(schemas, levels, &mut self.seats.lock(), Some(&before));
        self.plan.store(Arc::new(plan));
    }

    /// A seat for the request, at once or after a wait; none where it needs none. `objects`: how many there are of what is listed.
    pub(crate) async fn enter(&self, call: &mut Call, objects: impl FnOnce(&Info) -> usize + Send) -> Result<Option<Permit>, DoorError> {
        let streams = call.info.is_long_running() && call.info.verb != "watch";
        if streams || !self.enabled {
            return Ok(None);
        }
        let plan = self.plan.load();
        let Some(schema) = plan.classify(&call.user, &call.info) else { return Ok(None) };
        call.flow = schema.ids.clone();
        let Some(level) = schema.level else {
            schema.stats.dispatched();
            return Ok(None);
        };
        let width = if call.info.verb == "list" { width_of(objects(&call.info)) } else { 1 };
        let arrival = self.seats.lock().arrive(level, schema.flow_of(&call.user, &call.info.namespace), width);
        match arrival {
            Arrival::Run(width) => {
                schema.stats.dispatched();
                Ok(Some(Permit { seats: self.seats.clone(), level, width }))
            }
            Arrival::Full => {
                schema.stats.rejected("queue-full");
                Err(DoorError::TooMany)
            }
            Arrival::Refused => {
                schema.stats.rejected("concurrency-limit");
                Err(DoorError::TooMany)
            }
            Arrival::Wait { ticket, width, turn } => {
                let schema = schema.clone();
                drop(plan);
                let waiting = Waiting { seats: self.seats.clone(), level, width, ticket, seated: false };
                self.wait(&schema, waiting, turn).await.map(Some)
            }
        }
    }

    async fn wait(&self, schema: &Schema, mut waiting: Waiting, turn: oneshot::Receiver<()>) -> Result<Permit, DoorError> {
        match tokio::time::timeout(self.patience, turn).await {
            Ok(Ok(())) => {
                waiting.seated = true;
                schema.stats.dispatched();
                Ok(Permit { seats: waiting.seats.clone(), level: waiting.level, width: waiting.width })
            }
            _ => {
                schema.stats.rejected("time-out");
                Err(DoorError::TooMany)
            }
        }
    }

    /// Upstream's metrics of it, in Prometheus' text form.
    pub(crate) fn metrics(&self, out: &mut String) {
        const PREFIX: &str = "apiserver_flowcontrol";
        let seats = self.seats.lock();
        let levels = seats.report();
        drop(seats);
        for (name, kind, read) in [
            ("nominal_limit_seats", "gauge", (|r| r.nominal) as fn(&seats::Report) -> u64),
            ("lower_limit_seats", "gauge", |r| r.lower),
            ("upper_limit_seats", "gauge", |r| r.upper),
            ("current_limit_seats", "gauge", |r| r.nominal),
            ("request_concurrency_limit", "gauge", |r| r.nominal),
            ("current_executing_seats", "gauge", |r| r.used),
            ("request_concurrency_in_use", "gauge", |r| r.used),
        ] {
            let _ = writeln!(out, "# TYPE {PREFIX}_{name} {kind}");
            for level in &levels {
                let _ = writeln!(out, "{PREFIX}_{name}{{priority_level={:?}}} {}", level.name, read(level));
            }
        }
        let plan = self.plan.load();
        let _ = writeln!(out, "# TYPE {PREFIX}_dispatched_requests_total counter");
        for schema in plan.schemas() {
            let labels = format!("flow_schema={:?},priority_level={:?}", schema.name, schema.level_name);
            let _ = writeln!(out, "{PREFIX}_dispatched_requests_total{{{labels}}} {}", schema.stats.dispatched_total());
        }
        let _ = writeln!(out, "# TYPE {PREFIX}_rejected_requests_total counter");
        for schema in plan.schemas() {
            for (reason, count) in schema.stats.rejected_total() {
                let labels = format!("flow_schema={:?},priority_level={:?},reason={reason:?}", schema.name, schema.level_name);
                let _ = writeln!(out, "{PREFIX}_rejected_requests_total{{{labels}}} {count}");
            }
        }
        let _ = writeln!(out, "# TYPE {PREFIX}_current_inqueue_requests gauge");
        for level in &levels {
            let _ = writeln!(out, "{PREFIX}_current_inqueue_requests{{priority_level={:?}}} {}", level.name, level.waiting);
        }
    }

    /// `/debug/api_priority_and_fairness/dump_priority_levels`, as upstream's columns have it.
    pub(crate) fn dump(&self) -> String {
        let mut out = String::from("PriorityLevelName, ActiveQueues, IsIdle, IsQuiescing, WaitingRequests, ExecutingRequests\n");
        for level in self.seats.lock().report() {
            let idle = level.used == 0 && level.waiting == 0;
            let _ = writeln!(out, "{}, {}, {idle}, {}, {}, {}", level.name, level.queues, level.retired, level.waiting, level.used);
        }
        out
    }
}

fn width_of(objects: usize) -> u32 {
    u32::try_from(objects / OBJECTS_PER_SEAT).unwrap_or(WIDEST).clamp(1, WIDEST)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tiphys_registry::UserInfo;

    use super::*;
    use crate::body;
    use crate::chain::Origin;

    fn call(user: &str, groups: &[&str], path: &str) -> Call {
        let user = Arc::new(UserInfo::new(user, groups));
        let mut call = Call::new(http::Request::new(body::empty()), Origin::InProcess(user.clone()));
        call.info = Info::parse(&http::Method::GET, path, "").expect("path");
        call.user = user;
        call
    }

    #[tokio::test]
    async fn a_full_level_queues_then_refuses_and_others_go_on() {
        let mut flow = Flow::new(4, Duration::from_secs(15), true);
        let level = json!({"metadata": {"name": "small", "uid": "L"}, "spec": {"type": "Limited", "limited": {"nominalConcurrencyShares": 1,
            "limitResponse": {"type": "Queue", "queuing": {"queues": 1, "handSize": 1, "queueLengthLimit": 1}}, "borrowingLimitPercent": 0}}});
        let rules = json!([{"subjects": [{"kind": "User", "user": {"name": "ann"}}],
            "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["pods"], "namespaces": ["*"]}]}]);
        let schema = json!({"metadata": {"name": "anns", "uid": "S"}, "spec": {"matchingPrecedence": 500,
            "priorityLevelConfiguration": {"name": "small"}, "rules": rules}});
        let (mut schemas, mut levels) = (defaults::schemas(), defaults::levels());
        schemas.push(schema);
        levels.push(level);
        flow.reconfigure(&schemas, &levels);

        let group = &["system:authenticated"];
        let mut first = call("ann", group, "/api/v1/namespaces/a/pods");
        let permit = flow.enter(&mut first, |_| 0).await.expect("runs").expect("a seat");
        let ids = first.flow.clone().expect("classified");
        assert_eq!((ids.schema, ids.level), (HeaderValue::from_static("S"), HeaderValue::from_static("L")));

        let mut second = call("ann", group, "/api/v1/namespaces/a/pods");
        let mut waiting = Box::pin(flow.enter(&mut second, |_| 0));
        assert!(futures_util::poll!(waiting.as_mut()).is_pending());
        let mut third = call("ann", group, "/api/v1/namespaces/a/pods");
        assert!(matches!(flow.enter(&mut third, |_| 0).await, Err(DoorError::TooMany)));
        let mut other = call("bob", group, "/api/v1/namespaces/a/pods");
        assert!(flow.enter(&mut other, |_| 0).await.expect("runs").is_some());
        let mut admin = call("root", &["system:masters"], "/api/v1/pods");
        assert!(flow.enter(&mut admin, |_| 0).await.expect("exempt").is_none());

        drop(permit);
        let permit = waiting.await.expect("its turn").expect("a seat");
        flow.patience = Duration::ZERO;
        // Whoever leaves the queue leaves no trace; whoever waits too long is refused.
        let mut impatient = call("ann", group, "/api/v1/namespaces/a/pods");
        assert!(flow.enter(&mut impatient, |_| 0).await.is_err());
        drop(permit);
        let mut last = call("ann", group, "/api/v1/namespaces/a/pods");
        assert!(flow.enter(&mut last, |_| 0).await.expect("runs").is_some());
        let mut text = String::new();
        flow.metrics(&mut text);
        assert!(text.contains("reason=\"time-out\"} 1") && text.contains("reason=\"queue-full\"} 1"), "{text}");
    }
}
