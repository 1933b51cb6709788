//! Admission of connections: exec, attach, port-forward and the proxies. Their object is what was asked for (`PodExecOptions`, …), which policies and
//! webhooks may change or refuse; the built-in plugins do not look at it.

use std::sync::Arc;

use serde_json::Value;
use tiphys_meta::{ApiError, Gvr};

use super::{Asked, Attributes, Operation};
use crate::registry::Registry;
use crate::request::{AuditNotes, UserInfo};

/// A connection that is about to be made.
#[derive(Debug, Clone, Copy)]
pub struct Connect<'a> {
    pub gvr: &'a Gvr,
    pub subresource: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
    pub user: &'a UserInfo,
    pub notes: &'a AuditNotes,
}

impl Registry {
    /// Lets admission see a connection. `options` is what was asked for, and what is to be done when this returns; the warnings are the client's.
    pub async fn admit_connect(self: &Arc<Self>, connect: &Connect<'_>, options: &mut Value) -> Result<Vec<String>, ApiError> {
        let Connect { gvr, subresource, namespace, name, user, notes } = *connect;
        let attributes = Attributes {
            operation: Operation::Connect,
            gvr,
            requested: gvr,
            asked: Asked::Nothing,
            subresource,
            namespace,
            name: name.to_owned(),
            user,
            dry_run: false,
            notes,
            warnings: parking_lot::Mutex::default(),
            changed: false.into(),
            reinvoked: false.into(),
        };
        // As before any write: admission sees everything that was acknowledged.
        self.catch_up().await;
        self.admission.admit(self, &attributes, options, None).await?;
        self.admission.validate(self, &attributes, Some(options), None).await?;
        Ok(attributes.warnings.into_inner())
    }
}
