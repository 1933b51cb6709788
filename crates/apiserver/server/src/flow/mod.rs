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
use std::sync::atomic::Ordering;
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

/// A request under way; its seat is given back when this is dropped.
pub(crate) struct Permit {
    /// The level; none where it is exempt.
    seat: Option<(Arc<Mutex<Seats>>, usize)>,
    width: u32,
    schema: Arc<Schema>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.schema.stats.done(self.width);
        if let Some((seats, level)) = &self.seat {
            seats.lock().leave(*level, self.width);
        }
    }
}

/// A place in a queue. Dropped before its turn, it is given up; dropped in the moment of its turn, the seat goes back.
struct Waiting {
    seats: Arc<Mutex<Seats>>,
    level: usize,
    width: u32,
    ticket: u64,
    seated: bool,
    schema: Arc<Schema>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.schema.stats.waiting.fetch_sub(1, Ordering::Relaxed);
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
        let schema = schema.clone();
        let Some(level) = schema.level else {
            schema.stats.dispatched(1, Duration::ZERO);
            return Ok(Some(Permit { seat: None, width: 1, schema }));
        };
        let width = if call.info.verb == "list" { width_of(objects(&call.info)) } else { 1 };
        let arrival = self.seats.lock().arrive(level, schema.flow_of(&call.user, &call.info.namespace), width);
        let refused = |why| {
            schema.stats.rejected(why, Duration::ZERO);
            Err(DoorError::TooMany)
        };
        match arrival {
            Arrival::Run(width) => {
                schema.stats.dispatched(width, Duration::ZERO);
                Ok(Some(Permit { seat: Some((self.seats.clone(), level)), width, schema }))
            }
            Arrival::Full => refused("queue-full"),
            Arrival::Refused => refused("concurrency-limit"),
            Arrival::Wait { ticket, width, turn } => {
                drop(plan);
                let waiting = Waiting { seats: self.seats.clone(), level, width, ticket, seated: false, schema };
                self.wait(waiting, turn).await.map(Some)
            }
        }
    }

    async fn wait(&self, mut waiting: Waiting, turn: oneshot::Receiver<()>) -> Result<Permit, DoorError> {
        let (begun, stats) = (tokio::time::Instant::now(), &waiting.schema.stats);
        stats.waiting.fetch_add(1, Ordering::Relaxed);
        match tokio::time::timeout(self.patience, turn).await {
            Ok(Ok(())) => {
                waiting.seated = true;
                let (width, schema) = (waiting.width, waiting.schema.clone());
                schema.stats.dispatched(width, begun.elapsed());
                Ok(Permit { seat: Some((waiting.seats.clone(), waiting.level)), width, schema })
            }
            _ => {
                stats.rejected("time-out", begun.elapsed());
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
            ("request_concurrency_in_use", "gauge", |r| r.used),
        ] {
            let _ = writeln!(out, "# TYPE {PREFIX}_{name} {kind}");
            for level in &levels {
                let _ = writeln!(out, "{PREFIX}_{name}{{priority_level={:?}}} {}", level.name, read(level));
            }
        }
        self.plan.load().metrics(out, PREFIX);
    }

    /// `/debug/api_priority_and_fairness/dump_priority_levels`, as upstream's columns have it.
    pub(crate) fn dump(&self) -> String {
        let mut out = String::from(
            "PriorityLevelName, ActiveQueues, IsIdle, IsQuiescing, WaitingRequests, ExecutingRequests, DispatchedRequests, \
             RejectedRequests, TimedoutRequests\n",
        );
        let plan = self.plan.load();
        let levels = self.seats.lock().report();
        for level in &levels {
            let counts = plan.of_level(&level.name);
            let idle = counts.executing == 0 && level.waiting == 0;
            let _ = writeln!(out, "{}, {}, {idle}, {}, {}, {counts}", level.name, level.queues, level.retired, level.waiting);
        }
        for name in plan.levels().filter(|name| !levels.iter().any(|l| l.name == *name)) {
            let counts = plan.of_level(name);
            let _ = writeln!(out, "{name}, 0, {}, false, 0, {counts}", counts.executing == 0);
        }
        out
    }

    /// `dump_queues`: the queues of each level, and how long they are.
    pub(crate) fn dump_queues(&self) -> String {
        let mut out = String::from("PriorityLevelName, Index, PendingRequests, NextDispatchR, InitialSeatsSum\n");
        for (level, queue) in self.seats.lock().queues() {
            let seats::QueueReport { index, pending, next, width } = queue;
            let _ = writeln!(out, "{level}, {index}, {pending}, {next}, {width}");
        }
        out
    }

    /// `dump_requests`: what waits.
    pub(crate) fn dump_requests(&self) -> String {
        let mut out = String::from("PriorityLevelName, QueueIndex, RequestIndexInQueue, Ticket, InitialSeats, StartR\n");
        for row in self.seats.lock().waiting() {
            let _ = writeln!(out, "{row}");
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
        assert!(flow.enter(&mut admin, |_| 0).await.expect("exempt").is_some());

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
        assert!(
            text.contains("request_wait_duration_seconds_count{execute=\"false\",flow_schema=\"anns\",priority_level=\"small\"} 2"),
            "{text}"
        );
    }
}
