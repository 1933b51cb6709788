//! CertificateSigningRequests: kubelets' client certificates are approved, approved requests are signed, old requests go. Three controllers, each
//! under upstream's name.
//!
//! Watches CertificateSigningRequests; writes their approval and status, and deletes them. Absent: `kubernetes.io/legacy-unknown`, which v1 of the
//! API does not admit; certificates for serving kubelets are never approved by a machine, as upstream.

mod approving;
mod cleaning;
mod signing;

use std::sync::Arc;

use tiphys_base::pki::{Authority, Identity};
use tiphys_client::WorkQueue;
use tiphys_types::api::certificates::v1::CertificateSigningRequest;

use crate::Context;
use crate::shared::watch;

pub(crate) fn start_approving(context: &Context) {
    let requests = context.informers.of::<CertificateSigningRequest>();
    let queue = WorkQueue::new();
    watch::own(&requests, &queue);
    let approving = Arc::new(approving::Approving { requests: requests.clone(), client: context.client.clone() });
    context.run_live("certificatesigningrequest-approving-controller", 5, queue, approving, async move { requests.synced().await });
}

pub(crate) fn start_signing(context: &Context) {
    let text = |pem: &[u8]| String::from_utf8(pem.to_vec()).unwrap_or_default();
    let identity = Identity { cert_pem: text(&context.config.signing_ca), key_pem: text(&context.config.signing_key) };
    if identity.cert_pem.is_empty() || identity.key_pem.is_empty() {
        return;
    }
    let authority = match Authority::load(identity) {
        Ok(authority) => authority,
        Err(error) => {
            tracing::error!(%error, "no certificates will be signed");
            return;
        }
    };
    let requests = context.informers.of::<CertificateSigningRequest>();
    let queue = WorkQueue::new();
    watch::own(&requests, &queue);
    let executor = context.executor("certificate-controller").reading(requests.clone());
    context.run("certificatesigningrequest-signing-controller", 2, queue, signing::Signing { requests, authority }, executor);
}

pub(crate) fn start_cleaning(context: &Context) {
    let requests = context.informers.of::<CertificateSigningRequest>();
    let queue = WorkQueue::new();
    watch::own(&requests, &queue);
    let executor = context.executor("certificate-controller").reading(requests.clone());
    context.run("certificatesigningrequest-cleaner-controller", 1, queue, cleaning::Cleaning { requests }, executor);
}

fn has_true(request: &CertificateSigningRequest, condition: &str) -> bool {
    request.status.iter().flat_map(|s| s.conditions.iter().flatten()).any(|c| c.type_ == condition && c.status == "True")
}

fn is_issued(request: &CertificateSigningRequest) -> bool {
    request.status.as_ref().and_then(|s| s.certificate.as_ref()).is_some_and(|c| !c.0.is_empty())
}

#[cfg(test)]
mod tests;
