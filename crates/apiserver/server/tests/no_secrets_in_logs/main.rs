//! Neither the log, at its most talkative, nor the audit log at Metadata, nor an error holds what a Secret holds or a token.
//!
//! Alone in its program: the subscriber is the whole program's.

#[allow(dead_code, reason = "the other tests use the rest of it")]
#[path = "../door/cluster.rs"]
mod cluster;

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use serde_json::json;
use tiphys_apiserver::config::AuditLog;
use tiphys_base::pki::Use;
use tiphys_client::https::{Config, Identity};
use tiphys_client::{Client, Request};
use tiphys_meta::Gvr;
use tracing::field::{Field, Visit};
use tracing_subscriber::layer::{Context, SubscriberExt};

use crate::cluster::Cluster;

/// Everything that our crates log, at every level.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<String>>);

struct Line<'a>(&'a mut String);

impl Visit for Line<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let _ = write!(self.0, " {}={value:?}", field.name());
    }
}

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Heard {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        if event.metadata().target().starts_with("tiphys") {
            let mut text = self.0.lock().expect("no panic while held");
            event.record(&mut Line(&mut text));
            text.push('\n');
        }
    }

    fn on_new_span(&self, attributes: &tracing::span::Attributes<'_>, _: &tracing::span::Id, _: Context<'_, S>) {
        if attributes.metadata().target().starts_with("tiphys") {
            attributes.record(&mut Line(&mut self.0.lock().expect("no panic while held")));
        }
    }
}

/// What must not be found anywhere. None of them is a part of a name.
const KEPT: &str = "swordfish-kept";
const SENT: &str = "swordfish-sent";
const FORGED: &str = "swordfish-forged";

async fn ask(client: &Client, method: Method, path: &str, content: &'static str, body: String) -> String {
    let mut request = Request::with_json(method, path, body.into_bytes());
    request.content_type = content;
    match client.raw(request).await {
        Ok(_) => String::new(),
        Err(error) => error.to_string(),
    }
}

/// Requests that go wrong in every way that shows some of what was sent or is there; the errors that they get.
async fn mistakes(client: &Client) -> Vec<String> {
    const ONE: &str = "/api/v1/namespaces/default/secrets/s";
    const ALL: &str = "/api/v1/namespaces/default/secrets";
    let sent = STANDARD.encode(SENT);
    let secret = |name: &str| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": {"k": sent}});
    let mut unknown = secret("t");
    unknown["dtaa"] = json!({"k": SENT});
    let merge = "application/merge-patch+json";
    vec![
        ask(client, Method::POST, ALL, "application/json", secret("No Name").to_string()).await,
        ask(client, Method::POST, ALL, "application/json", secret("s").to_string()).await,
        ask(client, Method::POST, &format!("{ALL}?fieldValidation=Strict"), "application/json", unknown.to_string()).await,
        ask(client, Method::POST, ALL, "application/json", json!({"metadata": {"name": "u"}, "data": {"k": SENT}}).to_string()).await,
        ask(client, Method::PATCH, ONE, merge, json!({"data": {"other": SENT}}).to_string()).await,
        ask(client, Method::PATCH, ONE, merge, json!({"data": {"other": 5}}).to_string()).await,
        ask(client, Method::PATCH, ONE, merge, json!({"data": SENT}).to_string()).await,
        ask(client, Method::PATCH, ONE, "application/strategic-merge-patch+json", json!({"data": {"k": {"a": SENT}}}).to_string()).await,
        ask(
            client,
            Method::PATCH,
            ONE,
            "application/json-patch+json",
            json!([{"op": "test", "path": "/data/k", "value": SENT}]).to_string(),
        )
        .await,
        ask(client, Method::PATCH, ONE, merge, json!({"type": "other"}).to_string()).await,
        ask(client, Method::PUT, ONE, "application/json", json!({"metadata": {"name": "x"}, "data": {"k": sent}}).to_string()).await,
    ]
}

#[tokio::test(flavor = "current_thread")]
async fn no_secrets_in_logs() {
    let heard = Heard::default();
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(heard.clone())).expect("the only one");
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("audit.log");
    let log = AuditLog { path: path.clone(), ..AuditLog::default() };
    let cluster = Cluster::start_with(|config| config.audit = Some(log)).await;
    let id = cluster.issue("admin", &["system:masters"], Use::Client);
    let client = |identity: Identity| {
        let (server, ca) = (format!("https://{}", cluster.running.address()), cluster.ca.cert_pem().as_bytes().to_vec());
        Client::https(Config { server, ca, identity, ..Config::default() }).expect("client")
    };
    let admin = client(Identity::Certificate { chain: id.cert_pem.into_bytes(), key: id.key_pem.into_bytes() });
    let kept = json!({"metadata": {"name": "s"}, "data": {"k": STANDARD.encode(KEPT)}});
    admin.create_value(&Gvr::new("", "v1", "secrets"), "default", &kept).await.expect("made");
    let mut errors = mistakes(&admin).await;
    assert!(errors.iter().all(|e| !e.is_empty()), "each is a mistake: {errors:?}");
    let accounts = Gvr::new("", "v1", "serviceaccounts");
    admin.create_value(&accounts, "default", &json!({"metadata": {"name": "bot"}})).await.expect("made");
    let token = admin.create_subresource(&accounts, "default", "bot", "token", &json!({"spec": {}})).await.expect("a token");
    let token = token["status"]["token"].as_str().expect("a token").to_owned();
    for bearer in [token.clone(), FORGED.to_owned()] {
        errors.push(ask(&client(Identity::Token(bearer)), Method::GET, "/api/v1/secrets", "", String::new()).await);
    }
    assert!(cluster.running.stop().await, "the audit log is written");

    let audit = std::fs::read_to_string(path).expect("written");
    assert!(audit.contains("\"resource\":\"secrets\"") && audit.lines().count() > 10, "{audit}");
    let logged = heard.0.lock().expect("no panic while held").clone();
    assert!(logged.contains("/api/v1/namespaces/default/secrets/s"), "requests are logged");
    let signature = token.rsplit('.').next().expect("a signature").to_owned();
    for (place, text) in [("log", logged), ("audit log", audit), ("errors", errors.join("\n"))] {
        for secret in [KEPT, SENT, FORGED, &STANDARD.encode(KEPT), &STANDARD.encode(SENT), &signature] {
            let found = text.lines().find(|line| line.contains(secret));
            assert_eq!(found, None, "{secret} in the {place}");
        }
    }
}
