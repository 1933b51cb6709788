//! Admission webhooks that listen on loopback.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tiphys_apiserver::config::AuditLog;
use tiphys_base::pki::Use;
use tiphys_base::tls;
use tiphys_client::{ClientError, Patch};
use tiphys_meta::Gvr;
use tokio::net::TcpListener;

use crate::cluster::{Cluster, LOOPBACK};

/// Patches config maps at `/mutate`, refuses those with a bad value at `/validate`, and never answers at `/hang`.
async fn webhook(cluster: &Cluster) -> u16 {
    let id = cluster.issue("webhook", &[], Use::Server);
    let config = tls::server(&id, None, &[b"http/1.1"]).expect("TLS");
    let listener = TcpListener::bind((LOOPBACK, 0)).await.expect("a free port");
    let port = listener.local_addr().expect("address").port();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let Ok(stream) = acceptor.accept(socket).await else { continue };
            let service = hyper::service::service_fn(|request: http::Request<hyper::body::Incoming>| async move {
                let path = request.uri().path().to_owned();
                let body = request.into_body().collect().await.expect("body").to_bytes();
                if path == "/hang" {
                    std::future::pending::<()>().await;
                }
                let review: Value = serde_json::from_slice(&body).expect("a review");
                Ok::<_, std::convert::Infallible>(http::Response::new(answer(&path, &review["request"]).to_string()))
            });
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    port
}

fn answer(path: &str, request: &Value) -> Value {
    let mut response = json!({"uid": request["uid"], "allowed": true});
    if path == "/tell" {
        let told = ["kind", "resource", "subResource", "requestKind", "requestResource", "options"].map(|f| request[f].clone());
        let objects = ["object", "oldObject"].map(|o| format!("{}/{}", request[o]["apiVersion"], request[o]["kind"]).replace('"', ""));
        response["allowed"] = json!(false);
        response["status"] = json!({"message": json!([told, objects]).to_string()});
    } else if path == "/mutate" {
        let patch = json!([{"op": "add", "path": "/data/stamped", "value": request["userInfo"]["username"]}]);
        response["patch"] = json!(STANDARD.encode(patch.to_string()));
        response["patchType"] = json!("JSONPatch");
        response["warnings"] = json!(["stamped"]);
        response["auditAnnotations"] = json!({"by": "stamp"});
    } else if request["object"]["command"][0] == "sh" {
        let asked = [&request["operation"], &request["kind"]["kind"], &request["subResource"], &request["object"]["container"]];
        response["allowed"] = json!(false);
        response["status"] = json!({"message": format!("no shells: {asked:?}")});
    } else if request["object"]["data"]["value"] == "bad" {
        response["allowed"] = json!(false);
        response["status"] = json!({"message": "bad value", "reason": "because", "code": 403});
    }
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})
}

fn configuration(cluster: &Cluster, kind: &str, name: &str, port: u16, path: &str) -> Value {
    json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": name}, "webhooks": [{
        "name": format!("{name}.example.com"), "sideEffects": "None", "admissionReviewVersions": ["v1"], "timeoutSeconds": 1,
        "objectSelector": {"matchExpressions": [{"key": "skip", "operator": "DoesNotExist"}]},
        "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}],
        "clientConfig": {"url": format!("https://localhost:{port}{path}"), "caBundle": STANDARD.encode(cluster.ca.cert_pem())},
    }]})
}

