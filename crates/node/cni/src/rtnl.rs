//! The few rtnetlink messages that a node needs (rtnetlink(7), `linux/if_link.h`, `linux/rtnetlink.h`), written out here:
//! the general library costs twenty seconds of compile time for eight message kinds.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_ROUTE;

use crate::{Cidr, NetError};

pub type Mac = [u8; 6];

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;
const RTM_NEWNEIGH: u16 = 28;

const REQUEST: u16 = 1;
const ACK: u16 = 4;
const REPLACE: u16 = 0x100;
const EXCL: u16 = 0x200;
const CREATE: u16 = 0x400;
const DUMP: u16 = 0x300;

const AF_INET: u8 = 2;
const AF_BRIDGE: u8 = 7;
const IFF_UP: u32 = 1;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_PROTINFO: u16 = 12;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_BRPORT_MODE: u16 = 4;
const NESTED: u16 = 0x8000;
const VETH_INFO_PEER: u16 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;

/// One request, with words that say what it does for the error.
pub struct Message {
    what: String,
    kind: u16,
    flags: u16,
    body: Vec<u8>,
}

impl Message {
    fn new(what: impl Into<String>, kind: u16, flags: u16, header: &[u8]) -> Message {
        Message { what: what.into(), kind, flags: REQUEST | ACK | flags, body: header.to_vec() }
    }

    fn attr(mut self, kind: u16, value: &[u8]) -> Self {
        push_attr(&mut self.body, kind, value);
        self
    }
}

fn push_attr(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let len = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
    out.extend(len.to_ne_bytes());
    out.extend(kind.to_ne_bytes());
    out.extend(value);
    out.resize(out.len().next_multiple_of(4), 0);
}

fn ifinfo(index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&change.to_ne_bytes());
    header
}

fn c_string(text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    bytes.push(0);
    bytes
}

/// The far end of a veth pair, made directly in another namespace.
pub struct Peer<'a> {
    pub name: &'a str,
    pub mac: Option<Mac>,
    pub netns: BorrowedFd<'a>,
}

pub fn add_veth(name: &str, mac: Option<Mac>, mtu: u32, peer: &Peer<'_>) -> Message {
    let mut far = ifinfo(0, 0, 0).to_vec();
    push_attr(&mut far, IFLA_IFNAME, &c_string(peer.name));
    push_attr(&mut far, IFLA_MTU, &mtu.to_ne_bytes());
    if let Some(mac) = peer.mac {
        push_attr(&mut far, IFLA_ADDRESS, &mac);
    }
    push_attr(&mut far, IFLA_NET_NS_FD, &fd_bytes(peer.netns.as_raw_fd()));
    let mut data = Vec::new();
    push_attr(&mut data, VETH_INFO_PEER, &far);
    let mut info = Vec::new();
    push_attr(&mut info, IFLA_INFO_KIND, b"veth");
    push_attr(&mut info, IFLA_INFO_DATA, &data);
    let mut message = Message::new(format!("making the veth pair {name}"), RTM_NEWLINK, CREATE | EXCL, &ifinfo(0, IFF_UP, IFF_UP))
        .attr(IFLA_IFNAME, &c_string(name))
        .attr(IFLA_MTU, &mtu.to_ne_bytes());
    if let Some(mac) = mac {
        message = message.attr(IFLA_ADDRESS, &mac);
    }
    message.attr(IFLA_LINKINFO, &info)
}

fn fd_bytes(fd: RawFd) -> [u8; 4] {
    fd.to_ne_bytes()
}

pub fn add_bridge(name: &str, mac: Mac) -> Message {
    let mut info = Vec::new();
    push_attr(&mut info, IFLA_INFO_KIND, b"bridge");
    Message::new(format!("making the bridge {name}"), RTM_NEWLINK, CREATE | EXCL, &ifinfo(0, IFF_UP, IFF_UP))
        .attr(IFLA_IFNAME, &c_string(name))
        .attr(IFLA_ADDRESS, &mac)
        .attr(IFLA_LINKINFO, &info)
}

pub fn delete_link(name: &str) -> Message {
    Message::new(format!("deleting the link {name}"), RTM_DELLINK, 0, &ifinfo(0, 0, 0)).attr(IFLA_IFNAME, &c_string(name))
}

pub fn set_up(index: u32) -> Message {
    Message::new(format!("setting link {index} up"), RTM_NEWLINK, 0, &ifinfo(index, IFF_UP, IFF_UP))
}

