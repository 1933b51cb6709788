//! What the server says about a definition: whether its names are free, whether it is served, whether a name under `k8s.io` was approved.
//! Pure: one definition and what the others of its group have taken in, its next status out.

use std::collections::HashSet;

use serde_json::{Value, json};
use tiphys_meta::object;

use super::definition::Names;

pub(super) fn condition<'v>(crd: &'v Value, kind: &str) -> Option<&'v Value> {
    crd["status"]["conditions"].as_array()?.iter().find(|c| c["type"] == kind)
}

pub(crate) fn condition_is_true(crd: &Value, kind: &str) -> bool {
    condition(crd, kind).is_some_and(|c| c["status"] == "True")
}

/// Sets a condition; its time moves when its status does. Whether anything changed.
pub(crate) fn set_condition(crd: &mut Value, kind: &str, status: &str, reason: &str, message: &str, now: &str) -> bool {
    let mut wanted = json!({"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": now});
    let status_map = object::as_map(object::as_map(crd).entry("status").or_insert(Value::Null));
    let conditions = status_map.entry("conditions").or_insert(Value::Null);
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    let Some(list) = conditions.as_array_mut() else { return false };
    let Some(present) = list.iter_mut().find(|c| c["type"] == kind) else {
        list.push(wanted);
        return true;
    };
    let same = ["status", "reason", "message"].iter().all(|f| present[*f] == wanted[*f]);
    if same {
        return false;
    }
    if present["status"] == status {
        wanted["lastTransitionTime"] = present["lastTransitionTime"].clone();
    }
    *present = wanted;
    true
}

/// The definition with its next status, or none where it stands as it should. One step at a time: that it is established is said in a write of
/// its own, after names were accepted and everything is served.
pub(super) fn next(crd: &Value, others: &[&Value], now: &str) -> Option<Value> {
    if object::deletion_timestamp(crd).is_some() {
        return None;
    }
    named(crd, others, now).or_else(|| approved(crd, now)).or_else(|| established(crd, now))
}

fn named(crd: &Value, others: &[&Value], now: &str) -> Option<Value> {
    let (wanted, accepted) = (&crd["spec"]["names"], &crd["status"]["acceptedNames"]);
    if wanted == accepted && condition(crd, "NamesAccepted").is_some() {
        return None;
    }
    let (names, conflict) = accept(&Names::of(wanted), &Names::of(accepted), others);
    let mut next = crd.clone();
    let changed = next["status"]["acceptedNames"] != names;
    next["status"]["acceptedNames"] = names;
    let told = match &conflict {
        Some((reason, message)) => set_condition(&mut next, "NamesAccepted", "False", reason, message, now),
        None => set_condition(&mut next, "NamesAccepted", "True", "NoConflicts", "no conflicts found", now),
    };
    if !condition_is_true(crd, "Established") {
        let (reason, message) = match (&conflict, condition(crd, "Established").is_some()) {
            (None, _) => ("Installing", "the initial names have been accepted"),
            (Some(_), false) => ("NotAccepted", "not all names are accepted"),
            (Some(_), true) => return (changed || told).then_some(next),
        };
        set_condition(&mut next, "Established", "False", reason, message, now);
    }
    (changed || told).then_some(next)
}

/// The names that the definition gets, and the last of those it cannot have.
fn accept(wanted: &Names, accepted: &Names, others: &[&Value]) -> (Value, Option<(&'static str, String)>) {
    let taken: Vec<Names> = others.iter().map(|o| Names::of(&o["status"]["acceptedNames"])).collect();
    let resources: HashSet<&str> =
        taken.iter().flat_map(|n| [&n.plural, &n.singular].into_iter().chain(&n.short_names)).map(String::as_str).collect();
    let kinds: HashSet<&str> = taken.iter().flat_map(|n| [n.kind.as_str(), n.list_kind.as_str()]).collect();
    let mut names = Names { categories: wanted.categories.clone(), ..accepted.clone() };
    let mut conflict = None;
    let mut check = |wanted: &str, accepted: &str, used: &HashSet<&str>, reason: &'static str, slot: &mut String| {
        if wanted != accepted && used.contains(wanted) {
            conflict = Some((reason, in_use(wanted)));
        } else {
            wanted.clone_into(slot);
        }
    };
    check(&wanted.plural, &accepted.plural, &resources, "PluralConflict", &mut names.plural);
    check(&wanted.singular, &accepted.singular, &resources, "SingularConflict", &mut names.singular);
    let clashing: Vec<String> = wanted
        .short_names
        .iter()
        .filter(|s| !accepted.short_names.contains(s) && resources.contains(s.as_str()))
        .map(|s| in_use(s))
        .collect();
    if clashing.is_empty() {
        names.short_names.clone_from(&wanted.short_names);
    }
    let mut kinds_conflict = None;
    for (wanted, accepted, reason, slot) in [
        (&wanted.kind, &accepted.kind, "KindConflict", &mut names.kind),
        (&wanted.list_kind, &accepted.list_kind, "ListKindConflict", &mut names.list_kind),
    ] {
        if wanted != accepted && kinds.contains(wanted.as_str()) {
            kinds_conflict = Some((reason, in_use(wanted)));
        } else {
            slot.clone_from(wanted);
        }
    }
    let short_conflict = match clashing.as_slice() {
        [] => None,
        [one] => Some(("ShortNamesConflict", one.clone())),
        many => Some(("ShortNamesConflict", format!("[{}]", many.join(", ")))),
    };
    (printed(&names), kinds_conflict.or(short_conflict).or(conflict))
}

fn in_use(name: &str) -> String {
    format!("{name:?} is already in use")
}

