//! Generic ephemeral volumes (KEP-1698): a claim for each, that lives as long as its pod.
//!
//! Watches Pods and claims; owns the claims, which are named after pod and volume; makes them.

use std::sync::Arc;

use jiff::Timestamp;
use tiphys_client::{Action, Delta, Informer, Note, ObjectKey, Plan, Planner, WorkQueue};
use tiphys_types::api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimTemplate, Pod};
use tiphys_types::metav1::ObjectMeta;
use tiphys_types::owners::{controller_reference, is_controlled_by};

use crate::Context;
use crate::shared::pod::about;
use crate::shared::watch;

pub(crate) fn start(context: &Context) {
    let (pods, claims) = (context.informers.of::<Pod>(), context.informers.of::<PersistentVolumeClaim>());
    let queue = WorkQueue::new();
    let again = queue.clone();
    pods.on_change(move |delta| {
        // Volumes of a pod do not change.
        if let Delta::Added(pod) = delta
            && templates(pod).next().is_some()
        {
            again.add(ObjectKey::of(&**pod));
        }
        true
    });
    watch::owned(&claims, "Pod", &queue);
    let executor = context.executor("ephemeral_volume").reading(pods.clone()).reading(claims.clone());
    context.run("ephemeral-volume-controller", 2, queue, Volumes { pods, claims }, executor);
}

/// Names of volumes, with what their claims are made from.
fn templates(pod: &Pod) -> impl Iterator<Item = (&str, &PersistentVolumeClaimTemplate)> {
    let volumes = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
    volumes.filter_map(|v| Some((v.name.as_str(), v.ephemeral.as_ref()?.volume_claim_template.as_ref()?)))
}

struct Volumes {
    pods: Informer<Pod>,
    claims: Informer<PersistentVolumeClaim>,
}

impl Planner for Volumes {
    type Key = ObjectKey;

    fn plan(&self, key: &ObjectKey, _: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(pod) = self.pods.by_key(key).filter(|p: &Arc<Pod>| p.metadata.deletion_timestamp.is_none()) else { return plan };
        let me = about(&*pod);
        for (volume, template) in templates(&pod) {
            let name = format!("{}-{volume}", key.name);
            let say = |error: String| Note::warning(&me, "FailedBinding", format!("ephemeral volume {volume}: {error}"));
            match self.claims.get(&key.namespace, &name) {
                None => {
                    let failed = say(format!("create PVC {name}: {{error}}"));
                    plan.act(Action::create(&claim(&pod, name, template)).say_when_failed(failed));
                }
                Some(claim) if is_controlled_by(&claim.metadata, &pod.metadata) => {}
                Some(_) => {
                    let text =
                        format!("PVC {}/{name} was not created for pod {}/{} (pod is not owner)", key.namespace, key.namespace, key.name);
                    plan.note(say(text));
                }
            }
        }
        plan
    }
}

fn claim(pod: &Pod, name: String, template: &PersistentVolumeClaimTemplate) -> PersistentVolumeClaim {
    let from = template.metadata.clone().unwrap_or_default();
    let metadata = ObjectMeta {
        name: Some(name),
        namespace: pod.metadata.namespace.clone(),
        labels: from.labels,
        annotations: from.annotations,
        owner_references: Some(vec![controller_reference::<Pod>(&pod.metadata)]),
        ..Default::default()
    };
    PersistentVolumeClaim { metadata, spec: Some(template.spec.clone()), status: None }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use tiphys_client::gvr_of;

    use super::*;
    use crate::shared::test::Rig;

    #[tokio::test(start_paused = true)]
    async fn each_volume_gets_its_claim_once() {
        let rig = Rig::start(&[start]);
        let volume = |name: &str| json!({"name": name, "ephemeral": {"volumeClaimTemplate": {"metadata": {"labels": {"l": "1"}}, "spec": {"storageClassName": "s"}}}});
        rig.api.insert(&gvr_of::<PersistentVolumeClaim>(), json!({"metadata": {"namespace": "ns", "name": "p-taken"}, "spec": {}}));
        rig.api.insert(
            &gvr_of::<Pod>(),
            json!({"metadata": {"namespace": "ns", "name": "p"}, "spec": {"containers": [], "volumes": [
                {"name": "plain", "emptyDir": {}}, volume("a"), volume("b"), volume("taken")]}}),
        );
        rig.settles().await;
        let claims = rig.api.list(&gvr_of::<PersistentVolumeClaim>());
        let names: Vec<&Value> = claims.iter().map(|c| &c["metadata"]["name"]).collect();
        assert_eq!(names, ["p-a", "p-b", "p-taken"]);
        assert_eq!(
            (&claims[0]["metadata"]["ownerReferences"][0]["kind"], &claims[0]["spec"]["storageClassName"]),
            (&json!("Pod"), &json!("s"))
        );
        assert_eq!(claims[2]["metadata"]["ownerReferences"], Value::Null);

        // Lost ones come back.
        let client = rig.api.client();
        let gone = client.delete::<PersistentVolumeClaim>("ns", "p-a", &tiphys_client::DeleteOptions::default()).await;
        assert!(gone.is_ok());
        rig.settles().await;
        assert!(rig.api.get(&gvr_of::<PersistentVolumeClaim>(), "ns", "p-a").is_some());
    }
}
