//! Approves the client certificates of kubelets that may have one: RBAC says who, by the subresources `nodeclient` and `selfnodeclient`.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::json;
use tiphys_base::pki::{self, RequestFacts};
use tiphys_client::{Client, Informer, ObjectKey, Reconcile, ReconcileError};
use tiphys_meta::Gvr;
use tiphys_types::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};

use super::signing::{KUBELET_CLIENT, check};
use super::{has_true, is_issued};

pub(super) struct Approving {
    pub(super) requests: Informer<CertificateSigningRequest>,
    pub(super) client: Client,
}

/// Subresources whose `create` permission would do, with the words of the approval.
pub(super) fn ways(request: &CertificateSigningRequest, facts: &RequestFacts) -> Vec<(&'static str, &'static str)> {
    let usages: Vec<&str> = request.spec.usages.iter().flatten().map(String::as_str).collect();
    if request.spec.signer_name != KUBELET_CLIENT || check(KUBELET_CLIENT, facts, &usages).is_err() {
        return Vec::new();
    }
    let mut ways = vec![("nodeclient", "Auto approving kubelet client certificate after SubjectAccessReview.")];
    if request.spec.username.as_deref() == Some(&facts.common_name) {
        ways.insert(0, ("selfnodeclient", "Auto approving self kubelet client certificate after SubjectAccessReview."));
    }
    ways
}

#[async_trait]
impl Reconcile for Approving {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Option<Duration>, ReconcileError> {
        let Some(request) = self.requests.by_key(key) else { return Ok(None) };
        if is_issued(&request) || has_true(&request, "Approved") || has_true(&request, "Denied") {
            return Ok(None);
        }
        // What cannot be read is for no one to approve.
        let Ok(facts) = pki::read_request(&request.spec.request.0) else { return Ok(None) };
        let ways = ways(&request, &facts);
        for (subresource, message) in &ways {
            if self.is_allowed(&request, subresource).await? {
                let mut next = CertificateSigningRequest::clone(&request);
                let approved = CertificateSigningRequestCondition {
                    type_: "Approved".into(),
                    status: "True".into(),
                    reason: Some("AutoApproved".into()),
                    message: Some((*message).to_owned()),
                    ..Default::default()
                };
                next.status.get_or_insert_default().conditions.get_or_insert_default().push(approved);
                self.client.update_subresource(&next, "approval").await?;
                return Ok(None);
            }
        }
        // A permission may come later.
        Ok((!ways.is_empty()).then_some(Duration::from_secs(30)))
    }
}

impl Approving {
    async fn is_allowed(&self, request: &CertificateSigningRequest, subresource: &str) -> Result<bool, ReconcileError> {
        let spec = &request.spec;
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
            "spec": {
                "user": spec.username, "uid": spec.uid, "groups": spec.groups, "extra": spec.extra,
                "resourceAttributes": {
                    "group": "certificates.k8s.io", "version": "*", "resource": "certificatesigningrequests", "verb": "create",
                    "subresource": subresource,
                },
            },
        });
        let answer = self.client.create_value(&Gvr::new("authorization.k8s.io", "v1", "subjectaccessreviews"), "", &review).await?;
        Ok(answer["status"]["allowed"] == true)
    }
}
