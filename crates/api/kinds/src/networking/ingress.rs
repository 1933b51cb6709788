//! Ingress: HTTP from outside to Services.

use serde_json::Value;
use tiphys_meta::{ErrorList, Path, ip, names, object};
use tiphys_types::jiff::Timestamp;

use crate::core::service::lb::load_balancer;
use crate::strategy::{Column, Strategy, Subresource, keep_all_but_status};
use crate::table::{AGE, NAME, age, column};
use crate::tree::{array, at, int, text};
use crate::workloads::SPEC;

pub(super) static STRATEGY: Strategy = Strategy::new(true)
    .spec_generation()
    .status(r#"{"loadBalancer":{}}"#)
    .subresources(&[Subresource { name: "status", prepare_update: keep_all_but_status, validate_update: check_status }])
    .checks(check, |_, _, _| {})
    .warnings_by(warnings)
    .check_created(check_created)
    .table(COLUMNS, cells);

const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";

fn warnings(new: &Value, old: Option<&Value>) -> Vec<String> {
    const CLASS: &str = "kubernetes.io/ingress.class";
    let annotated = object::annotations(new).any(|(key, _)| key == CLASS);
    if old.is_some() || !annotated || at(new, "spec.ingressClassName").is_some() {
        return Vec::new();
    }
    vec![format!("annotation \"{CLASS}\" is deprecated, please use 'spec.ingressClassName' instead")]
}

fn check_created(o: &Value, errors: &mut ErrorList) {
    let annotated = object::annotations(o).find(|(k, _)| *k == CLASS_ANNOTATION).map(|(_, v)| v);
    let class = at(o, "spec.ingressClassName").and_then(Value::as_str);
    if let (Some(annotated), Some(class)) = (annotated, class)
        && annotated != class
    {
        let annotations = Path::new("annotations");
        errors.invalid(&annotations.child(CLASS_ANNOTATION), annotated, "must match `ingressClassName` when both are specified");
    }
}

fn check(o: &Value, errors: &mut ErrorList) {
    let rules = array(o, "spec.rules");
    let backend = at(o, "spec.defaultBackend");
    if rules.is_empty() && backend.is_none() {
        errors.invalid(&SPEC, rules.to_vec(), "either `defaultBackend` or `rules` must be specified");
    }
    if let Some(backend) = backend {
        check_backend(backend, &SPEC.child("defaultBackend"), errors);
    }
    for (i, rule) in rules.iter().enumerate() {
        check_rule(rule, &SPEC.child("rules").index(i), errors);
    }
    for (i, tls) in array(o, "spec.tls").iter().enumerate() {
        let list = SPEC.child("tls");
        let path = list.index(i);
        for (j, host) in array(tls, "hosts").iter().filter_map(Value::as_str).enumerate() {
            errors.invalid_all(&path.child("hosts").index(j), host, host_messages(host));
        }
        let secret = text(tls, "secretName");
        if !secret.is_empty() {
            errors.invalid_all(&path.child("secretName"), secret, names::dns1123_subdomain(secret));
        }
    }
    if let Some(class) = at(o, "spec.ingressClassName").and_then(Value::as_str) {
        errors.invalid_all(&SPEC.child("ingressClassName"), class, names::dns1123_subdomain(class));
    }
}

fn host_messages(host: &str) -> Vec<String> {
    if host.contains('*') { names::wildcard_dns1123_subdomain(host) } else { names::dns1123_subdomain(host) }
}

fn check_rule(rule: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let host = text(rule, "host");
    if !host.is_empty() {
        if ip::parse(host).is_some() {
            errors.invalid(&path.child("host"), host, "must be a DNS name, not an IP address");
        }
        errors.invalid_all(&path.child("host"), host, host_messages(host));
    }
    let Some(http) = at(rule, "http") else { return };
    let (paths, list) = (array(http, "paths"), path.child("http.paths"));
    if paths.is_empty() {
        errors.required(&list, "");
    }
    for (i, item) in paths.iter().enumerate() {
        check_path(item, &list.index(i), errors);
    }
}

fn check_path(item: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let (value, field) = (text(item, "path"), path.child("path"));
    match text(item, "pathType") {
        "Exact" | "Prefix" => {
            if !value.starts_with('/') {
                errors.invalid(&field, value, "must be an absolute path");
            }
            for bad in ["//", "/./", "/../", "%2f", "%2F"] {
                if value.contains(bad) {
                    errors.invalid(&field, value, format!("must not contain '{bad}'"));
                }
            }
            for bad in ["/..", "/."] {
                if value.ends_with(bad) {
                    errors.invalid(&field, value, format!("cannot end with '{bad}'"));
                }
            }
        }
        "ImplementationSpecific" => {
            if !value.is_empty() && !value.starts_with('/') {
                errors.invalid(&field, value, "must be an absolute path");
            }
        }
        "" if at(item, "pathType").is_none() => {
            errors.required(&path.child("pathType"), "pathType must be specified");
            return;
        }
        other => errors.not_supported(&path.child("pathType"), other, &["Exact", "ImplementationSpecific", "Prefix"]),
    }
    check_backend(at(item, "backend").unwrap_or(&Value::Null), &path.child("backend"), errors);
}

fn check_backend(backend: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let (resource, service) = (at(backend, "resource"), at(backend, "service"));
    match (resource, service) {
        (Some(_), Some(_)) => errors.invalid(path, "", "cannot set both resource and service backends"),
        (None, None) => errors.invalid(path, "", "resource or service backend is required"),
        (Some(resource), None) => super::check_typed(resource, &path.child("resource"), errors),
        (None, Some(service)) => check_service(service, path, errors),
    }
}

fn check_service(service: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let name = text(service, "name");
    let name_path = path.child("service.name");
    if name.is_empty() {
        errors.required(&name_path, "");
    } else {
        errors.invalid_all(&name_path, name, names::dns1123_label(name));
    }
    let (port, number) = (text(service, "port.name"), int(service, "port.number"));
    match (port.is_empty(), number) {
        (false, 0) => errors.invalid_all(&path.child("service.port.name"), port, names::port_name(port)),
        (false, _) => errors.invalid(path, "", "cannot set both port name & port number"),
        (true, 0) => errors.required(path, "port name or number is required"),
        (true, number) => {
            for message in names::port_number(number) {
                errors.invalid(&path.child("service.port.number"), number, message);
            }
        }
    }
}

fn check_status(new: &Value, _: &Value, errors: &mut ErrorList) {
    let list = Path::new("status.loadBalancer.ingress");
    for (i, entry) in array(new, "status.loadBalancer.ingress").iter().enumerate() {
        let (path, address, host) = (list.index(i), text(entry, "ip"), text(entry, "hostname"));
        if !address.is_empty() {
            ip::validate(errors, &path.child("ip"), address);
        }
        if !host.is_empty() {
            errors.invalid_all(&path.child("hostname"), host, names::dns1123_subdomain(host));
            if ip::parse(host).is_some() {
                errors.invalid(&path.child("hostname"), host, "must be a DNS name, not an IP address");
            }
        }
    }
}

const COLUMNS: &[Column] = &[NAME, column("Class"), column("Hosts"), column("Address"), column("Ports"), AGE];

fn cells(o: &Value, now: Timestamp) -> Vec<Value> {
    let class = at(o, "spec.ingressClassName").and_then(Value::as_str).unwrap_or("<none>");
    let ports = if array(o, "spec.tls").is_empty() { "80" } else { "80, 443" };
    vec![
        object::name(o).into(),
        class.into(),
        hosts(array(o, "spec.rules")).into(),
        load_balancer(at(o, "status.loadBalancer")).join(",").into(),
        ports.into(),
        age(o, now),
    ]
}

fn hosts(rules: &[Value]) -> String {
    let named: Vec<&str> = rules.iter().map(|r| text(r, "host")).filter(|h| !h.is_empty()).collect();
    if named.is_empty() {
        return "*".into();
    }
    let shown = named[..named.len().min(3)].join(",");
    if rules.len() > 3 && named.len() >= 3 { format!("{shown} + {} more...", rules.len() - 3) } else { shown }
}
