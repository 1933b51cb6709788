//! Printer columns (`additionalPrinterColumns`) as a server-side table.

use serde_json::{Value, json};
use tiphys_meta::{duration, object, time};
use tiphys_schema::structural::JsonPath;
use tiphys_types::jiff::Timestamp;

use super::Version;

pub(crate) struct Column {
    head: Value,
    kind: String,
    path: Option<JsonPath>,
}

impl Column {
    /// Without columns of its own a definition has the age.
    pub(super) fn all_of(columns: &[Value]) -> Vec<Column> {
        if columns.is_empty() {
            let age = json!({"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp", "description": "When the object was created."});
            return vec![Column::of(&age)];
        }
        columns.iter().map(Column::of).collect()
    }

    fn of(column: &Value) -> Column {
        let text = |field: &str| column.get(field).and_then(Value::as_str).unwrap_or("");
        let path = text("jsonPath");
        let own = text("description");
        let description =
            if own.is_empty() { format!("Custom resource definition column (in JSONPath format): {path}") } else { own.to_owned() };
        Column {
            head: json!({"name": text("name"), "type": text("type"), "format": text("format"), "description": description,
                "priority": column.get("priority").and_then(Value::as_i64).unwrap_or(0)}),
            kind: text("type").to_owned(),
            path: JsonPath::parse(path).ok(),
        }
    }

    fn cell(&self, tree: &Value, now: Timestamp) -> Value {
        let found = self.path.as_ref().map(|path| path.find(tree)).unwrap_or_default();
        match found.first() {
            None | Some(Value::Null) => Value::Null,
            Some(value) => cell(&self.kind, value, now),
        }
    }
}

/// A value as a column of the type shows it; null where it does not fit.
fn cell(kind: &str, value: &Value, now: Timestamp) -> Value {
    match (kind, value) {
        ("string", Value::String(_)) => value.clone(),
        ("string", other) => Value::from(other.to_string()),
        ("integer", Value::Number(n)) => n.as_i64().map(Value::from).or_else(|| n.as_f64().map(|f| json!(f as i64))).unwrap_or_default(),
        ("number", Value::Number(_)) | ("boolean", Value::Bool(_)) => value.clone(),
        ("date", Value::String(text)) => match time::parse(text) {
            Some(_) => time::seconds_since(text, now).map_or("<unknown>".into(), duration::human).into(),
            None => "<invalid>".into(),
        },
        _ => Value::Null,
    }
}

impl Version {
    pub(crate) fn column_definitions(&self) -> Vec<Value> {
        let name = json!({"name": "Name", "type": "string", "format": "name", "description": "Name of the object.", "priority": 0});
        std::iter::once(name).chain(self.columns.iter().map(|c| c.head.clone())).collect()
    }

    pub(crate) fn row(&self, tree: &Value, now: Timestamp) -> Vec<Value> {
        let name = Value::from(object::name(tree));
        std::iter::once(name).chain(self.columns.iter().map(|c| c.cell(tree, now))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_fit_their_column() {
        let now = Timestamp::from_second(1_700_000_100).unwrap();
        for (kind, value, want) in [
            ("string", json!("a"), json!("a")),
            ("string", json!(1), json!("1")),
            ("string", json!({"a": [1]}), json!("{\"a\":[1]}")),
            ("integer", json!(3), json!(3)),
            ("integer", json!(3.7), json!(3)),
            ("integer", json!("3"), Value::Null),
            ("boolean", json!(true), json!(true)),
            ("date", json!("2023-11-14T22:13:20Z"), json!("100s")),
            ("date", json!("yesterday"), json!("<invalid>")),
        ] {
            assert_eq!(cell(kind, &value, now), want, "{kind} {value}");
        }
    }
}
