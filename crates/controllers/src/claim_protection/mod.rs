//! A claim that a placed pod uses is not removed before that pod is gone: the finalizer `kubernetes.io/pvc-protection`.
//!
//! Watches claims and Pods; writes the finalizer of claims. A pod that has no node yet does not count: the kubelet starts none on a claim that is
//! being deleted.

use std::sync::Arc;

use jiff::Timestamp;
use tiphys_client::{Action, Index, Informer, Kube, ObjectKey, Plan, Planner, WorkQueue};
use tiphys_types::api::core::v1::{PersistentVolumeClaim, Pod};
use tiphys_types::pods;

use crate::Context;
use crate::shared::watch;

const FINALIZER: &str = "kubernetes.io/pvc-protection";

pub(crate) fn start(context: &Context) {
    let (claims, pods) = (context.informers.of::<PersistentVolumeClaim>(), context.informers.of::<Pod>());
    let queue = WorkQueue::new();
    watch::own(&claims, &queue);
    let again = queue.clone();
    pods.on_change(move |delta| {
        let pod = delta.object();
        if matches!(delta, tiphys_client::Delta::Deleted(_)) || pods::is_terminal(pod) {
            let namespace = pod.metadata.namespace.as_deref().unwrap_or("");
            claim_names(pod).iter().for_each(|name| again.add(ObjectKey::new(namespace, name)));
        }
        true
    });
    let users = pods.index("claims", |pod: &Pod| {
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        claim_names(pod).into_iter().map(|name| format!("{namespace}/{name}")).collect()
    });
    let executor = context.executor("pvc-protection-controller").reading(claims.clone()).reading(pods.clone());
    context.run("persistentvolumeclaim-protection-controller", 1, queue, Protection { claims, users }, executor);
}

/// Also of generic ephemeral volumes, whose claims are named after pod and volume.
pub(crate) fn claim_names(pod: &Pod) -> Vec<String> {
    let volumes = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
    let name = |v: &tiphys_types::api::core::v1::Volume| match (&v.persistent_volume_claim, &v.ephemeral) {
        (Some(claim), _) => Some(claim.claim_name.clone()),
        (None, Some(_)) => Some(format!("{}-{}", pod.metadata.name.as_deref().unwrap_or(""), v.name)),
        (None, None) => None,
    };
    volumes.filter_map(name).collect()
}

struct Protection {
    claims: Informer<PersistentVolumeClaim>,
    users: Index<Pod>,
}

impl Planner for Protection {
    type Key = ObjectKey;

    fn plan(&self, key: &ObjectKey, _: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(claim) = self.claims.by_key(key) else { return plan };
        let used = self.users.get(&key.to_string()).iter().any(|p: &Arc<Pod>| !pods::node_name(p).is_empty() && !pods::is_terminal(p));
        protect(&*claim, FINALIZER, used, &mut plan);
        plan
    }
}

/// Adds the finalizer to what stays, takes it from what is going and not used.
pub(crate) fn protect<K: Kube>(object: &K, finalizer: &str, used: bool, plan: &mut Plan) {
    let meta = object.metadata();
    let has = meta.finalizers.iter().flatten().any(|f| f == finalizer);
    let mut next: Vec<String> = meta.finalizers.iter().flatten().filter(|f| *f != finalizer).cloned().collect();
    match (meta.deletion_timestamp.is_some(), has, used) {
        (false, false, _) => next.push(finalizer.to_owned()),
        (true, true, false) => {}
        _ => return,
    }
    let finalizers = Some(next).filter(|n| !n.is_empty());
    plan.act(Action::update_with(object, |o| o.metadata_mut().finalizers = finalizers).or_settled());
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tiphys_client::gvr_of;
    use tiphys_types::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};

    use crate::shared::test::Rig;
    use crate::volume_protection;

    #[tokio::test(start_paused = true)]
    async fn what_is_used_stays() {
        let rig = Rig::start(&[super::start, volume_protection::start]);
        rig.api.insert(&gvr_of::<PersistentVolumeClaim>(), json!({"metadata": {"namespace": "ns", "name": "data"}, "spec": {}}));
        rig.api.insert(&gvr_of::<PersistentVolume>(), json!({"metadata": {"name": "v"}, "spec": {}, "status": {"phase": "Bound"}}));
        rig.api.insert(
            &gvr_of::<Pod>(),
            json!({"metadata": {"namespace": "ns", "name": "p"}, "status": {"phase": "Running"},
            "spec": {"nodeName": "n", "containers": [], "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]}}),
        );
        rig.settles().await;
        let client = rig.api.client();
        assert!(client.delete::<PersistentVolumeClaim>("ns", "data", &Default::default()).await.is_ok());
        assert!(client.delete::<PersistentVolume>("", "v", &Default::default()).await.is_ok());
        rig.settles().await;
        assert!(rig.api.get(&gvr_of::<PersistentVolumeClaim>(), "ns", "data").is_some());
        assert!(rig.api.get(&gvr_of::<PersistentVolume>(), "", "v").is_some());
        assert!(client.delete::<Pod>("ns", "p", &Default::default()).await.is_ok());
        rig.api.change(&gvr_of::<PersistentVolume>(), "", "v", |v| v["status"]["phase"] = json!("Released"));
        rig.settles().await;
        assert!(rig.api.get(&gvr_of::<PersistentVolumeClaim>(), "ns", "data").is_none());
        assert!(rig.api.get(&gvr_of::<PersistentVolume>(), "", "v").is_none());
    }
}
