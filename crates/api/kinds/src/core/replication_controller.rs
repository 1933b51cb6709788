//! ReplicationController: the older ReplicaSet, with a plain map as selector.

use serde_json::{Value, json};
use tiphys_meta::{ErrorList, Path, object};
use tiphys_types::jiff::Timestamp;

use super::pod;
use crate::fields::selectable;
use crate::strategy::{Column, Strategy};
use crate::table::{AGE, NAME, age, containers, integer, labels, wide};
use crate::tree::{at, child, int, map_at, set_absent};
use crate::workloads;

pub(crate) static STRATEGY: Strategy = Strategy::new(true)
    .spec_generation()
    .status(r#"{"replicas":0}"#)
    .defaults(defaults)
    .checks(check, |_, _, _| {})
    .warnings_by(workloads::warnings)
    .selectable(select::NAMES, select::of)
    .table(COLUMNS, cells);

mod select {
    super::selectable!("metadata.name" = "", "metadata.namespace" = "", "status.replicas" = "0");
}

fn defaults(o: &mut Value) {
    let labels = map_at(o, "spec.template.metadata.labels").filter(|l| !l.is_empty()).cloned();
    if let Some(labels) = labels {
        if map_at(o, "spec.selector").is_none_or(serde_json::Map::is_empty) {
            child(o, "spec")["selector"] = Value::Object(labels.clone());
        }
        if map_at(o, "metadata.labels").is_none_or(serde_json::Map::is_empty) {
            object::meta_mut(o).insert("labels".into(), Value::Object(labels));
        }
    }
    set_absent(child(o, "spec"), "replicas", 1);
    pod::defaults::template_of(o);
}

fn check(o: &Value, errors: &mut ErrorList) {
    let spec = Path::new("spec");
    workloads::not_negative(o, "spec.minReadySeconds", &spec.child("minReadySeconds"), errors);
    let selector = map_at(o, "spec.selector").filter(|s| !s.is_empty());
    if selector.is_none() {
        errors.required(&spec.child("selector"), "");
    }
    workloads::not_negative(o, "spec.replicas", &spec.child("replicas"), errors);
    let template_path = spec.child("template");
    let Some(template) = at(o, "spec.template") else {
        errors.required(&template_path, "");
        return;
    };
    let labels = map_at(template, "metadata.labels");
    if selector.is_some_and(|s| !s.iter().all(|(k, v)| labels.and_then(|l| l.get(k)) == Some(v))) {
        let shown = labels.cloned().map_or(Value::Null, Value::Object);
        errors.invalid(&template_path.child("metadata.labels"), shown, "`selector` does not match template `labels`");
    }
    pod::validation::template(template, &template_path, errors);
    workloads::always_restarts(template, &template_path, errors);
}

const COLUMNS: &[Column] =
    &[NAME, integer("Desired"), integer("Current"), integer("Ready"), AGE, wide("Containers"), wide("Images"), wide("Selector")];

fn cells(o: &Value, now: Timestamp) -> Vec<Value> {
    let [names, images] = containers(at(o, "spec.template.spec"));
    vec![
        object::name(o).into(),
        json!(int(o, "spec.replicas")),
        json!(int(o, "status.replicas")),
        json!(int(o, "status.readyReplicas")),
        age(o, now),
        names,
        images,
        labels(at(o, "spec.selector")).into(),
    ]
}
