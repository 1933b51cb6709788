//! Endpoints that someone wrote by hand, for a Service without a selector, are shown as EndpointSlices too.
//!
//! Watches Endpoints, Services and EndpointSlices; owns the slices that it labels as its own (their owner is the Endpoints object). At most 1,000
//! addresses of a subset are mirrored, as upstream.

use std::net::IpAddr;

use jiff::Timestamp;
use tiphys_client::{Action, Delta, Index, Informer, ObjectKey, Plan, Planner, WorkQueue};
use tiphys_types::api::core::v1::{EndpointAddress, Endpoints, Service};
use tiphys_types::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use tiphys_types::owners::controller_reference;

use crate::Context;
use crate::shared::slices::{Frame, Group, MANAGED_BY, SERVICE_NAME, reconcile};
use crate::shared::{services, watch};

const NAME: &str = "endpointslicemirroring-controller.k8s.io";
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
const PER_SUBSET: usize = 1000;

pub(crate) fn start(context: &Context) {
    let (endpoints, all) = (context.informers.of::<Endpoints>(), context.informers.of::<Service>());
    let slices = context.informers.of::<EndpointSlice>();
    let queue = WorkQueue::new();
    watch::own(&endpoints, &queue);
    watch::own(&all, &queue);
    let again = queue.clone();
    slices.on_change(move |delta| {
        if is_ours(delta.object()) && !matches!(delta, Delta::Added(_)) {
            key_of(delta.object()).into_iter().for_each(|k| again.add(k));
        }
        true
    });
    let executor =
        context.executor("endpoint-slice-mirroring-controller").reading(endpoints.clone()).reading(all.clone()).reading(slices.clone());
    let slices_of =
        slices.index(
            "mirrored-service",
            |s: &EndpointSlice| if is_ours(s) { key_of(s).map(|k| k.to_string()).into_iter().collect() } else { Vec::new() },
        );
    context.run("endpointslice-mirroring-controller", 5, queue, Mirror { endpoints, services: all, slices_of }, executor);
}

fn is_ours(slice: &EndpointSlice) -> bool {
    slice.metadata.labels.as_ref().and_then(|l| l.get(MANAGED_BY)).is_some_and(|m| m == NAME)
}

fn key_of(slice: &EndpointSlice) -> Option<ObjectKey> {
    let service = slice.metadata.labels.as_ref()?.get(SERVICE_NAME)?;
    Some(ObjectKey::new(slice.metadata.namespace.as_deref().unwrap_or(""), service))
}

struct Mirror {
    endpoints: Informer<Endpoints>,
    services: Informer<Service>,
    slices_of: Index<EndpointSlice>,
}

impl Planner for Mirror {
    type Key = ObjectKey;

    fn plan(&self, key: &ObjectKey, _: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let existing = self.slices_of.get(&key.to_string());
        let wanted = self.endpoints.by_key(key).filter(|e| is_mirrored(e));
        let mirrored = self.services.by_key(key).filter(|s| !services::has_selector(s));
        let (Some(endpoints), Some(_)) = (wanted, mirrored) else {
            existing.iter().for_each(|s| plan.act(Action::delete(&**s)));
            return plan;
        };
        for action in reconcile(&frame(&endpoints), &existing, groups(&endpoints), &[]) {
            plan.act(action);
        }
        plan
    }
}

fn is_mirrored(endpoints: &Endpoints) -> bool {
    let skipped = endpoints.metadata.labels.as_ref().and_then(|l| l.get(SKIP)).is_some_and(|v| v == "true");
    let managed = endpoints.metadata.labels.as_ref().is_some_and(|l| l.contains_key("endpoints.kubernetes.io/managed-by"));
    let lease = endpoints.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(LEADER));
    !skipped && !lease && !managed && endpoints.metadata.deletion_timestamp.is_none()
}

fn frame(endpoints: &Endpoints) -> Frame {
    let meta = &endpoints.metadata;
    let name = meta.name.clone().unwrap_or_default();
    let mut labels = meta.labels.clone().unwrap_or_default();
    labels.insert(SERVICE_NAME.into(), name.clone());
    labels.insert(MANAGED_BY.into(), NAME.into());
    let owner = controller_reference::<Endpoints>(meta);
    Frame { namespace: meta.namespace.clone().unwrap_or_default(), name, labels, owner, per_slice: PER_SUBSET }
}

fn groups(endpoints: &Endpoints) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for subset in endpoints.subsets.iter().flatten() {
        let ports: Vec<EndpointPort> = subset
            .ports
            .iter()
            .flatten()
            .map(|p| EndpointPort {
                name: Some(p.name.clone().unwrap_or_default()),
                port: Some(p.port),
                protocol: Some(p.protocol.clone().unwrap_or_else(|| "TCP".into())),
                app_protocol: p.app_protocol.clone(),
            })
            .collect();
        let ready = subset.addresses.iter().flatten().map(|a| (a, true));
        let all = ready.chain(subset.not_ready_addresses.iter().flatten().map(|a| (a, false)));
        for (address, ready) in all.take(PER_SUBSET) {
            let family = match address.ip.parse() {
                Ok(IpAddr::V4(_)) => "IPv4",
                Ok(IpAddr::V6(_)) => "IPv6",
                Err(_) => continue,
            };
            let endpoint = endpoint(address, ready);
            match groups.iter_mut().find(|g| g.address_type == family && g.ports == ports) {
                Some(group) => group.endpoints.push(endpoint),
                None => groups.push(Group { address_type: family, ports: ports.clone(), endpoints: vec![endpoint] }),
            }
        }
    }
    groups
}

fn endpoint(address: &EndpointAddress, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: Some(EndpointConditions { ready: Some(ready), ..Default::default() }),
        hostname: address.hostname.clone(),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Default::default()
    }
}
