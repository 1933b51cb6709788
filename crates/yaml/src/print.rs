//! A tree as YAML, the way `sigs.k8s.io/yaml` prints it: block style, keys in natural order, lists no deeper than the keys that hold them, long lines
//! folded behind 80 columns, and texts quoted where a reader of YAML 1.1 would take them for something else.
//!
//! Deliberately absent: U+2028 and U+2029 as line breaks; they are escaped, where upstream folds lines at them.

use std::cmp::Ordering;
use std::fmt::Display;

use serde_json::{Map, Number, Value};

use crate::scalars::{MERGE, Scalar, is_of_sixties, resolve};

/// Lines are folded at the first blank behind it.
const WIDTH: usize = 80;
/// Longer keys stand on a line of their own, behind a question mark.
const LONGEST_SIMPLE_KEY: usize = 128;

/// The document, with a newline at its end.
#[must_use]
pub fn print(value: &Value) -> String {
    let mut out = String::new();
    node(&mut out, value, 0, Place::Root);
    out.push('\n');
    out
}

/// Where a node stands: at the top, behind `key:`, or behind `- `, `? ` and `: ` on the same line.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    Root,
    Value,
    Inline,
}

/// `column`: that of the collection that the node is in.
fn node(out: &mut String, value: &Value, column: usize, place: Place) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            mapping(out, fields, if place == Place::Root { 0 } else { column + 2 }, place == Place::Value);
        }
        Value::Array(items) if !items.is_empty() => {
            let own = if place == Place::Inline { column + 2 } else { column };
            for (i, item) in items.iter().enumerate() {
                begin(out, own, i > 0 || place == Place::Value);
                out.push_str("- ");
                node(out, item, own, Place::Inline);
            }
        }
        scalar => {
            if place == Place::Value {
                out.push(' ');
            }
            match scalar {
                Value::Object(_) => out.push_str("{}"),
                Value::Array(_) => out.push_str("[]"),
                Value::Null => out.push_str("null"),
                Value::Bool(b) => out.push_str(if *b { "true" } else { "false" }),
                Value::Number(n) => out.push_str(&number(n)),
                Value::String(text) => write_text(out, text, column + 2, false),
            }
        }
    }
}

fn begin(out: &mut String, column: usize, new_line: bool) {
    if new_line {
        break_line(out, column);
    }
}

fn break_line(out: &mut String, column: usize) {
    out.push('\n');
    out.extend(std::iter::repeat_n(' ', column));
}

fn mapping(out: &mut String, fields: &Map<String, Value>, own: usize, new_line: bool) {
    let mut keys: Vec<&String> = fields.keys().collect();
    keys.sort_by(|a, b| natural(a, b));
    for (i, key) in keys.into_iter().enumerate() {
        begin(out, own, i > 0 || new_line);
        if key.len() <= LONGEST_SIMPLE_KEY && !key.contains(['\n', '\r']) {
            write_text(out, key, own + 2, true);
            out.push(':');
            node(out, &fields[key], own, Place::Value);
        } else {
            out.push_str("? ");
            write_text(out, key, own + 2, false);
            break_line(out, own);
            out.push_str(": ");
            node(out, &fields[key], own, Place::Inline);
        }
    }
}

/// Letters come behind everything else, and numbers within texts are compared as numbers.
fn natural(a: &str, b: &str) -> Ordering {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let Some(i) = (0..a.len().min(b.len())).find(|i| a[*i] != b[*i]) else { return a.len().cmp(&b.len()) };
    match (a[i].is_alphabetic(), b[i].is_alphabetic()) {
        (true, true) => return a[i].cmp(&b[i]),
        (false, true) => return Ordering::Less,
        (true, false) => return Ordering::Greater,
        (false, false) => {}
    }
    // Behind a digit that counts, a nought counts too.
    let digits = a[..i].iter().rev().take_while(|c| c.is_ascii_digit());
    let counts = (a[i] == '0' || b[i] == '0') && digits.into_iter().any(|c| *c != '0');
    let (x, y) = (run(&a[i..], counts), run(&b[i..], counts));
    x.cmp(&y).then_with(|| a[i].cmp(&b[i]))
}

/// The number that the digits at the beginning make, and how many they are.
fn run(text: &[char], counts: bool) -> (i64, usize) {
    let digits: Vec<i64> = text.iter().map_while(|c| c.to_digit(10)).map(i64::from).collect();
    let number = digits.iter().fold(i64::from(counts), |n, digit| n.wrapping_mul(10).wrapping_add(*digit));
    (number, digits.len())
}

/// Integers as they are, all others as Go's `%g` has them.
fn number(n: &Number) -> String {
    match n.as_f64().filter(|_| n.is_f64()) {
        Some(float) => general(&format!("{float:e}"), float),
        None => n.to_string(),
    }
}

/// A float as a key of JSON, which upstream makes of 32 bits.
pub(crate) fn float_key(float: f64) -> String {
    let short = float as f32;
    match short {
        _ if short.is_nan() => ".nan".to_owned(),
        _ if short.is_infinite() => if short > 0.0 { ".inf" } else { "-.inf" }.to_owned(),
        _ => general(&format!("{short:e}"), short),
    }
}

