//! `node.k8s.io`: RuntimeClass, another way to run containers.

use serde_json::{Value, json};
use tiphys_meta::{ErrorList, Path, names, object};
use tiphys_types::jiff::Timestamp;

use crate::core::resource_list;
use crate::resources::Entry;
use crate::strategy::{Column, Strategy};
use crate::table::{AGE, NAME, age, column};
use crate::tree::{array, at, present, text};

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
    if let Some(amounts) = at(o, "overhead.podFixed") {
        // Held to the rules of a container's limits, and told under their name.
        crate::core::pod::resources::requirements(&json!({"limits": amounts}), &[], &Path::new("overhead"), errors);
    }
    let Some(scheduling) = at(o, "scheduling") else { return };
    crate::meta::labels(at(scheduling, "nodeSelector"), &Path::new("scheduling.nodeSelector"), errors);
    check_tolerations(scheduling, errors);
}

fn check_tolerations(scheduling: &Value, errors: &mut ErrorList) {
    let path = Path::new("scheduling");
    crate::core::pod::scheduling::tolerations(scheduling, &path, errors);
    let all = array(scheduling, "tolerations");
    let key = |t: &Value| ["key", "operator", "value", "effect"].map(|field| text(t, field).to_owned());
    for (i, toleration) in all.iter().enumerate().filter(|(i, t)| all[..*i].iter().any(|before| key(before) == key(t))) {
        let [name, operator, value, effect] = key(toleration);
        let seconds = at(toleration, "tolerationSeconds");
        let shown = json!({"Key": name, "Operator": operator, "Value": value, "Effect": effect, "TolerationSeconds": seconds});
        errors.duplicate(&path.child("tolerations").index(i), shown);
    }
}

const COLUMNS: &[Column] = &[NAME, column("Handler"), AGE];

fn cells(o: &Value, now: Timestamp) -> Vec<Value> {
    vec![object::name(o).into(), text(o, "handler").into(), age(o, now)]
}
