//! JSON to the canonical tree, in one pass over the bytes, as `sigs.k8s.io/json` reads it into Go's types: names are case-sensitive, unknown
//! fields are dropped and reported, and a value of the wrong type is an error in Go's words.
//!
//! Differs from Go in one corner: where a field is given twice, the later value replaces the earlier one instead of being merged into it.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use tiphys_meta::base64;

use super::budget::{Budget, Overdrawn};
use super::{DecodeError, Decoded, Strictness, canon, go};
use crate::facts::{Flat, Index, Kind, Shape, Type, TypeId};

/// Reads an object of the kind.
pub fn decode(kind: &Kind, bytes: &[u8], strictness: Strictness) -> Result<Decoded, DecodeError> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let mut ctx = Ctx::new(strictness);
    let result = Seed::root(&mut ctx, kind.ty).deserialize(&mut deserializer).and_then(|v| deserializer.end().map(|()| v));
    match ctx.finish(kind, result, |e| DecodeError::Syntax(go::syntax_error(&e, bytes))) {
        // As Go: text is checked as a whole before anything is made of it.
        Err(DecodeError::Type(words)) => Err(super::syntax::error(bytes).map_or(DecodeError::Type(words), DecodeError::Syntax)),
        other => other,
    }
}

/// Brings a tree into the canonical form of the kind; fields that the kind does not know are dropped and reported.
pub fn canonicalize(kind: &Kind, tree: Value, strictness: Strictness) -> Result<Decoded, DecodeError> {
    let mut ctx = Ctx::new(strictness);
    let result = Seed::root(&mut ctx, kind.ty).deserialize(tree);
    ctx.finish(kind, result, |e| DecodeError::Syntax(e.to_string()))
}

/// The same of a tree that was made from `before`, which is canonical: what is as it was there is canonical too, and is not looked at.
pub fn canonicalize_changed(kind: &Kind, tree: Value, before: &Value, strictness: Strictness) -> Result<Decoded, DecodeError> {
    let (mut map, before) = match (tree, before) {
        (Value::Object(map), Value::Object(before)) => (map, before),
        (tree, _) => return canonicalize(kind, tree, strictness),
    };
    let mut ctx = Ctx::new(strictness);
    let result = renew_struct(&mut ctx, kind.ty(), &Path::ROOT, &mut map, before);
    ctx.finish(kind, result.map(|()| Some(Value::Object(map))), |e| DecodeError::Syntax(e.to_string()))
}

fn renew_struct(
    ctx: &mut Ctx,
    ty: &'static Type,
    path: &Path<'_>,
    map: &mut Map<String, Value>,
    before: &Map<String, Value>,
) -> Result<(), serde_json::Error> {
    let index = ty.index();
    let changed: Vec<String> = map.iter().filter(|(name, value)| before.get(*name) != Some(*value)).map(|(name, _)| name.clone()).collect();
    for name in changed {
        let Some(value) = map.remove(&name) else { continue };
        let Some(flat) = index.position(&name).map(|at| index.flat()[at]) else {
            ctx.problem("unknown field", path, &name);
            continue;
        };
        let here = path.then(Step::Field(flat, ty));
        let renewed = match (flat.field.shape, value, before.get(&name)) {
            (Shape::Message(inner), Value::Object(mut inside), Some(Value::Object(before))) => {
                renew_struct(ctx, inner.get(), &here, &mut inside, before)?;
                Some(Value::Object(inside))
            }
            (shape, value, _) => Seed { ctx, shape, go: flat.field.go_name(), path: &here }.deserialize(value)?,
        };
        if let Some(value) = renewed {
            canon::put(map, flat.field, value);
        }
    }
    canon::finish(ty, map, &ctx.budget).map_err(Overdrawn::custom)
}

/// Reads a custom resource: any object, as it stands, with the metadata that all objects have. Fields given twice and unknown metadata are reported.
pub fn decode_custom(bytes: &[u8], strictness: Strictness) -> Result<Decoded, DecodeError> {
    let mut ctx = Ctx::new(strictness);
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let result = Untyped { ctx: &mut ctx, path: &Path::ROOT }.deserialize(&mut deserializer).and_then(|v| deserializer.end().map(|()| v));
    let mut object = ctx.readable(result, bytes)?;
    let mut problems = ctx.problems;
    problems.extend(canonicalize_metadata(&mut object, strictness)?);
    Ok(Decoded { object, problems })
}

