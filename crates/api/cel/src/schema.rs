//! Structural schemas of custom resources as CEL sees them (KEP-2876): the type of each place, how its values are read, and how large they can become.
//!
//! What a schema does not describe is not exposed: unknown fields that are preserved, and lists and maps of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map as JsonMap, Value as Json, json};

use crate::env::Provider;
use crate::types::Type;
use crate::value::{List, Map, Val};
use crate::{escape, time};

/// The largest request: what is not bounded by the schema is bounded by it.
pub(crate) const MAX_REQUEST: u64 = 3 * 1024 * 1024;

#[derive(Debug)]
pub struct Schema {
    pub(crate) type_name: Arc<str>,
    shape: Shape,
    /// The most elements or characters, as cost estimates count; 0 for what has none.
    pub(crate) max_elements: u64,
    /// The most characters of a map's keys; 0 where, as in custom resources, they are not counted.
    key_elements: u64,
    /// The fewest bytes that it takes as JSON.
    pub(crate) min_size: u64,
    unordered: bool,
}

#[derive(Debug)]
enum Shape {
    Dyn,
    /// Of a type that only a value tells.
    Any,
    Quantity,
    Bool,
    Int,
    Double,
    String,
    Bytes,
    Duration,
    Timestamp {
        date: bool,
    },
    List(Arc<Schema>),
    Map(Arc<Schema>),
    /// By escaped name: the field's own name, and its schema.
    Object(BTreeMap<String, (String, Arc<Schema>)>),
}

fn text<'v>(schema: &'v Json, field: &str) -> &'v str {
    schema.get(field).and_then(Json::as_str).unwrap_or("")
}

fn flag(schema: &Json, field: &str) -> bool {
    schema.get(field) == Some(&Json::Bool(true))
}

fn number(schema: &Json, field: &str) -> Option<u64> {
    let value = schema.get(field)?;
    value.as_u64().or_else(|| value.as_i64().map(|_| 0))
}

impl Schema {
    /// None for what CEL does not see. `root`: a resource, which has `apiVersion`, `kind` and `metadata` whatever its schema says.
    #[must_use]
    pub fn of(schema: &Json, root: bool, type_name: &str) -> Option<Arc<Schema>> {
        if flag(schema, "x-kubernetes-int-or-string") {
            let most = number(schema, "maxLength").map_or(MAX_REQUEST - 2, |n| n * 4);
            return Some(Schema::new(type_name, Shape::Dyn, most, 1));
        }
        match text(schema, "type") {
            "array" => Schema::list(schema, type_name),
            "object" | "" if root => Some(Schema::object(schema, true, type_name)),
            "object" => match schema.get("additionalProperties").filter(|a| a.is_object()) {
                Some(values) => Schema::map(schema, values, type_name),
                None => Some(Schema::object(schema, false, type_name)),
            },
            "string" => Some(Schema::string(schema, type_name)),
            "boolean" => Some(Schema::new(type_name, Shape::Bool, 0, 4)),
            "number" => Some(Schema::new(type_name, Shape::Double, 0, 1)),
            "integer" => Some(Schema::new(type_name, Shape::Int, 0, 1)),
            _ => None,
        }
    }

    fn new(type_name: &str, shape: Shape, max_elements: u64, min_size: u64) -> Arc<Schema> {
        Arc::new(Schema { type_name: type_name.into(), shape, max_elements, key_elements: 0, min_size, unordered: false })
    }

    fn list(schema: &Json, type_name: &str) -> Option<Arc<Schema>> {
        let items = schema.get("items").filter(|i| i.is_object())?;
        let element = Schema::of(items, flag(items, "x-kubernetes-embedded-resource"), &format!("{type_name}.@idx"))?;
        let most = number(schema, "maxItems").unwrap_or((MAX_REQUEST - 2) / (element.min_size + 1));
        let unordered = matches!(text(schema, "x-kubernetes-list-type"), "set" | "map");
        let type_name = type_name.into();
        Some(Arc::new(Schema { type_name, shape: Shape::List(element), max_elements: most, key_elements: 0, min_size: 2, unordered }))
    }

    fn map(schema: &Json, values: &Json, type_name: &str) -> Option<Arc<Schema>> {
        let value = Schema::of(values, flag(values, "x-kubernetes-embedded-resource"), &format!("{type_name}.@elem"))?;
        let most = number(schema, "maxProperties").unwrap_or((MAX_REQUEST - 2) / (value.min_size + 6));
        Some(Schema::new(type_name, Shape::Map(value), most, 2))
    }

