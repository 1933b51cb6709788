//! CertificateApproval, CertificateSigning and CertificateSubjectRestriction: who may approve and sign for a signer, and that nobody asks the
//! API server's client signer for `system:masters`.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;
use tiphys_meta::ApiError;

use super::tree::text;
use super::{Attributes, Operation, Plugin};
use crate::config::Question;
use crate::registry::Registry;

pub(super) struct CertificateApproval;
pub(super) struct CertificateSigning;
pub(super) struct CertificateSubjectRestriction;

const GROUP: &str = "certificates.k8s.io";
const RESOURCE: &str = "certificatesigningrequests";

/// `signers` by name, else by the domain: `example.com/*`.
async fn may(registry: &Arc<Registry>, attributes: &Attributes<'_>, verb: &str, signer: &str) -> bool {
    let domain = format!("{}/*", signer.split('/').next().unwrap_or(""));
    for name in [signer, &domain] {
        let question = Question { verb, group: GROUP, version: "*", resource: "signers", name, ..Question::default() };
        if registry.allowed(attributes.user, &question).await {
            return true;
        }
    }
    attributes.user.in_group("system:masters")
}

#[async_trait]
impl Plugin for CertificateApproval {
    fn name(&self) -> &'static str {
        "CertificateApproval"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.operation == Operation::Update && attributes.subresource == "approval" && attributes.is(GROUP, RESOURCE)
    }

    async fn validate(
        &self,
        registry: &Arc<Registry>,
        attributes: &Attributes<'_>,
        _: Option<&Value>,
        old: Option<&Value>,
    ) -> Result<(), ApiError> {
        let signer = old.map_or("", |o| text(&o["spec"], "signerName"));
        if may(registry, attributes, "approve", signer).await {
            return Ok(());
        }
        Err(attributes.forbidden(&format!("user not permitted to approve requests with signerName \"{signer}\"")))
    }
}

#[async_trait]
impl Plugin for CertificateSigning {
    fn name(&self) -> &'static str {
        "CertificateSigning"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.operation == Operation::Update && attributes.subresource == "status" && attributes.is(GROUP, RESOURCE)
    }

    async fn validate(
        &self,
        registry: &Arc<Registry>,
        attributes: &Attributes<'_>,
        new: Option<&Value>,
        old: Option<&Value>,
    ) -> Result<(), ApiError> {
        let (Some(new), Some(old)) = (new, old) else { return Ok(()) };
        if new["status"] == old["status"] {
            return Ok(());
        }
        let signer = text(&old["spec"], "signerName");
        if may(registry, attributes, "sign", signer).await {
            return Ok(());
        }
        Err(attributes.forbidden(&format!("user not permitted to sign requests with signerName \"{signer}\"")))
    }
}

#[async_trait]
impl Plugin for CertificateSubjectRestriction {
    fn name(&self) -> &'static str {
        "CertificateSubjectRestriction"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.operation == Operation::Create && attributes.is_whole(GROUP, RESOURCE)
    }

    async fn validate(
        &self,
        _: &Arc<Registry>,
        attributes: &Attributes<'_>,
        request: Option<&Value>,
        _: Option<&Value>,
    ) -> Result<(), ApiError> {
        let Some(spec) = request.map(|r| &r["spec"]) else { return Ok(()) };
        if text(spec, "signerName") == "kubernetes.io/kube-apiserver-client" && asks_for_masters(text(spec, "request")) {
            let why = "use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed";
            return Err(attributes.forbidden(why));
        }
        Ok(())
    }
}

/// Whether the request (base64 of PEM of DER) names the organization. An organization is a string of the subject; that the name stands
/// anywhere in the signed bytes is a little more than upstream refuses, and never less.
fn asks_for_masters(request: &str) -> bool {
    let pem = tiphys_meta::base64::decode(request).unwrap_or_default();
    let pem = String::from_utf8_lossy(&pem);
    let body: String = pem.lines().filter(|l| !l.starts_with("-----")).map(str::trim).collect();
    let der = tiphys_meta::base64::decode(&body).unwrap_or_default();
    der.windows(b"system:masters".len()).any(|w| w == b"system:masters")
}
