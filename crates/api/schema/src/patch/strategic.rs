//! Strategic merge patch, by `apimachinery/pkg/util/strategicpatch`: lists merge by the key that the facts name, and directives in the patch say more:
//! `$patch` (replace, delete), `$retainKeys`, `$deleteFromPrimitiveList/<field>`, `$setElementOrder/<field>`.

use serde_json::{Map, Value};

use super::PatchError;
use crate::facts::{Field, Kind, Shape, Type};

type Object = Map<String, Value>;
type Result<T = ()> = std::result::Result<T, PatchError>;

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_PREFIX: &str = "$deleteFromPrimitiveList";
const ORDER_PREFIX: &str = "$setElementOrder";

pub(super) fn apply(kind: &Kind, target: &mut Value, patch: &Value) -> Result {
    let (Value::Object(target), Value::Object(patch)) = (target, patch) else {
        return Err(malformed("invalid JSON document"));
    };
    merge_map(target, patch.clone(), Schema::Struct(kind.ty()))
}

/// What the facts say about the place we are at.
#[derive(Clone, Copy)]
enum Schema {
    Struct(&'static Type),
    /// A map from strings: upstream merges only its scalars.
    Map,
    /// No struct: a scalar, or a struct without fields of its own, such as `RawExtension`.
    Opaque(&'static Shape),
}

/// A field as the patch sees it.
struct Meta {
    shape: &'static Shape,
    merge: bool,
    replace: bool,
    key: &'static str,
}

impl Schema {
    fn of(shape: &'static Shape) -> Schema {
        match shape {
            Shape::Message(ty) => Schema::Struct(ty.get()),
            Shape::Map(_) => Schema::Map,
            Shape::OrBool(ty) | Shape::OrArray(ty) | Shape::OrStrings(ty) => Schema::Struct(ty.get()),
            other => Schema::Opaque(other),
        }
    }

    fn lookup(self, key: &str) -> Result<Meta> {
        match self {
            Schema::Struct(ty) => match ty.field(key) {
                Some(flat) => Ok(Meta::of(flat.field)),
                None => Err(unexpected(format!("unable to find api field in struct {} for the json field {key:?}", ty.short_name()))),
            },
            Schema::Map => Err(unexpected("merging an object in json but data type is not struct, instead is: map".into())),
            Schema::Opaque(shape) if shape.go_name().contains('.') => {
                let name = shape.go_name();
                let name = name.rsplit('.').next().unwrap_or_default();
                Err(unexpected(format!("unable to find api field in struct {name} for the json field {key:?}")))
            }
            Schema::Opaque(shape) => {
                Err(unexpected(format!("merging an object in json but data type is not struct, instead is: {}", shape.go_name())))
            }
        }
    }
}

impl Meta {
    fn of(field: &'static Field) -> Meta {
        let strategies = field.patch_strategy().unwrap_or("");
        let has = |s: &str| strategies.split(',').any(|x| x == s);
        Meta { shape: field.shape, merge: has("merge"), replace: has("replace"), key: field.merge_key().unwrap_or("") }
    }

    fn element(&self) -> Result<Schema> {
        match self.shape {
            Shape::List(of) | Shape::Items(of) => Ok(Schema::of(of)),
            other => Err(unexpected(format!("expected slice or array type, but got: {}", other.go_name()))),
        }
    }
}

fn malformed(message: &str) -> PatchError {
    PatchError::Malformed(message.to_owned())
}

fn unexpected(message: String) -> PatchError {
    PatchError::Unexpected(message)
}

fn merge_map(original: &mut Object, mut patch: Object, schema: Schema) -> Result {
    if let Some(directive) = patch.get(DIRECTIVE) {
        match directive.as_str() {
            Some("replace") => {
                patch.remove(DIRECTIVE);
                *original = patch;
            }
            Some("delete") => original.clear(),
            _ => {
                let text = go(directive);
                return Err(unexpected(format!("unknown patch type: {text} in map: {}", go(&Value::Object(patch)))));
            }
        }
        return Ok(());
    }
    retain_keys(original, &mut patch)?;
    set_element_order(original, &mut patch, schema)?;
    for (key, value) in patch {
        if key.starts_with(DELETE_PREFIX) {
            let field = directive_field(&key, DELETE_PREFIX, "invalid patch format of primitive list")?;
            delete_from_list(original, field, value);
            continue;
        }
        merge_field(original, key, value, schema)?;
    }
    Ok(())
}

fn merge_field(original: &mut Object, key: String, mut value: Value, schema: Schema) -> Result {
    if value.is_null() {
        original.remove(&key);
        return Ok(());
    }
    match (original.get_mut(&key), value) {
        (Some(Value::Object(old)), Value::Object(new)) => {
            let meta = schema.lookup(&key)?;
            if meta.replace {
                *old = new;
                return Ok(());
            }
            merge_map(old, new, Schema::of(meta.shape))
        }
        (Some(Value::Array(old)), Value::Array(new)) => {
            let meta = schema.lookup(&key)?;
            if meta.merge {
                let element = meta.element()?;
                *old = merge_list(std::mem::take(old), new, meta.key, element)?;
            } else {
                *old = new;
            }
            Ok(())
        }
        (_, new) => {
            value = new;
            discard_nulls(&mut value);
            match without_directives(value) {
                Some(value) => drop(original.insert(key, value)),
                None => drop(original.remove(&key)),
            }
            Ok(())
        }
    }
}

/// `$retainKeys`: everything that is not listed goes, and the patch may only speak of what is listed.
fn retain_keys(original: &mut Object, patch: &mut Object) -> Result {
    let Some(keys) = patch.remove(RETAIN_KEYS) else { return Ok(()) };
    let bad = || malformed("invalid patch format of retainKeys");
    let Value::Array(keys) = keys else { return Err(bad()) };
    let listed = |key: &str| keys.iter().any(|k| k.as_str() == Some(key));
    let stray = |(key, value): (&String, &Value)| {
        !value.is_null() && !key.starts_with(DELETE_PREFIX) && !key.starts_with(ORDER_PREFIX) && !listed(key)
    };
    if patch.iter().any(stray) {
        return Err(bad());
    }
    original.retain(|key, _| listed(key));
    Ok(())
}

/// The field that a directive with a field in its name is about: `$setElementOrder/containers`.
fn directive_field<'a>(key: &'a str, prefix: &str, error: &str) -> Result<&'a str> {
    key.strip_prefix(prefix).and_then(|k| k.strip_prefix('/')).ok_or_else(|| malformed(error))
}

