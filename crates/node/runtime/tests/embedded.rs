//! The runtime against the kernel: real namespaces, real cgroups, a root file system of busybox, a supervisor per test.
//!
//! The harness is our own, since the supervisor must be a fresh process with one thread: this same file, started as
//! `embedded supervisor …`. It takes names (or parts of them) as arguments, as cargo's own does. Needs root and
//! `/bin/busybox` (Debian: busybox-static), as everything on a node needs root.

#[path = "support/mod.rs"]
mod support;

#[path = "support/confinement.rs"]
mod confinement;
#[path = "support/life.rs"]
mod life;
#[path = "support/restart.rs"]
mod restart;
#[path = "support/talking.rs"]
mod talking;
#[path = "support/users.rs"]
mod users;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.first().map(String::as_str) {
        Some("supervisor") => std::process::exit(tiphys_runtime::supervisor_main(&args)),
        Some("node") => restart::node(&args[1..]),
        _ => support::run(&args, &[life::TESTS, confinement::TESTS, talking::TESTS, users::TESTS, restart::TESTS].concat()),
    }
}
