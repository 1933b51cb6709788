use std::time::Duration;

use serde_json::{Value, json};
use tiphys_meta::Gvr;

use super::{Rig, core, version};
use crate::{EventType, Verb};

pub(super) fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"app": "x"}}, "spec": {"containers": [{"name": "c", "image": "busybox"}]}})
}

pub(super) async fn with_account(rig: &Rig) {
    rig.post(&core("serviceaccounts"), "default", json!({"metadata": {"name": "default"}})).await.expect("an account");
}

async fn bind(rig: &Rig, name: &str, node: &str) -> Result<Value, tiphys_meta::ApiError> {
    let binding = json!({"metadata": {"name": name}, "target": {"kind": "Node", "name": node}});
    rig.ask(Verb::Create, &core("pods"), "default", name).sub("binding").json(binding).await
}

#[tokio::test]
async fn a_pod_from_birth_to_the_kubelets_last_word() {
    let rig = Rig::new().await;
    with_account(&rig).await;
    let pods = core("pods");
    let made = rig.post(&pods, "default", pod("a")).await.expect("created");
    assert_eq!(made["status"]["phase"], "Pending");
    assert_eq!(made["metadata"]["generation"], 1);
    let status = bind(&rig, "a", "node-1").await.expect("bound");
    assert_eq!(status["status"], "Success");
    let bound = rig.get(&pods, "default", "a").await.expect("there");
    assert_eq!(bound["spec"]["nodeName"], "node-1");
    let scheduled = bound["status"]["conditions"].as_array().into_iter().flatten().find(|c| c["type"] == "PodScheduled");
    assert_eq!(scheduled.map(|c| c["status"].clone()), Some(json!("True")));
    let again = bind(&rig, "a", "node-2").await.expect_err("bound already");
    assert_eq!(again.message, "Operation cannot be fulfilled on pods/binding \"a\": pod a is already assigned to node \"node-1\"");

    let mut running = bound.clone();
    running["status"]["phase"] = json!("Running");
    running["spec"]["nodeName"] = json!("elsewhere");
    let running = rig.ask(Verb::Update, &pods, "default", "a").sub("status").json(running).await.expect("status");
    assert_eq!((running["status"]["phase"].as_str(), running["spec"]["nodeName"].as_str()), (Some("Running"), Some("node-1")));

    let mut events = rig.ask(Verb::Watch, &pods, "", "").query("fieldSelector=spec.nodeName%3Dnode-1").watch().await;
    assert_eq!(events.short().await, "ADDED a");
    let going = rig.delete(&pods, "default", "a").await.expect("going");
    assert_eq!(going["metadata"]["deletionTimestamp"], "2026-11-21T10:00:30Z");
    assert_eq!(going["metadata"]["deletionGracePeriodSeconds"], 30);
    assert_eq!(events.next().await.map(|e| e.0), Some(EventType::Modified));
    // The same again changes nothing; less grace does.
    let same = rig.delete(&pods, "default", "a").await.expect("going");
    assert_eq!(version(&same), version(&going));
    rig.clock.advance(Duration::from_secs(2));
    let sooner = rig.ask(Verb::Delete, &pods, "default", "a").json(json!({"gracePeriodSeconds": 5})).await.expect("sooner");
    assert_eq!(sooner["metadata"]["deletionTimestamp"], "2026-11-21T10:00:05Z");
    let gone = rig.ask(Verb::Delete, &pods, "default", "a").json(json!({"gracePeriodSeconds": 0})).await.expect("gone");
    assert_eq!(gone["kind"], "Pod");
    assert_eq!(events.next().await.map(|e| e.0), Some(EventType::Modified));
    assert_eq!(events.next().await.map(|e| e.0), Some(EventType::Deleted));
    assert_eq!(rig.get(&pods, "default", "a").await.expect_err("gone").code, 404);
}

#[tokio::test]
async fn an_unscheduled_pod_goes_at_once_unless_a_finalizer_holds_it() {
    let rig = Rig::new().await;
    with_account(&rig).await;
    let pods = core("pods");
    rig.post(&pods, "default", pod("a")).await.expect("created");
    rig.delete(&pods, "default", "a").await.expect("gone");
    assert_eq!(rig.get(&pods, "default", "a").await.expect_err("gone").code, 404);
    let mut held = pod("b");
    held["metadata"]["finalizers"] = json!(["batch.kubernetes.io/job-tracking"]);
    rig.post(&pods, "default", held).await.expect("created");
    let marked = rig.delete(&pods, "default", "b").await.expect("marked");
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 0);
    rig.merge(&pods, "default", "b", json!({"metadata": {"finalizers": null}})).await.expect("the last goes");
    assert_eq!(rig.get(&pods, "default", "b").await.expect_err("gone").code, 404);
}

