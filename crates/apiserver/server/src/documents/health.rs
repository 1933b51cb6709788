//! `/healthz`, `/livez`, `/readyz`: each check by its name, all of them with `?verbose`, some left out with `?exclude=`.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tiphys_base::meters::head;

use crate::body::{self, Answered};
use crate::errors::DoorError;
use crate::request_info::Query;

type Probe = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

struct Check {
    name: &'static str,
    /// Asked by `/readyz` only: a server that drains is alive, but not ready.
    ready_only: bool,
    probe: Probe,
    /// What it said, at each endpoint: how often well, how often badly, and whether well the last time.
    said: [Said; ENDPOINTS.len()],
}

#[derive(Default)]
struct Said {
    well: AtomicU64,
    badly: AtomicU64,
    last: AtomicBool,
}

impl Said {
    fn is_silent(&self) -> bool {
        self.well.load(Ordering::Relaxed) + self.badly.load(Ordering::Relaxed) == 0
    }
}

const ENDPOINTS: [&str; 3] = ["healthz", "livez", "readyz"];

impl Check {
    fn new(name: &'static str, ready_only: bool, probe: Probe) -> Check {
        Check { name, ready_only, probe, said: Default::default() }
    }

    fn ask(&self, endpoint: &str) -> Result<(), String> {
        let answer = (self.probe)();
        if let Some(said) = ENDPOINTS.iter().position(|e| *e == endpoint).and_then(|at| self.said.get(at)) {
            let count = if answer.is_ok() { &said.well } else { &said.badly };
            count.fetch_add(1, Ordering::Relaxed);
            said.last.store(answer.is_ok(), Ordering::Relaxed);
        }
        answer
    }
}

#[derive(Default)]
pub struct Checks(Vec<Check>);

impl Checks {
    pub fn add(&mut self, name: &'static str, probe: impl Fn() -> Result<(), String> + Send + Sync + 'static) {
        self.0.push(Check::new(name, false, Arc::new(probe)));
    }

    pub fn add_ready(&mut self, name: &'static str, probe: impl Fn() -> Result<(), String> + Send + Sync + 'static) {
        self.0.push(Check::new(name, true, Arc::new(probe)));
    }

