//! `flowcontrol.apiserver.k8s.io`: who waits for whom at the API server.

use serde_json::{Value, json};
use tiphys_meta::{ErrorList, Path, names, object};
use tiphys_types::jiff::Timestamp;

use crate::resources::Entry;
use crate::strategy::{BARE_STATUS, Column, Strategy};
use crate::table::{AGE, NAME, age, column};
use crate::tree::{array, at, child, int, is_true, present, set_absent, set_nonzero, text};
use crate::workloads::SPEC;

const PRECEDENCE_MAX: i64 = 10_000;

const SHARED: Strategy = Strategy::new(false).spec_generation().status("{}").status_alone(BARE_STATUS);

static SCHEMA: Strategy = SHARED.defaults(schema_defaults).checks(check_schema, |_, _, _| {}).table(SCHEMA_COLUMNS, schema_cells);
static LEVEL: Strategy = SHARED.defaults(level_defaults).checks(check_level, |_, _, _| {}).table(LEVEL_COLUMNS, level_cells);

pub(crate) const RESOURCES: &[Entry] = &[Entry::new("flowschemas", &SCHEMA), Entry::new("prioritylevelconfigurations", &LEVEL)];

fn schema_defaults(o: &mut Value) {
    set_nonzero(child(o, "spec"), "matchingPrecedence", 1000);
}

fn level_defaults(o: &mut Value) {
    let spec = child(o, "spec");
    if let Some(exempt) = present(spec, "exempt") {
        set_absent(exempt, "nominalConcurrencyShares", 0);
        set_absent(exempt, "lendablePercent", 0);
    }
    let Some(limited) = present(spec, "limited") else { return };
    set_absent(limited, "nominalConcurrencyShares", 30);
    set_absent(limited, "lendablePercent", 0);
    if let Some(queuing) = present(limited, "limitResponse").and_then(|r| present(r, "queuing")) {
        for (field, default) in [("handSize", 8), ("queues", 64), ("queueLengthLimit", 50)] {
            set_nonzero(queuing, field, default);
        }
    }
}

fn check_schema(o: &Value, errors: &mut ErrorList) {
    let (path, precedence) = (SPEC.child("matchingPrecedence"), int(o, "spec.matchingPrecedence"));
    if precedence <= 0 {
        errors.invalid(&path, precedence, "must be a positive value");
    }
    if precedence > PRECEDENCE_MAX {
        errors.invalid(&path, precedence, format!("must not be greater than {PRECEDENCE_MAX}"));
    }
    if precedence == 1 && object::name(o) != "exempt" {
        errors.invalid(&path, precedence, "only the schema named 'exempt' may have matchingPrecedence 1");
    }
    let level = SPEC.child("priorityLevelConfiguration.name");
    match text(o, "spec.priorityLevelConfiguration.name") {
        "" => errors.required(&level, "must reference a priority level"),
        name => errors.invalid_all(&level, name, names::dns1123_subdomain(name)),
    }
    if let Some(method) = at(o, "spec.distinguisherMethod")
        && !matches!(text(method, "type"), "ByNamespace" | "ByUser")
    {
        errors.not_supported(&SPEC.child("distinguisherMethod.type"), method.clone(), &["ByNamespace", "ByUser"]);
    }
    for (i, rule) in array(o, "spec.rules").iter().enumerate() {
        let list = SPEC.child("rules");
        check_rule(rule, &list.index(i), errors);
    }
}

/// Who, and of what.
fn check_rule(rule: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let (subjects, resources, urls) = (array(rule, "subjects"), array(rule, "resourceRules"), array(rule, "nonResourceRules"));
    if subjects.is_empty() {
        errors.required(&path.child("subjects"), "subjects must contain at least one value");
    }
    for (i, subject) in subjects.iter().enumerate() {
        check_subject(subject, &path.child("subjects").index(i), errors);
    }
    if resources.is_empty() && urls.is_empty() {
        errors.required(path, "at least one of resourceRules and nonResourceRules has to be non-empty");
    }
    for (i, rule) in resources.iter().enumerate() {
        check_resource_rule(rule, &path.child("resourceRules").index(i), errors);
    }
    for (i, rule) in urls.iter().enumerate() {
        check_url_rule(rule, &path.child("nonResourceRules").index(i), errors);
    }
}

/// Each kind of subject and its field.
const SUBJECTS: [(&str, &str); 3] = [("Group", "group"), ("ServiceAccount", "serviceAccount"), ("User", "user")];

