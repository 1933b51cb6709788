//! What the server sets on pods.

use serde_json::{Value, json};
use tiphys_meta::{names, object, time};
use tiphys_types::qos;

use crate::fields::{self, Fields};
use crate::strategy::{Ctx, bump_generation, copy_field, keep_all_but_status};
use crate::tree::{array, array_mut, at, child, int, text};

/// One of them is known but never filled: upstream selects nothing by it either.
pub(super) const SELECTABLE: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "spec.hostNetwork",
    "status.phase",
    "status.podIP",
    "status.podIPs",
    "status.nominatedNodeName",
];

const FILLED: &[(&str, &str)] = &[
    ("metadata.name", ""),
    ("metadata.namespace", ""),
    ("spec.nodeName", ""),
    ("spec.restartPolicy", ""),
    ("spec.schedulerName", ""),
    ("spec.serviceAccountName", ""),
    ("spec.hostNetwork", "false"),
    ("status.phase", ""),
    ("status.podIP", ""),
    ("status.nominatedNodeName", ""),
];

pub(super) fn selectable(pod: &Value) -> Fields<'_> {
    let mut all = fields::read(pod, FILLED);
    all.insert(all.len() - 1, ("status.podIPs", "".into()));
    all
}

/// Phase and class; a pod that waits for its gates says so (KEP-3521).
pub(super) fn on_create(pod: &mut Value, ctx: &Ctx<'_>) {
    let class = qos::of_spec(&pod["spec"]);
    let status = child(pod, "status");
    status["qosClass"] = json!(class);
    if !array(pod, "spec.schedulingGates").is_empty() {
        child(pod, "status")["conditions"] = json!([{
            "type": "PodScheduled", "status": "False", "reason": "SchedulingGated", "message": "Scheduling is blocked due to non-empty scheduling gates",
            "lastProbeTime": null, "lastTransitionTime": time::format(ctx.now),
        }]);
    }
    spread_keys(pod);
    affinity_keys(pod);
    apparmor_from_annotations(pod);
}

/// The old annotations become the field (KEP-24), unless it says the same for the whole pod.
fn apparmor_from_annotations(pod: &mut Value) {
    let annotated: Vec<(String, String)> = object::annotations(pod)
        .filter_map(|(key, value)| key.strip_prefix(super::warnings::APPARMOR).map(|name| (name.to_owned(), value.to_owned())))
        .collect();
    if annotated.is_empty() || text(pod, "spec.os.name") == "windows" {
        return;
    }
    let own = at(pod, "spec.securityContext.appArmorProfile").cloned();
    let Some(spec) = pod.get_mut("spec") else { return };
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for container in array_mut(spec, list) {
            let annotation = annotated.iter().find(|(name, _)| name == text(container, "name"));
            let Some(profile) = annotation.and_then(|(_, value)| apparmor_profile(value)) else { continue };
            if at(container, "securityContext.appArmorProfile").is_none() && own.as_ref() != Some(&profile) {
                child(container, "securityContext")["appArmorProfile"] = profile;
            }
        }
    }
}

/// What an annotation's value means; nothing where it is no profile.
pub(super) fn apparmor_profile(value: &str) -> Option<Value> {
    match value {
        "unconfined" => Some(json!({"type": "Unconfined"})),
        "runtime/default" => Some(json!({"type": "RuntimeDefault"})),
        local => {
            let name = local.strip_prefix("localhost/").filter(|name| !name.is_empty() && name.trim() == *name)?;
            Some(json!({"type": "Localhost", "localhostProfile": name}))
        }
    }
}

/// `matchLabelKeys` of spread constraints become part of the selector (KEP-3243): the scheduler reads the selector alone.
fn spread_keys(pod: &mut Value) {
    let labels = at(pod, "metadata.labels").cloned().unwrap_or(Value::Null);
    let Some(spec) = pod.get_mut("spec") else { return };
    for constraint in array_mut(spec, "topologySpreadConstraints") {
        add_label_keys(constraint, "matchLabelKeys", "In", &labels);
    }
}

/// The same for pod affinity terms (KEP-3633).
fn affinity_keys(pod: &mut Value) {
    let labels = at(pod, "metadata.labels").cloned().unwrap_or(Value::Null);
    let Some(affinity) = crate::tree::at_mut(pod, "spec.affinity") else { return };
    for kind in ["podAffinity", "podAntiAffinity"] {
        let Some(rules) = crate::tree::present(affinity, kind) else { continue };
        for term in array_mut(rules, "requiredDuringSchedulingIgnoredDuringExecution") {
            add_term_keys(term, &labels);
        }
        for weighted in array_mut(rules, "preferredDuringSchedulingIgnoredDuringExecution") {
            if let Some(term) = crate::tree::present(weighted, "podAffinityTerm") {
                add_term_keys(term, &labels);
            }
        }
    }
}

