//! Authorizers and issuers by configuration file.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tiphys_apiserver::UserInfo;
use tiphys_base::pki::{Authority, Names, Subject, Use};
use tiphys_base::{Clock, FakeClock, SystemClock, tls};
use tiphys_client::Patch;
use tiphys_meta::Gvr;
use tokio::net::TcpListener;

use crate::cluster::{Cluster, LOOPBACK};

const HOUR: Duration = Duration::from_secs(3600);

/// Allows ann, denies eve, and has no opinion of others; keeps who was asked about.
async fn webhook(ca: &Authority, asked: Arc<Mutex<Vec<Value>>>) -> u16 {
    let names = Names { dns: vec!["localhost".into()], ips: vec![LOOPBACK] };
    let subject = Subject { common_name: "hook".into(), organizations: vec![] };
    let id = ca.issue(&subject, &names, Use::Server, SystemClock.now(), HOUR).expect("issued");
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls::server(&id, None, &[b"http/1.1"]).expect("TLS")));
    let listener = TcpListener::bind((LOOPBACK, 0)).await.expect("a free port");
    let port = listener.local_addr().expect("address").port();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let Ok(stream) = acceptor.accept(socket).await else { continue };
            let asked = asked.clone();
            let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
                let asked = asked.clone();
                async move {
                    assert_eq!(request.uri().path(), "/authorize");
                    let body = request.into_body().collect().await.expect("body").to_bytes();
                    let mut review: Value = serde_json::from_slice(&body).expect("a review");
                    let user = review["spec"]["user"].clone();
                    review["status"] = json!({"allowed": user == "ann", "denied": user == "eve", "reason": "by the hook"});
                    asked.lock().push(review["spec"].clone());
                    Ok::<_, std::convert::Infallible>(http::Response::new(review.to_string()))
                }
            });
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    port
}

#[tokio::test]
async fn a_webhook_authorizes_as_its_configuration_says() {
    let ca = Authority::generate("hooks", SystemClock.now(), HOUR).expect("CA");
    let asked: Arc<Mutex<Vec<Value>>> = Arc::default();
    let port = webhook(&ca, asked.clone()).await;
    let folder = tempfile::tempdir().expect("folder");
    let (kubeconfig, file) = (folder.path().join("hook"), folder.path().join("authorization.yaml"));
    let cluster =
        json!({"server": format!("https://localhost:{port}/authorize"), "certificate-authority-data": STANDARD.encode(ca.cert_pem())});
    let config = json!({"apiVersion": "v1", "kind": "Config", "current-context": "x", "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "u", "user": {}}], "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}]});
    std::fs::write(&kubeconfig, config.to_string()).expect("written");
    let hook = json!({"timeout": "5s", "subjectAccessReviewVersion": "v1", "matchConditionSubjectAccessReviewVersion": "v1",
        "failurePolicy": "Deny", "connectionInfo": {"type": "KubeConfigFile", "kubeConfigFile": kubeconfig},
        "matchConditions": [{"expression": "has(request.resourceAttributes)"}, {"expression": "request.user != 'unasked'"}]});
    let config = json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthorizationConfiguration", "authorizers": [
        {"type": "Webhook", "name": "hook", "webhook": hook}, {"type": "Node", "name": "node"}, {"type": "RBAC", "name": "rbac"}]});
    std::fs::write(&file, config.to_string()).expect("written");
    let clock = FakeClock::at(SystemClock.now());
    let cluster = Cluster::start_with(|config| (config.authorization_file, config.clock) = (Some(file.clone()), clock.clone())).await;

    let config_maps = Gvr::new("", "v1", "configmaps");
    let list = async |user: &str, groups: &[&str]| {
        let client = cluster.running.client(UserInfo::new(user, groups));
        client.list_value(&config_maps, "default", &Default::default()).await.map(drop).map_err(|e| e.to_string())
    };
    assert_eq!(list("ann", &[]).await, Ok(()));
    assert_eq!(list("ann", &[]).await, Ok(()));
    let of_ann = asked.lock().iter().filter(|spec| spec["user"] == "ann").cloned().collect::<Vec<_>>();
    let attributes = json!({"namespace": "default", "verb": "list", "version": "v1", "resource": "configmaps"});
    let [only] = &of_ann[..] else { panic!("an answer is kept: {of_ann:?}") };
    assert_eq!(only["resourceAttributes"], attributes);
    let refused = list("eve", &["system:authenticated"]).await.expect_err("denied");
    assert!(refused.ends_with("by the hook"), "{refused}");
    assert!(list("bob", &[]).await.expect_err("nobody allows it").contains("cannot list resource"));
    assert!(list("unasked", &[]).await.is_err());
    assert!(asked.lock().iter().all(|spec| spec["user"] != "unasked" && spec["nonResourceAttributes"].is_null()));
    assert_eq!(list("root", &["system:masters"]).await, Ok(()));

    // The file is read again when it has changed; what cannot be used leaves what was before.
    let change = |authorizers: Value, age: u32| {
        let config = json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthorizationConfiguration", "authorizers": authorizers});
        std::fs::write(&file, config.to_string()).expect("written");
        let changed = std::fs::File::options().write(true).open(&file).and_then(|f| f.set_modified(SystemTime::now() + HOUR * age));
        changed.expect("set");
        clock.advance(Duration::from_secs(1));
    };
    change(json!([{"type": "Node", "name": "node"}]), 1);
    assert_eq!(list("ann", &[]).await, Ok(()), "RBAC is missing");
    change(json!([{"type": "Node", "name": "node"}, {"type": "RBAC", "name": "rbac"}]), 2);
    assert!(list("ann", &[]).await.expect_err("nobody is asked any more").contains("cannot list resource"));
    let metrics = String::from_utf8(cluster.running.loopback_client().text("/metrics").await.expect("metrics").to_vec()).expect("text");
    for status in ["success", "failure"] {
        let line =
            format!("apiserver_authorization_config_controller_automatic_reloads_total{{apiserver_id_hash=\"\",status={status:?}}} 1\n");
        assert!(metrics.contains(&line), "{line}");
    }
    assert!(cluster.running.stop().await);
}

