//! Certificates are renewed while the cluster runs, a month before they end. Whoever shows one looks at its file again.

use std::time::Duration;

use jiff::Timestamp;
use tiphys_base::tasks::Tasks;
use tiphys_cli::cluster::{Cluster, Layout};
use tiphys_cli::{kubeconfig, pki};

/// The machine may sleep and its clock be set: no wait is longer than this.
const LONGEST_WAIT: Duration = Duration::from_secs(86_400);
const AFTER_FAILURE: Duration = Duration::from_secs(3600);

/// `first`: when the first is due.
pub(crate) fn start(layout: &Layout, cluster: &Cluster, first: Timestamp, tasks: &Tasks) {
    let (layout, cluster, clock) = (layout.clone(), cluster.clone(), crate::cluster::clock());
    tasks.spawn("certificates", async move {
        let mut due = first;
        // What was renewed while this process was not there.
        refresh_copies(&layout).await;
        loop {
            let now = clock.now();
            if now < due {
                tokio::time::sleep(due.duration_since(now).unsigned_abs().min(LONGEST_WAIT)).await;
                continue;
            }
            match pki::renew(&layout, &cluster, now) {
                Ok(next) => {
                    due = next;
                    refresh_copies(&layout).await;
                }
                Err(error) => {
                    tracing::error!(error = format!("{error:#}"), "certificates cannot be renewed");
                    tokio::time::sleep(AFTER_FAILURE).await;
                }
            }
        }
    });
}

/// Users' files are theirs: one that cannot be changed is told about and left. Another program may hold one for a while.
async fn refresh_copies(layout: &Layout) {
    let layout = layout.clone();
    let left = tokio::task::spawn_blocking(move || kubeconfig::refresh_copies(&layout)).await.unwrap_or_default();
    for (path, error) in left {
        tracing::warn!(path = %path.display(), error = format!("{error:#}"), "this copy of the kubeconfig is not renewed");
    }
}
