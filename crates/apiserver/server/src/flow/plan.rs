//! FlowSchemas and PriorityLevelConfigurations, compiled: which schema a request matches, and what its level's limits come to.

use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::HeaderValue;
use serde_json::Value;
use tiphys_base::meters::Timings;
use tiphys_meta::object;
use tiphys_registry::UserInfo;

use super::Ids;
use super::seats::{Queuing, Seats, Shape};
use crate::objects::{at, items, strings, text};
use crate::request_info::Info;

pub(super) struct Plan {
    /// In the order in which they are tried.
    schemas: Vec<Arc<Schema>>,
}

pub(super) struct Schema {
    pub(super) name: String,
    pub(super) level_name: String,
    precedence: i64,
    /// The place of the level among the seats; none where it is exempt.
    pub(super) level: Option<usize>,
    pub(super) ids: Option<Ids>,
    by: Distinguisher,
    rules: Vec<Rule>,
    pub(super) stats: Arc<Stats>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Distinguisher {
    None,
    User,
    Namespace,
}

struct Rule {
    subjects: Vec<Subject>,
    resources: Vec<ResourceRule>,
    paths: Vec<PathRule>,
}

enum Subject {
    Anyone,
    User(String),
    Group(String),
    ServiceAccount { namespace: String, name: String },
}

struct ResourceRule {
    verbs: Names,
    groups: Names,
    resources: Names,
    namespaces: Names,
    cluster: bool,
}

struct PathRule {
    verbs: Names,
    paths: Vec<String>,
}

/// A list of names, or all.
enum Names {
    All,
    These(Vec<String>),
}

impl Names {
    fn read(rule: &Value, field: &str) -> Names {
        let names = strings(rule, field);
        if names.iter().any(|n| n == "*") { Names::All } else { Names::These(names) }
    }

    fn has(&self, name: &str) -> bool {
        match self {
            Names::All => true,
            Names::These(names) => names.iter().any(|n| n == name),
        }
    }
}

/// Upper bounds of waits in seconds, upstream's.
const WAITS: &[f64] = &[0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0];

/// What became of the requests of a schema.
pub(super) struct Stats {
    dispatched: AtomicU64,
    rejected: [AtomicU64; REASONS.len()],
    pub(super) executing: AtomicU64,
    pub(super) seats: AtomicU64,
    pub(super) waiting: AtomicU64,
    /// Of those who ran, and of those who did not.
    pub(super) waited: [Timings; 2],
}

impl Default for Stats {
    fn default() -> Self {
        let (zero, waited) = (AtomicU64::default, || Timings::new(WAITS));
        Stats {
            dispatched: zero(),
            rejected: Default::default(),
            executing: zero(),
            seats: zero(),
            waiting: zero(),
            waited: [waited(), waited()],
        }
    }
}

const REASONS: [&str; 3] = ["concurrency-limit", "queue-full", "time-out"];

impl Stats {
    pub(super) fn dispatched(&self, width: u32, waited: Duration) {
        self.dispatched.fetch_add(1, Ordering::Relaxed);
        self.executing.fetch_add(1, Ordering::Relaxed);
        self.seats.fetch_add(width.into(), Ordering::Relaxed);
        self.waited[0].observe(waited);
    }

    /// The end of what was dispatched.
    pub(super) fn done(&self, width: u32) {
        self.executing.fetch_sub(1, Ordering::Relaxed);
        self.seats.fetch_sub(width.into(), Ordering::Relaxed);
    }

    pub(super) fn rejected(&self, reason: &str, waited: Duration) {
        self.waited[1].observe(waited);
        if let Some(slot) = REASONS.iter().position(|r| *r == reason) {
            self.rejected[slot].fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn rejected_total(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = REASONS.iter().zip(&self.rejected).map(|(reason, count)| (*reason, count.load(Ordering::Relaxed)));
        counts.filter(|(_, count)| *count > 0)
    }
}

/// What became of the requests of a level.
pub(super) struct Counts {
    pub(super) executing: u64,
    dispatched: u64,
    refused: u64,
    timed_out: u64,
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}, {}, {}, {}", self.executing, self.dispatched, self.refused, self.timed_out)
    }
}

impl Plan {
    /// The levels that schemas name, each once.
    pub(super) fn levels(&self) -> impl Iterator<Item = &str> {
        let names = self.schemas.iter().map(|s| s.level_name.as_str());
        names.enumerate().filter(|(i, name)| !self.schemas[..*i].iter().any(|s| s.level_name == *name)).map(|(_, name)| name)
    }

