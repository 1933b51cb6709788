//! What the load tools print.

use std::collections::BTreeMap;

/// One line of apibench. Times are in microseconds.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Line {
    pub(super) test: String,
    pub(super) rate: f64,
    pub(super) p50: f64,
    pub(super) p99: f64,
    pub(super) client_cpu: f64,
    pub(super) server_cpu: f64,
    pub(super) peak_mib: f64,
}

/// `12.5ms`, `2m1.5s`, `850µs` as Go prints durations, in microseconds.
pub(super) fn duration(text: &str) -> Option<f64> {
    let mut rest = text;
    let mut total = 0.0;
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let value: f64 = rest[..number].parse().ok()?;
        rest = &rest[number..];
        let unit = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        total += value
            * match &rest[..unit] {
                "ns" => 1e-3,
                "µs" | "us" => 1.0,
                "ms" => 1e3,
                "s" => 1e6,
                "m" => 60e6,
                "h" => 3600e6,
                _ => return None,
            };
        rest = &rest[unit..];
    }
    Some(total)
}

/// The figures behind their `name=`; those of the client and of the server are told apart.
fn figures(text: &str) -> BTreeMap<String, &str> {
    let mut side = "";
    let mut found = BTreeMap::new();
    for word in text.split_whitespace() {
        match word.split_once('=') {
            Some((name, value)) => {
                found.insert(format!("{side}{name}"), value);
            }
            None if word.ends_with(':') => side = word,
            None => {}
        }
    }
    found
}

/// One line of apibench, if it is one with figures.
pub(super) fn apibench(line: &str) -> Option<Line> {
    let at = line.find(" n=")?;
    let (name, rest) = line.split_at(at);
    let words: Vec<&str> = name.split_whitespace().filter(|w| !w.ends_with("KiB")).collect();
    let found = figures(rest);
    let micros = |name: &str| found.get(name).and_then(|v| duration(v)).unwrap_or(0.0);
    let rate = found.get("rate").and_then(|v| v.trim_end_matches("/s").parse().ok())?;
    let peak_mib = found.get("server:peak").and_then(|v| v.trim_end_matches("MiB").parse().ok()).unwrap_or(0.0);
    Some(Line {
        test: words.join(" "),
        rate,
        p50: micros("p50"),
        p99: micros("p99"),
        client_cpu: micros("client:cpu/op"),
        server_cpu: micros("server:cpu/op"),
        peak_mib,
    })
}

/// One line of strain: what another client saw beside an attack. Times are in microseconds.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Strain {
    pub(super) attack: String,
    pub(super) p50: f64,
    pub(super) p99: f64,
    /// Requests that did not succeed.
    pub(super) failed: f64,
}

pub(super) fn strain(line: &str) -> Option<Strain> {
    let (attack, rest) = line.split_once(" n=")?;
    let found = figures(rest);
    let micros = |name: &str| duration(found.get(name)?);
    Some(Strain { attack: attack.to_owned(), p50: micros("p50")?, p99: micros("p99")?, failed: found.get("failed")?.parse().ok()? })
}

/// One line of podbench: what, and its median or only time in milliseconds.
pub(super) fn podbench(line: &str) -> Option<(String, f64)> {
    if let Some(at) = line.find(" n=") {
        let (name, rest) = line.split_at(at);
        return Some((name.trim().to_owned(), duration(figures(rest).get("p50")?)? / 1e3));
    }
    let (name, rest) = line.split_once("  ").or_else(|| line.split_once(" after ").map(|(n, r)| (n, r)))?;
    Some((name.trim().to_owned(), duration(rest.split_whitespace().next()?)? / 1e3))
}

/// A step of `tiphys up`: `  812 ms  node ready`.
pub(super) fn step(line: &str) -> Option<(f64, String)> {
    let (ms, what) = line.trim().split_once(" ms  ")?;
    Some((ms.trim().parse().ok()?, what.trim().to_owned()))
}

/// A step of the kit's upstream cluster: `  13.20 s  node Ready`, counted from the start; in milliseconds.
pub(super) fn stamp(line: &str) -> Option<(f64, String)> {
    let (seconds, what) = line.trim().split_once(" s  ")?;
    let seconds: f64 = seconds.trim().parse().ok()?;
    Some((seconds * 1e3, what.trim().to_owned()))
}

pub(super) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        n if n % 2 == 1 => values.get(middle).copied(),
        _ => Some((values[middle - 1] + values[middle]) / 2.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, micros) in [("12.5ms", 12_500.0), ("850µs", 850.0), ("2m1.5s", 121_500_000.0), ("0s", 0.0), ("300ns", 0.3)] {
            assert_eq!(duration(text), Some(micros), "{text}");
        }
        assert_eq!(duration("soon"), None);
        assert_eq!(duration("12"), None);
    }

    #[test]
    fn lines_of_apibench() {
        let line = "list all (rv=0) 17408KiB     n=10 total=1.76s rate=6/s p50=176.1ms p99=190ms max=190ms client: cpu/op=90000us server: cpu/op=24000us peak=900MiB";
        let got = apibench(line).expect("a line with figures");
        assert_eq!(got.test, "list all (rv=0)");
        assert_eq!((got.rate, got.p50, got.p99), (6.0, 176_100.0, 190_000.0));
        assert_eq!((got.client_cpu, got.server_cpu, got.peak_mib), (90_000.0, 24_000.0, 900.0));
        assert_eq!(apibench("create pods                  FAILED 3"), None);
    }

    #[test]
    fn lines_of_podbench_and_steps() {
        let line = "one by one: create to Running      n=20 p50=512.3ms p90=1s p99=1.2s max=1.2s";
        assert_eq!(podbench(line), Some(("one by one: create to Running".into(), 512.3)));
        assert_eq!(podbench("at once: all Ready after           7.6s for 50 pods"), Some(("at once: all Ready after".into(), 7600.0)));
        assert_eq!(step("     812 ms  node ready"), Some((812.0, "node ready".into())));
        assert_eq!(stamp("  13.20 s  node Ready"), Some((13_200.0, "node Ready".into())));
        assert_eq!(step("  kubeconfig  /x"), None);
    }

    #[test]
    fn lines_of_strain() {
        let line = "yaml n=1200 failed=2 p50=612.3µs p99=4ms max=21ms";
        assert_eq!(strain(line), Some(Strain { attack: "yaml".into(), p50: 612.3, p99: 4000.0, failed: 2.0 }));
        assert_eq!(strain("no such attack: x"), None);
    }

    #[test]
    fn medians() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0]), Some(2.5));
        assert_eq!(median(vec![]), None);
    }
}
