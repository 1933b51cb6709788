//! Claims of a pod: bound ones limit the nodes by their volume's node affinity; `WaitForFirstConsumer` ones are bound (or ordered from their
//! provisioner for the chosen node) before the pod is.
//!
//! A driver that tells how much room it has where (KEP-1472) is asked for no more. A volume that is chosen for one claim is not chosen for another
//! before the API server shows it taken.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::json;
use tiphys_client::{Client, Delta, Informer, Informers, Patch};
use tiphys_types::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim};
use tiphys_types::api::storage::v1::{CSIDriver, CSINode, CSIStorageCapacity, StorageClass};
use tiphys_types::{node_affinity, resources, selector};
use tokio::sync::Notify;

use crate::framework::{ClusterEvent, CycleState, NodeInfo, Plugin, PodInfo, Point, PreFiltered, Refusal, Snapshot};

const NAME: &str = "VolumeBinding";
const BIND_LIMIT: Duration = Duration::from_secs(600);
const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";

#[derive(Clone)]
pub struct Volumes {
    pub claims: Informer<PersistentVolumeClaim>,
    pub volumes: Informer<PersistentVolume>,
    pub classes: Informer<StorageClass>,
    pub csi_nodes: Informer<CSINode>,
    pub drivers: Informer<CSIDriver>,
    pub capacities: Informer<CSIStorageCapacity>,
    pub nodes: Informer<Node>,
    /// Volumes that are being bound: by name, the uid of the claim.
    chosen: Arc<Mutex<HashMap<String, String>>>,
}

impl Volumes {
    pub fn new(informers: &Informers) -> Self {
        Volumes {
            claims: informers.of(),
            volumes: informers.of(),
            classes: informers.of(),
            csi_nodes: informers.of(),
            drivers: informers.of(),
            capacities: informers.of(),
            nodes: informers.of(),
            chosen: Arc::default(),
        }
    }

    pub async fn synced(&self) {
        tokio::join!(self.claims.synced(), self.volumes.synced(), self.classes.synced(), self.csi_nodes.synced());
        tokio::join!(self.drivers.synced(), self.capacities.synced(), self.nodes.synced());
    }

    /// The volumes that the pod's claims are bound to, as far as they are known.
    pub fn bound_volumes(&self, pod: &PodInfo) -> Vec<Arc<PersistentVolume>> {
        let claims = claim_names(pod).into_iter().filter_map(|(name, _)| self.claims.get(pod.namespace(), &name));
        claims.filter_map(|c| self.volumes.get("", volume_name(&c))).collect()
    }

    fn class_of(&self, claim: &PersistentVolumeClaim) -> Option<Arc<StorageClass>> {
        self.classes.get("", class_name(claim))
    }