    pub(super) fn of_level(&self, name: &str) -> Counts {
        let mut counts = Counts { executing: 0, dispatched: 0, refused: 0, timed_out: 0 };
        for stats in self.schemas.iter().filter(|s| s.level_name == name).map(|s| &s.stats) {
            let read = |n: &AtomicU64| n.load(Ordering::Relaxed);
            counts.executing += read(&stats.executing);
            counts.dispatched += read(&stats.dispatched);
            counts.refused += read(&stats.rejected[0]) + read(&stats.rejected[1]);
            counts.timed_out += read(&stats.rejected[2]);
        }
        counts
    }

    /// By schema, in Prometheus' text form.
    pub(super) fn metrics(&self, out: &mut String, prefix: &str) {
        let labels = |s: &Schema| format!("flow_schema={:?},priority_level={:?}", s.name, s.level_name);
        let read = |n: &AtomicU64| n.load(Ordering::Relaxed);
        for (name, kind, value) in [
            ("dispatched_requests_total", "counter", (|s| &s.dispatched) as fn(&Stats) -> &AtomicU64),
            ("current_inqueue_requests", "gauge", |s| &s.waiting),
            ("current_executing_requests", "gauge", |s| &s.executing),
            ("current_executing_seats", "gauge", |s| &s.seats),
        ] {
            let _ = writeln!(out, "# TYPE {prefix}_{name} {kind}");
            for schema in &self.schemas {
                let _ = writeln!(out, "{prefix}_{name}{{{}}} {}", labels(schema), read(value(&schema.stats)));
            }
        }
        let _ = writeln!(out, "# TYPE {prefix}_rejected_requests_total counter");
        for schema in &self.schemas {
            for (reason, count) in schema.stats.rejected_total() {
                let _ = writeln!(out, "{prefix}_rejected_requests_total{{{},reason={reason:?}}} {count}", labels(schema));
            }
        }
        let _ = writeln!(out, "# TYPE {prefix}_request_wait_duration_seconds histogram");
        for schema in &self.schemas {
            for (execute, waited) in [true, false].into_iter().zip(&schema.stats.waited).filter(|(_, w)| w.count() > 0) {
                let labels = format!("execute=\"{execute}\",{}", labels(schema));
                waited.write(out, &format!("{prefix}_request_wait_duration_seconds"), &labels);
            }
        }
    }

    /// Counters go on where a schema of that name was there before.
    pub(super) fn compile(schemas: &[Value], levels: &[Value], seats: &mut Seats, before: Option<&Plan>) -> Plan {
        let shapes = shapes(levels, seats.server());
        let names: Vec<String> = shapes.iter().map(|(name, _)| name.clone()).collect();
        let places = seats.configure(shapes);
        let mut all: Vec<Arc<Schema>> = schemas
            .iter()
            .filter_map(|schema| {
                let level_name = text(schema, &["spec", "priorityLevelConfiguration", "name"]);
                // A schema whose level is not there matches nothing.
                let level = levels.iter().find(|l| object::name(l) == level_name)?;
                let place = names.iter().position(|n| n == level_name).map(|i| places[i]);
                let stats = before.and_then(|b| b.schemas.iter().find(|s| s.name == object::name(schema)).map(|s| s.stats.clone()));
                Some(Arc::new(compile(schema, level, place, stats.unwrap_or_default())))
            })
            .collect();
        all.sort_by(|a, b| (a.precedence, &a.name).cmp(&(b.precedence, &b.name)));
        Plan { schemas: all }
    }

    pub(super) fn classify(&self, user: &UserInfo, info: &Info) -> Option<&Arc<Schema>> {
        self.schemas.iter().find(|schema| schema.rules.iter().any(|rule| rule.matches(user, info)))
    }
}

impl Schema {
    /// The hash of the flow that the request belongs to.
    pub(super) fn flow_of(&self, user: &UserInfo, namespace: &str) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.name.hash(&mut hasher);
        match self.by {
            Distinguisher::None => {}
            Distinguisher::User => user.name.hash(&mut hasher),
            Distinguisher::Namespace => namespace.hash(&mut hasher),
        }
        hasher.finish()
    }
}