#[tokio::test]
async fn webhooks_change_and_refuse() {
    let cluster = Cluster::start().await;
    let port = webhook(&cluster).await;
    let admin = cluster.running.loopback_client();
    let mutating = Gvr::new("admissionregistration.k8s.io", "v1", "mutatingwebhookconfigurations");
    let validating = Gvr::new("admissionregistration.k8s.io", "v1", "validatingwebhookconfigurations");
    let stamp = configuration(&cluster, "MutatingWebhookConfiguration", "stamp", port, "/mutate");
    let check = configuration(&cluster, "ValidatingWebhookConfiguration", "check", port, "/validate");
    admin.create_value(&mutating, "", &stamp).await.expect("configured");
    admin.create_value(&validating, "", &check).await.expect("configured");
    let config_maps = Gvr::new("", "v1", "configmaps");
    let create = async |name: &str, value: &str, labels: Value| -> Result<Value, ClientError> {
        let object = json!({"metadata": {"name": name, "labels": labels}, "data": {"value": value}});
        admin.create_value(&config_maps, "default", &object).await
    };
    let made = create("good", "good", json!({})).await.expect("allowed");
    assert_eq!(made["data"], json!({"stamped": "system:apiserver", "value": "good"}));
    let refused = create("bad", "bad", json!({})).await.expect_err("refused");
    assert_eq!(refused.to_string(), "admission webhook \"check.example.com\" denied the request: bad value");
    assert_eq!(refused.api().map(|e| e.code), Some(403));
    let skipped = create("skipped", "bad", json!({"skip": "me"})).await.expect("not selected");
    assert_eq!(skipped["data"], json!({"value": "bad"}));

    let hang = configuration(&cluster, "ValidatingWebhookConfiguration", "hang", port, "/hang");
    admin.create_value(&validating, "", &hang).await.expect("configured");
    let late = create("late", "good", json!({})).await.expect_err("too late").to_string();
    assert!(late.contains("failed calling webhook \"hang.example.com\"") && late.contains("context deadline exceeded"), "{late}");
}

