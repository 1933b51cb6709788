//! The doors to pod workers: what the rest of the kubelet tells a worker, and what it may see of one.

use super::Worker;
use crate::admission;
use crate::agent::Agent;
use crate::pod::spec;
use crate::pod::status::Verdict;
use crate::pod::view::View;
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tiphys_types::api::core::v1::{Pod, PodCondition, PodStatus};
use tokio::sync::Notify;

/// An order to end a pod for the node's sake.
#[derive(Debug, Clone)]
pub(crate) struct Eviction {
    pub(crate) verdict: Verdict,
    /// None leaves the pod its own grace period.
    pub(crate) grace: Option<i64>,
    pub(crate) condition: Option<PodCondition>,
}

/// What the rest of the kubelet tells a worker. Only the latest counts.
#[derive(Default)]
pub(super) struct Input {
    pub(super) pod: Option<Arc<Pod>>,
    /// The API's copy of a static pod.
    pub(super) mirror: Option<Option<Arc<Pod>>>,
    /// The API (or the file) has it no more.
    pub(super) gone: bool,
    /// Something that volumes show has changed.
    pub(super) touched: bool,
    pub(super) eviction: Option<Eviction>,
}

/// The door to a worker.
#[derive(Clone)]
pub(crate) struct Handle {
    inbox: Arc<Inbox>,
}

struct Inbox {
    input: Mutex<Input>,
    /// The API (or the file) has the pod no more, whether or not its worker has heard.
    forgotten: AtomicBool,
    wake: Notify,
    /// The pod, its newest status, and what the runtime had then: for the server and for admission.
    shown: Mutex<Shown>,
}

#[derive(Clone)]
pub(crate) struct Shown {
    pub(crate) pod: Arc<Pod>,
    pub(crate) status: Arc<PodStatus>,
    pub(crate) view: Arc<View>,
    /// Holds no resources any more.
    pub(crate) over: bool,
}

impl Handle {
    pub(crate) fn wake(&self) {
        self.inbox.wake.notify_one();
    }

    fn tell(&self, change: impl FnOnce(&mut Input)) {
        change(&mut self.inbox.input.lock());
        self.wake();
    }

    pub(crate) fn shown(&self) -> Shown {
        self.inbox.shown.lock().clone()
    }

    /// What was told since it was last asked.
    pub(super) fn take(&self) -> Input {
        std::mem::take(&mut *self.inbox.input.lock())
    }

    pub(super) fn show(&self, shown: Shown) {
        *self.inbox.shown.lock() = shown;
    }

    pub(super) async fn woken(&self) {
        self.inbox.wake.notified().await;
    }
}

/// All workers, by pod uid.
#[derive(Default)]
pub(crate) struct Workers {
    all: Mutex<HashMap<String, Handle>>,
}

impl Workers {
    fn get(&self, uid: &str) -> Option<Handle> {
        self.all.lock().get(uid).cloned()
    }

    pub(crate) fn update(&self, agent: &Arc<Agent>, pod: Arc<Pod>) {
        if let Some(handle) = self.get(spec::uid(&pod)) {
            return handle.tell(|input| input.pod = Some(pod));
        }
        let uid = spec::uid(&pod).to_owned();
        let verdict = admission::admit(agent, &pod).err();
        let status = Arc::new(pod.status.clone().unwrap_or_default());
        let shown = Shown { pod: pod.clone(), status, view: Arc::default(), over: verdict.is_some() };
        let handle = Handle {
            inbox: Arc::new(Inbox {
                input: Mutex::default(),
                forgotten: AtomicBool::new(false),
                wake: Notify::new(),
                shown: Mutex::new(shown),
            }),
        };
        self.all.lock().insert(uid, handle.clone());
        let worker = Worker::new(agent.clone(), handle, pod, verdict);
        agent.tasks.spawn("pod", worker.run());
    }

    /// The last state of a pod that the API has no more.
    pub(crate) fn remove(&self, pod: Arc<Pod>) {
        if let Some(handle) = self.get(spec::uid(&pod)) {
            handle.inbox.forgotten.store(true, Ordering::Release);
            handle.tell(|input| {
                if spec::is_deleted(&pod) {
                    input.pod = Some(pod);
                }
                input.gone = true;
            });
        }
    }

    pub(crate) fn mirror(&self, uid: &str, mirror: Option<Arc<Pod>>) {
        if let Some(handle) = self.get(uid) {
            handle.tell(|input| input.mirror = Some(mirror));
        }
    }

    pub(crate) fn wake(&self, uid: &str) {
        if let Some(handle) = self.get(uid) {
            handle.wake();
        }
    }

    pub(crate) fn touch(&self, uid: &str) {
        if let Some(handle) = self.get(uid) {
            handle.tell(|input| input.touched = true);
        }
    }

    pub(crate) fn evict(&self, uid: &str, eviction: Eviction) {
        if let Some(handle) = self.get(uid) {
            handle.tell(|input| input.eviction = Some(eviction));
        }
    }

    pub(crate) fn wake_all(&self) {
        self.all.lock().values().for_each(Handle::wake);
    }

    pub(crate) fn list(&self) -> Vec<Shown> {
        self.all.lock().values().map(Handle::shown).collect()
    }

    /// The pods that room is kept for: those that are still being stopped after the API has forgotten them hold none, as the scheduler counts too.
    pub(crate) fn counted(&self) -> Vec<Arc<Pod>> {
        let all = self.all.lock();
        let kept = all.values().filter(|h| !h.inbox.forgotten.load(Ordering::Acquire)).map(Handle::shown);
        kept.filter(|s| !s.over).map(|s| s.pod).collect()
    }

    pub(crate) fn by_uid(&self, uid: &str) -> Option<Shown> {
        self.get(uid).map(|h| h.shown())
    }

    pub(crate) fn find(&self, namespace: &str, name: &str) -> Option<Shown> {
        let mut found: Vec<Shown> =
            self.list().into_iter().filter(|s| spec::namespace(&s.pod) == namespace && spec::name(&s.pod) == name).collect();
        // A successor of the same name may be here while the former is being stopped.
        found.sort_by_key(|s| s.pod.metadata.creation_timestamp.clone());
        found.pop()
    }

    /// The pod is over and forgotten.
    pub(super) fn forget(&self, uid: &str) {
        self.all.lock().remove(uid);
    }

    /// Whether another pod of the same name is here, or still being stopped.
    pub(crate) fn has_namesake(&self, pod: &Pod) -> bool {
        let same = |other: &Pod| spec::name(other) == spec::name(pod) && spec::namespace(other) == spec::namespace(pod);
        self.list().iter().any(|s| same(&s.pod) && spec::uid(&s.pod) != spec::uid(pod))
    }

    pub(crate) fn uids(&self) -> HashSet<String> {
        self.all.lock().keys().cloned().collect()
    }
}
