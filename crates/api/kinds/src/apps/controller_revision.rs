//! ControllerRevision: a remembered state of a DaemonSet or StatefulSet. Its data never changes; its number may.

use serde_json::{Value, json};
use tiphys_meta::{ErrorList, Path, object};
use tiphys_types::jiff::Timestamp;

use crate::strategy::{Column, Strategy};
use crate::table::{AGE, NAME, age, column};
use crate::tree::{array, int, is_true, text};

pub(crate) static STRATEGY: Strategy = Strategy::new(true).checks(check, check_update).check_created(check_created).table(COLUMNS, cells);

fn check(o: &Value, errors: &mut ErrorList) {
    let revision = int(o, "revision");
    if revision < 0 {
        errors.invalid(&Path::new("revision"), revision, "must be greater than or equal to 0");
    }
}

fn check_created(o: &Value, errors: &mut ErrorList) {
    match o.get("data") {
        None | Some(Value::Null) => errors.required(&Path::new("data"), "data is mandatory"),
        Some(Value::Object(_)) => {}
        Some(_) => errors.required(&Path::new("data"), "data must be a valid JSON object"),
    }
}

fn check_update(new: &Value, old: &Value, errors: &mut ErrorList) {
    crate::meta::immutable(new.get("data"), old.get("data"), &Path::new("data"), errors);
}

const COLUMNS: &[Column] = &[NAME, column("Controller"), column("Revision"), AGE];

fn cells(o: &Value, now: Timestamp) -> Vec<Value> {
    let controller = array(o, "metadata.ownerReferences").iter().find(|r| is_true(r, "controller"));
    let controller = controller.map(|r| {
        let kind = text(r, "kind").to_lowercase();
        match text(r, "apiVersion").split_once('/') {
            Some((group, _)) => format!("{kind}.{group}/{}", text(r, "name")),
            None => format!("{kind}/{}", text(r, "name")),
        }
    });
    vec![object::name(o).into(), controller.unwrap_or_else(|| "<none>".into()).into(), json!(int(o, "revision")), age(o, now)]
}