fn compile(schema: &Value, level: &Value, place: Option<usize>, stats: Arc<Stats>) -> Schema {
    let uid = |o: &Value| HeaderValue::from_str(text(o, &["metadata", "uid"])).ok().filter(|v| !v.is_empty());
    let ids = uid(schema).zip(uid(level)).map(|(schema, level)| Ids { schema, level });
    let by = match text(schema, &["spec", "distinguisherMethod", "type"]) {
        "ByUser" => Distinguisher::User,
        "ByNamespace" => Distinguisher::Namespace,
        _ => Distinguisher::None,
    };
    Schema {
        name: object::name(schema).to_owned(),
        level_name: object::name(level).to_owned(),
        precedence: at(schema, &["spec", "matchingPrecedence"]).and_then(Value::as_i64).unwrap_or(1000),
        level: place,
        ids,
        by,
        rules: items(schema, &["spec", "rules"]).iter().map(Rule::read).collect(),
        stats,
    }
}

impl Rule {
    fn read(rule: &Value) -> Rule {
        let resource = |r: &Value| ResourceRule {
            verbs: Names::read(r, "verbs"),
            groups: Names::read(r, "apiGroups"),
            resources: Names::read(r, "resources"),
            namespaces: Names::read(r, "namespaces"),
            cluster: r.get("clusterScope").and_then(Value::as_bool).unwrap_or(false),
        };
        let path = |r: &Value| PathRule { verbs: Names::read(r, "verbs"), paths: strings(r, "nonResourceURLs") };
        Rule {
            subjects: items(rule, &["subjects"]).iter().filter_map(Subject::read).collect(),
            resources: items(rule, &["resourceRules"]).iter().map(resource).collect(),
            paths: items(rule, &["nonResourceRules"]).iter().map(path).collect(),
        }
    }

    fn matches(&self, user: &UserInfo, info: &Info) -> bool {
        self.subjects.iter().any(|s| s.matches(user))
            && if info.is_resource { self.resources.iter().any(|r| r.matches(info)) } else { self.paths.iter().any(|p| p.matches(info)) }
    }
}

impl Subject {
    fn read(subject: &Value) -> Option<Subject> {
        let name = |of: &str| text(subject, &[of, "name"]).to_owned();
        Some(match text(subject, &["kind"]) {
            "User" if name("user") == "*" => Subject::Anyone,
            "User" => Subject::User(name("user")),
            "Group" if name("group") == "*" => Subject::Anyone,
            "Group" => Subject::Group(name("group")),
            "ServiceAccount" => Subject::ServiceAccount {
                namespace: text(subject, &["serviceAccount", "namespace"]).to_owned(),
                name: name("serviceAccount"),
            },
            _ => return None,
        })
    }

    fn matches(&self, user: &UserInfo) -> bool {
        match self {
            Subject::Anyone => true,
            Subject::User(name) => user.name == *name,
            Subject::Group(group) => user.in_group(group),
            Subject::ServiceAccount { namespace, name } => {
                user.service_account().is_some_and(|(ns, account)| ns == namespace && (name == "*" || account == name))
            }
        }
    }
}

impl ResourceRule {
    fn matches(&self, info: &Info) -> bool {
        let resource = match &self.resources {
            Names::All => true,
            Names::These(_) if info.subresource.is_empty() => self.resources.has(&info.resource),
            Names::These(names) => names.iter().any(|n| n.split_once('/') == Some((&info.resource, &info.subresource))),
        };
        let place = if info.namespace.is_empty() { self.cluster } else { self.namespaces.has(&info.namespace) };
        resource && place && self.verbs.has(&info.verb) && self.groups.has(&info.group)
    }
}

impl PathRule {
    fn matches(&self, info: &Info) -> bool {
        let fits = |pattern: &String| match pattern.strip_suffix('*') {
            Some(prefix) => info.path.starts_with(prefix),
            None => info.path == *pattern,
        };
        self.verbs.has(&info.verb) && self.paths.iter().any(fits)
    }
}