fn delete_from_list(original: &mut Object, field: &str, listed: Value) {
    if let (Some(Value::Array(list)), Value::Array(listed)) = (original.get_mut(field), &listed) {
        list.retain(|item| !listed.contains(item));
    }
}

/// `$setElementOrder`: merges the list together with its order, and takes both out of the patch.
fn set_element_order(original: &mut Object, patch: &mut Object, schema: Schema) -> Result {
    let directives: Vec<String> = patch.keys().filter(|k| k.starts_with(ORDER_PREFIX)).cloned().collect();
    for directive in directives {
        const BAD: &str = "invalid patch format of setElementOrder list";
        let field = directive_field(&directive, ORDER_PREFIX, BAD)?.to_owned();
        let order = match patch.remove(&directive) {
            Some(Value::Array(order)) => order,
            other => return Err(bad_type("[]interface {}", &other.unwrap_or(Value::Null))),
        };
        let list_of = |value: Option<Value>| match value {
            None => Ok(None),
            Some(Value::Array(list)) => Ok(Some(list)),
            Some(other) => Err(bad_type("[]interface {}", &other)),
        };
        let patch_list = list_of(patch.remove(&field))?;
        let meta = schema.lookup(&field)?;
        let element = meta.element()?;
        follows_order(patch_list.as_deref().unwrap_or(&[]), &order, meta.key)?;
        let live = list_of(original.remove(&field))?;
        let server_order = live.clone().unwrap_or_default();
        let merged = match (live, patch_list) {
            (None, None) => continue,
            (Some(live), None) => live,
            (None, Some(new)) => new.into_iter().filter_map(without_directives).collect(),
            (Some(live), Some(new)) if meta.merge => merge_list(live, new, meta.key, element)?,
            (Some(_), Some(new)) => new,
        };
        let ordered = in_order(merged, &order, &server_order, meta.key)?;
        original.insert(field, Value::Array(ordered));
    }
    Ok(())
}

