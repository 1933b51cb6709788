//! URLs as Go's `net/url` takes them apart.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::opaque::Opaque;
use crate::value::{Eval, Key, Map, Val, fail};

#[derive(Debug, PartialEq, Eq)]
pub struct Url {
    scheme: String,
    host: String,
    path: String,
    query: String,
}

pub(crate) fn call<'a>(name: &str, args: &[Val<'a>]) -> Option<Eval<Val<'a>>> {
    match (name, args) {
        ("url", [Val::Str(text)]) => {
            let parsed = parse(text).map(|u| Val::Opaque(Opaque::Url(Arc::new(u))));
            Some(parsed.or_else(|why| fail(format!("URL parse error during conversion from string: {why}"))))
        }
        ("isURL", [Val::Str(text)]) => Some(Ok(Val::Bool(parse(text).is_ok()))),
        (name, [Val::Opaque(Opaque::Url(url))]) => Some(Ok(match name {
            "getScheme" => Val::text(&url.scheme),
            "getHost" => Val::text(&url.host),
            "getHostname" => Val::text(host_and_port(&url.host).0),
            "getPort" => Val::text(host_and_port(&url.host).1),
            "getEscapedPath" => Val::text(&url.path),
            "getQuery" => query(&url.query),
            _ => return None,
        })),
        _ => None,
    }
}

fn host_and_port(host: &str) -> (&str, &str) {
    if let Some((inner, rest)) = host.strip_prefix('[').and_then(|h| h.split_once(']')) {
        return (inner, rest.strip_prefix(':').unwrap_or(""));
    }
    host.rsplit_once(':').unwrap_or((host, ""))
}

/// An absolute URL or an absolute path: what Go's `ParseRequestURI` takes.
pub(crate) fn parse(text: &str) -> Result<Url, String> {
    let refused = |why: &str| format!("parse {}: {why}", tiphys_meta::field::go_quote(text));
    if text.is_empty() {
        return Err(refused("empty url"));
    }
    if text.bytes().any(|b| b < 0x20 || b == 0x7f) {
        return Err(refused("net/url: invalid control character in URL"));
    }
    let (scheme, rest) = split_scheme(text).map_err(|why| refused(&why))?;
    let rest = rest.split_once('#').map_or(rest, |(before, _)| before);
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    if !rest.starts_with('/') && !scheme.is_empty() {
        // Opaque, as in `mailto:a@b`.
        return Ok(Url { scheme: scheme.to_ascii_lowercase(), host: String::new(), path: String::new(), query: query.into() });
    }
    if !rest.starts_with('/') {
        return Err(refused("invalid URI for request"));
    }
    let (host, path) = match rest.strip_prefix("//").filter(|_| !scheme.is_empty() || !rest.starts_with("///")) {
        Some(authority) => {
            let end = authority.find('/').unwrap_or(authority.len());
            (&authority[..end], &authority[end..])
        }
        None => ("", rest),
    };
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    check_host(host).map_err(|why| refused(&why))?;
    check_escapes(path).map_err(|why| refused(&why))?;
    Ok(Url { scheme: scheme.to_ascii_lowercase(), host: host.into(), path: escaped(path), query: query.into() })
}

fn split_scheme(text: &str) -> Result<(&str, &str), String> {
    for (i, c) in text.char_indices() {
        match c {
            'a'..='z' | 'A'..='Z' => {}
            '0'..='9' | '+' | '-' | '.' if i > 0 => {}
            ':' if i == 0 => return Err("missing protocol scheme".into()),
            ':' => return Ok((&text[..i], &text[i + 1..])),
            _ => return Ok(("", text)),
        }
    }
    Ok(("", text))
}

fn check_host(host: &str) -> Result<(), String> {
    let (_, port) = host_and_port(host);
    if !port.bytes().all(|b| b.is_ascii_digit()) {
        return Err(format!("invalid port {} after host", tiphys_meta::field::go_quote(&format!(":{port}"))));
    }
    if host.starts_with('[') && !host.contains(']') {
        return Err("missing ']' in host".into());
    }
    match host.chars().find(|c| " \"<>^`{|}\\".contains(*c)) {
        Some(c) => Err(format!("invalid character {} in host name", tiphys_meta::field::go_quote(&c.to_string()))),
        None => Ok(()),
    }
}

fn check_escapes(path: &str) -> Result<(), String> {
    let bytes = path.as_bytes();
    for (i, _) in bytes.iter().enumerate().filter(|(_, b)| **b == b'%') {
        let code = bytes.get(i + 1..i + 3).filter(|c| c.iter().all(u8::is_ascii_hexdigit));
        if code.is_none() {
            let shown: String = path[i..].chars().take(3).collect();
            return Err(format!("invalid URL escape {}", tiphys_meta::field::go_quote(&shown)));
        }
    }
    Ok(())
}

/// Bytes that may not stand in a path are escaped; what is escaped stays.
fn escaped(path: &str) -> String {
    let mut out = String::new();
    for b in path.bytes() {
        if b.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@!'()*%[]".contains(&b) {
            out.push(b as char);
        } else {
            out.push_str(&format!("%{b:02X}"));
        }
    }
    out
}

fn query<'a>(text: &str) -> Val<'a> {
    let mut found: BTreeMap<Key, Vec<Val<'a>>> = BTreeMap::new();
    for pair in text.split('&').filter(|p| !p.is_empty() && !p.contains(';')) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        if let (Some(key), Some(value)) = (unescape(key), unescape(value)) {
            found.entry(Key::Str(key.into())).or_default().push(Val::text(value));
        }
    }
    Val::Map(Map::Values(Arc::new(found.into_iter().map(|(k, v)| (k, Val::list(v))).collect())))
}

fn unescape(text: &str) -> Option<String> {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(b) = bytes.next() {
        match b {
            b'+' => out.push(b' '),
            b'%' => {
                let digit = |b: Option<u8>| (b? as char).to_digit(16);
                let (high, low) = (digit(bytes.next())?, digit(bytes.next())?);
                out.push((high * 16 + low) as u8);
            }
            b => out.push(b),
        }
    }
    Some(String::from_utf8_lossy(&out).into_owned())
}
