//! `/metrics` in Prometheus' text form, under upstream's stable names: requests by what they asked for, their duration, the size of answers,
//! what is under way, and the process. What the registry and flow control measure stands there.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::fmt::Write as _;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use http::Method;
use parking_lot::Mutex;
use tiphys_base::meters::head;
use tiphys_schema::Facts;

use crate::request_info::Info;

/// Upper bounds in seconds, upstream's.
const BUCKETS: [f64; 23] =
    [0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0];
/// Upper bounds of answers in bytes, upstream's.
const SIZES: [f64; 7] = [1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];

/// What Go programs say of their build besides; whoever joins on these labels finds them.
const BUILD: &str = "build_date=\"\",compiler=\"rustc\",git_commit=\"\",git_tree_state=\"\",go_version=\"\"";

/// What a request is counted under. Borrowed, so that counting one more of a kind allocates nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Labels<'a> {
    verb: &'static str,
    group: &'a str,
    version: &'a str,
    resource: &'a str,
    subresource: &'a str,
    scope: &'static str,
    dry_run: &'static str,
}

impl<'a> Labels<'a> {
    fn of(info: &'a Info, method: &Method) -> Self {
        Labels {
            verb: verb(info, method),
            group: &info.group,
            version: &info.version,
            resource: &info.resource,
            subresource: if info.is_resource { &info.subresource } else { first_segment(&info.path) },
            scope: scope(info),
            dry_run: info.query.get("dryRun").map_or("", |v| if v == "All" { "All" } else { "invalid" }),
        }
    }

    /// By this program itself; custom resources are known by their successes.
    fn are_served(&self) -> bool {
        let resource = Facts::builtin().resource_of(self.group, self.version, self.resource);
        resource.is_some_and(|r| self.subresource.is_empty() || r.subresources.iter().any(|s| s.name == self.subresource))
    }

    fn hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        Hash::hash(self, &mut hasher);
        hasher.finish()
    }

    fn text(&self) -> String {
        format!(
            "component=\"apiserver\",dry_run={:?},group={:?},resource={:?},scope={:?},subresource={:?},verb={:?},version={:?}",
            self.dry_run, self.group, self.resource, self.scope, self.subresource, self.verb, self.version
        )
    }

    /// Without what only some metrics tell apart.
    fn short_text(&self) -> String {
        format!(
            "component=\"apiserver\",group={:?},resource={:?},scope={:?},subresource={:?},verb={:?},version={:?}",
            self.group, self.resource, self.scope, self.subresource, self.verb, self.version
        )
    }
}

struct Histogram<const N: usize> {
    buckets: [u32; N],
    count: u64,
    sum: f64,
}

impl<const N: usize> Default for Histogram<N> {
    fn default() -> Self {
        Histogram { buckets: [0; N], count: 0, sum: 0.0 }
    }
}

impl<const N: usize> Histogram<N> {
    fn observe(&mut self, bounds: &[f64; N], value: f64) {
        if let Some(slot) = bounds.iter().position(|b| value <= *b) {
            self.buckets[slot] = self.buckets[slot].saturating_add(1);
        }
        self.count += 1;
        self.sum += value;
    }

    fn write(&self, out: &mut String, name: &str, labels: &str, bounds: &[f64; N]) {
        let mut below = 0u64;
        for (bound, count) in bounds.iter().zip(self.buckets) {
            below += u64::from(count);
            let _ = writeln!(out, "{name}_bucket{{{labels},le=\"{}\"}} {below}", Bound(*bound));
        }
        let _ = writeln!(out, "{name}_bucket{{{labels},le=\"+Inf\"}} {}", self.count);
        let _ = writeln!(out, "{name}_sum{{{labels}}} {}", self.sum);
        let _ = writeln!(out, "{name}_count{{{labels}}} {}", self.count);
    }
}

/// Numbers as Go writes them: large ones with an exponent.
struct Bound(f64);

impl std::fmt::Display for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0 < 1e6 { write!(f, "{}", self.0) } else { write!(f, "1e+{:02}", self.0.log10().round()) }
    }
}

