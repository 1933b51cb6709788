//! ServiceAccount: who a pod is.

use serde_json::Value;
use tiphys_meta::object;
use tiphys_types::jiff::Timestamp;

use crate::strategy::Strategy;
use crate::table::{AGE, NAME, age};

pub(crate) static STRATEGY: Strategy = Strategy::new(true).table(&[NAME, AGE], cells);

fn cells(o: &Value, now: Timestamp) -> Vec<Value> {
    vec![object::name(o).into(), age(o, now)]
}
