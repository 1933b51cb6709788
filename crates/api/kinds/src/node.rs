//! `node.k8s.io`: RuntimeClass, another way to run containers.

use serde_json::Value;
use tiphys_meta::{ErrorList, Path, names, object};
use tiphys_types::jiff::Timestamp;

use crate::core::resource_list;
use crate::resources::Entry;
use crate::strategy::{Column, Strategy};
use crate::table::{AGE, NAME, age, column};
use crate::tree::{at, present, text};

static RUNTIME_CLASS: Strategy = Strategy::new(false)
    .create_on_update()
    .unconditional_update(false)
    .defaults(defaults)
    .checks(check, |new, old, errors| {
        crate::meta::immutable(new.get("handler"), old.get("handler"), &Path::new("handler"), errors);
    })
    .table(COLUMNS, cells);

pub(crate) const RESOURCES: &[Entry] = &[Entry::new("runtimeclasses", &RUNTIME_CLASS)];

fn defaults(o: &mut Value) {
    if let Some(overhead) = present(o, "overhead") {
        resource_list::round(overhead.get_mut("podFixed"));
    }
}

fn check(o: &Value, errors: &mut ErrorList) {
    let handler = text(o, "handler");
    if handler.is_empty() {
        errors.required(&Path::new("handler"), "");
    } else {
        errors.invalid_all(&Path::new("handler"), handler, names::dns1123_label(handler));
    }
    crate::meta::labels(at(o, "scheduling.nodeSelector"), &Path::new("scheduling.nodeSelector"), errors);
}

const COLUMNS: &[Column] = &[NAME, column("Handler"), AGE];

fn cells(o: &Value, now: Timestamp) -> Vec<Value> {
    vec![object::name(o).into(), text(o, "handler").into(), age(o, now)]
}
