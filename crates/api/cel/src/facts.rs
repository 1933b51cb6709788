//! The types of built-in kinds, from the facts table: looked up as an expression names fields, so that nothing is built ahead.

use tiphys_meta::Gvk;
use tiphys_schema::{Facts, FieldType};

use crate::env::Provider;
use crate::types::Type;

/// Structs of the facts table, by their OpenAPI names.
pub struct FactTypes;

/// The type of objects of a built-in kind.
#[must_use]
pub fn type_of_kind(kind: &Gvk) -> Option<Type> {
    Some(Type::structure(Facts::builtin().kind(kind)?.type_name()))
}

fn ty(field: &FieldType) -> Type {
    match field {
        FieldType::Bool => Type::Bool,
        FieldType::Int => Type::Int,
        FieldType::Double => Type::Double,
        FieldType::String => Type::String,
        FieldType::Bytes => Type::Bytes,
        FieldType::Time => Type::Timestamp,
        FieldType::Dynamic => Type::Dyn,
        FieldType::List(element) => Type::list(ty(element)),
        FieldType::Map(value) => Type::map(Type::String, ty(value)),
        FieldType::Message(name) => Type::structure(name),
    }
}

impl Provider for FactTypes {
    fn has_type(&self, name: &str) -> bool {
        Facts::builtin().has_message(name)
    }

    fn field(&self, type_name: &str, field: &str) -> Option<Type> {
        let plain = field.strip_prefix("__").and_then(|f| f.strip_suffix("__")).filter(|f| crate::escape::reserved(f).is_some());
        Facts::builtin().field_type(type_name, plain.unwrap_or(field)).map(|f| ty(&f))
    }
}
