//! IP addresses and CIDRs as the API takes them, with upstream's messages.
//! Strict as StrictIPCIDRValidation (KEP-4858) asks: no leading zeros, no IPv4 in IPv6, no bits beyond the prefix.

use std::net::IpAddr;

use crate::{ErrorList, Path};

pub fn parse(value: &str) -> Option<IpAddr> {
    let ip: IpAddr = value.parse().ok()?;
    Some(ip)
}

/// An address and the length of its prefix.
pub fn parse_cidr(value: &str) -> Option<(IpAddr, u8)> {
    let (ip, length) = value.split_once('/')?;
    let ip = parse(ip)?;
    let max = if ip.is_ipv4() { 32 } else { 128 };
    if length.is_empty() || !length.bytes().all(|b| b.is_ascii_digit()) || (length.len() > 1 && length.starts_with('0')) {
        return None;
    }
    let length: u8 = length.parse().ok()?;
    (length <= max).then_some((ip, length))
}

/// The first address of the block.
pub fn mask(ip: IpAddr, length: u8) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => {
            let keep = u32::MAX.checked_shl(32 - u32::from(length.min(32))).unwrap_or(0);
            IpAddr::V4((u32::from(ip) & keep).into())
        }
        IpAddr::V6(ip) => {
            let keep = u128::MAX.checked_shl(128 - u32::from(length.min(128))).unwrap_or(0);
            IpAddr::V6((u128::from(ip) & keep).into())
        }
    }
}

pub fn validate(errors: &mut ErrorList, path: &Path<'_>, value: &str) {
    match parse(value) {
        None => errors.invalid(path, value, "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"),
        Some(IpAddr::V6(ip)) if ip.to_ipv4_mapped().is_some() => {
            errors.invalid(path, value, "must not be an IPv4-mapped IPv6 address");
        }
        Some(_) => {}
    }
}

/// For fields that were never loose: the canonical form only.
pub fn validate_canonical(errors: &mut ErrorList, path: &Path<'_>, value: &str) {
    let before = errors.len();
    validate(errors, path, value);
    if let (true, Some(ip)) = (errors.len() == before, parse(value))
        && ip.to_string() != value
    {
        errors.invalid(path, value, format!("must be in canonical form (\"{ip}\")"));
    }
}

pub fn validate_cidr(errors: &mut ErrorList, path: &Path<'_>, value: &str) {
    match parse_cidr(value) {
        None => errors.invalid(path, value, "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"),
        Some((IpAddr::V6(ip), _)) if ip.to_ipv4_mapped().is_some() => {
            errors.invalid(path, value, "must not have an IPv4-mapped IPv6 address");
        }
        Some((ip, length)) if mask(ip, length) != ip => {
            errors.invalid(path, value, "must not have bits set beyond the prefix length");
        }
        Some(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_blocks() {
        let path = Path::new("ip");
        let check = |value: &str| {
            let mut errors = ErrorList::new();
            if value.contains('/') {
                validate_cidr(&mut errors, &path, value)
            } else {
                validate(&mut errors, &path, value)
            }
            errors.is_empty()
        };
        for good in ["10.0.0.1", "::1", "10.0.0.0/8", "fd00::/64", "0.0.0.0/0"] {
            assert!(check(good), "{good}");
        }
        for bad in ["010.0.0.1", "::ffff:1.2.3.4", "10.0.0.1/8", "10.0.0.0/33", "x", "10.0.0.0/08"] {
            assert!(!check(bad), "{bad}");
        }
    }
}