    fn waits_for_consumer(&self, claim: &PersistentVolumeClaim) -> bool {
        self.class_of(claim).is_some_and(|c| c.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"))
    }

    /// The smallest free volume that the claim can have on this node.
    fn volume_for(&self, claim: &PersistentVolumeClaim, node: &Node) -> Option<Arc<PersistentVolume>> {
        let chosen = self.chosen.lock();
        let not_chosen = |v: &PersistentVolume| {
            let by = v.metadata.name.as_ref().and_then(|n| chosen.get(n));
            by.is_none_or(|uid| Some(uid) == claim.metadata.uid.as_ref())
        };
        let all = self.volumes.list().into_iter();
        let fitting = all.filter(|v| is_free_for(v, claim) && not_chosen(v) && satisfies(v, claim) && reaches(v, node));
        fitting.min_by_key(|v| capacity(v))
    }

    fn can_provision(&self, claim: &PersistentVolumeClaim, node: &Node) -> bool {
        let Some(class) = self.class_of(claim) else { return false };
        if class.provisioner == NO_PROVISIONER {
            return false;
        }
        let topologies = class.allowed_topologies.as_deref().unwrap_or_default();
        let label = |key: &str| node.metadata.labels.as_ref().and_then(|l| l.get(key));
        topologies.is_empty()
            || topologies.iter().any(|term| {
                let expressions = term.match_label_expressions.as_deref().unwrap_or_default();
                expressions.iter().all(|e| label(&e.key).is_some_and(|v| e.values.contains(v)))
            })
    }
}

impl Volumes {
    /// Whether the driver has room for the claim where the node is, if it tells.
    fn has_room(&self, claim: &PersistentVolumeClaim, node: &Node) -> bool {
        let Some(class) = self.class_of(claim) else { return true };
        let tells = self.drivers.get("", &class.provisioner).is_some_and(|d| d.spec.storage_capacity == Some(true));
        !tells
            || self.capacities.list().iter().any(|c| Some(&c.storage_class_name) == class.metadata.name.as_ref() && offers(c, claim, node))
    }
}

fn offers(capacity: &CSIStorageCapacity, claim: &PersistentVolumeClaim, node: &Node) -> bool {
    let most = capacity.maximum_volume_size.as_ref().or(capacity.capacity.as_ref());
    let most = most.and_then(|q| tiphys_meta::Quantity::parse(&q.0).ok());
    let here = capacity.node_topology.as_ref().and_then(|t| selector::from_typed(Some(t)).ok());
    most.is_some_and(|m| m.value() >= requested(claim)) && here.is_some_and(|s| s.matches_map(node.metadata.labels.as_ref()))
}

fn requested(claim: &PersistentVolumeClaim) -> i64 {
    let list = resources::list(claim.spec.as_ref().and_then(|s| s.resources.as_ref()).and_then(|r| r.requests.as_ref()));
    list.get("storage").map_or(0, tiphys_meta::Quantity::value)
}

fn class_name(claim: &PersistentVolumeClaim) -> &str {
    claim.spec.as_ref().and_then(|s| s.storage_class_name.as_deref()).unwrap_or("")
}

fn volume_name(claim: &PersistentVolumeClaim) -> &str {
    claim.spec.as_ref().and_then(|s| s.volume_name.as_deref()).unwrap_or("")
}

fn is_bound(claim: &PersistentVolumeClaim) -> bool {
    let completed = claim.metadata.annotations.as_ref().is_some_and(|a| a.contains_key("pv.kubernetes.io/bind-completed"));
    !volume_name(claim).is_empty() && completed
}

fn is_free_for(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    if volume.metadata.deletion_timestamp.is_some() {
        return false;
    }
    match volume.spec.as_ref().and_then(|s| s.claim_ref.as_ref()) {
        None => volume.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Available"),
        Some(r) => {
            r.namespace == claim.metadata.namespace && r.name == claim.metadata.name && (r.uid.is_none() || r.uid == claim.metadata.uid)
        }
    }
}

fn capacity(volume: &PersistentVolume) -> i64 {
    let list = resources::list(volume.spec.as_ref().and_then(|s| s.capacity.as_ref()));
    list.get("storage").map_or(0, tiphys_meta::Quantity::value)
}

fn satisfies(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let (Some(has), Some(wants)) = (&volume.spec, &claim.spec) else { return false };
    let modes = has.access_modes.as_deref().unwrap_or_default();
    let mode = |m: &Option<String>| m.clone().unwrap_or_else(|| "Filesystem".into());
    has.storage_class_name.as_deref().unwrap_or("") == class_name(claim)
        && wants.access_modes.iter().flatten().all(|m| modes.contains(m))
        && mode(&has.volume_mode) == mode(&wants.volume_mode)
        && capacity(volume) >= requested(claim)
        && wants
            .selector
            .as_ref()
            .is_none_or(|s| selector::from_typed(Some(s)).is_ok_and(|s| s.matches_map(volume.metadata.labels.as_ref())))
}

fn reaches(volume: &PersistentVolume, node: &Node) -> bool {
    let required = volume.spec.as_ref().and_then(|s| s.node_affinity.as_ref()).and_then(|a| a.required.as_ref());
    required.is_none_or(|r| node_affinity::selector_matches(r, node))
}

/// What the pod's claims ask of a node.
struct Wanted {
    bound: Vec<Option<Arc<PersistentVolume>>>,
    waiting: Vec<Arc<PersistentVolumeClaim>>,
}

/// Each waiting claim with the volume that it will get; none: one that is yet to be made.
struct Decided(Vec<(Arc<PersistentVolumeClaim>, Option<Arc<PersistentVolume>>)>);

/// Names of claims, with whether the claim is made from the pod (a generic ephemeral volume).
fn claim_names(pod: &PodInfo) -> Vec<(String, bool)> {
    let volumes = pod.spec().into_iter().flat_map(|s| s.volumes.iter().flatten());
    let names = volumes.filter_map(|v| match (&v.persistent_volume_claim, &v.ephemeral) {
        (Some(claim), _) => Some((claim.claim_name.clone(), false)),
        (None, Some(_)) => Some((format!("{}-{}", pod.name(), v.name), true)),
        (None, None) => None,
    });
    names.collect()
}

pub struct VolumeBinding {
    client: Client,
    volumes: Volumes,
}

impl VolumeBinding {
    pub fn new(client: Client, volumes: Volumes) -> Self {
        VolumeBinding { client, volumes }
    }

