//! A pod's interface: `eth0` in its namespace, a routed veth end outside.

use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd};

use crate::rtnl::{self, Mac, Message, Netlink, Peer, Via};
use crate::{Cidr, NetError};

/// The gateway that pods see. It exists on no link: each pod has a fixed neighbour entry for it that leads to the veth's host end.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);

/// Both ends have MAC addresses that follow from the pod's address, so that neighbour entries can be fixed without asking.
fn macs(address: Ipv4Addr) -> (Mac, Mac) {
    let [a, b, c, d] = address.octets();
    ([0x0e, 1, a, b, c, d], [0x0e, 2, a, b, c, d])
}

/// The name of the host's end: at most 15 bytes, unique by the pod's address within the namespace.
pub fn host_link(prefix: &str, address: Ipv4Addr) -> String {
    format!("{prefix}{:08x}", u32::from(address))
}

/// The parts of a node that its pods' links need. `prefix` begins the names of the host's ends (at most 6 bytes).
pub struct PodLinks {
    pub prefix: String,
    pub mtu: u32,
    /// The node's own address: the source of what the host sends to pods.
    pub node: Ipv4Addr,
}

impl PodLinks {
    /// Gives the pod whose namespace this is the address; what a crashed attempt left under it is replaced.
    pub fn set_up(&self, netns: BorrowedFd<'_>, address: Ipv4Addr) -> Result<(), NetError> {
        let name = host_link(&self.prefix, address);
        let (host_mac, pod_mac) = macs(address);
        let mut host = Netlink::open()?;
        let pair = [rtnl::add_veth(&name, Some(host_mac), self.mtu, &Peer { name: "eth0", mac: Some(pod_mac), netns })];
        if host.send(&pair).is_err() {
            let _ = host.send(&[rtnl::delete_link(&name)]);
            host.send(&pair)?;
        }
        let index = host.link(&name)?.ok_or_else(|| NetError::Invalid(format!("the link {name} vanished")))?;
        let to_pod = Cidr::new(address, 32);
        host.send(&[
            rtnl::add_neighbour(index, address, pod_mac),
            rtnl::add_route(to_pod, Via::Link { index, source: Some(self.node) }, 0),
        ])?;
        inside(netns, address, host_mac)
    }

    pub fn tear_down(&self, address: Ipv4Addr) -> Result<(), NetError> {
        let name = host_link(&self.prefix, address);
        let mut host = Netlink::open()?;
        if host.link(&name)?.is_some() { host.remove_link(&name) } else { Ok(()) }
    }
}

fn inside(netns: BorrowedFd<'_>, address: Ipv4Addr, gateway_mac: Mac) -> Result<(), NetError> {
    let mut pod = Netlink::open_in(netns.as_fd())?;
    let eth0 = pod.link("eth0")?.ok_or_else(|| NetError::Invalid("the pod's end of the veth pair is missing".into()))?;
    let everywhere = Cidr::new(Ipv4Addr::UNSPECIFIED, 0);
    let messages: [Message; 6] = [
        rtnl::set_up(1),
        rtnl::add_address(eth0, address, 32),
        rtnl::set_up(eth0),
        rtnl::add_neighbour(eth0, GATEWAY, gateway_mac),
        rtnl::add_route(Cidr::new(GATEWAY, 32), Via::Link { index: eth0, source: None }, 0),
        rtnl::add_route(everywhere, Via::Gateway { index: eth0, gateway: GATEWAY }, 0),
    ];
    pod.send(&messages)
}

/// Brings `lo` up in a namespace.
pub fn loopback_up(netns: BorrowedFd<'_>) -> Result<(), NetError> {
    Netlink::open_in(netns)?.send(&[rtnl::set_up(1)])
}
