//! Endpoints, the older form of EndpointSlices: one object per Service with a selector, under its name.
//!
//! Watches Services, Pods and Endpoints; writes Endpoints. Deletes what it has made when the Service is gone.
//! Absent: the truncation of more than 1,000 addresses and the trigger-time annotation.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use tiphys_client::{Action, Informer, ObjectKey, Plan, Planner, WorkQueue};
use tiphys_types::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Pod, Service};
use tiphys_types::metav1::ObjectMeta;
use tiphys_types::{pods, services as rules};

use crate::Context;
use crate::shared::{services, watch};

const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const NAME: &str = "endpoint-controller";
const HEADLESS: &str = "service.kubernetes.io/headless";

pub(crate) fn start(context: &Context) {
    let (all, pods, endpoints) = (context.informers.of::<Service>(), context.informers.of::<Pod>(), context.informers.of::<Endpoints>());
    let queue = WorkQueue::new();
    watch::own(&all, &queue);
    services::of_pods(&pods, &all, &queue);
    watch::own(&endpoints, &queue);
    let executor = context.executor("endpoint-controller").reading(all.clone()).reading(pods.clone()).reading(endpoints.clone());
    context.run("endpoints-controller", 5, queue, Writer { services: all, pods, endpoints }, executor);
}

struct Writer {
    services: Informer<Service>,
    pods: Informer<Pod>,
    endpoints: Informer<Endpoints>,
}

impl Planner for Writer {
    type Key = ObjectKey;

    fn plan(&self, key: &ObjectKey, _: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let current = self.endpoints.by_key(key);
        let Some(service) = self.services.by_key(key) else {
            plan.burst(current.iter().filter(|e| is_ours(e)).map(|e| Action::delete(&**e)).collect());
            return plan;
        };
        if !services::has_selector(&service) || rules::is_external_name(&service) {
            return plan;
        }
        let pods: Vec<Arc<Pod>> = self.pods.list_namespace(&key.namespace).into_iter().filter(|p| rules::selects(&service, p)).collect();
        let subsets = Some(subsets(&service, &pods)).filter(|s| !s.is_empty());
        match current {
            None => {
                let new =
                    ObjectMeta { namespace: service.metadata.namespace.clone(), name: service.metadata.name.clone(), ..Default::default() };
                plan.act(Action::create(&Endpoints { metadata: metadata(&service, new), subsets }).or_settled());
            }
            Some(current) => {
                let next = Endpoints { metadata: metadata(&service, current.metadata.clone()), subsets };
                if normal(&next) != normal(&current) {
                    plan.act(Action::update(&next));
                }
            }
        }
        plan
    }
}

fn is_ours(endpoints: &Endpoints) -> bool {
    endpoints.metadata.labels.as_ref().and_then(|l| l.get(MANAGED_BY)).is_some_and(|m| m == NAME)
}

/// The API prints an absent list of subsets in more than one way.
fn normal(endpoints: &Endpoints) -> (&ObjectMeta, &[EndpointSubset]) {
    (&endpoints.metadata, endpoints.subsets.as_deref().unwrap_or_default())
}

fn metadata(service: &Service, old: ObjectMeta) -> ObjectMeta {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.insert(MANAGED_BY.into(), NAME.into());
    labels.remove(HEADLESS);
    if rules::is_headless(service) {
        labels.insert(HEADLESS.into(), String::new());
    }
    ObjectMeta { labels: Some(labels), ..old }
}

/// Pods that have the same ports stand together; within, by address.
fn subsets(service: &Service, pods: &[Arc<Pod>]) -> Vec<EndpointSubset> {
    let mut by_ports: BTreeMap<Vec<(String, i32, String, Option<String>)>, EndpointSubset> = BTreeMap::new();
    for pod in pods.iter().filter(|p| services::may_be_endpoint(p) && !pods::is_terminating(p)) {
        let Some(address) = address(service, pod) else { continue };
        let resolved = services::ports(service).iter().filter_map(|p| Some((p, services::target(pod, p)?)));
        let ports: Vec<_> = resolved
            .map(|(p, n)| (p.name.clone().unwrap_or_default(), n, services::protocol(p).to_owned(), p.app_protocol.clone()))
            .collect();
        if ports.is_empty() && !(rules::is_headless(service) && services::ports(service).is_empty()) {
            continue;
        }
        let subset = by_ports.entry(ports).or_default();
        let ready = services::publishes_not_ready(service) || pods::is_ready(pod);
        let list = if ready { &mut subset.addresses } else { &mut subset.not_ready_addresses };
        list.get_or_insert_default().push(address);
    }
    let finish = |(ports, mut subset): (Vec<(String, i32, String, Option<String>)>, EndpointSubset)| {
        for list in [&mut subset.addresses, &mut subset.not_ready_addresses].into_iter().flatten() {
            list.sort_by(|a, b| a.ip.cmp(&b.ip));
        }
        let port = |(name, port, protocol, app_protocol): (String, i32, String, Option<String>)| EndpointPort {
            name: Some(name).filter(|n| !n.is_empty()),
            port,
            protocol: Some(protocol),
            app_protocol,
        };
        subset.ports = Some(ports.into_iter().map(port).collect::<Vec<_>>()).filter(|p| !p.is_empty());
        subset
    };
    by_ports.into_iter().map(finish).collect()
}

/// Of the service's first family.
fn address(service: &Service, pod: &Pod) -> Option<EndpointAddress> {
    let family = service.spec.as_ref().and_then(|s| s.ip_families.as_ref()).and_then(|f| f.first());
    let wants_v6 = family.is_some_and(|f| f == "IPv6");
    let ip = services::ips(pod).find(|ip| ip.contains(':') == wants_v6)?;
    Some(EndpointAddress {
        ip: ip.to_owned(),
        hostname: services::hostname(pod, service),
        node_name: pod.spec.as_ref().and_then(|s| s.node_name.clone()),
        target_ref: Some(services::reference(pod)),
    })
}