/// The items of the patch must stand in the order that the patch itself asks for.
fn follows_order(list: &[Value], order: &[Value], key: &str) -> Result {
    if list.is_empty() || order.is_empty() {
        return Ok(());
    }
    let mut at = order.iter();
    for item in list.iter().filter(|i| i.get(DIRECTIVE).is_none()) {
        let mut found = false;
        for wanted in at.by_ref() {
            if same_item(item, wanted, key)? {
                found = true;
                break;
            }
        }
        if !found {
            let (list, order) = (go(&Value::Array(list.to_vec())), go(&Value::Array(order.to_vec())));
            return Err(unexpected(format!("The order in patch list:\n{list}\n doesn't match {ORDER_PREFIX} list:\n{order}\n")));
        }
    }
    Ok(())
}

fn same_item(a: &Value, b: &Value, key: &str) -> Result<bool> {
    if key.is_empty() {
        return Ok(a == b);
    }
    Ok(key_of(a, key)? == key_of(b, key)?)
}

fn key_of<'a>(item: &'a Value, key: &str) -> Result<&'a Value> {
    let Value::Object(map) = item else {
        return Err(bad_type("map[string]interface {}", item));
    };
    map.get(key).ok_or_else(|| unexpected(format!("map: {} does not contain declared merge key: {key}", go(item))))
}

fn bad_type(expected: &str, actual: &Value) -> PatchError {
    let actual = match actual {
        Value::Null => "%!s(<nil>)",
        Value::Bool(_) => "bool",
        Value::Number(n) if n.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    };
    unexpected(format!("expected a {expected}, but received a {actual}"))
}

/// Merges two lists by key, or two sets of scalars.
fn merge_list(live: Vec<Value>, patch: Vec<Value>, key: &str, element: Schema) -> Result<Vec<Value>> {
    if live.is_empty() && patch.is_empty() {
        return Ok(live);
    }
    same_types(&live, &patch)?;
    if !live.iter().chain(&patch).next().is_some_and(Value::is_object) {
        let server_order = live.clone();
        let mut merged: Vec<Value> = Vec::with_capacity(live.len() + patch.len());
        for item in live.into_iter().chain(patch.iter().cloned()) {
            if !merged.contains(&item) {
                merged.push(item);
            }
        }
        return in_order(merged, &patch, &server_order, "");
    }
    if key.is_empty() {
        return Err(unexpected("cannot merge lists without merge key for struct".into()));
    }
    let (mut live, patch) = special_elements(live, patch, key)?;
    let server_order = live.clone();
    let patch_order = patch.clone();
    for item in patch {
        let wanted = key_of(&item, key)?;
        let position = live.iter().position(|i| i.get(key) == Some(wanted));
        match (position.and_then(|p| live[p].as_object_mut()), item) {
            (Some(found), Value::Object(item)) => merge_map(found, item, element)?,
            (_, item) => live.push(item),
        }
    }
    in_order(live, &patch_order, &server_order, key)
}

/// As upstream: lists of lists are not supported, and elements must all be of one type.
fn same_types(live: &[Value], patch: &[Value]) -> Result {
    let mut first = None;
    for item in live.iter().chain(patch) {
        if item.is_array() {
            return Err(PatchError::Unprocessable("lists of lists are not supported".into()));
        }
        let kind = std::mem::discriminant(item);
        if *first.get_or_insert(kind) != kind {
            let lists = [Value::Array(live.to_vec()), Value::Array(patch.to_vec())].map(|l| go(&l)).join(" ");
            return Err(unexpected(format!("list element types are not identical: [{lists}]")));
        }
    }
    Ok(())
}

