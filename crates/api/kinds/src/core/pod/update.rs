//! What may change of a pod, through each of its doors.

use serde_json::{Value, json};
use tiphys_meta::{ErrorList, Path, names, object};
use tiphys_types::qos;

use super::validation;
use crate::tree::{array, at, int, prune_empty, remove, text};

const SPEC: Path<'static> = Path::new("spec");
const UPDATABLE: &str = "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
const MIRROR: &str = "kubernetes.io/config.mirror";

pub(super) fn pod(new: &Value, old: &Value, errors: &mut ErrorList) {
    annotations(new, old, errors);
    for list in ["containers", "initContainers"] {
        let path = format!("spec.{list}");
        if array(new, &path).len() != array(old, &path).len() {
            errors.forbidden(&SPEC.child(list), "pod updates may not add or remove containers");
            return;
        }
    }
    if !deadline(new, old, errors) {
        return;
    }
    only_added_tolerations(new, old, errors);
    for (i, gate) in array(new, "spec.schedulingGates").iter().enumerate() {
        if !array(old, "spec.schedulingGates").contains(gate) {
            let name = text(gate, "name");
            let why = format!("only deletion is allowed, but found new scheduling gate '{name}'");
            errors.forbidden(&SPEC.child("schedulingGates").index(i).child("name"), why);
        }
    }
    if new.get("spec") == old.get("spec") {
        return;
    }
    let (munged, before) = (munge(new, old, errors), canonical(old));
    if munged != before {
        let why = format!("pod updates may not change fields other than {UPDATABLE}\n{}", difference(&before, &munged));
        errors.forbidden(&SPEC, why);
    }
}

fn annotations(new: &Value, old: &Value, errors: &mut ErrorList) {
    let mirror = |o: &Value| object::annotations(o).find(|(k, _)| *k == MIRROR).map(|(_, v)| v.to_owned());
    let path = Path::new("metadata");
    let path = path.child("annotations");
    match (mirror(old), mirror(new)) {
        (Some(before), after) if after.as_ref() != Some(&before) => {
            errors.forbidden(&path.key(MIRROR), "may not remove or update mirror pod annotation");
        }
        (None, Some(_)) => errors.forbidden(&path.key(MIRROR), "may not add mirror pod annotation"),
        _ => {}
    }
}

/// The deadline may come and shrink, never grow or go. False: nothing else is worth saying.
fn deadline(new: &Value, old: &Value, errors: &mut ErrorList) -> bool {
    let path = SPEC.child("activeDeadlineSeconds");
    let get = |o: &Value| at(o, "spec.activeDeadlineSeconds").and_then(Value::as_i64);
    match (get(new), get(old)) {
        (Some(new), Some(old)) if old < new => {
            errors.invalid(&path, new, "must be less than or equal to previous value");
            return false;
        }
        (None, Some(_)) => errors.invalid(&path, Value::Null, "must not update from a positive integer to nil value"),
        _ => {}
    }
    true
}

fn only_added_tolerations(new: &Value, old: &Value, errors: &mut ErrorList) {
    let without_seconds = |t: &Value| {
        let mut t = t.clone();
        remove(&mut t, "tolerationSeconds");
        t
    };
    let after: Vec<Value> = array(new, "spec.tolerations").iter().map(without_seconds).collect();
    if !array(old, "spec.tolerations").iter().all(|t| after.contains(&without_seconds(t))) {
        errors.forbidden(&SPEC.child("tolerations"), "existing toleration can not be modified except its tolerationSeconds");
    }
}

fn canonical(o: &Value) -> Value {
    let mut spec = o.get("spec").cloned().unwrap_or(Value::Null);
    prune_empty(&mut spec);
    spec
}

/// The new spec with everything that may change as it was.
fn munge(new: &Value, old: &Value, errors: &mut ErrorList) -> Value {
    let mut spec = new.get("spec").cloned().unwrap_or(Value::Null);
    let empty = json!({});
    let before = old.get("spec").unwrap_or(&empty);
    for list in ["containers", "initContainers"] {
        for (container, old) in crate::tree::array_mut(&mut spec, list).iter_mut().zip(array(before, list)) {
            crate::strategy::copy_field(container, old, "image");
        }
    }
    for field in ["activeDeadlineSeconds", "schedulingGates", "tolerations"] {
        crate::strategy::copy_field(&mut spec, before, field);
    }
    if int(before, "terminationGracePeriodSeconds") < 0 && int(&spec, "terminationGracePeriodSeconds") == 1 {
        crate::strategy::copy_field(&mut spec, before, "terminationGracePeriodSeconds");
    }
    if !array(before, "schedulingGates").is_empty() {
        gated(&mut spec, before, errors);
    }
    prune_empty(&mut spec);
    spec
}

