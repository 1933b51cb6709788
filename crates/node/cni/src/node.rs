//! A node's place in the network: the cluster's bridge, the node's address, routes to the other nodes' pods, and guards
//! that keep the cluster's packets off the machine's uplink.

use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};

use crate::rtnl::{self, Mac, Message, Netlink, Peer, Via};
use crate::sysctl::{self, Recorded};
use crate::{Cidr, NetError};

/// Lower than any route that means it, so that a real route to a part of the range always wins.
const GUARD_METRIC: u32 = 4_000_000_000;

/// What the first node of a machine sets up for the cluster.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct ClusterNetwork {
    /// The bridge's name, at most 15 bytes.
    pub bridge: String,
    /// The nodes' own addresses; the first one is this machine's end.
    pub nodes: Cidr,
    /// All pods of the cluster.
    pub pods: Cidr,
    /// All Services.
    pub services: Cidr,
}

/// Another node: where its pods are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbour {
    pub address: Ipv4Addr,
    pub pods: Cidr,
}

impl ClusterNetwork {
    /// The address of node `number` (from 1).
    pub fn node_address(&self, number: u32) -> Option<Ipv4Addr> {
        self.nodes.nth(number)
    }

    /// Makes the bridge, this machine's address on it and the guards, in the calling thread's namespace. What is there already stays.
    pub fn set_up_host(&self, recorded: &mut Recorded) -> Result<(), NetError> {
        let own = self.node_address(1).ok_or_else(|| NetError::Invalid(format!("{} has no room for a node", self.nodes)))?;
        let mut netlink = Netlink::open()?;
        netlink.send(&[rtnl::set_up(1)])?;
        if netlink.link(&self.bridge)?.is_none() {
            netlink.send(&[rtnl::add_bridge(&self.bridge, mac(own))])?;
        }
        let bridge = netlink.link(&self.bridge)?.ok_or_else(|| NetError::Invalid(format!("the bridge {} vanished", self.bridge)))?;
        netlink.send(&[rtnl::set_up(bridge), rtnl::add_address(bridge, own, self.nodes.prefix)])?;
        netlink.send(&self.guards(bridge, own))?;
        node_settings(recorded)
    }

    /// Service addresses that no rule translates end on the bridge; pod addresses that no route knows are refused.
    fn guards(&self, link: u32, own: Ipv4Addr) -> [Message; 2] {
        [
            rtnl::add_route(self.services, Via::Link { index: link, source: Some(own) }, 0),
            rtnl::add_route(self.pods, Via::Unreachable, GUARD_METRIC),
        ]
    }

    /// Removes bridge, routes and guards, and puts the settings back. What is gone already is fine.
    pub fn tear_down_host(&self, recorded: &Recorded) -> Result<(), NetError> {
        let mut netlink = Netlink::open()?;
        let _ = netlink.send(&[rtnl::delete_route(self.pods, Via::Unreachable, GUARD_METRIC)]);
        let port = format!("{}n", self.node_link_stem());
        for link in netlink.links()?.iter().filter(|l| l.name == self.bridge || l.name.starts_with(&port)) {
            netlink.remove_link(&link.name)?;
        }
        sysctl::restore(recorded);
        Ok(())
    }

    /// Connects the namespace of node `number` (> 1) to the bridge; to be called in the first node's namespace.
    pub fn connect_node(&self, number: u32, netns: &OwnedFd) -> Result<(), NetError> {
        let address =
            self.node_address(number).ok_or_else(|| NetError::Invalid(format!("{} has no room for node {number}", self.nodes)))?;
        let own = self.node_address(1).unwrap_or(Ipv4Addr::UNSPECIFIED);
        let name = self.node_link(number);
        let mut host = Netlink::open()?;
        let bridge = host.link(&self.bridge)?.ok_or_else(|| NetError::Invalid(format!("the bridge {} is missing", self.bridge)))?;
        if host.link(&name)?.is_none() {
            host.send(&[rtnl::add_veth(&name, None, 1500, &Peer { name: "eth0", mac: Some(mac(address)), netns: netns.as_fd() })])?;
        }
        let index = host.link(&name)?.ok_or_else(|| NetError::Invalid(format!("the link {name} vanished")))?;
        // Where br_netfilter is on (the kernel's default), what one node sends to a Service and the rules lead back to that same node is bridged,
        // not routed, and a bridge sends nothing out of the port that it came in by unless told to.
        host.send(&[rtnl::set_master(index, bridge), rtnl::set_hairpin(index)])?;
        let mut node = Netlink::open_in(netns.as_fd())?;
        let eth0 = node.link("eth0")?.ok_or_else(|| NetError::Invalid(format!("eth0 of node {number} is missing")))?;
        node.send(&[rtnl::set_up(1), rtnl::add_address(eth0, address, self.nodes.prefix), rtnl::set_up(eth0)])?;
        node.send(&self.guards(eth0, address))?;
        node.send(&[rtnl::add_route(Cidr::new(Ipv4Addr::UNSPECIFIED, 0), Via::Gateway { index: eth0, gateway: own }, 0)])?;
        rtnl::in_namespace(netns.as_fd(), || node_settings(&mut Recorded::default()))
    }

    fn node_link(&self, number: u32) -> String {
        format!("{}n{number}", self.node_link_stem())
    }

    fn node_link_stem(&self) -> &str {
        self.bridge.get(..11).unwrap_or(&self.bridge)
    }

    /// Routes to the other nodes' pods, in the calling thread's namespace. `link` is the bridge on the first node, `eth0` on others.
    pub fn set_routes(&self, link: &str, neighbours: &[Neighbour], gone: &[Neighbour]) -> Result<(), NetError> {
        let mut netlink = Netlink::open()?;
        let index = netlink.link(link)?.ok_or_else(|| NetError::Invalid(format!("the link {link} is missing")))?;
        let via = |n: &Neighbour| Via::Gateway { index, gateway: n.address };
        for neighbour in gone {
            let _ = netlink.send(&[rtnl::delete_route(neighbour.pods, via(neighbour), 0)]);
        }
        let messages: Vec<Message> = neighbours.iter().map(|n| rtnl::add_route(n.pods, via(n), 0)).collect();
        if messages.is_empty() { Ok(()) } else { netlink.send(&messages) }
    }
}

fn mac(address: Ipv4Addr) -> Mac {
    let [a, b, c, d] = address.octets();
    [0x0e, 0, a, b, c, d]
}

/// Forwarding between links, and `127.0.0.1:nodePort` towards pods.
fn node_settings(recorded: &mut Recorded) -> Result<(), NetError> {
    sysctl::set("net/ipv4/ip_forward", "1", recorded)?;
    sysctl::set("net/ipv4/conf/all/route_localnet", "1", recorded)
}
