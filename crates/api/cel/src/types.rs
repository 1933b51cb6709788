//! Types of expressions, as the checker reasons about them and errors name them.

use std::fmt;
use std::sync::Arc;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Type {
    Dyn,
    Any,
    /// Something wrong has been said already.
    Error,
    Null,
    Bool,
    Int,
    Uint,
    Double,
    String,
    Bytes,
    Timestamp,
    Duration,
    List(Arc<Type>),
    Map(Arc<Type>, Arc<Type>),
    /// An object with named fields.
    Struct(Arc<str>),
    /// A type that only functions know: `net.IP`, `optional_type(T)`.
    Opaque(Arc<str>, Arc<[Type]>),
    /// The type of a type; without parameter, of any.
    Type(Option<Arc<Type>>),
    /// A parameter of a declaration: `A`.
    Param(char),
    /// A parameter of one call, to be found out.
    Var(u32),
}

const OPTIONAL: &str = "optional_type";

impl Type {
    #[must_use]
    pub fn list(element: Type) -> Type {
        Type::List(Arc::new(element))
    }

    #[must_use]
    pub fn map(key: Type, value: Type) -> Type {
        Type::Map(Arc::new(key), Arc::new(value))
    }

    #[must_use]
    pub fn structure(name: &str) -> Type {
        Type::Struct(name.into())
    }

    #[must_use]
    pub fn opaque(name: &str) -> Type {
        Type::Opaque(name.into(), Arc::new([]))
    }

    #[must_use]
    pub fn optional(inner: Type) -> Type {
        Type::Opaque(OPTIONAL.into(), Arc::new([inner]))
    }

    /// What is inside an optional.
    pub(crate) fn optional_inner(&self) -> Option<&Type> {
        match self {
            Type::Opaque(name, inner) if &**name == OPTIONAL => inner.first(),
            _ => None,
        }
    }

    pub(crate) fn is_dyn(&self) -> bool {
        matches!(self, Type::Dyn | Type::Any)
    }

    pub(crate) fn is_dyn_or_error(&self) -> bool {
        self.is_dyn() || *self == Type::Error
    }

    /// Values of it have one size, whatever they are.
    pub(crate) fn is_scalar(&self) -> bool {
        match self {
            Type::Bool | Type::Double | Type::Duration | Type::Int | Type::Timestamp | Type::Uint => true,
            other => other.optional_inner().is_some_and(Type::is_scalar),
        }
    }

    /// Types within types.
    pub(crate) fn map_parts(&self, change: &mut dyn FnMut(&Type) -> Type) -> Type {
        match self {
            Type::List(e) => Type::List(Arc::new(change(e))),
            Type::Map(k, v) => Type::Map(Arc::new(change(k)), Arc::new(change(v))),
            Type::Opaque(name, parts) if !parts.is_empty() => Type::Opaque(name.clone(), parts.iter().map(change).collect()),
            Type::Type(Some(of)) => Type::Type(Some(Arc::new(change(of)))),
            other => other.clone(),
        }
    }

    pub(crate) fn parts(&self) -> Vec<&Type> {
        match self {
            Type::List(e) => vec![&**e],
            Type::Map(k, v) => vec![&**k, &**v],
            Type::Opaque(_, parts) => parts.iter().collect(),
            Type::Type(Some(of)) => vec![&**of],
            _ => Vec::new(),
        }
    }

    /// The name of the runtime type, as conversions and `type()` say it.
    pub(crate) fn runtime_name(&self) -> String {
        match self {
            Type::Null => "null_type".into(),
            Type::Timestamp => "google.protobuf.Timestamp".into(),
            Type::Duration => "google.protobuf.Duration".into(),
            Type::List(_) => "list".into(),
            Type::Map(..) => "map".into(),
            Type::Opaque(name, _) => name.to_string(),
            Type::Type(_) => "type".into(),
            other => other.to_string(),
        }
    }

    /// As Go prints the declaration: `list(string)`, `google.protobuf.Timestamp`.
    #[must_use]
    pub fn declared(&self) -> String {
        let parts = self.parts();
        if parts.is_empty() {
            return self.runtime_name();
        }
        let parts: Vec<String> = parts.into_iter().map(Type::declared).collect();
        format!("{}({})", self.runtime_name(), parts.join(", "))
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let simple = match self {
            Type::Dyn => "dyn",
            Type::Any => "any",
            Type::Error => "!error!",
            Type::Null => "null",
            Type::Bool => "bool",
            Type::Int => "int",
            Type::Uint => "uint",
            Type::Double => "double",
            Type::String => "string",
            Type::Bytes => "bytes",
            Type::Timestamp => "timestamp",
            Type::Duration => "duration",
            Type::List(e) => return write!(f, "list({e})"),
            Type::Map(k, v) => return write!(f, "map({k}, {v})"),
            Type::Struct(name) => name,
            Type::Opaque(name, parts) if parts.is_empty() => name,
            Type::Opaque(name, parts) => {
                let parts: Vec<String> = parts.iter().map(Type::to_string).collect();
                return write!(f, "{name}({})", parts.join(", "));
            }
            Type::Type(None) => "type",
            Type::Type(Some(of)) => return write!(f, "type({of})"),
            Type::Param(name) => return write!(f, "{name}"),
            Type::Var(number) => return write!(f, "_var{number}"),
        };
        f.write_str(simple)
    }
}