/// Exec and its kin are creations of a connection, whose options a webhook judges.
#[tokio::test]
async fn webhooks_see_connections() {
    let cluster = Cluster::start().await;
    let port = webhook(&cluster).await;
    let admin = cluster.running.loopback_client();
    let mut check = configuration(&cluster, "ValidatingWebhookConfiguration", "check", port, "/validate");
    check["webhooks"][0]["rules"] =
        json!([{"operations": ["CONNECT"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods/exec"]}]);
    let validating = Gvr::new("admissionregistration.k8s.io", "v1", "validatingwebhookconfigurations");
    admin.create_value(&validating, "", &check).await.expect("configured");
    let exec = async |command: &str| {
        let path = format!("/api/v1/namespaces/default/pods/p/exec?command={command}&container=c");
        let request = tiphys_client::Request::with_json(http::Method::POST, path, vec![]);
        admin.raw(request).await.expect_err("refused").to_string()
    };
    let want = "admission webhook \"check.example.com\" denied the request: no shells: \
                [String(\"CONNECT\"), String(\"PodExecOptions\"), String(\"exec\"), String(\"c\")]";
    assert_eq!(exec("sh").await, want);
    assert_eq!(exec("ls").await, "pods \"p\" not found", "let through to the pod, which is not there");
}

/// What is sent to a subresource is what webhooks see, and every version is heard of by those who asked for one of them.
#[tokio::test]
async fn webhooks_see_scales_and_the_version_that_they_ask_for() {
    let cluster = Cluster::start().await;
    let port = webhook(&cluster).await;
    let admin = cluster.running.loopback_client();
    let deployments = Gvr::new("apps", "v1", "deployments");
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let object = json!({"metadata": {"name": "d"}, "spec": {"replicas": 1, "selector": {"matchLabels": {"a": "b"}}, "template": template}});
    admin.create_value(&deployments, "default", &object).await.expect("made");
    let mut tell = configuration(&cluster, "ValidatingWebhookConfiguration", "tell", port, "/tell");
    tell["webhooks"][0]["rules"] = json!([
        {"operations": ["UPDATE"], "apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments/scale"]},
        {"operations": ["CREATE"], "apiGroups": ["autoscaling"], "apiVersions": ["v1"], "resources": ["horizontalpodautoscalers"]},
    ]);
    let validating = Gvr::new("admissionregistration.k8s.io", "v1", "validatingwebhookconfigurations");
    admin.create_value(&validating, "", &tell).await.expect("configured");
    let told = |error: ClientError| {
        let text = error.to_string();
        let (_, said) = text.split_once("denied the request: ").unwrap_or_else(|| panic!("{text}"));
        serde_json::from_str::<Value>(said).expect("JSON")
    };

    let patch = Patch::Merge(json!({"spec": {"replicas": 3}}));
    let scale = told(admin.patch_value(&deployments, "default", "d", "scale", &patch).await.expect_err("told"));
    let kind = json!({"group": "autoscaling", "version": "v1", "kind": "Scale"});
    let resource = json!({"group": "apps", "version": "v1", "resource": "deployments"});
    assert_eq!((&scale[0][0], &scale[0][1], &scale[0][2]), (&kind, &resource, &json!("scale")));
    assert_eq!((&scale[0][3], &scale[0][4], &scale[0][5]["kind"]), (&kind, &resource, &json!("UpdateOptions")));
    assert_eq!(scale[1], json!(["autoscaling/v1/Scale", "autoscaling/v1/Scale"]));

    let scalers = Gvr::new("autoscaling", "v2", "horizontalpodautoscalers");
    let target = json!({"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"});
    let object = json!({"metadata": {"name": "h"}, "spec": {"maxReplicas": 3, "scaleTargetRef": target}});
    let scaler = told(admin.create_value(&scalers, "default", &object).await.expect_err("told"));
    let kind = |version: &str| json!({"group": "autoscaling", "version": version, "kind": "HorizontalPodAutoscaler"});
    assert_eq!((&scaler[0][0], &scaler[0][3], &scaler[0][1]["version"]), (&kind("v1"), &kind("v2"), &json!("v1")));
    assert_eq!(scaler[1][0], "autoscaling/v1/HorizontalPodAutoscaler");
}

/// What the audit log keeps of webhooks: their own annotations, whether they changed something, what, and who failed.
#[tokio::test]
async fn the_audit_log_hears_of_webhooks() {
    let folder = tempfile::tempdir().expect("folder");
    let (path, policy) = (folder.path().join("audit.log"), folder.path().join("policy.yaml"));
    let rules = "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n- level: Request\n  resources: [{group: \"\", resources: [configmaps]}]\n- level: None\n";
    std::fs::write(&policy, rules).expect("written");
    let log = AuditLog { path: path.clone(), policy_file: Some(policy), ..AuditLog::default() };
    let cluster = Cluster::start_with(|config| config.audit = Some(log)).await;
    let port = webhook(&cluster).await;
    let admin = cluster.running.loopback_client();
    let mutating = Gvr::new("admissionregistration.k8s.io", "v1", "mutatingwebhookconfigurations");
    let validating = Gvr::new("admissionregistration.k8s.io", "v1", "validatingwebhookconfigurations");
    let stamp = configuration(&cluster, "MutatingWebhookConfiguration", "stamp", port, "/mutate");
    admin.create_value(&mutating, "", &stamp).await.expect("configured");
    let mut gone = configuration(&cluster, "ValidatingWebhookConfiguration", "gone", 1, "/");
    gone["webhooks"][0]["failurePolicy"] = json!("Ignore");
    admin.create_value(&validating, "", &gone).await.expect("configured");
    let object = json!({"metadata": {"name": "c"}, "data": {"value": "good"}});
    admin.create_value(&Gvr::new("", "v1", "configmaps"), "default", &object).await.expect("made");
    assert!(cluster.running.stop().await);
    let text = std::fs::read_to_string(path).expect("written");
    let mut events = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let event = events.find(|e| e["requestObject"]["metadata"]["name"] == "c" && e["stage"] == "ResponseComplete");
    let mut annotations = event.unwrap_or_else(|| panic!("no event in {text}"))["annotations"].clone();
    let patch = annotations["patch.webhook.admission.k8s.io/round_0_index_0"].take();
    let patch: Value = serde_json::from_str(patch.as_str().expect("a patch")).expect("JSON");
    assert_eq!(
        (&patch["configuration"], &patch["patchType"], &patch["patch"][0]["path"]),
        (&json!("stamp"), &json!("JSONPatch"), &json!("/data/stamped"))
    );
    for (key, want) in [
        ("stamp.example.com/by", "stamp"),
        (
            "mutation.webhook.admission.k8s.io/round_0_index_0",
            "{\"configuration\":\"stamp\",\"webhook\":\"stamp.example.com\",\"mutated\":true}",
        ),
        ("failed-open.validating.webhook.admission.k8s.io/round_0_index_0", "gone.example.com"),
        ("authorization.k8s.io/decision", "allow"),
    ] {
        assert_eq!(annotations[key], want, "{key} of {annotations}");
    }
}
