//! What both suites start from: the objects of `minimal.json`, canonical.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use tiphys_kinds::{Ctx, Strategy, User, strategy};
use tiphys_meta::{Gvr, object};
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
