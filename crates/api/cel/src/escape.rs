//! Names of fields as identifiers: `a-b` is `a__dash__b`, `namespace` is `__namespace__` (KEP-2876).

use crate::parser::RESERVED;

/// Words of the language that are tokens, not reserved identifiers.
const LITERALS: [&str; 4] = ["true", "false", "null", "in"];

fn is_reserved(name: &str) -> bool {
    RESERVED.contains(&name) || LITERALS.contains(&name)
}

/// None for names that no identifier can stand for.
pub(crate) fn escape(name: &str) -> Option<String> {
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    if is_reserved(name) {
        return Some(format!("__{name}__"));
    }
    let mut out = String::with_capacity(name.len());
    let mut chars = name.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '_' if chars.peek() == Some(&'_') => {
                chars.next();
                out.push_str("__underscores__");
            }
            '.' => out.push_str("__dot__"),
            '-' => out.push_str("__dash__"),
            '/' => out.push_str("__slash__"),
            c if c.is_ascii_alphanumeric() || c == '_' => out.push(c),
            _ => return None,
        }
    }
    Some(out)
}

/// Words of the language may be written plainly as names of fields.
pub(crate) fn reserved(name: &str) -> Option<String> {
    is_reserved(name).then(|| format!("__{name}__"))
}

#[cfg(test)]
mod tests {
    use super::escape;

    #[test]
    fn names() {
        for (name, escaped) in [
            ("spec", Some("spec")),
            ("a-b.c/d", Some("a__dash__b__dot__c__slash__d")),
            ("a__b", Some("a__underscores__b")),
            ("namespace", Some("__namespace__")),
            ("1a", None),
            ("", None),
            ("ä", None),
        ] {
            assert_eq!(escape(name).as_deref(), escaped);
        }
    }
}