fn check_subject(subject: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let kind = text(subject, "kind");
    let Some((_, field)) = SUBJECTS.iter().find(|(k, _)| *k == kind) else {
        return errors.not_supported(&path.child("kind"), kind, &SUBJECTS.map(|(k, _)| k));
    };
    let at_field = path.child(field);
    match at(subject, field) {
        None => errors.required(&at_field, format!("{field} is required when subject kind is '{kind}'")),
        Some(named) => {
            let name = text(named, "name");
            if name.is_empty() {
                errors.required(&at_field.child("name"), "");
            } else if *field == "serviceAccount" && name != "*" {
                errors.invalid_all(&at_field.child("name"), name, names::dns1123_subdomain(name));
            }
            if *field == "serviceAccount" {
                match text(named, "namespace") {
                    "" => errors.required(&at_field.child("namespace"), "must specify namespace for service account"),
                    ns => errors.invalid_all(&at_field.child("namespace"), ns, names::dns1123_label(ns)),
                }
            }
        }
    }
    for (kind, other) in SUBJECTS.iter().filter(|(k, f)| *k != kind && at(subject, f).is_some()) {
        errors.forbidden(&path.child(other), format!("{other} is forbidden when subject kind is not '{kind}'"));
    }
}

const VERBS: [&str; 9] = ["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];

fn has_wildcard(list: &[Value]) -> bool {
    list.iter().any(|v| v == "*")
}

fn check_verbs(rule: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let (verbs, path) = (array(rule, "verbs"), path.child("verbs"));
    if verbs.is_empty() {
        errors.required(&path, "verbs must contain at least one value");
    } else if has_wildcard(verbs) {
        if verbs.len() > 1 {
            errors.invalid(&path, verbs.to_vec(), "if '*' is present, must not specify other verbs");
        }
    } else if !verbs.iter().all(|v| v.as_str().is_some_and(|v| VERBS.contains(&v))) {
        errors.not_supported(&path, verbs.to_vec(), &VERBS);
    }
}

fn check_resource_rule(rule: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    check_verbs(rule, path, errors);
    for (field, one, many) in [("apiGroups", "api group", "api groups"), ("resources", "resource", "resources")] {
        let (list, path) = (array(rule, field), path.child(field));
        if list.is_empty() {
            errors.required(&path, format!("resource rules must supply at least one {one}"));
        } else if list.len() > 1 && has_wildcard(list) {
            errors.invalid(&path, list.to_vec(), format!("if '*' is present, must not specify other {many}"));
        }
    }
    let (namespaces, path) = (array(rule, "namespaces"), path.child("namespaces"));
    if namespaces.is_empty() && !is_true(rule, "clusterScope") {
        errors.required(&path, "resource rules that are not cluster scoped must supply at least one namespace");
    } else if has_wildcard(namespaces) {
        if namespaces.len() > 1 {
            errors.invalid(&path, namespaces.to_vec(), "if '*' is present, must not specify other namespaces");
        }
    } else {
        for (i, ns) in namespaces.iter().filter_map(Value::as_str).enumerate() {
            for why in names::dns1123_label(ns) {
                errors.invalid(&path.index(i), ns, format!("each member of this list must be '*' or a DNS-1123 label; {why}"));
            }
        }
    }
}

fn check_url_rule(rule: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    check_verbs(rule, path, errors);
    let (urls, path) = (array(rule, "nonResourceURLs"), path.child("nonResourceURLs"));
    if urls.is_empty() {
        errors.required(&path, "nonResourceURLs must contain at least one value");
    } else if has_wildcard(urls) {
        if urls.len() > 1 {
            errors.invalid(&path, urls.to_vec(), "if '*' is present, must not specify other non-resource URLs");
        }
    } else {
        for (i, url) in urls.iter().filter_map(Value::as_str).enumerate() {
            if let Some(why) = wrong_url(url) {
                errors.invalid(&path.index(i), url, why);
            }
        }
    }
}

fn wrong_url(url: &str) -> Option<&'static str> {
    let wildcards = url.matches('*').count();
    match url {
        "" => Some("must not be empty"),
        "/" => None,
        _ if !url.starts_with('/') => Some("must start with slash"),
        _ if url.contains(' ') => Some("must not contain white-space"),
        _ if url.contains("//") => Some("must not contain double slash"),
        _ if wildcards > 1 || wildcards == 1 && !url.ends_with("/*") => Some("wildcard can only do suffix matching"),
        _ => None,
    }
}

fn check_level(o: &Value, errors: &mut ErrorList) {
    let (kind, path) = (text(o, "spec.type"), SPEC.child("type"));
    if (object::name(o) == "exempt") != (kind == "Exempt") {
        errors.invalid(&path, kind, "must be 'Exempt' if and only if `name` is 'exempt'");
    }
    match (kind, at(o, "spec.limited")) {
        ("Exempt", Some(_)) => errors.forbidden(&SPEC.child("limited"), "must be nil if the type is not Limited"),
        ("Exempt", None) => check_exempt(at(o, "spec.exempt"), &SPEC.child("exempt"), errors),
        ("Limited", limited) => {
            if at(o, "spec.exempt").is_some() {
                errors.forbidden(&SPEC.child("exempt"), "must be nil if the type is Limited");
            }
            match limited {
                None => errors.required(&SPEC.child("limited"), "must not be empty when type is Limited"),
                Some(limited) => check_limited(limited, &SPEC.child("limited"), errors),
            }
        }
        ("", _) => errors.required(&path, ""),
        (other, _) => errors.not_supported(&path, other, &["Exempt", "Limited"]),
    }
}

