//! How the places of an object merge: whole (atomic) or by their parts, lists by key or as sets.

use serde_json::{Map, Value};

use super::set::{PathElement, Scalar};
use crate::facts::{Field, Shape, Type};

/// The type of a place.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Ty<'s> {
    /// From the facts, with the field that it is the type of, which may say more (`map-type`, `list-type`).
    Facts(&'static Shape, Option<&'static Field>),
    /// From a structural schema; whether unknown fields are kept below.
    Custom(&'s Value, bool),
    /// The object as a whole of a custom resource.
    CustomRoot(&'s Value),
    /// Whatever the value looks like: maps by their fields, lists whole.
    Deduced,
    /// Whole, whatever it is.
    Atomic,
    /// No type: a field that the schema does not have.
    Unknown,
}

/// What a value of a type may be. Upstream's schemas allow more than one where they know little.
#[derive(Debug, Clone, Default)]
pub(crate) struct Atom<'s> {
    pub(crate) scalar: Option<ScalarKind>,
    pub(crate) list: Option<List<'s>>,
    pub(crate) map: Option<MapTy<'s>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ScalarKind {
    Numeric,
    Text,
    Boolean,
    Untyped,
}

#[derive(Debug, Clone)]
pub(crate) struct List<'s> {
    pub(crate) element: Ty<'s>,
    pub(crate) relation: Relation<'s>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Relation<'s> {
    Atomic,
    Set,
    Keys(Vec<&'s str>),
}

#[derive(Debug, Clone)]
pub(crate) struct MapTy<'s> {
    pub(crate) atomic: bool,
    fields: Fields<'s>,
    /// The type of fields that are not declared; `None` where there may be none.
    pub(crate) element: Option<Ty<'s>>,
}

#[derive(Debug, Clone, Copy)]
enum Fields<'s> {
    None,
    Struct(&'static Type),
    Properties(&'s Map<String, Value>, bool),
    /// The properties of a custom object, with `metadata` as it is for everything.
    Root(&'s Map<String, Value>, bool),
}

impl<'s> Ty<'s> {
    pub(crate) fn of_type(ty: &'static Type) -> Ty<'s> {
        Ty::Facts(ty.as_shape(), None)
    }

    pub(crate) fn root_of_custom(schema: &'s Value) -> Ty<'s> {
        Ty::CustomRoot(schema)
    }

    pub(crate) fn atom(self) -> Atom<'s> {
        match self {
            Ty::Facts(shape, field) => facts_atom(shape, field),
            Ty::Custom(schema, preserve) => custom_atom(schema, preserve, false),
            Ty::CustomRoot(schema) => custom_atom(schema, false, true),
            Ty::Deduced => anything(Ty::Deduced, false),
            Ty::Atomic => anything(Ty::Atomic, true),
            Ty::Unknown => Atom::default(),
        }
    }
}

fn anything<'s>(element: Ty<'s>, atomic: bool) -> Atom<'s> {
    Atom {
        scalar: Some(ScalarKind::Untyped),
        list: Some(List { element: Ty::Atomic, relation: Relation::Atomic }),
        map: Some(MapTy { atomic, fields: Fields::None, element: Some(element) }),
    }
}

fn scalar<'s>(kind: ScalarKind) -> Atom<'s> {
    Atom { scalar: Some(kind), ..Atom::default() }
}

fn facts_atom<'s>(shape: &'static Shape, field: Option<&'static Field>) -> Atom<'s> {
    match shape {
        Shape::Str | Shape::Bytes => scalar(ScalarKind::Text),
        Shape::Bool => scalar(ScalarKind::Boolean),
        Shape::I32 | Shape::I64 | Shape::U32 | Shape::U64 | Shape::F64 => scalar(ScalarKind::Numeric),
        Shape::Time | Shape::MicroTime | Shape::Duration | Shape::Quantity | Shape::IntOrString => scalar(ScalarKind::Untyped),
        Shape::Any | Shape::Json | Shape::OrBool(_) | Shape::OrArray(_) | Shape::OrStrings(_) => anything(Ty::Deduced, false),
        // Upstream takes embedded objects whole.
        Shape::Raw => anything(Ty::Atomic, true),
        Shape::FieldsV1 => Atom { map: Some(MapTy { atomic: false, fields: Fields::None, element: Some(Ty::Deduced) }), ..Atom::default() },
        Shape::Message(ty) => {
            let ty = ty.get();
            let atomic = field.and_then(Field::map_type).or(ty.map_type()) == Some("atomic");
            Atom { map: Some(MapTy { atomic, fields: Fields::Struct(ty), element: None }), ..Atom::default() }
        }
        Shape::Map(of) => {
            let atomic = field.and_then(Field::map_type) == Some("atomic");
            Atom { map: Some(MapTy { atomic, fields: Fields::None, element: Some(Ty::Facts(of, None)) }), ..Atom::default() }
        }
        Shape::List(of) | Shape::Items(of) => {
            let relation = match field.and_then(Field::list_type) {
                Some("set") => Relation::Set,
                Some("map") => Relation::Keys(field.into_iter().flat_map(Field::list_map_keys).collect()),
                _ => Relation::Atomic,
            };
            Atom { list: Some(List { element: Ty::Facts(of, None), relation }), ..Atom::default() }
        }
    }
}

fn custom_atom(schema: &Value, preserve: bool, root: bool) -> Atom<'_> {
    let flag = |name: &str| schema.get(name).and_then(Value::as_bool) == Some(true);
    let text = |name: &str| schema.get(name).and_then(Value::as_str);
    if flag("x-kubernetes-int-or-string") {
        return scalar(ScalarKind::Untyped);
    }
    let preserve = preserve || flag("x-kubernetes-preserve-unknown-fields");
    let list = || List { element: schema.get("items").map_or(Ty::Deduced, |i| Ty::Custom(i, preserve)), relation: relation(schema) };
    let map = || {
        let element = match schema.get("additionalProperties") {
            Some(Value::Bool(true)) => Some(Ty::Deduced),
            Some(of @ Value::Object(_)) => Some(Ty::Custom(of, preserve)),
            _ if preserve || schema.get("properties").is_none() => Some(Ty::Deduced),
            _ => None,
        };
        let fields = match schema.get("properties") {
            Some(Value::Object(properties)) if root => Fields::Root(properties, preserve),
            Some(Value::Object(properties)) => Fields::Properties(properties, preserve),
            _ => Fields::None,
        };
        MapTy { atomic: text("x-kubernetes-map-type") == Some("atomic"), fields, element }
    };
    match text("type") {
        Some("object") => Atom { map: Some(map()), ..Atom::default() },
        Some("array") => Atom { list: Some(list()), ..Atom::default() },
        Some("string") => match text("format") {
            None | Some("" | "byte") => scalar(ScalarKind::Text),
            Some(_) => scalar(ScalarKind::Untyped),
        },
        Some("integer" | "number") => scalar(ScalarKind::Numeric),
        Some("boolean") => scalar(ScalarKind::Boolean),
        _ => Atom { scalar: Some(ScalarKind::Untyped), list: Some(list()), map: Some(map()) },
    }
}

