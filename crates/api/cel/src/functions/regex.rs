//! `matches`, `find`, `findAll`.

use regex::Regex;
use tiphys_schema::re2;

use crate::value::{Eval, Val, fail};

pub(crate) fn call<'a>(name: &str, args: &[Val<'a>]) -> Option<Eval<Val<'a>>> {
    let (Val::Str(text), Val::Str(pattern)) = (args.first()?, args.get(1)?) else { return None };
    if !matches!(name, "matches" | "find" | "findAll") {
        return None;
    }
    Some(match re2::compile_met(pattern) {
        Ok(regex) => run(name, &regex, text, args.get(2)),
        Err(why) if name == "matches" => fail(why),
        Err(why) => fail(format!("Illegal regex: {why}")),
    })
}

/// The functions on a pattern that has been compiled.
pub(crate) fn run<'a>(name: &str, regex: &Regex, text: &str, limit: Option<&Val<'a>>) -> Eval<Val<'a>> {
    Ok(match name {
        "matches" => Val::Bool(regex.is_match(text)),
        "find" => Val::text(regex.find(text).map_or("", |m| m.as_str())),
        _ => {
            let limit = match limit {
                Some(Val::Int(n)) => usize::try_from(*n).unwrap_or(usize::MAX),
                _ => usize::MAX,
            };
            Val::list(regex.find_iter(text).take(limit).map(|m| Val::text(m.as_str())).collect())
        }
    })
}