    fn object(schema: &Json, root: bool, type_name: &str) -> Arc<Schema> {
        let empty = JsonMap::new();
        let properties = schema.get("properties").and_then(Json::as_object).unwrap_or(&empty);
        let required = |name: &str| schema.get("required").and_then(Json::as_array).is_some_and(|r| r.iter().any(|n| n == name));
        let (mut fields, mut min_size) = (BTreeMap::new(), 2);
        let mut add = |name: &str, property: &Json| {
            let Some(escaped) = escape::escape(name) else { return };
            let nested = flag(property, "x-kubernetes-embedded-resource");
            let Some(field) = Schema::of(property, nested, &format!("{type_name}.{escaped}")) else { return };
            if required(name) && property.get("default").is_none_or(Json::is_null) {
                min_size += name.len() as u64 + field.min_size + 4;
            }
            fields.insert(escaped, (name.to_owned(), field));
        };
        properties.iter().for_each(|(name, property)| add(name, property));
        if root {
            let name = json!({"type": "string"});
            add("apiVersion", &name);
            add("kind", &name);
            add("metadata", &json!({"type": "object", "properties": {"name": name, "generateName": name}}));
        }
        Schema::new(type_name, Shape::Object(fields), 0, min_size)
    }

    fn string(schema: &Json, type_name: &str) -> Arc<Schema> {
        let most = number(schema, "maxLength");
        let (shape, max_elements, min_size) = match text(schema, "format") {
            "byte" => (Shape::Bytes, most.unwrap_or(MAX_REQUEST - 2), 2),
            "duration" => (Shape::Duration, 32, 3),
            "date" => (Shape::Timestamp { date: true }, 12, 12),
            "date-time" => (Shape::Timestamp { date: false }, 32, 21),
            _ => (Shape::String, most.map_or_else(|| longest_choice(schema), |n| n.saturating_mul(4)), 2),
        };
        Schema::new(type_name, shape, max_elements, min_size)
    }

    /// The type of the values.
    #[must_use]
    pub fn ty(&self) -> Type {
        match &self.shape {
            Shape::Dyn => Type::Dyn,
            Shape::Any => Type::Any,
            Shape::Quantity => Type::structure("kubernetes.Quantity"),
            Shape::Bool => Type::Bool,
            Shape::Int => Type::Int,
            Shape::Double => Type::Double,
            Shape::String => Type::String,
            Shape::Bytes => Type::Bytes,
            Shape::Duration => Type::Duration,
            Shape::Timestamp { .. } => Type::Timestamp,
            Shape::List(element) => Type::list(element.ty()),
            Shape::Map(value) => Type::map(Type::String, value.ty()),
            Shape::Object(_) => Type::Struct(self.type_name.clone()),
        }
    }

    pub(crate) fn items(&self) -> Option<&Schema> {
        match &self.shape {
            Shape::List(element) => Some(element),
            _ => None,
        }
    }

    pub(crate) fn values(&self) -> Option<&Schema> {
        match &self.shape {
            Shape::Map(value) => Some(value),
            _ => None,
        }
    }

    pub(crate) fn is_unordered(&self) -> bool {
        self.unordered
    }

    /// A device (KEP-4381): attributes and capacities by domain and name, as many and as long as a ResourceSlice may hold.
    pub(crate) fn device(type_name: &str) -> Arc<Schema> {
        const DOMAIN: u64 = 63;
        const NAME: u64 = 32;
        const VALUE: u64 = 64;
        const MOST: u64 = 32;
        let map = |value: Arc<Schema>, key_elements: u64| {
            let type_name = "".into();
            Arc::new(Schema { type_name, shape: Shape::Map(value), max_elements: MOST, key_elements, min_size: 0, unordered: false })
        };
        let by_domain = |value: Arc<Schema>| map(map(value, NAME), DOMAIN);
        let fields = [
            ("driver", Schema::new("", Shape::String, DOMAIN, 0)),
            ("allowMultipleAllocations", Schema::new("", Shape::Bool, 1, 0)),
            ("attributes", by_domain(Schema::new("", Shape::Any, VALUE, 0))),
            ("capacity", by_domain(Schema::new("", Shape::Quantity, 0, 0))),
        ];
        let fields = fields.into_iter().map(|(name, schema)| (name.to_owned(), (name.to_owned(), schema))).collect();
        Schema::new(type_name, Shape::Object(fields), 0, 0)
    }

