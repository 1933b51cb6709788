//! Everything that reads what strangers send, fed with what nobody meant to send: `cargo xtask fuzz [TARGET …] [--cases N] [--seed S] [--from I]`.
//!
//! A small mutating driver of our own ([`driver`]) instead of libFuzzer, which needs a nightly compiler: cases are made from a seed and a number, so every
//! finding can be had again by both, and a few thousand run with `cargo test -p tiphys-fuzz`. Deliberately absent: guidance by coverage.

mod driver;
#[cfg(test)]
mod largest;
mod requests;
mod streams;
mod targets;

use std::process::ExitCode;

use peak_alloc::PeakAlloc;

use crate::driver::{Limits, Run};
use crate::targets::TARGETS;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

struct Options {
    targets: Vec<String>,
    run: Run,
}

fn options(args: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options { targets: Vec::new(), run: Run { cases: 10_000, seed: 1, from: 0 } };
    let mut args = args;
    while let Some(arg) = args.next() {
        let Some(name) = arg.strip_prefix("--") else {
            options.targets.push(arg);
            continue;
        };
        let value = args.next().and_then(|v| v.replace('_', "").parse().ok()).ok_or_else(|| format!("--{name} takes a number"))?;
        match name {
            "cases" => options.run.cases = value,
            "seed" => options.run.seed = value,
            "from" => options.run.from = value,
            _ => return Err(format!("--{name} is not known")),
        }
    }
    match options.targets.iter().find(|t| !TARGETS.iter().any(|k| k.name == **t)) {
        Some(unknown) => Err(format!("{unknown} is none of {}", TARGETS.iter().map(|t| t.name).collect::<Vec<_>>().join(", "))),
        None => Ok(options),
    }
}

fn main() -> ExitCode {
    let options = match options(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(why) => {
            eprintln!("{why}");
            return ExitCode::FAILURE;
        }
    };
    let wanted = |name: &str| options.targets.is_empty() || options.targets.iter().any(|t| t == name);
    let mut failed = false;
    for target in TARGETS.iter().filter(|t| wanted(t.name)) {
        let report = driver::run(target, &options.run, &Limits::default(), &MEMORY);
        println!("{report}");
        failed |= !report.findings.is_empty();
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Memory is the whole program's, so that one run is made at a time.
    static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());

    fn run(target: &targets::Target, cases: u64) -> driver::Report {
        let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        driver::run(target, &Run { cases, seed: 7, from: 0 }, &Limits::unhurried(), &MEMORY)
    }

    #[test]
    fn nothing_breaks_a_parser() {
        for target in TARGETS {
            let report = run(target, 1_000);
            assert!(report.findings.is_empty(), "{report}");
            assert!(report.accepted > 0, "{}: nothing that was made could be read, so that little was tested", target.name);
        }
    }

    #[test]
    fn trees_stay_within_ten_times_the_largest_body() {
        let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        largest::trees_stay_within_ten_times_the_largest_body();
    }

    #[test]
    fn a_finding_can_be_had_again() {
        let corpus = (targets::TARGETS[0].seeds)();
        assert_eq!(driver::case(&corpus, &["x"], 1, 77), driver::case(&corpus, &["x"], 1, 77));
        assert_ne!(driver::case(&corpus, &["x"], 1, 77), driver::case(&corpus, &["x"], 2, 77));
    }

    /// The driver sees what goes wrong, or it sees nothing.
    #[test]
    fn what_breaks_is_told() {
        let broken =
            |read| targets::Target { name: "broken", seeds: || vec![b"abc".to_vec()], words: &["!"], memory: (10, 256 << 10), read };
        let shouts = run(&broken(|bytes| !bytes.contains(&b'!') || panic!("an exclamation")), 1_000).to_string();
        assert!(shouts.contains("panicked: an exclamation"), "{shouts}");
        let eats = run(&broken(|bytes| vec![1u8; bytes.len() * 4000].len() != 1), 1_000).to_string();
        assert!(eats.contains("bytes of memory"), "{eats}");
    }
}
