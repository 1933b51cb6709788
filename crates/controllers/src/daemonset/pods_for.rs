//! Which nodes a DaemonSet's pods belong on, and what such a pod looks like.

use tiphys_types::api::apps::v1::DaemonSet;
use tiphys_types::api::core::v1::{
    Affinity, Node, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec, Toleration,
};
use tiphys_types::owners::controller_reference;
use tiphys_types::taints::{NO_EXECUTE, NO_SCHEDULE};
use tiphys_types::{node_affinity, pods, taints};

use crate::shared::{history, pod};

/// What a DaemonSet wants of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// A pod should be there.
    Run,
    /// None should come, but one that is there may stay.
    Stay,
    Never,
}

pub(super) fn wanted(set: &DaemonSet, node: &Node) -> Wanted {
    let template = set.spec.as_ref().and_then(|s| s.template.spec.clone()).unwrap_or_default();
    let named = template.node_name.as_deref().unwrap_or("");
    if !named.is_empty() && Some(named) != node.metadata.name.as_deref() {
        return Wanted::Never;
    }
    let tolerations = tolerations(&template);
    let trial = Pod { spec: Some(template), ..Default::default() };
    if !node_affinity::required_matches(&trial, node) {
        return Wanted::Never;
    }
    let all = node.spec.as_ref().and_then(|s| s.taints.clone()).unwrap_or_default();
    if taints::untolerated(&all, &tolerations, &[NO_SCHEDULE, NO_EXECUTE]).is_none() {
        Wanted::Run
    } else if taints::untolerated(&all, &tolerations, &[NO_EXECUTE]).is_none() {
        Wanted::Stay
    } else {
        Wanted::Never
    }
}

/// Daemons belong to the node's machinery: they stay through its troubles.
fn tolerations(spec: &PodSpec) -> Vec<Toleration> {
    let exists = |key: &str, effect: &str| Toleration {
        key: Some(key.into()),
        operator: Some("Exists".into()),
        effect: Some(effect.into()),
        ..Default::default()
    };
    let mut all = spec.tolerations.clone().unwrap_or_default();
    let mut add = |toleration: Toleration| {
        if !all.contains(&toleration) {
            all.push(toleration);
        }
    };
    add(exists("node.kubernetes.io/not-ready", NO_EXECUTE));
    add(exists("node.kubernetes.io/unreachable", NO_EXECUTE));
    add(exists("node.kubernetes.io/disk-pressure", NO_SCHEDULE));
    add(exists("node.kubernetes.io/memory-pressure", NO_SCHEDULE));
    add(exists("node.kubernetes.io/pid-pressure", NO_SCHEDULE));
    add(exists("node.kubernetes.io/unschedulable", NO_SCHEDULE));
    if spec.host_network == Some(true) {
        add(exists("node.kubernetes.io/network-unavailable", NO_SCHEDULE));
    }
    all
}

/// The pod for one node.
pub(super) fn pod_for(set: &DaemonSet, node: &str, hash: &str) -> Pod {
    let (meta, template) = (&set.metadata, set.spec.as_ref().map(|s| s.template.clone()).unwrap_or_default());
    let (namespace, name) = (meta.namespace.as_deref().unwrap_or(""), meta.name.as_deref().unwrap_or(""));
    let mut new = pod::from_template(&template, namespace, name, controller_reference::<DaemonSet>(meta));
    let labels = new.metadata.labels.get_or_insert_default();
    labels.insert(history::HASH.into(), hash.to_owned());
    if let Some(generation) = meta.annotations.as_ref().and_then(|a| a.get("deprecated.daemonset.template.generation")) {
        labels.insert("pod-template-generation".into(), generation.clone());
    }
    let spec = new.spec.get_or_insert_default();
    spec.tolerations = Some(tolerations(spec));
    let affinity = spec.affinity.get_or_insert_with(Affinity::default);
    let to_node = affinity.node_affinity.get_or_insert_with(NodeAffinity::default);
    let by_name = NodeSelectorRequirement { key: "metadata.name".into(), operator: "In".into(), values: Some(vec![node.to_owned()]) };
    let term = NodeSelectorTerm { match_fields: Some(vec![by_name]), match_expressions: None };
    to_node.required_during_scheduling_ignored_during_execution = Some(NodeSelector { node_selector_terms: vec![term] });
    new
}

/// The node that a pod is on, or is meant for.
pub(super) fn target(pod: &Pod) -> Option<String> {
    if !pods::node_name(pod).is_empty() {
        return Some(pods::node_name(pod).to_owned());
    }
    let affinity = pod.spec.as_ref()?.affinity.as_ref()?.node_affinity.as_ref()?;
    let terms = &affinity.required_during_scheduling_ignored_during_execution.as_ref()?.node_selector_terms;
    let fields = terms.iter().flat_map(|t| t.match_fields.iter().flatten());
    let mut names = fields.filter(|f| f.key == "metadata.name" && f.operator == "In").filter_map(|f| f.values.as_ref()?.first());
    names.next().cloned()
}