/// One kind of request. What the labels say is kept as the text that is printed.
struct Counts {
    hash: u64,
    labels: String,
    short: String,
    by_code: Vec<(u16, u64)>,
    durations: Histogram<{ BUCKETS.len() }>,
    sizes: Option<Box<Histogram<{ SIZES.len() }>>>,
    running: Arc<AtomicI64>,
}

impl Counts {
    fn new(labels: &Labels<'_>) -> Self {
        Counts {
            hash: labels.hash(),
            labels: labels.text(),
            short: labels.short_text(),
            by_code: Vec::new(),
            durations: Histogram::default(),
            sizes: None,
            running: Arc::default(),
        }
    }
}

/// A request that lasts, counted until it is dropped.
pub(crate) struct Lasting(Arc<AtomicI64>);

impl Drop for Lasting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A request under way.
pub(crate) struct InFlight<'m>(&'m AtomicI64);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Default)]
pub struct Metrics {
    requests: Mutex<HashMap<u64, Counts>>,
    reads: AtomicI64,
    writes: AtomicI64,
}

impl Metrics {
    pub(crate) fn in_flight(&self, info: &Info) -> InFlight<'_> {
        let reads = matches!(info.verb.as_str(), "get" | "list" | "watch");
        let gauge = if reads { &self.reads } else { &self.writes };
        gauge.fetch_add(1, Ordering::Relaxed);
        InFlight(gauge)
    }

    /// `size`: the answer's bytes, where they are known. Answers with a guard where the request goes on.
    pub(crate) fn request(
        &self,
        info: &Info,
        method: &Method,
        code: u16,
        took: Duration,
        size: Option<usize>,
        lasts: bool,
    ) -> Option<Lasting> {
        let mut labels = Labels::of(info, method);
        let mut requests = self.requests.lock();
        // Names that somebody made up must not fill the memory: where nothing was found or allowed, those that nobody serves share one entry.
        if code >= 400 && !labels.are_served() && !requests.contains_key(&labels.hash()) {
            labels = Labels { group: "", version: "", resource: "", subresource: "", ..labels };
        }
        let counts = requests.entry(labels.hash()).or_insert_with(|| Counts::new(&labels));
        match counts.by_code.iter_mut().find(|(c, _)| *c == code) {
            Some((_, count)) => *count += 1,
            None => counts.by_code.push((code, 1)),
        }
        counts.durations.observe(&BUCKETS, took.as_secs_f64());
        if let Some(size) = size.filter(|_| matches!(labels.verb, "GET" | "LIST")) {
            #[allow(clippy::cast_precision_loss, reason = "sizes of answers are far below 2^52")]
            counts.sizes.get_or_insert_default().observe(&SIZES, size as f64);
        }
        lasts.then(|| {
            counts.running.fetch_add(1, Ordering::Relaxed);
            Lasting(counts.running.clone())
        })
    }

    pub fn text(&self) -> String {
        let mut out = String::new();
        let requests = self.requests.lock();
        let mut all: Vec<&Counts> = requests.values().collect();
        all.sort_by(|a, b| (&a.labels, a.hash).cmp(&(&b.labels, b.hash)));
        head(&mut out, "apiserver_request_total", "counter", "Requests by verb, group, version, resource, scope and code.");
        for counts in &all {
            for (code, count) in &counts.by_code {
                let _ = writeln!(out, "apiserver_request_total{{code=\"{code}\",{}}} {count}", counts.labels);
            }
        }
        let help = "Time from a request's arrival to the head of its answer.";
        head(&mut out, "apiserver_request_duration_seconds", "histogram", help);
        for counts in &all {
            counts.durations.write(&mut out, "apiserver_request_duration_seconds", &counts.labels, &BUCKETS);
        }
        head(&mut out, "apiserver_response_sizes", "histogram", "Bytes of answers.");
        for counts in &all {
            if let Some(sizes) = &counts.sizes {
                sizes.write(&mut out, "apiserver_response_sizes", &counts.short, &SIZES);
            }
        }
        head(&mut out, "apiserver_longrunning_requests", "gauge", "Watches and streams that are open.");
        for counts in &all {
            let running = counts.running.load(Ordering::Relaxed);
            if running > 0 || Arc::strong_count(&counts.running) > 1 {
                let _ = writeln!(out, "apiserver_longrunning_requests{{{}}} {running}", counts.short);
            }
        }
        deprecated(&mut out, &all);
        head(&mut out, "apiserver_current_inflight_requests", "gauge", "Requests under way.");
        for (kind, gauge) in [("mutating", &self.writes), ("readOnly", &self.reads)] {
            let _ = writeln!(out, "apiserver_current_inflight_requests{{request_kind=\"{kind}\"}} {}", gauge.load(Ordering::Relaxed));
        }
        let version = crate::documents::version::GIT_VERSION;
        head(&mut out, "kubernetes_build_info", "gauge", "Which build this is.");
        let platform = tiphys_base::platform::platform();
        let _ = writeln!(out, "kubernetes_build_info{{{BUILD},git_version={version:?},major=\"1\",minor=\"36\",platform={platform:?}}} 1");
        process(&mut out);
        out
    }
}

