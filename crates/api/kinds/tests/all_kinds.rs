//! One suite over all kinds, without their authors: a minimal object of each, through defaults, create, validation, update and its table.
//!
//! `tests/tables.txt` is golden: `TIPHYS_UPDATE_GOLDEN=1 cargo test -p tiphys-kinds` writes it anew.

mod shared;

use std::fmt::Write;

use serde_json::json;
use shared::{cases, created, ctx, now};
use tiphys_kinds::strategy;
use tiphys_meta::object;
use tiphys_schema::Facts;
use tiphys_schema::codec::{Strictness, json::canonicalize};

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
