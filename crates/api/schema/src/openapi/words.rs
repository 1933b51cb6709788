//! What kinds and fields are for, in our own words, so that `kubectl explain` tells of them: `words/GROUP.txt`, packed by the build.
//!
//! A file holds `Type TAB description` lines, each followed by `TAB field TAB description` lines. A type stands for all versions of it in its
//! group; fields that all objects have (`apiVersion`, `kind`, `metadata`) and lists are told of here.

use std::collections::HashMap;
use std::io::Read;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use serde_json::{Map, Value, json};

use crate::facts::{Facts, Shape};

static PACKED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/words.z"));

pub(super) const API_VERSION: &str = "APIVersion defines the group and version of the API that this object is written in.";
pub(super) const KIND: &str = "Kind is the type of this object, as its group and version name it.";
pub(super) const METADATA: &str = "Standard object's metadata: its name, its labels, who owns it, and what the server notes about it.";
pub(super) const LIST_METADATA: &str = "Standard list metadata: the revision that the list shows, and how to go on with it.";
pub(super) const ITEMS: &str = "The objects of the list.";

/// Types that are no messages of fields.
const FORMS: [(&str, &str); 12] = [
    (
        "Quantity",
        "A number with a unit: decimal (m, k, M, G, T, P, E), binary (Ki, Mi, Gi, Ti, Pi, Ei) or an exponent, as in 500m, 1.5, 2Gi, 1e3. \
         500m is half of one.",
    ),
    ("IntOrString", "A whole number or a string: a port's number or name, a count or a percentage such as 25%."),
    ("Time", "A time by RFC 3339 in whole seconds, as 2006-01-02T15:04:05Z."),
    ("MicroTime", "A time by RFC 3339 with microseconds, as 2006-01-02T15:04:05.000000Z."),
    ("Duration", "A length of time as Go writes it: 300ms, 1m30s, 2h45m."),
    ("FieldsV1", "A set of fields as a tree: f:NAME is a field, k:KEYS an item of a list by its keys, v:VALUE an item by its value."),
    ("Patch", "The changes to be made, in the form that the Content-Type header names."),
    ("RawExtension", "An object of any kind."),
    ("JSON", "Any JSON value."),
    ("JSONSchemaPropsOrArray", "One schema for all items. Structural schemas allow no list of schemas here."),
    ("JSONSchemaPropsOrStringArray", "A schema, or the names of the properties that must be there, too. Structural schemas allow neither."),
    ("JSONSchemaPropsOrBool", "A schema for all further properties, or true: anything may be there."),
];

/// All descriptions, unpacked.
pub(super) struct Words {
    text: String,
    /// `apps.Deployment` → where its lines stand in the text.
    types: HashMap<String, Range<usize>>,
}

/// The descriptions, unpacked once for all documents that are made at the same time, and then forgotten.
pub(super) fn shared() -> Arc<Words> {
    static SHARED: Mutex<Weak<Words>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    shared.upgrade().unwrap_or_else(|| {
        let words = Arc::new(Words::read(unpack()));
        *shared = Arc::downgrade(&words);
        words
    })
}

fn unpack() -> String {
    let mut text = String::new();
    if let Err(error) = flate2::read::DeflateDecoder::new(PACKED).read_to_string(&mut text) {
        unreachable!("the embedded descriptions are whole: {error}");
    }
    text
}

impl Words {
    /// Reads the packed text: the files one after the other, each behind a line `= GROUP`.
    fn read(text: String) -> Words {
        let mut types: HashMap<String, Range<usize>> = HashMap::new();
        let (mut group, mut open, mut at) = ("", String::new(), 0);
        for line in text.split_inclusive('\n') {
            let end = at + line.len();
            if let Some(name) = line.strip_prefix("= ") {
                (group, open) = (name.trim_end(), String::new());
            } else if line.starts_with('\t') {
                types.entry(open.clone()).and_modify(|lines| lines.end = end);
            } else if let Some((name, _)) = line.split_once('\t') {
                open = format!("{group}.{name}");
                types.insert(open.clone(), at..end);
            }
            at = end;
        }
        Words { text, types }
    }