/// Versions that are served though they should not be used any more, where somebody has used them.
fn deprecated(out: &mut String, all: &[&Counts]) {
    const DEPRECATED: [(&str, &str, &str); 2] = [("", "v1", "componentstatuses"), ("", "v1", "endpoints")];
    head(out, "apiserver_requested_deprecated_apis", "gauge", "Deprecated APIs that were asked for, and the release that removes them.");
    for (group, version, resource) in DEPRECATED {
        let (resource_label, version_label) = (format!(",resource={resource:?},"), format!(",version={version:?}"));
        let is_it = |c: &&Counts| {
            c.labels.contains(&format!(",group={group:?},")) && c.labels.contains(&resource_label) && c.labels.ends_with(&version_label)
        };
        if all.iter().any(is_it) {
            let labels = format!("group={group:?},removed_release=\"\",resource={resource:?},subresource=\"\",version={version:?}");
            let _ = writeln!(out, "apiserver_requested_deprecated_apis{{{labels}}} 1");
        }
    }
}

/// How many objects each resource has, under the name of today and the one before v1.34.
pub(crate) fn objects(out: &mut String, counts: &[(tiphys_meta::Gvr, usize)]) {
    head(out, "apiserver_resource_objects", "gauge", "Objects that are stored.");
    for (gvr, count) in counts {
        let _ = writeln!(out, "apiserver_resource_objects{{group={:?},resource={:?}}} {count}", gvr.group, gvr.resource);
    }
    head(out, "apiserver_storage_objects", "gauge", "Objects that are stored.");
    for (gvr, count) in counts {
        let _ = writeln!(out, "apiserver_storage_objects{{resource={:?}}} {count}", gvr.group_resource());
    }
}

/// The process as /proc shows it (proc(5)); a value that cannot be read is left out.
fn process(out: &mut String) {
    let Ok(stat) = std::fs::read_to_string("/proc/self/stat") else { return };
    let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
    // USER_HZ and the page size are 100 and 4096 on every architecture that this is built for.
    let threads = field(20);
    let _ = writeln!(out, "# TYPE process_cpu_seconds_total counter\nprocess_cpu_seconds_total {}", (field(14) + field(15)) / 100.0);
    let _ = writeln!(out, "# TYPE process_resident_memory_bytes gauge\nprocess_resident_memory_bytes {}", field(24) * 4096.0);
    let _ = writeln!(out, "# TYPE process_virtual_memory_bytes gauge\nprocess_virtual_memory_bytes {}", field(23));
    let _ = writeln!(out, "# TYPE process_threads gauge\nprocess_threads {threads}");
    if let Some(started) = started_at(field(22)) {
        let _ = writeln!(out, "# TYPE process_start_time_seconds gauge\nprocess_start_time_seconds {started}");
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        let _ = writeln!(out, "# TYPE process_open_fds gauge\nprocess_open_fds {}", open.count());
    }
}

/// Ticks since boot as seconds since the epoch.
fn started_at(ticks: f64) -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    let booted: f64 = stat.lines().find_map(|l| l.strip_prefix("btime "))?.trim().parse().ok()?;
    Some(booted + ticks / 100.0)
}

