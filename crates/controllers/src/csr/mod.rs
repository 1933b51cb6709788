//! Certificate requests: approved ones for the signers that Kubernetes names itself are signed with the cluster's CA; old ones are cleaned away.
//!
//! Watches CertificateSigningRequests; writes their status, deletes.
//!
//! Absent: automatic approval of kubelets' requests (our kubelets get their certificates when the cluster is made).

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tiphys_base::pki::{Authority, Identity};
use tiphys_client::{Action, Informer, Plan, Planner, WorkQueue};
use tiphys_types::ByteString;
use tiphys_types::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};
use tiphys_types::metav1::Time;

use crate::Context;

const SIGNERS: [&str; 4] = [
    "kubernetes.io/kube-apiserver-client",
    "kubernetes.io/kube-apiserver-client-kubelet",
    "kubernetes.io/kubelet-serving",
    "kubernetes.io/legacy-unknown",
];
/// `--cluster-signing-duration`.
const LIFETIME: Duration = Duration::from_secs(365 * 24 * 3600);
const SHORTEST: i32 = 600;

pub(crate) fn start_signer(context: &Context) {
    let config = &context.config;
    if config.signing_ca.is_empty() || config.signing_key.is_empty() {
        return;
    }
    let text = |pem: &[u8]| String::from_utf8_lossy(pem).into_owned();
    let authority = match Authority::load(Identity { cert_pem: text(&config.signing_ca), key_pem: text(&config.signing_key) }) {
        Ok(authority) => authority,
        Err(error) => return tracing::error!(%error, "certificate requests will not be signed"),
    };
    let requests = context.informers.of::<CertificateSigningRequest>();
    let queue = each(&requests);
    let executor = context.executor("certificate-controller").reading(requests.clone());
    context.run("certificatesigningrequest-signing-controller", 1, queue, Signer { requests, authority }, executor);
}

pub(crate) fn start_cleaner(context: &Context) {
    let requests = context.informers.of::<CertificateSigningRequest>();
    let queue = each(&requests);
    let executor = context.executor("certificate-controller").reading(requests.clone());
    context.run("certificatesigningrequest-cleaner-controller", 1, queue, Cleaner { requests }, executor);
}

fn each(requests: &Informer<CertificateSigningRequest>) -> WorkQueue<String> {
    let queue = WorkQueue::new();
    let again = queue.clone();
    requests.on_change(move |delta| {
        again.add(delta.object().metadata.name.clone().unwrap_or_default());
        true
    });
    queue
}

fn condition<'a>(request: &'a CertificateSigningRequest, kind: &str) -> Option<&'a CertificateSigningRequestCondition> {
    request.status.as_ref()?.conditions.iter().flatten().find(|c| c.type_ == kind)
}

fn is_issued(request: &CertificateSigningRequest) -> bool {
    request.status.as_ref().and_then(|s| s.certificate.as_ref()).is_some_and(|c| !c.0.is_empty())
}

struct Signer {
    requests: Informer<CertificateSigningRequest>,
    authority: Authority,
}

impl Planner for Signer {
    type Key = String;

    fn plan(&self, name: &String, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(request) = self.requests.get("", name) else { return plan };
        let wanted =
            condition(&request, "Approved").is_some() && condition(&request, "Denied").is_none() && condition(&request, "Failed").is_none();
        if !wanted || is_issued(&request) || !SIGNERS.contains(&request.spec.signer_name.as_str()) {
            return plan;
        }
        let mut next = CertificateSigningRequest::clone(&request);
        let status = next.status.get_or_insert_default();
        match self.sign(&request, now) {
            Ok(pem) => status.certificate = Some(ByteString(pem.into_bytes())),
            Err(message) => status.conditions.get_or_insert_default().push(CertificateSigningRequestCondition {
                type_: "Failed".into(),
                status: "True".into(),
                reason: Some("SignerValidationFailure".into()),
                message: Some(message),
                last_update_time: Some(Time(now)),
                last_transition_time: Some(Time(now)),
            }),
        }
        plan.act(Action::update_status(&next));
        plan
    }
}

impl Signer {
    fn sign(&self, request: &CertificateSigningRequest, now: Timestamp) -> Result<String, String> {
        let pem = String::from_utf8(request.spec.request.0.clone()).map_err(|e| e.to_string())?;
        let usages: Vec<&str> = request.spec.usages.iter().flatten().map(String::as_str).collect();
        let asked = request.spec.expiration_seconds.map(|s| Duration::from_secs(u64::try_from(s.max(SHORTEST)).unwrap_or(0)));
        let lifetime = asked.map_or(LIFETIME, |a| a.min(LIFETIME));
        self.authority.sign_request(&pem, &usages, now, lifetime).map_err(|e| e.to_string())
    }
}

struct Cleaner {
    requests: Informer<CertificateSigningRequest>,
}

const HOUR: i64 = 3600;

impl Planner for Cleaner {
    type Key = String;

    fn plan(&self, name: &String, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(request): Option<Arc<CertificateSigningRequest>> = self.requests.get("", name) else { return plan };
        let due = due(&request) - now.as_second();
        if due <= 0 {
            plan.act(Action::delete(&*request));
        } else {
            plan.again_after(Duration::from_secs(due as u64));
        }
        plan
    }
}

/// Decided ones stay for an hour after the decision, open ones for a day.
fn due(request: &CertificateSigningRequest) -> i64 {
    let decided = ["Approved", "Denied", "Failed"].into_iter().filter_map(|k| condition(request, k)?.last_update_time.as_ref());
    match decided.max() {
        Some(at) => at.0.as_second() + HOUR,
        None => request.metadata.creation_timestamp.as_ref().map_or(i64::MAX, |t| t.0.as_second().saturating_add(24 * HOUR)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_decided_goes_after_an_hour() {
        let request = |status: serde_json::Value| -> CertificateSigningRequest {
            tiphys_testing::object(
                json!({"metadata": {"name": "r", "creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": {"request": "", "signerName": "s"}, "status": status}),
            )
        };
        let start = 1_767_225_600;
        assert_eq!(due(&request(json!({}))), start + 24 * HOUR);
        let denied = json!({"conditions": [{"type": "Denied", "status": "True", "lastUpdateTime": "2026-01-01T00:10:00Z"}]});
        assert_eq!(due(&request(denied)), start + 600 + HOUR);
    }
}
