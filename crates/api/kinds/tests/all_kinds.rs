//! One suite over all kinds, without their authors: a minimal object of each, through defaults, create, validation, update and its table.
//!
//! `tests/tables.txt` is golden: `TIPHYS_UPDATE_GOLDEN=1 cargo test -p tiphys-kinds` writes it anew.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::{Map, Value, json};
use tiphys_kinds::{Ctx, Strategy, User, strategy};
use tiphys_meta::{Gvr, object};
use tiphys_schema::codec::{Strictness, json::canonicalize};
use tiphys_schema::{Facts, Kind};
use tiphys_types::jiff::Timestamp;

static EXTRA: BTreeMap<String, Vec<String>> = BTreeMap::new();

fn ctx() -> Ctx<'static> {
    Ctx { now: now(), user: User { name: "alice", uid: "", groups: &[], extra: &EXTRA } }
}

fn now() -> Timestamp {
    "2024-01-01T00:10:00Z".parse().unwrap()
}

struct Case {
    name: String,
    gvr: Gvr,
    kind: &'static Kind,
    strategy: &'static Strategy,
    object: Value,
}

/// The objects of `minimal.json`, canonical, with what the registry fills in before a create.
fn cases() -> Vec<Case> {
    let all: Map<String, Value> = serde_json::from_str(include_str!("minimal.json")).unwrap();
    all.into_iter().map(|(name, object)| case(name, object)).collect()
}

fn case(name: String, mut object: Value) -> Case {
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

fn created(case: &Case) -> Value {
    let mut object = case.object.clone();
    case.strategy.default(&mut object);
    case.strategy.prepare_create(&mut object, &ctx());
    object
}

#[test]
fn every_stored_resource_has_its_scope_and_most_have_a_case() {
    let names: Vec<String> = cases().into_iter().map(|c| c.gvr.group_resource()).collect();
    let mut missing = Vec::new();
    for resource in Facts::builtin().resources().filter(|r| r.verbs.contains(&"create") && r.verbs.contains(&"watch")) {
        assert_eq!(strategy(&resource.gvr).namespaced, resource.namespaced, "{}", resource.gvr);
        let name = resource.gvr.group_resource();
        if !names.contains(&name) && !missing.contains(&name) {
            missing.push(name);
        }
    }
    missing.sort();
    // This list only shrinks.
    let known = [
        "clustertrustbundles.certificates.k8s.io",
        "devicetaintrules.resource.k8s.io",
        "leasecandidates.coordination.k8s.io",
        "mutatingadmissionpolicies.admissionregistration.k8s.io",
        "mutatingadmissionpolicybindings.admissionregistration.k8s.io",
        "podcertificaterequests.certificates.k8s.io",
        "podgroups.scheduling.k8s.io",
        "resourcepoolstatusrequests.resource.k8s.io",
        "storageversionmigrations.storagemigration.k8s.io",
        "storageversions.internal.apiserver.k8s.io",
        "workloads.scheduling.k8s.io",
    ];
    let unknown: Vec<&String> = missing.iter().filter(|m| !known.contains(&m.as_str())).collect();
    assert!(unknown.is_empty(), "no case in minimal.json: {unknown:?}");
}

#[test]
fn defaults_are_idempotent() {
    for case in cases() {
        let mut once = case.object.clone();
        case.strategy.default(&mut once);
        let mut twice = once.clone();
        case.strategy.default(&mut twice);
        assert_eq!(once, twice, "{}", case.name);
    }
}

#[test]
fn a_created_object_is_valid() {
    for case in cases() {
        let errors = case.strategy.validate_create(&created(&case));
        assert!(errors.is_empty(), "{}: {}", case.name, errors.message());
    }
}

#[test]
fn a_created_object_is_canonical() {
    for case in cases() {
        let object = created(&case);
        let again = canonicalize(case.kind, object.clone(), Strictness::Strict).unwrap().object;
        assert_eq!(object, again, "{}", case.name);
    }
}

#[test]
fn an_update_without_a_change_changes_nothing() {
    for case in cases() {
        let mut old = created(&case);
        object::meta_mut(&mut old).insert("resourceVersion".into(), json!("1"));
        let mut new = old.clone();
        case.strategy.default(&mut new);
        case.strategy.prepare_update(&mut new, &old, &ctx());
        assert_eq!(new, old, "{}", case.name);
        let errors = case.strategy.validate_update(&new, &old);
        assert!(errors.is_empty(), "{}: {}", case.name, errors.message());
    }
}

#[test]
fn status_and_generation_are_the_servers() {
    for case in cases() {
        let old = created(&case);
        let mut new = old.clone();
        if case.strategy.initial_status.is_some() {
            new["status"] = json!({"forged": true});
        }
        object::meta_mut(&mut new).insert("generation".into(), json!(77));
        case.strategy.prepare_update(&mut new, &old, &ctx());
        assert_eq!(new.get("status"), old.get("status"), "{}", case.name);
        assert_eq!(new["metadata"].get("generation"), old["metadata"].get("generation"), "{}", case.name);
    }
}

#[test]
fn a_status_update_keeps_the_spec() {
    for case in cases() {
        let Some(status) = case.strategy.status_strategy() else { continue };
        let mut old = created(&case);
        object::meta_mut(&mut old).insert("resourceVersion".into(), json!("1"));
        let mut new = old.clone();
        new["spec"] = json!({"forged": true});
        status.update(&mut new, &old, &ctx());
        assert_eq!(new.get("spec"), old.get("spec"), "{}", case.name);
        let errors = status.validate(&new, &old);
        assert!(errors.is_empty(), "{}: {}", case.name, errors.message());
    }
}

#[test]
fn selectable_fields_have_the_names_they_say() {
    for case in cases() {
        let object = created(&case);
        let mut found: Vec<&str> = case.strategy.selectable_fields(&object).into_iter().map(|(name, _)| name).collect();
        let mut said = case.strategy.selectable_field_names.to_vec();
        found.sort_unstable();
        said.sort_unstable();
        assert_eq!(found, said, "{}", case.name);
    }
}

#[test]
fn tables_are_golden() {
    let mut text = String::new();
    for case in cases() {
        let (columns, row) = (case.strategy.columns, case.strategy.row(&created(&case), now()));
        assert_eq!(columns.len(), row.len(), "{}", case.name);
        let cells =
            columns.iter().zip(&row).map(|(column, cell)| format!("{}{}={cell}", column.name, if column.priority > 0 { "*" } else { "" }));
        writeln!(text, "{}\n  {}", case.name, cells.collect::<Vec<_>>().join(" | ")).unwrap();
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tables.txt");
    if std::env::var_os("TIPHYS_UPDATE_GOLDEN").is_some() {
        std::fs::write(path, &text).unwrap();
    }
    assert_eq!(std::fs::read_to_string(path).unwrap_or_default(), text, "TIPHYS_UPDATE_GOLDEN=1 writes it anew");
}