    /// The size of a map's keys.
    pub(crate) fn keys(&self) -> u64 {
        self.key_elements
    }

    /// The schema one step down: `@items`, `@values`, `@idx`, `@elem` or an escaped name. Attributes of devices are all of one size, however they are
    /// reached.
    pub(crate) fn step(&self, name: &str) -> Option<&Arc<Schema>> {
        match (&self.shape, name) {
            (Shape::List(element), "@items" | "@idx") => Some(element),
            (Shape::Map(value), "@values" | "@elem") => Some(value),
            (Shape::Map(value), _) if matches!(value.shape, Shape::Any) => Some(value),
            (Shape::Object(fields), name) => fields.get(name).map(|(_, field)| field),
            _ => None,
        }
    }

    pub(crate) fn is_map(&self) -> bool {
        matches!(self.shape, Shape::Map(_))
    }

    /// The child for the field's own name.
    #[must_use]
    pub fn property(&self, name: &str) -> Option<&Arc<Schema>> {
        self.step(&escape::escape(name)?)
    }

    /// A value read by its schema.
    pub fn value<'a>(schema: Option<&'a Schema>, json: &'a Json) -> Val<'a> {
        let Some(schema) = schema else { return Val::json(json) };
        match (&schema.shape, json) {
            (Shape::Object(_), Json::Object(fields)) => Val::Object(fields, schema),
            (Shape::Map(_), Json::Object(map)) => Val::Map(Map::Json(map, Some(schema))),
            (Shape::List(_), Json::Array(items)) => Val::List(List::Json(items, Some(schema))),
            (Shape::Double, Json::Number(n)) => Val::Double(n.as_f64().unwrap_or(f64::NAN)),
            (Shape::Int, Json::Number(n)) if n.is_f64() => Val::Int(n.as_f64().unwrap_or(0.0) as i64),
            (Shape::Bytes, Json::String(text)) => {
                let decoded = tiphys_meta::base64::decode(text);
                decoded.map_or_else(|_| Val::json(json), |bytes| Val::Bytes(bytes.into()))
            }
            (Shape::Duration, Json::String(text)) => tiphys_meta::duration::parse(text).map_or_else(|| Val::json(json), Val::Duration),
            (Shape::Timestamp { date }, Json::String(text)) => {
                let parsed = if *date { time::parse_date(text) } else { time::parse(text) };
                parsed.map_or_else(|| Val::json(json), Val::Timestamp)
            }
            _ => Val::json(json),
        }
    }

    /// The field by its escaped name, where the schema has it and the object does.
    pub(crate) fn field<'a>(&'a self, fields: &'a JsonMap<String, Json>, name: &str) -> Option<Val<'a>> {
        let Shape::Object(properties) = &self.shape else { return None };
        let (own, schema) = properties.get(name).or_else(|| properties.get(&escape::reserved(name)?))?;
        fields.get(own).map(|value| Schema::value(Some(schema), value))
    }

    /// A value by the field's own name, for comparisons.
    pub(crate) fn named<'a>(&'a self, name: &str, value: &'a Json) -> Val<'a> {
        Schema::value(self.property(name).map(|s| &**s), value)
    }
}

/// An enum's strings are no longer than the longest of them.
fn longest_choice(schema: &Json) -> u64 {
    let choices = schema.get("enum").and_then(Json::as_array).filter(|e| !e.is_empty());
    choices.map_or(MAX_REQUEST - 2, |all| all.iter().filter_map(Json::as_str).map(str::len).max().unwrap_or(0) as u64)
}

/// The object types of a schema, by the names that [`Schema::of`] gave them.
pub struct SchemaTypes(pub Arc<Schema>);

impl SchemaTypes {
    fn find(&self, name: &str) -> Option<&Schema> {
        let rest = name.strip_prefix(&*self.0.type_name).filter(|r| r.is_empty() || r.starts_with('.'))?;
        let mut at = &self.0;
        for step in rest.split('.').skip(1) {
            at = at.step(step)?;
        }
        matches!(at.shape, Shape::Object(_)).then_some(&**at)
    }
}

impl Provider for SchemaTypes {
    fn has_type(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    fn field(&self, type_name: &str, field: &str) -> Option<Type> {
        let object = self.find(type_name)?;
        object.step(field).or_else(|| object.step(&escape::reserved(field)?)).map(|s| s.ty())
    }
}
