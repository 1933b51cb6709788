//! Leader election of a component, under upstream's flags and Lease names.

use anyhow::{Result, bail};
use clap::{Arg, ArgMatches};
use tiphys_base::SystemClock;
use tiphys_base::tasks::Tasks;
use tiphys_client::{Client, LeaderConfig, LeaderElection};

use super::args::{Idle, duration, is_on, switch, text, value};

pub(super) fn flags() -> [Arg; 6] {
    [
        switch("leader-elect", "work only while holding the Lease (default: true)"),
        value("leader-elect-lease-duration", "after which a silent leader is replaced"),
        value("leader-elect-renew-deadline", "after which a leader that cannot renew gives up"),
        value("leader-elect-retry-period", "between tries"),
        value("leader-elect-resource-name", "name of the Lease"),
        value("leader-elect-resource-namespace", "namespace of the Lease"),
    ]
}

pub(super) static IDLE: [Idle; 1] = [Idle { name: "leader-elect-resource-lock", why: "it is always a Lease" }];

fn config(m: &ArgMatches, component: &str) -> Result<LeaderConfig> {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let unique = std::fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap_or_default();
    let defaults = LeaderConfig::new(
        text(m, "leader-elect-resource-namespace").unwrap_or("kube-system"),
        text(m, "leader-elect-resource-name").unwrap_or(component),
        &format!("{}_{}", host.trim(), unique.trim()),
    );
    Ok(LeaderConfig {
        lease_duration: duration(m, "leader-elect-lease-duration", defaults.lease_duration)?,
        renew_deadline: duration(m, "leader-elect-renew-deadline", defaults.renew_deadline)?,
        retry_period: duration(m, "leader-elect-retry-period", defaults.retry_period)?,
        ..defaults
    })
}

/// Calls `lead` once this process leads, and returns, with an error, when it does not any more: whoever started it starts it again.
/// Without leader election it leads at once and for ever.
pub(super) async fn elect(m: &ArgMatches, component: &str, client: Client, tasks: &Tasks, lead: impl FnOnce()) -> Result<()> {
    if !is_on(m, "leader-elect", true) {
        lead();
        return std::future::pending().await;
    }
    let config = config(m, component)?;
    tracing::info!(lease = config.name, identity = config.identity, "waiting to lead");
    let mut election = LeaderElection::new(client, config, SystemClock::shared());
    election.acquire().await;
    tracing::info!("leading");
    lead();
    let stop = tasks.token();
    let (ended, lost) = tokio::sync::oneshot::channel();
    // It gives the Lease up when told to stop, so it must outlive the select that ends this.
    tasks.spawn_draining("leader election", async move {
        election.hold(&stop).await;
        if !stop.is_cancelled() {
            let _ = ended.send(());
        }
    });
    match lost.await {
        Ok(()) => bail!("the Lease is lost; another process leads, or the API server does not answer"),
        Err(_) => std::future::pending().await,
    }
}
