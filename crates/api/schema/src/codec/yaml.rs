//! YAML to a tree, by the rules of `sigs.k8s.io/yaml` (YAML 1.1): `yes` is a boolean, `0644` is octal, a float without a fraction is an integer.
//!
//! The library stands behind this one function. The tree is not canonical yet: [`super::json::canonicalize`] it.

use serde_json::Value;

use super::{DecodeError, canon};

/// Reads one document.
pub fn to_tree(bytes: &[u8]) -> Result<Value, DecodeError> {
    let text = std::str::from_utf8(bytes).map_err(|_| broken("yaml: control characters are not allowed"))?;
    let mut options = serde_saphyr::Options::default();
    options.legacy_octal_numbers = true;
    let mut tree: Value = serde_saphyr::from_str_with_options(text, options).map_err(|e| broken(&e.to_string()))?;
    whole_floats(&mut tree);
    Ok(tree)
}

fn broken(why: &str) -> DecodeError {
    DecodeError::Syntax(format!("error converting YAML to JSON: {why}"))
}

/// `1.0` and `1e3` are printed by Go without a fraction, and read back as integers.
fn whole_floats(value: &mut Value) {
    match value {
        Value::Number(n) if n.is_f64() => {
            if let Some(float) = n.as_f64() {
                *value = canon::float(float);
            }
        }
        Value::Array(list) => list.iter_mut().for_each(whole_floats),
        Value::Object(map) => map.values_mut().for_each(whole_floats),
        _ => {}
    }
}
