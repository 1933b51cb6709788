//! `networking.k8s.io`.

mod ingress;
mod network_policy;

use serde_json::Value;
use tiphys_meta::{ErrorList, Path, ip, names, object};
use tiphys_types::jiff::Timestamp;

use crate::resources::Entry;
use crate::strategy::{BARE_STATUS, Column, Strategy};
use crate::table::{AGE, NAME, age, column};
use crate::tree::{array, at, present, said, set_absent, text};
use crate::workloads::SPEC;

static INGRESS_CLASS: Strategy = Strategy::new(false)
    .spec_generation()
    .defaults(class_defaults)
    .checks(check_class, |new, old, errors| {
        let of = |o: &Value| Value::from(text(o, "spec.controller"));
        crate::meta::immutable(Some(&of(new)), Some(&of(old)), &SPEC.child("controller"), errors);
    })
    .table(CLASS_COLUMNS, class_cells);
static IP_ADDRESS: Strategy = Strategy::new(false)
    .name(|name, _| {
        let mut errors = ErrorList::new();
        ip::validate_canonical(&mut errors, &Path::new("name"), name);
        errors.into_iter().map(|e| e.detail).collect()
    })
    .checks(check_address, |new, old, errors| {
        crate::meta::immutable(at(new, "spec.parentRef"), at(old, "spec.parentRef"), &SPEC.child("parentRef"), errors);
    })
    .table(ADDRESS_COLUMNS, address_cells);
static SERVICE_CIDR: Strategy = Strategy::new(false)
    .status("{}")
    .status_alone(BARE_STATUS)
    .check_created(check_cidr)
    .checks(|_, _| {}, check_cidr_update)
    .table(CIDR_COLUMNS, cidr_cells);

pub(crate) const RESOURCES: &[Entry] = &[
    Entry::new("ingressclasses", &INGRESS_CLASS),
    Entry::new("ingresses", &ingress::STRATEGY),
    Entry::new("ipaddresses", &IP_ADDRESS),
    Entry::new("networkpolicies", &network_policy::STRATEGY),
    Entry::new("servicecidrs", &SERVICE_CIDR),
];

fn class_defaults(o: &mut Value) {
    if let Some(parameters) = present(o, "spec").and_then(|s| present(s, "parameters")) {
        set_absent(parameters, "scope", "Cluster");
    }
}

fn check_class(o: &Value, errors: &mut ErrorList) {
    let controller = text(o, "spec.controller");
    let path = SPEC.child("controller");
    if controller.len() > 250 {
        errors.too_long(&path, 250);
    }
    match controller.split_once('/') {
        _ if controller.is_empty() => errors.required(&path, ""),
        Some((domain, rest)) if !domain.is_empty() && !rest.is_empty() => {
            errors.invalid_all(&path, domain, names::dns1123_subdomain(domain));
        }
        _ => errors.invalid(&path, controller, "must be a domain-prefixed path (such as \"acme.io/foo\")"),
    }
    let Some(parameters) = at(o, "spec.parameters") else { return };
    let path = SPEC.child("parameters");
    check_typed(parameters, &path, errors);
    match (text(parameters, "scope"), said(parameters, "namespace")) {
        ("Namespace", Some(namespace)) => errors.invalid_all(&path.child("namespace"), namespace, names::dns1123_label(namespace)),
        ("Namespace", None) => errors.required(&path.child("namespace"), "`parameters.scope` is set to 'Namespace'"),
        ("Cluster", Some(_)) => errors.forbidden(&path.child("namespace"), "`parameters.scope` is set to 'Cluster'"),
        ("Cluster", None) => {}
        (other, _) => errors.not_supported(&path.child("scope"), other, &["Cluster", "Namespace"]),
    }
}

/// A reference to an object of any kind.
fn check_typed(reference: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    if let Some(group) = said(reference, "apiGroup") {
        errors.invalid_all(&path.child("apiGroup"), group, names::dns1123_subdomain(group));
    }
    for field in ["kind", "name"] {
        match text(reference, field) {
            "" => errors.required(&path.child(field), ""),
            value => errors.invalid_all(&path.child(field), value, names::path_segment(value, false)),
        }
    }
}

const CLASS_COLUMNS: &[Column] = &[NAME, column("Controller"), column("Parameters"), AGE];

