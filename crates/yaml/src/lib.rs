//! YAML as Kubernetes reads and prints it, by the rules of `sigs.k8s.io/yaml` (YAML 1.1 as Go's library has it): `yes` is a boolean, `0644` is octal, a
//! float without a fraction is an integer, a time is a text, and of several documents the first counts. Files and requests are read alike.
//!
//! Deliberately absent: the exact words of upstream's parser for a document that is none; they are those of the library that stands behind this crate.

mod compose;
mod print;
mod scalars;

use serde::de::DeserializeOwned;
use serde_json::Value;

pub use compose::{Document, Error, Room, Twice, Unbounded, read};
pub use print::print;
pub use scalars::float;

/// What a file says, as a type. As in Go, what is null was not said.
///
/// # Errors
/// What is no YAML, and what the type does not take.
pub fn from_str<T: DeserializeOwned>(text: &str) -> Result<T, Error> {
    let mut tree = read(text, &Unbounded)?.tree;
    drop_nulls(&mut tree);
    // It says which field it is about.
    serde_path_to_error::deserialize(tree).map_err(|e| Error::Type(e.to_string()))
}

fn drop_nulls(tree: &mut Value) {
    match tree {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}
