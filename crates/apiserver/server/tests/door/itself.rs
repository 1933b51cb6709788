//! What the server tells of itself.

use serde_json::{Value, json};
use tiphys_apiserver::UserInfo;
use tiphys_client::ListOptions;
use tiphys_meta::Gvr;

use crate::cluster::Cluster;

async fn page(cluster: &Cluster, path: &str, accept: &str) -> (u16, String, String) {
    let request = http::Request::get(path).header("accept", accept).body(bytes::Bytes::new()).expect("a request");
    let response = cluster.running.answer(request, UserInfo::new("root", &["system:masters"])).await;
    let (code, content_type) = (response.status().as_u16(), response.headers()["content-type"].to_str().expect("text").to_owned());
    let body = http_body_util::BodyExt::collect(response.into_body()).await.expect("a body").to_bytes();
    (code, content_type, String::from_utf8(body.to_vec()).expect("text"))
}

#[tokio::test]
async fn pages_tell_what_runs_here_and_how() {
    let cluster = Cluster::start_with(|config| config.max_requests_in_flight = 417).await;
    let (code, content_type, text) = page(&cluster, "/statusz", "application/json, */*").await;
    assert_eq!((code, content_type.as_str()), (200, "text/plain; charset=utf-8"));
    for line in [
        "\napiserver statusz\n",
        "\nUp: 0 hr 00 min 0",
        "\nBinary version: 1.36.3\n",
        "\nPaths: /flagz /healthz /livez /metrics /readyz /statusz /version\n",
    ] {
        assert!(text.contains(line), "{text}");
    }
    let (code, content_type, text) = page(&cluster, "/statusz", "application/json;v=v1beta1;g=config.k8s.io;as=Statusz").await;
    assert_eq!((code, content_type.as_str()), (200, "application/json;g=config.k8s.io;v=v1beta1;as=Statusz"));
    let status: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!((&status["kind"], &status["metadata"]), (&json!("Statusz"), &json!({"name": "apiserver"})));
    let (code, _, text) = page(&cluster, "/statusz", "application/json").await;
    assert_eq!(code, 406);
    assert!(text.contains("only the following media types are accepted: application/json, application/yaml, text/plain"), "{text}");
    let (code, content_type, _) = page(&cluster, "/statusz", "application/vnd.kubernetes.protobuf").await;
    assert_eq!((code, content_type.as_str()), (406, "application/json"));
    let (_, _, text) = page(&cluster, "/flagz", "").await;
    assert!(text.contains("\nmax-requests-inflight=417\n"), "{text}");
    let (_, content_type, text) = page(&cluster, "/flagz", "application/yaml;v=v1alpha1;g=config.k8s.io;as=Flagz").await;
    assert_eq!(content_type, "application/yaml;g=config.k8s.io;v=v1alpha1;as=Flagz");
    assert!(text.contains("\n  max-requests-inflight: \"417\"\n"), "{text}");
    assert!(cluster.running.stop().await);
}

#[tokio::test]
async fn a_lease_tells_that_the_server_lives() {
    let cluster = Cluster::start().await;
    let leases = Gvr::new("coordination.k8s.io", "v1", "leases");
    let client = cluster.running.loopback_client();
    let mut events =
        client.watch_path("/apis/coordination.k8s.io/v1/namespaces/kube-system/leases?watch=true".to_owned()).await.expect("a watch");
    let (_, bytes) = futures_util::StreamExt::next(&mut events).await.expect("an event").expect("a Lease");
    let lease: Value = serde_json::from_slice(&bytes).expect("JSON");
    let name = lease["metadata"]["name"].as_str().expect("a name").to_owned();
    assert!(name.starts_with("apiserver-") && name.len() == "apiserver-".len() + 26, "{name}");
    assert_eq!(lease["metadata"]["annotations"], json!({"kubernetes.io/peer-advertise-address": cluster.running.address().to_string()}));
    assert!(lease["spec"]["holderIdentity"].as_str().is_some_and(|holder| holder.starts_with(&format!("{name}_"))), "{lease}");
    let list = client.list_value(&leases, "kube-system", &ListOptions::labels("apiserver.kubernetes.io/identity=kube-apiserver")).await;
    assert_eq!(list.expect("a list")["items"].as_array().map(Vec::len), Some(1));
    assert!(cluster.running.stop().await);
}