pub fn set_master(index: u32, bridge: u32) -> Message {
    Message::new(format!("adding link {index} to bridge {bridge}"), RTM_NEWLINK, 0, &ifinfo(index, IFF_UP, IFF_UP))
        .attr(IFLA_MASTER, &bridge.to_ne_bytes())
}

/// Lets a bridge port send back what came in by it.
pub fn set_hairpin(index: u32) -> Message {
    let mut header = ifinfo(index, 0, 0);
    header[0] = AF_BRIDGE;
    let mut port = Vec::new();
    push_attr(&mut port, IFLA_BRPORT_MODE, &[1]);
    Message::new(format!("letting port {index} send back"), RTM_SETLINK, 0, &header).attr(IFLA_PROTINFO | NESTED, &port)
}

pub fn add_address(index: u32, address: Ipv4Addr, prefix: u8) -> Message {
    let mut header = [AF_INET, prefix, 0, 0, 0, 0, 0, 0];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    Message::new(format!("adding the address {address}/{prefix}"), RTM_NEWADDR, CREATE | REPLACE, &header)
        .attr(IFA_LOCAL, &address.octets())
        .attr(IFA_ADDRESS, &address.octets())
}

/// Where a route leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// Neighbours on the link.
    Link { index: u32, source: Option<Ipv4Addr> },
    /// A gateway on the link, reachable whatever the link's own addresses are.
    Gateway { index: u32, gateway: Ipv4Addr },
    /// Packets are refused with an ICMP answer.
    Unreachable,
}

/// `metric` decides between routes to the same range; the lower wins.
pub fn add_route(to: Cidr, via: Via, metric: u32) -> Message {
    route(format!("adding the route to {to}"), RTM_NEWROUTE, CREATE | REPLACE, to, via, metric)
}

pub fn delete_route(to: Cidr, via: Via, metric: u32) -> Message {
    route(format!("deleting the route to {to}"), RTM_DELROUTE, 0, to, via, metric)
}

fn route(what: String, kind: u16, flags: u16, to: Cidr, via: Via, metric: u32) -> Message {
    const TABLE_MAIN: u8 = 254;
    const PROTOCOL_STATIC: u8 = 4;
    const SCOPE_UNIVERSE: u8 = 0;
    const SCOPE_LINK: u8 = 253;
    const TYPE_UNICAST: u8 = 1;
    const TYPE_UNREACHABLE: u8 = 7;
    const ONLINK: u32 = 4;
    let (scope, route_type, route_flags) = match via {
        Via::Link { .. } => (SCOPE_LINK, TYPE_UNICAST, 0),
        Via::Gateway { .. } => (SCOPE_UNIVERSE, TYPE_UNICAST, ONLINK),
        Via::Unreachable => (SCOPE_UNIVERSE, TYPE_UNREACHABLE, 0),
    };
    let mut header = [AF_INET, to.prefix, 0, 0, TABLE_MAIN, PROTOCOL_STATIC, scope, route_type, 0, 0, 0, 0];
    header[8..12].copy_from_slice(&route_flags.to_ne_bytes());
    let mut message = Message::new(what, kind, flags, &header);
    if to.prefix > 0 {
        message = message.attr(RTA_DST, &to.address.octets());
    }
    message = match via {
        Via::Link { index, source } => {
            let message = message.attr(RTA_OIF, &index.to_ne_bytes());
            match source {
                Some(source) => message.attr(RTA_PREFSRC, &source.octets()),
                None => message,
            }
        }
        Via::Gateway { index, gateway } => message.attr(RTA_OIF, &index.to_ne_bytes()).attr(RTA_GATEWAY, &gateway.octets()),
        Via::Unreachable => message,
    };
    if metric > 0 { message.attr(RTA_PRIORITY, &metric.to_ne_bytes()) } else { message }
}

/// A neighbour entry that never has to be asked for.
pub fn add_neighbour(index: u32, address: Ipv4Addr, mac: Mac) -> Message {
    const PERMANENT: u16 = 0x80;
    let mut header = [AF_INET, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..10].copy_from_slice(&PERMANENT.to_ne_bytes());
    Message::new(format!("adding the neighbour {address}"), RTM_NEWNEIGH, CREATE | REPLACE, &header)
        .attr(NDA_DST, &address.octets())
        .attr(NDA_LLADDR, &mac)
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    pub mtu: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    pub to: Cidr,
    pub link: u32,
    pub gateway: Option<Ipv4Addr>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    pub link: u32,
    pub address: Ipv4Addr,
    pub prefix: u8,
}

