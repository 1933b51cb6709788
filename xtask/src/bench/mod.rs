//! `cargo xtask bench [PART…]`: what the program costs, beside upstream's on the same machine in the same run.
//!
//! Everything is built or looked up first; then the same program goes on inside a network namespace without a way out (the kit's
//! `in-namespace.sh`). Servers are given the same work in turn, ours first in one round and upstream's first in the next, and the table shows
//! medians: so what else the machine does falls on both alike. CPU time per operation says more than rates on a shared machine.
//!
//! Absent: any assertion. Bars are shown with what was measured; nothing fails because a machine was slow.

mod api;
mod cluster;
mod parse;
mod process;
mod report;
mod servers;
mod stored;
mod strain;
mod tools;

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use report::Report;
use tools::Tools;

const USAGE: &str = "cargo xtask bench [PART…] [options]
parts (all of them by default):
  up      from nothing to a Ready node and to the demo's answer
  idle    memory and CPU of a cluster of one node that nobody uses
  pods    pods from create to Running, one by one and many at once; exec
  api     create, get, list, watch, patch, delete; server CPU, rates, peak memory
  sched   pods to nodes
  stored  start with many objects stored
  strain  what a client sees of others that send bombs, are slow, or compute
options:
  --program PATH     take this program instead of building one (profile fast)
  --server PATH      an API server by itself, for the parts that need no more; default: the program's `apiserver`
  --ours             leave upstream out
  --rounds N         rounds of `api` (3)
  --pods N           pods of `api` (10000)
  --watchers N       watchers of `api` (1000)
  --nodes N --pending N   fake nodes and pods of `sched` (1000, 5000)
  --stored N         objects of `stored` (100000)
  --idle-seconds N   how long `idle` looks (60)
  --only json|protobuf    one encoding only, in `api`
  --out FILE         the Markdown file; default docs/bench/DATE-PARTS.md; - for none";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Up,
    Idle,
    Pods,
    Api,
    Sched,
    Stored,
    Strain,
}

const PARTS: [(&str, Part); 7] = [
    ("up", Part::Up),
    ("idle", Part::Idle),
    ("pods", Part::Pods),
    ("api", Part::Api),
    ("sched", Part::Sched),
    ("stored", Part::Stored),
    ("strain", Part::Strain),
];

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Options {
    parts: Vec<Part>,
    program: Option<PathBuf>,
    server: Option<PathBuf>,
    upstream: bool,
    rounds: usize,
    pods: usize,
    watchers: usize,
    nodes: usize,
    pending: usize,
    stored: usize,
    idle_seconds: u64,
    only: Option<String>,
    out: Option<String>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            parts: Vec::new(),
            program: None,
            server: None,
            upstream: true,
            rounds: 3,
            pods: 10_000,
            watchers: 1000,
            nodes: 1000,
            pending: 5000,
            stored: 100_000,
            idle_seconds: 60,
            only: None,
            out: None,
        }
    }
}

impl Options {
    fn parse(args: &[String]) -> Result<Options> {
        let mut options = Options::default();
        let mut args = args.iter().map(String::as_str);
        while let Some(arg) = args.next() {
            if let Some((_, part)) = PARTS.iter().find(|(name, _)| *name == arg) {
                options.parts.push(*part);
                continue;
            }
            if arg == "--ours" {
                options.upstream = false;
                continue;
            }
            let mut value = || args.next().with_context(|| format!("{arg} needs a value\n{USAGE}"));
            options.set(arg, &mut value)?;
        }
        if options.parts.is_empty() {
            options.parts = PARTS.iter().map(|(_, part)| *part).collect();
        }
        Ok(options)
    }

