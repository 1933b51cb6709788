//! EndpointSlices: from the endpoints that should be to the fewest writes that make them so.

use std::collections::HashMap;
use std::sync::Arc;

use tiphys_client::Action;
use tiphys_types::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};
use tiphys_types::metav1::{ObjectMeta, OwnerReference};

pub(crate) const SERVICE_NAME: &str = "kubernetes.io/service-name";
pub(crate) const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";

/// Endpoints of one address family that share their ports.
pub(crate) struct Group {
    pub(crate) address_type: &'static str,
    pub(crate) ports: Vec<EndpointPort>,
    pub(crate) endpoints: Vec<Endpoint>,
}

/// What all slices of one owner have in common.
pub(crate) struct Frame {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) labels: std::collections::BTreeMap<String, String>,
    pub(crate) owner: OwnerReference,
    pub(crate) per_slice: usize,
}

/// Endpoints stay in the slice where they are; what is gone leaves a hole that new ones fill; slices that come out empty are deleted. Each
/// address family keeps one slice at least, if only an empty one: readers then know that there is nothing to wait for.
pub(crate) fn reconcile(frame: &Frame, existing: &[Arc<EndpointSlice>], mut groups: Vec<Group>, families: &[&'static str]) -> Vec<Action> {
    for family in families {
        if !groups.iter().any(|g| g.address_type == *family) {
            groups.push(Group { address_type: family, ports: Vec::new(), endpoints: Vec::new() });
        }
    }
    let mut actions = Vec::new();
    let mut used = Vec::new();
    for group in groups {
        let mine: Vec<&Arc<EndpointSlice>> = existing.iter().filter(|s| belongs(s, &group)).collect();
        used.extend(mine.iter().map(|s| s.metadata.uid.clone()));
        place(frame, &mine, group, &mut actions);
    }
    actions.extend(existing.iter().filter(|s| !used.contains(&s.metadata.uid)).map(|s| Action::delete(&**s)));
    actions
}

fn belongs(slice: &EndpointSlice, group: &Group) -> bool {
    let ports = slice.ports.as_deref().unwrap_or_default();
    slice.address_type == group.address_type && sorted(ports.to_vec()) == sorted(group.ports.clone())
}

fn sorted(mut ports: Vec<EndpointPort>) -> Vec<EndpointPort> {
    ports.sort_by(|a, b| (&a.name, a.port, &a.protocol).cmp(&(&b.name, b.port, &b.protocol)));
    ports
}

fn identity(endpoint: &Endpoint) -> (Vec<String>, Option<String>) {
    (endpoint.addresses.clone(), endpoint.target_ref.as_ref().and_then(|t| t.uid.clone()))
}

fn place(frame: &Frame, mine: &[&Arc<EndpointSlice>], group: Group, actions: &mut Vec<Action>) {
    let mut wanted: HashMap<_, Endpoint> = group.endpoints.iter().map(|e| (identity(e), e.clone())).collect();
    let kept: Vec<Vec<Endpoint>> =
        mine.iter().map(|s| s.endpoints.iter().flatten().filter_map(|e| wanted.remove(&identity(e))).collect()).collect();
    let mut new: Vec<Endpoint> = group.endpoints.iter().filter(|e| wanted.contains_key(&identity(e))).cloned().collect();
    new.dedup_by(|a, b| identity(a) == identity(b));
    let mut filled = Vec::new();
    for mut endpoints in kept {
        let room = frame.per_slice.saturating_sub(endpoints.len()).min(new.len());
        endpoints.extend(new.drain(..room));
        filled.push(endpoints);
    }
    // One slice may stay though it is empty.
    let spare = filled.iter().all(Vec::is_empty).then_some(0);
    for (at, (slice, endpoints)) in mine.iter().zip(filled).enumerate() {
        if endpoints.is_empty() && Some(at) != spare {
            actions.push(Action::delete(&***slice));
            continue;
        }
        let next = EndpointSlice {
            endpoints: Some(endpoints),
            ports: Some(group.ports.clone()),
            metadata: frame.metadata(&slice.metadata),
            ..EndpointSlice::clone(slice)
        };
        if !same(&next, slice) {
            actions.push(Action::update(&next));
        }
    }
    let mut rest = new.chunks(frame.per_slice).map(<[Endpoint]>::to_vec).collect::<Vec<_>>();
    if mine.is_empty() && rest.is_empty() {
        rest.push(Vec::new());
    }
    actions.extend(rest.into_iter().map(|endpoints| Action::create(&frame.slice(&group, endpoints))));
}

/// The API prints an empty list as null.
fn same(a: &EndpointSlice, b: &EndpointSlice) -> bool {
    a.endpoints.as_deref().unwrap_or_default() == b.endpoints.as_deref().unwrap_or_default()
        && sorted(a.ports.clone().unwrap_or_default()) == sorted(b.ports.clone().unwrap_or_default())
        && a.metadata.labels == b.metadata.labels
        && a.metadata.owner_references == b.metadata.owner_references
}

impl Frame {
    fn metadata(&self, old: &ObjectMeta) -> ObjectMeta {
        ObjectMeta { labels: Some(self.labels.clone()), owner_references: Some(vec![self.owner.clone()]), ..old.clone() }
    }

    fn slice(&self, group: &Group, endpoints: Vec<Endpoint>) -> EndpointSlice {
        let new =
            ObjectMeta { namespace: Some(self.namespace.clone()), generate_name: Some(format!("{}-", self.name)), ..Default::default() };
        EndpointSlice {
            metadata: self.metadata(&new),
            address_type: group.address_type.to_owned(),
            endpoints: Some(endpoints),
            ports: Some(group.ports.clone()),
        }
    }
}
