//! Taints of nodes and tolerations of pods.

use tiphys_meta::field::go_quote;

use crate::api::core::v1::{Taint, Toleration};

pub const NO_SCHEDULE: &str = "NoSchedule";
pub const PREFER_NO_SCHEDULE: &str = "PreferNoSchedule";
pub const NO_EXECUTE: &str = "NoExecute";

/// An empty effect means all effects, an empty key (with `Exists`) all keys. `Lt` and `Gt` compare whole numbers (KEP-5471, off by default upstream:
/// the API server refuses them then, so nothing is lost by knowing them here).
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let differs = |own: &Option<String>, theirs: &str| own.as_deref().is_some_and(|o| !o.is_empty() && o != theirs);
    if differs(&toleration.effect, &taint.effect) || differs(&toleration.key, &taint.key) {
        return false;
    }
    let (own, theirs) = (toleration.value.as_deref().unwrap_or(""), taint.value.as_deref().unwrap_or(""));
    match toleration.operator.as_deref().unwrap_or("") {
        "" | "Equal" => own == theirs,
        "Exists" => true,
        "Lt" => numbers(own, theirs).is_some_and(|(own, theirs)| theirs < own),
        "Gt" => numbers(own, theirs).is_some_and(|(own, theirs)| theirs > own),
        _ => false,
    }
}

fn numbers(a: &str, b: &str) -> Option<(i64, i64)> {
    // Canonical decimals only: no sign +, no leading zeros.
    let number = |s: &str| s.parse::<i64>().ok().filter(|n| n.to_string() == s);
    Some((number(a)?, number(b)?))
}

pub fn tolerated(tolerations: &[Toleration], taint: &Taint) -> bool {
    tolerations.iter().any(|t| tolerates(t, taint))
}

/// The first taint with one of `effects` that nothing tolerates.
pub fn untolerated<'t>(taints: &'t [Taint], tolerations: &[Toleration], effects: &[&str]) -> Option<&'t Taint> {
    taints.iter().find(|taint| effects.contains(&taint.effect.as_str()) && !tolerated(tolerations, taint))
}

/// A taint as messages print it: `{key: value}`.
pub fn describe(taint: &Taint) -> String {
    format!("{{{}: {}}}", taint.key, taint.value.as_deref().unwrap_or(""))
}

/// A taint as `key=value:effect`.
pub fn to_text(taint: &Taint) -> String {
    match taint.value.as_deref() {
        None | Some("") => format!("{}:{}", taint.key, taint.effect),
        Some(value) => format!("{}={value}:{}", taint.key, taint.effect),
    }
}

/// Reads `key[=value]:effect`, as `--register-with-taints` has it.
pub fn from_text(text: &str) -> Result<Taint, String> {
    let wrong = || format!("invalid taint spec: {}", go_quote(text));
    let (left, effect) = text.split_once(':').ok_or_else(wrong)?;
    if ![NO_SCHEDULE, PREFER_NO_SCHEDULE, NO_EXECUTE].contains(&effect) {
        return Err(wrong());
    }
    let (key, value) = left.split_once('=').map_or((left, None), |(k, v)| (k, Some(v.to_owned())));
    Ok(Taint { key: key.to_owned(), value, effect: effect.to_owned(), time_added: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn toleration(key: &str, operator: &str, value: &str, effect: &str) -> Toleration {
        let some = |s: &str| (!s.is_empty()).then(|| s.to_owned());
        Toleration { key: some(key), operator: some(operator), value: some(value), effect: some(effect), toleration_seconds: None }
    }

    #[test]
    fn matching() {
        let taint = from_text("k=v:NoSchedule").unwrap();
        for (key, operator, value, effect, yes) in [
            ("k", "", "v", "", true),
            ("k", "Equal", "v", "NoSchedule", true),
            ("k", "Equal", "x", "NoSchedule", false),
            ("k", "Exists", "", "NoExecute", false),
            ("", "Exists", "", "", true),
            ("x", "Exists", "", "", false),
            ("", "", "v", "", true),
            ("k", "Wrong", "v", "", false),
        ] {
            assert_eq!(tolerates(&toleration(key, operator, value, effect), &taint), yes, "{key} {operator} {value} {effect}");
        }
        let five = from_text("k=5:NoSchedule").unwrap();
        assert!(tolerates(&toleration("k", "Lt", "6", ""), &five));
        assert!(!tolerates(&toleration("k", "Gt", "6", ""), &five));
        assert!(!tolerates(&toleration("k", "Lt", "06", ""), &five));
    }

    #[test]
    fn first_untolerated() {
        let taints = [from_text("a:PreferNoSchedule").unwrap(), from_text("b:NoExecute").unwrap()];
        assert_eq!(untolerated(&taints, &[], &[NO_SCHEDULE, NO_EXECUTE]).map(|t| t.key.as_str()), Some("b"));
        assert_eq!(untolerated(&taints, &[toleration("", "Exists", "", "")], &[NO_SCHEDULE, NO_EXECUTE]), None);
    }
}
