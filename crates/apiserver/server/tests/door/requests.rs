//! The whole door on a registry in memory: in process, over TLS, and through to a kubelet that is not there.

use std::sync::Arc;

use crate::cluster::{Cluster, LOOPBACK};
use futures_util::StreamExt;
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tiphys_apiserver::UserInfo;
use tiphys_base::pki::Use;
use tiphys_base::tls;
use tiphys_client::https::Identity;
use tiphys_client::{Client, EventType, Request};
use tiphys_meta::Gvr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

fn gvr(group: &'static str, version: &'static str, resource: &'static str) -> Gvr {
    Gvr::new(group, version, resource)
}

fn message(result: Result<Value, tiphys_client::ClientError>) -> String {
    result.expect_err("refused").to_string()
}

#[tokio::test]
async fn in_process_requests_pass_the_chain() {
    let cluster = Cluster::start().await;
    let admin = cluster.running.loopback_client();
    let nobody = cluster.running.client(UserInfo::new("ann", &[]));
    let config_maps = gvr("", "v1", "configmaps");
    let want = "configmaps is forbidden: User \"ann\" cannot list resource \"configmaps\" in API group \"\" in the namespace \"default\"";
    assert_eq!(message(nobody.list_value(&config_maps, "default", &Default::default()).await), want);

    let made = json!({"metadata": {"name": "a"}, "data": {"x": "1"}});
    admin.create_value(&config_maps, "default", &made).await.expect("created");
    let bindings = gvr("rbac.authorization.k8s.io", "v1", "rolebindings");
    let binding = json!({"metadata": {"name": "b"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
                         "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "ann"}]});
    let mut watch = admin.watch_path("/apis/rbac.authorization.k8s.io/v1/rolebindings?watch=true".into()).await.expect("watch");
    admin.create_value(&bindings, "default", &binding).await.expect("bound");
    while let Some(Ok((kind, object))) = watch.next().await {
        if kind == EventType::Added && serde_json::from_slice::<Value>(&object).expect("JSON")["metadata"]["name"] == "b" {
            break;
        }
    }
    until_allowed(&nobody, &config_maps).await;
    let got = nobody.get_value(&config_maps, "default", "a").await.expect("may read now");
    assert_eq!(got["data"]["x"], "1");
    assert!(message(nobody.create_value(&config_maps, "default", &made).await).contains("cannot create resource"));
    assert!(cluster.running.stop().await);
}

/// The policy follows its watch; how soon is up to the scheduler of tasks.
async fn until_allowed(client: &Client, gvr: &Gvr) {
    while client.list_value(gvr, "default", &Default::default()).await.is_err() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn nobody_grants_what_they_do_not_hold() {
    let cluster = Cluster::start().await;
    let admin = cluster.running.loopback_client();
    let editor = UserInfo::new("eve", &[]);
    let roles = gvr("rbac.authorization.k8s.io", "v1", "roles");
    let binding = json!({"metadata": {"name": "b"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "admin"},
                         "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "eve"}]});
    admin.create_value(&gvr("rbac.authorization.k8s.io", "v1", "rolebindings"), "default", &binding).await.expect("bound");
    let eve = cluster.running.client(editor);
    until_allowed(&eve, &gvr("", "v1", "configmaps")).await;
    let role = |rules: Value| json!({"metadata": {"name": "r"}, "rules": rules});
    let too_much = role(json!([{"verbs": ["get", "list"], "apiGroups": [""], "resources": ["nodes"]}]));
    let refused = message(eve.create_value(&roles, "default", &too_much).await);
    let want = "roles.rbac.authorization.k8s.io \"r\" is forbidden: user \"eve\" (groups=[\"system:authenticated\"]) is attempting to grant RBAC \
                permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"nodes\"], Verbs:[\"get\" \"list\"]}";
    assert_eq!(refused, want);
    let enough = role(json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]));
    eve.create_value(&roles, "default", &enough).await.expect("held");
}

/// A client certificate, a token, nothing: over TLS and HTTP/2.
#[tokio::test]
async fn over_tls_by_certificate_and_token() {
    let cluster = Cluster::start().await;
    let address = cluster.running.address();
    let id = cluster.issue("admin", &["system:masters"], Use::Client);
    let https = |config: tiphys_client::https::Config| Client::https(config).expect("client");
    let as_who = |identity: Identity| tiphys_client::https::Config {
        server: format!("https://{address}"),
        ca: cluster.ca.cert_pem().as_bytes().to_vec(),
        identity,
        ..Default::default()
    };
    let admin = https(as_who(Identity::Certificate { chain: id.cert_pem.into_bytes(), key: id.key_pem.into_bytes() }));
    let version: Value = serde_json::from_slice(&admin.text("/version").await.expect("version")).expect("JSON");
    assert_eq!(version["minor"], "36");
    let namespaces = admin.list_value(&gvr("", "v1", "namespaces"), "", &Default::default()).await.expect("list");
    assert_eq!(namespaces["items"].as_array().map(Vec::len), Some(4));

    let accounts = gvr("", "v1", "serviceaccounts");
    admin.create_value(&accounts, "default", &json!({"metadata": {"name": "bot"}})).await.expect("created");
    let request = json!({"spec": {"expirationSeconds": 600}});
    let token = admin.create_subresource(&accounts, "default", "bot", "token", &request).await.expect("token");
    let token = token["status"]["token"].as_str().expect("token").to_owned();
    let bot = https(as_who(Identity::Token(token.clone())));
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let me = bot.create_value(&gvr("authentication.k8s.io", "v1", "selfsubjectreviews"), "", &review).await.expect("whoami");
    assert_eq!(me["status"]["userInfo"]["username"], "system:serviceaccount:default:bot");

    let anyone = https(as_who(Identity::Anonymous));
    assert_eq!(anyone.text("/livez").await.expect("open"), "ok");
    assert_eq!(anyone.text("/version").await.expect_err("closed").to_string(), "Unauthorized");
    let forged = https(as_who(Identity::Token(format!("{token}x"))));
    assert_eq!(forged.text("/version").await.expect_err("refused").to_string(), "Unauthorized");
}

/// A kubelet that answers any upgrade and then sends back what it hears; it tells the path that it was asked for first.
async fn echoing_kubelet(cluster: &Cluster) -> u16 {
    let id = cluster.issue("system:node:n1", &["system:nodes"], Use::Server);
    let config = tls::server(&id, Some(cluster.ca.cert_pem().as_bytes()), &[b"http/1.1"]).expect("TLS");
    let listener = TcpListener::bind((LOOPBACK, 0)).await.expect("a free port");
    let port = listener.local_addr().expect("address").port();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let Ok(stream) = acceptor.accept(socket).await else { continue };
            assert!(stream.get_ref().1.peer_certificates().is_some(), "the API server shows its certificate");
            tokio::spawn(kubelet_connection(stream));
        }
    });
    port
}

async fn kubelet_connection(stream: tokio_rustls::server::TlsStream<TcpStream>) {
    let service = hyper::service::service_fn(|mut request: http::Request<hyper::body::Incoming>| async move {
        let path = request.uri().to_string();
        let refused =
            [("command=deny", 403), ("command=move", 302), ("command=other", 101)].into_iter().find(|(what, _)| path.contains(what));
        if let Some((_, code)) = refused {
            let response = http::Response::builder().status(code).header("location", "https://evil.example.com/");
            let response = if code == 101 { response.header("connection", "Upgrade").header("upgrade", "h2c") } else { response };
            return Ok::<_, std::convert::Infallible>(response.body("no".to_owned()).expect("response"));
        }
        if path.starts_with("/containerLogs") && !request.headers().contains_key("upgrade") {
            return Ok(http::Response::new(path));
        }
        let protocol = request.headers()["upgrade"].clone();
        let upgraded = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let mut io = TokioIo::new(upgraded.await.expect("upgraded"));
            io.write_all(path.as_bytes()).await.expect("path");
            let mut buffer = [0; 64];
            while let Ok(n) = io.read(&mut buffer).await {
                if n == 0 || io.write_all(&buffer[..n]).await.is_err() {
                    return;
                }
            }
        });
        let response = http::Response::builder().status(101).header("connection", "Upgrade").header("upgrade", protocol);
        Ok(response.body(String::new()).expect("response"))
    });
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades().await;
}

