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

/// CVE-2023-2728: ephemeral containers and `envFrom` are held to the account's list of secrets as everything else is.
#[tokio::test]
async fn no_container_takes_a_secret_that_its_account_may_not_mount() {
    let rig = Rig::new().await;
    let account = json!({"metadata": {"name": "default", "annotations": {"kubernetes.io/enforce-mountable-secrets": "true"}}, "secrets": [{"name": "mine"}]});
    rig.post(&core("serviceaccounts"), "default", account).await.expect("an account");
    rig.registry.catch_up().await;
    let from = |secret: &str| json!([{"secretRef": {"name": secret}}]);
    let with = |name: &str, field: &str, secret: &str| {
        let mut pod = pod(name);
        pod["spec"][field] = json!([{"name": "x", "image": "i", "envFrom": from(secret)}]);
        pod
    };
    for (field, what) in [("containers", "container"), ("initContainers", "init container")] {
        rig.post(&core("pods"), "default", with(&field.to_lowercase(), field, "mine")).await.expect("its own");
        let refused = rig.post(&core("pods"), "default", with("other", field, "other")).await.expect_err("not its own");
        let want = format!(
            "pods \"other\" is forbidden: {what} x with envFrom referencing secret.secretName=\"other\" is not allowed because service account default does not reference that secret"
        );
        assert_eq!(refused.message, want);
    }
    let made = rig.post(&core("pods"), "default", pod("runs")).await.expect("a pod");
    let debug = |secret: &str| {
        let mut pod = made.clone();
        pod["spec"]["ephemeralContainers"] = json!([{"name": "debug", "image": "i", "terminationMessagePolicy": "File",
            "env": [{"name": "V", "valueFrom": {"secretKeyRef": {"name": secret, "key": "k"}}}]}]);
        rig.ask(Verb::Update, &core("pods"), "default", "runs").sub("ephemeralcontainers").json(pod)
    };
    let refused = debug("other").await.expect_err("not its own");
    assert!(
        refused.message.contains("ephemeral container debug with envVar V referencing secret.secretName=\"other\""),
        "{}",
        refused.message
    );
    debug("mine").await.expect("its own");
}

#[tokio::test]
async fn pod_security_sees_what_is_added_to_a_pod() {
    let rig = Rig::new().await;
    let labels = json!({"pod-security.kubernetes.io/enforce": "baseline", "pod-security.kubernetes.io/enforce-version": "v1.30",
        "pod-security.kubernetes.io/audit": "restricted", "pod-security.kubernetes.io/warn": "privileged"});
    rig.post(&core("namespaces"), "", json!({"metadata": {"name": "held", "labels": labels}})).await.expect("a namespace");
    rig.post(&core("serviceaccounts"), "held", json!({"metadata": {"name": "default"}})).await.expect("an account");
    rig.registry.catch_up().await;
    let notes = crate::AuditNotes::kept(false);
    let mut ask = rig.ask(Verb::Create, &core("pods"), "held", "");
    ask.info.notes = notes.clone();
    let mut made = ask.json(pod("p")).await.expect("baseline");
    let heard = notes.all();
    assert_eq!(heard["pod-security.kubernetes.io/enforce-policy"], "baseline:v1.30");
    let violations = &heard["pod-security.kubernetes.io/audit-violations"];
    assert!(violations.starts_with("would violate PodSecurity \"restricted:latest\": allowPrivilegeEscalation != false"), "{violations}");
    made["spec"]["ephemeralContainers"] =
        json!([{"name": "debug", "image": "i", "terminationMessagePolicy": "File", "securityContext": {"privileged": true}}]);
    let refused = rig.ask(Verb::Update, &core("pods"), "held", "p").sub("ephemeralcontainers").json(made).await.expect_err("privileged");
    assert_eq!(
        refused.message,
        "pods \"p\" is forbidden: violates PodSecurity \"baseline:v1.30\": privileged (container \"debug\" must not set securityContext.privileged=true)"
    );
}

/// Keys end in what they name: `foo` and `foobar` share a beginning and nothing else, and a name is one step of a key.
#[tokio::test]
async fn names_that_begin_alike_stay_apart() {
    let rig = Rig::new().await;
    for namespace in ["foo", "foobar"] {
        rig.post(&core("namespaces"), "", json!({"metadata": {"name": namespace}})).await.expect("a namespace");
        rig.post(&core("configmaps"), namespace, json!({"metadata": {"name": "c"}})).await.expect("made");
        rig.post(&core("configmaps"), namespace, json!({"metadata": {"name": "cc"}})).await.expect("made");
    }
    let list = rig.ask(Verb::List, &core("configmaps"), "foo", "").json(serde_json::Value::Null).await.expect("listed");
    let found: Vec<_> =
        list["items"].as_array().expect("items").iter().map(|i| (&i["metadata"]["namespace"], &i["metadata"]["name"])).collect();
    assert_eq!(found, [(&json!("foo"), &json!("c")), (&json!("foo"), &json!("cc"))]);
    let mut watch = rig.ask(Verb::Watch, &core("configmaps"), "foo", "").watch().await;
    assert_eq!((watch.short().await, watch.short().await), ("ADDED c".to_owned(), "ADDED cc".to_owned()));
    rig.ask(Verb::DeleteCollection, &core("configmaps"), "foo", "").json(serde_json::Value::Null).await.expect("deleted");
    for name in ["c", "cc"] {
        rig.get(&core("configmaps"), "foobar", name).await.expect("still there");
        assert!(rig.get(&core("configmaps"), "foo", name).await.is_err(), "{name}");
    }
    // A whole key as a name, without a namespace or in another.
    for (namespace, name) in [("", "foobar/c"), ("", "foobar%2Fc"), ("foo", "../foobar/c"), ("foo", "..")] {
        let refused = rig.get(&core("configmaps"), namespace, name).await.expect_err("no such name");
        assert!(matches!(refused.code, 400 | 404), "{namespace} {name}: {}", refused.message);
    }
    let ingress = |resource: &'static str| Gvr::new("networking.k8s.io", "v1", resource);
    let class = json!({"metadata": {"name": "k"}, "spec": {"controller": "example.com/c"}});
    rig.post(&ingress("ingressclasses"), "", class).await.expect("a class");
    let ingresses = rig.ask(Verb::List, &ingress("ingresses"), "", "").json(serde_json::Value::Null).await.expect("listed");
    assert_eq!(ingresses["items"], json!([]));
}

#[tokio::test]
async fn a_resource_is_reached_by_its_own_scope_only() {
    let rig = Rig::new().await;
    rig.post(&core("nodes"), "", json!({"metadata": {"name": "n"}})).await.expect("a node");
    rig.get(&core("nodes"), "", "n").await.expect("there");
    assert_eq!(rig.get(&core("nodes"), "default", "n").await.expect_err("not in a namespace").code, 404);
    assert_eq!(rig.delete(&core("nodes"), "default", "n").await.expect_err("not in a namespace").code, 404);
    // The namespace of the object is that of the path.
    let elsewhere = json!({"metadata": {"name": "c", "namespace": "kube-system"}});
    let refused = rig.post(&core("configmaps"), "default", elsewhere).await.expect_err("elsewhere");
    assert_eq!(refused.message, "the namespace of the provided object does not match the namespace sent on the request");
}