    fn wanted(&self, pod: &PodInfo, names: &[(String, bool)]) -> Result<Wanted, Refusal> {
        let mut wanted = Wanted { bound: Vec::new(), waiting: Vec::new() };
        for (name, ephemeral) in names {
            let Some(claim) = self.volumes.claims.get(pod.namespace(), name) else {
                let reason = if *ephemeral {
                    format!("waiting for ephemeral volume controller to create the persistentvolumeclaim \"{name}\"")
                } else {
                    format!("persistentvolumeclaim \"{name}\" not found")
                };
                return Err(Refusal::unresolvable(NAME, reason));
            };
            if claim.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Lost") {
                let reason = format!("persistentvolumeclaim \"{name}\" bound to non-existent persistentvolume \"{}\"", volume_name(&claim));
                return Err(Refusal::unresolvable(NAME, reason));
            }
            if claim.metadata.deletion_timestamp.is_some() {
                return Err(Refusal::unresolvable(NAME, format!("persistentvolumeclaim \"{name}\" is being deleted")));
            }
            if is_bound(&claim) {
                wanted.bound.push(self.volumes.volumes.get("", volume_name(&claim)));
            } else if self.volumes.waits_for_consumer(&claim) && volume_name(&claim).is_empty() {
                wanted.waiting.push(claim);
            } else {
                return Err(Refusal::unresolvable(NAME, "pod has unbound immediate PersistentVolumeClaims"));
            }
        }
        Ok(wanted)
    }

    fn let_go(&self, state: &CycleState) {
        let Some(Decided(decided)) = state.get::<Decided>() else { return };
        let mut chosen = self.volumes.chosen.lock();
        for name in decided.iter().filter_map(|(_, v)| v.as_ref()?.metadata.name.as_ref()) {
            chosen.remove(name);
        }
    }

    async fn prepare(&self, claim: &PersistentVolumeClaim, volume: Option<&Arc<PersistentVolume>>, node: &str) -> Result<(), Refusal> {
        let failed = |error: tiphys_client::ClientError| Refusal::error(NAME, format!("binding volumes: {error}"));
        let (namespace, name) = (claim.metadata.namespace.as_deref().unwrap_or(""), claim.metadata.name.as_deref().unwrap_or(""));
        let Some(volume) = volume else {
            let patch = Patch::Merge(json!({"metadata": {"annotations": {"volume.kubernetes.io/selected-node": node}}}));
            self.client.patch::<PersistentVolumeClaim>(namespace, name, "", &patch).await.map_err(failed)?;
            return Ok(());
        };
        let mut volume = PersistentVolume::clone(volume);
        let spec = volume.spec.get_or_insert_default();
        if spec.claim_ref.as_ref().is_some_and(|r| r.uid.is_some()) {
            return Ok(());
        }
        spec.claim_ref = Some(tiphys_client::reference_to(claim));
        volume.metadata.annotations.get_or_insert_default().insert("pv.kubernetes.io/bound-by-controller".into(), "yes".into());
        self.client.update(&volume).await.map_err(failed)?;
        Ok(())
    }

    /// Until every claim is bound; woken by the claims' informer.
    async fn wait_bound(&self, pod: &PodInfo, claims: &[Arc<PersistentVolumeClaim>]) -> Result<(), Refusal> {
        let changed = Arc::new(Notify::new());
        let told = Arc::downgrade(&changed);
        self.volumes.claims.on_change(move |_: &Delta<PersistentVolumeClaim>| match told.upgrade() {
            Some(notify) => {
                notify.notify_one();
                true
            }
            None => false,
        });
        let all_bound = || {
            claims
                .iter()
                .all(|c| self.volumes.claims.get(pod.namespace(), c.metadata.name.as_deref().unwrap_or("")).is_some_and(|c| is_bound(&c)))
        };
        let waiting = async {
            while !all_bound() {
                changed.notified().await;
            }
        };
        let in_time = tokio::time::timeout(BIND_LIMIT, waiting).await;
        in_time.map_err(|_| Refusal::error(NAME, "binding volumes: context deadline exceeded"))
    }
}

