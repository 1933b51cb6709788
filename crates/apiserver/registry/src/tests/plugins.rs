use serde_json::json;
use tiphys_meta::Gvr;

use super::lifecycle::{pod, with_account};
use super::{Rig, core};
use crate::Verb;

#[tokio::test]
async fn a_pod_gets_an_account_its_token_a_priority_and_patience() {
    let rig = Rig::new().await;
    with_account(&rig).await;
    let made = rig.post(&core("pods"), "default", pod("a")).await.expect("created");
    let spec = &made["spec"];
    assert_eq!((spec["serviceAccountName"].as_str(), spec["priority"].as_i64()), (Some("default"), Some(0)));
    assert_eq!(spec["preemptionPolicy"], "PreemptLowerPriority");
    let volume = spec["volumes"][0]["name"].as_str().unwrap_or("");
    assert!(volume.starts_with("kube-api-access-") && volume.len() == 21, "{volume}");
    assert_eq!(spec["volumes"][0]["projected"]["sources"][0]["serviceAccountToken"]["path"], "token");
    assert_eq!(spec["containers"][0]["volumeMounts"][0]["mountPath"], "/var/run/secrets/kubernetes.io/serviceaccount");
    let tolerations = spec["tolerations"].as_array().map(Vec::len);
    assert_eq!((tolerations, spec["tolerations"][0]["tolerationSeconds"].as_i64()), (Some(2), Some(300)));
}

#[tokio::test(start_paused = true)]
async fn a_pod_does_not_wait_forever_for_its_default_account() {
    let rig = Rig::new().await;
    let refused = rig.post(&core("pods"), "default", pod("a")).await.expect_err("no account");
    assert_eq!(
        refused.message,
        "pods \"a\" is forbidden: error looking up service account default/default: serviceaccount \"default\" not found"
    );
}

#[tokio::test]
async fn a_pod_waits_for_its_default_account() {
    let rig = Rig::new().await;
    let pods = core("pods");
    let (made, ()) = tokio::join!(rig.post(&pods, "default", pod("a")), async {
        tokio::task::yield_now().await;
        with_account(&rig).await;
    });
    made.expect("the account came");
}

#[tokio::test]
async fn priority_classes() {
    let rig = Rig::new().await;
    with_account(&rig).await;
    let classes = Gvr::new("scheduling.k8s.io", "v1", "priorityclasses");
    let class = |name: &str, value: i64| json!({"metadata": {"name": name}, "value": value, "globalDefault": true});
    rig.post(&classes, "", class("usual", 7)).await.expect("created");
    let second = rig.post(&classes, "", class("other", 8)).await.expect_err("one default");
    assert!(second.message.ends_with("PriorityClass usual is already marked as default. Only one default can exist"), "{}", second.message);
    rig.registry.catch_up().await;
    let made = rig.post(&core("pods"), "default", pod("a")).await.expect("created");
    assert_eq!((made["spec"]["priorityClassName"].as_str(), made["spec"]["priority"].as_i64()), (Some("usual"), Some(7)));
    let mut critical = pod("b");
    critical["spec"]["priorityClassName"] = json!("system-node-critical");
    let made = rig.post(&core("pods"), "default", critical.clone()).await.expect("created");
    assert_eq!(made["spec"]["priority"], 2_000_001_000);
    critical["metadata"]["name"] = json!("c");
    critical["spec"]["priorityClassName"] = json!("nothing");
    let refused = rig.post(&core("pods"), "default", critical).await.expect_err("no class");
    assert_eq!(refused.message, "pods \"c\" is forbidden: no PriorityClass with name nothing was found");
}

#[tokio::test]
async fn limit_ranges_fill_and_refuse() {
    let rig = Rig::new().await;
    with_account(&rig).await;
    let limit = json!({"type": "Container", "default": {"cpu": "1"}, "defaultRequest": {"cpu": "100m"}, "max": {"cpu": "2"}});
    rig.post(&core("limitranges"), "default", json!({"metadata": {"name": "l"}, "spec": {"limits": [limit]}})).await.expect("created");
    rig.registry.catch_up().await;
    let made = rig.post(&core("pods"), "default", pod("a")).await.expect("created");
    assert_eq!(made["spec"]["containers"][0]["resources"], json!({"limits": {"cpu": "1"}, "requests": {"cpu": "100m"}}));
    assert_eq!(
        made["metadata"]["annotations"]["kubernetes.io/limit-ranger"],
        "LimitRanger plugin set: cpu request for container c; cpu limit for container c"
    );
    let mut greedy = pod("b");
    greedy["spec"]["containers"][0]["resources"] = json!({"limits": {"cpu": "3"}});
    let refused = rig.post(&core("pods"), "default", greedy).await.expect_err("too much");
    assert_eq!(refused.message, "pods \"b\" is forbidden: maximum cpu usage per Container is 2, but limit is 3");
}