/// The limits of the levels that have some. Exempt ones take no seats.
fn shapes(levels: &[Value], server: u32) -> Vec<(String, Shape)> {
    let limited = |l: &&Value| text(l, &["spec", "type"]) == "Limited";
    let number = |l: &Value, path: &[&str]| at(l, path).and_then(Value::as_u64);
    let shares = |l: &Value| number(l, &["spec", "limited", "nominalConcurrencyShares"]).unwrap_or(30);
    let exempt: u64 =
        levels.iter().filter(|l| !limited(l)).filter_map(|l| number(l, &["spec", "exempt", "nominalConcurrencyShares"])).sum();
    let all = (levels.iter().filter(limited).map(shares).sum::<u64>() + exempt).max(1);
    let shape = |l: &Value| {
        let part = |whole: u32, percent: u64| u32::try_from((u64::from(whole) * percent + 50) / 100).unwrap_or(whole);
        let nominal = u32::try_from((u64::from(server) * shares(l)).div_ceil(all)).unwrap_or(server);
        let lendable = part(nominal, number(l, &["spec", "limited", "lendablePercent"]).unwrap_or(0));
        let borrowing = number(l, &["spec", "limited", "borrowingLimitPercent"]).map_or(server, |percent| part(nominal, percent));
        let queuing = at(l, &["spec", "limited", "limitResponse", "queuing"]).map(|q| {
            let number = |field: &str, default: u64| usize::try_from(q.get(field).and_then(Value::as_u64).unwrap_or(default)).unwrap_or(1);
            Queuing {
                queues: number("queues", 64).max(1),
                hand: number("handSize", 8).max(1),
                length: number("queueLengthLimit", 50).max(1),
            }
        });
        Shape { nominal, lower: nominal.saturating_sub(lendable), upper: nominal.saturating_add(borrowing), queuing }
    };
    levels.iter().filter(limited).map(|l| (object::name(l).to_owned(), shape(l))).collect()
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::flow::defaults;

    #[test]
    fn requests_find_their_schema() {
        let mut seats = Seats::new(600);
        let plan = Plan::compile(&defaults::schemas(), &defaults::levels(), &mut seats, None);
        let schema = |user: &str, groups: &[&str], method: Method, path: &str| {
            let info = Info::parse(&method, path, "").expect("path");
            plan.classify(&UserInfo::new(user, groups), &info).map_or("none", |s| match s.name.as_str() {
                "exempt" => "exempt",
                "probes" => "probes",
                "system-leader-election" => "system-leader-election",
                "system-node-high" => "system-node-high",
                "system-nodes" => "system-nodes",
                "kube-scheduler" => "kube-scheduler",
                "kube-system-service-accounts" => "kube-system-service-accounts",
                "service-accounts" => "service-accounts",
                "global-default" => "global-default",
                _ => "other",
            })
        };
        const KNOWN: &str = "system:authenticated";
        let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/x";
        for (user, group, method, path, want) in [
            ("admin", "system:masters", Method::GET, "/api/v1/pods", "exempt"),
            ("ann", KNOWN, Method::GET, "/livez", "probes"),
            ("system:kube-scheduler", KNOWN, Method::PUT, leases, "system-leader-election"),
            ("system:kube-scheduler", KNOWN, Method::GET, "/api/v1/pods", "kube-scheduler"),
            ("system:node:n", "system:nodes", Method::PATCH, "/api/v1/nodes/n/status", "system-node-high"),
            ("system:node:n", "system:nodes", Method::GET, "/api/v1/pods", "system-nodes"),
            ("system:serviceaccount:kube-system:x", "system:serviceaccounts", Method::GET, "/api/v1/pods", "kube-system-service-accounts"),
            ("system:serviceaccount:default:x", "system:serviceaccounts", Method::GET, "/api/v1/pods", "service-accounts"),
            ("ann", KNOWN, Method::POST, "/api/v1/namespaces/a/pods", "global-default"),
            ("ann", KNOWN, Method::GET, "/version", "global-default"),
        ] {
            assert_eq!(schema(user, &[group], method, path), want, "{user} {path}");
        }
    }

    #[test]
    fn limits_are_upstreams() {
        let shapes = shapes(&defaults::levels(), 600);
        let of = |name: &str| shapes.iter().find(|(n, _)| n == name).map(|(_, s)| (s.nominal, s.lower)).expect("a level");
        // 600 seats by 245 shares, as upstream's kube-apiserver reports them.
        for (name, want) in [("system", (74, 50)), ("node-high", (98, 73)), ("workload-low", (245, 24)), ("catch-all", (13, 13))] {
            assert_eq!(of(name), want, "{name}");
        }
    }
}