/// Reads any value, with a list of the fields that are given twice.
pub fn decode_untyped(bytes: &[u8]) -> Result<Decoded, DecodeError> {
    let mut ctx = Ctx::new(Strictness::Warn);
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let result = Untyped { ctx: &mut ctx, path: &Path::ROOT }.deserialize(&mut deserializer).and_then(|v| deserializer.end().map(|()| v));
    let object = ctx.readable(result, bytes)?;
    Ok(Decoded { object, problems: ctx.problems })
}

/// Brings the metadata of a custom resource into canonical form; returns what it does not know.
pub fn canonicalize_metadata(object: &mut Value, strictness: Strictness) -> Result<Vec<String>, DecodeError> {
    let Some(slot) = object.get_mut("metadata") else { return Ok(Vec::new()) };
    let Some(meta) = crate::Facts::builtin().type_named("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta") else { return Ok(Vec::new()) };
    let mut ctx = Ctx::new(strictness);
    let path = Path::ROOT.then(Step::Key("metadata"));
    let seed = Seed { ctx: &mut ctx, shape: meta.as_shape(), go: None, path: &path };
    match (seed.deserialize(std::mem::take(slot)), ctx.error.or(ctx.misfit)) {
        (_, Some(message)) => Err(DecodeError::Type(message)),
        (Err(e), None) => Err(DecodeError::Syntax(e.to_string())),
        (Ok(value), None) => {
            *slot = value.unwrap_or_else(|| Value::Object(Map::new()));
            Ok(ctx.problems)
        }
    }
}

/// The object as bytes, with a newline at the end as upstream's encoder has it.
pub fn encode(object: &Value) -> Vec<u8> {
    let mut bytes = encode_bare(object);
    bytes.push(b'\n');
    bytes
}

/// The object as bytes without the newline.
pub fn encode_bare(object: &Value) -> Vec<u8> {
    // A tree holds string keys and finite numbers only, so that writing it to memory cannot fail.
    serde_json::to_vec(object).unwrap_or_default()
}

/// `apiVersion` and `kind` of a JSON object, without reading the rest of it into anything.
pub fn type_meta(bytes: &[u8]) -> Result<(String, String), DecodeError> {
    #[derive(serde::Deserialize)]
    struct TypeMeta {
        #[serde(default, rename = "apiVersion")]
        api_version: Option<String>,
        #[serde(default)]
        kind: Option<String>,
    }
    match serde_json::from_slice::<TypeMeta>(bytes) {
        Ok(meta) => Ok((meta.api_version.unwrap_or_default(), meta.kind.unwrap_or_default())),
        Err(e) if e.is_data() => {
            let message = e.to_string();
            let message = message.split(" at line ").next().unwrap_or_default();
            Err(DecodeError::Type(format!("couldn't get version/kind; json parse error: json: {message}")))
        }
        Err(e) => Err(DecodeError::Syntax(format!("couldn't get version/kind; json parse error: {}", go::syntax_error(&e, bytes)))),
    }
}

/// What the whole reading shares.
struct Ctx {
    report: bool,
    problems: Vec<String>,
    /// The first value that does not fit. As in Go, reading goes on …
    misfit: Option<String>,
    /// … and stops only at what an unmarshaler of its own refuses, which is what the caller then hears of.
    error: Option<String>,
    budget: Budget,
}

/// As upstream: further problems are not collected.
const MAX_PROBLEMS: usize = 100;

impl Ctx {
    fn new(strictness: Strictness) -> Self {
        Ctx { report: strictness != Strictness::Ignore, problems: Vec::new(), misfit: None, error: None, budget: Budget::default() }
    }

    /// What was read without a type.
    fn readable(&self, result: serde_json::Result<Value>, bytes: &[u8]) -> Result<Value, DecodeError> {
        result
            .map_err(|e| if self.budget.is_overdrawn() { DecodeError::TooLarge } else { DecodeError::Syntax(go::syntax_error(&e, bytes)) })
    }

    /// Starts what is read by an unmarshaler of its own: it reports nothing, and a misfit in it is its error.
    fn enter(&mut self) -> (bool, Option<String>) {
        (std::mem::take(&mut self.report), self.misfit.take())
    }

    fn leave<E: Error>(&mut self, (report, misfit): (bool, Option<String>)) -> Result<(), E> {
        self.report = report;
        match std::mem::replace(&mut self.misfit, misfit) {
            Some(words) => {
                self.error = Some(words);
                Err(E::custom("value does not fit"))
            }
            None => Ok(()),
        }
    }

