//! Signs what was approved, with the cluster's CA, for the three signers that lead to or from the API server.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tiphys_base::pki::{self, Authority, RequestFacts};
use tiphys_client::{Action, Informer, ObjectKey, Plan, Planner};
use tiphys_types::ByteString;
use tiphys_types::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};
use tiphys_types::metav1::Time;

use super::{has_true, is_issued};

pub(super) const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";
const CLIENT: &str = "kubernetes.io/kube-apiserver-client";

/// `--cluster-signing-duration`.
const LONGEST: i64 = 365 * 24 * 3600;
const SHORTEST: i64 = 600;
/// Longer ones end as much earlier as they begin before now.
const SHORT: i64 = 8 * 3600;
const BACKDATE: i64 = 300;

pub(super) struct Signing {
    pub(super) requests: Informer<CertificateSigningRequest>,
    pub(super) authority: Authority,
}

impl Planner for Signing {
    type Key = ObjectKey;

    fn plan(&self, key: &ObjectKey, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(request) = self.requests.by_key(key) else { return plan };
        let signer = request.spec.signer_name.as_str();
        let ours = [KUBELET_CLIENT, KUBELET_SERVING, CLIENT].contains(&signer);
        if !ours || is_issued(&request) || !has_true(&request, "Approved") || has_true(&request, "Failed") {
            return plan;
        }
        let outcome = pki::read_request(&request.spec.request.0).map_err(|e| e.to_string());
        let usages: Vec<&str> = request.spec.usages.iter().flatten().map(String::as_str).collect();
        let mut next = CertificateSigningRequest::clone(&request);
        let status = next.status.get_or_insert_default();
        match outcome.and_then(|facts| check(signer, &facts, &usages)) {
            Err(why) => status.conditions.get_or_insert_default().push(CertificateSigningRequestCondition {
                type_: "Failed".into(),
                status: "True".into(),
                reason: Some("SignerValidationFailure".into()),
                message: Some(why),
                last_update_time: Some(Time(now)),
                last_transition_time: None,
            }),
            Ok(()) => match self.sign(&request, &usages, now) {
                Ok(certificate) => status.certificate = Some(ByteString(certificate.into_bytes())),
                Err(error) => {
                    tracing::warn!(request = %key, %error, "cannot sign");
                    return plan;
                }
            },
        }
        plan.act(Action::update_status(&next));
        plan
    }
}

impl Signing {
    fn sign(&self, request: &CertificateSigningRequest, usages: &[&str], now: Timestamp) -> Result<String, String> {
        let wanted = request.spec.expiration_seconds.map_or(LONGEST, i64::from).clamp(SHORTEST, LONGEST);
        let lifetime = if wanted < SHORT { wanted } else { wanted - BACKDATE };
        let end = pki::not_after(self.authority.cert_pem()).map_err(|e| e.to_string())?;
        let left = end.duration_since(now);
        if left <= SignedDuration::ZERO {
            return Err(format!("the signer has expired: NotAfter={end}"));
        }
        let lifetime = Duration::from_secs(lifetime.min(left.as_secs()).unsigned_abs());
        let pem = String::from_utf8(request.spec.request.0.clone()).map_err(|e| e.to_string())?;
        self.authority.sign_request(&pem, usages, now, lifetime).map_err(|e| e.to_string())
    }
}

/// What each signer demands.
pub(super) fn check(signer: &str, facts: &RequestFacts, usages: &[&str]) -> Result<(), String> {
    match signer {
        KUBELET_CLIENT => check_kubelet(facts, usages, "client auth"),
        KUBELET_SERVING => check_kubelet(facts, usages, "server auth"),
        _ => check_client(usages),
    }
}

fn check_kubelet(facts: &RequestFacts, usages: &[&str], purpose: &str) -> Result<(), String> {
    let serving = purpose == "server auth";
    let refuse = |condition: bool, why: &str| if condition { Err(why.to_owned()) } else { Ok(()) };
    refuse(facts.organizations != ["system:nodes"], "subject organization is not system:nodes")?;
    if serving {
        refuse(facts.dns.is_empty() && facts.ips == 0, "DNS or IP subjectAltName is required")?;
    } else {
        refuse(!facts.dns.is_empty(), "DNS subjectAltNames are not allowed")?;
    }
    refuse(facts.emails > 0, "Email subjectAltNames are not allowed")?;
    refuse(!serving && facts.ips > 0, "IP subjectAltNames are not allowed")?;
    refuse(facts.uris > 0, "URI subjectAltNames are not allowed")?;
    let with_rsa = [purpose, "digital signature", "key encipherment"];
    let same = |want: &[&str]| want.iter().all(|w| usages.contains(w)) && usages.iter().all(|u| want.contains(u));
    // Upstream looks at the name before the usages for clients, and after them for servers.
    let is_node = refuse(!facts.common_name.starts_with("system:node:"), "subject common name does not begin with system:node:");
    if !serving {
        is_node.clone()?;
    }
    if !same(&with_rsa) && !same(&with_rsa[..2]) {
        let mut shown = with_rsa;
        shown.sort_unstable();
        return Err(format!("usages did not match [{}]", shown.join(" ")));
    }
    is_node
}

fn check_client(usages: &[&str]) -> Result<(), String> {
    let strange = usages.iter().find(|u| !["digital signature", "key encipherment", "client auth"].contains(u));
    match strange {
        Some(usage) => Err(format!("invalid usage for client certificate: {usage}")),
        None if !usages.contains(&"client auth") => Err("missing required usage for client certificate: client auth".into()),
        None => Ok(()),
    }
}
