//! What the suites start from: the objects of `minimal.json`, canonical; and how answers are compared with upstream's.
#![allow(dead_code)] // each user takes what it needs

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use tiphys_kinds::{Ctx, Strategy, User, strategy};
use tiphys_meta::{ApiError, ErrorList, Gvr, object};
use tiphys_schema::codec::{Strictness, json::canonicalize};
use tiphys_schema::{Facts, Kind};
use tiphys_types::jiff::Timestamp;

static EXTRA: BTreeMap<String, Vec<String>> = BTreeMap::new();

pub(crate) fn ctx() -> Ctx<'static> {
    Ctx { now: now(), user: User { name: "alice", uid: "", groups: &[], extra: &EXTRA } }
}

pub(crate) fn now() -> Timestamp {
    "2024-01-01T00:10:00Z".parse().unwrap()
}

pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) gvr: Gvr,
    pub(crate) kind: &'static Kind,
    pub(crate) strategy: &'static Strategy,
    pub(crate) object: Value,
}

pub(crate) fn minimal() -> Map<String, Value> {
    serde_json::from_str(include_str!("../minimal.json")).unwrap()
}

/// The objects of `minimal.json`, canonical, with what the registry fills in before a create.
pub(crate) fn cases() -> Vec<Case> {
    minimal().into_iter().map(|(name, object)| case(name, object)).collect()
}

pub(crate) fn case(name: String, mut object: Value) -> Case {
    let parts: Vec<&str> = name.split('/').collect();
    let (group, version, resource) = match parts[..] {
        [version, resource] => ("", version, resource),
        [group, version, resource] => (group, version, resource),
        _ => panic!("{name}"),
    };
    let gvr = Gvr::new(group.to_owned(), version.to_owned(), resource.to_owned());
    let facts = Facts::builtin().resource(&gvr).unwrap_or_else(|| panic!("{name} is no resource"));
    let kind = Facts::builtin().kind(&facts.kind).unwrap();
    object["apiVersion"] = json!(facts.kind.api_version());
    object["kind"] = json!(facts.kind.kind);
    let meta = object::meta_mut(&mut object);
    meta.entry("name").or_insert(json!("x"));
    meta.insert("uid".into(), json!("11111111-2222-3333-4444-555555555555"));
    meta.insert("creationTimestamp".into(), json!("2024-01-01T00:00:00Z"));
    if facts.namespaced {
        meta.insert("namespace".into(), json!("default"));
    }
    let decoded = canonicalize(kind, object, Strictness::Strict).unwrap_or_else(|e| panic!("{name}: {e}"));
    assert_eq!(decoded.problems, Vec::<String>::new(), "{name}");
    let strategy = strategy(&gvr);
    Case { name, gvr, kind, strategy, object: decoded.object }
}

pub(crate) fn created(case: &Case) -> Value {
    let mut object = case.object.clone();
    case.strategy.default(&mut object);
    case.strategy.prepare_create(&mut object, &ctx());
    object
}

/// The text of the refusal; null where there is none.
pub(crate) fn message(case: &Case, object: &Value, errors: &ErrorList) -> Value {
    if errors.is_empty() {
        return Value::Null;
    }
    ApiError::invalid(&case.gvr.group, &case.kind.gvk.kind, object::name(object), errors).message.into()
}

/// Without identity, times, and what admission and allocators add.
pub(crate) fn without_what_the_server_fills(mut o: Value) -> Value {
    let meta = object::meta_mut(&mut o);
    for field in ["uid", "creationTimestamp", "resourceVersion"] {
        meta.remove(field);
    }
    let kind = o["kind"].as_str().unwrap_or("").to_owned();
    let drop = |o: &mut Value, part: &str, fields: &[&str]| {
        if let Some(map) = o.get_mut(part).and_then(Value::as_object_mut) {
            fields.iter().for_each(|f| drop_field(map, f));
        }
    };
    match kind.as_str() {
        "Pod" => drop(&mut o, "spec", &["priority", "preemptionPolicy", "tolerations"]),
        "Service" => drop(&mut o, "spec", &["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"]),
        "PersistentVolume" => drop(&mut o, "status", &["lastPhaseTransitionTime"]),
        "CertificateSigningRequest" => drop(&mut o, "spec", &["username", "uid", "groups", "extra"]),
        "Job" => {
            let uid = generated_uid(&o);
            return serde_json::from_str(&o.to_string().replace(&uid, "UID")).unwrap();
        }
        _ => {}
    }
    o
}

fn drop_field(map: &mut Map<String, Value>, field: &str) {
    map.remove(field);
}

fn generated_uid(job: &Value) -> String {
    job["spec"]["selector"]["matchLabels"]["batch.kubernetes.io/controller-uid"].as_str().unwrap_or("none").to_owned()
}

/// Values that are lists or structs print as Go's internal types upstream (`{"Name":…}`), and some messages end in a diff of them: neither is for
/// programs to read. The group of an events.k8s.io Event is missing there, since both groups share a strategy.
pub(crate) fn readable(message: &Value) -> String {
    let text = message
        .as_str()
        .unwrap_or("")
        .split('\n')
        .next()
        .unwrap_or("")
        .replace("Event.events.k8s.io ", "Event ")
        .replace("\"x2\"", "\"x\"");
    let mut out = String::new();
    let mut rest = text.as_str();
    while let Some(at) = rest.find(" value: {").or_else(|| rest.find(" value: [")) {
        let start = at + " value: ".len();
        out.push_str(&rest[..start]);
        let mut values = serde_json::Deserializer::from_str(&rest[start..]).into_iter::<Value>();
        let read = matches!(values.next(), Some(Ok(_)));
        let end = if read { values.byte_offset() } else { 1 };
        out.push('…');
        rest = &rest[start + end..];
    }
    out + rest
}
