use std::fmt;

use super::SelectorError;
use crate::field::{FieldError, Path};
use crate::names;
use crate::{ErrorList, ErrorType};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operator {
    In,
    NotIn,
    Equals,
    DoubleEquals,
    NotEquals,
    Exists,
    DoesNotExist,
    GreaterThan,
    LessThan,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Requirement {
    pub key: String,
    pub operator: Operator,
    /// Sorted, each once.
    pub values: Vec<String>,
}

/// All requirements must hold; none means everything.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum LabelSelector {
    Nothing,
    Requirements(Vec<Requirement>),
}

impl Default for LabelSelector {
    fn default() -> Self {
        LabelSelector::EVERYTHING
    }
}

impl LabelSelector {
    pub const EVERYTHING: LabelSelector = LabelSelector::Requirements(Vec::new());

    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        Parser { tokens: scan(text), position: 0 }.selector().map(Self::from_requirements).map_err(SelectorError)
    }

    pub fn from_requirements(mut requirements: Vec<Requirement>) -> Self {
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        LabelSelector::Requirements(requirements)
    }

    /// Equality with every pair (a Service's selector, `matchLabels`).
    pub fn from_labels<'a>(labels: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let equal =
            |(key, value): (&str, &str)| Requirement { key: key.to_owned(), operator: Operator::Equals, values: vec![value.to_owned()] };
        Self::from_requirements(labels.into_iter().map(equal).collect())
    }

    pub fn is_everything(&self) -> bool {
        matches!(self, LabelSelector::Requirements(r) if r.is_empty())
    }

    /// `value_of` looks a label up.
    pub fn matches<'v>(&self, value_of: impl Fn(&str) -> Option<&'v str>) -> bool {
        match self {
            LabelSelector::Nothing => false,
            LabelSelector::Requirements(all) => all.iter().all(|r| r.matches(value_of(&r.key))),
        }
    }

    /// Against the labels of an object's tree.
    pub fn matches_object(&self, object: &serde_json::Value) -> bool {
        let labels = object.get("metadata").and_then(|m| m.get("labels"));
        self.matches(|key| labels.and_then(|l| l.get(key)).and_then(serde_json::Value::as_str))
    }

    /// Against the labels of a typed object.
    pub fn matches_map(&self, labels: Option<&std::collections::BTreeMap<String, String>>) -> bool {
        self.matches(|key| labels.and_then(|l| l.get(key)).map(String::as_str))
    }
}

impl Requirement {
    /// With upstream's checks of key, operator and values.
    pub fn new(key: &str, operator: Operator, mut values: Vec<String>) -> Result<Self, String> {
        values.sort_unstable();
        values.dedup();
        let errors = check(key, operator, &values);
        if errors.is_empty() { Ok(Requirement { key: key.to_owned(), operator, values }) } else { Err(errors.message()) }
    }

    pub fn matches(&self, value: Option<&str>) -> bool {
        let has = |v: &str| self.values.iter().any(|known| known == v);
        match self.operator {
            Operator::In | Operator::Equals | Operator::DoubleEquals => value.is_some_and(has),
            Operator::NotIn | Operator::NotEquals => !value.is_some_and(has),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan => self.compares(value, |label, bound| label > bound),
            Operator::LessThan => self.compares(value, |label, bound| label < bound),
        }
    }

    fn compares(&self, value: Option<&str>, holds: fn(i64, i64) -> bool) -> bool {
        let number = |s: &str| s.parse::<i64>().ok();
        let bound = if let [only] = &self.values[..] { number(only) } else { None };
        match (value.and_then(number), bound) {
            (Some(label), Some(bound)) => holds(label, bound),
            _ => false,
        }
    }
}

fn check(key: &str, operator: Operator, values: &[String]) -> ErrorList {
    let mut errors = ErrorList::new();
    let values_path = Path::new("values");
    check_key(&mut errors, &Path::new("key"), key);
    let complaint = match operator {
        Operator::In | Operator::NotIn if values.is_empty() => Some("for 'in', 'notin' operators, values set can't be empty"),
        Operator::Equals | Operator::DoubleEquals | Operator::NotEquals if values.len() != 1 => {
            Some("exact-match compatibility requires one single value")
        }
        Operator::Exists | Operator::DoesNotExist if !values.is_empty() => Some("values set must be empty for exists and does not exist"),
        Operator::GreaterThan | Operator::LessThan if values.len() != 1 => Some("for 'Gt', 'Lt' operators, exactly one value is required"),
        _ => None,
    };
    if let Some(complaint) = complaint {
        errors.invalid(&values_path, values.to_vec(), complaint);
    }
    for (i, value) in values.iter().enumerate() {
        let path = values_path.index(i);
        if matches!(operator, Operator::GreaterThan | Operator::LessThan) && value.parse::<i64>().is_err() {
            errors.invalid(&path, value.as_str(), "for 'Gt', 'Lt' operators, the value must be an integer");
        }
        let messages = names::label_value(value);
        if !messages.is_empty() {
            errors.invalid(&path.key(key), value.as_str(), messages.join("; "));
        }
    }
    errors
}

