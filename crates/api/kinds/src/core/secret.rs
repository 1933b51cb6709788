//! Secret: data that is not for every eye. `stringData` is for writers only: it becomes `data` at once.

use serde_json::{Value, json};
use tiphys_meta::{ErrorList, Path, base64, names, object};
use tiphys_types::jiff::Timestamp;

use super::config_map::{MAX_SIZE, decoded_len, immutable};
use crate::fields::selectable;
use crate::strategy::{Column, Ctx, Strategy};
use crate::table::{AGE, NAME, age, column};
use crate::tree::{map_at, set_default, text};

pub(crate) static STRATEGY: Strategy = Strategy::new(true)
    .defaults(defaults)
    .on_update(keep_type)
    .checks(check, check_update)
    .warnings_by(warnings)
    .selectable(select::NAMES, select::of)
    .table(COLUMNS, cells);

mod select {
    super::selectable!("metadata.name" = "", "metadata.namespace" = "", "type" = "");
}

fn defaults(o: &mut Value) {
    set_default(o, "type", "Opaque");
    let Some(plain) = o.as_object_mut().and_then(|m| m.remove("stringData")) else { return };
    let Value::Object(plain) = plain else { return };
    if plain.is_empty() {
        return;
    }
    let data = object::as_map(crate::tree::child(o, "data"));
    for (key, value) in plain {
        data.insert(key, json!(base64::encode(value.as_str().unwrap_or("").as_bytes())));
    }
}

/// A pair that no server could load. Deliberately absent: whether key and certificate belong together, which takes cryptography.
fn warnings(o: &Value, _: Option<&Value>) -> Vec<String> {
    if text(o, "type") != "kubernetes.io/tls" {
        return Vec::new();
    }
    let has_block = |key: &str, what: &str| {
        let pem = String::from_utf8_lossy(&bytes(o, key)).into_owned();
        pem.lines().any(|line| line.starts_with("-----BEGIN ") && line.trim_end().ends_with("-----") && line.contains(what))
    };
    for (key, what, input) in [("tls.crt", "CERTIFICATE", "certificate"), ("tls.key", "PRIVATE KEY", "key")] {
        if !has_block(key, what) {
            return vec![format!("tls: failed to find any PEM data in {input} input")];
        }
    }
    Vec::new()
}

fn keep_type(new: &mut Value, old: &Value, _: &Ctx<'_>) {
    set_default(new, "type", text(old, "type"));
}

fn check(o: &Value, errors: &mut ErrorList) {
    let data = Path::new("data");
    let mut size = 0;
    for (key, value) in map_at(o, "data").into_iter().flatten() {
        errors.invalid_all(&data.key(key), key, names::config_map_key(key));
        size += decoded_len(value);
    }
    if size > MAX_SIZE {
        errors.too_long(&data, MAX_SIZE);
    }
    let has = |key: &str| map_at(o, "data").is_some_and(|d| d.contains_key(key));
    let mut needs = |key: &str| {
        if !has(key) {
            errors.required(&data.key(key), "");
        }
    };
    match text(o, "type") {
        "kubernetes.io/dockercfg" => check_json(o, ".dockercfg", errors),
        "kubernetes.io/dockerconfigjson" => check_json(o, ".dockerconfigjson", errors),
        // An empty key is none.
        "kubernetes.io/ssh-auth" if has("ssh-privatekey") && !bytes(o, "ssh-privatekey").is_empty() => {}
        "kubernetes.io/ssh-auth" => errors.required(&data.key("ssh-privatekey"), ""),
        "kubernetes.io/tls" => {
            needs("tls.crt");
            needs("tls.key");
        }
        "kubernetes.io/basic-auth" if !has("username") && !has("password") => {
            errors.required(&data.key("username"), "");
            errors.required(&data.key("password"), "");
        }
        "kubernetes.io/service-account-token" => {
            let account = object::annotations(o).find(|(k, _)| *k == "kubernetes.io/service-account.name");
            if account.is_none_or(|(_, name)| name.is_empty()) {
                errors.required(&Path::new("metadata").child("annotations").key("kubernetes.io/service-account.name"), "");
            }
        }
        _ => {}
    }
}

/// The bytes of a key, decoded.
fn bytes(o: &Value, key: &str) -> Vec<u8> {
    let text = map_at(o, "data").and_then(|d| d.get(key)).and_then(Value::as_str).unwrap_or("");
    base64::decode(text).unwrap_or_default()
}

/// What is there under the key is JSON; of which shape is the reader's affair.
fn check_json(o: &Value, key: &str, errors: &mut ErrorList) {
    let (data, there) = (Path::new("data"), map_at(o, "data").is_some_and(|d| d.contains_key(key)));
    if !there {
        errors.required(&data.key(key), "");
    } else if let Some(why) = tiphys_schema::codec::json_error(&bytes(o, key)) {
        errors.invalid(&data.key(key), "<secret contents redacted>", why);
    }
}

fn check_update(new: &Value, old: &Value, errors: &mut ErrorList) {
    crate::meta::immutable(new.get("type"), old.get("type"), &Path::new("type"), errors);
    immutable(new, old, &["data"], errors);
}

const COLUMNS: &[Column] = &[NAME, column("Type"), column("Data"), AGE];

fn cells(o: &Value, now: Timestamp) -> Vec<Value> {
    vec![object::name(o).into(), text(o, "type").into(), json!(map_at(o, "data").map_or(0, serde_json::Map::len)), age(o, now)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn string_data_becomes_data() {
        let mut secret = json!({"stringData": {"a": "b", "c": "hello"}, "data": {"a": "eA==", "k": "eA=="}});
        defaults(&mut secret);
        assert_eq!(secret, json!({"type": "Opaque", "data": {"a": "Yg==", "c": "aGVsbG8=", "k": "eA=="}}));
    }

    #[test]
    fn immutable_secrets_stay() {
        let old = json!({"immutable": true, "data": {"a": "eA=="}, "type": "Opaque"});
        let mut errors = ErrorList::new();
        check_update(&json!({"immutable": true, "data": {"a": "eQ=="}, "type": "Opaque"}), &old, &mut errors);
        assert_eq!(errors.message(), "data: Forbidden: field is immutable when `immutable` is set");
    }
}
