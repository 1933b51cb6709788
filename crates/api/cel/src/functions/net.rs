//! Addresses and networks.

use std::net::IpAddr;

use tiphys_meta::{field::go_quote, ip};

use super::opaque::Opaque;
use crate::value::{Eval, Val, fail};

pub(crate) fn call<'a>(name: &str, args: &[Val<'a>]) -> Option<Eval<Val<'a>>> {
    match (name, args) {
        ("ip", [Val::Str(text)]) => Some(address(text).map(|ip| Val::Opaque(Opaque::Ip(ip)))),
        ("isIP", [Val::Str(text)]) => Some(Ok(Val::Bool(address(text).is_ok()))),
        ("ip.isCanonical", [Val::Str(text)]) => Some(address(text).map(|ip| Val::Bool(ip.to_string() == **text))),
        ("cidr", [Val::Str(text)]) => Some(network(text).map(|(ip, bits)| Val::Opaque(Opaque::Cidr(ip, bits)))),
        ("isCIDR", [Val::Str(text)]) => Some(Ok(Val::Bool(network(text).is_ok()))),
        (name, [Val::Opaque(Opaque::Ip(ip))]) => of_address(name, *ip).map(Ok),
        (name, [Val::Opaque(Opaque::Cidr(ip, bits)), rest @ ..]) => of_network(name, *ip, *bits, rest),
        _ => None,
    }
}

fn mapped(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some())
}

fn address(text: &str) -> Eval<IpAddr> {
    let bare = text.split('%').next().unwrap_or(text);
    match ip::parse(bare) {
        Some(IpAddr::V6(_)) if bare.len() < text.len() => fail(format!("IP address {} with zone value is not allowed", go_quote(text))),
        Some(ip) if bare.len() == text.len() && !mapped(ip) => Ok(ip),
        Some(_) if bare.len() == text.len() => fail(format!("IPv4-mapped IPv6 address {} is not allowed", go_quote(text))),
        _ => fail(format!("IP Address {0} parse error during conversion from string: ParseAddr({0}): unable to parse IP", go_quote(text))),
    }
}

fn network(text: &str) -> Eval<(IpAddr, u8)> {
    const WHY: &str = "network address parse error during conversion from string: ";
    match ip::parse_cidr(text) {
        Some((ip, _)) if mapped(ip) => fail(format!("{WHY}IPv4-mapped IPv6 address {} is not allowed", go_quote(&ip.to_string()))),
        Some(found) => Ok(found),
        None => fail(format!("{WHY}{WHY}netip.ParsePrefix({}): no '/'", go_quote(text))),
    }
}

fn of_address<'a>(name: &str, ip: IpAddr) -> Option<Val<'a>> {
    let unicast_local = match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    let multicast_local = match ip {
        IpAddr::V4(v4) => v4.octets()[..3] == [224, 0, 0],
        IpAddr::V6(v6) => v6.segments()[0] & 0xff0f == 0xff02,
    };
    let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    Some(Val::Bool(match name {
        "family" => return Some(Val::Int(if ip.is_ipv4() { 4 } else { 6 })),
        "isUnspecified" => ip.is_unspecified(),
        "isLoopback" => ip.is_loopback(),
        "isLinkLocalMulticast" => multicast_local,
        "isLinkLocalUnicast" => unicast_local,
        "isGlobalUnicast" => !broadcast && !ip.is_unspecified() && !ip.is_loopback() && !ip.is_multicast() && !unicast_local,
        _ => return None,
    }))
}

fn holds(ip: IpAddr, bits: u8, other: IpAddr) -> bool {
    ip.is_ipv4() == other.is_ipv4() && ip::mask(ip, bits) == ip::mask(other, bits)
}

fn of_network<'a>(name: &str, ip: IpAddr, bits: u8, rest: &[Val<'a>]) -> Option<Eval<Val<'a>>> {
    Some(Ok(match (name, rest) {
        ("ip", []) => Val::Opaque(Opaque::Ip(ip)),
        ("prefixLength", []) => Val::Int(i64::from(bits)),
        ("masked", []) => Val::Opaque(Opaque::Cidr(ip::mask(ip, bits), bits)),
        ("containsIP", [Val::Opaque(Opaque::Ip(other))]) => Val::Bool(holds(ip, bits, *other)),
        ("containsIP", [Val::Str(text)]) => return Some(address(text).map(|other| Val::Bool(holds(ip, bits, other)))),
        ("containsCIDR", [Val::Opaque(Opaque::Cidr(other, length))]) => Val::Bool(bits <= *length && holds(ip, bits, *other)),
        ("containsCIDR", [Val::Str(text)]) => {
            return Some(network(text).map(|(other, length)| Val::Bool(bits <= length && holds(ip, bits, other))));
        }
        _ => return None,
    }))
}