#[tokio::test]
async fn a_namespace_ends_when_it_is_finalized() {
    let rig = Rig::new().await;
    let namespaces = core("namespaces");
    let made = rig.post(&namespaces, "", json!({"metadata": {"name": "n"}})).await.expect("created");
    assert_eq!(made["spec"]["finalizers"], json!(["kubernetes"]));
    assert_eq!(made["metadata"]["labels"]["kubernetes.io/metadata.name"], "n");
    assert_eq!(made["status"]["phase"], "Active");
    let going = rig.delete(&namespaces, "", "n").await.expect("going");
    assert_eq!(going["status"]["phase"], "Terminating");
    assert!(going["metadata"].get("deletionTimestamp").is_some());
    let refused = rig.post(&core("configmaps"), "n", json!({"metadata": {"name": "a"}})).await.expect_err("going");
    assert_eq!(refused.code, 403);
    assert_eq!(
        refused.message,
        "configmaps \"a\" is forbidden: unable to create new content in namespace n because it is being terminated"
    );
    assert_eq!(refused.causes[0].reason, "NamespaceTerminating");
    let mut last = going.clone();
    last["spec"]["finalizers"] = json!([]);
    rig.ask(Verb::Update, &namespaces, "", "n").sub("finalize").json(last).await.expect("finalized");
    assert_eq!(rig.get(&namespaces, "", "n").await.expect_err("gone").code, 404);
    let stays = rig.delete(&namespaces, "", "default").await.expect_err("stays");
    assert_eq!((stays.code, stays.message.as_str()), (403, "namespaces \"default\" is forbidden: this namespace may not be deleted"));
    let missing = rig.post(&core("configmaps"), "none", json!({"metadata": {"name": "a"}})).await.expect_err("no namespace");
    assert_eq!((missing.code, missing.message.as_str()), (404, "namespaces \"none\" not found"));
}

#[tokio::test]
async fn scale() {
    let rig = Rig::new().await;
    let deployments = Gvr::new("apps", "v1", "deployments");
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let object = json!({"metadata": {"name": "d"}, "spec": {"replicas": 2, "selector": {"matchLabels": {"a": "b"}}, "template": template}});
    let made = rig.post(&deployments, "default", object).await.expect("created");
    assert_eq!(made["metadata"]["generation"], 1);
    let ask = |verb| rig.ask(verb, &deployments, "default", "d").sub("scale");
    let mut scale = ask(Verb::Get).json(Value::Null).await.expect("a scale");
    assert_eq!((scale["kind"].as_str(), scale["apiVersion"].as_str()), (Some("Scale"), Some("autoscaling/v1")));
    assert_eq!((scale["spec"]["replicas"].as_i64(), scale["status"]["selector"].as_str()), (Some(2), Some("a=b")));
    scale["spec"]["replicas"] = json!(5);
    let scaled = ask(Verb::Update).json(scale.clone()).await.expect("scaled");
    assert_eq!(scaled["spec"]["replicas"], 5);
    assert_eq!(ask(Verb::Update).json(scale).await.expect_err("stale").code, 409);
    let patched = ask(Verb::Patch).content("application/merge-patch+json").json(json!({"spec": {"replicas": 0}})).await.expect("patched");
    assert!(patched["spec"].get("replicas").is_none());
    let now = rig.get(&deployments, "default", "d").await.expect("there");
    assert_eq!((now["spec"]["replicas"].as_i64(), now["metadata"]["generation"].as_i64()), (Some(0), Some(3)));
    let apply = |manager: &str, replicas: i64| {
        let config = json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "d"}, "spec": {"replicas": replicas}});
        ask(Verb::Patch).content("application/apply-patch+yaml").query(&format!("fieldManager={manager}")).json(config)
    };
    let refused = apply("ann", 3).await.expect_err("somebody else's");
    assert_eq!((refused.code, refused.message.contains(".spec.replicas")), (409, true), "{}", refused.message);
    apply("ann&force=true", 3).await.expect("taken over");
    assert_eq!(apply("ann", 4).await.expect("one's own")["spec"]["replicas"], 4);
    let now = rig.get(&deployments, "default", "d").await.expect("there");
    let of_scale: Vec<(&Value, &Value)> = now["metadata"]["managedFields"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|e| e["subresource"] == "scale")
        .map(|e| (&e["manager"], &e["operation"]))
        .collect();
    assert_eq!(of_scale, [(&json!("ann"), &json!("Apply"))], "whoever had the replicas before has nothing more");
}

