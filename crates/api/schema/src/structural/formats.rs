//! Formats of strings that a schema may ask for; those that are not known are not checked, as upstream does.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::codec::go;

/// Whether the text is of the format.
pub(super) fn fits(format: &str, text: &str) -> bool {
    match format.replace('-', "").as_str() {
        "datetime" => go::parse_time(text).is_ok(),
        "date" => go::parse_time(&format!("{text}T00:00:00Z")).is_ok() && text.len() == 10,
        "duration" => tiphys_meta::duration::parse(text).is_some(),
        "ipv4" => text.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<Ipv6Addr>().is_ok(),
        "cidr" => is_cidr(text),
        "mac" => is_mac(text),
        "uuid" => is_uuid(text, None),
        "uuid3" => is_uuid(text, Some(b'3')),
        "uuid4" => is_uuid(text, Some(b'4')),
        "uuid5" => is_uuid(text, Some(b'5')),
        "byte" => tiphys_meta::base64::decode(text).is_ok(),
        "hostname" => is_hostname(text),
        "email" => is_email(text),
        "uri" => is_uri(text),
        _ => true,
    }
}

fn is_cidr(text: &str) -> bool {
    let Some((address, length)) = text.split_once('/') else { return false };
    let most = match (address.parse::<Ipv4Addr>(), address.parse::<Ipv6Addr>()) {
        (Ok(_), _) => 32,
        (_, Ok(_)) => 128,
        _ => return false,
    };
    length.parse::<u8>().is_ok_and(|l| l <= most) && !length.starts_with('+')
}

fn is_mac(text: &str) -> bool {
    let parts: Vec<&str> = text.split([':', '-']).collect();
    matches!(parts.len(), 6 | 8) && parts.iter().all(|p| p.len() == 2 && p.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// RFC 4122, with or without hyphens.
fn is_uuid(text: &str, version: Option<u8>) -> bool {
    let hex: Vec<u8> = text.bytes().filter(|b| *b != b'-').collect();
    let hyphens = text.len() - hex.len();
    hex.len() == 32
        && matches!(hyphens, 0 | 4)
        && hex.iter().all(u8::is_ascii_hexdigit)
        && version.is_none_or(|v| hex[12] == v && (v == b'3' || matches!(hex[16], b'8' | b'9' | b'a' | b'b' | b'A' | b'B')))
}

/// RFC 1123 §2.1, labels of up to 63 characters.
fn is_hostname(text: &str) -> bool {
    let text = text.strip_suffix('.').unwrap_or(text);
    let label = |l: &str| {
        (1..=63).contains(&l.len())
            && !l.starts_with('-')
            && !l.ends_with('-')
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    text.len() <= 253 && text.split('.').all(label)
}

fn is_email(text: &str) -> bool {
    let Some((local, domain)) = text.rsplit_once('@') else { return false };
    !local.is_empty() && !local.contains(char::is_whitespace) && is_hostname(domain)
}

/// RFC 3986: a scheme, or a path from the root, as Go's `ParseRequestURI` wants it.
fn is_uri(text: &str) -> bool {
    if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return false;
    }
    match text.split_once(':') {
        Some((scheme, rest)) => {
            !rest.is_empty()
                && scheme.starts_with(|c: char| c.is_ascii_alphabetic())
                && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
        }
        None => text.starts_with('/'),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats() {
        let good = [
            ("date-time", "2024-01-01T00:00:00Z"),
            ("date", "2024-02-29"),
            ("ipv4", "10.0.0.1"),
            ("cidr", "fd00::/8"),
            ("uuid", "123e4567-e89b-12d3-a456-426614174000"),
            ("hostname", "a.b-c.example"),
            ("email", "a@example.com"),
            ("uri", "https://example.com/x"),
            ("unheard-of", "anything"),
        ];
        let bad = [
            ("date-time", "2024-01-01"),
            ("date", "2023-02-29"),
            ("ipv4", "10.0.0"),
            ("cidr", "10.0.0.0/33"),
            ("uuid", "x"),
            ("uuid4", "123e4567-e89b-12d3-a456-426614174000"),
            ("hostname", "-a"),
            ("email", "a"),
            ("uri", "not a uri"),
        ];
        for (format, text) in good {
            assert!(fits(format, text), "{format} {text}");
        }
        for (format, text) in bad {
            assert!(!fits(format, text), "{format} {text}");
        }
    }
}
