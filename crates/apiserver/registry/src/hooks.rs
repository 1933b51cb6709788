//! State that some kinds have beside their objects: addresses and ports of Services with the IPAddress and ServiceCIDR objects, leases of events.

use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value;
use tiphys_meta::{ApiError, Gvr, time};

use crate::config::RegistryConfig;
use crate::network::{self, Allocator, Beside, Reserved};
use crate::resource::{Resource, Resources};
use crate::storage::Entry;
use crate::verbs::Call;

/// How long one lease is given to new events, in seconds.
pub(crate) const LEASE_SHARED_FOR: i64 = 60;

pub(crate) struct Hooks {
    pub(crate) services: Allocator,
    addresses: Option<Arc<Resource>>,
    lease: Mutex<Option<(i64, i64)>>,
}

impl Hooks {
    pub(crate) fn new(config: &RegistryConfig, resources: &Resources) -> Hooks {
        let find = |group, resource| resources.find(&Gvr::new(group, "v1", resource)).map(|(resource, _)| resource.clone());
        let addresses = find("networking.k8s.io", "ipaddresses");
        let hooks = Hooks { services: Allocator::new(config), addresses, lease: Mutex::new(None) };
        if let Some(services) = find("", "services") {
            let entries = services.cache.list(services.prefix(), services.prefix()).0;
            entries.iter().for_each(|entry| hooks.services.adopt(&entry.to_value()));
        }
        for resource in [&hooks.addresses, &find("networking.k8s.io", "servicecidrs")].into_iter().flatten() {
            let entries = resource.cache.list(resource.prefix(), resource.prefix()).0;
            entries.iter().for_each(|entry| hooks.written(resource, None, entry));
        }
        hooks
    }

    /// What is written and deleted in the same transaction as an object.
    pub(crate) fn beside(
        &self,
        resource: &Resource,
        old: Option<&Entry>,
        new: impl FnOnce() -> Option<Arc<Entry>>,
        config: &RegistryConfig,
    ) -> Result<Beside, ApiError> {
        let Some(addresses) = self.addresses.as_ref().filter(|_| is_services(resource)) else { return Ok(Beside::default()) };
        let (old, new) = (old.map(Entry::to_value), new().map(|e| e.to_value()));
        network::beside(addresses, old.as_ref(), new.as_ref(), &time::format(config.clock.now()))
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
        match Kept::of(resource) {
            Kept::Services => self.services.release_all(&last.to_value()),
            Kept::Addresses => self.services.unname_ip(last.name()),
            Kept::Ranges => self.services.remove_range(last.name()),
            Kept::Nothing => {}
        }
    }

    /// An object was written; `previous` is what it was.
    pub(crate) fn written(&self, resource: &Resource, previous: Option<&Entry>, entry: &Entry) {
        match (Kept::of(resource), previous) {
            (Kept::Services, Some(previous)) => self.services.release_dropped(&previous.to_value(), &entry.to_value()),
            (Kept::Addresses, _) => self.services.name_ip(entry.name()),
            (Kept::Ranges, _) => self.services.add_range(&entry.to_value()),
            (Kept::Services | Kept::Nothing, _) => {}
        }
    }
}

/// Of what resource something is kept here.
enum Kept {
    Services,
    Addresses,
    Ranges,
    Nothing,
}

impl Kept {
    fn of(resource: &Resource) -> Kept {
        match (&*resource.gvr.group, &*resource.gvr.resource) {
            ("", "services") => Kept::Services,
            ("networking.k8s.io", "ipaddresses") => Kept::Addresses,
            ("networking.k8s.io", "servicecidrs") => Kept::Ranges,
            _ => Kept::Nothing,
        }
    }
}

fn is_services(resource: &Resource) -> bool {
    matches!(Kept::of(resource), Kept::Services)
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
    check_addresses(tree)?;
    network::on_create(&call.registry.hooks.services, tree).map(|r| Hold(Some(r)))
}

/// Nothing is given to a Service that contradicts itself.
fn check_addresses(new: &Value) -> Result<(), ApiError> {
    let errors = tiphys_kinds::check_service_addresses(new);
    if errors.is_empty() { Ok(()) } else { Err(errors.into_invalid("", "Service", tiphys_meta::object::name(new))) }
}

pub(crate) fn before_update(call: &Call<'_>, new: &mut Value, old: &Value) -> Result<Hold, ApiError> {
    if !is_services(call.resource) {
        return Ok(Hold::default());
    }
    check_addresses(new)?;
    network::on_update(&call.registry.hooks.services, new, old).map(|r| Hold(Some(r)))
}