/// Policies see what is sent to a subresource, and the pod or workload beside it only where that is sent.
#[tokio::test]
async fn admission_sees_bindings_and_scales() {
    let rig = Rig::new().await;
    with_account(&rig).await;
    let rules = |group: &str, resource: &str, operation: &str| json!({"resourceRules": [{"apiGroups": [group], "apiVersions": ["*"], "operations": [operation], "resources": [resource]}]});
    let policy =
        |constraints: Value, expression: &str| json!({"matchConstraints": constraints, "validations": [{"expression": expression}]});
    let policies = Gvr::new("admissionregistration.k8s.io", "v1", "validatingadmissionpolicies");
    let bindings = Gvr::new("admissionregistration.k8s.io", "v1", "validatingadmissionpolicybindings");
    for (name, spec) in [
        (
            "bind",
            policy(rules("", "pods/binding", "CREATE"), "object.kind == 'Binding' && object.target.name != 'bad' && oldObject == null"),
        ),
        (
            "scale",
            policy(rules("apps", "*/scale", "UPDATE"), "object.kind == 'Scale' && object.spec.replicas <= oldObject.spec.replicas + 1"),
        ),
    ] {
        rig.post(&policies, "", json!({"metadata": {"name": name}, "spec": spec})).await.expect("a policy");
        let binding = json!({"policyName": name, "validationActions": ["Deny"]});
        rig.post(&bindings, "", json!({"metadata": {"name": name}, "spec": binding})).await.expect("a binding");
    }
    rig.post(&core("pods"), "default", pod("a")).await.expect("created");
    assert_eq!(bind(&rig, "a", "bad").await.expect_err("refused").code, 422);
    bind(&rig, "a", "good").await.expect("bound");
    let deployments = Gvr::new("apps", "v1", "deployments");
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let object = json!({"metadata": {"name": "d"}, "spec": {"replicas": 2, "selector": {"matchLabels": {"a": "b"}}, "template": template}});
    rig.post(&deployments, "default", object).await.expect("created");
    let scale = |replicas: i64| {
        let ask = rig.ask(Verb::Patch, &deployments, "default", "d").sub("scale").content("application/merge-patch+json");
        ask.json(json!({"spec": {"replicas": replicas}}))
    };
    assert_eq!(scale(4).await.expect_err("too many").code, 422);
    scale(3).await.expect("scaled");
}

#[tokio::test]
async fn evictions_spend_the_budget() {
    let rig = Rig::new().await;
    with_account(&rig).await;
    let (pods, budgets) = (core("pods"), Gvr::new("policy", "v1", "poddisruptionbudgets"));
    for name in ["a", "b"] {
        rig.post(&pods, "default", pod(name)).await.expect("created");
        bind(&rig, name, "node-1").await.expect("bound");
        let status = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
        let ask = rig.ask(Verb::Patch, &pods, "default", name).sub("status").content("application/merge-patch+json");
        ask.json(status).await.expect("running");
    }
    let budget = json!({"metadata": {"name": "p"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "x"}}}});
    rig.post(&budgets, "default", budget).await.expect("created");
    let status =
        json!({"status": {"observedGeneration": 1, "disruptionsAllowed": 1, "currentHealthy": 2, "desiredHealthy": 1, "expectedPods": 2}});
    let ask = rig.ask(Verb::Patch, &budgets, "default", "p").sub("status").content("application/merge-patch+json");
    ask.json(status).await.expect("counted");
    let evict = |name: &'static str| {
        let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}});
        rig.ask(Verb::Create, &pods, "default", name).sub("eviction").json(eviction)
    };
    evict("a").await.expect("evicted");
    let going = rig.get(&pods, "default", "a").await.expect("going");
    assert!(going["metadata"].get("deletionTimestamp").is_some());
    assert!(going["status"]["conditions"].as_array().into_iter().flatten().any(|c| c["type"] == "DisruptionTarget"));
    let spent = rig.get(&budgets, "default", "p").await.expect("there");
    assert_eq!(spent["status"]["disruptionsAllowed"], 0);
    assert!(spent["status"]["disruptedPods"].get("a").is_some());
    let refused = evict("b").await.expect_err("spent");
    assert_eq!((refused.code, refused.causes[0].reason.as_str()), (429, "DisruptionBudget"));
}
