use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tiphys_base::Clock;
use tiphys_base::tasks::Tasks;
use tiphys_client::{Client, EventRecorder, Informer, Informers, random};
use tiphys_types::api::core::v1::{Namespace, Node, Pod};
use tiphys_types::api::policy::v1::PodDisruptionBudget;
use tiphys_types::pods;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::framework::cache::Cache;
use crate::framework::cycle::{self, Decision, Nominated, Turn};
use crate::framework::queue::{Queue, Queued};
use crate::framework::{CycleState, PodInfo, Point, Profile, Refusal, Snapshot, Unfit};
use crate::plugins::pod_topology_spread::Companions;
use crate::plugins::volume_binding::Volumes;
use crate::plugins::{self, default_preemption};

pub struct Config {
    /// The `spec.schedulerName` that it answers to.
    pub scheduler_name: String,
    pub clock: Arc<dyn Clock>,
}

impl Default for Config {
    fn default() -> Self {
        Config { scheduler_name: "default-scheduler".into(), clock: tiphys_base::SystemClock::shared() }
    }
}

/// A started scheduler. Dropping it does not stop it.
pub struct Running {
    tasks: Tasks,
}

impl Running {
    pub async fn stop(self) {
        self.tasks.shut_down(Duration::from_secs(5)).await;
    }
}

/// The shared state of the feeding handlers, the scheduling loop and the binding tasks.
pub struct Scheduler {
    pub(crate) config: Config,
    pub(crate) client: Client,
    pub(crate) recorder: EventRecorder,
    pub(crate) tasks: Tasks,
    pub(crate) profile: Arc<Profile>,
    pub(crate) cache: Mutex<Cache>,
    pub(crate) queue: Mutex<Queue>,
    pub(crate) wake: Notify,
    pub(crate) pods: Informer<Pod>,
    pub(crate) budgets: Informer<PodDisruptionBudget>,
    turn: AtomicUsize,
}

impl Scheduler {
    pub fn start(config: Config, client: Client, informers: &Informers) -> Running {
        let tasks = Tasks::new();
        let volumes = Volumes::new(informers);
        let companions = Companions::new(informers);
        let context = plugins::Context { client: client.clone(), volumes: volumes.clone(), companions: companions.clone() };
        let profile = Arc::new(Profile::new(config.scheduler_name.clone(), plugins::defaults(&context)));
        let scheduler = Arc::new(Scheduler {
            recorder: EventRecorder::new(client.clone(), "default-scheduler", "", Arc::clone(&config.clock), &tasks),
            queue: Mutex::new(Queue::new(Arc::clone(&profile))),
            cache: Mutex::default(),
            wake: Notify::new(),
            pods: informers.of(),
            budgets: informers.of(),
            turn: AtomicUsize::new(0),
            tasks: tasks.clone(),
            profile,
            client,
            config,
        });
        let (nodes, namespaces) = (informers.of::<Node>(), informers.of::<Namespace>());
        scheduler.feed(&nodes, &namespaces, &volumes);
        tasks.spawn("scheduler", async move {
            tokio::join!(nodes.synced(), namespaces.synced(), volumes.synced(), scheduler.pods.synced(), scheduler.budgets.synced());
            companions.synced().await;
            scheduler.run().await;
        });
        Running { tasks }
    }

    async fn run(self: Arc<Self>) {
        loop {
            let woken = self.wake.notified();
            let (next, deadline) = {
                let mut queue = self.queue.lock();
                (queue.pop(Instant::now()), queue.next_deadline())
            };
            match (next, deadline) {
                (Some(queued), _) => {
                    self.try_pod(&queued);
                    // Binding tasks and handlers of a busy cluster get their turn.
                    tokio::task::yield_now().await;
                }
                (None, Some(at)) => tokio::select! { () = woken => {}, () = tokio::time::sleep_until(at) => {} },
                (None, None) => woken.await,
            }
        }
    }

    fn try_pod(self: &Arc<Self>, queued: &Queued) {
        let pod = Arc::clone(&queued.info);
        if !self.still_pending(&pod) {
            self.queue.lock().remove(pod.uid());
            return;
        }
        let decided = catch_unwind(AssertUnwindSafe(|| self.decide(&pod)));
        match decided {
            Ok(Ok(decision)) => self.begin_binding(pod, decision),
            Ok(Err((unfit, world))) => self.no_fit(&pod, *unfit, &world),
            Err(_) => {
                tracing::error!(pod = %pod.name(), "scheduling panicked");
                self.refused(&pod, &Refusal::error("", "internal error"));
            }
        }
    }

