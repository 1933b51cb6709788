//! JSONPath in the dialect of `client-go/util/jsonpath`, as definitions of custom resources use it: printer columns, selectable fields, scale.
//!
//! One expression, with or without braces: `.spec.replicas`, `.status.conditions[?(@.type=="Ready")].status`, `.a['b.c'][0:2]`, `..name`, `.items[*]`.
//! Deliberately absent: `range` and text between expressions, which belong to kubectl's output.

use serde_json::Value;

/// A parsed path.
#[derive(Debug, Clone, PartialEq)]
pub struct JsonPath(Vec<Step>);

#[derive(Debug, Clone, PartialEq)]
enum Step {
    Field(String),
    /// `*` or `[*]`.
    All,
    /// `..`: the value and everything below.
    Below,
    /// From, to (exclusive), by.
    Slice(Option<i64>, Option<i64>, i64),
    Index(i64),
    Union(Vec<Step>),
    Filter(Vec<Step>, Option<(Compare, Operand)>),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Compare {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Debug, Clone, PartialEq)]
enum Operand {
    Literal(Value),
    Path(Vec<Step>),
}

/// Why a path cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonPathError {
    #[error("unexpected {0:?} in JSONPath")]
    Unexpected(String),
    #[error("unterminated {0}")]
    Unterminated(&'static str),
}

impl JsonPath {
    pub fn parse(text: &str) -> Result<JsonPath, JsonPathError> {
        let inner = text.trim();
        let inner = inner.strip_prefix('{').and_then(|t| t.strip_suffix('}')).unwrap_or(inner);
        let mut parser = Parser { rest: inner.trim() };
        let steps = parser.steps(false)?;
        if parser.rest.is_empty() { Ok(JsonPath(steps)) } else { Err(JsonPathError::Unexpected(parser.rest.to_owned())) }
    }

    /// Everything that the path leads to; nothing where a field is missing.
    pub fn find<'v>(&self, value: &'v Value) -> Vec<&'v Value> {
        walk(&self.0, vec![value])
    }
}

struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn eat(&mut self, token: &str) -> bool {
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// Steps up to the end, or to what ends a filter's operand.
    fn steps(&mut self, filter: bool) -> Result<Vec<Step>, JsonPathError> {
        let mut steps = Vec::new();
        loop {
            if self.eat("$") || self.eat("@") {
                continue;
            }
            if self.eat("..") {
                steps.push(Step::Below);
                if !self.rest.starts_with('[') {
                    steps.push(self.name(filter)?);
                }
            } else if self.eat(".") {
                if !self.rest.starts_with('[') && !self.rest.is_empty() {
                    steps.push(self.name(filter)?);
                }
            } else if self.eat("[") {
                steps.push(self.bracket()?);
            } else if self.rest.is_empty() || filter {
                return Ok(steps);
            } else {
                // A path may start without its dot.
                steps.push(self.name(filter)?);
            }
        }
    }

    /// A field's name: up to what can follow it, with backslashes before what is meant as it stands.
    fn name(&mut self, filter: bool) -> Result<Step, JsonPathError> {
        let mut name = String::new();
        let mut chars = self.rest.char_indices();
        let mut end = self.rest.len();
        while let Some((at, c)) = chars.next() {
            match c {
                '\\' => name.extend(chars.next().map(|(_, c)| c)),
                '.' | '[' | ']' | '{' | '}' => {
                    end = at;
                    break;
                }
                ' ' | '=' | '!' | '<' | '>' | ')' if filter => {
                    end = at;
                    break;
                }
                c => name.push(c),
            }
        }
        if name.is_empty() {
            return Err(JsonPathError::Unexpected(self.rest.to_owned()));
        }
        self.rest = &self.rest[end..];
        Ok(if name == "*" { Step::All } else { Step::Field(name) })
    }

    fn bracket(&mut self) -> Result<Step, JsonPathError> {
        if self.eat("?(") {
            let filter = self.filter()?;
            self.rest = self.rest.trim_start();
            if self.eat(")") && self.eat("]") {
                return Ok(filter);
            }
            return Err(JsonPathError::Unterminated("filter"));
        }
        let mut parts = Vec::new();
        loop {
            self.rest = self.rest.trim_start();
            parts.push(self.part()?);
            self.rest = self.rest.trim_start();
            if self.eat("]") {
                break;
            }
            if !self.eat(",") {
                return Err(if self.rest.is_empty() {
                    JsonPathError::Unterminated("array")
                } else {
                    JsonPathError::Unexpected(self.rest.to_owned())
                });
            }
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Step::Union(parts) })
    }

    fn part(&mut self) -> Result<Step, JsonPathError> {
        if let Some(text) = self.quoted()? {
            return Ok(Step::Field(text));
        }
        if self.eat("*") {
            return Ok(Step::All);
        }
        let end = self.rest.find([']', ',']).ok_or(JsonPathError::Unterminated("array"))?;
        let (text, rest) = self.rest.split_at(end);
        self.rest = rest;
        let number = |t: &str| t.trim().parse::<i64>().map_err(|_| JsonPathError::Unexpected(text.to_owned()));
        let optional = |t: &str| if t.trim().is_empty() { Ok(None) } else { number(t).map(Some) };
        match text.split(':').collect::<Vec<_>>()[..] {
            [one] => Ok(Step::Index(number(one)?)),
            [from, to] => Ok(Step::Slice(optional(from)?, optional(to)?, 1)),
            [from, to, by] => Ok(Step::Slice(optional(from)?, optional(to)?, optional(by)?.unwrap_or(1).max(1))),
            _ => Err(JsonPathError::Unexpected(text.to_owned())),
        }
    }

    fn quoted(&mut self) -> Result<Option<String>, JsonPathError> {
        let Some(quote) = self.rest.chars().next().filter(|c| matches!(c, '\'' | '"')) else { return Ok(None) };
        let mut text = String::new();
        let mut chars = self.rest.char_indices().skip(1);
        while let Some((at, c)) = chars.next() {
            match c {
                '\\' => text.extend(chars.next().map(|(_, c)| c)),
                c if c == quote => {
                    self.rest = &self.rest[at + 1..];
                    return Ok(Some(text));
                }
                c => text.push(c),
            }
        }
        Err(JsonPathError::Unterminated("quoted string"))
    }

    fn filter(&mut self) -> Result<Step, JsonPathError> {
        self.rest = self.rest.trim_start();
        let left = self.steps(true)?;
        self.rest = self.rest.trim_start();
        let operators = [
            ("==", Compare::Equal),
            ("!=", Compare::NotEqual),
            ("<=", Compare::LessOrEqual),
            (">=", Compare::GreaterOrEqual),
            ("<", Compare::Less),
            (">", Compare::Greater),
        ];
        let Some((_, operator)) = operators.into_iter().find(|(token, _)| self.eat(token)) else { return Ok(Step::Filter(left, None)) };
        self.rest = self.rest.trim_start();
        let right = match self.quoted()? {
            Some(text) => Operand::Literal(Value::from(text)),
            None if self.rest.starts_with(['@', '$']) => Operand::Path(self.steps(true)?),
            None => self.literal()?,
        };
        Ok(Step::Filter(left, Some((operator, right))))
    }

    fn literal(&mut self) -> Result<Operand, JsonPathError> {
        let end = self.rest.find(')').ok_or(JsonPathError::Unterminated("filter"))?;
        let (text, rest) = self.rest.split_at(end);
        self.rest = rest;
        serde_json::from_str(text.trim()).map(Operand::Literal).map_err(|_| JsonPathError::Unexpected(text.to_owned()))
    }
}

fn walk<'v>(steps: &[Step], values: Vec<&'v Value>) -> Vec<&'v Value> {
    steps.iter().fold(values, |values, step| values.into_iter().flat_map(|v| one(step, v)).collect())
}