    fn set<'a>(&mut self, flag: &str, value: &mut dyn FnMut() -> Result<&'a str>) -> Result<()> {
        match flag {
            "--program" => self.program = Some(absolute(value()?)?),
            "--server" => self.server = Some(absolute(value()?)?),
            "--rounds" => self.rounds = value()?.parse()?,
            "--pods" => self.pods = value()?.parse()?,
            "--watchers" => self.watchers = value()?.parse()?,
            "--nodes" => self.nodes = value()?.parse()?,
            "--pending" => self.pending = value()?.parse()?,
            "--stored" => self.stored = value()?.parse()?,
            "--idle-seconds" => self.idle_seconds = value()?.parse()?,
            "--only" => self.only = Some(value()?.to_owned()),
            "--out" => self.out = Some(value()?.to_owned()),
            _ => bail!("{flag}?\n{USAGE}"),
        }
        Ok(())
    }

    fn has(&self, part: Part) -> bool {
        self.parts.contains(&part)
    }

    /// Parts for which a whole cluster is started.
    fn needs_cluster(&self) -> bool {
        [Part::Up, Part::Idle, Part::Pods].iter().any(|p| self.has(*p))
    }

    fn encodings(&self) -> Vec<&'static str> {
        ["json", "protobuf"].into_iter().filter(|e| self.only.as_deref().is_none_or(|only| only == *e)).collect()
    }
}

fn absolute(path: &str) -> Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("{path} is no path"))
}

/// `cargo xtask bench …`, outside of the namespace.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let mut options = Options::parse(args)?;
    let tools = Tools::locate()?;
    tools.build()?;
    tools.install_upstream(&options)?;
    let mut again: Vec<String> = args.to_vec();
    // The parts after `api` need no more than an API server.
    if options.program.is_none() && (options.server.is_none() || options.needs_cluster() || options.has(Part::Sched)) {
        let program = crate::ci::program()?;
        again.extend(["--program".to_owned(), program.display().to_string()]);
        options.program = Some(program);
    }
    let this = std::env::current_exe().context("cannot find this program")?;
    let status = Command::new(tools.kit.join("in-namespace.sh")).arg(this).arg("bench-inside").args(again).status();
    if status.context("cannot run in-namespace.sh")?.success() { Ok(()) } else { bail!("the measurement failed") }
}

/// The same, inside of it.
pub(crate) fn run_inside(args: &[String]) -> Result<()> {
    let options = Options::parse(args)?;
    let tools = Tools::locate()?;
    let folder = std::env::temp_dir().join(format!("tiphys-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let mut report = Report::default();
    let measured = measure(&options, &tools, &folder, &mut report);
    std::fs::remove_dir_all(&folder).ok();
    // What was measured before something went wrong is shown all the same.
    report.print();
    report.save(&options, &tools)?;
    measured
}

fn measure(options: &Options, tools: &Tools, folder: &std::path::Path, report: &mut Report) -> Result<()> {
    if options.needs_cluster() {
        cluster::measure(options, tools, &folder.join("cluster"), report)?;
    }
    if options.has(Part::Api) || options.has(Part::Sched) {
        api::measure(options, tools, &folder.join("api"), report)?;
    }
    if options.has(Part::Stored) {
        stored::measure(options, tools, &folder.join("stored"), report)?;
    }
    if options.has(Part::Strain) {
        strain::measure(options, tools, &folder.join("strain"), report)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Options> {
        Options::parse(&text.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn what_can_be_asked_for() {
        let all = parse("").expect("nothing is everything");
        assert_eq!(all.parts.len(), PARTS.len());
        assert!(all.upstream && all.needs_cluster());
        let some = parse("api --ours --rounds 1 --pods 100 --only json --server /x/y").expect("options");
        assert_eq!((some.parts.as_slice(), some.upstream, some.rounds, some.pods), (&[Part::Api][..], false, 1, 100));
        assert_eq!(some.encodings(), ["json"]);
        assert!(!some.needs_cluster());
        assert!(parse("--rounds").is_err() && parse("--rounds x").is_err() && parse("--what 1").is_err());
    }
}