async fn pod_on_node(cluster: &Cluster, port: u16) -> Client {
    let admin = cluster.running.loopback_client();
    let node = json!({"metadata": {"name": "n1"}, "status": {"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}}}});
    let nodes = gvr("", "v1", "nodes");
    let mut made = admin.create_value(&nodes, "", &node).await.expect("node");
    made["status"] = node["status"].clone();
    admin.update_value(&nodes, &made, "status").await.expect("status");
    admin.create_value(&gvr("", "v1", "serviceaccounts"), "default", &json!({"metadata": {"name": "default"}})).await.expect("account");
    let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]}});
    admin.create_value(&gvr("", "v1", "pods"), "default", &pod).await.expect("pod");
    admin
}

type Sender = hyper::client::conn::http1::SendRequest<Empty<bytes::Bytes>>;

/// One connection of HTTP/1.1 as the administrator.
async fn connection(cluster: &Cluster) -> Sender {
    let id = cluster.issue("admin", &["system:masters"], Use::Client);
    let mut config = tls::client(tls::ServerTrust::Ca(cluster.ca.cert_pem().as_bytes()), Some(&id)).expect("TLS");
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let socket = TcpStream::connect(cluster.running.address()).await.expect("connected");
    let name = "127.0.0.1".try_into().expect("name");
    let stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, socket).await.expect("TLS");
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
    tokio::spawn(connection.with_upgrades());
    sender
}

