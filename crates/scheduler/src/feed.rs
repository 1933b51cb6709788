//! From informers to cache and queue. All of it runs in the informers' tasks and never waits.

use std::sync::Arc;

use tiphys_client::{Delta, Informer, Kube};
use tiphys_types::api::core::v1::{Namespace, Node, Pod};
use tiphys_types::pods;
use tokio::time::Instant;

use crate::driver::Scheduler;
use crate::framework::{ClusterEvent, PodInfo};
use crate::plugins::volume_binding::Volumes;

impl Scheduler {
    pub(crate) fn feed(self: &Arc<Self>, nodes: &Informer<Node>, namespaces: &Informer<Namespace>, volumes: &Volumes) {
        // Nodes before pods, so that pods find their place.
        let scheduler = Arc::clone(self);
        nodes.on_change(move |delta| {
            scheduler.node_changed(delta);
            true
        });
        let scheduler = Arc::clone(self);
        namespaces.on_change(move |delta| {
            scheduler.namespace_changed(delta);
            true
        });
        let scheduler = Arc::clone(self);
        self.pods.on_change(move |delta| {
            scheduler.pod_changed(delta);
            true
        });
        self.feed_storage(&volumes.claims);
        self.feed_storage(&volumes.volumes);
        self.feed_storage(&volumes.classes);
        self.feed_storage(&volumes.csi_nodes);
        self.feed_storage(&volumes.capacities);
    }

    fn feed_storage<K: Kube>(self: &Arc<Self>, informer: &Informer<K>) {
        let scheduler = Arc::clone(self);
        informer.on_change(move |_| {
            scheduler.tell(&ClusterEvent::StorageChanged);
            true
        });
    }

    /// Pods that the event may help move on.
    pub(crate) fn tell(&self, event: &ClusterEvent) {
        if self.queue.lock().happened(event, Instant::now()) {
            self.wake.notify_one();
        }
    }

    fn node_changed(&self, delta: &Delta<Node>) {
        match delta {
            Delta::Added(node) => {
                self.cache.lock().set_node(Arc::clone(node));
                self.tell(&ClusterEvent::NodeAdded(Arc::clone(node)));
            }
            Delta::Updated { old, new } => {
                let matters = old.spec != new.spec
                    || old.metadata.labels != new.metadata.labels
                    || old.status.as_ref().map(|s| (&s.allocatable, &s.images)) != new.status.as_ref().map(|s| (&s.allocatable, &s.images));
                if matters {
                    self.cache.lock().set_node(Arc::clone(new));
                    self.tell(&ClusterEvent::NodeUpdated { old: Arc::clone(old), new: Arc::clone(new) });
                }
            }
            Delta::Deleted(node) => self.cache.lock().remove_node(node.metadata.name.as_deref().unwrap_or("")),
        }
    }

    fn namespace_changed(&self, delta: &Delta<Namespace>) {
        match delta {
            Delta::Updated { old, new } if old.metadata.labels == new.metadata.labels => {}
            Delta::Added(new) | Delta::Updated { new, .. } => {
                self.cache.lock().set_namespace(new);
                self.tell(&ClusterEvent::NamespaceChanged);
            }
            Delta::Deleted(old) => self.cache.lock().remove_namespace(old.metadata.name.as_deref().unwrap_or("")),
        }
    }

    fn pod_changed(&self, delta: &Delta<Pod>) {
        match delta {
            Delta::Added(new) => self.pod_is(None, new),
            Delta::Updated { old, new } => self.pod_is(Some(old), new),
            Delta::Deleted(old) => self.pod_gone(old.metadata.uid.as_deref().unwrap_or("")),
        }
    }

    fn pod_is(&self, old: Option<&Arc<Pod>>, pod: &Arc<Pod>) {
        let uid = pod.metadata.uid.as_deref().unwrap_or("");
        if pods::is_terminal(pod) {
            self.pod_gone(uid);
        } else if !pods::node_name(pod).is_empty() {
            let known = self.cache.lock().counts(uid);
            if !known || old.is_none_or(|old| is_different(old, pod)) {
                self.pod_stands(pod);
            }
        } else if self.is_ours(pod) {
            if pod.metadata.deletion_timestamp.is_some() {
                self.pod_gone(uid);
            } else if old.is_none_or(|old| asks_anew(old, pod)) && !self.cache.lock().counts(uid) {
                self.queue.lock().update(Arc::new(PodInfo::new(Arc::clone(pod))), Instant::now());
                self.wake.notify_one();
            }
        }
    }

    fn pod_stands(&self, pod: &Arc<Pod>) {
        let info = Arc::new(PodInfo::new(Arc::clone(pod)));
        let before = {
            let mut cache = self.cache.lock();
            let before = cache.remove_pod(info.uid());
            cache.set_pod(Arc::clone(&info));
            before
        };
        self.queue.lock().remove(info.uid());
        let event = match before {
            Some(old) if old.pod.metadata.resource_version != info.pod.metadata.resource_version && !old.node_name().is_empty() => {
                ClusterEvent::AssignedPodUpdated { old, new: info }
            }
            _ => ClusterEvent::AssignedPodAdded(info),
        };
        self.tell(&event);
    }

    fn pod_gone(&self, uid: &str) {
        let waited = self.queue.lock().remove(uid);
        let stood = self.cache.lock().remove_pod(uid);
        // A pod that room was kept for gives that room back as well.
        let freed = stood.or_else(|| waited.filter(|p| !p.nominated_node().is_empty()));
        if let Some(freed) = freed {
            self.tell(&ClusterEvent::AssignedPodDeleted(freed));
        }
    }

    fn is_ours(&self, pod: &Pod) -> bool {
        let name = pod.spec.as_ref().and_then(|s| s.scheduler_name.as_deref()).unwrap_or("default-scheduler");
        name == self.config.scheduler_name
    }
}

/// In anything that the scheduler reads; most updates of a running pod are not.
fn is_different(old: &Pod, new: &Pod) -> bool {
    let resources = |pod: &Pod| -> Vec<_> {
        let statuses = pod.status.iter().flat_map(|s| s.container_statuses.iter().chain(&s.init_container_statuses).flatten());
        statuses.map(|s| (s.resources.clone(), s.allocated_resources.clone())).collect()
    };
    old.spec != new.spec
        || old.metadata.labels != new.metadata.labels
        || old.metadata.deletion_timestamp != new.metadata.deletion_timestamp
        || resources(old) != resources(new)
}

/// A waiting pod is worth another try; the scheduler's own notes in its status are not.
fn asks_anew(old: &Pod, new: &Pod) -> bool {
    let nominated = |p: &Pod| p.status.as_ref().and_then(|s| s.nominated_node_name.clone());
    old.spec != new.spec
        || old.metadata.labels != new.metadata.labels
        || old.metadata.uid != new.metadata.uid
        || nominated(old) != nominated(new)
}