fn add_term_keys(term: &mut Value, labels: &Value) {
    add_label_keys(term, "matchLabelKeys", "In", labels);
    add_label_keys(term, "mismatchLabelKeys", "NotIn", labels);
}

fn add_label_keys(holder: &mut Value, field: &str, operator: &str, labels: &Value) {
    let keys = array(holder, field).to_vec();
    if at(holder, "labelSelector").is_none() {
        return;
    }
    for key in keys.iter().filter_map(Value::as_str) {
        let Some(value) = labels.get(key) else { continue };
        let expression = json!({"key": key, "operator": operator, "values": [value]});
        let list = object::as_map(child(holder, "labelSelector")).entry("matchExpressions").or_insert_with(|| json!([]));
        if let Some(list) = list.as_array_mut()
            && !list.contains(&expression)
        {
            list.push(expression);
        }
    }
}

/// Everything but the readiness of gates counts: upstream compares the whole spec.
pub(super) fn spec_changed(new: &Value, old: &Value) -> bool {
    new.get("spec") != old.get("spec")
}

pub(super) fn prepare_status(new: &mut Value, old: &Value, ctx: &Ctx<'_>) {
    keep_all_but_status(new, old, ctx);
    for field in ["deletionTimestamp", "ownerReferences"] {
        let kept = old.get("metadata").and_then(|m| m.get(field)).cloned();
        let meta = object::meta_mut(new);
        match kept {
            Some(value) => meta.insert(field.into(), value),
            None => meta.remove(field),
        };
    }
    let old_class = text(old, "status.qosClass").to_owned();
    let status = child(new, "status");
    if text(status, "qosClass").is_empty() && !old_class.is_empty() {
        status["qosClass"] = json!(old_class);
    }
    keep_observed_generations(new, old);
}

/// KEP-5067: a client that knows nothing of `observedGeneration` does not clear it.
fn keep_observed_generations(new: &mut Value, old: &Value) {
    let status = child(new, "status");
    if int(status, "observedGeneration") == 0
        && let Some(known) = at(old, "status.observedGeneration")
    {
        status["observedGeneration"] = known.clone();
    }
    let old_conditions = array(old, "status.conditions");
    let mut used = vec![false; old_conditions.len()];
    for condition in array_mut(status, "conditions") {
        let kind = text(condition, "type").to_owned();
        let found = old_conditions.iter().zip(&used).position(|(c, used)| !used && text(c, "type") == kind);
        let Some(i) = found else { continue };
        used[i] = true;
        if int(condition, "observedGeneration") == 0
            && let Some(known) = at(&old_conditions[i], "observedGeneration")
        {
            condition["observedGeneration"] = known.clone();
        }
    }
}

/// Only the ephemeral containers come from the request.
pub(super) fn prepare_ephemeral(new: &mut Value, old: &Value, _: &Ctx<'_>) {
    let containers = at(new, "spec.ephemeralContainers").cloned();
    reset_to_old(new, old);
    let spec = object::as_map(child(new, "spec"));
    match containers {
        Some(containers) => spec.insert("ephemeralContainers".into(), containers),
        None => spec.remove("ephemeralContainers"),
    };
    bump_if_changed(new, old);
}

/// Only resources and resize policies come from the request; where the containers' names differ, validation is to say so.
pub(super) fn prepare_resize(new: &mut Value, old: &Value, _: &Ctx<'_>) {
    let lists = ["containers", "initContainers"];
    let same_length = |list: &&str| array(&new["spec"], list).len() == array(&old["spec"], list).len();
    if !lists.iter().all(same_length) {
        return;
    }
    let merged: Vec<Value> = lists.iter().map(|list| merge_resources(array(&new["spec"], list), array(&old["spec"], list))).collect();
    let own = at(new, "spec.resources").cloned();
    reset_to_old(new, old);
    let spec = object::as_map(child(new, "spec"));
    match own {
        Some(own) => spec.insert("resources".into(), own),
        None => spec.remove("resources"),
    };
    for (list, containers) in lists.iter().zip(merged) {
        if containers.as_array().is_some_and(|c| !c.is_empty()) {
            spec.insert((*list).into(), containers);
        }
    }
    bump_if_changed(new, old);
}

