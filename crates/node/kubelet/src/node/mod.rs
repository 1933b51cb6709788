//! The Node object: registration, lease (KEP-589), status. Tasks of their own, so that no pod can hold a heartbeat up.

pub(crate) mod eviction;
pub(crate) mod machine;
pub(crate) mod status;

use crate::agent::Agent;
use parking_lot::Mutex;
use serde_json::{Value, json};
use status::{Facts, Health};
use std::sync::Arc;
use std::time::Duration;
use tiphys_client::{ClientError, Patch, gvr_of};
use tiphys_types::api::coordination::v1::Lease;
use tiphys_types::api::core::v1::{Node, NodeSystemInfo, Taint};
use tiphys_types::taints;
use tokio::sync::Notify;

/// The state of the node that status is made from.
pub(crate) struct NodeState {
    agent: Arc<Agent>,
    info: NodeSystemInfo,
    health: Mutex<Health>,
    pub(crate) changed: Notify,
}

const RETRY: Duration = Duration::from_millis(200);
const MAX_RETRY: Duration = Duration::from_secs(7);

/// Registers the node and keeps lease and status.
pub(crate) async fn start(agent: &Arc<Agent>) -> Result<Arc<NodeState>, tiphys_cri::CriError> {
    let version = agent.runtime.version().await?;
    let info = machine::system_info(&agent.config, &version);
    let state = Arc::new(NodeState { agent: agent.clone(), info, health: Mutex::default(), changed: Notify::new() });
    agent.events.node(false, "Starting", "Starting kubelet.");
    let waker = Arc::downgrade(&state);
    agent.node.on_change(move |_| match waker.upgrade() {
        Some(state) => {
            state.changed.notify_one();
            true
        }
        None => false,
    });
    let (keeper, leaser) = (state.clone(), state.clone());
    agent.tasks.spawn("node-status", async move {
        keeper.register().await;
        keeper.keep_status().await;
    });
    agent.tasks.spawn("node-lease", async move { leaser.keep_lease().await });
    Ok(state)
}

impl NodeState {
    pub(crate) fn set_health(&self, change: impl FnOnce(&mut Health)) {
        let mut health = self.health.lock();
        let before = health.clone();
        change(&mut health);
        if *health != before {
            self.changed.notify_one();
        }
    }

    fn name(&self) -> &str {
        &self.agent.config.node_name
    }

    async fn register(&self) {
        if !self.agent.config.register_node {
            return;
        }
        for (label, _) in self.agent.config.node_labels.iter().filter(|(label, _)| !status::is_ours_to_set(label)) {
            tracing::warn!(label, "a node may not give itself this label; somebody else must");
        }
        let mut wait = RETRY;
        loop {
            match self.try_register().await {
                Ok(()) => return,
                Err(error) => tracing::warn!(%error, "cannot register the node yet"),
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(MAX_RETRY);
        }
    }

    /// The Node with its status at once, so that it is ready with its first version.
    async fn try_register(&self) -> Result<(), ClientError> {
        let config = &self.agent.config;
        self.look_at_runtime().await;
        let mut body = self.patch(&Node::default(), true).await.unwrap_or_else(|| json!({}));
        if let Some(addresses) = body["status"]["addresses"].as_array_mut() {
            addresses.retain(|a| a.get("$patch").is_none());
        }
        let taints: Vec<Taint> = config.register_with_taints.iter().filter_map(|t| taints::from_text(t).ok()).collect();
        let mut spec = json!({});
        if !taints.is_empty() {
            spec["taints"] = serde_json::to_value(&taints).unwrap_or_default();
        }
        if let Some(id) = &config.provider_id {
            spec["providerID"] = json!(id);
        }
        body["apiVersion"] = json!("v1");
        body["kind"] = json!("Node");
        body["metadata"] = json!({"name": self.name(), "labels": status::labels(config),
            "annotations": {"volumes.kubernetes.io/controller-managed-attach-detach": "true"}});
        body["spec"] = spec;
        match self.agent.client.create_value(&gvr_of::<Node>(), "", &body).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_already_exists() => self.adopt().await,
            Err(error) => Err(error),
        }
    }

    /// A Node of an earlier life: its labels are brought up to date, the rest is the status's matter.
    async fn adopt(&self) -> Result<(), ClientError> {
        let node: Node = self.agent.client.get("", self.name()).await?;
        let have = node.metadata.labels.unwrap_or_default();
        let wanted = status::labels(&self.agent.config);
        if wanted.iter().all(|(k, v)| have.get(k) == Some(v)) {
            return Ok(());
        }
        let patch = Patch::Strategic(json!({"metadata": {"labels": wanted}}));
        self.agent.client.patch::<Node>("", self.name(), "", &patch).await.map(drop)
    }

