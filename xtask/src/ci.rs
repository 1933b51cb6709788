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

/// What cargo tells a program that it runs.
const OF_CARGO: [&str; 4] = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"];

/// Cargo in the workspace, as somebody runs it by hand: ring's build, which all others wait for, looks at what cargo has told us of us, and would be
/// made anew each time that it is not the same.
pub(crate) fn cargo_command() -> Result<Command> {
    let mut command = Command::new(env!("CARGO"));
    command.current_dir(root()?);
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| OF_CARGO.iter().any(|prefix| name.starts_with(prefix))) {
            command.env_remove(name);
        }
    }
    Ok(command)
}

/// Runs a command of cargo in the workspace; its output goes through.
pub(crate) fn cargo(args: &[&str]) -> Result<()> {
    println!("$ cargo {}", args.join(" "));
    let status = cargo_command()?.args(args).status().context("cannot run cargo")?;
    if status.success() { Ok(()) } else { bail!("cargo {} failed", args.join(" ")) }
}

/// The program as the tests of whole clusters run it.
pub(crate) fn program() -> Result<PathBuf> {
    cargo(&["build", "--profile", "fast", "-p", "tiphys"])?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(root()?.join("target"), PathBuf::from);
    Ok(target.join("fast/tiphys"))
}

/// kubectl 1.32, for users with an older client: built once, outside the checkout. Where Go or its modules cannot be had, the reason is
/// printed and the tests go on without it.
fn old_kubectl() -> Result<Option<PathBuf>> {
    let place = Path::new("/var/cache/tiphys/kubectl-1.32");
    if place.exists() {
        return Ok(Some(place.to_owned()));
    }
    println!("$ go build kubectl 1.32");
    let version = "-s -w -X k8s.io/component-base/version.gitVersion=v1.32.13 -X k8s.io/component-base/version.gitMajor=1 \
                   -X k8s.io/component-base/version.gitMinor=32";
    std::fs::create_dir_all("/var/cache/tiphys")?;
    let built = Command::new("go")
        .args(["build", "-trimpath", "-ldflags", version, "-o"])
        .arg(place)
        .arg(".")
        .current_dir(root()?.join("xtask/kubectl-1.32"))
        .status();
    match built {
        Ok(status) if status.success() => Ok(Some(place.to_owned())),
        Ok(status) => {
            println!("without kubectl 1.32: go build ended with {status}");
            Ok(None)
        }
        Err(error) => {
            println!("without kubectl 1.32: go cannot be run: {error}");
            Ok(None)
        }
    }
}

/// Whole clusters from the outside. Each test works in a namespace of its own, so they run beside each other.
fn black_box(program: &Path) -> Result<()> {
    let kit = conformance::kit()?;
    conformance::make_ready(&kit, &["kubectl", "images", "crane", "kube-controller-manager", "kube-scheduler", "helm", "helm3"])?;
    println!("$ cargo test -p tiphys-tests");
    let mut command = cargo_command()?;
    command.args(["test", "-p", "tiphys-tests", "--", "--test-threads=4"]).env("TIPHYS_BIN", program).env("TIPHYS_KIT", &kit);
    // Its build takes minutes of both cores, so it is asked for: `TIPHYS_OLD_KUBECTL=1 cargo xtask ci`.
    if std::env::var_os("TIPHYS_OLD_KUBECTL").is_some()
        && let Some(old) = old_kubectl()?
    {
        command.env("TIPHYS_KUBECTL_OLD", old);
    }
    if command.status()?.success() { Ok(()) } else { bail!("tests of whole clusters failed") }
}

pub(crate) fn run() -> Result<()> {
    // The crates' own tests first; those of whole clusters need the program, which is built meanwhile by nobody else.
    cargo(&["test", "--workspace", "--exclude", "tiphys-tests", "--no-fail-fast"])?;
    let program = program()?;
    // What the build has written goes to the disk first: a store that waits for the disk behind a gigabyte of it makes leaders lose their Leases.
    Command::new("sync").status().context("cannot run sync")?;
    black_box(&program)?;
    conformance::share(&program, CONFORMANCE_MINUTES)
}