/// A socket to the kernel's routing tables, of the namespace that it was opened in.
pub struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    /// Of the calling thread's network namespace.
    pub fn open() -> Result<Self, NetError> {
        let open = || {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind_auto()?;
            Ok(socket)
        };
        Ok(Netlink { socket: open().map_err(NetError::kernel("opening a netlink socket"))?, sequence: 0 })
    }

    /// Of another network namespace, entered for a moment on a thread of its own.
    pub fn open_in(netns: BorrowedFd<'_>) -> Result<Self, NetError> {
        in_namespace(netns, Netlink::open)
    }

    /// Sends all messages at once and waits for all answers. The first refusal is the error; later ones have been tried too.
    pub fn send(&mut self, messages: &[Message]) -> Result<(), NetError> {
        let first = self.sequence.wrapping_add(1);
        let mut buffer = Vec::with_capacity(messages.len() * 128);
        for message in messages {
            self.push(&mut buffer, message.kind, message.flags, &message.body);
        }
        self.transmit(&buffer)?;
        let mut refused = None;
        let mut answered = 0;
        while answered < messages.len() {
            for (kind, sequence, body) in split(&self.receive()?) {
                if kind != NLMSG_ERROR {
                    continue;
                }
                answered += 1;
                let at = usize::try_from(sequence.wrapping_sub(first)).unwrap_or(usize::MAX);
                if let (Some(errno), Some(message), None) = (error_of(body), messages.get(at), &refused) {
                    refused = Some(NetError::Kernel { what: message.what.clone(), source: io::Error::from_raw_os_error(errno) });
                }
            }
        }
        refused.map_or(Ok(()), Err)
    }

    pub fn links(&mut self) -> Result<Vec<Link>, NetError> {
        let parts = self.dump(RTM_GETLINK, &ifinfo(0, 0, 0))?;
        Ok(parts.iter().filter(|(kind, _)| *kind == RTM_NEWLINK).filter_map(|(_, body)| parse_link(body)).collect())
    }

    /// The index of a link, or none.
    pub fn link(&mut self, name: &str) -> Result<Option<u32>, NetError> {
        Ok(self.links()?.into_iter().find(|l| l.name == name).map(|l| l.index))
    }

    /// Removes a link. One that goes by itself meanwhile, as a pair does when the namespace of one end ends, is gone as well.
    pub fn remove_link(&mut self, name: &str) -> Result<(), NetError> {
        match self.send(&[delete_link(name)]) {
            Err(error) if self.link(name)?.is_some() => Err(error),
            _ => Ok(()),
        }
    }

    pub fn routes(&mut self) -> Result<Vec<Route>, NetError> {
        let parts = self.dump(RTM_GETROUTE, &[AF_INET, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])?;
        Ok(parts.iter().filter(|(kind, _)| *kind == RTM_NEWROUTE).filter_map(|(_, body)| parse_route(body)).collect())
    }

    pub fn addresses(&mut self) -> Result<Vec<Address>, NetError> {
        let parts = self.dump(RTM_GETADDR, &[AF_INET, 0, 0, 0, 0, 0, 0, 0])?;
        Ok(parts.iter().filter(|(kind, _)| *kind == RTM_NEWADDR).filter_map(|(_, body)| parse_address(body)).collect())
    }

    fn dump(&mut self, kind: u16, header: &[u8]) -> Result<Vec<(u16, Vec<u8>)>, NetError> {
        let mut buffer = Vec::new();
        self.push(&mut buffer, kind, REQUEST | DUMP, header);
        self.transmit(&buffer)?;
        let mut parts = Vec::new();
        loop {
            for (kind, _, body) in split(&self.receive()?) {
                match kind {
                    NLMSG_DONE => return Ok(parts),
                    NLMSG_ERROR => {
                        let errno = error_of(body).unwrap_or(0);
                        return Err(NetError::Kernel {
                            what: "listing links, addresses or routes".into(),
                            source: io::Error::from_raw_os_error(errno),
                        });
                    }
                    _ => parts.push((kind, body.to_vec())),
                }
            }
        }
    }

    fn push(&mut self, buffer: &mut Vec<u8>, kind: u16, flags: u16, body: &[u8]) {
        self.sequence = self.sequence.wrapping_add(1);
        let len = u32::try_from(body.len() + 16).unwrap_or(u32::MAX);
        buffer.extend(len.to_ne_bytes());
        buffer.extend(kind.to_ne_bytes());
        buffer.extend(flags.to_ne_bytes());
        buffer.extend(self.sequence.to_ne_bytes());
        buffer.extend(0u32.to_ne_bytes());
        buffer.extend(body);
        buffer.resize(buffer.len().next_multiple_of(4), 0);
    }

    fn transmit(&mut self, buffer: &[u8]) -> Result<(), NetError> {
        self.socket.send(buffer, 0).map(|_| ()).map_err(NetError::kernel("sending to the kernel's routing tables"))
    }

    fn receive(&mut self) -> Result<Vec<u8>, NetError> {
        self.socket.recv_from_full().map(|(bytes, _)| bytes).map_err(NetError::kernel("reading from the kernel's routing tables"))
    }
}

