//! `rbac.authorization.k8s.io`. Whether somebody may grant what a role grants is the authorizer's question, not one of form.

use serde_json::Value;
use tiphys_meta::{ErrorList, Path, names, object};
use tiphys_types::jiff::Timestamp;

use crate::resources::Entry;
use crate::strategy::{Column, Strategy};
use crate::table::{AGE, NAME, age, column, wide};
use crate::tree::{array, array_mut, at, child, set_default, text};

const GROUP: &str = "rbac.authorization.k8s.io";

const fn rbac(namespaced: bool) -> Strategy {
    Strategy::new(namespaced).name(names::path_segment).create_on_update()
}

static CLUSTER_ROLE: Strategy = rbac(false).checks(|o, e| check_role(o, false, e), |_, _, _| {});
static ROLE: Strategy = rbac(true).checks(|o, e| check_role(o, true, e), |_, _, _| {});
static CLUSTER_BINDING: Strategy =
    rbac(false).defaults(binding_defaults).checks(|o, e| check_binding(o, false, e), fixed_role).table(BINDING_COLUMNS, binding_cells);
static BINDING: Strategy =
    rbac(true).defaults(binding_defaults).checks(|o, e| check_binding(o, true, e), fixed_role).table(BINDING_COLUMNS, binding_cells);

pub(crate) const RESOURCES: &[Entry] = &[
    Entry::new("clusterrolebindings", &CLUSTER_BINDING),
    Entry::new("clusterroles", &CLUSTER_ROLE),
    Entry::new("rolebindings", &BINDING),
    Entry::new("roles", &ROLE),
];

fn binding_defaults(o: &mut Value) {
    set_default(child(o, "roleRef"), "apiGroup", GROUP);
    for subject in array_mut(o, "subjects") {
        if matches!(text(subject, "kind"), "User" | "Group") {
            set_default(subject, "apiGroup", GROUP);
        }
    }
}

fn check_role(o: &Value, namespaced: bool, errors: &mut ErrorList) {
    let list = Path::new("rules");
    for (i, rule) in array(o, "rules").iter().enumerate() {
        check_rule(rule, namespaced, &list.index(i), errors);
    }
    let Some(aggregation) = at(o, "aggregationRule") else { return };
    let list = Path::new("aggregationRule.clusterRoleSelectors");
    let selectors = array(aggregation, "clusterRoleSelectors");
    if selectors.is_empty() {
        errors.required(&list, "at least one clusterRoleSelector required if aggregationRule is non-nil");
    }
    for (i, selector) in selectors.iter().enumerate() {
        let path = list.index(i);
        crate::selectors::check(Some(selector), &path, errors);
        if tiphys_types::selector::from_value(selector).is_err() {
            errors.invalid(&path, selector.clone(), "invalid label selector.");
        }
    }
}

fn check_rule(rule: &Value, namespaced: bool, path: &Path<'_>, errors: &mut ErrorList) {
    if array(rule, "verbs").is_empty() {
        errors.required(&path.child("verbs"), "verbs must contain at least one value");
    }
    let urls = array(rule, "nonResourceURLs");
    let resource_fields = ["apiGroups", "resources", "resourceNames"];
    if !urls.is_empty() {
        let path = path.child("nonResourceURLs");
        if namespaced {
            errors.invalid(&path, urls.to_vec(), "namespaced rules cannot apply to non-resource URLs");
        }
        if resource_fields.iter().any(|f| !array(rule, f).is_empty()) {
            errors.invalid(&path, urls.to_vec(), "rules cannot apply to both regular resources and non-resource URLs");
        }
        return;
    }
    if array(rule, "apiGroups").is_empty() {
        errors.required(&path.child("apiGroups"), "resource rules must supply at least one api group");
    }
    if array(rule, "resources").is_empty() {
        errors.required(&path.child("resources"), "resource rules must supply at least one resource");
    }
}

fn check_binding(o: &Value, namespaced: bool, errors: &mut ErrorList) {
    let path = Path::new("roleRef");
    let (group, kind, name) = (text(o, "roleRef.apiGroup"), text(o, "roleRef.kind"), text(o, "roleRef.name"));
    if group != GROUP {
        errors.not_supported(&path.child("apiGroup"), group, &[GROUP]);
    }
    let kinds: &[&str] = if namespaced { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
    if !kinds.contains(&kind) {
        errors.not_supported(&path.child("kind"), kind, kinds);
    }
    if name.is_empty() {
        errors.required(&path.child("name"), "");
    } else {
        errors.invalid_all(&path.child("name"), name, names::path_segment(name, false));
    }
    let list = Path::new("subjects");
    for (i, subject) in array(o, "subjects").iter().enumerate() {
        check_subject(subject, namespaced, &list.index(i), errors);
    }
}

fn check_subject(subject: &Value, namespaced: bool, path: &Path<'_>, errors: &mut ErrorList) {
    let (name, group) = (text(subject, "name"), text(subject, "apiGroup"));
    if name.is_empty() {
        errors.required(&path.child("name"), "");
    }
    match text(subject, "kind") {
        "ServiceAccount" => {
            if !name.is_empty() {
                errors.invalid_all(&path.child("name"), name, names::dns1123_subdomain(name));
            }
            if !group.is_empty() {
                errors.not_supported(&path.child("apiGroup"), group, &[""]);
            }
            if !namespaced && text(subject, "namespace").is_empty() {
                errors.required(&path.child("namespace"), "");
            }
        }
        "User" | "Group" => {
            if group != GROUP {
                errors.not_supported(&path.child("apiGroup"), group, &[GROUP]);
            }
        }
        other => errors.not_supported(&path.child("kind"), other, &["ServiceAccount", "User", "Group"]),
    }
}

/// To point elsewhere, a binding is made anew: whoever may change subjects may not so gain a role.
fn fixed_role(new: &Value, old: &Value, errors: &mut ErrorList) {
    if new.get("roleRef") != old.get("roleRef") {
        errors.invalid(&Path::new("roleRef"), new.get("roleRef").cloned().unwrap_or_default(), "cannot change roleRef");
    }
}

const BINDING_COLUMNS: &[Column] = &[NAME, column("Role"), AGE, wide("Users"), wide("Groups"), wide("ServiceAccounts")];

fn binding_cells(o: &Value, now: Timestamp) -> Vec<Value> {
    let of_kind = |kind: &str| -> String {
        let all = array(o, "subjects").iter().filter(|s| text(s, "kind") == kind);
        let name = |s: &Value| match (kind, text(s, "namespace")) {
            ("ServiceAccount", namespace) if !namespace.is_empty() => format!("{namespace}/{}", text(s, "name")),
            _ => text(s, "name").to_owned(),
        };
        all.map(name).collect::<Vec<_>>().join(", ")
    };
    vec![
        object::name(o).into(),
        format!("{}/{}", text(o, "roleRef.kind"), text(o, "roleRef.name")).into(),
        age(o, now),
        of_kind("User").into(),
        of_kind("Group").into(),
        of_kind("ServiceAccount").into(),
    ]
}
