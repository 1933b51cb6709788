//! The parts that need an API server alone: apibench against ours and upstream's in turn.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::parse::{self, Line, median};
use super::report::{Bar, Report};
use super::servers::{Ours, Plane};
use super::tools::{Tools, text_of};
use super::{Options, Part};

const TESTS: &str = "create,get,list,listsel,watch,patch,delete";

/// Test, what the table calls it, the share of upstream's CPU time per operation that is allowed, and the rate that is wanted (issue 4).
const BARS: [(&str, &str, Bar, Bar); 7] = [
    ("create pods", "create", Bar::Share(0.1), Bar::Times(5.0)),
    ("get pods", "get", Bar::Share(1.0 / 12.0), Bar::Times(5.0)),
    ("list all (rv=0)", "list all, rv=0", Bar::Share(1.0 / 12.0), Bar::Times(5.0)),
    ("list all (consistent)", "list all", Bar::Share(1.0 / 12.0), Bar::Times(5.0)),
    ("list by label (1/10)", "list by label", Bar::Share(0.05), Bar::Times(10.0)),
    ("patch pod status", "patch", Bar::Share(0.1), Bar::Times(5.0)),
    ("delete pods", "delete", Bar::Share(0.1), Bar::Times(5.0)),
];

/// Figures of one server and one encoding, by test, a value a round.
type Rounds = BTreeMap<String, Vec<Line>>;

pub(super) fn measure(options: &Options, tools: &Tools, folder: &Path, report: &mut Report) -> Result<()> {
    let files = Ours::prepare(options, &folder.join("ours"))?;
    let (mut ours, _) = files.start(tools)?;
    let upstream = if options.upstream { Some(Plane::upstream(tools, &folder.join("upstream"))?) } else { None };
    ours.prepare(tools)?;
    upstream.as_ref().map_or(Ok(()), |upstream| upstream.prepare(tools))?;
    if options.has(Part::Api) {
        for encoding in options.encodings() {
            let [mine, theirs] = rounds(options, tools, &ours, upstream.as_ref(), encoding)?;
            show(report, encoding, &mine, &theirs, options);
        }
    }
    if options.has(Part::Sched) {
        files.add_scheduler(&mut ours)?;
        sched(options, tools, &ours, upstream.as_ref(), report)?;
    }
    Ok(())
}

fn rounds(options: &Options, tools: &Tools, ours: &Plane, upstream: Option<&Plane>, encoding: &str) -> Result<[Rounds; 2]> {
    let mut found = [Rounds::new(), Rounds::new()];
    for round in 0..options.rounds {
        let mut turn: Vec<(usize, &Plane)> = std::iter::once((0, ours)).chain(upstream.map(|u| (1, u))).collect();
        if round % 2 == 1 {
            turn.reverse();
        }
        for (side, plane) in turn {
            println!("{encoding}, round {}, {}", round + 1, plane.name);
            plane.forget_events(tools)?;
            for line in apibench(options, tools, plane, encoding, TESTS)? {
                found[side].entry(line.test.clone()).or_default().push(line);
            }
        }
    }
    Ok(found)
}

fn apibench(options: &Options, tools: &Tools, plane: &Plane, encoding: &str, tests: &str) -> Result<Vec<Line>> {
    let mut command = Command::new("timeout");
    command.arg("1800").arg(tools.tool("apibench")).arg("-kubeconfig").arg(&plane.kubeconfig).args(["-pids", &plane.pids, "-t", tests]);
    command.args(["-n", &options.pods.to_string(), "-w", &options.watchers.to_string()]);
    command.args(["-nodes", &options.nodes.to_string(), "-pods", &options.pending.to_string()]);
    if encoding == "protobuf" {
        command.arg("-proto");
    }
    let text = text_of(&mut command)?;
    print!("{text}");
    Ok(text.lines().filter_map(parse::apibench).collect())
}

fn middle(rounds: &Rounds, test: &str, value: fn(&Line) -> f64) -> Option<f64> {
    median(rounds.get(test)?.iter().map(value).filter(|v| *v > 0.0).collect())
}

fn show(report: &mut Report, encoding: &str, ours: &Rounds, upstream: &Rounds, options: &Options) {
    for (test, name, cpu, rate) in BARS {
        let both = |value: fn(&Line) -> f64| (middle(ours, test, value), middle(upstream, test, value));
        let (mine, theirs) = both(|l| l.server_cpu);
        report.add(format!("{name}, {encoding}: server CPU"), "µs", mine, theirs, cpu);
        let (mine, theirs) = both(|l| l.rate);
        report.add(format!("{name}, {encoding}: rate"), "/s", mine, theirs, rate);
        let (mine, theirs) = both(|l| l.client_cpu);
        report.add(format!("{name}, {encoding}: client CPU"), "µs", mine, theirs, Bar::None);
    }
    let fan_out = format!("watch fan-out x{}", options.watchers);
    for (what, value, bar) in [("p50", (|l| l.p50 / 1e3) as fn(&Line) -> f64, Bar::None), ("p99", |l| l.p99 / 1e3, Bar::Share(0.25))] {
        let name = format!("watch, {} watchers, {encoding}: {what}", options.watchers);
        report.add(name, "ms", middle(ours, &fan_out, value), middle(upstream, &fan_out, value), bar);
    }
    let name = format!("watch, {} watchers, {encoding}: server CPU per event sent", options.watchers);
    report.add(name, "µs", middle(ours, &fan_out, |l| l.server_cpu), middle(upstream, &fan_out, |l| l.server_cpu), Bar::None);
    let peak = |rounds: &Rounds| middle(rounds, "patch pod status", |l| l.peak_mib);
    report.add(format!("peak memory, {} pods, {encoding}", options.pods), "MiB", peak(ours), peak(upstream), Bar::Share(0.125));
}

fn sched(options: &Options, tools: &Tools, ours: &Plane, upstream: Option<&Plane>, report: &mut Report) -> Result<()> {
    const BOUND: &str = "scheduled (create to bound)";
    let mut rates = [None, None];
    let mut peaks = [None, None];
    for (side, plane) in std::iter::once((0, ours)).chain(upstream.map(|u| (1, u))) {
        println!("scheduling, {}", plane.name);
        let lines = apibench(options, tools, plane, "json", "sched")?;
        rates[side] = lines.iter().find(|l| l.test == BOUND).map(|l| l.rate);
        peaks[side] = plane.scheduler().map(peak_mib);
    }
    let work = format!("{} pods on {} nodes", options.pending, options.nodes);
    report.add(format!("scheduling, {work}: rate"), "/s", rates[0], rates[1], Bar::None);
    report.add(format!("scheduling, {work}: the scheduler's peak memory"), "MiB", peaks[0], peaks[1], Bar::None);
    Ok(())
}

/// The most memory that a process had resident.
fn peak_mib(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
}
