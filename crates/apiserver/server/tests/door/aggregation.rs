//! A server behind an APIService: found available, shown in discovery, asked in its user's name, and its redirects refused.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tiphys_apiserver::UserInfo;
use tiphys_base::pki::{Names, Subject, Use};
use tiphys_base::{Clock, SystemClock, tls};
use tiphys_client::Client;
use tiphys_meta::Gvr;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::cluster::{Cluster, LOOPBACK};

const PATH: &str = "/apis/wardle.example.com/v1alpha1";

/// What the other server answers: its resources, who asks, or a way elsewhere.
async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let header = |name: &str| request.headers().get_all(name).iter().filter_map(|v| v.to_str().ok()).collect::<Vec<_>>().join(",");
    let document = match request.uri().path() {
        PATH => json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "wardle.example.com/v1alpha1", "resources": [
            {"name": "flunders", "singularName": "flunder", "namespaced": true, "kind": "Flunder", "verbs": ["get", "list"]}]}),
        "/openapi/v3" => {
            json!({"paths": {"apis/wardle.example.com/v1alpha1": {"serverRelativeURL": "/openapi/v3/apis/wardle.example.com/v1alpha1?hash=AB"}}})
        }
        "/openapi/v2" => {
            json!({"paths": {(format!("{PATH}/flunders")): {}, "/apis/": {}}, "definitions": {"com.example.Flunder": {"type": "object"}}})
        }
        path if path.ends_with("/elsewhere") => {
            return Ok(Response::builder()
                .status(302)
                .header("location", "https://evil.example.com/")
                .body(Full::default())
                .expect("response"));
        }
        _ => json!({"user": header("x-remote-user"), "groups": header("x-remote-group"), "authorization": header("authorization")}),
    };
    Ok(Response::new(Full::new(document.to_string().into())))
}

/// Its port, and the CA that its certificate is by.
async fn other_server(cluster: &Cluster) -> u16 {
    let subject = Subject { common_name: "sample".into(), organizations: vec![] };
    let names = Names { dns: vec!["sample.default.svc".into()], ips: vec![] };
    let id = cluster.ca.issue(&subject, &names, Use::Server, SystemClock.now(), std::time::Duration::from_secs(3600)).expect("issued");
    let acceptor = TlsAcceptor::from(Arc::new(tls::server(&id, None, &[]).expect("TLS")));
    let listener = TcpListener::bind((LOOPBACK, 0)).await.expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(socket).await else { return };
                let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer)).await;
            });
        }
    });
    port
}

fn api_services() -> Gvr {
    Gvr::new("apiregistration.k8s.io", "v1", "apiservices")
}

async fn condition(admin: &Client, wanted: &str) -> Value {
    loop {
        let object = admin.get_value(&api_services(), "", "v1alpha1.wardle.example.com").await.expect("there");
        match object["status"]["conditions"].as_array().and_then(|all| all.first()) {
            Some(condition) if condition["status"] == wanted => return condition.clone(),
            _ => tokio::task::yield_now().await,
        }
    }
}

async fn json_of(client: &Client, path: &str) -> Result<Value, tiphys_client::ClientError> {
    Ok(serde_json::from_slice(&client.text(path).await?).expect("JSON"))
}

#[tokio::test]
async fn a_server_behind_an_api_service() {
    use base64::Engine as _;
    let cluster = Cluster::start().await;
    let admin = cluster.running.loopback_client();
    let port = other_server(&cluster).await;
    let service = json!({"metadata": {"name": "sample"}, "spec": {"type": "ExternalName", "externalName": "localhost"}});
    let bundle = base64::engine::general_purpose::STANDARD.encode(cluster.ca.cert_pem());
    let api_service = json!({"metadata": {"name": "v1alpha1.wardle.example.com"}, "spec": {"group": "wardle.example.com", "version": "v1alpha1",
        "groupPriorityMinimum": 2000, "versionPriority": 200, "caBundle": bundle,
        "service": {"namespace": "default", "name": "sample", "port": port}}});
    admin.create_value(&api_services(), "", &api_service).await.expect("created");
    let down = condition(&admin, "False").await;
    assert_eq!(down["message"], "service/sample in \"default\" is not present");
    assert!(admin.text(PATH).await.expect_err("unavailable").to_string().contains("service unavailable"));

    admin.create_value(&Gvr::new("", "v1", "services"), "default", &service).await.expect("created");
    assert_eq!(condition(&admin, "True").await["message"], "all checks passed");
    let flunders = format!("{PATH}/namespaces/default/flunders");
    let said = json_of(&admin, &flunders).await.expect("answered");
    assert_eq!(said, json!({"user": "system:apiserver", "groups": "system:masters,system:authenticated", "authorization": ""}));
    let ann = cluster.running.client(UserInfo::new("ann", &[]));
    assert!(json_of(&ann, &flunders).await.expect_err("refused").to_string().contains("cannot list resource \"flunders\""));
    assert!(admin.text(&format!("{flunders}/elsewhere")).await.is_err(), "a redirect is not followed, nor handed on");

    let groups = json_of(&admin, "/apis").await.expect("discovery");
    assert!(groups["groups"].as_array().expect("groups").iter().any(|g| g["name"] == "wardle.example.com"));
    let index = json_of(&admin, "/openapi/v3").await.expect("index");
    assert!(index["paths"]["apis/wardle.example.com/v1alpha1"].is_object() && index["paths"]["api/v1"].is_object());
    let v2 = json_of(&admin, "/openapi/v2").await.expect("document");
    assert!(v2["paths"][format!("{PATH}/flunders")].is_object() && v2["definitions"]["com.example.Flunder"].is_object());
    assert!(v2["definitions"]["io.k8s.api.core.v1.Pod"].is_object());

    admin.delete_value(&api_services(), "", "v1alpha1.wardle.example.com", &Default::default()).await.expect("deleted");
    while admin.text(PATH).await.is_ok() {
        tokio::task::yield_now().await;
    }
    assert!(cluster.running.stop().await);
}

#[tokio::test]
async fn what_is_served_here_is_registered() {
    let cluster = Cluster::start().await;
    let admin = cluster.running.loopback_client();
    loop {
        let found = admin.get_value(&api_services(), "", "v1.apps").await;
        if let Ok(object) = found
            && let Some(condition) = object["status"]["conditions"].get(0)
        {
            assert_eq!((&condition["reason"], &condition["status"]), (&json!("Local"), &json!("True")));
            assert_eq!(object["metadata"]["labels"]["kube-aggregator.kubernetes.io/automanaged"], "onstart");
            break;
        }
        tokio::task::yield_now().await;
    }
    while admin.text("/readyz").await.is_err() {
        tokio::task::yield_now().await;
    }
    assert!(cluster.running.stop().await);
}