/// Runs `act` on a thread of its own inside a network namespace.
pub fn in_namespace<T: Send>(netns: BorrowedFd<'_>, act: impl FnOnce() -> Result<T, NetError> + Send) -> Result<T, NetError> {
    std::thread::scope(|scope| {
        let entered = scope.spawn(|| {
            let only = Some(rustix::thread::LinkNameSpaceType::Network);
            rustix::thread::move_into_link_name_space(netns, only)
                .map_err(|e| NetError::kernel("entering the network namespace")(e.into()))?;
            act()
        });
        entered.join().unwrap_or_else(|_| Err(NetError::Invalid("work inside the network namespace panicked".into())))
    })
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

/// The messages of a datagram: kind, sequence number, body.
fn split(datagram: &[u8]) -> Vec<(u16, u32, &[u8])> {
    let mut out = Vec::new();
    let mut rest = datagram;
    while let (Some(len), Some(kind), Some(sequence)) = (u32_at(rest, 0), u16_at(rest, 4), u32_at(rest, 8)) {
        let len = len as usize;
        let Some(body) = rest.get(16..len) else { break };
        out.push((kind, sequence, body));
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or(&[]);
    }
    out
}

/// The errno of an NLMSG_ERROR; none for an acknowledgement.
fn error_of(body: &[u8]) -> Option<i32> {
    let code = i32::from_ne_bytes(body.get(0..4)?.try_into().ok()?);
    (code != 0).then_some(-code)
}

fn attrs(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let len = usize::from(u16_at(rest, 0)?);
        let kind = u16_at(rest, 2)?;
        let value = rest.get(4..len)?;
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or(&[]);
        Some((kind & 0x3fff, value))
    })
}

fn parse_link(body: &[u8]) -> Option<Link> {
    let mut link = Link { index: u32_at(body, 4)?, name: String::new(), mtu: 0 };
    for (kind, value) in attrs(body.get(16..)?) {
        match kind {
            IFLA_IFNAME => link.name = String::from_utf8_lossy(value).trim_end_matches('\0').to_owned(),
            IFLA_MTU => link.mtu = u32_at(value, 0)?,
            _ => {}
        }
    }
    Some(link)
}

fn ipv4(value: &[u8]) -> Option<Ipv4Addr> {
    <[u8; 4]>::try_from(value).ok().map(Ipv4Addr::from)
}

fn parse_route(body: &[u8]) -> Option<Route> {
    let mut route = Route { to: Cidr { address: Ipv4Addr::UNSPECIFIED, prefix: *body.get(1)? }, link: 0, gateway: None };
    for (kind, value) in attrs(body.get(12..)?) {
        match kind {
            RTA_DST => route.to.address = ipv4(value)?,
            RTA_OIF => route.link = u32_at(value, 0)?,
            RTA_GATEWAY => route.gateway = ipv4(value),
            _ => {}
        }
    }
    Some(route)
}

fn parse_address(body: &[u8]) -> Option<Address> {
    let (prefix, link) = (*body.get(1)?, u32_at(body, 4)?);
    let address = attrs(body.get(8..)?).find(|(kind, _)| *kind == IFA_LOCAL || *kind == IFA_ADDRESS).and_then(|(_, v)| ipv4(v))?;
    Some(Address { link, address, prefix })
}
