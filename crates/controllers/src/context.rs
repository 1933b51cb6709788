use std::sync::Arc;
use std::time::Duration;

use tiphys_base::Clock;
use tiphys_base::tasks::Tasks;
use tiphys_client::{Client, EventRecorder, Executor, Informers, Planned, Planner, Reconcile, WorkQueue, run_controller};

use crate::CONTROLLERS;
use crate::accounts::Accounts;
use crate::shared::discovery::Discovery;

/// Upstream's flags, as far as controllers read them.
#[derive(Clone)]
pub struct Config {
    /// `--controllers`: names, `*`, and `-name`.
    pub controllers: Vec<String>,
    pub clock: Arc<dyn Clock>,
    /// `--root-ca-file`: PEM that pods get as `ca.crt`; empty: the publisher does nothing.
    pub root_ca: Vec<u8>,
    /// `--cluster-signing-cert-file` and `--cluster-signing-key-file`: PEM; empty: nothing is signed.
    pub signing_ca: Vec<u8>,
    pub signing_key: Vec<u8>,
    /// `--cluster-cidr` with `--allocate-node-cidrs`: empty: nodes get no pod range.
    pub cluster_cidrs: Vec<String>,
    pub node_cidr_mask_size_ipv4: u8,
    pub node_cidr_mask_size_ipv6: u8,
    /// `--node-monitor-grace-period`.
    pub node_monitor_grace_period: Duration,
    /// `--terminated-pod-gc-threshold`.
    pub terminated_pod_gc_threshold: usize,
    /// `--use-service-account-credentials`: each controller speaks under an account of its own; without it all speak as the client they are given.
    pub accounts: Option<Arc<dyn Accounts>>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            controllers: vec!["*".into()],
            clock: tiphys_base::SystemClock::shared(),
            root_ca: Vec::new(),
            signing_ca: Vec::new(),
            signing_key: Vec::new(),
            cluster_cidrs: Vec::new(),
            node_cidr_mask_size_ipv4: 24,
            node_cidr_mask_size_ipv6: 64,
            node_monitor_grace_period: Duration::from_secs(50),
            terminated_pod_gc_threshold: 12500,
            accounts: None,
        }
    }
}

/// What a controller is started with.
pub struct Context {
    pub config: Config,
    pub client: Client,
    pub informers: Informers,
    pub tasks: Tasks,
    /// Shared by all that work on every kind there is.
    pub(crate) discovery: Discovery,
}

impl Context {
    pub fn recorder(&self, component: &'static str) -> EventRecorder {
        EventRecorder::new(self.client.clone(), component, "", Arc::clone(&self.config.clock), &self.tasks)
    }

    pub fn executor<K: tiphys_client::QueueKey>(&self, component: &'static str) -> Executor<K> {
        Executor::new(self.client.clone(), self.recorder(component))
    }

    /// Runs a planner once the caches that its executor reads hold their first lists.
    pub fn run<P: Planner>(&self, name: &'static str, workers: usize, queue: WorkQueue<P::Key>, planner: P, executor: Executor<P::Key>) {
        let planned = Arc::new(Planned { planner, executor, clock: Arc::clone(&self.config.clock) });
        let tasks = self.tasks.clone();
        self.tasks.spawn(name, async move {
            planned.executor.synced().await;
            run_controller(name, workers, &queue, planned, &tasks);
        });
    }

    /// Runs a controller that talks to the API server before it decides.
    pub fn run_live<R: Reconcile>(
        &self,
        name: &'static str,
        workers: usize,
        queue: WorkQueue<R::Key>,
        reconciler: Arc<R>,
        synced: impl Future<Output = ()> + Send + 'static,
    ) {
        let tasks = self.tasks.clone();
        self.tasks.spawn(name, async move {
            synced.await;
            run_controller(name, workers, &queue, reconciler, &tasks);
        });
    }
}

/// The started controllers. Dropping it does not stop them.
pub struct Running {
    tasks: Tasks,
}

impl Running {
    pub async fn stop(self) {
        self.tasks.shut_down(Duration::from_secs(5)).await;
    }
}

pub struct Controllers;

impl Controllers {
    pub fn start(config: Config, client: Client) -> Running {
        let informers = Informers::new(client.clone());
        Self::start_with(config, client, informers)
    }

    /// On informers that others in the process use too. They read as whoever made them; all else is under the controllers' own accounts.
    pub fn start_with(config: Config, client: Client, informers: Informers) -> Running {
        let tasks = Tasks::new();
        let discovery = Discovery::new(client.clone());
        discovery.follow(&informers);
        for entry in CONTROLLERS.iter().filter(|e| is_wanted(&config.controllers, e.name, e.off_by_default)) {
            let accounts = config.accounts.as_ref().filter(|_| !entry.account.is_empty());
            let client = accounts.map_or_else(|| client.clone(), |accounts| accounts.client(entry.account));
            let (config, informers, tasks, discovery) = (config.clone(), informers.clone(), tasks.clone(), discovery.clone());
            (entry.start)(&Context { config, client, informers, tasks, discovery });
        }
        Running { tasks }
    }
}

fn is_wanted(list: &[String], name: &str, off_by_default: bool) -> bool {
    if list.iter().any(|entry| entry == name) {
        return true;
    }
    let refused = list.iter().any(|entry| entry.strip_prefix('-') == Some(name));
    !refused && !off_by_default && list.iter().any(|entry| entry == "*")
}

#[cfg(test)]
mod tests {
    use super::is_wanted;

    #[test]
    fn the_list_means_what_upstreams_flag_means() {
        let list = |text: &str| text.split(',').map(str::to_owned).collect::<Vec<_>>();
        for (text, name, off, wanted) in [
            ("*", "a", false, true),
            ("*", "a", true, false),
            ("*,a", "a", true, true),
            ("*,-a", "a", false, false),
            ("b", "a", false, false),
            ("b", "b", false, true),
        ] {
            assert_eq!(is_wanted(&list(text), name, off), wanted, "{text} {name}");
        }
    }
}