/// While gates hold a pod back, its node selection may become narrower (KEP-3838).
fn gated(spec: &mut Value, before: &Value, errors: &mut ErrorList) {
    let selector = |s: &Value| at(s, "nodeSelector").and_then(Value::as_object).cloned().unwrap_or_default();
    let after = selector(spec);
    for (key, value) in selector(before) {
        if after.get(&key) != Some(&value) {
            errors.invalid(
                &SPEC.child("nodeSelector"),
                Value::Object(after.clone()),
                "only additions to spec.nodeSelector are allowed (no mutations or deletions)",
            );
            break;
        }
    }
    crate::strategy::copy_field(spec, before, "nodeSelector");
    let node_affinity = at(before, "affinity.nodeAffinity").cloned();
    check_narrower(at(spec, "affinity.nodeAffinity"), node_affinity.as_ref(), errors);
    match node_affinity {
        Some(old) => crate::tree::child(spec, "affinity")["nodeAffinity"] = old,
        None => {
            if let Some(affinity) = crate::tree::at_mut(spec, "affinity") {
                remove(affinity, "nodeAffinity");
            }
        }
    }
}

fn check_narrower(new: Option<&Value>, old: Option<&Value>, errors: &mut ErrorList) {
    const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
    let terms = |a: Option<&Value>| a.and_then(|a| a.get(REQUIRED)).map(|r| array(r, "nodeSelectorTerms").to_vec()).unwrap_or_default();
    let (before, after) = (terms(old), terms(new));
    if before.is_empty() {
        return;
    }
    let affinity = SPEC.child("affinity.nodeAffinity");
    let required = affinity.child(REQUIRED);
    let path = required.child("nodeSelectorTerms");
    if before.len() != after.len() {
        errors.invalid(&path, after.to_vec(), "no additions/deletions to non-empty NodeSelectorTerms list are allowed");
        return;
    }
    for (i, (old, new)) in before.iter().zip(&after).enumerate() {
        let kept = ["matchExpressions", "matchFields"].iter().all(|list| {
            array(old, list).iter().zip(array(new, list)).all(|(a, b)| a == b) && array(old, list).len() <= array(new, list).len()
        });
        if !kept {
            errors.invalid(&path.index(i), new.clone(), "only additions are allowed (no mutations or deletions)");
        }
    }
}

/// The first field that differs, for the person who reads the error.
fn difference(old: &Value, new: &Value) -> String {
    let (Some(a), Some(b)) = (old.as_object(), new.as_object()) else { return format!("  - {old}\n  + {new}\n") };
    let mut fields: Vec<&String> = a.keys().chain(b.keys()).collect();
    fields.sort_unstable();
    fields.dedup();
    let mut text = String::new();
    for field in fields.into_iter().filter(|f| a.get(*f) != b.get(*f)) {
        let show = |v: Option<&Value>| v.map_or_else(|| "<absent>".to_owned(), Value::to_string);
        text.push_str(&format!("  {field}:\n  - {}\n  + {}\n", show(a.get(field)), show(b.get(field))));
    }
    text
}

pub(super) fn status(new: &Value, old: &Value, errors: &mut ErrorList) {
    annotations(new, old, errors);
    let status = Path::new("status");
    for (i, condition) in array(new, "status.conditions").iter().enumerate() {
        let generation = int(condition, "observedGeneration");
        if generation < 0 {
            errors.invalid(&status.child("conditions").index(i).child("observedGeneration"), generation, "must be a non-negative integer");
        }
    }
    let (nominated, before) = (text(new, "status.nominatedNodeName"), text(old, "status.nominatedNodeName"));
    if nominated != before && !nominated.is_empty() {
        errors.invalid_all(&status.child("nominatedNodeName"), nominated, names::dns1123_subdomain(nominated));
        if !text(old, "spec.nodeName").is_empty() {
            errors.forbidden(&status.child("nominatedNodeName"), "may not be set on pods that are already bound to a node");
        }
    }
    crate::meta::immutable(at(new, "status.qosClass"), at(old, "status.qosClass"), &status.child("qosClass"), errors);
    let policy = text(old, "spec.restartPolicy");
    if policy != "Always" {
        state_transitions(new, old, policy, &status.child("containerStatuses"), errors);
    }
    for (one, what) in [("podIPs", "podIPs"), ("hostIPs", "hostIPs")] {
        let list = status.child(one);
        for (i, entry) in array(new, &format!("status.{what}")).iter().enumerate() {
            let path = list.index(i);
            // Upstream names the address in the one list, and the entry in the other.
            let path = if one == "podIPs" { path } else { path.child("ip") };
            tiphys_meta::ip::validate(errors, &path, text(entry, "ip"));
        }
        let all = array(new, &format!("status.{what}"));
        if let [first, second] = all
            && text(first, "ip").contains(':') == text(second, "ip").contains(':')
        {
            errors.invalid(&list, all.to_vec(), "may specify no more than one IP for each IP family");
        }
    }
}

