//! ResourceQuota: what a namespace may use in sum. Admission holds it; the controller counts.

use serde_json::Value;
use tiphys_meta::{ErrorList, Path, object};
use tiphys_types::jiff::Timestamp;

use super::resource_list;
use crate::strategy::{Column, Strategy};
use crate::table::{AGE, NAME, age, column};
use crate::tree::{array, at, map_at, present, text};

pub(crate) static STRATEGY: Strategy =
    Strategy::new(true).status("{}").create_on_update().defaults(defaults).checks(check, check_update).table(COLUMNS, cells);

const SCOPES: [&str; 7] =
    ["BestEffort", "CrossNamespacePodAffinity", "NotBestEffort", "NotTerminating", "PriorityClass", "Terminating", "VolumeAttributesClass"];

fn defaults(o: &mut Value) {
    for part in ["spec", "status"] {
        if let Some(part) = present(o, part) {
            resource_list::round(part.get_mut("hard"));
            resource_list::round(part.get_mut("used"));
        }
    }
}

fn check(o: &Value, errors: &mut ErrorList) {
    let spec = Path::new("spec");
    super::pod::resources::check_quota(at(o, "spec.hard"), &spec.child("hard"), errors);
    let scopes = array(o, "spec.scopes");
    for scope in scopes.iter().filter_map(Value::as_str).filter(|s| !SCOPES.contains(s)) {
        errors.invalid(&spec.child("scopes"), scopes.to_vec(), "unsupported scope");
        let _ = scope;
    }
    let has = |scope: &str| scopes.iter().any(|s| s == scope);
    if (has("BestEffort") && has("NotBestEffort")) || (has("Terminating") && has("NotTerminating")) {
        errors.invalid(&spec.child("scopes"), scopes.to_vec(), "conflicting scopes");
    }
    check_selector(o, errors);
}

fn check_selector(o: &Value, errors: &mut ErrorList) {
    let path = Path::new("spec.scopeSelector.matchExpressions");
    for requirement in array(o, "spec.scopeSelector.matchExpressions") {
        let (scope, operator) = (text(requirement, "scopeName"), text(requirement, "operator"));
        if !SCOPES.contains(&scope) {
            errors.invalid(&path.child("scopeName"), scope, "unsupported scope");
        }
        if SCOPES.contains(&scope) && !matches!(scope, "PriorityClass" | "VolumeAttributesClass") && operator != "Exists" {
            let why = "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, \
                       ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity";
            errors.invalid(&path.child("operator"), operator, why);
        }
        let values = array(requirement, "values");
        match operator {
            "In" | "NotIn" if values.is_empty() => {
                let why = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
                errors.required(&path.child("values"), why);
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let why = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
                errors.invalid(&path.child("values"), values.to_vec(), why);
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => errors.invalid(&path.child("operator"), other, "not a valid selector operator"),
        }
    }
}

fn check_update(new: &Value, old: &Value, errors: &mut ErrorList) {
    let sorted = |o: &Value| {
        let mut all: Vec<String> = array(o, "spec.scopes").iter().filter_map(Value::as_str).map(str::to_owned).collect();
        all.sort_unstable();
        all
    };
    if sorted(new) != sorted(old) {
        errors.invalid(&Path::new("spec").child("scopes"), sorted(new), crate::meta::FIELD_IMMUTABLE);
    }
}

const COLUMNS: &[Column] = &[NAME, column("Request"), column("Limit"), AGE];

fn cells(o: &Value, now: Timestamp) -> Vec<Value> {
    let (mut requests, mut limits) = (Vec::new(), Vec::new());
    for (name, hard) in map_at(o, "status.hard").into_iter().flatten() {
        let used = map_at(o, "status.used").and_then(|u| u.get(name)).and_then(Value::as_str).unwrap_or("0");
        let text = format!("{name}: {used}/{}", hard.as_str().unwrap_or("0"));
        if name.starts_with("limits.") { limits.push(text) } else { requests.push(text) }
    }
    vec![object::name(o).into(), requests.join(", ").into(), limits.join(", ").into(), age(o, now)]
}