fn relation(schema: &Value) -> Relation<'_> {
    match schema.get("x-kubernetes-list-type").and_then(Value::as_str) {
        Some("set") => Relation::Set,
        Some("map") => {
            let keys = schema.get("x-kubernetes-list-map-keys").and_then(Value::as_array);
            Relation::Keys(keys.into_iter().flatten().filter_map(Value::as_str).collect())
        }
        _ => Relation::Atomic,
    }
}

impl<'s> MapTy<'s> {
    /// The type of a declared field.
    pub(crate) fn field(&self, name: &str) -> Option<Ty<'s>> {
        match self.fields {
            Fields::None => None,
            Fields::Struct(ty) => ty.field(name).map(|f| Ty::Facts(f.field.shape, Some(f.field))),
            Fields::Properties(properties, preserve) => properties.get(name).map(|p| Ty::Custom(p, preserve)),
            Fields::Root(properties, preserve) => match name {
                "metadata" => object_meta(),
                "apiVersion" | "kind" => Some(Ty::Facts(&Shape::Str, None)),
                _ => properties.get(name).map(|p| Ty::Custom(p, preserve)),
            },
        }
    }

    /// The type of a field, declared or not.
    pub(crate) fn type_of(&self, name: &str) -> Option<Ty<'s>> {
        self.field(name).or(self.element)
    }

    fn default_of(&self, name: &str) -> Option<Value> {
        match self.fields {
            Fields::Struct(ty) => ty.field(name).and_then(|f| f.field.default()).and_then(|d| serde_json::from_str(d).ok()),
            Fields::Properties(properties, _) | Fields::Root(properties, _) => properties.get(name).and_then(|p| p.get("default")).cloned(),
            Fields::None => None,
        }
    }
}

fn object_meta<'s>() -> Option<Ty<'s>> {
    crate::Facts::builtin().type_named("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta").map(Ty::of_type)
}

impl List<'_> {
    /// What tells an item of the list apart; the error is upstream's.
    pub(crate) fn element_of(&self, item: &Value) -> Result<PathElement, String> {
        match &self.relation {
            Relation::Atomic => Err("invalid indexing of non-associative list".into()),
            Relation::Set => match item {
                Value::Object(_) => Err("associative list without keys has an element that's a map type".into()),
                Value::Array(_) => Err("not supported: associative list with lists as elements".into()),
                Value::Null => Err("associative list without keys has an element that's an explicit null".into()),
                scalar => Ok(PathElement::Value(Scalar(scalar.clone()))),
            },
            Relation::Keys(keys) => self.keyed(keys, item),
        }
    }

    fn keyed(&self, keys: &[&str], item: &Value) -> Result<PathElement, String> {
        let map = match item {
            Value::Object(map) => map,
            Value::Null => return Err("associative list with keys may not have a null element".into()),
            _ => return Err("associative list with keys may not have non-map elements".into()),
        };
        let atom = self.element.atom();
        let mut found: Vec<(String, Scalar)> = Vec::with_capacity(keys.len());
        for key in keys {
            let value = map.get(*key).cloned().or_else(|| atom.map.as_ref().and_then(|m| m.default_of(key)));
            found.extend(value.map(|v| ((*key).to_owned(), Scalar(v))));
        }
        if found.is_empty() && !keys.is_empty() {
            let keys: Vec<String> = keys.iter().map(|k| format!("{k:?}")).collect();
            return Err(format!(
                "associative list with keys has an element that omits all key fields [{}] (and doesn't have default values for any key fields)",
                keys.join(" ")
            ));
        }
        found.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(PathElement::Key(found))
    }
}
