//! `tiphys`: arguments → configuration → run → drain. What runs stands in the crates; here it is put together.

mod addons;
mod cluster;
mod commands;
mod components;
mod demo;
mod image_command;
mod image_pull;
mod images;
mod keeping;
mod late;
mod node;
mod node_process;
mod pod_network;
mod renewal;
mod up;

use std::process::ExitCode;
use std::time::Duration;

use clap::Command;

/// What clients are told, with our own build behind it.
pub(crate) const VERSION: &str = tiphys_apiserver::GIT_VERSION;

/// The C library's allocator takes a fifth to a third of the API server's time at its work, which is many small trees (docs/decisions/performance.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A busy API server needs what it freed again at once: a twentieth of a create was page faults.
const KEEP_FREED: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    // `up`, and whatever else starts us, may have blocked the very signals that end us.
    tiphys_sys::signal::unblock_all();
    // The supervisor must stay small and have one thread, so it is on its way before anything else is set up.
    if args.get(1).map(String::as_str) == Some("supervisor") {
        return exit_code(tiphys_runtime::supervisor_main(args.get(2..).unwrap_or_default()));
    }
    if args.get(1).map(String::as_str) == Some("demo") {
        return report(demo::main());
    }
    tiphys_sys::allocator::keep_freed_memory_for(KEEP_FREED);
    if let Some(component) = components::called(&args) {
        return report(component());
    }
    report(run(args))
}

fn exit_code(code: i32) -> ExitCode {
    u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from)
}

fn report(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Vec<String>) -> anyhow::Result<()> {
    let matches = match command().try_get_matches_from(args) {
        Ok(matches) => matches,
        // Usage errors go to standard error with status 2, help and version to standard output with 0.
        Err(error) => error.exit(),
    };
    commands::dispatch(&matches)
}

fn command() -> Command {
    Command::new("tiphys")
        .about("A complete Kubernetes in one program")
        .version(VERSION)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands(tiphys_cli::flags::commands())
        .subcommands(components::commands())
        .subcommands(commands::processes())
}