fn first_segment(path: &str) -> &str {
    let end = path.get(1..).and_then(|p| p.find('/')).map_or(path.len(), |i| i + 1);
    &path[..end]
}

fn verb(info: &Info, method: &Method) -> &'static str {
    let connects = matches!(info.subresource.as_str(), "exec" | "attach" | "portforward" | "proxy");
    match info.verb.as_str() {
        _ if info.is_resource && connects => "CONNECT",
        "get" => "GET",
        "list" => "LIST",
        "watch" => "WATCH",
        "create" | "post" => "POST",
        "update" | "put" => "PUT",
        "patch" => "PATCH",
        "delete" => "DELETE",
        "deletecollection" => "DELETECOLLECTION",
        _ if *method == Method::HEAD => "HEAD",
        _ => "other",
    }
}

fn scope(info: &Info) -> &'static str {
    match info {
        Info { is_resource: false, .. } => "",
        Info { name, .. } if !name.is_empty() => "resource",
        Info { namespace, .. } if !namespace.is_empty() => "namespace",
        _ => "cluster",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_durations() {
        let metrics = Metrics::default();
        let info = Info::parse(&Method::GET, "/api/v1/namespaces/a/pods", "").expect("path");
        metrics.request(&info, &Method::GET, 200, Duration::from_millis(30), Some(5000), false);
        let lasting = metrics.request(&info, &Method::GET, 200, Duration::from_secs(90), None, true);
        let text = metrics.text();
        let labels =
            r#"component="apiserver",dry_run="",group="",resource="pods",scope="namespace",subresource="",verb="LIST",version="v1""#;
        let short = labels.replace("dry_run=\"\",", "");
        assert!(text.contains(&format!("apiserver_response_sizes_bucket{{{short},le=\"10000\"}} 1")), "{text}");
        assert!(text.contains(&format!("apiserver_longrunning_requests{{{short}}} 1")), "{text}");
        drop(lasting);
        assert!(!metrics.text().contains(&format!("apiserver_longrunning_requests{{{short}}} 1")));
        for line in [
            format!("apiserver_request_total{{code=\"200\",{labels}}} 2"),
            format!("apiserver_request_duration_seconds_bucket{{{labels},le=\"0.025\"}} 0"),
            format!("apiserver_request_duration_seconds_bucket{{{labels},le=\"60\"}} 1"),
            format!("apiserver_request_duration_seconds_bucket{{{labels},le=\"+Inf\"}} 2"),
        ] {
            assert!(text.contains(&line), "{line}\n{text}");
        }
        assert!(text.contains("process_resident_memory_bytes"));
    }

    #[test]
    fn made_up_names_share_an_entry() {
        let metrics = Metrics::default();
        let ask = |path: &str, code: u16| {
            let info = Info::parse(&Method::GET, path, "").expect("path");
            metrics.request(&info, &Method::GET, code, Duration::ZERO, None, false);
        };
        for n in 0..100 {
            for code in [400, 401, 403, 404, 405, 406, 415, 500] {
                ask(&format!("/apis/g{n}/v1/things"), code);
                ask(&format!("/api/v1/namespaces/a/pods/p/s{n}"), code);
                ask(&format!("/{n}"), code);
            }
        }
        ask("/api/v1/namespaces/a/pods", 403);
        ask("/api/v1/namespaces/a/pods/p/status", 403);
        ask("/apis/example.com/v1/things", 200);
        ask("/apis/example.com/v1/things", 403);
        let text = metrics.text();
        let counted: Vec<&str> = text.lines().filter(|l| l.starts_with("apiserver_request_duration_seconds_count")).collect();
        assert_eq!(counted.len(), 6, "{counted:#?}");
        for known in ["resource=\"pods\",scope=\"namespace\",subresource=\"\"", "subresource=\"status\"", "group=\"example.com\""] {
            assert!(text.lines().any(|l| l.starts_with("apiserver_request_total{code=\"403\"") && l.contains(known)), "{known}");
        }
    }
}
