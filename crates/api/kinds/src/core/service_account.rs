//! ServiceAccount: who a pod is.

use serde_json::Value;
use tiphys_meta::object;

use crate::strategy::Strategy;
use crate::table::{NAME_AGE, name_age};

pub(crate) static STRATEGY: Strategy = Strategy::new(true).warnings_by(warnings).table(NAME_AGE, name_age);

const MOUNTABLE: &str = "kubernetes.io/enforce-mountable-secrets";

fn warnings(new: &Value, old: Option<&Value>) -> Vec<String> {
    let set = |o: &Value| object::annotations(o).any(|(key, _)| key == MOUNTABLE);
    if old.is_some_and(set) || !set(new) {
        return Vec::new();
    }
    let why = "deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets";
    vec![format!("metadata.annotations[{MOUNTABLE}]: {why}")]
}
