//! PodTemplate: a template on its own. Nothing reads it but people.

use serde_json::Value;
use tiphys_meta::{Path, object};
use tiphys_types::jiff::Timestamp;

use super::pod;
use crate::strategy::{Column, Generation, Strategy};
use crate::table::{NAME, column, containers, labels};
use crate::tree::{at, child};

pub(crate) static STRATEGY: Strategy = Strategy::new(true)
    .generation(Generation::Fields(&["template"]))
    .defaults(|o| pod::defaults::template(child(o, "template")))
    .checks(|o, errors| pod::validation::template(at(o, "template").unwrap_or(&Value::Null), &Path::new("template"), errors), |_, _, _| {})
    .warnings_by(|new, _| at(new, "template").map(|t| pod::warnings::pod(t, "template")).unwrap_or_default())
    .table(COLUMNS, cells);

const COLUMNS: &[Column] = &[NAME, column("Containers"), column("Images"), column("Pod Labels")];

fn cells(o: &Value, _: Timestamp) -> Vec<Value> {
    let [names, images] = containers(at(o, "template.spec"));
    vec![object::name(o).into(), names, images, labels(at(o, "template.metadata.labels")).into()]
}