#[async_trait]
impl Plugin for VolumeBinding {
    fn name(&self) -> &'static str {
        NAME
    }

    fn points(&self) -> &'static [Point] {
        &[Point::PreFilter, Point::Filter, Point::Reserve, Point::PreBind, Point::PostBind]
    }

    fn pre_filter(&self, state: &mut CycleState, pod: &PodInfo, _: &Snapshot) -> Result<PreFiltered, Refusal> {
        let names = claim_names(pod);
        if names.is_empty() {
            return Ok(PreFiltered::Skip);
        }
        state.put(self.wanted(pod, &names)?);
        Ok(PreFiltered::Ok)
    }

    fn filter(&self, state: &CycleState, _: &PodInfo, node: &NodeInfo) -> Result<(), Refusal> {
        let Some(wanted) = state.get::<Wanted>() else { return Ok(()) };
        for volume in &wanted.bound {
            let Some(volume) = volume else {
                return Err(Refusal::unresolvable(NAME, "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)"));
            };
            if !reaches(volume, &node.node) {
                return Err(Refusal::unresolvable(NAME, "node(s) didn't match PersistentVolume's node affinity"));
            }
        }
        let to_make: Vec<_> = wanted.waiting.iter().filter(|c| self.volumes.volume_for(c, &node.node).is_none()).collect();
        if !to_make.iter().all(|claim| self.volumes.can_provision(claim, &node.node)) {
            return Err(Refusal::unresolvable(NAME, "node(s) didn't find available persistent volumes to bind"));
        }
        if !to_make.iter().all(|claim| self.volumes.has_room(claim, &node.node)) {
            return Err(Refusal::unresolvable(NAME, "node(s) did not have enough free storage"));
        }
        Ok(())
    }

    /// Chooses, so that the next pod's cycle does not choose the same.
    fn reserve(&self, state: &mut CycleState, _: &PodInfo, node: &str) -> Result<(), Refusal> {
        let waiting = state.get::<Wanted>().map(|w| w.waiting.clone()).unwrap_or_default();
        if waiting.is_empty() {
            return Ok(());
        }
        let found = self.volumes.nodes.get("", node);
        let found = found.ok_or_else(|| Refusal::error(NAME, format!("node {node:?} not found")))?;
        let mut decided = Vec::new();
        for claim in waiting {
            let volume = self.volumes.volume_for(&claim, &found);
            if let (Some(name), Some(uid)) = (volume.as_ref().and_then(|v| v.metadata.name.clone()), claim.metadata.uid.clone()) {
                self.volumes.chosen.lock().insert(name, uid);
            }
            decided.push((claim, volume));
        }
        state.put(Decided(decided));
        Ok(())
    }

    fn unreserve(&self, state: &CycleState, _: &PodInfo, _: &str) {
        self.let_go(state);
    }

    fn post_bind(&self, state: &CycleState, _: &PodInfo, _: &str) {
        self.let_go(state);
    }

    async fn pre_bind(&self, state: &CycleState, pod: &PodInfo, node: &str) -> Result<(), Refusal> {
        let Some(Decided(decided)) = state.get::<Decided>() else { return Ok(()) };
        for (claim, volume) in decided {
            self.prepare(claim, volume.as_ref(), node).await?;
        }
        let waiting: Vec<_> = decided.iter().map(|(claim, _)| Arc::clone(claim)).collect();
        self.wait_bound(pod, &waiting).await
    }

    fn may_help(&self, event: &ClusterEvent, _: &PodInfo) -> bool {
        match event {
            ClusterEvent::StorageChanged | ClusterEvent::NodeAdded(_) | ClusterEvent::PodChanged { .. } | ClusterEvent::Forced => true,
            ClusterEvent::NodeUpdated { old, new } => old.metadata.labels != new.metadata.labels,
            _ => false,
        }
    }
}
