//! The components as processes of their own: `tiphys apiserver`, …, with upstream's flag names, or called by upstream's program name.
//!
//! Absent: configuration files of the scheduler, delegated authentication of the components' own ports (only health is served there).

mod apiserver;
mod args;
mod connection;
mod controller_manager;
mod dns;
mod health;
mod kubelet;
mod leader;
mod lone_network;
mod proxy;
mod scheduler;

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use clap::Command;
use tiphys_base::logging;
use tiphys_base::tasks::Tasks;
use tokio::signal::unix::{SignalKind, signal};

/// How long a component may take to end after it was told to.
const STOP_LIMIT: Duration = Duration::from_secs(10);

pub(crate) struct Component {
    /// `tiphys NAME`.
    name: &'static str,
    /// What upstream calls the program; calling ours by this name does the same.
    upstream: &'static str,
    about: &'static str,
    run: fn(&'static str, Vec<String>) -> Result<()>,
}

static COMPONENTS: [Component; 6] = [
    Component { name: "apiserver", upstream: "kube-apiserver", about: "Run an API server alone", run: apiserver::run },
    Component {
        name: "controller-manager",
        upstream: "kube-controller-manager",
        about: "Run the controllers alone",
        run: controller_manager::run,
    },
    Component { name: "scheduler", upstream: "kube-scheduler", about: "Run a scheduler alone", run: scheduler::run },
    Component { name: "kubelet", upstream: "kubelet", about: "Run a node agent alone", run: kubelet::run },
    Component { name: "proxy", upstream: "kube-proxy", about: "Run a service proxy alone", run: proxy::run },
    Component { name: "dns", upstream: "coredns", about: "Run a cluster DNS server alone", run: dns::run },
];

/// For the program's help; their flags are read by themselves.
pub(crate) fn commands() -> impl Iterator<Item = Command> {
    COMPONENTS.iter().map(|c| Command::new(c.name).about(c.about))
}

/// The component that a command line calls, and how, if it calls one.
pub(crate) fn called(args: &[String]) -> Option<impl FnOnce() -> Result<()> + use<>> {
    let program = Path::new(args.first()?).file_name()?.to_str()?;
    let by_name = COMPONENTS.iter().find(|c| c.upstream == program).map(|c| (c, c.upstream, 1));
    let by_word = || COMPONENTS.iter().find(|c| Some(c.name) == args.get(1).map(String::as_str)).map(|c| (c, c.name, 2));
    let (component, called, skip) = by_name.or_else(by_word)?;
    let rest: Vec<String> = args.iter().skip(skip).cloned().collect();
    Some(move || {
        if rest.iter().any(|a| a == "--version") {
            return crate::commands::print(&format!("Kubernetes {}\n", crate::VERSION));
        }
        (component.run)(called, rest)
    })
}

/// Runs what `start` starts until SIGTERM or SIGINT, or until `start` fails.
fn serve<F>(verbosity: u8, start: impl FnOnce(Tasks) -> F) -> Result<()>
where
    F: Future<Output = Result<()>>,
{
    logging::init(logging::filter_for_verbosity(verbosity), logging::Format::Text);
    crate::commands::runtime()?.block_on(async {
        let tasks = Tasks::new();
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let told = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        let ran = tokio::select! {
            ran = start(tasks.clone()) => ran,
            () = told => Ok(()),
        };
        tasks.shut_down(STOP_LIMIT).await;
        ran
    })
}

#[cfg(test)]
mod tests {
    use super::called;

    #[test]
    fn components_are_called_by_word_or_by_program_name() {
        let is = |line: &str| called(&line.split(' ').map(str::to_owned).collect::<Vec<_>>()).is_some();
        for line in ["tiphys apiserver --x", "/usr/bin/kube-apiserver --x", "kubelet", "tiphys kubelet", "kube-proxy apiserver"] {
            assert!(is(line), "{line}");
        }
        for line in ["tiphys up", "tiphys", "tiphys --name apiserver", "kubectl get"] {
            assert!(!is(line), "{line}");
        }
    }
}
