//! Requests are not kept: an hour after their decision they go, without one after a day.

use jiff::{SignedDuration, Timestamp};
use tiphys_base::pki;
use tiphys_client::{Action, Informer, ObjectKey, Plan, Planner};
use tiphys_types::api::certificates::v1::CertificateSigningRequest;

use super::is_issued;

const DECIDED: SignedDuration = SignedDuration::from_hours(1);
const PENDING: SignedDuration = SignedDuration::from_hours(24);

pub(super) struct Cleaning {
    pub(super) requests: Informer<CertificateSigningRequest>,
}

impl Planner for Cleaning {
    type Key = ObjectKey;

    fn plan(&self, key: &ObjectKey, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(request) = self.requests.by_key(key) else { return plan };
        let Some(end) = end_of(&request) else { return plan };
        let left = end.duration_since(now);
        if left.is_positive() {
            plan.again_after(left.unsigned_abs() + std::time::Duration::from_millis(10));
        } else {
            plan.act(Action::delete(&*request));
        }
        plan
    }
}

/// When it may go.
pub(super) fn end_of(request: &CertificateSigningRequest) -> Option<Timestamp> {
    let conditions = request.status.iter().flat_map(|s| s.conditions.iter().flatten());
    let decided = conditions.filter_map(|c| {
        let keep = match c.type_.as_str() {
            "Approved" if is_issued(request) => DECIDED,
            "Approved" => PENDING,
            "Denied" | "Failed" => DECIDED,
            _ => return None,
        };
        Some(c.last_update_time.as_ref()?.0 + keep)
    });
    let certificate = request.status.as_ref().and_then(|s| s.certificate.as_ref());
    let expiry = certificate.and_then(|c| std::str::from_utf8(&c.0).ok()).and_then(|pem| pki::not_after(pem).ok());
    let undecided = request.status.as_ref().is_none_or(|s| s.conditions.as_ref().is_none_or(Vec::is_empty));
    let pending = request.metadata.creation_timestamp.as_ref().filter(|_| undecided).map(|t| t.0 + PENDING);
    decided.chain(expiry).chain(pending).min()
}