/// What has ended for good does not start again.
fn state_transitions(new: &Value, old: &Value, policy: &str, path: &Path<'_>, errors: &mut ErrorList) {
    let specs = array(old, "spec.containers");
    for old_status in array(old, "status.containerStatuses") {
        let Some(ended) = at(old_status, "state.terminated") else { continue };
        let name = text(old_status, "name");
        let own = specs.iter().find(|c| text(c, "name") == name);
        if own.is_some_and(|c| !text(c, "restartPolicy").is_empty()) || (int(ended, "exitCode") != 0 && policy == "OnFailure") {
            continue;
        }
        let after = array(new, "status.containerStatuses").iter().enumerate().find(|(_, s)| text(s, "name") == name);
        if let Some((i, _)) = after.filter(|(_, s)| at(s, "state.terminated").is_none()) {
            errors.forbidden(&path.index(i).child("state"), "may not be transitioned to non-terminated state");
        }
    }
}

pub(super) fn ephemeral_containers(new: &Value, old: &Value, errors: &mut ErrorList) {
    validation::pod(new, errors);
    if object::annotations(old).any(|(k, _)| k == MIRROR) {
        errors.forbidden(&Path::new(""), "static pods do not support ephemeral containers");
        return;
    }
    let path = SPEC.child("ephemeralContainers");
    let after = array(new, "spec.ephemeralContainers");
    for before in array(old, "spec.ephemeralContainers") {
        let name = text(before, "name");
        match after.iter().find(|c| text(c, "name") == name) {
            None => errors.forbidden(&path, format!("existing ephemeral containers \"{name}\" may not be removed\n")),
            Some(now) if now != before => {
                let why = format!("existing ephemeral containers \"{name}\" may not be changed\n{}", difference(before, now));
                errors.forbidden(&path, why);
            }
            Some(_) => {}
        }
    }
}

pub(super) fn resize(new: &Value, old: &Value, errors: &mut ErrorList) {
    validation::pod(new, errors);
    if object::annotations(old).any(|(k, _)| k == MIRROR) {
        errors.forbidden(&Path::new(""), "static pods cannot be resized");
        return;
    }
    let known = text(old, "status.qosClass");
    let before = if known.is_empty() { qos::of_spec(&old["spec"]) } else { known };
    if before != qos::of_spec(&new["spec"]) {
        errors.invalid(&SPEC, text(new, "status.qosClass"), "Pod QOS Class may not change as a result of resizing");
    }
    let running = array(old, "status.containerStatuses").iter().find(|s| at(s, "state.running").is_some());
    if running.is_some_and(|s| at(s, "resources").is_none()) {
        errors.forbidden(&SPEC, "Pod running on node without support for resize");
    }
    for list in ["containers", "initContainers"] {
        resize_list(new, old, list, errors);
    }
    if errors.is_empty() && without_amounts(new) != without_amounts(old) {
        errors.forbidden(&SPEC, "only cpu and memory resources are mutable");
    }
}