fn merge_resources(new: &[Value], old: &[Value]) -> Value {
    if new.iter().zip(old).any(|(n, o)| text(n, "name") != text(o, "name")) {
        return json!(new);
    }
    let merge = |(new, old): (&Value, &Value)| {
        let mut merged = old.clone();
        for field in ["resources", "resizePolicy"] {
            copy_field(&mut merged, new, field);
        }
        merged
    };
    new.iter().zip(old).map(merge).collect()
}

/// Spec, status and metadata of the old object; of the new metadata only what a status update may set stays (managed fields, resource version).
fn reset_to_old(new: &mut Value, old: &Value) {
    let keep = ["resourceVersion", "managedFields"].map(|f| (f, new.get("metadata").and_then(|m| m.get(f)).cloned()));
    *new = old.clone();
    let meta = object::meta_mut(new);
    for (field, value) in keep {
        match value {
            Some(value) => meta.insert(field.into(), value),
            None => meta.remove(field),
        };
    }
}

fn bump_if_changed(new: &mut Value, old: &Value) {
    if spec_changed(new, old) {
        bump_generation(new, old);
    }
}

/// The asked-for period, else the pod's. Nothing waits for a pod that no kubelet runs, or that has finished.
pub(super) fn grace(pod: &Value, asked: Option<i64>) -> i64 {
    let period = asked.unwrap_or_else(|| int(pod, "spec.terminationGracePeriodSeconds"));
    if text(pod, "spec.nodeName").is_empty() || matches!(text(pod, "status.phase"), "Failed" | "Succeeded") {
        return 0;
    }
    if period < 0 { 1 } else { period }
}

pub(super) fn warnings(new: &Value, old: Option<&Value>) -> Vec<String> {
    let mut all = Vec::new();
    if old.is_none() {
        let name = object::name(new);
        let messages = names::dns1123_label(name);
        if !messages.is_empty() {
            all.push(format!(
                "metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS label is recommended: [{}]",
                messages.join(" ")
            ));
        }
        all.extend(super::warnings::pod(new, ""));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::strategy::tests::ctx;

    #[test]
    fn create_sets_phase_class_and_gates() {
        let mut pod = json!({"metadata": {"name": "p"}, "status": {"phase": "Running"},
            "spec": {"containers": [{"name": "c"}], "schedulingGates": [{"name": "a"}]}});
        super::super::STRATEGY.prepare_create(&mut pod, &ctx());
        assert_eq!(pod["status"]["phase"], "Pending");
        assert_eq!(pod["status"]["qosClass"], "BestEffort");
        assert_eq!(pod["status"]["conditions"][0]["reason"], "SchedulingGated");
        assert_eq!(pod["metadata"]["generation"], 1);
    }

    #[test]
    fn status_updates_keep_the_spec_and_known_generations() {
        let old = json!({"metadata": {"name": "p", "generation": 2}, "spec": {"nodeName": "n"},
            "status": {"observedGeneration": 2, "qosClass": "Burstable", "conditions": [{"type": "Ready", "observedGeneration": 2}]}});
        let mut new = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "x"}, "status": {"conditions": [{"type": "Ready"}]}});
        super::super::STRATEGY.status_strategy().unwrap().update(&mut new, &old, &ctx());
        assert_eq!(new["spec"], old["spec"]);
        assert_eq!(new["status"], old["status"]);
        assert_eq!(new["metadata"]["generation"], 2);
    }

    #[test]
    fn resize_takes_resources_only() {
        let old = json!({"metadata": {"name": "p", "generation": 1, "labels": {"a": "b"}},
            "spec": {"containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": "1"}}}]}, "status": {}});
        let mut new = json!({"metadata": {"name": "p", "resourceVersion": "5"},
            "spec": {"containers": [{"name": "c", "image": "other", "resources": {"requests": {"cpu": "2"}}}]}});
        super::super::STRATEGY.subresource("resize").unwrap().update(&mut new, &old, &ctx());
        assert_eq!(new["spec"]["containers"], json!([{"name": "c", "image": "i", "resources": {"requests": {"cpu": "2"}}}]));
        assert_eq!(new["metadata"], json!({"name": "p", "generation": 2, "labels": {"a": "b"}, "resourceVersion": "5"}));
    }

    #[test]
    fn grace_periods() {
        let pod =
            |node: &str, phase: &str| json!({"spec": {"nodeName": node, "terminationGracePeriodSeconds": 30}, "status": {"phase": phase}});
        assert_eq!(grace(&pod("n", "Running"), None), 30);
        assert_eq!(grace(&pod("n", "Running"), Some(5)), 5);
        assert_eq!(grace(&pod("n", "Running"), Some(-1)), 1);
        assert_eq!(grace(&pod("", "Pending"), None), 0);
        assert_eq!(grace(&pod("n", "Failed"), Some(5)), 0);
    }
}
