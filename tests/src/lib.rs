//! Black box tests: HTTP and argv only. They know nothing of the crates. The program that they run is named by `TIPHYS_BIN`
//! (`cargo xtask ci` builds it and sets that); they need root, and work in network namespaces of their own.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The program under test.
pub fn program() -> Result<PathBuf> {
    let path =
        std::env::var_os("TIPHYS_BIN").context("TIPHYS_BIN names no program: run `cargo xtask ci`, or build it and set TIPHYS_BIN")?;
    Ok(PathBuf::from(path))
}

/// Runs a command to its end and gives what it printed; a failure carries both outputs.
pub fn run(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(text);
    }
    bail!("{command:?}: {}\n{text}\n{}", output.status, String::from_utf8_lossy(&output.stderr))
}
