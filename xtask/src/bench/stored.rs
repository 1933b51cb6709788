//! How long a start takes when much is stored.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::Options;
use super::report::{Bar, Report};
use super::servers::{Ours, Plane, UPSTREAM_URL};
use super::tools::{Tools, run};

/// Starts are cheap beside the filling, so the best of a few says what the program needs and not what the machine did meanwhile.
const STARTS: usize = 3;

pub(super) fn measure(options: &Options, tools: &Tools, folder: &Path, report: &mut Report) -> Result<()> {
    let ours = ours(options, tools, &folder.join("ours"))?;
    let upstream = if options.upstream { Some(upstream(options, tools, &folder.join("upstream"))?) } else { None };
    report.add(format!("ready after start, {} pods stored", options.stored), "ms", Some(ours), upstream, Bar::AtMost(300.0));
    Ok(())
}

fn fill(options: &Options, tools: &Tools, plane: &Plane) -> Result<()> {
    println!("filling, {}", plane.name);
    plane.prepare(tools)?;
    let mut command = Command::new("timeout");
    command.arg("3600").arg(tools.tool("apibench")).arg("-kubeconfig").arg(&plane.kubeconfig);
    run(command.args(["-proto", "-t", "create", "-pids", &plane.pids, "-n", &options.stored.to_string()]))
}

fn ours(options: &Options, tools: &Tools, folder: &Path) -> Result<f64> {
    let files = Ours::prepare(options, folder)?;
    let (plane, _) = files.start(tools)?;
    fill(options, tools, &plane)?;
    drop(plane);
    let mut best = f64::INFINITY;
    for _ in 0..STARTS {
        let (plane, ms) = files.start(tools)?;
        println!("ready after {ms:.0} ms");
        best = best.min(ms);
        drop(plane);
    }
    Ok(best)
}

fn upstream(options: &Options, tools: &Tools, folder: &Path) -> Result<f64> {
    let plane = Plane::upstream(tools, folder)?;
    fill(options, tools, &plane)?;
    drop(plane);
    let mut best = f64::INFINITY;
    for _ in 0..STARTS {
        let mut probe = Command::new(tools.tool("probe"));
        let probe = probe.arg(format!("{UPSTREAM_URL}/readyz")).stdout(std::process::Stdio::piped()).spawn()?;
        let started = std::time::Instant::now();
        let waiting = std::thread::spawn(move || probe.wait_with_output().map(|_| started.elapsed()));
        let plane = Plane::upstream(tools, folder)?;
        let ms = waiting.join().map_err(|_| anyhow::anyhow!("the probe's thread panicked"))??.as_secs_f64() * 1e3;
        println!("ready after {ms:.0} ms");
        best = best.min(ms);
        drop(plane);
    }
    Ok(best)
}
