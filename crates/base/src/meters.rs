//! Histograms of durations that many threads count into, in Prometheus' text form. Counters are atomics of their owners.
//!
//! Absent: a registry of metrics. Who owns a number writes it out.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

/// How often something took how long. Takes no lock and, once made, no memory.
#[derive(Debug)]
pub struct Timings {
    /// Upper bounds in seconds.
    bounds: &'static [f64],
    /// One for each bound, and one for what is above them all.
    counts: Box<[AtomicU64]>,
    nanos: AtomicU64,
}

impl Timings {
    pub fn new(bounds: &'static [f64]) -> Self {
        Timings { bounds, counts: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(), nanos: AtomicU64::new(0) }
    }

    pub fn observe(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let slot = self.bounds.iter().position(|bound| seconds <= *bound).unwrap_or(self.bounds.len());
        self.counts[slot].fetch_add(1, Ordering::Relaxed);
        self.nanos.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub fn count(&self) -> u64 {
        self.counts.iter().map(|c| c.load(Ordering::Relaxed)).sum()
    }

    /// `labels` as they stand between the braces; there may be none.
    pub fn write(&self, out: &mut String, name: &str, labels: &str) {
        let comma = if labels.is_empty() { "" } else { "," };
        let mut below = 0;
        for (bound, count) in self.bounds.iter().zip(&self.counts) {
            below += count.load(Ordering::Relaxed);
            let _ = writeln!(out, "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {below}");
        }
        below += self.counts.last().map_or(0, |c| c.load(Ordering::Relaxed));
        let _ = writeln!(out, "{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {below}");
        let seconds = Duration::from_nanos(self.nanos.load(Ordering::Relaxed)).as_secs_f64();
        let braced = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
        let _ = writeln!(out, "{name}_sum{braced} {seconds}\n{name}_count{braced} {below}");
    }
}

/// Histograms by labels, for what is not measured at every request.
pub struct Family {
    bounds: &'static [f64],
    by: Mutex<BTreeMap<String, Timings>>,
}

impl Family {
    pub fn new(bounds: &'static [f64]) -> Self {
        Family { bounds, by: Mutex::default() }
    }

    pub fn observe(&self, labels: String, took: Duration) {
        self.by.lock().entry(labels).or_insert_with(|| Timings::new(self.bounds)).observe(took);
    }

    pub fn write(&self, out: &mut String, name: &str) {
        self.by.lock().iter().for_each(|(labels, timings)| timings.write(out, name, labels));
    }

    /// How often, by labels.
    pub fn write_counts(&self, out: &mut String, name: &str) {
        for (labels, timings) in self.by.lock().iter() {
            let _ = writeln!(out, "{name}{{{labels}}} {}", timings.count());
        }
    }
}

/// What stands above a metric's values.
pub fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_hold_what_is_below_them() {
        let timings = Timings::new(&[0.005, 1.0]);
        for millis in [5, 6, 2000] {
            timings.observe(Duration::from_millis(millis));
        }
        let mut out = String::new();
        timings.write(&mut out, "x_seconds", "a=\"b\"");
        let want = "x_seconds_bucket{a=\"b\",le=\"0.005\"} 1\nx_seconds_bucket{a=\"b\",le=\"1\"} 2\nx_seconds_bucket{a=\"b\",le=\"+Inf\"} 3\n\
                    x_seconds_sum{a=\"b\"} 2.011\nx_seconds_count{a=\"b\"} 3\n";
        assert_eq!((out.as_str(), timings.count()), (want, 3));
        let mut bare = String::new();
        timings.write(&mut bare, "x", "");
        assert!(bare.contains("x_bucket{le=\"1\"} 2\n") && bare.ends_with("x_count 3\n"), "{bare}");
    }
}
