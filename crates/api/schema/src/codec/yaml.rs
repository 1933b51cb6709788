//! YAML to a tree, within the room that trees of strangers have. The tree is not canonical yet: [`super::json::canonicalize`] it.

use serde_json::Value;
pub use tiphys_yaml::print;
use tiphys_yaml::{Error, Room};

use super::budget::{self, Budget};
use super::{DecodeError, go};

/// Reads one document.
pub fn to_tree(bytes: &[u8]) -> Result<Value, DecodeError> {
    read(bytes).map(|(tree, _)| tree)
}

/// Reads one document and says which keys are given twice, in upstream's words: later ones count, unless the caller is strict.
pub fn read(bytes: &[u8]) -> Result<(Value, Option<String>), DecodeError> {
    let text = std::str::from_utf8(bytes).map_err(|_| broken("yaml: control characters are not allowed"))?;
    let document = tiphys_yaml::read(text, &Budget::default()).map_err(|e| match e {
        Error::TooLarge => DecodeError::TooLarge,
        other => broken(&other.to_string()),
    })?;
    let twice: Vec<String> =
        document.twice.iter().map(|twice| format!("line {}: key {} already set in map", twice.line, go::quote(&twice.key))).collect();
    let problem = (!twice.is_empty()).then(|| format!("yaml: unmarshal errors:\n  {}", twice.join("\n  ")));
    Ok((document.tree, problem))
}

fn broken(why: &str) -> DecodeError {
    DecodeError::Syntax(format!("error converting YAML to JSON: {why}"))
}

impl Room for Budget {
    fn item(&self, length: usize) -> bool {
        Budget::item(self, length).is_ok()
    }

    fn entry(&self, length: usize, key: &str) -> bool {
        Budget::entry(self, length, key).is_ok()
    }

    fn text(&self, content: &str) -> bool {
        Budget::text(self, content).is_ok()
    }

    fn copy(&self, tree: &Value) -> bool {
        self.take(budget::cost(tree)).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn duplicate_keys_are_told() {
        let (tree, problem) = read(b"a: 1\nb:\n  c: 1\n  c: 2\na: 3\n").unwrap();
        assert_eq!(tree, json!({"a": 3, "b": {"c": 2}}));
        let words = "yaml: unmarshal errors:\n  line 4: key \"c\" already set in map\n  line 5: key \"a\" already set in map";
        assert_eq!(problem.as_deref(), Some(words));
    }

    #[test]
    fn what_is_no_yaml_is_refused() {
        let refused = |bytes: &[u8]| to_tree(bytes).unwrap_err().to_string();
        assert!(refused(b"a: [").starts_with("error converting YAML to JSON: yaml: line "));
        assert_eq!(refused(b"\xff"), "error converting YAML to JSON: yaml: control characters are not allowed");
    }

    #[test]
    fn texts_that_are_repeated_are_counted() {
        let text = format!("- &a {}\n{}", "x".repeat(1 << 20), "- *a\n".repeat(40));
        assert_eq!(to_tree(text.as_bytes()), Err(DecodeError::TooLarge));
    }
}
