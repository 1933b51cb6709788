//! Strings: cel-go's extension, version 2.

use super::text_format;
use crate::convert::string;
use crate::value::{Eval, Val, fail};

pub(crate) fn call<'a>(name: &str, args: &[Val<'a>]) -> Option<Eval<Val<'a>>> {
    let text = match args.first()? {
        Val::Str(text) => text,
        Val::List(list) if name == "join" => return Some(join(list.iter(), args.get(1))),
        _ => return None,
    };
    Some(match (name, &args[1..]) {
        ("charAt", [Val::Int(at)]) => char_at(text, *at),
        ("indexOf", [Val::Str(part)]) => index_of(text, part, 0),
        ("indexOf", [Val::Str(part), Val::Int(from)]) => index_of(text, part, *from),
        ("lastIndexOf", [Val::Str(part)]) => last_index_of(text, part, None),
        ("lastIndexOf", [Val::Str(part), Val::Int(from)]) => last_index_of(text, part, Some(*from)),
        ("lowerAscii", []) => Ok(Val::text(text.to_ascii_lowercase())),
        ("upperAscii", []) => Ok(Val::text(text.to_ascii_uppercase())),
        ("replace", [Val::Str(old), Val::Str(new)]) => Ok(Val::text(text.replace(&**old, new))),
        ("replace", [Val::Str(old), Val::Str(new), Val::Int(n)]) => Ok(Val::text(replace(text, old, new, *n))),
        ("split", [Val::Str(by)]) => Ok(split(text, by, -1)),
        ("split", [Val::Str(by), Val::Int(n)]) => Ok(split(text, by, *n)),
        ("substring", [Val::Int(start)]) => substring(text, *start, None),
        ("substring", [Val::Int(start), Val::Int(end)]) => substring(text, *start, Some(*end)),
        ("trim", []) => Ok(Val::text(text.trim())),
        ("format", [Val::List(values)]) => text_format::format(text, values).map(Val::text),
        ("strings.quote", []) => Ok(Val::text(quote(text))),
        ("jsonpatch.escapeKey", []) => Ok(Val::text(text.replace('~', "~0").replace('/', "~1"))),
        _ => return None,
    })
}

fn out_of_range<T>(at: i64) -> Eval<T> {
    fail(format!("index out of range: {at}"))
}

fn position(at: i64, length: usize) -> Option<usize> {
    usize::try_from(at).ok().filter(|at| *at <= length)
}

fn char_at<'a>(text: &str, at: i64) -> Eval<Val<'a>> {
    let length = text.chars().count();
    let Some(at_index) = position(at, length) else { return out_of_range(at) };
    Ok(Val::text(text.chars().nth(at_index).map(String::from).unwrap_or_default()))
}

fn index_of<'a>(text: &str, part: &str, from: i64) -> Eval<Val<'a>> {
    if part.is_empty() {
        return Ok(Val::Int(from));
    }
    let chars: Vec<char> = text.chars().collect();
    let Some(start) = position(from, chars.len()) else { return out_of_range(from) };
    let part: Vec<char> = part.chars().collect();
    let found = chars[start..].windows(part.len()).position(|w| w == part);
    Ok(Val::Int(found.map_or(-1, |i| (i + start) as i64)))
}

fn last_index_of<'a>(text: &str, part: &str, from: Option<i64>) -> Eval<Val<'a>> {
    let chars: Vec<char> = text.chars().collect();
    if part.is_empty() {
        return Ok(Val::Int(from.unwrap_or(chars.len() as i64)));
    }
    let part: Vec<char> = part.chars().collect();
    let last = match from {
        None => chars.len(),
        Some(from) => match position(from, chars.len().saturating_sub(1)) {
            Some(last) => last,
            None => return out_of_range(from),
        },
    };
    let found = chars.windows(part.len()).enumerate().rfind(|(i, w)| *i <= last && *w == part);
    Ok(Val::Int(found.map_or(-1, |(i, _)| i as i64)))
}

fn replace(text: &str, old: &str, new: &str, n: i64) -> String {
    match usize::try_from(n) {
        Ok(n) => text.replacen(old, new, n),
        Err(_) => text.replace(old, new),
    }
}

fn split<'a>(text: &str, by: &str, n: i64) -> Val<'a> {
    let parts: Vec<String> = match (usize::try_from(n), by.is_empty()) {
        (Ok(0), _) => Vec::new(),
        // Go splits at every character where there is nothing to split by.
        (Ok(n), true) => {
            let chars: Vec<char> = text.chars().collect();
            let single = n.min(chars.len()).saturating_sub(1);
            let mut parts: Vec<String> = chars[..single].iter().map(|c| c.to_string()).collect();
            parts.extend((!chars.is_empty()).then(|| chars[single..].iter().collect()));
            parts
        }
        (Err(_), true) => text.chars().map(String::from).collect(),
        (Ok(n), false) => text.splitn(n, by).map(str::to_owned).collect(),
        (Err(_), false) => text.split(by).map(str::to_owned).collect(),
    };
    Val::list(parts.into_iter().map(Val::text).collect())
}

fn substring<'a>(text: &str, start: i64, end: Option<i64>) -> Eval<Val<'a>> {
    let chars: Vec<char> = text.chars().collect();
    let length = chars.len() as i64;
    let last = end.unwrap_or(length);
    if end.is_some() && start > last {
        return fail(format!("invalid substring range. start: {start}, end: {last}"));
    }
    match (position(start, chars.len()), position(last, chars.len())) {
        (Some(from), Some(to)) => Ok(Val::text(chars[from..to].iter().collect::<String>())),
        (None, _) => out_of_range(start),
        (_, None) => out_of_range(last),
    }
}

fn join<'a>(items: impl Iterator<Item = Val<'a>>, by: Option<&Val<'a>>) -> Eval<Val<'a>> {
    let by = by.map(string).transpose()?.unwrap_or("");
    let mut out = String::new();
    for (i, item) in items.enumerate() {
        let Val::Str(item) = &item else { return fail(format!("join: invalid input: {item:?}")) };
        if i > 0 {
            out.push_str(by);
        }
        out.push_str(item);
    }
    Ok(Val::text(out))
}

/// A literal that reads as the string again.
pub(crate) fn quote(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