    async fn look_at_runtime(&self) {
        let not_ready = match self.agent.runtime.status().await {
            Ok(status) => {
                let bad = |kind: &str, words: &str| {
                    let condition = status.conditions.iter().find(|c| c.r#type == kind);
                    let condition = condition.filter(|c| !c.status)?;
                    Some(format!("{words}: {kind}=false reason:{} message:{}", condition.reason, condition.message))
                };
                let problems =
                    [bad("RuntimeReady", "container runtime not ready"), bad("NetworkReady", "container runtime network not ready")];
                problems.into_iter().flatten().collect::<Vec<_>>().join(", ")
            }
            Err(error) => format!("container runtime is down: {error}"),
        };
        self.set_health(|h| h.not_ready = not_ready);
    }

    async fn patch(&self, node: &Node, heartbeat: bool) -> Option<Value> {
        let agent = &self.agent;
        let images = agent.images.service.list_images(None).await.unwrap_or_default();
        let handlers = agent.runtime.status().await.map(|s| s.handlers).unwrap_or_default();
        let health = self.health.lock().clone();
        let facts = Facts {
            config: &agent.config,
            machine: &agent.machine,
            info: &self.info,
            health: &health,
            images: &images,
            handlers: &handlers,
            port: agent.port.get().copied().unwrap_or(agent.config.listen.port()),
            now: agent.clock.now(),
        };
        status::patch(&facts, &node.status.clone().unwrap_or_default(), heartbeat)
    }

    async fn keep_status(&self) {
        self.agent.node.synced().await;
        let mut beat = tokio::time::interval(self.agent.config.status_report_frequency);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        beat.tick().await;
        let (mut told_cidr, mut heartbeat, mut was_ready) = (String::new(), false, None);
        loop {
            self.tell_cidr(&mut told_cidr).await;
            self.look_at_runtime().await;
            let failed = self.write(heartbeat).await;
            let ready = self.health.lock().not_ready.is_empty();
            if was_ready != Some(ready) {
                let reason = if ready { "NodeReady" } else { "NodeNotReady" };
                self.agent.events.node(false, reason, &format!("Node {} status is now: {reason}", self.name()));
                was_ready = Some(ready);
            }
            let again = if failed { Some(Duration::from_secs(1)) } else { (!ready).then_some(Duration::from_secs(2)) };
            heartbeat = tokio::select! {
                () = self.changed.notified() => false,
                _ = beat.tick() => true,
                () = async { match again { Some(wait) => tokio::time::sleep(wait).await, None => std::future::pending().await } } => false,
            };
        }
    }

    async fn tell_cidr(&self, told: &mut String) {
        let node = self.agent.node.get("", self.name());
        let cidr = node.and_then(|n| n.spec.as_ref()?.pod_cidr.clone()).unwrap_or_default();
        if cidr.is_empty() || cidr == *told {
            return;
        }
        match self.agent.runtime.update_runtime_config(&cidr).await {
            Ok(()) => *told = cidr,
            Err(error) => tracing::warn!(%error, cidr, "the runtime does not take the pod range"),
        }
    }

    /// True when it must be tried again soon.
    async fn write(&self, heartbeat: bool) -> bool {
        let Some(node) = self.agent.node.get("", self.name()) else { return false };
        let Some(patch) = self.patch(&node, heartbeat).await else { return false };
        match self.agent.client.patch::<Node>("", self.name(), "status", &Patch::Strategic(patch)).await {
            Ok(_) => false,
            Err(error) if error.is_not_found() => {
                self.register().await;
                false
            }
            Err(error) => {
                tracing::warn!(%error, "node status not written");
                true
            }
        }
    }

    async fn keep_lease(&self) {
        let period = Duration::from_secs((self.agent.config.lease_seconds / 4).max(1) as u64);
        let mut lease: Option<Value> = None;
        let mut wait = RETRY;
        loop {
            match self.renew(lease.take()).await {
                Ok(renewed) => {
                    lease = Some(renewed);
                    wait = RETRY;
                    tokio::time::sleep(period).await;
                }
                Err(error) => {
                    tracing::warn!(%error, "node lease not renewed");
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(MAX_RETRY);
                }
            }
        }
    }

    async fn renew(&self, held: Option<Value>) -> Result<Value, ClientError> {
        const NAMESPACE: &str = "kube-node-lease";
        let (client, gvr) = (&self.agent.client, gvr_of::<Lease>());
        let now = json!(tiphys_meta::time::format_micro(self.agent.clock.now()));
        let known = match held {
            Some(lease) => Ok(lease),
            None => client.get_value(&gvr, NAMESPACE, self.name()).await,
        };
        match known {
            Ok(mut lease) => {
                lease["spec"]["renewTime"] = now;
                lease["spec"]["holderIdentity"] = json!(self.name());
                lease["spec"]["leaseDurationSeconds"] = json!(self.agent.config.lease_seconds);
                client.update_value(&gvr, &lease, "").await
            }
            Err(error) if error.is_not_found() => {
                let mut metadata = json!({"name": self.name(), "namespace": NAMESPACE});
                if let Some(uid) = self.agent.node.get("", self.name()).and_then(|n| n.metadata.uid.clone()) {
                    metadata["ownerReferences"] = json!([{"apiVersion": "v1", "kind": "Node", "name": self.name(), "uid": uid}]);
                }
                let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata,
                    "spec": {"holderIdentity": self.name(), "leaseDurationSeconds": self.agent.config.lease_seconds, "renewTime": now}});
                client.create_value(&gvr, NAMESPACE, &lease).await
            }
            Err(error) => Err(error),
        }
    }
}
