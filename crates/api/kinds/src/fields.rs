//! What objects of a kind can be selected on (`--field-selector`): a table of dotted paths, each with the text of its zero value.

use std::borrow::Cow;

use serde_json::Value;

use crate::tree::at;

pub(crate) use crate::strategy::SelectableFields as Fields;

/// The value at each path as text.
pub(crate) fn read<'a>(o: &'a Value, table: &[(&'static str, &'static str)]) -> Fields<'a> {
    table.iter().map(|(name, zero)| (*name, text_at(o, name, zero))).collect()
}

fn text_at<'a>(o: &'a Value, path: &str, zero: &'static str) -> Cow<'a, str> {
    match at(o, path) {
        None => zero.into(),
        Some(Value::String(s)) => s.as_str().into(),
        Some(other) => other.to_string().into(),
    }
}

/// `NAMES` and `of` from one table; names that are no paths are added by the second form.
macro_rules! selectable {
    ($($name:literal = $zero:literal),* $(,)?) => {
        pub(crate) const NAMES: &[&str] = &[$($name),*];
        pub(crate) fn of(o: &serde_json::Value) -> $crate::fields::Fields<'_> {
            $crate::fields::read(o, &[$(($name, $zero)),*])
        }
    };
}
pub(crate) use selectable;
