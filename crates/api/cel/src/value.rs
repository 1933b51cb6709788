//! Values: what expressions work on. Objects and lists of the API stay where they are and are read in place; what an expression makes is shared.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use serde_json::{Map as JsonMap, Value as Json};

use crate::functions::opaque::Opaque;
use crate::schema::Schema;
use crate::types::Type;

/// Why an evaluation has no value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EvalError {
    Failed(Arc<str>),
    /// The expression costs more than it may.
    CostLimit,
}

impl fmt::Display for EvalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            EvalError::Failed(why) => why,
            EvalError::CostLimit => "operation cancelled: actual cost limit exceeded",
        })
    }
}

impl std::error::Error for EvalError {}

pub type Eval<T> = Result<T, EvalError>;

pub(crate) fn fail<T>(why: impl AsRef<str>) -> Eval<T> {
    Err(EvalError::Failed(why.as_ref().into()))
}

pub(crate) fn no_overload<T>() -> Eval<T> {
    fail("no such overload")
}

/// A string of the object's, or one that was made.
#[derive(Clone)]
pub enum Text<'a> {
    Borrowed(&'a str),
    Shared(Arc<str>),
}

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Text::Borrowed(text) => text,
            Text::Shared(text) => text,
        }
    }
}

#[derive(Clone)]
pub enum Val<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Str(Text<'a>),
    Bytes(Arc<[u8]>),
    List(List<'a>),
    Map(Map<'a>),
    /// An object of which the schema is known.
    Object(&'a JsonMap<String, Json>, &'a Schema),
    /// `Object{…}` and `JSONPatch{…}`.
    Struct(Arc<StructVal<'a>>),
    Timestamp(crate::time::Instant),
    /// In nanoseconds.
    Duration(i64),
    Type(Type),
    Optional(Option<Arc<Val<'a>>>),
    Opaque(Opaque),
}

pub struct StructVal<'a> {
    pub name: Arc<str>,
    pub fields: BTreeMap<Arc<str>, Val<'a>>,
}

#[derive(Clone)]
pub enum List<'a> {
    Json(&'a [Json], Option<&'a Schema>),
    Values(Arc<Vec<Val<'a>>>),
}

#[derive(Clone)]
pub enum Map<'a> {
    Json(&'a JsonMap<String, Json>, Option<&'a Schema>),
    Values(Arc<BTreeMap<Key, Val<'a>>>),
}

/// Keys of maps. Whole numbers are one kind, so that `1u` finds `1`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    Bool(bool),
    Int(i64),
    /// Beyond what fits in `Int`.
    Uint(u64),
    Str(Arc<str>),
}

impl Key {
    pub(crate) fn of(value: &Val<'_>) -> Option<Key> {
        Some(match value {
            Val::Bool(b) => Key::Bool(*b),
            Val::Int(i) => Key::Int(*i),
            Val::Uint(u) => i64::try_from(*u).map_or(Key::Uint(*u), Key::Int),
            Val::Double(d) if d.fract() == 0.0 && *d >= -9.2e18 && *d <= 9.2e18 => Key::Int(*d as i64),
            Val::Str(s) => Key::Str(Arc::from(&**s)),
            _ => return None,
        })
    }

    pub(crate) fn value<'a>(&self) -> Val<'a> {
        match self {
            Key::Bool(b) => Val::Bool(*b),
            Key::Int(i) => Val::Int(*i),
            Key::Uint(u) => Val::Uint(*u),
            Key::Str(s) => Val::Str(Text::Shared(s.clone())),
        }
    }
}

impl<'a> Val<'a> {
    pub fn text(text: impl AsRef<str>) -> Val<'a> {
        Val::Str(Text::Shared(Arc::from(text.as_ref())))
    }

    pub(crate) fn list(values: Vec<Val<'a>>) -> Val<'a> {
        Val::List(List::Values(Arc::new(values)))
    }

    pub(crate) fn some(value: Val<'a>) -> Val<'a> {
        Val::Optional(Some(Arc::new(value)))
    }

    /// A value of the API without a schema: maps, lists, numbers as they are written.
    pub fn json(json: &'a Json) -> Val<'a> {
        match json {
            Json::Null => Val::Null,
            Json::Bool(b) => Val::Bool(*b),
            Json::Number(n) => match (n.as_i64(), n.as_f64()) {
                (Some(i), _) => Val::Int(i),
                (None, float) => Val::Double(float.unwrap_or(f64::NAN)),
            },
            Json::String(s) => Val::Str(Text::Borrowed(s)),
            Json::Array(a) => Val::List(List::Json(a, None)),
            Json::Object(o) => Val::Map(Map::Json(o, None)),
        }
    }

    pub(crate) fn type_of(&self) -> Type {
        match self {
            Val::Null => Type::Null,
            Val::Bool(_) => Type::Bool,
            Val::Int(_) => Type::Int,
            Val::Uint(_) => Type::Uint,
            Val::Double(_) => Type::Double,
            Val::Str(_) => Type::String,
            Val::Bytes(_) => Type::Bytes,
            Val::List(_) => Type::list(Type::Dyn),
            Val::Map(_) => Type::map(Type::Dyn, Type::Dyn),
            Val::Object(_, schema) => Type::Struct(schema.type_name.clone()),
            Val::Struct(s) => Type::Struct(s.name.clone()),
            Val::Timestamp(_) => Type::Timestamp,
            Val::Duration(_) => Type::Duration,
            Val::Type(_) => Type::Type(None),
            Val::Optional(_) => Type::optional(Type::Dyn),
            Val::Opaque(o) => o.type_of(),
        }
    }

    /// The size that costs are reckoned with: 1 for what has none.
    pub(crate) fn size(&self) -> u64 {
        let size = match self {
            Val::Str(s) => s.chars().count(),
            Val::Bytes(b) => b.len(),
            Val::List(l) => l.len(),
            Val::Map(m) => m.len(),
            Val::Object(o, _) => o.len(),
            Val::Opaque(o) => return o.size(),
            Val::Optional(Some(inner)) => return inner.size(),
            _ => 1,
        };
        size as u64
    }

    pub(crate) fn is_zero(&self) -> bool {
        match self {
            Val::Null => true,
            Val::Bool(b) => !b,
            Val::Int(i) => *i == 0,
            Val::Uint(u) => *u == 0,
            Val::Double(d) => *d == 0.0,
            Val::Str(s) => s.is_empty(),
            Val::Bytes(b) => b.is_empty(),
            Val::List(l) => l.is_empty(),
            Val::Map(m) => m.is_empty(),
            Val::Object(o, _) => o.is_empty(),
            Val::Struct(s) => s.fields.is_empty(),
            Val::Duration(d) => *d == 0,
            Val::Optional(inner) => inner.is_none(),
            Val::Timestamp(_) | Val::Type(_) | Val::Opaque(_) => false,
        }
    }

    /// The field of an object, or the value of a key: none where there is no such field; an error where there can be none.
    pub(crate) fn field(&self, name: &str) -> Eval<Option<Val<'a>>> {
        Ok(match self {
            Val::Map(map) => map.get_text(name),
            Val::Object(fields, schema) => schema.field(fields, name),
            Val::Struct(s) => s.fields.get(name).cloned(),
            _ => return fail(format!("no such key: {name}")),
        })
    }

    /// As JSON, for patches and audit annotations.
    pub fn to_json(&self) -> Eval<Json> {
        Ok(match self {
            Val::Null => Json::Null,
            Val::Bool(b) => Json::Bool(*b),
            Val::Int(i) => (*i).into(),
            Val::Uint(u) => (*u).into(),
            Val::Double(d) if d.fract() == 0.0 && d.abs() < 9e15 => (*d as i64).into(),
            Val::Double(d) => (*d).into(),
            Val::Str(s) => Json::String(s.to_string()),
            Val::Bytes(b) => Json::String(tiphys_meta::base64::encode(b)),
            Val::List(List::Json(items, _)) => Json::Array(items.to_vec()),
            Val::List(l) => Json::Array(l.iter().map(|v| v.to_json()).collect::<Eval<_>>()?),
            Val::Map(Map::Json(map, _)) | Val::Object(map, _) => Json::Object((*map).clone()),
            Val::Map(Map::Values(map)) => {
                let entry = |(k, v): (&Key, &Val<'a>)| match k {
                    Key::Str(k) => Ok((k.to_string(), v.to_json()?)),
                    other => fail(format!("map key {other:?} is not a string")),
                };
                Json::Object(map.iter().map(entry).collect::<Eval<_>>()?)
            }
            Val::Struct(s) => {
                let entry = |(k, v): (&Arc<str>, &Val<'a>)| Ok((k.to_string(), v.to_json()?));
                Json::Object(s.fields.iter().map(entry).collect::<Eval<_>>()?)
            }
            Val::Timestamp(_) | Val::Duration(_) => Json::String(crate::convert::text(self)?),
            Val::Optional(_) | Val::Type(_) | Val::Opaque(_) => {
                return fail(format!("type conversion error from '{}' to JSON", self.type_of().runtime_name()));
            }
        })
    }
}

impl<'a> List<'a> {
    pub fn len(&self) -> usize {
        match self {
            List::Json(items, _) => items.len(),
            List::Values(values) => values.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn get(&self, index: usize) -> Option<Val<'a>> {
        match self {
            List::Json(items, schema) => items.get(index).map(|item| Schema::value(schema.and_then(Schema::items), item)),
            List::Values(values) => values.get(index).cloned(),
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = Val<'a>> + '_ {
        (0..self.len()).filter_map(|i| self.get(i))
    }
}

impl<'a> Map<'a> {
    pub fn len(&self) -> usize {
        match self {
            Map::Json(map, _) => map.len(),
            Map::Values(map) => map.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn get_text(&self, key: &str) -> Option<Val<'a>> {
        match self {
            Map::Json(map, schema) => map.get(key).map(|v| Schema::value(schema.and_then(Schema::values), v)),
            Map::Values(map) => map.get(&Key::Str(key.into())).cloned(),
        }
    }

    pub(crate) fn get(&self, key: &Val<'_>) -> Option<Val<'a>> {
        match (self, key) {
            (_, Val::Str(key)) => self.get_text(key),
            (Map::Values(map), key) => Key::of(key).and_then(|k| map.get(&k)).cloned(),
            _ => None,
        }
    }

    pub(crate) fn keys(&self) -> Box<dyn Iterator<Item = Val<'a>> + '_> {
        match self {
            Map::Json(map, _) => Box::new(map.keys().map(|k| Val::Str(Text::Borrowed(k)))),
            Map::Values(map) => Box::new(map.keys().map(Key::value)),
        }
    }
}

/// Equality as CEL has it: numbers by value whatever their kind, everything else within its kind.
pub(crate) fn equal(a: &Val<'_>, b: &Val<'_>) -> bool {
    match (a, b) {
        (Val::Int(_) | Val::Uint(_) | Val::Double(_), Val::Int(_) | Val::Uint(_) | Val::Double(_)) => {
            numbers(a, b) == Some(Ordering::Equal)
        }
        (Val::Null, Val::Null) => true,
        (Val::Bool(a), Val::Bool(b)) => a == b,
        (Val::Str(a), Val::Str(b)) => **a == **b,
        (Val::Bytes(a), Val::Bytes(b)) => a == b,
        (Val::Timestamp(a), Val::Timestamp(b)) => a == b,
        (Val::Duration(a), Val::Duration(b)) => a == b,
        (Val::Type(a), Val::Type(b)) => a.runtime_name() == b.runtime_name(),
        (Val::Optional(a), Val::Optional(b)) => match (a, b) {
            (Some(a), Some(b)) => equal(a, b),
            (None, None) => true,
            _ => false,
        },
        (Val::List(a), Val::List(b)) => lists_equal(a, b),
        (Val::Map(a), Val::Map(b)) => {
            a.len() == b.len() && a.keys().all(|k| matches!((a.get(&k), b.get(&k)), (Some(x), Some(y)) if equal(&x, &y)))
        }
        (Val::Object(a, schema), Val::Object(b, _)) => {
            a.len() == b.len() && a.iter().all(|(k, v)| b.get(k).is_some_and(|w| equal(&schema.named(k, v), &schema.named(k, w))))
        }
        (Val::Struct(a), Val::Struct(b)) => {
            let same = a.fields.len() == b.fields.len() && a.fields.iter().zip(&b.fields).all(|((k, v), (l, w))| k == l && equal(v, w));
            same && a.name == b.name
        }
        (Val::Opaque(a), Val::Opaque(b)) => a == b,
        _ => false,
    }
}

/// Sets and maps as lists are equal whatever their order (`x-kubernetes-list-type`).
fn lists_equal(a: &List<'_>, b: &List<'_>) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let unordered = |l: &List<'_>| matches!(l, List::Json(_, Some(s)) if s.is_unordered());
    if unordered(a) || unordered(b) {
        return a.iter().all(|x| b.iter().any(|y| equal(&x, &y)));
    }
    a.iter().zip(b.iter()).all(|(x, y)| equal(&x, &y))
}

fn numbers(a: &Val<'_>, b: &Val<'_>) -> Option<Ordering> {
    Some(match (a, b) {
        (Val::Int(a), Val::Int(b)) => a.cmp(b),
        (Val::Uint(a), Val::Uint(b)) => a.cmp(b),
        (Val::Int(a), Val::Uint(b)) => i128::from(*a).cmp(&i128::from(*b)),
        (Val::Uint(a), Val::Int(b)) => i128::from(*a).cmp(&i128::from(*b)),
        (Val::Double(a), Val::Double(b)) => return a.partial_cmp(b),
        (Val::Double(a), _) => return mixed(*a, b),
        (_, Val::Double(b)) => return mixed(*b, a).map(Ordering::reverse),
        _ => return None,
    })
}

fn mixed(a: f64, b: &Val<'_>) -> Option<Ordering> {
    let b = match b {
        Val::Int(i) => i128::from(*i),
        Val::Uint(u) => i128::from(*u),
        _ => return None,
    };
    if a.is_nan() {
        return None;
    }
    // Doubles beyond all 64-bit numbers saturate, which keeps the order.
    let whole = a.trunc() as i128;
    Some(whole.cmp(&b).then_with(|| a.fract().partial_cmp(&0.0).unwrap_or(Ordering::Equal)))
}

/// The order of two values of kinds that have one.
pub(crate) fn compare(a: &Val<'_>, b: &Val<'_>) -> Eval<Ordering> {
    Ok(match (a, b) {
        (Val::Int(_) | Val::Uint(_) | Val::Double(_), Val::Int(_) | Val::Uint(_) | Val::Double(_)) => {
            return numbers(a, b).map_or_else(|| fail("NaN values cannot be ordered"), Ok);
        }
        (Val::Bool(a), Val::Bool(b)) => a.cmp(b),
        (Val::Str(a), Val::Str(b)) => (**a).cmp(&**b),
        (Val::Bytes(a), Val::Bytes(b)) => a.cmp(b),
        (Val::Timestamp(a), Val::Timestamp(b)) => a.cmp(b),
        (Val::Duration(a), Val::Duration(b)) => a.cmp(b),
        _ => return no_overload(),
    })
}

pub(crate) fn comparable(value: &Val<'_>) -> bool {
    use Val::{Bool, Bytes, Double, Duration, Int, Str, Timestamp, Uint};
    matches!(value, Bool(_) | Int(_) | Uint(_) | Double(_) | Str(_) | Bytes(_) | Timestamp(_) | Duration(_))
}

impl fmt::Debug for Val<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Val::Null => f.write_str("null"),
            Val::Bool(b) => write!(f, "{b}"),
            Val::Int(i) => write!(f, "{i}"),
            Val::Uint(u) => write!(f, "{u}u"),
            Val::Double(d) => write!(f, "{d:?}"),
            Val::Str(s) => write!(f, "{:?}", &**s),
            Val::Bytes(b) => write!(f, "b{b:?}"),
            Val::List(l) => f.debug_list().entries(l.iter()).finish(),
            Val::Map(m) => f.debug_map().entries(m.keys().map(|k| (k.clone(), m.get(&k)))).finish(),
            Val::Object(o, _) => write!(f, "{o:?}"),
            Val::Struct(s) => write!(f, "{}{:?}", s.name, s.fields),
            Val::Timestamp(_) | Val::Duration(_) => f.write_str(&crate::convert::text(self).unwrap_or_default()),
            Val::Type(t) => f.write_str(&t.runtime_name()),
            Val::Optional(inner) => write!(f, "optional({inner:?})"),
            Val::Opaque(o) => write!(f, "{o:?}"),
        }
    }
}
