//! The parsers, fed with nonsense: `cargo xtask fuzz [TARGET …] [--cases N] [--seed S] [--from I]`. What it runs is `fuzz/`, optimized and with overflow
//! checks.

use anyhow::{Context, Result, bail};

use crate::ci;

pub(crate) fn run(args: &[String]) -> Result<()> {
    let mut command = ci::cargo_command()?;
    command.args(["run", "--quiet", "--profile", "fuzz", "--package", "tiphys-fuzz", "--"]).args(args);
    let status = command.status().context("cannot run cargo")?;
    if status.success() { Ok(()) } else { bail!("something was found, or the program did not come to its end") }
}