    fn problem(&mut self, what: &str, path: &Path<'_>, name: &str) {
        if !self.report || self.problems.len() >= MAX_PROBLEMS {
            return;
        }
        let mut text = path.strict();
        if !text.is_empty() {
            text.push('.');
        }
        let problem = format!("{what} \"{text}{name}\"");
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }

    fn finish<E>(
        self,
        kind: &Kind,
        result: Result<Option<Value>, E>,
        syntax: impl FnOnce(E) -> DecodeError,
    ) -> Result<Decoded, DecodeError> {
        if self.budget.is_overdrawn() {
            return Err(DecodeError::TooLarge);
        }
        match (result, self.error.or(self.misfit)) {
            (_, Some(message)) => Err(DecodeError::Type(message)),
            (Err(e), None) => Err(syntax(e)),
            (Ok(object), None) => {
                let object = object.unwrap_or_else(|| Value::Object(canon::zero_struct(kind.ty())));
                Ok(Decoded { object, problems: self.problems })
            }
        }
    }
}

/// Where we are, as a list on the stack: nothing is allocated until there is something to report.
struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    step: Step<'a>,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Root,
    Field(Flat, &'static Type),
    Key(&'a str),
    Index(usize),
    /// What is below is read by an unmarshaler of its own.
    Apart,
}

impl<'a> Path<'a> {
    const ROOT: Path<'static> = Path { parent: None, step: Step::Root };

    fn then(&'a self, step: Step<'a>) -> Path<'a> {
        Path { parent: Some(self), step }
    }

    /// `spec.containers[0].image`, for problems.
    fn strict(&self) -> String {
        let mut text = self.parent.map(Path::strict).unwrap_or_default();
        let name = match self.step {
            Step::Root | Step::Apart => return text,
            Step::Index(i) => return format!("{text}[{i}]"),
            Step::Field(flat, _) => flat.field.name,
            Step::Key(key) => key,
        };
        if !text.is_empty() {
            text.push('.');
        }
        text + name
    }

    /// `spec.containers.image`, for Go's type errors, which know struct fields only.
    fn go_stack(&self) -> String {
        let mut text = self.parent.map(Path::go_stack).unwrap_or_default();
        if let Step::Field(flat, _) = self.step {
            if !text.is_empty() {
                text.push('.');
            }
            text += flat.via;
            text += flat.field.name;
        }
        text
    }

    /// The struct whose field we are in; what is read apart counts as part of the field that holds it.
    fn owner(&self) -> Option<&'static Type> {
        let (mut owner, mut at) = (None, Some(self));
        while let Some(path) = at {
            match path.step {
                Step::Field(_, ty) => owner = owner.or(Some(ty)),
                Step::Apart => owner = None,
                _ => {}
            }
            at = path.parent;
        }
        owner
    }

    fn cannot_unmarshal(&self, found: &str, go_type: &str) -> String {
        match self.owner() {
            Some(owner) => {
                format!("json: cannot unmarshal {found} into Go struct field {}.{} of type {go_type}", owner.short_name(), self.go_stack())
            }
            None => format!("json: cannot unmarshal {found} into Go value of type {go_type}"),
        }
    }
}

/// Reads one value of a shape; `None` is `null`.
struct Seed<'a> {
    ctx: &'a mut Ctx,
    shape: &'static Shape,
    /// The Go type where it is not what the shape says.
    go: Option<&'static str>,
    path: &'a Path<'a>,
}

