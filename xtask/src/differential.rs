//! Our API server beside upstream's: `cargo xtask differential [options of the differential program]`.
//!
//! It needs upstream's programs from the kit beside the checkout, so it is run by hand and by the bench, not by `.ci/run`.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::ci;

pub(crate) fn run(args: &[String]) -> Result<()> {
    let root = ci::root()?;
    for what in [&["tiphys"][..], &["tiphys-tests", "--bin", "differential"]] {
        let status = ci::cargo_command()?.args(["build", "--quiet", "--package"]).args(what).status();
        if !status.context("cannot run cargo")?.success() {
            bail!("{} does not build", what[0]);
        }
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from).join("debug");
    let status = Command::new("unshare")
        .args(["--net", "sh", "-c", r#"ip link set lo up && exec "$@""#, "sh"])
        .arg(target.join("differential"))
        .args(args)
        .arg("--")
        .arg(target.join("tiphys"))
        .arg("apiserver")
        .status()
        .context("cannot run unshare")?;
    if status.success() { Ok(()) } else { bail!("answers differ from upstream's") }
}
