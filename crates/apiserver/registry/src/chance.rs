//! Random numbers, UUIDs. Every request has an id, so the system is asked for many numbers at once.

use std::cell::RefCell;

use ring::rand::{SecureRandom, SystemRandom};

/// Numbers of one request to the system.
const STOCK: usize = 64;

thread_local! {
    static NUMBERS: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

pub(crate) fn number() -> u64 {
    NUMBERS.with_borrow_mut(|stock| {
        if stock.is_empty() {
            let mut bytes = [0; 8 * STOCK];
            // The system's source does not fail once it has begun; zeros would only cost retries.
            let _ = SystemRandom::new().fill(&mut bytes);
            stock.extend(bytes.as_chunks::<8>().0.iter().map(|b| u64::from_le_bytes(*b)));
        }
        stock.pop().unwrap_or_default()
    })
}

/// In [0, 1).
pub(crate) fn fraction() -> f64 {
    (number() >> 11) as f64 / (1u64 << 53) as f64
}

/// A random UUID (RFC 9562, version 4).
pub fn uuid() -> String {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut n = u128::from(number()) << 64 | u128::from(number());
    n = n & !(0xf << 76) | 4 << 76;
    n = n & !(0b11 << 62) | 0b10 << 62;
    let mut text = String::with_capacity(36);
    for place in (0..32).rev() {
        if matches!(place, 23 | 19 | 15 | 11) {
            text.push('-');
        }
        text.push(char::from(HEX[(n >> (4 * place)) as usize & 0xf]));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_say_their_version() {
        let id = uuid();
        assert_eq!(id.len(), 36);
        let parts: Vec<usize> = id.split('-').map(str::len).collect();
        assert_eq!(parts, [8, 4, 4, 4, 12]);
        assert_eq!(id.as_bytes()[14], b'4');
        assert!(matches!(id.as_bytes()[19], b'8' | b'9' | b'a' | b'b'));
        assert_ne!(id, uuid());
        assert!((0.0..1.0).contains(&fraction()));
    }
}