impl<'a> Seed<'a> {
    fn root(ctx: &'a mut Ctx, ty: TypeId) -> Seed<'a> {
        Seed { ctx, shape: message(ty), go: None, path: &Path::ROOT }
    }

    /// Stops with what does not fit.
    fn fail<E: Error>(self, message: String) -> E {
        self.ctx.error = Some(message);
        E::custom("value does not fit")
    }

    /// The value is of the wrong type.
    fn mismatch<E: Error>(self, found: &str) -> Result<Option<Value>, E> {
        let own = match self.shape {
            Shape::Time | Shape::MicroTime | Shape::Duration => self.path.cannot_unmarshal(found, "string"),
            Shape::IntOrString => self.path.cannot_unmarshal(found, "int32"),
            Shape::OrBool(_) => "boolean or JSON schema expected".into(),
            Shape::Quantity => canon::quantity(found).err().unwrap_or_default(),
            shape => {
                let words = match self.go {
                    Some(go) => self.path.cannot_unmarshal(found, go),
                    None => self.path.cannot_unmarshal(found, &shape.go_name()),
                };
                self.ctx.misfit.get_or_insert(words);
                return Ok(None);
            }
        };
        Err(self.fail(own))
    }

    fn text<E: Error>(self, text: &str) -> Result<Option<Value>, E> {
        let converted = match self.shape {
            Shape::Quantity => canon::quantity(text),
            Shape::Duration => canon::go_duration(text),
            Shape::Bytes => base64::decode(text).map(|b| base64::encode(&b)).map_err(|e| e.to_string()),
            Shape::Time => match go::parse_time(text) {
                Ok(time) if time.is_zero() => return Ok(None),
                other => other.map(go::Instant::text),
            },
            Shape::MicroTime => match go::parse_micro_time(text) {
                Ok(time) if time.is_zero() => return Ok(None),
                other => other.map(go::Instant::text_micro),
            },
            Shape::Str | Shape::IntOrString | Shape::Any => Ok(text.to_owned()),
            _ => return self.mismatch("string"),
        };
        match converted {
            Ok(text) => Ok(Some(Value::String(text))),
            Err(message) if *self.shape == Shape::Bytes => {
                self.ctx.misfit.get_or_insert(message);
                Ok(None)
            }
            Err(message) => Err(self.fail(message)),
        }
    }

    fn integer<E: Error>(self, number: i128) -> Result<Option<Value>, E> {
        let fits = match self.shape {
            Shape::I32 | Shape::IntOrString => i32::try_from(number).is_ok(),
            Shape::I64 => i64::try_from(number).is_ok(),
            Shape::U32 => u32::try_from(number).is_ok(),
            Shape::U64 => u64::try_from(number).is_ok(),
            Shape::F64 | Shape::Any => true,
            Shape::Quantity => return self.text(&number.to_string()),
            // As upstream: what is neither of the two is taken for nothing.
            Shape::OrArray(_) | Shape::OrStrings(_) => return Ok(None),
            _ => return self.mismatch("number"),
        };
        match (fits, i64::try_from(number), u64::try_from(number)) {
            (true, Ok(n), _) => Ok(Some(Value::from(n))),
            (true, _, Ok(n)) => Ok(Some(Value::from(n))),
            _ => self.mismatch(&format!("number {number}")),
        }
    }

    /// Bytes that are written as a list of numbers, as Go reads them too.
    fn octets<'de, A: SeqAccess<'de>>(self, mut seq: A) -> Result<Option<Value>, A::Error> {
        let mut bytes = Vec::new();
        loop {
            let path = self.path.then(Step::Index(bytes.len()));
            let octet = Seed { ctx: &mut *self.ctx, shape: &Shape::U32, go: Some("uint8"), path: &path };
            let Some(item) = seq.next_element_seed(octet)? else { break };
            let number = item.as_ref().and_then(Value::as_u64).unwrap_or(0);
            match u8::try_from(number) {
                Ok(byte) => bytes.push(byte),
                Err(_) => {
                    let words = path.cannot_unmarshal(&format!("number {number}"), "uint8");
                    self.ctx.misfit.get_or_insert(words);
                }
            }
        }
        Ok(Some(Value::String(base64::encode(&bytes))))
    }
}

/// The shape of a message of the type; shapes live in the table, so this one is found there once and kept.
fn message(ty: TypeId) -> &'static Shape {
    ty.get().as_shape()
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Option<Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<Value>, D::Error> {
        match self.shape {
            // Any JSON is kept as it is.
            Shape::Raw | Shape::Json | Shape::FieldsV1 | Shape::Any => {
                let value = Raw(&self.ctx.budget).deserialize(deserializer)?;
                Ok(Some(value).filter(|v| !v.is_null()))
            }
            _ => deserializer.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Option<Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shape.go_name())
    }