#[tokio::test]
async fn a_quota_is_never_exceeded_however_many_come_at_once() {
    let rig = Rig::new().await;
    let quotas = core("resourcequotas");
    rig.post(&quotas, "default", json!({"metadata": {"name": "q"}, "spec": {"hard": {"configmaps": "5"}}})).await.expect("created");
    let unknown = rig.post(&core("configmaps"), "default", json!({"metadata": {"name": "early"}})).await;
    // Until somebody has counted, nothing is known to be used of nothing.
    assert!(unknown.is_ok());
    let status = json!({"status": {"hard": {"configmaps": "5"}, "used": {"configmaps": "1"}}});
    let ask = rig.ask(Verb::Patch, &quotas, "default", "q").sub("status").content("application/merge-patch+json");
    ask.json(status).await.expect("counted");
    rig.registry.catch_up().await;
    let creations = (0..20).map(|i| {
        let rig = &rig;
        async move { rig.post(&core("configmaps"), "default", json!({"metadata": {"name": format!("c{i}")}})).await }
    });
    let results = futures_util::future::join_all(creations).await;
    assert_eq!(results.iter().filter(|r| r.is_ok()).count(), 4);
    let refused = results.into_iter().find_map(Result::err).expect("refused");
    assert_eq!(refused.code, 403);
    assert!(
        refused.message.ends_with("is forbidden: exceeded quota: q, requested: configmaps=1, used: configmaps=5, limited: configmaps=5"),
        "{}",
        refused.message
    );
    let now = rig.get(&quotas, "default", "q").await.expect("there");
    assert_eq!(now["status"]["used"]["configmaps"], "5");
}

#[tokio::test]
async fn nodes_claims_and_volumes() {
    let rig = Rig::new().await;
    let node = rig.post(&core("nodes"), "", json!({"metadata": {"name": "n"}})).await.expect("created");
    assert_eq!(node["spec"]["taints"][0]["key"], "node.kubernetes.io/not-ready");
    let class =
        json!({"metadata": {"name": "gold", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}, "provisioner": "x/y"});
    rig.post(&Gvr::new("storage.k8s.io", "v1", "storageclasses"), "", class).await.expect("created");
    rig.registry.catch_up().await;
    let spec = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
    let claim =
        rig.post(&core("persistentvolumeclaims"), "default", json!({"metadata": {"name": "c"}, "spec": spec})).await.expect("created");
    assert_eq!(claim["spec"]["storageClassName"], "gold");
    assert_eq!(claim["metadata"]["finalizers"], json!(["kubernetes.io/pvc-protection"]));
}

#[tokio::test]
async fn nobody_asks_for_masters() {
    use base64::Engine as _;
    let rig = Rig::new().await;
    let base64 = |bytes: &[u8]| base64::engine::general_purpose::STANDARD.encode(bytes);
    let pem = format!("-----BEGIN CERTIFICATE REQUEST-----\n{}\n-----END CERTIFICATE REQUEST-----\n", base64(b"..system:masters.."));
    let spec = json!({"signerName": "kubernetes.io/kube-apiserver-client", "usages": ["client auth"], "request": base64(pem.as_bytes())});
    let gvr = Gvr::new("certificates.k8s.io", "v1", "certificatesigningrequests");
    let refused = rig.post(&gvr, "", json!({"metadata": {"name": "c"}, "spec": spec})).await.expect_err("masters");
    assert!(matches!(refused.code, 403 | 422), "{}", refused.message);
}

#[tokio::test]
async fn who_may_not_set_finalizers_may_not_block_deletion() {
    let rig = Rig::new().await;
    let owner = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "o", "uid": "u", "blockOwnerDeletion": true});
    let object = json!({"metadata": {"name": "a", "ownerReferences": [owner]}});
    // Nobody has given the registry an authorizer: everybody but the masters is refused.
    let refused =
        rig.ask(Verb::Create, &core("configmaps"), "default", "").user("eve", &[]).json(object.clone()).await.expect_err("refused");
    assert!(
        refused.message.contains("cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on")
    );
    rig.post(&core("configmaps"), "default", object).await.expect("masters may");
}

#[tokio::test]
async fn namespaces_ask_for_pod_security() {
    let rig = Rig::new().await;
    with_account(&rig).await;
    let labels = json!({"pod-security.kubernetes.io/enforce": "baseline", "pod-security.kubernetes.io/warn": "restricted"});
    rig.merge(&core("namespaces"), "", "default", json!({"metadata": {"labels": labels}})).await.expect("labelled");
    let (_, _, warnings) = rig.ask(Verb::Create, &core("pods"), "default", "").document(pod("a").to_string()).await.expect("baseline");
    assert!(warnings.iter().any(|w| w.starts_with("would violate PodSecurity \"restricted:latest\": ")), "{warnings:?}");
    let mut host = pod("b");
    host["spec"]["hostNetwork"] = json!(true);
    let refused = rig.post(&core("pods"), "default", host).await.expect_err("refused");
    assert_eq!(refused.message, "pods \"b\" is forbidden: violates PodSecurity \"baseline:latest\": host namespaces (hostNetwork=true)");
}
