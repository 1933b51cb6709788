//! From events to a tree.

use std::borrow::Cow;
use std::collections::HashMap;

use granit_parser::{Event, Options, Parser, ScalarStyle, Span, StrInput, Tag};
use serde_json::{Map, Value};
use tiphys_meta::base64;

use crate::print;
use crate::scalars::{self, MERGE, Scalar, resolve};

/// Aliases may make a document so many nodes larger, and no more.
const MAX_COPIED: usize = 100_000;
const NAMESPACE: &str = "tag:yaml.org,2002:";

/// What was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// Null, where there is nothing.
    pub tree: Value,
    /// Keys that come again in a map, in which the last one counts.
    pub twice: Vec<Twice>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Twice {
    /// From 1, where the later value begins.
    pub line: usize,
    pub key: String,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("yaml: line {line}: {why}")]
    Syntax { line: usize, why: String },
    #[error("yaml: unknown anchor '{0}' referenced")]
    UnknownAnchor(String),
    #[error("yaml: anchor '{0}' value contains itself")]
    ContainsItself(String),
    #[error("yaml: document contains excessive aliasing")]
    Aliasing,
    #[error("yaml: map merge requires map or sequence of maps as the value")]
    Merge,
    #[error("yaml: cannot decode !!{is} `{text}` as a !!{wanted}")]
    Tag { is: &'static str, text: String, wanted: String },
    #[error("yaml: !!binary value contains invalid base64 data")]
    Binary,
    #[error("yaml: line {line}: a key must be a text, a number or a boolean")]
    Key { line: usize },
    #[error("json: unsupported value: {0}")]
    NotFinite(&'static str),
    /// The room says so.
    #[error("the document is too large")]
    TooLarge,
    #[error("{0}")]
    Type(String),
}

/// Counts what a tree takes while it is built, and ends that by `false`.
pub trait Room {
    /// One more item in a list that has `length`.
    fn item(&self, length: usize) -> bool;
    /// One more entry in a map that has `length`.
    fn entry(&self, length: usize, key: &str) -> bool;
    fn text(&self, content: &str) -> bool;
    /// A tree once more.
    fn copy(&self, tree: &Value) -> bool;
}

/// For files of whoever runs the program.
pub struct Unbounded;

impl Room for Unbounded {
    fn item(&self, _: usize) -> bool {
        true
    }
    fn entry(&self, _: usize, _: &str) -> bool {
        true
    }
    fn text(&self, _: &str) -> bool {
        true
    }
    fn copy(&self, _: &Value) -> bool {
        true
    }
}

/// Reads the first document.
///
/// # Errors
/// What is no YAML, has more than the room, or no JSON says.
pub fn read(text: &str, room: &impl Room) -> Result<Document, Error> {
    let mut options = Options::default();
    options.emit_unresolved_aliases = true;
    let events = Parser::new_from_str_with_options(text, options);
    let mut reader = Reader { events, source: text, room, anchors: HashMap::new(), copied: 0, twice: Vec::new() };
    let tree = reader.document()?;
    Ok(Document { tree, twice: reader.twice })
}

fn within(room: bool) -> Result<(), Error> {
    if room { Ok(()) } else { Err(Error::TooLarge) }
}

struct Reader<'t, 'r, R> {
    events: Parser<'t, StrInput<'t>>,
    source: &'t str,
    room: &'r R,
    anchors: HashMap<usize, Value>,
    copied: usize,
    twice: Vec<Twice>,
}

impl<'t, R: Room> Reader<'t, '_, R> {
    fn next(&mut self) -> Result<(Event<'t>, Span), Error> {
        match self.events.next_event() {
            Some(Ok(next)) => Ok(next),
            Some(Err(e)) => Err(Error::Syntax { line: e.marker().line(), why: e.info() }),
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn document(&mut self) -> Result<Value, Error> {
        loop {
            match self.next()? {
                (Event::StreamStart | Event::DocumentStart(..), _) => {}
                (Event::StreamEnd | Event::DocumentEnd, _) => return Ok(Value::Null),
                (event, span) => {
                    let tree = self.node(event, span)?;
                    // What stands behind it in the same document makes it none.
                    return self.next().map(|_| tree);
                }
            }
        }
    }

    fn node(&mut self, event: Event<'t>, span: Span) -> Result<Value, Error> {
        let (value, anchor) = match event {
            Event::Alias(anchor) => return self.copy(anchor, span),
            Event::UnresolvedAlias(name) => return Err(Error::UnknownAnchor(name.into_owned())),
            Event::Scalar(text, style, anchor, tag) => (self.scalar(text, style, tag.as_deref())?, anchor),
            Event::SequenceStart(_, anchor, _) => (self.sequence()?, anchor),
            Event::MappingStart(_, anchor, _) => (self.mapping()?, anchor),
            _ => return Err(Error::Syntax { line: span.start.line(), why: "did not find expected node content".to_owned() }),
        };
        if anchor != 0 {
            within(self.room.copy(&value))?;
            self.anchors.insert(anchor, value.clone());
        }
        Ok(value)
    }

    fn copy(&mut self, anchor: usize, span: Span) -> Result<Value, Error> {
        let Some(value) = self.anchors.get(&anchor) else {
            let alias = span.slice(self.source).unwrap_or_default();
            return Err(Error::ContainsItself(alias.trim_start_matches('*').to_owned()));
        };
        within(self.room.copy(value))?;
        self.copied += nodes(value);
        if self.copied > MAX_COPIED { Err(Error::Aliasing) } else { Ok(value.clone()) }
    }

    fn scalar(&self, text: Cow<'t, str>, style: ScalarStyle, tag: Option<&Tag>) -> Result<Value, Error> {
        let value = typed(&text, style, tag)?.unwrap_or_else(|| Value::String(text.into_owned()));
        match &value {
            Value::String(text) => within(self.room.text(text)).map(|()| value),
            _ => Ok(value),
        }
    }

    fn sequence(&mut self) -> Result<Value, Error> {
        let mut list = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if matches!(event, Event::SequenceEnd) {
                return Ok(Value::Array(list));
            }
            within(self.room.item(list.len()))?;
            list.push(self.node(event, span)?);
        }
    }

    fn mapping(&mut self) -> Result<Value, Error> {
        let mut map = Map::new();
        loop {
            let (event, span) = self.next()?;
            if matches!(event, Event::MappingEnd) {
                return Ok(Value::Object(map));
            }
            let key = if merges(&event) { None } else { Some(self.key(event, span)?) };
            let (event, span) = self.next()?;
            let line = span.start.line();
            let value = self.node(event, span)?;
            match key {
                Some(key) => self.set(&mut map, line, key, value)?,
                None => self.merge(&mut map, line, value)?,
            }
        }
    }

    /// A key is read as a value first, so that `n: 1` is the key `false`, as it is for every YAML 1.1 reader.
    fn key(&mut self, event: Event<'t>, span: Span) -> Result<String, Error> {
        let line = span.start.line();
        if let Event::Scalar(text, style, _, tag) = &event
            && let Scalar::Float(float) = plain(text, *style, tag.as_deref())
        {
            return Ok(print::float_key(float));
        }
        match self.node(event, span)? {
            Value::String(text) => Ok(text),
            Value::Bool(yes) => Ok(yes.to_string()),
            Value::Number(number) => Ok(number.to_string()),
            _ => Err(Error::Key { line }),
        }
    }

    /// What comes later counts, as in Go's library.
    fn set(&mut self, map: &mut Map<String, Value>, line: usize, key: String, value: Value) -> Result<(), Error> {
        within(self.room.entry(map.len(), &key))?;
        if map.contains_key(&key) {
            self.twice.push(Twice { line, key: key.clone() });
        }
        map.insert(key, value);
        Ok(())
    }

    /// Of several maps the earlier ones count.
    fn merge(&mut self, map: &mut Map<String, Value>, line: usize, value: Value) -> Result<(), Error> {
        let all = match value {
            Value::Array(all) => all,
            one => vec![one],
        };
        for one in all.into_iter().rev() {
            let Value::Object(one) = one else { return Err(Error::Merge) };
            one.into_iter().try_for_each(|(key, value)| self.set(map, line, key, value))?;
        }
        Ok(())
    }
}

/// `<<`, unless it is quoted.
fn merges(event: &Event<'_>) -> bool {
    let Event::Scalar(text, style, _, tag) = event else { return false };
    text == MERGE && tag.as_ref().map_or(*style == ScalarStyle::Plain, |tag| tag.suffix_in_namespace(NAMESPACE).as_deref() == Some("merge"))
}

fn plain(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Scalar {
    if style == ScalarStyle::Plain && tag.is_none() { resolve(text) } else { Scalar::Text }
}

/// What a scalar is, unless it is its own text. Tags that nobody knows say nothing.
fn typed(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Result<Option<Value>, Error> {
    match tag.and_then(|tag| tag.suffix_in_namespace(NAMESPACE)).as_deref() {
        None => value_of(plain(text, style, tag)),
        Some("binary") => {
            let bytes = base64::decode(text).map_err(|_| Error::Binary)?;
            Ok(Some(Value::from(as_text(&bytes))))
        }
        Some(wanted @ ("bool" | "int" | "float" | "null" | "timestamp")) => demanded(text, wanted),
        Some(_) => Ok(None),
    }
}

/// Each byte that belongs to no character becomes one, as in Go.
fn as_text(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
    text
}

fn demanded(text: &str, wanted: &str) -> Result<Option<Value>, Error> {
    let scalar = resolve(text);
    let is = match scalar {
        Scalar::Null => "null",
        Scalar::Bool(_) => "bool",
        Scalar::Int(_) | Scalar::Uint(_) => "int",
        Scalar::Float(_) => "float",
        Scalar::Time => "timestamp",
        Scalar::Text => "str",
    };
    if is == wanted || (wanted == "float" && matches!(scalar, Scalar::Int(_))) {
        return value_of(scalar);
    }
    Err(Error::Tag { is, text: text.to_owned(), wanted: wanted.to_owned() })
}

fn value_of(scalar: Scalar) -> Result<Option<Value>, Error> {
    Ok(Some(match scalar {
        Scalar::Null => Value::Null,
        Scalar::Bool(yes) => Value::from(yes),
        Scalar::Int(number) => Value::from(number),
        Scalar::Uint(number) => Value::from(number),
        Scalar::Float(number) if number.is_finite() => scalars::float(number),
        Scalar::Float(number) => return Err(Error::NotFinite(not_finite(number))),
        Scalar::Time | Scalar::Text => return Ok(None),
    }))
}

fn not_finite(number: f64) -> &'static str {
    match number {
        n if n.is_nan() => "NaN",
        n if n > 0.0 => "+Inf",
        _ => "-Inf",
    }
}

fn nodes(value: &Value) -> usize {
    match value {
        Value::Array(list) => 1 + list.iter().map(nodes).sum::<usize>(),
        Value::Object(map) => 1 + map.values().map(nodes).sum::<usize>(),
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn tree(text: &str) -> Value {
        read(text, &Unbounded).unwrap_or_else(|e| panic!("{text}: {e}")).tree
    }

    fn words(text: &str) -> String {
        read(text, &Unbounded).map_or_else(|e| e.to_string(), |document| panic!("{}", document.tree))
    }

    #[test]
    fn documents() {
        for (text, value) in [
            ("", Value::Null),
            ("# nothing\n", Value::Null),
            ("---\na: 1\n---\nb: 2\n", json!({"a": 1})),
            (r#"{"a": [1, {"b": "c"}]}"#, json!({"a": [1, {"b": "c"}]})),
            (
                "a: yes\nb: \"yes\"\nc: 0644\nd: 1.0\ne: !!str 1\nf: !!binary aGk=\n",
                json!({"a": true, "b": "yes", "c": 420, "d": 1, "e": "1", "f": "hi"}),
            ),
            ("commit: 12e4567\nkey: nO\nnan: -.nan\n", json!({"commit": "12e4567", "key": "nO", "nan": "-.nan"})),
            ("5: x\nn: y\n\"y\": z\n1.5: f\n1e6: g\n", json!({"5": "x", "false": true, "y": "z", "1.5": "f", "1e+06": "g"})),
            ("a: !!float 1\nb: !mine 1\nc: ! 1\n", json!({"a": 1, "b": "1", "c": "1"})),
        ] {
            assert_eq!(tree(text), value, "{text}");
        }
    }

    #[test]
    fn aliases_and_merges() {
        assert_eq!(tree("x: &x\n  a: 1\nw:\n  <<: *x\n  b: 2\nz: *x\n"), json!({"x": {"a": 1}, "w": {"a": 1, "b": 2}, "z": {"a": 1}}));
        assert_eq!(tree("- &a {x: 1}\n- &b {x: 2, z: 2}\n- <<: [*a, *b]\n"), json!([{"x": 1}, {"x": 2, "z": 2}, {"x": 1, "z": 2}]));
        assert_eq!(tree("\"<<\": 1\na: <<\n"), json!({"<<": 1, "a": "<<"}));
        assert_eq!(words("a: *b\n"), "yaml: unknown anchor 'b' referenced");
        assert_eq!(words("a: &b [*b]\n"), "yaml: anchor 'b' value contains itself");
        assert_eq!(words("<<: x\n"), "yaml: map merge requires map or sequence of maps as the value");
        let laughs = (1..9).fold("a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned(), |text, i| {
            let row = vec![format!("*a{}", i - 1); 9].join(",");
            text + &format!("a{i}: &a{i} [{row}]\n")
        });
        assert_eq!(words(&laughs), "yaml: document contains excessive aliasing");
    }

    #[test]
    fn what_is_no_json() {
        assert_eq!(words("a: .inf\n"), "json: unsupported value: +Inf");
        assert_eq!(words("a: !!int 1.0\n"), "yaml: cannot decode !!float `1.0` as a !!int");
        assert_eq!(words("a: !!binary .\n"), "yaml: !!binary value contains invalid base64 data");
        assert_eq!(words("a: 1\n{}: 2\n"), "yaml: line 2: a key must be a text, a number or a boolean");
        assert_eq!(words("--- a: b\n"), "yaml: line 1: mapping values are not allowed in this context");
        assert!(words("a: [").starts_with("yaml: line "), "{}", words("a: ["));
        assert!(words(&"[".repeat(100_000)).starts_with("yaml: line 1: "));
    }

    #[test]
    fn keys_that_come_again() {
        let document = read("a: 1\nb:\n  c: 1\n  c: 2\na:\n  x: 3\n", &Unbounded).expect("YAML");
        assert_eq!(document.tree, json!({"a": {"x": 3}, "b": {"c": 2}}));
        assert_eq!(document.twice, [Twice { line: 4, key: "c".into() }, Twice { line: 6, key: "a".into() }]);
    }

    #[test]
    fn types() {
        assert_eq!(crate::from_str::<Vec<u8>>("[1, 0x10]"), Ok(vec![1, 16]));
        assert_eq!(crate::from_str::<HashMap<String, u8>>("a: 1\nb: null\n"), Ok(HashMap::from([("a".to_owned(), 1)])));
        let words = crate::from_str::<HashMap<String, Vec<u8>>>("nodes: [1, a]").expect_err("no number").to_string();
        assert!(words.starts_with("nodes[1]: invalid type: string \"a\""), "{words}");
    }
}