    fn visit_unit<E: Error>(self) -> Result<Option<Value>, E> {
        Ok(None)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Option<Value>, E> {
        match self.shape {
            Shape::Bool | Shape::OrBool(_) => Ok(Some(Value::Bool(value))),
            Shape::OrArray(_) | Shape::OrStrings(_) => Ok(None),
            Shape::Quantity => self.text(if value { "true" } else { "false" }),
            _ => self.mismatch("bool"),
        }
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Option<Value>, E> {
        self.integer(number.into())
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Option<Value>, E> {
        self.integer(number.into())
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Option<Value>, E> {
        match self.shape {
            Shape::F64 => Ok(Some(tiphys_yaml::float(number))),
            Shape::Quantity => self.text(&number.to_string()),
            Shape::I32 | Shape::I64 | Shape::U32 | Shape::U64 | Shape::IntOrString => {
                self.mismatch(&format!("number {}", Value::from(number)))
            }
            Shape::OrArray(_) | Shape::OrStrings(_) => Ok(None),
            _ => self.mismatch("number"),
        }
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Option<Value>, E> {
        match self.shape {
            Shape::OrArray(_) | Shape::OrStrings(_) => Ok(None),
            _ => self.text(text),
        }
    }

    fn visit_string<E: Error>(self, text: String) -> Result<Option<Value>, E> {
        match self.shape {
            Shape::Str | Shape::IntOrString => Ok(Some(Value::String(text))),
            _ => self.visit_str(&text),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Option<Value>, A::Error> {
        let of = match self.shape {
            Shape::List(of) | Shape::Items(of) => *of,
            Shape::OrArray(ty) => message(*ty),
            Shape::OrStrings(_) => &Shape::Str,
            Shape::Bytes => return self.octets(seq),
            _ => {
                let result = self.mismatch("array")?;
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                return Ok(result);
            }
        };
        // Unions read their content apart: problems within are not reported.
        let apart = matches!(self.shape, Shape::OrArray(_) | Shape::OrStrings(_));
        let outside = apart.then(|| self.ctx.enter());
        let inner = self.path.then(Step::Apart);
        let base = if apart { &inner } else { self.path };
        let go = self.go.and_then(|g| g.strip_prefix("[]"));
        let mut items = Vec::with_capacity(seq.size_hint().unwrap_or(0));
        loop {
            let path = base.then(Step::Index(items.len()));
            let Some(item) = seq.next_element_seed(Seed { ctx: self.ctx, shape: of, go, path: &path })? else { break };
            self.ctx.budget.item(items.len()).map_err(Overdrawn::custom)?;
            items.push(match item {
                Some(Value::String(text)) => {
                    self.ctx.budget.text(&text).map_err(Overdrawn::custom)?;
                    Value::String(text)
                }
                Some(item) => item,
                None => self.ctx.budget.zero(canon::zero(of)).map_err(Overdrawn::custom)?,
            });
        }
        if let Some(outside) = outside {
            self.ctx.leave(outside)?;
        }
        if apart && items.is_empty() { Ok(None) } else { Ok(Some(Value::Array(items))) }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Option<Value>, A::Error> {
        match self.shape {
            Shape::Message(ty) => visit_struct(self.ctx, ty.get(), self.path, access),
            Shape::Map(of) => visit_string_map(self, of, access),
            Shape::OrBool(ty) | Shape::OrArray(ty) | Shape::OrStrings(ty) => {
                let outside = self.ctx.enter();
                let value = visit_struct(self.ctx, ty.get(), &self.path.then(Step::Apart), access)?;
                self.ctx.leave(outside)?;
                Ok(value)
            }
            _ => {
                let result = self.mismatch("object")?;
                while access.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(result)
            }
        }
    }
}

fn visit_struct<'de, A: MapAccess<'de>>(
    ctx: &mut Ctx,
    ty: &'static Type,
    path: &Path<'_>,
    mut access: A,
) -> Result<Option<Value>, A::Error> {
    let index = ty.index();
    let mut map = Map::new();
    let mut seen = 0_u128;
    // What is sorted already, as everything that we print, is found without a search.
    let mut next = 0;
    while let Some(key) = access.next_key_seed(FieldName { index, next })? {
        let position = match key {
            Ok(position) => position,
            Err(unknown) => {
                ctx.problem("unknown field", path, &unknown);
                access.next_value::<IgnoredAny>()?;
                continue;
            }
        };
        next = position + 1;
        let flat = index.flat()[position];
        if seen & (1 << position) != 0 {
            ctx.problem("duplicate field", path, flat.field.name);
        }
        seen |= 1 << position;
        let here = path.then(Step::Field(flat, ty));
        let seed = Seed { ctx, shape: flat.field.shape, go: flat.field.go_name(), path: &here };
        match access.next_value_seed(seed)? {
            Some(value) => canon::put(&mut map, flat.field, value),
            // As in Go: null empties what can be nil, and leaves scalars as they are.
            None if flat.field.pointer() || matches!(flat.field.shape, Shape::List(_) | Shape::Map(_) | Shape::Bytes | Shape::Time) => {
                map.remove(flat.field.name);
            }
            None => {}
        }
    }
    canon::finish(ty, &mut map, &ctx.budget).map_err(Overdrawn::custom)?;
    Ok(Some(Value::Object(map)))
}

fn visit_string_map<'de, A: MapAccess<'de>>(seed: Seed<'_>, of: &'static Shape, mut access: A) -> Result<Option<Value>, A::Error> {
    // `map[v1.ResourceName]v1.ClaimResourceStatus`; a map type with a name of its own says nothing of its values.
    let go = seed.go.and_then(|g| g.strip_prefix("map[")).and_then(|g| g.split_once(']')).map(|(_, element)| element);
    let mut map = Map::new();
    while let Some(key) = access.next_key::<String>()? {
        if map.contains_key(&key) {
            seed.ctx.problem("duplicate field", seed.path, &key);
        }
        let path = seed.path.then(Step::Key(&key));
        let value = access.next_value_seed(Seed { ctx: seed.ctx, shape: of, go, path: &path })?;
        seed.ctx.budget.entry(map.len(), &key).map_err(Overdrawn::custom)?;
        let value = match value {
            Some(value) => value,
            None => seed.ctx.budget.zero(canon::zero_in_map(of)).map_err(Overdrawn::custom)?,
        };
        map.insert(key, value);
    }
    Ok(Some(Value::Object(map)))
}

/// Reads any JSON as it stands; whole floats become integers, as Go prints them.
struct Untyped<'a> {
    ctx: &'a mut Ctx,
    path: &'a Path<'a>,
}

impl<'de> DeserializeSeed<'de> for Untyped<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Untyped<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        // Beyond 64 bits with a sign, Go keeps a float.
        Ok(i64::try_from(value).map_or_else(|_| Value::from(value as f64), Value::from))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(tiphys_yaml::float(value))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        self.visit_string(value.to_owned())
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        self.ctx.budget.text(&value).map_err(Overdrawn::custom)?;
        Ok(Value::from(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut list = Vec::with_capacity(seq.size_hint().unwrap_or(0));
        loop {
            let path = self.path.then(Step::Index(list.len()));
            let Some(item) = seq.next_element_seed(Untyped { ctx: self.ctx, path: &path })? else { break };
            self.ctx.budget.item(list.len()).map_err(Overdrawn::custom)?;
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            if map.contains_key(&key) {
                self.ctx.problem("duplicate field", self.path, &key);
            }
            let path = self.path.then(Step::Key(&key));
            let value = access.next_value_seed(Untyped { ctx: self.ctx, path: &path })?;
            self.ctx.budget.entry(map.len(), &key).map_err(Overdrawn::custom)?;
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

/// Reads any JSON exactly as it stands.
pub(super) struct Raw<'a>(pub(super) &'a Budget);

impl<'de> DeserializeSeed<'de> for Raw<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Raw<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any valid JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
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

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        self.visit_string(value.to_owned())
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        self.0.text(&value).map_err(Overdrawn::custom)?;
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = seq.next_element_seed(Raw(self.0))? {
            self.0.item(list.len()).map_err(Overdrawn::custom)?;
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            let value = access.next_value_seed(Raw(self.0))?;
            self.0.entry(map.len(), &key).map_err(Overdrawn::custom)?;
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

/// Reads any JSON exactly as it stands, unless its tree would be too large.
pub fn decode_raw(bytes: &[u8]) -> Result<Value, DecodeError> {
    let budget = Budget::default();
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let result = Raw(&budget).deserialize(&mut deserializer).and_then(|v| deserializer.end().map(|()| v));
    result.map_err(|e| if budget.is_overdrawn() { DecodeError::TooLarge } else { DecodeError::Syntax(go::syntax_error(&e, bytes)) })
}

/// The position of a key among the fields of a type, or the key where there is none.
struct FieldName {
    index: &'static Index,
    next: usize,
}

impl<'de> DeserializeSeed<'de> for FieldName {
    type Value = Result<usize, String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl Visitor<'_> for FieldName {
    type Value = Result<usize, String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field name")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Self::Value, E> {
        if self.index.flat().get(self.next).is_some_and(|f| f.field.name == name) {
            return Ok(Ok(self.next));
        }
        Ok(self.index.position(name).ok_or_else(|| name.to_owned()))
    }
}