fn resize_list(new: &Value, old: &Value, list: &str, errors: &mut ErrorList) {
    let path = format!("spec.{list}");
    let (after, before) = (array(new, &path), array(old, &path));
    let list_path = SPEC.child(list);
    if after.len() != before.len() {
        errors.forbidden(&list_path, format!("{list} may not be added or removed on resize"));
        return;
    }
    for (i, (a, b)) in after.iter().zip(before).enumerate() {
        if text(a, "name") != text(b, "name") {
            errors.forbidden(&list_path.index(i).child("name"), format!("{list} may not be renamed or reordered on resize"));
        }
    }
    for (i, (after, before)) in after.iter().zip(before).enumerate() {
        if after == before {
            continue;
        }
        let path = list_path.index(i);
        if list == "initContainers" && text(before, "restartPolicy") != "Always" {
            errors.forbidden(&SPEC, "resources for non-sidecar init containers are immutable");
        }
        for side in ["requests", "limits"] {
            let resources =
                |c: &Value| at(c, "resources").and_then(|r| r.get(side)).and_then(Value::as_object).cloned().unwrap_or_default();
            let (old_list, new_list) = (resources(before), resources(after));
            for name in ["cpu", "memory"] {
                if old_list.contains_key(name) && !new_list.contains_key(name) {
                    errors.forbidden(&path.child("resources").child(side), format!("resource {side} cannot be removed"));
                    break;
                }
            }
        }
    }
}

/// The spec without the amounts of CPU and memory.
fn without_amounts(o: &Value) -> Value {
    let mut spec = o.get("spec").cloned().unwrap_or(Value::Null);
    let strip = |holder: &mut Value| {
        for side in ["resources.requests", "resources.limits"] {
            if let Some(amounts) = crate::tree::at_mut(holder, side) {
                remove(amounts, "cpu");
                remove(amounts, "memory");
            }
        }
        // A first amount of a side brings the side itself.
        if let Some(resources) = holder.get_mut("resources") {
            prune_empty(resources);
            if resources.as_object().is_some_and(serde_json::Map::is_empty) {
                remove(holder, "resources");
            }
        }
    };
    strip(&mut spec);
    for list in ["containers", "initContainers"] {
        for container in crate::tree::array_mut(&mut spec, list) {
            strip(container);
            remove(container, "resizePolicy");
        }
    }
    prune_empty(&mut spec);
    spec
}

#[cfg(test)]
mod tests {
    use super::*;

    fn update(change: impl FnOnce(&mut Value)) -> String {
        let old = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "a"}], "restartPolicy": "Always",
            "tolerations": [{"key": "a", "operator": "Exists"}], "activeDeadlineSeconds": 10}});
        let mut new = old.clone();
        change(&mut new);
        let mut errors = ErrorList::new();
        pod(&new, &old, &mut errors);
        if errors.is_empty() { String::new() } else { errors.message() }
    }

    #[test]
    fn what_may_change() {
        assert_eq!(update(|p| p["spec"]["containers"][0]["image"] = json!("b")), "");
        assert_eq!(update(|p| p["spec"]["activeDeadlineSeconds"] = json!(5)), "");
        let more = json!([{"key": "a", "operator": "Exists", "tolerationSeconds": 3}, {"operator": "Exists"}]);
        assert_eq!(update(|p| p["spec"]["tolerations"] = more), "");
    }

    #[test]
    fn a_resize_may_add_what_was_not_asked_for_before() {
        let pod = |resources: Value| {
            json!({"metadata": {"name": "p", "namespace": "d"}, "status": {"qosClass": "Burstable"}, "spec": {
                "restartPolicy": "Always", "dnsPolicy": "ClusterFirst", "terminationGracePeriodSeconds": 30, "containers": [
                    {"name": "c", "image": "a", "imagePullPolicy": "Always", "terminationMessagePolicy": "File", "resources": resources}]}})
        };
        let resize = |after: Value| {
            let mut errors = ErrorList::new();
            super::resize(&pod(after), &pod(json!({"requests": {"cpu": "10m"}})), &mut errors);
            if errors.is_empty() { String::new() } else { errors.message() }
        };
        assert_eq!(resize(json!({"requests": {"cpu": "20m", "memory": "10Mi"}, "limits": {"cpu": "30m"}})), "");
        let other = resize(json!({"requests": {"cpu": "10m", "ephemeral-storage": "1Gi"}}));
        assert_eq!(other, "spec: Forbidden: only cpu and memory resources are mutable");
    }

    #[test]
    fn what_may_not() {
        assert!(
            update(|p| p["spec"]["restartPolicy"] = json!("Never"))
                .starts_with("spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.init")
        );
        assert_eq!(
            update(|p| p["spec"]["activeDeadlineSeconds"] = json!(20)),
            "spec.activeDeadlineSeconds: Invalid value: 20: must be less than or equal to previous value"
        );
        assert_eq!(
            update(|p| p["spec"]["tolerations"] = json!([])),
            "spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds"
        );
        assert_eq!(
            update(|p| p["spec"]["containers"] = json!([])),
            "spec.containers: Forbidden: pod updates may not add or remove containers"
        );
    }
}
