//! `$(VAR)` in commands, arguments, environment values and subPathExpr. `$$(VAR)` stays as `$(VAR)`.

/// Replaces references that `lookup` knows; others stay as they are written.
pub(crate) fn expand(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some(after) = rest.strip_prefix('(') {
            match after.find(')') {
                Some(end) => {
                    let name = &after[..end];
                    out.push_str(&lookup(name).unwrap_or_else(|| format!("$({name})")));
                    rest = &after[end + 1..];
                }
                None => {
                    out.push_str("$(");
                    rest = after;
                }
            }
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    out
}

/// The names that a text refers to and `lookup` does not know.
pub(crate) fn missing(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Vec<String> {
    let unknown = std::cell::RefCell::new(Vec::new());
    expand(text, &|name| {
        let found = lookup(name);
        if found.is_none() {
            unknown.borrow_mut().push(name.to_owned());
        }
        found
    });
    unknown.into_inner()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        let lookup = |name: &str| match name {
            "A" => Some("1".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        for (text, expected) in [
            ("plain", "plain"),
            ("$(A)-$(A)", "1-1"),
            ("$(EMPTY)x", "x"),
            ("$(NO)", "$(NO)"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$1"),
            ("$A", "$A"),
            ("$(A", "$(A"),
            ("x$", "x$"),
            ("$()", "$()"),
        ] {
            assert_eq!(expand(text, &lookup), expected, "{text}");
        }
        assert_eq!(missing("$(A)/$(B)", &lookup), ["B"]);
    }
}