fn general(scientific: &str, float: impl Display) -> String {
    let Some((digits, exponent)) = scientific.split_once('e') else { return scientific.to_owned() };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..6).contains(&exponent) {
        return float.to_string();
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

#[derive(Clone, Copy, PartialEq)]
enum Style {
    Plain,
    Single,
    Double,
    Literal,
}

/// `indent`: where the lines of a text go on that takes several.
fn write_text(out: &mut String, text: &str, indent: usize, key: bool) {
    match style(text, key) {
        Style::Plain => folded(out, text, indent, !key, |out, c| out.push(c)),
        Style::Single => {
            out.push('\'');
            folded(out, text, indent, !key, |out, c| {
                if c == '\'' {
                    out.push('\'');
                }
                out.push(c);
            });
            out.push('\'');
        }
        Style::Double => double_quoted(out, text, indent, !key),
        Style::Literal => literal(out, text, indent),
    }
}

fn style(text: &str, key: bool) -> Style {
    let form = Form::of(text);
    if text.contains('\n') && !key {
        return if form.block { Style::Literal } else { Style::Double };
    }
    // Upstream prints the key of a merge plain where it is none, and cannot read that again.
    if is_other_type(text) || form.special || text.contains('\n') || (key && text == MERGE) {
        return Style::Double;
    }
    if form.plain { Style::Plain } else { Style::Single }
}

/// Which styles a text can be written in.
struct Form {
    plain: bool,
    block: bool,
    /// Some characters need escapes.
    special: bool,
}

impl Form {
    fn of(text: &str) -> Form {
        let chars: Vec<char> = text.chars().collect();
        let blank = |c: Option<&char>| c.is_none_or(|c| matches!(c, ' ' | '\t'));
        let mut indicators = text.starts_with("---") || text.starts_with("...");
        let mut special = false;
        for (i, c) in chars.iter().enumerate() {
            let followed = blank(chars.get(i + 1));
            indicators |= match c {
                '#' | ',' | '[' | ']' | '{' | '}' | '&' | '*' | '!' | '|' | '>' | '\'' | '"' | '%' | '@' | '`' if i == 0 => true,
                '?' | '-' if i == 0 => followed,
                ':' => followed,
                '#' => matches!(chars[i - 1], ' ' | '\t' | '\n'),
                _ => false,
            };
            special |= !is_printable(*c) || (*c == '\n' && i > 0 && chars[i - 1] == ' ');
        }
        let edges = [chars.first(), chars.last()].iter().any(|c| matches!(c, Some(' ' | '\n')));
        let trailing_blank = chars.last() == Some(&' ');
        Form { plain: !indicators && !special && !edges, block: !special && !trailing_blank, special }
    }
}

/// What YAML 1.1 readers take as it stands. Upstream's takes nothing beyond the basic plane.
fn is_printable(c: char) -> bool {
    matches!(c, '\n' | ' '..='~' | '\u{a0}'..='\u{2027}' | '\u{202a}'..='\u{d7ff}' | '\u{e000}'..='\u{fefe}' | '\u{ff00}'..='\u{fffd}')
}

/// Whether the text, unquoted, would be read as something else, by us or by readers that know numbers to the base of sixty.
fn is_other_type(text: &str) -> bool {
    resolve(text) != Scalar::Text || is_of_sixties(text)
}

/// Writes characters, and folds at single blanks once a line is long.
fn folded(out: &mut String, text: &str, indent: usize, fold: bool, mut write: impl FnMut(&mut String, char)) {
    let chars: Vec<char> = text.chars().collect();
    let mut column = column_of(out);
    for (i, c) in chars.iter().enumerate() {
        let single = *c == ' ' && i > 0 && chars[i - 1] != ' ' && chars.get(i + 1).is_some_and(|next| *next != ' ');
        if fold && single && column > WIDTH {
            break_line(out, indent);
            column = indent;
            continue;
        }
        let before = out.len();
        write(out, *c);
        column += out[before..].chars().count();
    }
}

fn column_of(out: &str) -> usize {
    out.rsplit('\n').next().map_or(0, |line| line.chars().count())
}

fn double_quoted(out: &mut String, text: &str, indent: usize, fold: bool) {
    let chars: Vec<char> = text.chars().collect();
    out.push('"');
    let mut column = column_of(out);
    for (i, c) in chars.iter().enumerate() {
        let inner = *c == ' ' && i > 0 && chars[i - 1] != ' ' && i + 1 < chars.len();
        if fold && inner && column > WIDTH {
            break_line(out, indent);
            column = indent;
            if chars[i + 1] == ' ' {
                out.push('\\');
                column += 1;
            }
            continue;
        }
        let before = out.len();
        escaped(out, *c);
        column += out[before..].chars().count();
    }
    out.push('"');
}

fn escaped(out: &mut String, c: char) {
    let short = match c {
        '\0' => '0',
        '\u{7}' => 'a',
        '\u{8}' => 'b',
        '\t' => 't',
        '\n' => 'n',
        '\u{b}' => 'v',
        '\u{c}' => 'f',
        '\r' => 'r',
        '\u{1b}' => 'e',
        '"' => '"',
        '\\' => '\\',
        '\u{85}' => 'N',
        '\u{2028}' => 'L',
        '\u{2029}' => 'P',
        c if is_printable(c) => return out.push(c),
        c => {
            let code = u32::from(c);
            return out.push_str(&match code {
                0..=0xff => format!("\\x{code:02X}"),
                0x100..=0xffff => format!("\\u{code:04X}"),
                _ => format!("\\U{code:08X}"),
            });
        }
    };
    out.push('\\');
    out.push(short);
}

/// `|`, how far it is indented where that cannot be seen, and what becomes of the newlines at its end.
fn literal(out: &mut String, text: &str, indent: usize) {
    out.push('|');
    if text.starts_with([' ', '\n']) {
        out.push('2');
    }
    if !text.ends_with('\n') {
        out.push('-');
    } else if text == "\n" || text.ends_with("\n\n") {
        out.push('+');
    }
    let lines = text.strip_suffix('\n').unwrap_or(text);
    for line in lines.split('\n') {
        if line.is_empty() {
            out.push('\n');
        } else {
            break_line(out, indent);
            out.push_str(line);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::{Unbounded, read};

    #[test]
    fn documents_are_upstreams() {
        let object = json!({
            "kind": "ConfigMap", "apiVersion": "v1", "empty": {}, "none": [], "nothing": null, "n": 5, "half": 0.5, "big": 1e21, "million": 1234567.5,
            "metadata": {"name": "a", "creationTimestamp": "2026-01-02T03:04:05Z", "labels": {"a10": "1", "a2": "yes", "b": "x y"}},
            "list": [{"a": 1, "b": [1, 2]}, ["x", ["y"]], "z"],
            "text": "one\ntwo\n", "strip": "one\n  two", "keep": "one\n\n", "lead": "  one\ntwo", "colon": "a: b", "hash": "a #b", "quote": "it's: so",
            "tab": "a\tb", "dash": "-", "dashed": "-x", "url": "http://x:80/", "sixties": "1:30", "octal": "0644", "version": "1.2.3", "date": "2026-13-01",
        });
        let expected = "apiVersion: v1\nbig: 1e+21\ncolon: 'a: b'\ndash: '-'\ndashed: -x\ndate: 2026-13-01\nempty: {}\nhalf: 0.5\nhash: 'a #b'\n\
             keep: |+\n  one\n\nkind: ConfigMap\nlead: |2-\n    one\n  two\nlist:\n- a: 1\n  b:\n  - 1\n  - 2\n- - x\n  - - \"y\"\n- z\n\
             metadata:\n  creationTimestamp: \"2026-01-02T03:04:05Z\"\n  labels:\n    a2: \"yes\"\n    a10: \"1\"\n    b: x y\n  name: a\n\
             million: 1.2345675e+06\n\"n\": 5\nnone: []\nnothing: null\noctal: \"0644\"\nquote: 'it''s: so'\nsixties: \"1:30\"\nstrip: |-\n  one\n    two\n\
             tab: \"a\\tb\"\ntext: |\n  one\n  two\nurl: http://x:80/\nversion: 1.2.3\n";
        assert_eq!(print(&object), expected);
    }

    #[test]
    fn long_lines_are_folded() {
        let words = ["word"; 30].join(" ");
        let printed = print(&json!({"message": words}));
        let lines: Vec<&str> = printed.lines().collect();
        assert_eq!(lines.len(), 2, "{printed}");
        assert!(lines[0].len() > WIDTH && lines[0].len() < WIDTH + 6 && lines[1].starts_with("  word"), "{printed}");
        let key = "k".repeat(130);
        assert_eq!(print(&json!({&key: {"a": 1}})), format!("? {key}\n: a: 1\n"));
    }

    fn tree() -> impl Strategy<Value = Value> {
        let text = prop_oneof![
            "[ -~\n\t]{0,40}",
            "\\PC{0,12}",
            "[0-9._:eExob+-]{0,12}",
            "([a-z:#'\"-]{1,9} {1,2}){0,20}",
            Just("yes".to_owned()),
            Just("nO".to_owned()),
            Just("~".to_owned()),
        ];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            (-1e9..1e9f64).prop_filter("a whole number is read as one", |f| f.fract() != 0.0).prop_map(Value::from),
            text.clone().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 6, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::btree_map("[a-zA-Z0-9./_-]{1,9}|[ -~\r\n]{1,6}|<<|[0-9]e[0-9]{4}", inner, 0..6)
                    .prop_map(|m| Value::Object(m.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(3000))]

        #[test]
        fn what_is_printed_is_read_again(value in tree()) {
            let printed = print(&value);
            let read = read(&printed, &Unbounded).map(|document| document.tree);
            prop_assert_eq!(read.as_ref(), Ok(&value), "{}", printed);
        }
    }
}
