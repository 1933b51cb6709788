//! Chance for jitter and for name suffixes; nothing here is fit for secrets.

use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

/// The standard library seeds each `RandomState` from the system and counts on from there: good enough to spread timers.
pub fn any_u64() -> u64 {
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}

/// A number in `0..below`; `below` 0 gives 0.
pub fn below(below: u64) -> u64 {
    if below == 0 { 0 } else { any_u64() % below }
}

/// `base` plus up to `fraction` of it.
pub fn jitter(base: Duration, fraction: f64) -> Duration {
    let unit = (any_u64() >> 11) as f64 / (1u64 << 53) as f64;
    base.mul_f64(1.0 + unit * fraction)
}
