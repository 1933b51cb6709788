//! Admission: plugins that change or refuse what is about to be written, in upstream's order (`AllOrderedPlugins`).
//!
//! When policies or webhooks have changed an object, the mutating plugins see it once more (KEP-3962), the webhooks apart, which have a second round
//! of their own.

mod certificates;
mod connect;
mod default_ingress_class;
mod default_toleration_seconds;
mod limit_ranger;
mod namespace_lifecycle;
mod owner_references;
mod pod_security;
mod pod_topology_labels;
mod policy;
mod priority;
mod resource_quota;
mod runtime_class;
mod service_account;
mod storage;
mod taint_nodes_by_condition;
mod tree;
mod webhooks;

pub use connect::Connect;
pub use pod_security::PodSecuritySettings;
pub(crate) use policy::Policies;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use async_trait::async_trait;
use serde_json::Value;
use tiphys_meta::{ApiError, Gvr};

use crate::registry::Registry;
use crate::request::{AuditNotes, UserInfo};
use crate::verbs::Call;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
    /// Exec and its kin, and the proxies: the object is what was asked for (`PodExecOptions`, …).
    Connect,
}

impl Operation {
    /// As AdmissionReviews and rules have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Operation::Create => "CREATE",
            Operation::Update => "UPDATE",
            Operation::Delete => "DELETE",
            Operation::Connect => "CONNECT",
        }
    }
}

/// What a plugin knows besides the object.
pub(crate) struct Attributes<'a> {
    pub(crate) operation: Operation,
    /// In the stored version, as are the objects.
    pub(crate) gvr: &'a Gvr,
    pub(crate) subresource: &'a str,
    pub(crate) namespace: &'a str,
    pub(crate) name: String,
    pub(crate) user: &'a UserInfo,
    pub(crate) dry_run: bool,
    /// What the audit log is to hear.
    pub(crate) notes: &'a AuditNotes,
    /// What plugins want the client to know.
    pub(crate) warnings: parking_lot::Mutex<Vec<String>>,
    /// What users configured has changed the object.
    pub(crate) changed: AtomicBool,
    pub(crate) reinvoked: AtomicBool,
}

impl<'a> Attributes<'a> {
    pub(crate) fn new(call: &Call<'a>, operation: Operation, name: String, dry_run: bool) -> Attributes<'a> {
        Attributes {
            operation,
            // Of a custom resource, the version of the request.
            gvr: if call.served.as_custom().is_some() { &call.served.gvr } else { &call.resource.gvr },
            subresource: &call.info.subresource,
            namespace: &call.info.namespace,
            name,
            user: &call.info.user,
            dry_run,
            notes: &call.info.notes,
            warnings: parking_lot::Mutex::default(),
            changed: false.into(),
            reinvoked: false.into(),
        }
    }

    /// Whether the mutating plugins see the object for the second time.
    pub(crate) fn reinvoked(&self) -> bool {
        self.reinvoked.load(Relaxed)
    }

    /// A webhook or a policy has changed the object.
    pub(crate) fn note_change(&self) {
        self.changed.store(true, Relaxed);
    }

    pub(crate) fn is(&self, group: &str, resource: &str) -> bool {
        self.gvr.group == group && self.gvr.resource == resource
    }

    /// The resource itself, not a subresource of it.
    pub(crate) fn is_whole(&self, group: &str, resource: &str) -> bool {
        self.subresource.is_empty() && self.is(group, resource)
    }

    pub(crate) fn forbidden(&self, why: &str) -> ApiError {
        ApiError::forbidden(self.gvr, &self.name, why)
    }
}

#[async_trait]
pub(crate) trait Plugin: Send + Sync {
    fn name(&self) -> &'static str;

    /// Whether the plugin has anything to do with such a request. Asked first, so that most plugins cost a comparison.
    fn handles(&self, attributes: &Attributes<'_>) -> bool;

    /// Whether it looks at connections too. Only what users configure does, as upstream.
    fn connects(&self) -> bool {
        false
    }

    /// May change the object.
    async fn admit(
        &self,
        _registry: &Arc<Registry>,
        _attributes: &Attributes<'_>,
        _object: &mut Value,
        _old: Option<&Value>,
    ) -> Result<(), ApiError> {
        Ok(())
    }

    /// May only refuse. Of a deletion there is no new object.
    async fn validate(
        &self,
        _registry: &Arc<Registry>,
        _attributes: &Attributes<'_>,
        _object: Option<&Value>,
        _old: Option<&Value>,
    ) -> Result<(), ApiError> {
        Ok(())
    }
}

/// The plugins, in order.
pub(crate) struct Chain(&'static [&'static dyn Plugin]);

static BUILTIN: &[&dyn Plugin] = &[
    &namespace_lifecycle::NamespaceLifecycle,
    &limit_ranger::LimitRanger,
    &service_account::ServiceAccount,
    &taint_nodes_by_condition::TaintNodesByCondition,
    &pod_security::PodSecurity,
    &priority::Priority,
    &default_toleration_seconds::DefaultTolerationSeconds,
    &storage::DefaultStorageClass,
    &storage::StorageObjectInUseProtection,
    &owner_references::OwnerReferences,
    &storage::PersistentVolumeClaimResize,
    &runtime_class::RuntimeClass,
    &certificates::CertificateApproval,
    &certificates::CertificateSigning,
    &certificates::CertificateSubjectRestriction,
    &default_ingress_class::DefaultIngressClass,
    &pod_topology_labels::PodTopologyLabels,
    &policy::MutatingAdmissionPolicy,
    &webhooks::MutatingAdmissionWebhook,
    &policy::ValidatingAdmissionPolicy,
    &webhooks::ValidatingAdmissionWebhook,
    &resource_quota::ResourceQuota,
];

impl Chain {
    pub(crate) fn builtin() -> Chain {
        Chain(BUILTIN)
    }

    /// Something of each plugin, in order.
    pub(crate) fn each<T>(&self, f: impl Fn(&dyn Plugin) -> T) -> Vec<T> {
        self.0.iter().map(|plugin| f(*plugin)).collect()
    }

    fn concerned(&self, attributes: &Attributes<'_>) -> impl Iterator<Item = &&'static dyn Plugin> {
        let connect = attributes.operation == Operation::Connect;
        self.0.iter().filter(move |p| (!connect || p.connects()) && p.handles(attributes))
    }

    pub(crate) async fn admit(
        &self,
        registry: &Arc<Registry>,
        attributes: &Attributes<'_>,
        object: &mut Value,
        old: Option<&Value>,
    ) -> Result<(), ApiError> {
        for round in 0..2 {
            for plugin in self.concerned(attributes) {
                plugin.admit(registry, attributes, object, old).await.inspect_err(|error| refused(*plugin, error))?;
            }
            if round == 0 && !attributes.changed.load(Relaxed) {
                break;
            }
            attributes.reinvoked.store(true, Relaxed);
        }
        Ok(())
    }

    pub(crate) async fn validate(
        &self,
        registry: &Arc<Registry>,
        attributes: &Attributes<'_>,
        object: Option<&Value>,
        old: Option<&Value>,
    ) -> Result<(), ApiError> {
        for plugin in self.concerned(attributes) {
            plugin.validate(registry, attributes, object, old).await.inspect_err(|error| refused(*plugin, error))?;
        }
        registry.check_write(attributes, object, old)
    }
}

fn refused(plugin: &dyn Plugin, error: &ApiError) {
    tracing::debug!(plugin = plugin.name(), %error, "refused");
}
