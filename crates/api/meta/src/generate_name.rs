//! Names from `generateName`: the prefix and five characters that spell no words.

/// Upstream's alphabet: no vowels, no digits or letters that look alike.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
const SUFFIX: usize = 5;
const MAX_PREFIX: usize = crate::names::LABEL_MAX - SUFFIX;

/// The prefix (cut so that the whole is a label) and a suffix drawn from `random`.
pub fn generate(prefix: &str, random: u64) -> String {
    let mut end = prefix.len().min(MAX_PREFIX);
    while !prefix.is_char_boundary(end) {
        end -= 1;
    }
    let mut name = prefix[..end].to_owned();
    name.push_str(&suffix(random));
    name
}

pub fn suffix(mut random: u64) -> String {
    let base = ALPHABET.len() as u64;
    let mut text = String::with_capacity(SUFFIX);
    for _ in 0..SUFFIX {
        text.push(ALPHABET[(random % base) as usize] as char);
        random /= base;
    }
    text
}

/// Upstream's `SafeEncodeString`: each character mapped into the alphabet, for hashes in names.
pub fn safe_encode(text: &str) -> String {
    text.bytes().map(|b| ALPHABET[usize::from(b) % ALPHABET.len()] as char).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_a_label() {
        assert_eq!(generate("pod-", 0), "pod-bbbbb");
        assert_eq!(generate(&"a".repeat(100), 12345).len(), 63);
        assert_ne!(suffix(1), suffix(2));
        assert_eq!(safe_encode("0123456789"), "456789bcdf");
    }
}