fn check_limited(limited: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let shares = int(limited, "nominalConcurrencyShares");
    if shares < 0 {
        errors.invalid(&path.child("nominalConcurrencyShares"), shares, "must be a non-negative integer");
    }
    let (response, queuing) = (path.child("limitResponse"), at(limited, "limitResponse.queuing"));
    match text(limited, "limitResponse.type") {
        "Reject" if queuing.is_some() => {
            errors.forbidden(&response.child("queuing"), "must be nil if limited.limitResponse.type is not Limited");
        }
        "Queue" if queuing.is_none() => {
            errors.required(&response.child("queuing"), "must not be empty if limited.limitResponse.type is Limited");
        }
        "Reject" => {}
        "Queue" => check_queuing(queuing.unwrap_or(&Value::Null), &response.child("queuing"), errors),
        "" => errors.required(&response.child("type"), ""),
        other => errors.not_supported(&response.child("type"), other, &["Queue", "Reject"]),
    }
    let lendable = int(limited, "lendablePercent");
    if !(0..=100).contains(&lendable) {
        errors.invalid(&path.child("lendablePercent"), lendable, "must be between 0 and 100, inclusive");
    }
    let borrowing = int(limited, "borrowingLimitPercent");
    if borrowing < 0 {
        errors.invalid(&path.child("borrowingLimitPercent"), borrowing, "if specified, must be a non-negative integer");
    }
}

fn check_exempt(exempt: Option<&Value>, path: &Path<'_>, errors: &mut ErrorList) {
    let Some(exempt) = exempt else { return };
    let (shares, lendable) = (int(exempt, "nominalConcurrencyShares"), int(exempt, "lendablePercent"));
    if shares < 0 {
        errors.invalid(&path.child("nominalConcurrencyShares"), shares, "must be a non-negative integer");
    }
    if !(0..=100).contains(&lendable) {
        errors.invalid(&path.child("lendablePercent"), lendable, "must be between 0 and 100, inclusive");
    }
}

const MAX_QUEUES: i64 = 10_000_000;
/// A request's hash is dealt out to hands; it has so many bits.
const HASH_BITS: f64 = 60.0;

fn check_queuing(queuing: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let (length, queues, hand) = (int(queuing, "queueLengthLimit"), int(queuing, "queues"), int(queuing, "handSize"));
    if length <= 0 {
        errors.invalid(&path.child("queueLengthLimit"), length, "must be positive");
    }
    if queues <= 0 {
        errors.invalid(&path.child("queues"), queues, "must be positive");
    } else if queues > MAX_QUEUES {
        errors.invalid(&path.child("queues"), queues, format!("must not be greater than {MAX_QUEUES}"));
    }
    let path = path.child("handSize");
    if hand <= 0 {
        errors.invalid(&path, hand, "must be positive");
    } else if hand > queues {
        errors.invalid(&path, hand, format!("should not be greater than queues ({queues})"));
    } else if ((queues as f64).log2() * hand as f64).ceil() > HASH_BITS {
        let why = format!("required entropy bits of deckSize {queues} and handSize {hand} should not be greater than {HASH_BITS}");
        errors.invalid(&path, hand, why);
    }
}

const SCHEMA_COLUMNS: &[Column] =
    &[NAME, column("PriorityLevel"), column("MatchingPrecedence"), column("DistinguisherMethod"), AGE, column("MissingPL")];

fn schema_cells(o: &Value, now: Timestamp) -> Vec<Value> {
    let method = text(o, "spec.distinguisherMethod.type");
    let dangling = array(o, "status.conditions").iter().find(|c| text(c, "type") == "Dangling");
    vec![
        object::name(o).into(),
        text(o, "spec.priorityLevelConfiguration.name").into(),
        json!(int(o, "spec.matchingPrecedence")),
        if method.is_empty() { "<none>" } else { method }.into(),
        age(o, now),
        dangling.map_or("?", |c| text(c, "status")).into(),
    ]
}

const LEVEL_COLUMNS: &[Column] =
    &[NAME, column("Type"), column("NominalConcurrencyShares"), column("Queues"), column("HandSize"), column("QueueLengthLimit"), AGE];

fn level_cells(o: &Value, now: Timestamp) -> Vec<Value> {
    let shares = at(o, "spec.limited.nominalConcurrencyShares").or_else(|| at(o, "spec.exempt.nominalConcurrencyShares"));
    let queuing = |field: &str| at(o, "spec.limited.limitResponse.queuing").and_then(|q| at(q, field)).cloned().unwrap_or(json!("<none>"));
    vec![
        object::name(o).into(),
        text(o, "spec.type").into(),
        shares.cloned().unwrap_or(json!("<none>")),
        queuing("queues"),
        queuing("handSize"),
        queuing("queueLengthLimit"),
        age(o, now),
    ]
}
