//! What keeps declared things true: one folder per controller, all in one process, all through the API server like any outside client.
//!
//! # Adding a controller
//! 1. A folder `src/NAME/`: `mod.rs` says in prose what it watches, owns and writes, and has `pub(crate) fn start(context: &Context)`.
//! 2. Decide purely: `plan.rs` has `fn plan(&Observed, now) -> Plan` (no IO, no clock, not async); `observe.rs` (or `mod.rs`) reads informers
//!    into `Observed`. Implement [`tiphys_client::Planner`] and start it with [`Context::run`], naming every informer that plans are made from
//!    with `.reading(…)`: the executor then waits until they show the controller's own writes, so no expectations are needed.
//!    Only what must ask the API server first (garbage collector, namespace) implements [`tiphys_client::Reconcile`] itself ([`Context::run_live`]).
//! 3. Wire events to keys with `shared::watch`: `own` (the object itself), `owned` (by controller reference), or `Informer::on_change`.
//!    Handlers must not wait.
//! 4. One line in [`CONTROLLERS`], under upstream's name (they are what `--controllers` takes) and upstream's account.
//! 5. Tests: tables on `plan`; one against `tiphys_testing::FakeApi`; and the property that all share: apply a plan, plan again, it is empty
//!    (`shared::test::settles`).
//!
//! Statuses are written only where they differ (`Plan::update_status_if_changed`), for every write wakes its writer again.

mod accounts;
mod attributes_class_protection;
mod bootstrap_tokens;
mod certificates;
mod claim_protection;
mod cluster_role_aggregation;
mod context;
mod cronjob;
mod daemonset;
mod deployment;
mod disruption;
mod endpoint_slice;
mod endpoint_slice_mirroring;
mod endpoints;
mod ephemeral_volumes;
mod garbage_collector;
mod horizontal_pod_autoscaler;
mod job;
mod namespace;
mod node_ipam;
mod node_lifecycle;
mod pod_gc;
mod replicaset;
mod resource_claim;
mod resource_quota;
mod root_ca;
mod service_account_tokens;
mod service_cidrs;
mod serviceaccount;
mod shared;
mod statefulset;
mod taint_eviction;
mod ttl;
mod ttl_after_finished;
mod validating_policy_status;
mod volume_binder;
mod volume_expander;
mod volume_protection;

pub use accounts::{Accounts, Tokens};
pub use context::{Config, Context, Controllers, Running};

/// A controller's name, as whom it speaks, and how to start it.
pub struct Entry {
    pub name: &'static str,
    /// A ServiceAccount of `kube-system`, to which upstream's bootstrap policy binds the controller's role. Empty: the whole process's own identity,
    /// as upstream, for what must not hang on the accounts.
    pub account: &'static str,
    start: fn(&Context),
    /// Started only when named, not by `*`.
    off_by_default: bool,
}

const fn on(name: &'static str, account: &'static str, start: fn(&Context)) -> Entry {
    Entry { name, account, start, off_by_default: false }
}

const fn off(name: &'static str, account: &'static str, start: fn(&Context)) -> Entry {
    Entry { name, account, start, off_by_default: true }
}

/// All controllers, under upstream's names.
pub static CONTROLLERS: &[Entry] = &[
    off("bootstrap-signer-controller", "bootstrap-signer", bootstrap_tokens::start_signer),
    on("certificatesigningrequest-approving-controller", "certificate-controller", certificates::start_approving),
    on("certificatesigningrequest-cleaner-controller", "certificate-controller", certificates::start_cleaning),
    on("certificatesigningrequest-signing-controller", "certificate-controller", certificates::start_signing),
    on("clusterrole-aggregation-controller", "clusterrole-aggregation-controller", cluster_role_aggregation::start),
    on("cronjob-controller", "cronjob-controller", cronjob::start),
    on("daemonset-controller", "daemon-set-controller", daemonset::start),
    on("deployment-controller", "deployment-controller", deployment::start),
    on("disruption-controller", "disruption-controller", disruption::start),
    on("endpoints-controller", "endpoint-controller", endpoints::start),
    on("endpointslice-controller", "endpointslice-controller", endpoint_slice::start),
    on("endpointslice-mirroring-controller", "endpointslicemirroring-controller", endpoint_slice_mirroring::start),
    on("ephemeral-volume-controller", "ephemeral-volume-controller", ephemeral_volumes::start),
    on("garbage-collector-controller", "generic-garbage-collector", garbage_collector::start),
    on("horizontal-pod-autoscaler-controller", "horizontal-pod-autoscaler", horizontal_pod_autoscaler::start),
    on("job-controller", "job-controller", job::start),
    on("namespace-controller", "namespace-controller", namespace::start),
    on("node-ipam-controller", "node-controller", node_ipam::start),
    on("node-lifecycle-controller", "node-controller", node_lifecycle::start),
    on("persistentvolume-binder-controller", "persistent-volume-binder", volume_binder::start),
    on("persistentvolume-expander-controller", "expand-controller", volume_expander::start),
    on("persistentvolume-protection-controller", "pv-protection-controller", volume_protection::start),
    on("persistentvolumeclaim-protection-controller", "pvc-protection-controller", claim_protection::start),
    on("pod-garbage-collector-controller", "pod-garbage-collector", pod_gc::start),
    on("replicaset-controller", "replicaset-controller", replicaset::start),
    on("replicationcontroller-controller", "replication-controller", replicaset::start_replication_controllers),
    on("resourceclaim-controller", "resource-claim-controller", resource_claim::start),
    on("resourcequota-controller", "resourcequota-controller", resource_quota::start),
    on("root-ca-certificate-publisher-controller", "root-ca-cert-publisher", root_ca::start),
    on("service-cidr-controller", "service-cidrs-controller", service_cidrs::start),
    on("serviceaccount-controller", "service-account-controller", serviceaccount::start),
    on("serviceaccount-token-controller", "", service_account_tokens::start),
    on("statefulset-controller", "statefulset-controller", statefulset::start),
    on("taint-eviction-controller", "node-controller", taint_eviction::start),
    off("token-cleaner-controller", "token-cleaner", bootstrap_tokens::start_cleaner),
    on("ttl-after-finished-controller", "ttl-after-finished-controller", ttl_after_finished::start),
    on("ttl-controller", "ttl-controller", ttl::start),
    on("volumeattributesclass-protection-controller", "volumeattributesclass-protection-controller", attributes_class_protection::start),
    on("validatingadmissionpolicy-status-controller", "validatingadmissionpolicy-status-controller", validating_policy_status::start),
];
