use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use tiphys_base::clock::FakeClock;
use tiphys_base::pki::{Authority, RequestFacts, not_after, read_request};
use tiphys_client::gvr_of;
use tiphys_testing::object;
use tiphys_types::api::certificates::v1::CertificateSigningRequest;

use super::signing::{KUBELET_CLIENT, check};
use super::{approving, cleaning};
use crate::Config;
use crate::shared::test::Rig;

/// Made with openssl: P-256, `O=system:nodes, CN=system:node:n1`.
const REQUEST: &str = include_str!("testdata/node.csr.pem");

fn at(text: &str) -> Timestamp {
    text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
}

fn base64(text: &str) -> Value {
    json!(tiphys_types::ByteString(text.as_bytes().to_vec()))
}

fn request(usages: &[&str], conditions: Value) -> Value {
    json!({"metadata": {"name": "r"}, "status": {"conditions": conditions},
        "spec": {"signerName": KUBELET_CLIENT, "usages": usages, "request": base64(REQUEST), "username": "system:node:n1"}})
}

#[test]
fn what_signers_demand() {
    let node = RequestFacts { common_name: "system:node:n1".into(), organizations: vec!["system:nodes".into()], ..Default::default() };
    let named = RequestFacts { dns: vec!["n1".into()], ..node.clone() };
    let user = RequestFacts { common_name: "anna".into(), ..node.clone() };
    let client = ["client auth", "digital signature"];
    let serving = ["server auth", "digital signature", "key encipherment"];
    for (signer, facts, usages, wrong) in [
        (KUBELET_CLIENT, &node, &client[..], ""),
        (KUBELET_CLIENT, &named, &client, "DNS subjectAltNames are not allowed"),
        (KUBELET_CLIENT, &user, &client, "subject common name does not begin with system:node:"),
        (KUBELET_CLIENT, &node, &serving, "usages did not match [client auth digital signature key encipherment]"),
        (KUBELET_CLIENT, &RequestFacts::default(), &client, "subject organization is not system:nodes"),
        ("kubernetes.io/kubelet-serving", &named, &serving, ""),
        ("kubernetes.io/kubelet-serving", &node, &serving, "DNS or IP subjectAltName is required"),
        ("kubernetes.io/kube-apiserver-client", &user, &client, ""),
        ("kubernetes.io/kube-apiserver-client", &user, &serving, "invalid usage for client certificate: server auth"),
        (
            "kubernetes.io/kube-apiserver-client",
            &user,
            &["digital signature"],
            "missing required usage for client certificate: client auth",
        ),
    ] {
        assert_eq!(check(signer, facts, usages).err().unwrap_or_default(), wrong, "{signer} {facts:?}");
    }
}

#[test]
fn who_may_be_approved() {
    let facts = read_request(REQUEST.as_bytes()).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!((facts.common_name.as_str(), &facts.organizations[..]), ("system:node:n1", &["system:nodes".to_owned()][..]));
    let names = |r: Value| approving::ways(&object(r), &facts).into_iter().map(|w| w.0).collect::<Vec<_>>();
    let mut asked = request(&["client auth", "digital signature"], json!([]));
    assert_eq!(names(asked.clone()), ["selfnodeclient", "nodeclient"]);
    asked["spec"]["username"] = json!("system:bootstrap:x");
    assert_eq!(names(asked.clone()), ["nodeclient"]);
    asked["spec"]["signerName"] = json!("example.com/other");
    assert!(names(asked).is_empty());
}

#[test]
fn when_requests_go() {
    let decided = |kind: &str| json!([{"type": kind, "status": "True", "lastUpdateTime": "2026-01-01T00:00:00Z"}]);
    for (conditions, end) in [
        (json!([]), Some("2026-01-03T12:00:00Z")),
        (decided("Approved"), Some("2026-01-02T00:00:00Z")),
        (decided("Denied"), Some("2026-01-01T01:00:00Z")),
        (decided("Failed"), Some("2026-01-01T01:00:00Z")),
    ] {
        let mut old = request(&[], conditions.clone());
        old["metadata"]["creationTimestamp"] = json!("2026-01-02T12:00:00Z");
        let got = cleaning::end_of(&object(old));
        assert_eq!(got, end.map(at), "{conditions}");
    }
}

#[tokio::test(start_paused = true)]
async fn approved_requests_are_signed() {
    let now = at("2026-01-01T00:00:00Z");
    let authority = Authority::generate("ca", now, Duration::from_secs(3600)).unwrap_or_else(|e| panic!("{e}"));
    let config = Config {
        clock: FakeClock::at(now),
        signing_ca: authority.cert_pem().into(),
        signing_key: authority.identity().key_pem.clone().into(),
        ..Config::default()
    };
    let rig = Rig::with(config, &[super::start_signing]);
    let approved = json!([{"type": "Approved", "status": "True"}]);
    rig.api.insert(&gvr_of::<CertificateSigningRequest>(), request(&["client auth", "digital signature"], approved.clone()));
    let mut refused = request(&["server auth"], approved);
    refused["metadata"]["name"] = json!("refused");
    rig.api.insert(&gvr_of::<CertificateSigningRequest>(), refused);
    let mut open = request(&["client auth", "digital signature"], json!([]));
    open["metadata"]["name"] = json!("open");
    rig.api.insert(&gvr_of::<CertificateSigningRequest>(), open);
    rig.settles().await;
    let read = |name: &str| -> CertificateSigningRequest {
        object(rig.api.get(&gvr_of::<CertificateSigningRequest>(), "", name).unwrap_or_default())
    };
    let certificate = read("r").status.and_then(|s| s.certificate).map(|c| c.0).unwrap_or_default();
    // Not longer than the CA itself.
    let ends = not_after(&String::from_utf8(certificate).unwrap_or_default()).ok();
    assert_eq!(ends, Some(at("2026-01-01T01:00:00Z")));
    assert!(super::has_true(&read("refused"), "Failed"));
    assert!(!super::is_issued(&read("refused")) && !super::is_issued(&read("open")));
}
