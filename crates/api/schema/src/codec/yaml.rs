//! YAML to a tree, by the rules of `sigs.k8s.io/yaml` (YAML 1.1): `yes` is a boolean, `0644` is octal, a float without a fraction is an integer.
//!
//! The library stands behind this one module. The tree is not canonical yet: [`super::json::canonicalize`] it.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use serde_saphyr::Spanned;

use super::budget::{Budget, Overdrawn};
pub use super::yaml_print::print;
use super::{DecodeError, canon};

/// Aliases may make a document so many times larger, and no more.
const MAX_REPLAYED: usize = 100_000;

/// Reads one document.
pub fn to_tree(bytes: &[u8]) -> Result<Value, DecodeError> {
    read(bytes).map(|(tree, _)| tree)
}

/// Reads one document and says which keys are given twice, in upstream's words: later ones count, unless the caller is strict.
pub fn read(bytes: &[u8]) -> Result<(Value, Option<String>), DecodeError> {
    let text = std::str::from_utf8(bytes).map_err(|_| broken("yaml: control characters are not allowed"))?;
    let mut options = serde_saphyr::Options::default();
    options.legacy_octal_numbers = true;
    options.duplicate_keys = serde_saphyr::DuplicateKeyPolicy::LastWins;
    options.alias_limits.max_total_replayed_events = MAX_REPLAYED;
    let (mut duplicates, budget) = (Vec::new(), Budget::default());
    let result = serde_saphyr::with_deserializer_from_str_with_options(text, options, |d| Tree(&mut duplicates, &budget).deserialize(d));
    let tree = result.map_err(|e| if budget.is_overdrawn() { DecodeError::TooLarge } else { broken(&e.to_string()) })?;
    let problem = (!duplicates.is_empty()).then(|| format!("yaml: unmarshal errors:\n  {}", duplicates.join("\n  ")));
    Ok((tree, problem))
}

fn broken(why: &str) -> DecodeError {
    DecodeError::Syntax(format!("error converting YAML to JSON: {why}"))
}

/// Reads a value, and notes keys that come twice. Aliases repeat text of any length, so that text is counted too.
struct Tree<'a>(&'a mut Vec<String>, &'a Budget);

impl<'de> DeserializeSeed<'de> for Tree<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Tree<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    /// `1.0` and `1e3` are printed by Go without a fraction, and read back as integers.
    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(canon::float(value))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        self.visit_string(value.to_owned())
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        self.1.text(&value).map_err(Overdrawn::custom)?;
        Ok(Value::from(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = seq.next_element_seed(Tree(self.0, self.1))? {
            self.1.item(list.len()).map_err(Overdrawn::custom)?;
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = access.next_key::<Spanned<Key>>()? {
            let value = access.next_value_seed(Tree(self.0, self.1))?;
            let (line, key) = (key.defined.line(), key.value.0);
            if map.contains_key(&key) {
                self.0.push(format!("line {line}: key {} already set in map", super::go::quote(&key)));
            }
            self.1.entry(map.len(), &key).map_err(Overdrawn::custom)?;
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

/// A key is read as a value first, so that `n: 1` is the key `false`, as it is for every YAML 1.1 reader.
struct Key(String);

impl<'de> serde::Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match deserializer.deserialize_any(Tree(&mut Vec::new(), &Budget::default()))? {
            Value::String(text) => Ok(Key(text)),
            Value::Object(_) | Value::Array(_) => Err(D::Error::custom("unsupported map key")),
            other => Ok(Key(other.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn scalars_are_those_of_yaml_1_1() {
        let text = "a: yes\nb: off\nc: 0644\nd: 1.0\ne: 1e3\nf: \"yes\"\ng: 12:30\nh: ~\ni: 1.5\nj: !!binary aGk=\n5: x\nk: 0x1f\nl: 9223372036854775807\nn: key\n\"y\": quoted\n";
        let tree = to_tree(text.as_bytes()).unwrap();
        for (key, value) in [
            ("a", json!(true)),
            ("b", json!(false)),
            ("c", json!(420)),
            ("d", json!(1)),
            ("e", json!(1000)),
            ("f", json!("yes")),
            ("h", json!(null)),
            ("i", json!(1.5)),
            ("j", json!("hi")),
            ("5", json!("x")),
            ("k", json!(31)),
            ("l", json!(i64::MAX)),
            ("false", json!("key")),
            ("y", json!("quoted")),
        ] {
            assert_eq!(tree[key], value, "{key}");
        }
    }

    #[test]
    fn json_is_yaml() {
        assert_eq!(to_tree(br#"{"a": [1, {"b": "c"}]}"#), Ok(json!({"a": [1, {"b": "c"}]})));
    }

    #[test]
    fn duplicate_keys_are_told() {
        let (tree, problem) = read(b"a: 1\nb:\n  c: 1\n  c: 2\na: 3\n").unwrap();
        assert_eq!(tree, json!({"a": 3, "b": {"c": 2}}));
        let words = "yaml: unmarshal errors:\n  line 4: key \"c\" already set in map\n  line 5: key \"a\" already set in map";
        assert_eq!(problem.as_deref(), Some(words));
    }

    #[test]
    fn aliases_and_merge_keys() {
        let tree = to_tree(b"x: &x\n  a: 1\nw:\n  <<: *x\n  b: 2\nz: *x\n").unwrap();
        assert_eq!(tree, json!({"x": {"a": 1}, "w": {"a": 1, "b": 2}, "z": {"a": 1}}));
    }

    #[test]
    fn what_is_no_yaml_is_refused() {
        assert!(to_tree(b"a: [").is_err());
        assert!(to_tree(b"\xff").is_err());
        let laughs = (1..9).fold("a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned(), |text, i| {
            let row = vec![format!("*a{}", i - 1); 9].join(",");
            text + &format!("a{i}: &a{i} [{row}]\n")
        });
        assert!(to_tree(laughs.as_bytes()).is_err());
    }
}
