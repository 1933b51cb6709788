//! Services and their pods, for the controllers of Endpoints and of EndpointSlices.

use std::sync::Arc;

use tiphys_client::{Delta, Informer, ObjectKey, WorkQueue};
use tiphys_types::api::core::v1::{ObjectReference, Pod, Service, ServicePort};
use tiphys_types::apimachinery::pkg::util::intstr::IntOrString;
use tiphys_types::{pods, services};

/// A pod's change is work for the services that select it or selected it, if it touches what endpoints say.
pub(crate) fn of_pods(pods: &Informer<Pod>, services: &Informer<Service>, queue: &WorkQueue<ObjectKey>) {
    let (services, queue) = (services.clone(), queue.clone());
    pods.on_change(move |delta| {
        let both: Vec<&Arc<Pod>> = match delta {
            Delta::Updated { old, new } if !matters(old, new) => return true,
            Delta::Updated { old, new } => vec![old, new],
            Delta::Added(pod) | Delta::Deleted(pod) => vec![pod],
        };
        let namespace = delta.object().metadata.namespace.as_deref().unwrap_or("");
        for service in services.list_namespace(namespace) {
            if both.iter().any(|pod| services::selects(&service, pod)) {
                queue.add(ObjectKey::of(&*service));
            }
        }
        true
    });
}

fn matters(old: &Pod, new: &Pod) -> bool {
    let seen = |p: &Pod| {
        let ips: Vec<String> = ips(p).map(str::to_owned).collect();
        (ips, pods::is_ready(p), pods::is_terminating(p), pods::is_terminal(p), pods::node_name(p).to_owned(), p.metadata.labels.clone())
    };
    seen(old) != seen(new)
}

pub(crate) fn has_selector(service: &Service) -> bool {
    service.spec.as_ref().and_then(|s| s.selector.as_ref()).is_some_and(|s| !s.is_empty())
}

pub(crate) fn ports(service: &Service) -> &[ServicePort] {
    service.spec.as_ref().and_then(|s| s.ports.as_deref()).unwrap_or_default()
}

pub(crate) fn publishes_not_ready(service: &Service) -> bool {
    let annotation = service.metadata.annotations.as_ref().and_then(|a| a.get("service.alpha.kubernetes.io/tolerate-unready-endpoints"));
    service.spec.as_ref().and_then(|s| s.publish_not_ready_addresses).unwrap_or(false) || annotation.is_some_and(|v| v == "true")
}

pub(crate) fn protocol(port: &ServicePort) -> &str {
    port.protocol.as_deref().unwrap_or("TCP")
}

/// The pod's number for a service port; None where it has no port of that name.
pub(crate) fn target(pod: &Pod, port: &ServicePort) -> Option<i32> {
    match &port.target_port {
        None => Some(port.port),
        Some(IntOrString::Int(0)) => Some(port.port),
        Some(IntOrString::String(name)) if name.is_empty() => Some(port.port),
        Some(target) => pods::resolve_port(pod, target, protocol(port)),
    }
}

pub(crate) fn ips(pod: &Pod) -> impl Iterator<Item = &str> {
    let status = pod.status.as_ref();
    let many = status.into_iter().flat_map(|s| s.pod_ips.iter().flatten()).map(|i| i.ip.as_str());
    let first = status.and_then(|s| s.pod_ip.as_deref()).filter(|_| status.is_some_and(|s| s.pod_ips.is_none()));
    many.chain(first).filter(|ip| !ip.is_empty())
}

/// Running, or not yet, but with an address.
pub(crate) fn may_be_endpoint(pod: &Pod) -> bool {
    !pods::is_terminal(pod) && ips(pod).next().is_some()
}

/// The name that DNS gives the pod under this service.
pub(crate) fn hostname(pod: &Pod, service: &Service) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let matches =
        spec.subdomain.is_some() && spec.subdomain == service.metadata.name && pod.metadata.namespace == service.metadata.namespace;
    spec.hostname.clone().filter(|h| matches && !h.is_empty())
}

pub(crate) fn reference(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".into()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        ..Default::default()
    }
}