fn one<'v>(step: &Step, value: &'v Value) -> Vec<&'v Value> {
    let items = || value.as_array().map_or(&[][..], Vec::as_slice);
    match step {
        Step::Field(name) => value.get(name.as_str()).into_iter().collect(),
        Step::All => match value {
            Value::Array(list) => list.iter().collect(),
            Value::Object(map) => map.values().collect(),
            _ => Vec::new(),
        },
        Step::Below => below(value),
        Step::Index(i) => place(*i, items().len()).and_then(|i| items().get(i)).into_iter().collect(),
        Step::Slice(from, to, by) => {
            let length = items().len();
            let bound = |n: i64| usize::try_from(if n < 0 { n + length as i64 } else { n }).unwrap_or(0).min(length);
            let (from, to) = (from.map_or(0, bound), to.map_or(length, bound));
            items().get(from..to).unwrap_or(&[]).iter().step_by(usize::try_from(*by).unwrap_or(1)).collect()
        }
        Step::Union(steps) => steps.iter().flat_map(|s| one(s, value)).collect(),
        Step::Filter(left, test) => items().iter().filter(|item| passes(left, test.as_ref(), item)).collect(),
    }
}

fn place(index: i64, length: usize) -> Option<usize> {
    usize::try_from(if index < 0 { index + length as i64 } else { index }).ok()
}

fn below(value: &Value) -> Vec<&Value> {
    let mut all = vec![value];
    match value {
        Value::Array(list) => list.iter().for_each(|v| all.extend(below(v))),
        Value::Object(map) => map.values().for_each(|v| all.extend(below(v))),
        _ => {}
    }
    all
}

fn passes(left: &[Step], test: Option<&(Compare, Operand)>, item: &Value) -> bool {
    let found = walk(left, vec![item]);
    let Some((operator, right)) = test else { return !found.is_empty() };
    let Some(left) = found.first() else { return false };
    match right {
        Operand::Literal(right) => holds(*operator, left, right),
        Operand::Path(steps) => walk(steps, vec![item]).first().is_some_and(|right| holds(*operator, left, right)),
    }
}

fn holds(operator: Compare, left: &Value, right: &Value) -> bool {
    use std::cmp::Ordering::{Equal, Greater, Less};
    let order = match (left, right) {
        (Value::Number(a), Value::Number(b)) => a.as_f64().partial_cmp(&b.as_f64()),
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (a, b) => (a == b).then_some(Equal),
    };
    match operator {
        Compare::Equal => order == Some(Equal),
        Compare::NotEqual => order != Some(Equal),
        Compare::Less => order == Some(Less),
        Compare::LessOrEqual => matches!(order, Some(Less | Equal)),
        Compare::Greater => order == Some(Greater),
        Compare::GreaterOrEqual => matches!(order, Some(Greater | Equal)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths() {
        let object = json!({
            "spec": {"replicas": 3, "a.b": "dot", "list": [1, 2, 3, 4]},
            "status": {"conditions": [{"type": "Ready", "status": "True", "n": 1}, {"type": "Other", "status": "False", "n": 5}]},
            "metadata": {"labels": {"app.kubernetes.io/name": "x"}},
        });
        let cases = [
            (".spec.replicas", json!([3])),
            ("{.spec.replicas}", json!([3])),
            ("spec.replicas", json!([3])),
            (".spec['a.b']", json!(["dot"])),
            (r".metadata.labels.app\.kubernetes\.io/name", json!(["x"])),
            (".spec.list[0]", json!([1])),
            (".spec.list[-1]", json!([4])),
            (".spec.list[1:3]", json!([2, 3])),
            (".spec.list[-2:]", json!([3, 4])),
            (".spec.list[::2]", json!([1, 3])),
            (".spec.list[0,2]", json!([1, 3])),
            (".spec.list[*]", json!([1, 2, 3, 4])),
            (r#".status.conditions[?(@.type=="Ready")].status"#, json!(["True"])),
            (".status.conditions[?(@.n > 2)].type", json!(["Other"])),
            (".status.conditions[?(@.type != 'Ready')].n", json!([5])),
            ("..type", json!(["Ready", "Other"])),
            (".missing.field", json!([])),
        ];
        for (path, found) in cases {
            let parsed = JsonPath::parse(path).unwrap_or_else(|e| panic!("{path}: {e}"));
            assert_eq!(json!(parsed.find(&object)), found, "{path}");
        }
        for bad in [".a[", ".a[?(@.b==1]", ".a['b", ".a[x]", ".a]"] {
            assert!(JsonPath::parse(bad).is_err(), "{bad}");
        }
    }
}
