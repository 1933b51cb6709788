//! Connection tracking: forgetting UDP flows whose Service or endpoint is gone (`linux/netfilter/nfnetlink_conntrack.h`).
//! TCP needs none of it: its flows end by themselves.

use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_NETFILTER;
use rustix::net::sockopt;

const SUBSYSTEM: u16 = 1;
const GET: u16 = 1;
const DELETE: u16 = 2;
const REQUEST: u16 = 1;
const ACK: u16 = 4;
const DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
pub const UDP: u8 = 17;

/// A tracked flow: where it was sent, and who answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flow {
    pub protocol: u8,
    pub destination: Ipv4Addr,
    pub destination_port: u16,
    /// The address that answers: after destination NAT, the endpoint's.
    pub answers_from: Ipv4Addr,
    original: Vec<u8>,
}

/// Forgets the flows that `stale` names and says how many; to be called in the node's network namespace.
pub fn forget(stale: impl Fn(&Flow) -> bool) -> io::Result<usize> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(Duration::from_secs(10)))?;
    let doomed: Vec<Flow> = dump(&socket)?.into_iter().filter(|flow| stale(flow)).collect();
    for flow in &doomed {
        let mut body = Vec::new();
        push(&mut body, CTA_TUPLE_ORIG | 0x8000, &flow.original);
        socket.send(&message(DELETE, REQUEST | ACK, &body), 0)?;
        socket.recv_from_full()?; // a flow that ended by itself meanwhile is answered with ENOENT, which is as good
    }
    Ok(doomed.len())
}

fn dump(socket: &Socket) -> io::Result<Vec<Flow>> {
    socket.send(&message(GET, REQUEST | DUMP, &[]), 0)?;
    let mut flows = Vec::new();
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        let mut rest = datagram.as_slice();
        while let (Some(len), Some(kind)) = (word(rest, 0), half(rest, 4)) {
            match kind {
                NLMSG_DONE => return Ok(flows),
                NLMSG_ERROR => {
                    let code = word(rest, 16).unwrap_or(0).cast_signed();
                    return if code == 0 { Ok(flows) } else { Err(io::Error::from_raw_os_error(-code)) };
                }
                _ => flows.extend(rest.get(20..len as usize).and_then(parse)),
            }
            rest = rest.get((len as usize).max(16).next_multiple_of(4)..).unwrap_or(&[]);
        }
    }
}

fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    const AF_INET: u8 = 2;
    let mut bytes = Vec::with_capacity(20 + body.len());
    bytes.extend(u32::try_from(20 + body.len()).unwrap_or(u32::MAX).to_ne_bytes());
    bytes.extend((SUBSYSTEM << 8 | kind).to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend([AF_INET, 0, 0, 0]);
    bytes.extend(body);
    bytes
}

fn push(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    out.extend(u16::try_from(value.len() + 4).unwrap_or(u16::MAX).to_ne_bytes());
    out.extend(kind.to_ne_bytes());
    out.extend(value);
    out.resize(out.len().next_multiple_of(4), 0);
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

fn attribute(mut rest: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let (len, kind) = (usize::from(half(rest, 0)?), half(rest, 2)? & 0x3fff);
        let value = rest.get(4..len)?;
        if kind == wanted {
            return Some(value);
        }
        rest = rest.get(len.next_multiple_of(4)..)?;
    }
}

fn parse(body: &[u8]) -> Option<Flow> {
    const CTA_TUPLE_IP: u16 = 1;
    const CTA_TUPLE_PROTO: u16 = 2;
    const CTA_IP_V4_SRC: u16 = 1;
    const CTA_IP_V4_DST: u16 = 2;
    const CTA_PROTO_NUM: u16 = 1;
    const CTA_PROTO_DST_PORT: u16 = 3;
    let address = |tuple: &[u8], which| {
        let bytes: [u8; 4] = attribute(attribute(tuple, CTA_TUPLE_IP)?, which)?.try_into().ok()?;
        Some(Ipv4Addr::from(bytes))
    };
    let original = attribute(body, CTA_TUPLE_ORIG)?;
    let protocol = attribute(original, CTA_TUPLE_PROTO)?;
    let port = attribute(protocol, CTA_PROTO_DST_PORT)?;
    Some(Flow {
        protocol: *attribute(protocol, CTA_PROTO_NUM)?.first()?,
        destination: address(original, CTA_IP_V4_DST)?,
        destination_port: u16::from_be_bytes(port.try_into().ok()?),
        answers_from: address(attribute(body, CTA_TUPLE_REPLY)?, CTA_IP_V4_SRC)?,
        original: original.to_vec(),
    })
}
