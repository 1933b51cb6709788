//! What a client that means no harm sees of clients that do: `xtask/bench/strain`.
//!
//! Absent: upstream. Its API server had 20 GiB of memory after two minutes of this, and the measurement did not come to an end: that takes the machine.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::Options;
use super::parse::{self, median};
use super::report::{Bar, Report};
use super::servers::{Ours, Plane};
use super::tools::{Tools, text_of};

pub(super) fn measure(options: &Options, tools: &Tools, folder: &Path, report: &mut Report) -> Result<()> {
    let (ours, _) = Ours::prepare(options, &folder.join("ours"))?.start(tools)?;
    let mine = strain(tools, &ours)?;
    drop(ours);
    let alone = mine.iter().filter(|l| l.attack == "none").map(|l| l.p99 / 1e3).fold(0.0, f64::max);
    for name in names(&mine) {
        let of = |value: fn(&parse::Strain) -> f64| median(mine.iter().filter(|l| l.attack == name).map(value).collect());
        // What leaves the others within twice their time is meant well enough (issue 4).
        let bar = if name == "none" { Bar::None } else { Bar::AtMost(2.0 * alone) };
        report.add(format!("another client beside {name}: p50"), "ms", of(|l| l.p50 / 1e3), None, Bar::None);
        report.add(format!("another client beside {name}: p99"), "ms", of(|l| l.p99 / 1e3), None, bar);
        report.add(format!("another client beside {name}: failed"), "", of(|l| l.failed), None, Bar::None);
    }
    Ok(())
}

/// Each attack once, in the order in which they were made.
fn names(lines: &[parse::Strain]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for line in lines {
        if !names.contains(&line.attack) {
            names.push(line.attack.clone());
        }
    }
    names
}

fn strain(tools: &Tools, plane: &Plane) -> Result<Vec<parse::Strain>> {
    plane.prepare(tools)?;
    println!("strain, {}", plane.name);
    let text = text_of(Command::new("timeout").arg("1800").arg(tools.tool("strain")).args([
        "-server",
        &plane.field("server")?,
        "-token",
        &plane.field("token")?,
    ]))?;
    print!("{text}");
    Ok(text.lines().filter_map(parse::strain).collect())
}
