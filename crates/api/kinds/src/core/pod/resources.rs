//! Checks of resource names and amounts.

use serde_json::{Map, Value};
use tiphys_meta::{ErrorList, ErrorType, FieldError, Path, Quantity, names};

use crate::tree::{array, map_at, text};

const NOT_NEGATIVE: &str = "must be greater than or equal to 0";

fn parse(amount: &Value) -> Quantity {
    amount.as_str().and_then(|t| Quantity::parse(t).ok()).unwrap_or(Quantity::ZERO)
}

fn is_huge_pages(name: &str) -> bool {
    name.starts_with("hugepages-")
}

/// No prefix, or one of Kubernetes' own domain.
fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

pub(crate) fn is_extended(name: &str) -> bool {
    !is_native(name) && !name.starts_with("requests.") && names::qualified_name(&format!("requests.{name}")).is_empty()
}

/// More may be promised than there is.
pub(crate) fn may_overcommit(name: &str) -> bool {
    is_native(name) && !is_huge_pages(name)
}

fn is_container_standard(name: &str) -> bool {
    matches!(name, "cpu" | "memory" | "ephemeral-storage") || is_huge_pages(name)
}

const STANDARD: &[&str] = &[
    "configmaps",
    "cpu",
    "ephemeral-storage",
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "memory",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
    "requests.storage",
    "resourcequotas",
    "secrets",
    "services",
    "services.loadbalancers",
    "services.nodeports",
    "storage",
];

fn is_standard(name: &str) -> bool {
    STANDARD.contains(&name) || is_huge_pages(name) || name.starts_with("requests.hugepages-")
}

fn is_quota(name: &str) -> bool {
    STANDARD.contains(&name) && name != "storage" || name.starts_with("requests.hugepages-") || name.starts_with("hugepages-")
}

/// Counted, never divided.
fn is_integer_resource(name: &str) -> bool {
    const COUNTED: &[&str] = &[
        "configmaps",
        "persistentvolumeclaims",
        "pods",
        "replicationcontrollers",
        "resourcequotas",
        "secrets",
        "services",
        "services.loadbalancers",
        "services.nodeports",
    ];
    COUNTED.contains(&name) || is_extended(name)
}

pub(crate) fn check_name(name: &str, path: &Path<'_>, errors: &mut ErrorList) -> bool {
    let messages = names::qualified_name(name);
    let bad = !messages.is_empty();
    errors.invalid_all(path, name, messages);
    if !bad && !name.contains('/') && !is_standard(name) {
        errors.invalid(path, name, "must be a standard resource type or fully qualified");
    }
    !bad
}

pub(crate) fn check_container_name(name: &str, path: &Path<'_>, errors: &mut ErrorList) {
    check_name(name, path, errors);
    if !name.contains('/') {
        if !is_container_standard(name) {
            errors.invalid(path, name, "must be a standard resource for containers");
        }
    } else if !is_native(name) && !is_extended(name) {
        errors.invalid(path, name, "doesn't follow extended resource name standard");
    }
}

pub(crate) fn check_amount(name: &str, amount: Quantity, path: &Path<'_>, errors: &mut ErrorList) {
    if amount.is_negative() {
        errors.invalid(path, amount.to_string(), NOT_NEGATIVE);
    }
    if is_integer_resource(name) && !amount.is_integer() {
        errors.invalid(path, amount.to_string(), "must be an integer");
    }
}

pub(crate) fn check_quota(list: Option<&Value>, path: &Path<'_>, errors: &mut ErrorList) {
    for (name, amount) in list.and_then(Value::as_object).into_iter().flatten() {
        let path = path.key(name);
        check_name(name, &path, errors);
        if !name.contains('/') && !is_quota(name) {
            errors.invalid(&path, name.as_str(), "must be a standard resource for quota");
        }
        check_amount(name, parse(amount), &path, errors);
    }
}

pub(crate) fn check_positive(list: Option<&Value>, path: &Path<'_>, errors: &mut ErrorList) {
    for (name, amount) in list.and_then(Value::as_object).into_iter().flatten() {
        let amount = parse(amount);
        if amount.is_negative() || amount.is_zero() {
            errors.invalid(&path.key(name), amount.to_string(), "must be greater than zero");
        }
    }
}

/// Pages come whole.
fn check_huge_pages(name: &str, amount: Quantity, path: &Path<'_>, errors: &mut ErrorList) {
    let Some(size) = name.strip_prefix("hugepages-") else { return };
    let size = Quantity::parse(size).ok().filter(|s| s.is_integer()).map_or(0, |s| s.value());
    if size <= 0 || amount.value() % size != 0 {
        errors.invalid(path, amount.to_string(), format!("{amount} is not positive integer multiple of {name}"));
    }
}

/// A name that a pod's own `resources` may have.
fn check_pod_name(name: &str, path: &Path<'_>, errors: &mut ErrorList) {
    let before = errors.len();
    check_name(name, path, errors);
    if errors.len() == before && !matches!(name, "cpu" | "memory") && !is_huge_pages(name) {
        errors.not_supported(path, name, &["cpu", "hugepages-", "memory"]);
    }
}

/// `resources` of a container. `claims` are the names of the pod's resource claims.
pub(crate) fn requirements(resources: &Value, claims: &[&str], path: &Path<'_>, errors: &mut ErrorList) {
    amounts(resources, check_container_name, path, errors);
    check_claims(resources, claims, &path.child("claims"), errors);
}

