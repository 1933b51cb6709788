//! State that some kinds have beside their objects: addresses and ports of Services, leases of events.

use parking_lot::Mutex;
use serde_json::Value;
use tiphys_meta::ApiError;

use crate::config::RegistryConfig;
use crate::network::{self, Allocator, Reserved};
use crate::resource::{Resource, Resources};
use crate::storage::Entry;
use crate::verbs::Call;

/// How long one lease is given to new events, in seconds.
pub(crate) const LEASE_SHARED_FOR: i64 = 60;

pub(crate) struct Hooks {
    pub(crate) services: Allocator,
    lease: Mutex<Option<(i64, i64)>>,
}

impl Hooks {
    pub(crate) fn new(config: &RegistryConfig, resources: &Resources) -> Hooks {
        let services = Allocator::new(config);
        if let Some((resource, _)) = resources.find(&tiphys_meta::Gvr::new("", "v1", "services")) {
            let prefix = resource.prefix().clone();
            resource.cache.list(&prefix, &prefix).0.iter().for_each(|entry| services.adopt(&entry.to_value()));
        }
        Hooks { services, lease: Mutex::new(None) }
    }

    /// The lease for an event written now, if the last one is young enough.
    pub(crate) fn lease(&self, now: i64) -> Option<i64> {
        self.lease.lock().filter(|(_, since)| now - since < LEASE_SHARED_FOR).map(|(lease, _)| lease)
    }

    pub(crate) fn set_lease(&self, lease: i64, now: i64) {
        *self.lease.lock() = Some((lease, now));
    }

    /// An object is gone.
    pub(crate) fn deleted(&self, resource: &Resource, last: &Entry) {
        if is_services(resource) {
            self.services.release_all(&last.to_value());
        }
    }

    /// An object was written; `previous` is what it was.
    pub(crate) fn written(&self, resource: &Resource, previous: Option<&Entry>, entry: &Entry) {
        if is_services(resource)
            && let Some(previous) = previous
        {
            self.services.release_dropped(&previous.to_value(), &entry.to_value());
        }
    }
}

fn is_services(resource: &Resource) -> bool {
    resource.gvr.group.is_empty() && &*resource.gvr.resource == "services"
}

/// What was set aside for a write; given back when the write does not happen.
#[derive(Default)]
pub(crate) struct Hold(Option<Reserved>);

impl Hold {
    pub(crate) fn keep(mut self) {
        if let Some(reserved) = self.0.take() {
            reserved.keep();
        }
    }
}

pub(crate) fn before_create(call: &Call<'_>, tree: &mut Value) -> Result<Hold, ApiError> {
    if !is_services(call.resource) {
        return Ok(Hold::default());
    }
    network::on_create(&call.registry.hooks.services, tree).map(|r| Hold(Some(r)))
}

pub(crate) fn before_update(call: &Call<'_>, new: &mut Value, old: &Value) -> Result<Hold, ApiError> {
    if !is_services(call.resource) {
        return Ok(Hold::default());
    }
    network::on_update(&call.registry.hooks.services, new, old).map(|r| Hold(Some(r)))
}
