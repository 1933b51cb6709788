//! What a policy's check is made from.

use std::sync::Arc;

use tiphys_client::ObjectKey;
use tiphys_types::api::admissionregistration::v1::ValidatingAdmissionPolicy;
use tiphys_types::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;

use super::Status;

pub(super) struct Observed {
    pub(super) policy: Arc<ValidatingAdmissionPolicy>,
    pub(super) definitions: Vec<Arc<CustomResourceDefinition>>,
}

pub(super) fn observe(from: &Status, key: &ObjectKey) -> Option<Observed> {
    Some(Observed { policy: from.policies.by_key(key)?, definitions: from.definitions.list() })
}
