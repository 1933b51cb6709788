//! Admission webhooks that listen on loopback.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tiphys_base::pki::Use;
use tiphys_base::tls;
use tiphys_client::ClientError;
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
    if path == "/mutate" {
        let patch = json!([{"op": "add", "path": "/data/stamped", "value": request["userInfo"]["username"]}]);
        response["patch"] = json!(STANDARD.encode(patch.to_string()));
        response["patchType"] = json!("JSONPatch");
        response["warnings"] = json!(["stamped"]);
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
