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
mod pod_resize;
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
pub(crate) use namespace_lifecycle::namespaces;
pub use pod_security::PodSecuritySettings;
pub(crate) use policy::Policies;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use async_trait::async_trait;
use serde_json::{Value, json};
use tiphys_meta::{ApiError, Gvr};
use tokio::time::Instant;

use crate::meters::Meters;
use crate::options::{DeleteOptions, Query};
use crate::registry::Registry;
use crate::request::{AuditNotes, UserInfo};
use crate::verbs::Call;

/// In the order in which `Meters` has them.
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
    /// In the version of the request.
    pub(crate) requested: &'a Gvr,
    pub(crate) subresource: &'a str,
    pub(crate) namespace: &'a str,
    pub(crate) name: String,
    pub(crate) user: &'a UserInfo,
    pub(crate) dry_run: bool,
    /// What was asked for beside the object.
    pub(crate) asked: Asked<'a>,
    /// What the audit log is to hear.
    pub(crate) notes: &'a AuditNotes,
    /// What plugins want the client to know.
    pub(crate) warnings: parking_lot::Mutex<Vec<String>>,
    /// What users configured has changed the object.
    pub(crate) changed: AtomicBool,
    pub(crate) reinvoked: AtomicBool,
}

/// Whence the options of a request come.
pub(crate) enum Asked<'a> {
    Nothing,
    Query(&'a str),
    Delete(&'a DeleteOptions),
}

impl<'a> Attributes<'a> {
    pub(crate) fn of_delete(call: &Call<'a>, name: &str, options: &'a DeleteOptions) -> Attributes<'a> {
        let attributes = Attributes::new(call, Operation::Delete, name.to_owned(), options.dry_run);
        Attributes { asked: Asked::Delete(options), ..attributes }
    }

    /// `CreateOptions` and its like, as reviews and expressions have them.
    pub(crate) fn options(&self) -> Value {
        let kind = match self.operation {
            Operation::Create => "CreateOptions",
            Operation::Update => "UpdateOptions",
            Operation::Delete => "DeleteOptions",
            Operation::Connect => return Value::Null,
        };
        let mut options = match &self.asked {
            Asked::Delete(options) => options.to_value(),
            Asked::Query(query) => {
                let query = Query::parse(query);
                let fields = ["fieldManager", "fieldValidation"].into_iter().map(|f| (f, query.get(f)));
                fields.filter(|(_, v)| !v.is_empty()).map(|(f, v)| (f.to_owned(), Value::from(v))).collect()
            }
            Asked::Nothing => json!({}),
        };
        options["kind"] = json!(kind);
        options["apiVersion"] = json!("meta.k8s.io/v1");
        if self.dry_run {
            options["dryRun"] = json!(["All"]);
        }
        options
    }

    pub(crate) fn new(call: &Call<'a>, operation: Operation, name: String, dry_run: bool) -> Attributes<'a> {
        Attributes {
            requested: &call.served.gvr,
            asked: Asked::Query(&call.info.query),
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
    &pod_resize::PodResize,
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

    fn concerned(&self, attributes: &Attributes<'_>) -> impl Iterator<Item = (usize, &&'static dyn Plugin)> {
        let connect = attributes.operation == Operation::Connect;
        self.0.iter().enumerate().filter(move |(_, p)| (!connect || p.connects()) && p.handles(attributes))
    }

    pub(crate) async fn admit(
        &self,
        registry: &Arc<Registry>,
        attributes: &Attributes<'_>,
        object: &mut Value,
        old: Option<&Value>,
    ) -> Result<(), ApiError> {
        let mut watch = Stopwatch::new(registry, attributes.operation, true);
        for round in 0..2 {
            for (place, plugin) in self.concerned(attributes) {
                let admitted = plugin.admit(registry, attributes, object, old).await;
                watch.passed(place, *plugin, admitted)?;
            }
            if round == 0 && !attributes.changed.load(Relaxed) {
                break;
            }
            attributes.reinvoked.store(true, Relaxed);
        }
        watch.done(false);
        Ok(())
    }

    pub(crate) async fn validate(
        &self,
        registry: &Arc<Registry>,
        attributes: &Attributes<'_>,
        object: Option<&Value>,
        old: Option<&Value>,
    ) -> Result<(), ApiError> {
        let mut watch = Stopwatch::new(registry, attributes.operation, false);
        for (place, plugin) in self.concerned(attributes) {
            let valid = plugin.validate(registry, attributes, object, old).await;
            watch.passed(place, *plugin, valid)?;
        }
        watch.done(false);
        registry.check_write(attributes, object, old)
    }
}

/// Measures the plugins of one request, with one look at the clock for each.
struct Stopwatch<'r> {
    meters: &'r Meters,
    operation: Operation,
    changes: bool,
    begun: Instant,
    last: Instant,
}

impl<'r> Stopwatch<'r> {
    fn new(registry: &'r Registry, operation: Operation, changes: bool) -> Self {
        let now = Instant::now();
        Stopwatch { meters: &registry.meters, operation, changes, begun: now, last: now }
    }

    fn passed(&mut self, place: usize, plugin: &dyn Plugin, result: Result<(), ApiError>) -> Result<(), ApiError> {
        let before = std::mem::replace(&mut self.last, Instant::now());
        self.meters.plugin(place, self.operation, self.changes, result.is_err(), self.last - before);
        result.inspect_err(|error| {
            refused(plugin, error);
            self.done(true);
        })
    }

    fn done(&self, refused: bool) {
        self.meters.admission(self.operation, self.changes, refused, self.last - self.begun);
    }
}

fn refused(plugin: &dyn Plugin, error: &ApiError) {
    tracing::debug!(plugin = plugin.name(), %error, "refused");
}
