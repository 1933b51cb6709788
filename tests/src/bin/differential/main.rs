//! The differential suite: the same requests to our API server and to upstream's, and what differs in their answers.
//!
//! `cargo xtask differential` builds our server and starts this program in a network namespace of its own. Known differences stand in `known.txt`
//! with a reason each; a difference that is not there fails the run, and so does an entry that no difference needs, so the list only shrinks.
//! `--record FILE` keeps upstream's answers; `--recorded FILE` uses them instead of starting upstream.
//!
//! Deliberately absent: what needs controllers, nodes or other servers (exec, proxies, webhooks, aggregation).

mod access;
mod compare;
mod http;
mod mutate;
mod normal;
mod scripts;
mod servers;
mod step;
mod suite;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::compare::{Difference, Known, differences};
use crate::http::{Answer, Connection};
use crate::normal::normal;
use crate::servers::Server;
use crate::step::{Saved, Step};

const USAGE: &str =
    "differential [--upstream BIN_FOLDER | --recorded FILE] [--record FILE] [--known FILE] [--out FILE] -- PROGRAM [ARGUMENT…]";

#[derive(Default)]
struct Options {
    upstream: Option<PathBuf>,
    recorded: Option<PathBuf>,
    record: Option<PathBuf>,
    known: Option<PathBuf>,
    out: Option<PathBuf>,
    ours: Vec<String>,
}

fn options(args: impl Iterator<Item = String>) -> Result<Options> {
    let mut args = args;
    let mut options = Options::default();
    while let Some(arg) = args.next() {
        let slot = match arg.as_str() {
            "--upstream" => &mut options.upstream,
            "--recorded" => &mut options.recorded,
            "--record" => &mut options.record,
            "--known" => &mut options.known,
            "--out" => &mut options.out,
            "--" => {
                options.ours = args.collect();
                return Ok(options);
            }
            other => bail!("{other:?} is not known; {USAGE}"),
        };
        *slot = Some(PathBuf::from(args.next().with_context(|| format!("{arg} wants a value; {USAGE}"))?));
    }
    bail!("which program is ours? {USAGE}")
}

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<bool> {
    let options = options(std::env::args().skip(1))?;
    let steps = suite::all()?;
    let theirs = match &options.recorded {
        Some(path) => recorded(path, &steps)?,
        None => {
            let bin = options.upstream.as_deref().unwrap_or(Path::new("/opt/k8s-kit/bin"));
            ask(Server::upstream(bin)?, &steps, "upstream").await?
        }
    };
    if let Some(path) = &options.record {
        record(path, &steps, &theirs)?;
    }
    let ours = ask(Server::ours(&options.ours)?, &steps, "ours").await?;
    let mut known = match &options.known {
        Some(path) => Known::read(path)?,
        None => Known::parse(include_str!("known.txt"))?,
    };
    report(&steps, ours, theirs, &mut known, options.out.as_deref())
}

/// Every step's answer, in order.
async fn ask(mut server: Server, steps: &[Step], who: &str) -> Result<Vec<Answer>> {
    let mut connection = server.ready().await.with_context(|| who.to_owned())?;
    let begun = Instant::now();
    let answers = send_all(&mut connection, steps).await?;
    println!("{who}: {} requests in {:.1} s", answers.len(), begun.elapsed().as_secs_f64());
    Ok(answers)
}

async fn send_all(connection: &mut Connection, steps: &[Step]) -> Result<Vec<Answer>> {
    let mut saved = Saved::default();
    let mut answers = Vec::with_capacity(steps.len());
    for step in steps {
        let answer = connection.send(&step.filled(&saved)).await?;
        if answer.code == 0 {
            eprintln!("{}: {}", step.id, answer.body);
        }
        if let Some(name) = &step.save {
            saved.keep(name, &answer.body);
        }
        answers.push(answer);
    }
    Ok(answers)
}

/// The file holds `{ID: [REQUEST, ANSWER]}`; a request that has changed since makes it stale.
fn recorded(path: &Path, steps: &[Step]) -> Result<Vec<Answer>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let all: BTreeMap<String, Value> = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
    let one = |step: &Step| {
        let entry = all.get(&step.id).filter(|entry| entry[0] == request(step));
        entry
            .and_then(|e| Answer::from_json(&e[1]))
            .with_context(|| format!("{} has no answer to {:?}: record again", path.display(), step.id))
    };
    steps.iter().map(one).collect()
}

fn record(path: &Path, steps: &[Step], answers: &[Answer]) -> Result<()> {
    let all: BTreeMap<&str, Value> = steps.iter().zip(answers).map(|(s, a)| (s.id.as_str(), json!([request(s), a.to_json()]))).collect();
    std::fs::write(path, serde_json::to_string(&all)?).with_context(|| format!("cannot write {}", path.display()))
}

fn request(step: &Step) -> Value {
    json!([step.method, step.path, step.content_type, step.headers, step.body])
}

/// Prints what differs; true where that is nothing but what is known.
fn report(steps: &[Step], ours: Vec<Answer>, theirs: Vec<Answer>, known: &mut Known, out: Option<&Path>) -> Result<bool> {
    let (mut compared, mut same, mut expected) = (0, 0, 0);
    let mut new: Vec<(&str, Difference)> = Vec::new();
    for ((step, ours), theirs) in steps.iter().zip(ours).zip(theirs).filter(|((s, _), _)| !s.quiet) {
        compared += 1;
        let found = differences(&normal(ours), &normal(theirs));
        same += usize::from(found.is_empty());
        let (old, fresh): (Vec<_>, Vec<_>) = found.into_iter().partition(|d| known.has(&step.id, d));
        expected += usize::from(!old.is_empty() && fresh.is_empty());
        new.extend(fresh.into_iter().map(|d| (step.id.as_str(), d)));
    }
    let lines: Vec<String> = new.iter().map(|(id, (path, ours, theirs))| json!([id, path, ours, theirs]).to_string()).collect();
    match out {
        Some(path) => std::fs::write(path, lines.join("\n") + "\n").with_context(|| format!("cannot write {}", path.display()))?,
        None => lines.iter().for_each(|line| println!("{line}")),
    }
    let unused = known.unused();
    unused.iter().for_each(|entry| println!("known.txt: nothing differs any more at {entry:?}: take the entry away"));
    let differ = compared - same - expected;
    println!("{compared} requests compared: {same} answered as upstream does, {expected} differ as known, {differ} differ otherwise");
    Ok(new.is_empty() && unused.is_empty())
}