/// In canonical form: what is empty and optional is left out.
fn printed(names: &Names) -> Value {
    let mut all = json!({"plural": names.plural, "kind": names.kind});
    for (field, text) in [("singular", &names.singular), ("listKind", &names.list_kind)] {
        if !text.is_empty() {
            all[field] = json!(text);
        }
    }
    for (field, list) in [("shortNames", &names.short_names), ("categories", &names.categories)] {
        if !list.is_empty() {
            all[field] = json!(list);
        }
    }
    all
}

fn established(crd: &Value, now: &str) -> Option<Value> {
    if !condition_is_true(crd, "NamesAccepted") || condition_is_true(crd, "Established") {
        return None;
    }
    let mut next = crd.clone();
    set_condition(&mut next, "Established", "True", "InitialNamesAccepted", "the initial names have been accepted", now).then_some(next)
}

const APPROVAL: &str = "api-approved.kubernetes.io";

/// Groups under `k8s.io` and `kubernetes.io` belong to the community (KEP-2337).
fn approved(crd: &Value, now: &str) -> Option<Value> {
    const CONDITION: &str = "KubernetesAPIApprovalPolicyConformant";
    let group = crd["spec"]["group"].as_str().unwrap_or("");
    let protected = ["k8s.io", "kubernetes.io"].iter().any(|d| group == *d || group.strip_suffix(d).is_some_and(|g| g.ends_with('.')));
    if !protected {
        return None;
    }
    let annotation = object::annotations(crd).find(|(k, _)| *k == APPROVAL).map_or("", |(_, v)| v);
    let (status, reason, message) = match annotation {
        "" => {
            let why = "protected groups must have approval annotation \"api-approved.kubernetes.io\", see https://github.com/kubernetes/enhancements/pull/1111";
            ("False", "MissingAnnotation", why.to_owned())
        }
        text if text.starts_with("unapproved") => ("False", "UnapprovedAnnotation", format!("not approved: {text:?}")),
        text if is_address(text) => ("True", "ApprovedAnnotation", format!("approved in {text}")),
        _ => {
            let why = "protected groups must have approval annotation \"api-approved.kubernetes.io\" with either a URL or a reason starting with \"unapproved\", see https://github.com/kubernetes/enhancements/pull/1111";
            ("False", "InvalidAnnotation", why.to_owned())
        }
    };
    let mut next = crd.clone();
    set_condition(&mut next, CONDITION, status, reason, &message, now).then_some(next)
}

fn is_address(text: &str) -> bool {
    text.split_once("://").is_some_and(|(scheme, rest)| !scheme.is_empty() && !rest.split('/').next().unwrap_or("").is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-01-01T00:00:00Z";

    fn crd(plural: &str, kind: &str) -> Value {
        json!({"metadata": {"name": format!("{plural}.example.com")}, "spec": {"group": "example.com", "names":
            {"plural": plural, "singular": kind.to_lowercase(), "kind": kind, "listKind": format!("{kind}List")}},
            "status": {"acceptedNames": {"plural": "", "kind": ""}, "conditions": null}})
    }

    fn reasons(crd: &Value) -> Vec<String> {
        let conditions = crd["status"]["conditions"].as_array().into_iter().flatten();
        conditions.map(|c| format!("{}={}:{}", c["type"], c["status"], c["reason"]).replace('"', "")).collect()
    }

    #[test]
    fn established_comes_in_a_step_of_its_own() {
        let first = next(&crd("foos", "Foo"), &[], NOW).unwrap();
        assert_eq!(reasons(&first), ["NamesAccepted=True:NoConflicts", "Established=False:Installing"]);
        let second = next(&first, &[], NOW).unwrap();
        assert_eq!(reasons(&second), ["NamesAccepted=True:NoConflicts", "Established=True:InitialNamesAccepted"]);
        assert_eq!(next(&second, &[], NOW), None);
    }

    #[test]
    fn names_that_are_taken() {
        let holder = next(&crd("foos", "Foo"), &[], NOW).unwrap();
        let second = next(&crd("bars", "Foo"), &[&holder], NOW).unwrap();
        assert_eq!(second["status"]["acceptedNames"]["plural"], "bars");
        assert_eq!(second["status"]["acceptedNames"]["kind"], "");
        assert_eq!(reasons(&second), ["NamesAccepted=False:ListKindConflict", "Established=False:NotAccepted"]);
        assert_eq!(condition(&second, "NamesAccepted").unwrap()["message"], "\"FooList\" is already in use");
        assert_eq!(next(&second, &[&holder], NOW), None);
        // When the holder goes, the name is free.
        assert_eq!(reasons(&next(&second, &[], NOW).unwrap()), ["NamesAccepted=True:NoConflicts", "Established=False:Installing"]);
    }

    #[test]
    fn groups_of_the_community_need_approval() {
        let mut definition = crd("foos", "Foo");
        definition["spec"]["group"] = json!("foo.k8s.io");
        let first = next(&definition, &[], NOW).unwrap();
        let second = next(&first, &[], NOW).unwrap();
        assert!(reasons(&second).contains(&"KubernetesAPIApprovalPolicyConformant=False:MissingAnnotation".into()));
        definition["metadata"]["annotations"] = json!({"api-approved.kubernetes.io": "https://github.com/kubernetes/kubernetes/pull/1"});
        let approved = next(&next(&definition, &[], NOW).unwrap(), &[], NOW).unwrap();
        assert!(reasons(&approved).contains(&"KubernetesAPIApprovalPolicyConformant=True:ApprovedAnnotation".into()));
    }
}