    /// Neither deleted, nor leaving, nor placed since it was queued.
    fn still_pending(&self, pod: &PodInfo) -> bool {
        let now = self.pods.get(pod.namespace(), pod.name());
        now.is_some_and(|p| {
            p.metadata.uid == pod.pod.metadata.uid && pods::node_name(&p).is_empty() && p.metadata.deletion_timestamp.is_none()
        }) && !self.cache.lock().counts(pod.uid())
    }

    fn decide(&self, pod: &PodInfo) -> Result<Decision, (Box<Unfit>, (Snapshot, Nominated))> {
        let snapshot = self.cache.lock().snapshot();
        let nominated = self.queue.lock().nominated().clone();
        let turn = Turn { start: self.turn.load(Ordering::Relaxed), tie: random::any_u64() };
        let decided = cycle::schedule(&self.profile, &snapshot, pod, &nominated, turn);
        if let Ok(decision) = &decided {
            self.turn.store((turn.start + decision.examined) % snapshot.nodes.len().max(1), Ordering::Relaxed);
        }
        decided.map_err(|unfit| (unfit, (snapshot, nominated)))
    }

    fn no_fit(self: &Arc<Self>, pod: &Arc<PodInfo>, mut unfit: Unfit, (snapshot, nominated): &(Snapshot, Nominated)) {
        let mut chosen = None;
        if unfit.error().is_none() && unfit.total > 0 {
            let budgets = self.budgets.list();
            let start = self.turn.load(Ordering::Relaxed);
            let world = default_preemption::World { profile: &self.profile, snapshot, nominated, budgets: &budgets, start };
            match default_preemption::find(&world, pod, &unfit) {
                Ok(preemption) => chosen = Some(preemption),
                Err(sentence) => unfit.post_filter = sentence,
            }
        }
        self.unschedulable(pod, &unfit, chosen);
    }

    fn begin_binding(self: &Arc<Self>, pod: Arc<PodInfo>, mut decision: Decision) {
        for (_, plugin) in self.profile.at(Point::Reserve) {
            if let Err(refusal) = plugin.reserve(&mut decision.state, &pod, &decision.node) {
                self.unreserve(&decision.state, &pod, &decision.node);
                return self.refused(&pod, &refusal);
            }
        }
        for (_, plugin) in self.profile.at(Point::Permit) {
            if let Err(refusal) = plugin.permit(&decision.state, &pod, &decision.node) {
                self.unreserve(&decision.state, &pod, &decision.node);
                return self.refused(&pod, &refusal);
            }
        }
        self.cache.lock().assume(Arc::new(pod.assumed_on(&decision.node)));
        self.queue.lock().unnominate(pod.uid());
        let scheduler = Arc::clone(self);
        self.tasks.spawn("bind", async move { scheduler.bind(pod, decision).await });
    }

    async fn bind(self: Arc<Self>, pod: Arc<PodInfo>, Decision { node, state, .. }: Decision) {
        match self.try_bind(&pod, &state, &node).await {
            Ok(()) => {
                let message = format!("Successfully assigned {}/{} to {node}", pod.namespace(), pod.name());
                self.recorder.normal(&*pod.pod, "Scheduled", message);
                self.queue.lock().remove(pod.uid());
                for (_, plugin) in self.profile.at(Point::PostBind) {
                    plugin.post_bind(&state, &pod, &node);
                }
            }
            Err(refusal) => {
                self.unreserve(&state, &pod, &node);
                let freed = pod.assumed_on(&node);
                self.cache.lock().forget(pod.uid());
                self.refused(&pod, &refusal);
                self.tell(&crate::framework::ClusterEvent::AssignedPodDeleted(Arc::new(freed)));
            }
        }
    }

    async fn try_bind(&self, pod: &PodInfo, state: &CycleState, node: &str) -> Result<(), Refusal> {
        for (_, plugin) in self.profile.at(Point::PreBind) {
            plugin.pre_bind(state, pod, node).await?;
        }
        for (_, plugin) in self.profile.at(Point::Bind) {
            if plugin.bind(pod, node).await? {
                return Ok(());
            }
        }
        Err(Refusal::error("", "no plugin binds"))
    }

    fn unreserve(&self, state: &CycleState, pod: &PodInfo, node: &str) {
        for (_, plugin) in self.profile.at(Point::Reserve) {
            plugin.unreserve(state, pod, node);
        }
    }
}