/// Elements with `$patch`: `delete` takes the one with the same key out; `replace` leaves only what the patch says.
fn special_elements(mut live: Vec<Value>, patch: Vec<Value>, key: &str) -> Result<(Vec<Value>, Vec<Value>)> {
    let (mut plain, mut replace) = (Vec::with_capacity(patch.len()), false);
    for item in patch {
        match item.get(DIRECTIVE).map(|d| (d.as_str(), d)) {
            None => plain.push(item),
            Some((Some("delete"), _)) => {
                let wanted = key_of(&item, key)?;
                live.retain(|i| i.get(key) != Some(wanted));
            }
            Some((Some("replace"), _)) => replace = true,
            Some((Some("merge"), _)) => return Err(unexpected("merging lists cannot yet be specified in the patch".into())),
            Some((_, directive)) => {
                return Err(unexpected(format!("unknown patch type: {} in map: {}", go(directive), go(&item))));
            }
        }
    }
    Ok(if replace { (plain, Vec::new()) } else { (live, plain) })
}

/// Items that the patch names stand in the patch's order; the others keep theirs, each before the first item that it stood before.
fn in_order(merged: Vec<Value>, patch_order: &[Value], server_order: &[Value], key: &str) -> Result<Vec<Value>> {
    let place = |item: &Value, order: &[Value]| -> Result<Option<usize>> {
        for (i, other) in order.iter().enumerate() {
            let same = if key.is_empty() { item == other } else { item.get(key).is_some() && item.get(key) == other.get(key) };
            if same {
                return Ok(Some(i));
            }
        }
        if !key.is_empty() {
            key_of(item, key)?;
        }
        Ok(None)
    };
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for item in merged {
        match place(&item, patch_order)? {
            Some(i) => ours.push((i, place(&item, server_order)?, item)),
            None => theirs.push((place(&item, server_order)?, item)),
        }
    }
    ours.sort_by_key(|(i, ..)| *i);
    theirs.sort_by_key(|(i, _)| i.unwrap_or(usize::MAX));
    let mut all = Vec::with_capacity(ours.len() + theirs.len());
    let mut theirs = theirs.into_iter().peekable();
    for (_, live_place, item) in ours {
        while let Some((server_place, _)) = theirs.peek() {
            let before = matches!((server_place, live_place), (Some(s), Some(l)) if *s < l);
            if !before {
                break;
            }
            all.extend(theirs.next().map(|(_, item)| item));
        }
        all.push(item);
    }
    all.extend(theirs.map(|(_, item)| item));
    Ok(all)
}

fn discard_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, v| !v.is_null());
            map.values_mut().for_each(discard_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(discard_nulls),
        _ => {}
    }
}

/// What is added where there was nothing must carry no directives into the object.
fn without_directives(value: Value) -> Option<Value> {
    match value {
        Value::Object(map) if map.contains_key(DIRECTIVE) => None,
        Value::Object(map) => {
            let kept = map.into_iter().filter(|(key, _)| !key.starts_with('$') || !is_directive(key));
            Some(Value::Object(kept.filter_map(|(k, v)| Some((k, without_directives(v)?))).collect()))
        }
        Value::Array(list) => Some(Value::Array(list.into_iter().filter_map(without_directives).collect())),
        other => Some(other),
    }
}

/// `$retainKeys` and the like in something new ask for nothing; upstream leaves them in the map, where decoding drops them as unknown fields.
fn is_directive(key: &str) -> bool {
    key == RETAIN_KEYS || key.starts_with(ORDER_PREFIX) || key.starts_with(DELETE_PREFIX)
}

/// A tree as Go's `%v` prints it.
fn go(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".into(),
        Value::String(s) => s.clone(),
        Value::Array(list) => format!("[{}]", list.iter().map(go).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => format!("map[{}]", map.iter().map(|(k, v)| format!("{k}:{}", go(v))).collect::<Vec<_>>().join(" ")),
        other => other.to_string(),
    }
}
