//! Random numbers, UUIDs.

use ring::rand::{SecureRandom, SystemRandom};

pub(crate) fn number() -> u64 {
    let mut bytes = [0; 8];
    // The system's source does not fail once it has begun; a zero would only cost a retry.
    let _ = SystemRandom::new().fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

/// In [0, 1).
pub(crate) fn fraction() -> f64 {
    (number() >> 11) as f64 / (1u64 << 53) as f64
}

/// A version 4 UUID (RFC 9562).
pub(crate) fn uuid() -> String {
    let mut n = u128::from(number()) << 64 | u128::from(number());
    n = n & !(0xf << 76) | 4 << 76;
    n = n & !(0b11 << 62) | 0b10 << 62;
    let hex = format!("{n:032x}");
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_say_their_version() {
        let id = uuid();
        assert_eq!(id.len(), 36);
        assert_eq!(id.as_bytes()[14], b'4');
        assert!(matches!(id.as_bytes()[19], b'8' | b'9' | b'a' | b'b'));
        assert_ne!(id, uuid());
        assert!((0.0..1.0).contains(&fraction()));
    }
}
