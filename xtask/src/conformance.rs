//! The official suite against a cluster of ours, through the kit beside the checkout.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::ci;

/// The conformance kit: beside the checkout, unless TIPHYS_KIT says otherwise.
pub(crate) fn kit() -> Result<PathBuf> {
    let kit = std::env::var_os("TIPHYS_KIT").map_or(ci::root()?.join("../shared/kit"), PathBuf::from);
    if kit.join("conformance.sh").exists() { Ok(kit) } else { bail!("{} is missing: the official suite is built by it", kit.display()) }
}

/// The specs that must pass: those of conformance, and `beyond.txt`, others of the official suite.
fn passing() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for file in ["conformance/passing.txt", "conformance/beyond.txt"] {
        let path = ci::root()?.join(file);
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        names.extend(text.lines().filter(|l| !l.is_empty()).map(str::to_owned));
    }
    Ok(names)
}

/// Seconds that each spec takes on upstream. What is not listed counts as a minute, or as what most take that are beyond conformance.
fn upstream_seconds(kit: &Path) -> impl Fn(&str) -> u64 {
    let text = std::fs::read_to_string(kit.join("upstream-times.txt")).unwrap_or_default();
    let times: std::collections::BTreeMap<String, f64> = text
        .lines()
        .filter_map(|line| {
            let (seconds, rest) = line.trim().split_once(' ')?;
            let name = rest.trim().trim_start_matches("passed").trim();
            Some((name.to_owned(), seconds.parse().ok()?))
        })
        .collect();
    let unknown = |name: &str| if name.contains("[Conformance]") { 60 } else { 15 };
    move |name| times.get(name).map_or_else(|| unknown(name), |s| s.ceil().max(1.0) as u64)
}

/// A share of `names` that takes about `budget` seconds on upstream, starting at a place that moves on every day.
fn pick(names: &[String], seconds: impl Fn(&str) -> u64, budget: u64, day: usize) -> Vec<String> {
    const LONGEST: u64 = 60;
    let mut left = budget;
    let mut chosen = Vec::new();
    for name in names.iter().cycle().skip(day * 37 % names.len().max(1)).take(names.len()) {
        let cost = seconds(name);
        if cost > LONGEST || name.contains("[Serial]") || name.contains("[Slow]") {
            continue;
        }
        if cost > left {
            break;
        }
        left -= cost;
        chosen.push(name.clone());
    }
    chosen
}

/// Runs a rotating share of `conformance/passing.txt` and `beyond.txt`; every spec of it must pass.
pub(crate) fn share(program: &Path, minutes: u64) -> Result<()> {
    const PARALLEL: u64 = 4;
    let kit = kit()?;
    let day = Command::new("date").arg("+%j").output().context("cannot run date")?;
    let day: usize = String::from_utf8_lossy(&day.stdout).trim().parse().unwrap_or(0);
    let chosen = pick(&passing()?, upstream_seconds(&kit), minutes * 60 * PARALLEL / 2, day);
    if chosen.is_empty() {
        bail!("conformance/passing.txt and beyond.txt list nothing to run");
    }
    println!("$ {} of the specs in conformance/passing.txt and beyond.txt", chosen.len());
    let folder = std::env::temp_dir().join(format!("tiphys-conformance-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("names"), chosen.join("\n") + "\n")?;
    let ran = against(
        program,
        &kit,
        &folder,
        &["--all", "--parallel", &PARALLEL.to_string(), "--repeat-fails", "--names"],
        Some(&folder.join("names")),
    );
    std::fs::remove_dir_all(&folder).ok();
    ran
}

/// `cargo xtask conformance [options of conformance.sh]`.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let kit = kit()?;
    let program = ci::program()?;
    let folder = std::env::temp_dir().join(format!("tiphys-conformance-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    against(&program, &kit, &folder, &args, None)
}

/// Builds what the kit does not have yet: these programs, and the images.
pub(crate) fn make_ready(kit: &Path, programs: &[&str]) -> Result<()> {
    for (script, args) in [("install.sh", programs), ("images.sh", &[])] {
        let status = Command::new(kit.join(script)).args(args).status().with_context(|| format!("cannot run {script}"))?;
        if !status.success() {
            bail!("{script} failed");
        }
    }
    Ok(())
}

/// Makes the kit ready and runs `cluster.sh` in a namespace without a way out.
fn against(program: &Path, kit: &Path, folder: &Path, args: &[&str], last: Option<&Path>) -> Result<()> {
    make_ready(kit, &["conformance", "kubectl", "images", "crane"])?;
    let mut command = Command::new(kit.join("in-namespace.sh"));
    command.arg(ci::root()?.join("conformance/cluster.sh")).arg(program).arg(folder).arg(kit).args(args).args(last);
    let status = command.status().context("cannot run in-namespace.sh")?;
    if status.success() { Ok(()) } else { bail!("specs that stand in conformance/passing.txt or beyond.txt failed") }
}

#[cfg(test)]
mod tests {
    use super::pick;

    #[test]
    fn shares_fit_the_budget_and_move_on() {
        let names: Vec<String> = (0..10).map(|i| format!("spec {i}")).chain(["x [Serial]".into(), "long".into()]).collect();
        let seconds = |name: &str| if name == "long" { 600 } else { 10 };
        let first = pick(&names, seconds, 45, 0);
        assert_eq!(first, ["spec 0", "spec 1", "spec 2", "spec 3"]);
        let second = pick(&names, seconds, 45, 1);
        assert_ne!(first, second);
        assert!(pick(&names, seconds, 10_000, 3).len() == 10, "neither serial nor long ones");
        assert!(pick(&[], seconds, 100, 5).is_empty());
    }
}
