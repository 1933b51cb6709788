//! `/metrics` in Prometheus' text form: requests by what they asked for, their duration, and the process.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::Duration;

use http::Method;
use parking_lot::Mutex;

use crate::request_info::Info;

/// Upper bounds in seconds (upstream's, thinned to every second one).
const BUCKETS: [f64; 12] = [0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 1.0, 2.0, 5.0, 15.0, 60.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Labels {
    verb: &'static str,
    group: String,
    version: String,
    resource: String,
    subresource: String,
    scope: &'static str,
}

#[derive(Default)]
struct Durations {
    buckets: [u64; BUCKETS.len()],
    count: u64,
    sum: f64,
}

#[derive(Default)]
struct Counts {
    by_code: HashMap<u16, u64>,
    durations: Durations,
}

#[derive(Default)]
pub struct Metrics {
    requests: Mutex<HashMap<Labels, Counts>>,
}

impl Metrics {
    pub fn request(&self, info: &Info, method: &Method, code: u16, took: Duration) {
        let labels = Labels {
            verb: verb(info, method),
            group: info.group.clone(),
            version: info.version.clone(),
            resource: info.resource.clone(),
            subresource: if info.is_resource { info.subresource.clone() } else { first_segment(&info.path).to_owned() },
            scope: scope(info),
        };
        let mut requests = self.requests.lock();
        // What no client of ours would ask for must not fill the memory: names that nobody serves share one entry.
        let labels = if code == 404 && !requests.contains_key(&labels) {
            Labels { group: String::new(), version: String::new(), resource: String::new(), subresource: String::new(), ..labels }
        } else {
            labels
        };
        let counts = requests.entry(labels).or_default();
        *counts.by_code.entry(code).or_default() += 1;
        let (seconds, d) = (took.as_secs_f64(), &mut counts.durations);
        if let Some(slot) = BUCKETS.iter().position(|b| seconds <= *b) {
            d.buckets[slot] += 1;
        }
        d.count += 1;
        d.sum += seconds;
    }

    pub fn text(&self) -> String {
        let mut out = String::new();
        let requests = self.requests.lock();
        let mut all: Vec<_> = requests.iter().collect();
        all.sort_by(|a, b| a.0.cmp(b.0));
        out.push_str("# HELP apiserver_request_total Requests by verb, group, version, resource, scope and code.\n");
        out.push_str("# TYPE apiserver_request_total counter\n");
        for (labels, counts) in &all {
            let mut codes: Vec<_> = counts.by_code.iter().collect();
            codes.sort_unstable();
            for (code, count) in codes {
                let _ = writeln!(out, "apiserver_request_total{{code=\"{code}\",{}}} {count}", labels.text());
            }
        }
        out.push_str("# HELP apiserver_request_duration_seconds Time from a request's arrival to the head of its answer.\n");
        out.push_str("# TYPE apiserver_request_duration_seconds histogram\n");
        for (labels, counts) in &all {
            histogram(&mut out, &labels.text(), &counts.durations);
        }
        process(&mut out);
        out
    }
}

impl Labels {
    fn text(&self) -> String {
        format!(
            "component=\"apiserver\",group={:?},resource={:?},scope={:?},subresource={:?},verb={:?},version={:?}",
            self.group, self.resource, self.scope, self.subresource, self.verb, self.version
        )
    }
}

fn histogram(out: &mut String, labels: &str, durations: &Durations) {
    let mut below = 0;
    for (bound, count) in BUCKETS.iter().zip(durations.buckets) {
        below += count;
        let _ = writeln!(out, "apiserver_request_duration_seconds_bucket{{{labels},le=\"{bound}\"}} {below}");
    }
    let _ = writeln!(out, "apiserver_request_duration_seconds_bucket{{{labels},le=\"+Inf\"}} {}", durations.count);
    let _ = writeln!(out, "apiserver_request_duration_seconds_sum{{{labels}}} {}", durations.sum);
    let _ = writeln!(out, "apiserver_request_duration_seconds_count{{{labels}}} {}", durations.count);
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
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        let _ = writeln!(out, "# TYPE process_open_fds gauge\nprocess_open_fds {}", open.count());
    }
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
        metrics.request(&info, &Method::GET, 200, Duration::from_millis(30));
        metrics.request(&info, &Method::GET, 200, Duration::from_secs(90));
        let text = metrics.text();
        let labels = r#"component="apiserver",group="",resource="pods",scope="namespace",subresource="",verb="LIST",version="v1""#;
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
}