    /// What has been done once the server has made its first objects, under upstream's names; a monitor that asks for one of them by name
    /// hears of the part that does this work here.
    pub fn add_started(&mut self, started: &Arc<AtomicBool>, names: &[&'static str]) {
        for name in names {
            let started = started.clone();
            self.add(name, move || if started.load(Ordering::Relaxed) { Ok(()) } else { Err("not finished".into()) });
        }
    }

    /// `/metrics/slis`: what the checks said when they were asked (KEP-3466).
    pub(crate) fn metrics(&self) -> String {
        // What no probe has asked yet is asked now, so that there is always something to tell.
        for check in self.0.iter().filter(|c| c.said.iter().all(Said::is_silent)) {
            let _ = check.ask("readyz");
        }
        let mut out = String::new();
        let said = || self.0.iter().flat_map(|c| ENDPOINTS.iter().zip(&c.said).map(move |(endpoint, said)| (c.name, endpoint, said)));
        let read = |n: &AtomicU64| n.load(Ordering::Relaxed);
        head(&mut out, "kubernetes_healthcheck", "gauge", "What a health check said last.");
        for (name, endpoint, said) in said().filter(|(.., s)| !s.is_silent()) {
            let last = u8::from(said.last.load(Ordering::Relaxed));
            let _ = writeln!(out, "kubernetes_healthcheck{{name={name:?},type={endpoint:?}}} {last}");
        }
        head(&mut out, "kubernetes_healthchecks_total", "counter", "How often a health check said what.");
        for (name, endpoint, said) in said() {
            for (status, count) in [("success", read(&said.well)), ("error", read(&said.badly))].into_iter().filter(|(_, n)| *n > 0) {
                let _ = writeln!(out, "kubernetes_healthchecks_total{{name={name:?},status={status:?},type={endpoint:?}}} {count}");
            }
        }
        out
    }

    /// Where each check is asked alone.
    pub(crate) fn paths(&self) -> impl Iterator<Item = String> {
        let at = |check: &Check| {
            let (name, ready_only) = (check.name, check.ready_only);
            ENDPOINTS.into_iter().filter(move |e| *e == "readyz" || !ready_only).map(move |e| format!("/{e}/{name}"))
        };
        self.0.iter().flat_map(at)
    }

    pub fn answer(&self, path: &str, query: &Query) -> Result<Answered, DoorError> {
        let (endpoint, one) = path[1..].split_once('/').map_or((&path[1..], None), |(e, c)| (e, Some(c)));
        let asked = |c: &&Check| endpoint == "readyz" || !c.ready_only;
        if let Some(name) = one {
            let check = self.0.iter().filter(asked).find(|c| c.name == name).ok_or(DoorError::NoSuchPath)?;
            return Ok(match check.ask(endpoint) {
                Ok(()) => body::text(200, "ok"),
                Err(why) => body::text(500, format!("internal server error: {why}\n")),
            });
        }
        let excluded: Vec<&str> = query.pairs().iter().filter(|(k, _)| k == "exclude").map(|(_, v)| v.as_str()).collect();
        let (mut report, mut failed) = (String::new(), false);
        for check in self.0.iter().filter(asked) {
            if excluded.contains(&check.name) {
                let _ = writeln!(report, "[+]{} excluded: ok", check.name);
                continue;
            }
            match check.ask(endpoint) {
                Ok(()) => drop(writeln!(report, "[+]{} ok", check.name)),
                Err(why) => {
                    tracing::info!(check = check.name, why, "health check failed");
                    failed = true;
                    let _ = writeln!(report, "[-]{} failed: reason withheld", check.name);
                }
            }
        }
        let unknown: Vec<String> =
            excluded.iter().filter(|name| !self.0.iter().filter(asked).any(|c| c.name == **name)).map(|n| format!("{n:?}")).collect();
        if !unknown.is_empty() {
            let _ = writeln!(report, "warn: some health checks cannot be excluded: no matches for {}", unknown.join(", "));
        }
        if failed {
            return Ok(body::text(500, format!("{report}{endpoint} check failed\n")));
        }
        let verbose = query.pairs().iter().any(|(k, _)| k == "verbose");
        Ok(if verbose { body::text(200, format!("{report}{endpoint} check passed\n")) } else { body::text(200, "ok") })
    }
}

pub(super) fn is_health(path: &str) -> bool {
    ["/healthz", "/livez", "/readyz"].iter().any(|p| path.strip_prefix(p).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    async fn get(checks: &Checks, path: &str, query: &str) -> (u16, String) {
        let Ok(response) = checks.answer(path, &Query::parse(query)) else { return (404, String::new()) };
        let code = response.status().as_u16();
        let bytes = response.into_body().collect().await.expect("body").to_bytes();
        (code, String::from_utf8(bytes.to_vec()).expect("text"))
    }

    #[tokio::test]
    async fn each_and_all() {
        let mut checks = Checks::default();
        checks.add("ping", || Ok(()));
        checks.add_ready("shutdown", || Err("going".into()));
        assert_eq!(get(&checks, "/livez", "").await, (200, "ok".into()));
        assert_eq!(get(&checks, "/livez", "verbose").await, (200, "[+]ping ok\nlivez check passed\n".into()));
        assert_eq!(get(&checks, "/livez/ping", "").await, (200, "ok".into()));
        assert_eq!(get(&checks, "/livez/shutdown", "").await.0, 404);
        let failed = "[+]ping ok\n[-]shutdown failed: reason withheld\nreadyz check failed\n";
        assert_eq!(get(&checks, "/readyz", "").await, (500, failed.into()));
        assert_eq!(get(&checks, "/readyz", "exclude=shutdown").await.0, 200);
        assert_eq!(get(&checks, "/readyz/shutdown", "").await.0, 500);
        checks.add("unasked", || Ok(()));
        let told = checks.metrics();
        for line in [
            "kubernetes_healthcheck{name=\"ping\",type=\"livez\"} 1\n",
            "kubernetes_healthcheck{name=\"unasked\",type=\"readyz\"} 1\n",
            "kubernetes_healthcheck{name=\"shutdown\",type=\"readyz\"} 0\n",
            "kubernetes_healthchecks_total{name=\"shutdown\",status=\"error\",type=\"readyz\"} 2\n",
        ] {
            assert!(told.contains(line), "{line}{told}");
        }
    }
}
