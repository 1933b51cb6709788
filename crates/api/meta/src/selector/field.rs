use std::fmt;

use super::SelectorError;

/// One `field=value` or `field!=value`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FieldTerm {
    pub field: String,
    pub value: String,
    pub equals: bool,
}

/// All terms must hold; none means everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct FieldSelector {
    pub terms: Vec<FieldTerm>,
}

impl FieldSelector {
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut parts = split_terms(text);
        parts.sort_unstable();
        let mut terms = Vec::new();
        for part in parts.into_iter().filter(|p| !p.is_empty()) {
            let (field, equals, value) =
                split_term(part).ok_or_else(|| SelectorError(format!("invalid selector: '{text}'; can't understand '{part}'")))?;
            terms.push(FieldTerm { field: field.to_owned(), value: unescape(value)?, equals });
        }
        Ok(FieldSelector { terms })
    }

    pub fn equal(field: impl Into<String>, value: impl Into<String>) -> Self {
        FieldSelector { terms: vec![FieldTerm { field: field.into(), value: value.into(), equals: true }] }
    }

    pub fn is_everything(&self) -> bool {
        self.terms.is_empty()
    }

    /// `value_of` gives an object's value of a field; one that it does not have is the empty text.
    pub fn matches<'v>(&self, value_of: impl Fn(&str) -> Option<&'v str>) -> bool {
        self.terms.iter().all(|t| (value_of(&t.field).unwrap_or("") == t.value) == t.equals)
    }

    /// The value that the field must have exactly.
    pub fn exact(&self, field: &str) -> Option<&str> {
        self.terms.iter().find(|t| t.equals && t.field == field).map(|t| t.value.as_str())
    }
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, term) in self.terms.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            let op = if term.equals { "=" } else { "!=" };
            write!(f, "{comma}{}{op}{}", term.field, escape(&term.value))?;
        }
        Ok(())
    }
}

fn split_terms(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (i, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                parts.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn split_term(term: &str) -> Option<(&str, bool, &str)> {
    let at = term.find('=')?;
    if at > 0 && term[..at].ends_with('!') {
        return Some((&term[..at - 1], false, &term[at + 1..]));
    }
    let value = term[at + 1..].strip_prefix('=').unwrap_or(&term[at + 1..]);
    Some((&term[..at], true, value))
}

fn unescape(text: &str) -> Result<String, SelectorError> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(next @ ('\\' | ',' | '=')) => out.push(next),
                next => {
                    let sequence: String = std::iter::once('\\').chain(next).collect();
                    return Err(SelectorError(format!("invalid field selector: invalid escape sequence: {sequence}")));
                }
            },
            // Upstream prints the character's number.
            ',' | '=' => return Err(SelectorError(format!("invalid field selector: unescaped character in value: {}", c as u32))),
            c => out.push(c),
        }
    }
    Ok(out)
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_match_print() {
        let s = FieldSelector::parse("status.phase!=Running,metadata.name==a\\,b").unwrap();
        assert_eq!(s.to_string(), "metadata.name=a\\,b,status.phase!=Running");
        assert_eq!(s.exact("metadata.name"), Some("a,b"));
        let object = |phase: &'static str| {
            move |f: &str| match f {
                "metadata.name" => Some("a,b"),
                "status.phase" => Some(phase),
                _ => None,
            }
        };
        assert!(s.matches(object("Pending")));
        assert!(!s.matches(object("Running")));
        assert!(FieldSelector::parse("").unwrap().is_everything());
        assert!(FieldSelector::parse("spec.nodeName=").unwrap().matches(|_| None));
        assert_eq!(FieldSelector::parse("abc").unwrap_err().0, "invalid selector: 'abc'; can't understand 'abc'");
        assert_eq!(FieldSelector::parse("a=b=c").unwrap_err().0, "invalid field selector: unescaped character in value: 61");
    }
}