    /// Description of a type; those of its fields, and of types that are inlined in it, go into `fields`.
    fn of<'a>(&'a self, name: &str, fields: &mut HashMap<&'a str, &'a str>) -> &'a str {
        let inlined = Facts::builtin().type_named(name).into_iter().flat_map(|ty| ty.fields().iter().filter(|f| f.inline()));
        for inner in inlined {
            if let Shape::Message(inner) = inner.shape {
                self.of(inner.get().name, fields);
            }
        }
        let lines = key(name).and_then(|key| self.types.get(&key)).map_or("", |lines| &self.text[lines.clone()]);
        let (own, rest) = lines.split_once('\n').unwrap_or_default();
        fields.extend(rest.lines().filter_map(|line| line.trim_start_matches('\t').split_once('\t')));
        own.split_once('\t').map_or("", |(_, words)| words)
    }

    /// Adds the descriptions of a built-in type and of its fields.
    pub(super) fn describe(&self, name: &str, schema: &mut Value) {
        let short = short(name);
        if let Some((_, words)) = FORMS.iter().find(|(form, _)| *form == short) {
            schema["description"] = json!(words);
            return;
        }
        let list_of = short.strip_suffix("List").filter(|_| schema["properties"].get("items").is_some());
        let mut fields = HashMap::new();
        let own = self.of(name, &mut fields);
        match list_of {
            Some(kind) if own.is_empty() => schema["description"] = json!(format!("A list of objects of the kind {kind}.")),
            _ if own.is_empty() => {}
            _ => schema["description"] = json!(own),
        }
        if let Some(Value::Object(properties)) = schema.get_mut("properties") {
            describe_fields(properties, &fields, list_of.is_some());
        }
    }
}

fn describe_fields(properties: &mut Map<String, Value>, fields: &HashMap<&str, &str>, list: bool) {
    for (field, property) in properties {
        let words = fields.get(field.as_str()).copied().or(match field.as_str() {
            "apiVersion" => Some(API_VERSION),
            "kind" => Some(KIND),
            "metadata" if list => Some(LIST_METADATA),
            "metadata" => Some(METADATA),
            "items" if list => Some(ITEMS),
            _ => None,
        });
        // Beside a bare reference nothing else counts (JSON Reference, section 3).
        if let Some(words) = words
            && property.get("$ref").is_none()
        {
            property["description"] = json!(words);
        }
    }
}

fn short(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

/// `io.k8s.api.apps.v1.Deployment` → `apps.Deployment`.
fn key(name: &str) -> Option<String> {
    let mut labels = name.rsplit('.');
    let (ty, _version, group) = (labels.next()?, labels.next()?, labels.next()?);
    Some(format!("{group}.{ty}"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// `apps.Deployment` and `apps.Deployment.spec` of all types of the facts.
    fn known() -> BTreeSet<String> {
        let mut known = BTreeSet::new();
        for ty in Facts::builtin().types() {
            let Some(key) = key(ty.name) else { continue };
            known.extend(ty.fields().iter().map(|f| format!("{key}.{}", f.name)));
            known.insert(key);
        }
        known
    }

    #[test]
    fn nothing_is_described_that_there_is_not() {
        let (words, known) = (shared(), known());
        for (ty, lines) in &words.types {
            assert!(known.contains(ty), "no type {ty}");
            for line in words.text[lines.clone()].lines().skip(1) {
                let field = line.trim_start_matches('\t').split('\t').next().unwrap_or("");
                assert!(known.contains(&format!("{ty}.{field}")), "no field {ty}.{field}");
            }
        }
        assert!(words.types.len() > 400, "{} types", words.types.len());
    }

    #[test]
    fn descriptions_are_sentences() {
        let words = shared();
        for line in words.text.lines().filter(|l| !l.starts_with("= ")) {
            let text = line.rsplit('\t').next().unwrap_or("");
            assert!(text.len() > 8 && text.ends_with('.') && text.is_ascii(), "{line}");
        }
    }
}