fn amounts(resources: &Value, check_name: fn(&str, &Path<'_>, &mut ErrorList), path: &Path<'_>, errors: &mut ErrorList) {
    let empty = Map::new();
    let limits = map_at(resources, "limits").unwrap_or(&empty);
    let requests = map_at(resources, "requests").unwrap_or(&empty);
    let (limits_path, requests_path) = (path.child("limits"), path.child("requests"));
    for (name, amount) in limits {
        let path = limits_path.key(name);
        check_name(name, &path, errors);
        check_amount(name, parse(amount), &path, errors);
        check_huge_pages(name, parse(amount), &path, errors);
    }
    for (name, amount) in requests {
        let (path, amount) = (requests_path.key(name), parse(amount));
        check_name(name, &path, errors);
        check_amount(name, amount, &path, errors);
        check_huge_pages(name, amount, &path, errors);
        match limits.get(name).map(parse) {
            Some(limit) if amount != limit && !may_overcommit(name) => {
                errors.invalid(&requests_path, amount.to_string(), format!("must be equal to {name} limit of {limit}"));
            }
            Some(limit) if amount > limit => {
                errors.invalid(&requests_path, amount.to_string(), format!("must be less than or equal to {name} limit of {limit}"));
            }
            None if !may_overcommit(name) => {
                errors.required(&limits_path, "Limit must be set for non overcommitable resources");
            }
            _ => {}
        }
    }
    let mut all = limits.keys().chain(requests.keys());
    let core = limits.keys().chain(requests.keys()).any(|n| n == "cpu" || n == "memory");
    if !core && all.any(|n| is_huge_pages(n)) {
        errors.forbidden(path, "HugePages require cpu or memory");
    }
}

fn check_claims(resources: &Value, claims: &[&str], path: &Path<'_>, errors: &mut ErrorList) {
    let all = array(resources, "claims");
    for (i, claim) in all.iter().enumerate() {
        let (name, path) = (text(claim, "name"), path.index(i));
        if name.is_empty() {
            errors.required(&path, "");
        } else {
            check_claim(claim, &all[..i], &path, errors);
            if !claims.contains(&name) {
                let known = if claims.is_empty() {
                    " which is empty".to_owned()
                } else {
                    format!(": {}", claims.iter().copied().filter(|c| !c.is_empty()).collect::<Vec<_>>().join(", "))
                };
                let detail = format!("must be one of the names in pod.spec.resourceClaims{known}");
                errors.push(FieldError::new(ErrorType::NotFound, &path, name, detail));
            }
        }
    }
}

/// A claim is named whole or by its requests, and each once.
fn check_claim(claim: &Value, before: &[Value], path: &Path<'_>, errors: &mut ErrorList) {
    let (name, request) = (text(claim, "name"), text(claim, "request"));
    let same = || before.iter().filter(|c| text(c, "name") == name);
    if same().any(|c| text(c, "request").is_empty()) {
        return errors.duplicate(path, name);
    }
    if request.is_empty() {
        same().for_each(|_| errors.duplicate(path, name));
        return;
    }
    errors.invalid_all(&path.child("request"), request, names::dns1123_label(request));
    if same().any(|c| text(c, "request") == request) {
        errors.duplicate(path, format!("{name}/{request}"));
    }
}

/// `spec.resources` of a pod (KEP-2837): no less than the containers ask for together.
pub(super) fn pod_level(spec: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let Some(resources) = spec.get("resources").filter(|r| !r.is_null()) else { return };
    let path = path.child("resources");
    if !array(resources, "claims").is_empty() {
        errors.forbidden(&path.child("claims"), "claims may not be set for Resources at pod-level");
    }
    amounts(resources, check_pod_name, &path, errors);
    let containers = serde_json::json!({"containers": spec.get("containers"), "initContainers": spec.get("initContainers")});
    let Ok(typed) = serde_json::from_value(serde_json::json!({"spec": containers})) else { return };
    let asked = tiphys_types::resources::requests(&typed);
    for (name, amount) in map_at(resources, "requests").into_iter().flatten() {
        if let Some(sum) = asked.get(name).filter(|sum| **sum > parse(amount)) {
            let why = format!("must be greater than or equal to aggregate container requests of {sum}");
            errors.invalid(&path.child("requests").key(name), parse(amount).to_string(), why);
        }
    }
    let Some(limits) = map_at(resources, "limits") else { return };
    let most = tiphys_types::resources::limits(&typed);
    for (name, amount) in limits.iter().filter(|(name, _)| is_huge_pages(name)) {
        if let Some(sum) = most.get(name).filter(|sum| **sum > parse(amount)) {
            let why = format!("must be greater than or equal to aggregate container limits of {sum}");
            errors.invalid(&path.child("limits").key(name), parse(amount).to_string(), why);
        }
    }
    for (i, container) in array(spec, "containers").iter().enumerate() {
        for (name, amount) in map_at(container, "resources.limits").into_iter().flatten() {
            if let Some(limit) = limits.get(name).map(parse).filter(|limit| parse(amount) > *limit) {
                let (list, why) = (path.child("containers"), format!("must be less than or equal to pod limits of {limit}"));
                errors.invalid(&list.index(i).key(name).child("limits"), parse(amount).to_string(), why);
            }
        }
    }
}
