//! Semantic versions (semver.org 2.0), strict or with what is left out filled in.

use std::cmp::Ordering;
use std::sync::Arc;

use super::opaque::Opaque;
use super::quantity::sign;
use crate::value::{Eval, Val, fail};

#[derive(Debug, Clone)]
pub struct Semver {
    numbers: [u64; 3],
    before: Vec<Identifier>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Identifier {
    Number(u64),
    Text(String),
}

impl PartialEq for Semver {
    fn eq(&self, other: &Semver) -> bool {
        self.order(other) == Ordering::Equal
    }
}

impl Semver {
    /// Builds do not count.
    fn order(&self, other: &Semver) -> Ordering {
        self.numbers.cmp(&other.numbers).then_with(|| match (self.before.is_empty(), other.before.is_empty()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            (false, false) => self.before.cmp(&other.before),
        })
    }
}

pub(crate) fn call<'a>(name: &str, args: &[Val<'a>]) -> Option<Eval<Val<'a>>> {
    let parsed = match args {
        [Val::Str(text)] => Some(parse(text)),
        [Val::Str(text), Val::Bool(loose)] => Some(if *loose { normalize(text).and_then(|t| parse(&t)) } else { parse(text) }),
        _ => None,
    };
    match (name, parsed) {
        ("semver", Some(parsed)) => return Some(parsed.map(|v| Val::Opaque(Opaque::Semver(Arc::new(v)))).or_else(fail)),
        ("isSemver", Some(parsed)) => return Some(Ok(Val::Bool(parsed.is_ok()))),
        _ => {}
    }
    let Val::Opaque(Opaque::Semver(v)) = args.first()? else { return None };
    let number = |i: usize| Val::Int(i64::try_from(v.numbers[i]).unwrap_or(i64::MAX));
    Some(Ok(match (name, &args[1..]) {
        ("major", []) => number(0),
        ("minor", []) => number(1),
        ("patch", []) => number(2),
        ("isGreaterThan", [Val::Opaque(Opaque::Semver(o))]) => Val::Bool(v.order(o) == Ordering::Greater),
        ("isLessThan", [Val::Opaque(Opaque::Semver(o))]) => Val::Bool(v.order(o) == Ordering::Less),
        ("compareTo", [Val::Opaque(Opaque::Semver(o))]) => Val::Int(sign(v.order(o))),
        _ => return None,
    }))
}

fn normalize(text: &str) -> Result<String, String> {
    let text = text.strip_prefix('v').unwrap_or(text);
    let mut parts: Vec<String> = text.splitn(3, '.').map(str::to_owned).collect();
    for part in parts.iter_mut().filter(|p| p.len() > 1) {
        let trimmed = part.trim_start_matches('0');
        *part = if trimmed.starts_with(|c: char| c.is_ascii_digit()) { trimmed.to_owned() } else { format!("0{trimmed}") };
    }
    if parts.len() < 3 {
        if parts.last().is_some_and(|p| p.contains(['+', '-'])) {
            return Err("short version cannot contain PreRelease/Build meta data".into());
        }
        parts.resize(3, "0".into());
    }
    Ok(parts.join("."))
}

fn parse(text: &str) -> Result<Semver, String> {
    if text.is_empty() {
        return Err("Version string empty".into());
    }
    let (rest, build) = text.split_once('+').map_or((text, None), |(r, b)| (r, Some(b)));
    let (numbers, before) = rest.split_once('-').map_or((rest, None), |(n, b)| (n, Some(b)));
    let parts: Vec<&str> = numbers.split('.').collect();
    let [major, minor, patch] = parts[..] else { return Err("No Major.Minor.Patch elements found".into()) };
    let numbers = [number(major)?, number(minor)?, number(patch)?];
    let fine = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if build.is_some_and(|b| !b.split('.').all(fine)) {
        return Err(format!("Invalid character(s) found in build meta data {text:?}"));
    }
    let mut identifiers = Vec::new();
    for part in before.into_iter().flat_map(|b| b.split('.')) {
        if !fine(part) {
            return Err(format!("Invalid character(s) found in prerelease {part:?}"));
        }
        let numeric = part.bytes().all(|b| b.is_ascii_digit());
        identifiers.push(if numeric { Identifier::Number(number(part)?) } else { Identifier::Text(part.into()) });
    }
    Ok(Semver { numbers, before: identifiers })
}

fn number(text: &str) -> Result<u64, String> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(format!("Invalid character(s) found in major number {text:?}"));
    }
    if text.len() > 1 && text.starts_with('0') {
        return Err(format!("Version number must not contain leading zeroes {text:?}"));
    }
    text.parse().map_err(|_| format!("strconv.ParseUint: parsing {text:?}: value out of range"))
}
