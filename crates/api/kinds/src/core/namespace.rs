//! Namespace: the scope of names. The `kubernetes` finalizer in its spec is taken off by the namespace controller when nothing is left in it
//! (subresource `finalize`); so deletion is in two steps, and the phase tells which.

use serde_json::{Value, json};
use tiphys_meta::{ErrorList, Path, names, object};
use tiphys_types::jiff::Timestamp;

use crate::strategy::{Column, Ctx, Strategy, Subresource, copy_field, keep_all_but_status, nothing_on_update};
use crate::table::{AGE, NAME, age, column};
use crate::tree::{at, child, set_default, text};

pub(crate) static STRATEGY: Strategy = Strategy::new(false)
    .name(names::name_is_dns_label)
    .status(r#"{"phase":"Active"}"#)
    .defaults(defaults)
    .on_create(on_create)
    .on_update(on_update)
    .subresources(&[
        Subresource { name: "status", prepare_update: keep_all_but_status, validate_update: check_status },
        Subresource { name: "finalize", prepare_update: finalize, validate_update: nothing_on_update },
    ])
    .checks(check, |_, _, _| {})
    .selectable(NAMES, selectable_fields)
    .table(COLUMNS, cells);

const COLUMNS: &[Column] = &[NAME, column("Status"), AGE];

const NAMES: &[&str] = &["metadata.name", "status.phase", "name"];

fn selectable_fields(o: &Value) -> crate::fields::Fields<'_> {
    let mut all = crate::fields::read(o, &[("metadata.name", ""), ("status.phase", "")]);
    all.push(("name", object::name(o).into()));
    all
}

fn defaults(o: &mut Value) {
    let name = object::name(o).to_owned();
    if !name.is_empty() {
        let labels = object::meta_mut(o).entry("labels").or_insert(Value::Null);
        object::as_map(labels).insert("kubernetes.io/metadata.name".into(), json!(name));
    }
    set_default(child(o, "status"), "phase", "Active");
}

fn on_create(o: &mut Value, _: &Ctx<'_>) {
    let spec = child(o, "spec");
    let finalizers = object::as_map(spec).entry("finalizers").or_insert(Value::Null);
    if !finalizers.is_array() {
        *finalizers = json!([]);
    }
    if let Some(list) = finalizers.as_array_mut()
        && !list.iter().any(|f| f == "kubernetes")
    {
        list.push(json!("kubernetes"));
    }
}

fn on_update(new: &mut Value, old: &Value, _: &Ctx<'_>) {
    let finalizers = at(old, "spec.finalizers").cloned();
    let spec = object::as_map(child(new, "spec"));
    match finalizers {
        Some(finalizers) => spec.insert("finalizers".into(), finalizers),
        None => spec.remove("finalizers"),
    };
}

fn finalize(new: &mut Value, old: &Value, _: &Ctx<'_>) {
    copy_field(new, old, "status");
}

fn check(o: &Value, errors: &mut ErrorList) {
    let path = Path::new("spec.finalizers");
    for finalizer in crate::tree::array(o, "spec.finalizers").iter().filter_map(Value::as_str) {
        errors.invalid_all(&path, finalizer, names::qualified_name(finalizer));
        if finalizer != "kubernetes" && !finalizer.contains('/') {
            errors.invalid(&path, finalizer, "name is neither a standard finalizer name nor is it fully qualified");
        }
    }
}

fn check_status(new: &Value, _: &Value, errors: &mut ErrorList) {
    let path = Path::new("status.Phase");
    let phase = text(new, "status.phase");
    match object::deletion_timestamp(new) {
        None if phase != "Active" => errors.invalid(&path, phase, "may only be 'Active' if `deletionTimestamp` is empty"),
        Some(_) if phase != "Terminating" => errors.invalid(&path, phase, "may only be 'Terminating' if `deletionTimestamp` is not empty"),
        _ => {}
    }
}

fn cells(o: &Value, now: Timestamp) -> Vec<Value> {
    vec![object::name(o).into(), text(o, "status.phase").into(), age(o, now)]
}