fn check_key(errors: &mut ErrorList, path: &Path<'_>, key: &str) {
    let messages = names::qualified_name(key);
    if !messages.is_empty() {
        errors.push(FieldError::new(ErrorType::Invalid, path, key, messages.join("; ")));
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LabelSelector::Requirements(requirements) = self else { return Ok(()) };
        for (i, requirement) in requirements.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            requirement.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let values = self.values.join(",");
        match self.operator {
            Operator::Exists => f.write_str(&self.key),
            Operator::DoesNotExist => write!(f, "!{}", self.key),
            Operator::Equals => write!(f, "{}={values}", self.key),
            Operator::DoubleEquals => write!(f, "{}=={values}", self.key),
            Operator::NotEquals => write!(f, "{}!={values}", self.key),
            Operator::GreaterThan => write!(f, "{}>{values}", self.key),
            Operator::LessThan => write!(f, "{}<{values}", self.key),
            Operator::In => write!(f, "{} in ({values})", self.key),
            Operator::NotIn => write!(f, "{} notin ({values})", self.key),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token<'a> {
    End,
    Close,
    Open,
    Comma,
    Not,
    Op(Operator, &'a str),
    Word(&'a str),
    Bad(&'a str),
}

impl<'a> Token<'a> {
    fn text(self) -> String {
        match self {
            Token::End => String::new(),
            Token::Close => ")".into(),
            Token::Open => "(".into(),
            Token::Comma => ",".into(),
            Token::Not => "!".into(),
            Token::Op(_, text) | Token::Word(text) => text.into(),
            Token::Bad(text) => format!("error expected: keyword found '{text}'"),
        }
    }

    /// Where a name or value stands, `in` and `notin` are names too.
    fn as_word(self) -> Token<'a> {
        match self {
            Token::Op(Operator::In | Operator::NotIn, text) => Token::Word(text),
            other => other,
        }
    }
}

fn scan(text: &str) -> Vec<Token<'_>> {
    let special = |c: char| "=!(),<>".contains(c);
    let blank = |c: char| " \t\r\n".contains(c);
    let mut tokens = Vec::new();
    let mut rest = text.trim_start_matches(blank);
    while let Some(first) = rest.chars().next() {
        let length = if special(first) {
            let (token, length) = symbol(rest);
            tokens.push(token);
            length
        } else {
            let end = rest.find(|c| special(c) || blank(c)).unwrap_or(rest.len());
            tokens.push(match &rest[..end] {
                "in" => Token::Op(Operator::In, "in"),
                "notin" => Token::Op(Operator::NotIn, "notin"),
                word => Token::Word(word),
            });
            end
        };
        rest = rest[length..].trim_start_matches(blank);
    }
    tokens.push(Token::End);
    tokens
}

fn symbol(rest: &str) -> (Token<'_>, usize) {
    let two = rest.get(..2);
    match (two, rest.as_bytes()[0]) {
        (Some("=="), _) => (Token::Op(Operator::DoubleEquals, "=="), 2),
        (Some("!="), _) => (Token::Op(Operator::NotEquals, "!="), 2),
        (_, b'=') => (Token::Op(Operator::Equals, "="), 1),
        (_, b'>') => (Token::Op(Operator::GreaterThan, ">"), 1),
        (_, b'<') => (Token::Op(Operator::LessThan, "<"), 1),
        (_, b'(') => (Token::Open, 1),
        (_, b')') => (Token::Close, 1),
        (_, b',') => (Token::Comma, 1),
        (_, b'!') => (Token::Not, 1),
        _ => (Token::Bad(&rest[..1]), 1),
    }
}

struct Parser<'a> {
    tokens: Vec<Token<'a>>,
    position: usize,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Token<'a> {
        self.tokens.get(self.position).copied().unwrap_or(Token::End)
    }

    fn next(&mut self) -> Token<'a> {
        let token = self.peek();
        self.position += 1;
        token
    }

    fn selector(mut self) -> Result<Vec<Requirement>, String> {
        let mut requirements = Vec::new();
        loop {
            match self.peek().as_word() {
                Token::End => return Ok(requirements),
                Token::Word(_) | Token::Not => {}
                other => return Err(format!("found '{}', expected: !, identifier, or 'end of string'", other.text())),
            }
            requirements.push(self.requirement().map_err(|e| format!("unable to parse requirement: {e}"))?);
            match self.next() {
                Token::End => return Ok(requirements),
                Token::Comma => {}
                other => return Err(format!("found '{}', expected: ',' or 'end of string'", other.text())),
            }
            let after = self.peek().as_word();
            if !matches!(after, Token::Word(_) | Token::Not) {
                return Err(format!("found '{}', expected: identifier after ','", after.text()));
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let mut token = self.next().as_word();
        let negated = token == Token::Not;
        if negated {
            token = self.next().as_word();
        }
        let Token::Word(key) = token else { return Err(format!("found '{}', expected: identifier", token.text())) };
        let mut errors = ErrorList::new();
        check_key(&mut errors, &Path::ROOT, key);
        if !errors.is_empty() {
            return Err(errors.message());
        }
        if negated {
            return Requirement::new(key, Operator::DoesNotExist, Vec::new());
        }
        if matches!(self.peek(), Token::End | Token::Comma) {
            return Requirement::new(key, Operator::Exists, Vec::new());
        }
        let operator = match self.next() {
            Token::Op(operator, _) => operator,
            other => return Err(format!("found '{}', expected: in, notin, =, ==, !=, gt, lt", other.text())),
        };
        let values = match operator {
            Operator::In | Operator::NotIn => self.values()?,
            _ => vec![self.exact_value()?],
        };
        Requirement::new(key, operator, values)
    }

    fn exact_value(&mut self) -> Result<String, String> {
        if matches!(self.peek(), Token::End | Token::Comma) {
            return Ok(String::new());
        }
        match self.next().as_word() {
            Token::Word(value) => Ok(value.to_owned()),
            other => Err(format!("found '{}', expected: identifier", other.text())),
        }
    }

    fn values(&mut self) -> Result<Vec<String>, String> {
        let open = self.next();
        if open != Token::Open {
            return Err(format!("found '{}' expected: '('", open.text()));
        }
        let mut values = Vec::new();
        let mut value = None;
        loop {
            match self.next().as_word() {
                Token::Word(word) if value.is_none() => value = Some(word),
                Token::Word(word) => return Err(format!("found '{word}', expected: ',' or ')'")),
                // An empty place between commas is the empty value.
                Token::Comma => values.push(value.take().unwrap_or("").to_owned()),
                Token::Close => {
                    values.push(value.unwrap_or("").to_owned());
                    return Ok(values);
                }
                other => return Err(format!("found '{}', expected: ',', ')' or identifier", other.text())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(selector: &str, labels: &[(&str, &str)]) -> bool {
        LabelSelector::parse(selector).unwrap().matches(|k| labels.iter().find(|(key, _)| *key == k).map(|(_, v)| *v))
    }

    #[test]
    fn parse_and_print() {
        let cases = [
            ("", ""),
            ("x=a,y=b,z=c", "x=a,y=b,z=c"),
            ("y=b,x=a", "x=a,y=b"),
            ("x in (b, a)", "x in (a,b)"),
            ("x notin (a),!y,z", "x notin (a),!y,z"),
            ("x==a", "x==a"),
            ("x!=a", "x!=a"),
            ("x=", "x="),
            ("x>1,z<5", "x>1,z<5"),
            ("in in (in)", "in in (in)"),
            ("a.io/b = d", "a.io/b=d"),
        ];
        for (text, printed) in cases.iter() {
            assert_eq!(LabelSelector::parse(text).unwrap().to_string(), *printed, "{text}");
        }
    }

    #[test]
    fn matching() {
        let labels = &[("x", "a"), ("n", "3")];
        for yes in ["", "x", "x=a", "x==a", "x!=b", "x in (a,b)", "x notin (b)", "!y", "y!=a", "y notin (a)", "n>2", "n<4"] {
            assert!(matches(yes, labels), "{yes}");
        }
        for no in ["!x", "y", "x=b", "x notin (a)", "x in (b)", "n>3", "x>1"] {
            assert!(!matches(no, labels), "{no}");
        }
        assert!(!LabelSelector::Nothing.matches(|_| None));
    }

    #[test]
    fn errors_are_upstreams() {
        let cases = [
            ("x,", "found '', expected: identifier after ','"),
            (",x", "found ',', expected: !, identifier, or 'end of string'"),
            ("x y", "unable to parse requirement: found 'y', expected: in, notin, =, ==, !=, gt, lt"),
            ("x in a", "unable to parse requirement: found 'a' expected: '('"),
        ];
        for (text, message) in cases.iter() {
            assert_eq!(LabelSelector::parse(text).unwrap_err().0, *message, "{text}");
        }
        assert!(LabelSelector::parse("-x=a").is_err());
        assert!(LabelSelector::parse("x>a").is_err());
    }
}