#[tokio::test]
async fn parts_of_a_claims_status_have_owners() {
    let cluster = Cluster::start().await;
    let admin = cluster.running.loopback_client();
    let group = |resource: &'static str| Gvr::new("resource.k8s.io", "v1", resource);
    let exactly = json!({"deviceClassName": "c", "adminAccess": true});
    let claim = |name: &str, exactly: &Value| json!({"metadata": {"name": name}, "spec": {"devices": {"requests": [{"name": "r", "exactly": exactly}]}}});
    let refused =
        admin.create_value(&group("resourceclaims"), "default", &claim("admin", &exactly)).await.expect_err("no label").to_string();
    assert!(refused.contains("spec.devices.requests[0].adminAccess: Forbidden: admin access to devices requires the"), "{refused}");
    admin.create_value(&group("resourceclaims"), "default", &claim("c", &json!({"deviceClassName": "c"}))).await.expect("a claim");

    let rbac = |resource: &'static str| Gvr::new("rbac.authorization.k8s.io", "v1", resource);
    let rule = |verbs: &[&str], resource: &str| json!({"apiGroups": ["resource.k8s.io"], "verbs": verbs, "resources": [resource]});
    for (name, rules, users) in [
        (
            "status",
            vec![rule(&["patch"], "resourceclaims/status")],
            vec!["nobody", "binder", "driver", "system:serviceaccount:default:plugin"],
        ),
        ("binding", vec![rule(&["patch"], "resourceclaims/binding")], vec!["binder"]),
        ("anywhere", vec![rule(&["arbitrary-node:patch"], "resourceclaims/driver")], vec!["driver"]),
        ("here", vec![rule(&["associated-node:patch"], "resourceclaims/driver")], vec!["system:serviceaccount:default:plugin"]),
    ] {
        admin.create_value(&rbac("clusterroles"), "", &json!({"metadata": {"name": name}, "rules": rules})).await.expect("a role");
        let subjects: Vec<Value> =
            users.iter().map(|user| json!({"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": user})).collect();
        let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name});
        let binding = json!({"metadata": {"name": name}, "roleRef": role, "subjects": subjects});
        admin.create_value(&rbac("clusterrolebindings"), "", &binding).await.expect("a binding");
    }
    // The compiled policy follows what is written; the last of it is waited for.
    let attributes =
        json!({"group": "resource.k8s.io", "resource": "resourceclaims", "subresource": "driver", "verb": "associated-node:patch"});
    let review = json!({"spec": {"user": "system:serviceaccount:default:plugin", "resourceAttributes": attributes}});
    let reviews = Gvr::new("authorization.k8s.io", "v1", "subjectaccessreviews");
    while admin.create_value(&reviews, "", &review).await.expect("an answer")["status"]["allowed"] != true {
        tokio::task::yield_now().await;
    }
    let patch = async |user: UserInfo, status: &Value| {
        let patch = Patch::Merge(json!({"status": status}));
        let client = cluster.running.client(user);
        client.patch_value(&group("resourceclaims"), "default", "c", "status", &patch).await.map(drop).map_err(|e| e.to_string())
    };
    let plain = |name: &str| UserInfo::new(name, &["system:authenticated"]);
    let on = |node: &str| {
        let mut plugin = plain("system:serviceaccount:default:plugin");
        plugin.extra.insert("authentication.kubernetes.io/node-name".into(), vec![node.into()]);
        plugin
    };
    let selector = json!({"nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]}]});
    let device = json!({"request": "r", "driver": "d.example.com", "pool": "p", "device": "x"});
    let allocation = json!({"allocation": {"devices": {"results": [device]}, "nodeSelector": selector}});
    let refused = patch(plain("nobody"), &allocation).await.expect_err("not theirs");
    for words in [
        "status.allocation: Forbidden: changing status.allocation or status.reservedFor requires resource=\"resourceclaims/binding\"",
        "at the cluster scope",
    ] {
        assert!(refused.contains(words), "{refused}");
    }
    assert_eq!(patch(plain("binder"), &allocation).await, Ok(()));
    let told = |n: u32| json!({"devices": [{"driver": "d.example.com", "pool": "p", "device": "x", "data": {"n": n}}]});
    for other in [plain("binder"), on("m"), plain("system:serviceaccount:default:plugin")] {
        let refused = patch(other, &told(1)).await.expect_err("not theirs");
        assert!(
            refused.contains("changing status.devices requires resource=\"resourceclaims/driver\", verb=\"[arbitrary-node:patch]\""),
            "{refused}"
        );
    }
    assert_eq!(patch(plain("driver"), &told(1)).await, Ok(()));
    assert_eq!(patch(on("n"), &told(2)).await, Ok(()));
    assert!(cluster.running.stop().await);
}
