//! `cargo xtask ci`: every test that a change must pass, and a share of the official suite that fits the time.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::conformance;

/// Minutes of the official suite; which specs run rotates by day, so that all have their turn.
const CONFORMANCE_MINUTES: u64 = 2;

pub(crate) fn root() -> Result<PathBuf> {
    Ok(Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("no workspace above xtask")?.to_owned())
}

/// Runs a command of cargo in the workspace; its output goes through.
pub(crate) fn cargo(args: &[&str]) -> Result<()> {
    println!("$ cargo {}", args.join(" "));
    let status = Command::new(env!("CARGO")).args(args).current_dir(root()?).status().context("cannot run cargo")?;
    if status.success() { Ok(()) } else { bail!("cargo {} failed", args.join(" ")) }
}

/// The program as the tests of whole clusters run it.
pub(crate) fn program() -> Result<PathBuf> {
    cargo(&["build", "--profile", "fast", "-p", "tiphys"])?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(root()?.join("target"), PathBuf::from);
    Ok(target.join("fast/tiphys"))
}

pub(crate) fn run() -> Result<()> {
    // The crates' own tests first; those of whole clusters need the program, which is built meanwhile by nobody else.
    cargo(&["test", "--workspace", "--exclude", "tiphys-tests", "--no-fail-fast"])?;
    let program = program()?;
    println!("$ cargo test -p tiphys-tests");
    let smoke = Command::new(env!("CARGO")).args(["test", "-p", "tiphys-tests"]).env("TIPHYS_BIN", &program).current_dir(root()?).status()?;
    if !smoke.success() {
        bail!("the test of a whole cluster failed");
    }
    conformance::share(&program, CONFORMANCE_MINUTES)
}