fn upgrade(method: &str, what: &str, protocol: &str) -> http::Request<Empty<bytes::Bytes>> {
    let request = http::Request::builder().method(method).uri(format!("/api/v1/namespaces/default/pods/p/{what}"));
    let request = request.header("host", "localhost").header("connection", "Upgrade").header("upgrade", protocol);
    request.header("x-stream-protocol-version", "v4.channel.k8s.io").body(Empty::new()).expect("request")
}

#[tokio::test]
async fn logs_over_websocket_are_tunnelled() {
    let cluster = Cluster::start().await;
    let port = echoing_kubelet(&cluster).await;
    pod_on_node(&cluster, port).await;
    let mut sender = connection(&cluster).await;
    let mut response = sender.send_request(upgrade("GET", "log?tailLines=3", "websocket")).await.expect("answer");
    assert_eq!((response.status().as_u16(), &response.headers()["upgrade"]), (101, &http::HeaderValue::from_static("websocket")));
    let mut io = TokioIo::new(hyper::upgrade::on(&mut response).await.expect("upgraded"));
    let want = b"/containerLogs/default/p/c?tailLines=3&stream=All";
    let mut got = vec![0; want.len()];
    io.read_exact(&mut got).await.expect("path");
    assert_eq!(got, want);
}

/// CVE-2018-1002105: what follows a refused upgrade is a request to this server, never to the kubelet with our certificate.
/// CVE-2022-3172: nobody is sent elsewhere with their credentials.
#[tokio::test]
async fn a_refused_upgrade_leaves_no_tunnel() {
    let cluster = Cluster::start().await;
    let port = echoing_kubelet(&cluster).await;
    pod_on_node(&cluster, port).await;
    for (command, want) in [("deny", 403), ("move", 502), ("other", 502)] {
        let mut sender = connection(&cluster).await;
        let request = upgrade("POST", &format!("exec?command={command}"), "SPDY/3.1");
        let response = sender.send_request(request).await.expect("answer");
        assert_eq!(response.status(), want, "{command}");
        assert!(want != 502 || !response.headers().contains_key("location"), "{command}");
        drop(response);
        if sender.ready().await.is_ok() {
            let again = http::Request::get("/version").header("host", "localhost").body(Empty::new()).expect("request");
            let response = sender.send_request(again).await.expect("answer");
            assert!(response.headers().contains_key("audit-id"), "{command}: the API server answers, and nobody else");
        }
    }
}

#[tokio::test]
async fn exec_is_tunnelled_to_the_kubelet() {
    let cluster = Cluster::start().await;
    let port = echoing_kubelet(&cluster).await;
    let admin = pod_on_node(&cluster, port).await;
    let log = admin.text("/api/v1/namespaces/default/pods/p/log?tailLines=3&follow=true").await.expect("log");
    assert_eq!(log, "/containerLogs/default/p/c?follow=true&tailLines=3&stream=All");

    let mut sender = connection(&cluster).await;
    let request = upgrade("POST", "exec?command=ls&stdout=true", "SPDY/3.1");
    let mut response = sender.send_request(request).await.expect("answer");
    assert_eq!(response.status(), 101);
    let mut io = TokioIo::new(hyper::upgrade::on(&mut response).await.expect("upgraded"));
    let want = b"/exec/default/p/c?output=1&command=ls";
    let mut got = vec![0; want.len()];
    io.read_exact(&mut got).await.expect("path");
    assert_eq!(got, want);
    io.write_all(b"hello").await.expect("sent");
    let mut echoed = [0; 5];
    io.read_exact(&mut echoed).await.expect("echo");
    assert_eq!(&echoed, b"hello");
}

#[tokio::test]
async fn an_exec_without_upgrade_is_refused() {
    let cluster = Cluster::start().await;
    let admin = pod_on_node(&cluster, 1).await;
    let request = Request::with_json(http::Method::POST, "/api/v1/namespaces/default/pods/p/exec?command=ls", vec![]);
    assert_eq!(admin.raw(request).await.expect_err("refused").to_string(), "Upgrade request required");
    let unreachable = admin.text("/api/v1/namespaces/default/pods/p/log").await.expect_err("nobody listens").to_string();
    assert!(unreachable.contains("dial tcp 127.0.0.1:1"), "{unreachable}");
}

#[tokio::test]
async fn documents() {
    let cluster = Cluster::start().await;
    let admin = cluster.running.loopback_client();
    while admin.text("/readyz").await.is_err() {
        tokio::task::yield_now().await;
    }
    for (path, has) in [
        ("/apis/apps/v1", "\"name\":\"deployments/scale\""),
        ("/api/v1", "\"shortNames\":[\"po\"]"),
        ("/openapi/v3", "apis/apps/v1"),
        ("/readyz?verbose", "[+]etcd ok"),
        ("/metrics", "apiserver_request_total"),
        ("/.well-known/openid-configuration", "jwks_uri"),
        ("/", "/apis/apps/v1"),
    ] {
        let text = admin.text(path).await.expect(path);
        assert!(String::from_utf8_lossy(&text).contains(has), "{path}");
    }
    assert!(admin.text("/nowhere").await.is_err());
}