fn class_cells(o: &Value, now: Timestamp) -> Vec<Value> {
    let default = object::annotations(o).any(|(k, v)| k == "ingressclass.kubernetes.io/is-default-class" && v == "true");
    let name = if default { format!("{} (default)", object::name(o)) } else { object::name(o).to_owned() };
    let parameters = at(o, "spec.parameters").map(|p| match text(p, "apiGroup") {
        "" => format!("{}/{}", text(p, "kind"), text(p, "name")),
        group => format!("{}.{group}/{}", text(p, "kind"), text(p, "name")),
    });
    vec![name.into(), text(o, "spec.controller").into(), parameters.unwrap_or_else(|| "<none>".into()).into(), age(o, now)]
}

fn check_address(o: &Value, errors: &mut ErrorList) {
    let Some(parent) = at(o, "spec.parentRef") else {
        errors.required(&SPEC.child("parentRef"), "");
        return;
    };
    let group = text(parent, "group");
    if !group.is_empty() {
        errors.invalid_all(&SPEC.child("parentRef.group"), group, names::dns1123_subdomain(group));
    }
    for field in ["resource", "name", "namespace"] {
        let (path, value) = (SPEC.child("parentRef"), text(parent, field));
        if !value.is_empty() {
            errors.invalid_all(&path.child(field), value, names::path_segment(value, false));
        } else if field != "namespace" {
            errors.required(&path.child(field), "");
        }
    }
}

const ADDRESS_COLUMNS: &[Column] = &[NAME, column("ParentRef")];

/// Without the cell for which upstream has no column.
fn address_cells(o: &Value, _: Timestamp) -> Vec<Value> {
    let parent = at(o, "spec.parentRef").map(|p| {
        let group = text(p, "group");
        let resource = if group.is_empty() { text(p, "resource").to_owned() } else { format!("{}.{group}", text(p, "resource")) };
        match text(p, "namespace") {
            "" => format!("{resource}/{}", text(p, "name")),
            namespace => format!("{resource}/{namespace}/{}", text(p, "name")),
        }
    });
    vec![object::name(o).into(), parent.unwrap_or_else(|| "<none>".into()).into()]
}

fn check_cidr(o: &Value, errors: &mut ErrorList) {
    let (cidrs, path) = (array(o, "spec.cidrs"), SPEC.child("cidrs"));
    if cidrs.is_empty() {
        errors.required(&path, "at least one CIDR required");
    }
    if cidrs.len() > 2 {
        errors.invalid(&path, o.get("spec").cloned().unwrap_or_default(), "may only hold up to 2 values");
    }
    for (i, cidr) in cidrs.iter().filter_map(Value::as_str).enumerate() {
        ip::validate_cidr(errors, &path.index(i), cidr);
    }
    if let [Value::String(first), Value::String(second)] = cidrs
        && ip::parse_cidr(first).is_some()
        && ip::parse_cidr(second).is_some()
        && first.contains(':') == second.contains(':')
    {
        let why = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
        errors.invalid(&path, cidrs.to_vec(), why);
    }
}

/// A second family may join; nothing else changes.
fn check_cidr_update(new: &Value, old: &Value, errors: &mut ErrorList) {
    let (after, before) = (array(new, "spec.cidrs"), array(old, "spec.cidrs"));
    let grown = before.len() == 1 && after.len() == 2;
    if grown {
        check_cidr(new, errors);
    }
    if after.len() != before.len() && !grown {
        errors.invalid(&SPEC.child("cidrs"), after.to_vec(), crate::meta::FIELD_IMMUTABLE);
        return;
    }
    for (i, (a, b)) in after.iter().zip(before).enumerate() {
        if a != b {
            errors.invalid(&SPEC.child("cidrs").index(i), a.clone(), crate::meta::FIELD_IMMUTABLE);
        }
    }
}

const CIDR_COLUMNS: &[Column] = &[NAME, column("CIDRs"), AGE];

fn cidr_cells(o: &Value, now: Timestamp) -> Vec<Value> {
    let cidrs: Vec<&str> = array(o, "spec.cidrs").iter().filter_map(Value::as_str).collect();
    vec![object::name(o).into(), cidrs.join(",").into(), age(o, now)]
}
