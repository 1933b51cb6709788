//! Arithmetic of rollouts: `maxSurge`, `maxUnavailable`, and the hash that names a pod template.

use serde::Serialize;
use tiphys_meta::generate_name::safe_encode;
use tiphys_meta::intstr::Round;

use crate::apimachinery::pkg::util::intstr::IntOrString;

/// A number, or a percentage of `total`. `None` where the text is neither.
pub fn scaled(value: &IntOrString, total: i32, round: Round) -> Option<i32> {
    let value = match value {
        IntOrString::Int(n) => tiphys_meta::IntOrString::Int(*n),
        IntOrString::String(s) => tiphys_meta::IntOrString::String(s.clone()),
    };
    value.scaled(total, round)
}

/// `(surge, unavailable)`: surge rounds up, unavailable down; both zero would stop every rollout, so one pod may be missing then.
pub fn resolve_fenceposts(max_surge: Option<&IntOrString>, max_unavailable: Option<&IntOrString>, desired: i32) -> Option<(i32, i32)> {
    let resolve = |value: Option<&IntOrString>, round| value.map_or(Some(0), |v| scaled(v, desired, round));
    let (surge, unavailable) = (resolve(max_surge, Round::Up)?, resolve(max_unavailable, Round::Down)?);
    Some((surge, if surge == 0 && unavailable == 0 { 1 } else { unavailable }))
}

/// `pod-template-hash`: FNV-1a over a stable encoding of the template, and the collision count. Upstream hashes Go's dump of the struct, so the
/// letters differ from upstream's; nobody else may rely on them, for upstream's change with each new field as well.
pub fn template_hash<T: Serialize>(template: &T, collision_count: Option<i32>) -> String {
    let mut hash = Fnv32::new();
    // A `Value` keeps its maps sorted, so the encoding does not depend on the order in the program's types.
    let encoded = serde_json::to_value(template).map(|v| v.to_string()).unwrap_or_default();
    hash.write(encoded.as_bytes());
    if let Some(count) = collision_count {
        hash.write(&[count.to_le_bytes(), [0; 4]].concat());
    }
    safe_encode(&hash.0.to_string())
}

/// FNV-1a with 32 bits.
pub struct Fnv32(pub u32);

impl Fnv32 {
    pub fn new() -> Self {
        Fnv32(0x811c_9dc5)
    }

    pub fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
        }
    }
}

impl Default for Fnv32 {
    fn default() -> Self {
        Fnv32::new()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fenceposts() {
        let percent = |s: &str| IntOrString::String(s.into());
        for (surge, unavailable, desired, expected) in [
            (percent("25%"), percent("25%"), 10, (3, 2)),
            (percent("0%"), percent("0%"), 10, (0, 1)),
            (percent("0%"), percent("25%"), 1, (0, 1)),
            (IntOrString::Int(1), IntOrString::Int(0), 10, (1, 0)),
            (percent("34%"), percent("25%"), 3, (2, 0)),
        ] {
            assert_eq!(resolve_fenceposts(Some(&surge), Some(&unavailable), desired), Some(expected));
        }
        assert_eq!(resolve_fenceposts(None, None, 3), Some((0, 1)));
        assert_eq!(resolve_fenceposts(Some(&percent("x")), None, 3), None);
    }

    #[test]
    fn hashes() {
        let mut fnv = Fnv32::new();
        fnv.write(b"foobar");
        assert_eq!(fnv.0, 0xbf9c_f968);
        let a = template_hash(&json!({"spec": {"a": 1}}), None);
        assert_eq!(a, template_hash(&json!({"spec": {"a": 1}}), None));
        assert_ne!(a, template_hash(&json!({"spec": {"a": 2}}), None));
        assert_ne!(a, template_hash(&json!({"spec": {"a": 1}}), Some(0)));
        assert!(tiphys_meta::names::label_value(&a).is_empty());
    }
}
