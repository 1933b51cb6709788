//! Gives every node a range for its pods (`spec.podCIDRs`) out of the cluster's.
//!
//! Watches Nodes; writes their spec. One plan looks at all nodes, so that no two get the same range. Ranges that nodes have are kept, whoever gave them.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use jiff::Timestamp;
use serde_json::json;
use tiphys_client::{Action, Informer, Note, Patch, Plan, Planner, WorkQueue};
use tiphys_types::api::core::v1::Node;

use crate::Context;
use crate::shared::pod::about;

pub(crate) fn start(context: &Context) {
    let config = &context.config;
    let mut ranges = Vec::new();
    for text in &config.cluster_cidrs {
        match Range::parse(text, config.node_cidr_mask_size_ipv4, config.node_cidr_mask_size_ipv6) {
            Some(range) => ranges.push(range),
            None => tracing::error!(cidr = text, "not a range that node ranges can be cut from"),
        }
    }
    if ranges.is_empty() {
        return;
    }
    let nodes = context.informers.of::<Node>();
    let queue = WorkQueue::new();
    let again = queue.clone();
    nodes.on_change(move |_| {
        again.add(());
        true
    });
    let executor = context.executor("cidrAllocator").reading(nodes.clone());
    context.run("node-ipam-controller", 1, queue, Ipam { nodes, ranges }, executor);
}

struct Ipam {
    nodes: Informer<Node>,
    ranges: Vec<Range>,
}

/// A range that is cut into pieces of one size.
#[derive(Debug, Clone, PartialEq)]
struct Range {
    base: u128,
    v6: bool,
    prefix: u8,
    piece: u8,
}

impl Range {
    fn parse(text: &str, piece_v4: u8, piece_v6: u8) -> Option<Self> {
        let (address, prefix) = text.split_once('/')?;
        let (address, prefix): (IpAddr, u8) = (address.parse().ok()?, prefix.parse().ok()?);
        let (number, v6, piece) = match address {
            IpAddr::V4(a) => (u128::from(u32::from(a)), false, piece_v4),
            IpAddr::V6(a) => (u128::from(a), true, piece_v6),
        };
        let bits = if v6 { 128 } else { 32 };
        if prefix > piece || piece > bits || piece - prefix > 16 {
            return None;
        }
        let host = u32::from(bits - prefix);
        let base = if host >= 128 { 0 } else { number >> host << host };
        Some(Range { base, v6, prefix, piece })
    }

    fn bits(&self) -> u8 {
        if self.v6 { 128 } else { 32 }
    }

    /// The first piece that none of `taken` lies in.
    fn free(&self, taken: &HashSet<u128>) -> Option<u128> {
        (0..1u128 << (self.piece - self.prefix)).find(|at| !taken.contains(at))
    }

    fn text(&self, at: u128) -> String {
        let number = self.base + (at << (self.bits() - self.piece));
        if self.v6 {
            format!("{}/{}", Ipv6Addr::from(number), self.piece)
        } else {
            format!("{}/{}", Ipv4Addr::from(number as u32), self.piece)
        }
    }

    /// The pieces that another range touches.
    fn pieces_of(&self, cidr: &str) -> Vec<u128> {
        let Some(other) = Range::parse(cidr, 32, 128).or_else(|| single(cidr)) else { return Vec::new() };
        if other.v6 != self.v6 {
            return Vec::new();
        }
        let shift = u32::from(self.bits() - self.piece);
        let host = u32::from(self.bits() - other.prefix);
        let last = if host >= 128 { u128::MAX } else { other.base + ((1u128 << host) - 1) };
        let end = self.base + ((1u128 << u32::from(self.bits() - self.prefix)) - 1);
        if last < self.base || other.base > end {
            return Vec::new();
        }
        let (from, to) = (other.base.max(self.base) - self.base, last.min(end) - self.base);
        ((from >> shift)..=(to >> shift)).collect()
    }
}

/// A range whose own size does not matter here.
fn single(cidr: &str) -> Option<Range> {
    let (address, prefix) = cidr.split_once('/')?;
    let prefix: u8 = prefix.parse().ok()?;
    let (number, v6, bits) = match address.parse().ok()? {
        IpAddr::V4(a) => (u128::from(u32::from(a)), false, 32u8),
        IpAddr::V6(a) => (u128::from(a), true, 128),
    };
    let host = u32::from(bits.checked_sub(prefix)?);
    let base = if host >= 128 { 0 } else { number >> host << host };
    Some(Range { base, v6, prefix, piece: bits })
}

fn cidrs(node: &Node) -> Vec<String> {
    let spec = node.spec.as_ref();
    let many = spec.and_then(|s| s.pod_cidrs.clone()).filter(|c| !c.is_empty());
    many.unwrap_or_else(|| spec.and_then(|s| s.pod_cidr.clone()).filter(|c| !c.is_empty()).into_iter().collect())
}

impl Planner for Ipam {
    type Key = ();

    fn plan(&self, (): &(), _: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let nodes = self.nodes.list();
        let given: Vec<String> = nodes.iter().flat_map(|n| cidrs(n)).collect();
        let mut taken: Vec<HashSet<u128>> = self.ranges.iter().map(|r| given.iter().flat_map(|c| r.pieces_of(c)).collect()).collect();
        for node in nodes.iter().filter(|n| cidrs(n).is_empty() && n.metadata.deletion_timestamp.is_none()) {
            let mut own = Vec::new();
            for (range, taken) in self.ranges.iter().zip(&mut taken) {
                let Some(free) = range.free(taken) else { continue };
                taken.insert(free);
                own.push(range.text(free));
            }
            if own.len() < self.ranges.len() {
                let name = node.metadata.name.as_deref().unwrap_or("");
                plan.note(Note::normal(&about(&**node), "CIDRNotAvailable", format!("Node {name} status is now: CIDRNotAvailable")));
                continue;
            }
            let patch = json!({"metadata": {"uid": node.metadata.uid}, "spec": {"podCIDR": own[0], "podCIDRs": own}});
            plan.act(Action::patch(&**node, "", Patch::Strategic(patch)).or_settled());
        }
        plan
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_cut_and_counted() {
        let range = Range::parse("10.244.0.0/16", 24, 64);
        let Some(range) = range else { panic!("a good range") };
        assert_eq!((range.text(0), range.text(255)), ("10.244.0.0/24".into(), "10.244.255.0/24".into()));
        assert_eq!(range.pieces_of("10.244.3.0/24"), [3]);
        assert_eq!(range.pieces_of("10.244.4.0/23"), [4, 5]);
        assert_eq!(range.pieces_of("10.244.7.128/25"), [7]);
        assert!(range.pieces_of("10.96.0.0/12").is_empty());
        assert_eq!(range.free(&[0, 1, 3].into()), Some(2));
        let v6 = Range::parse("fd00:1::/48", 24, 64);
        assert_eq!(v6.map(|r| r.text(1)), Some("fd00:1:0:1::/64".into()));
        assert_eq!(Range::parse("10.0.0.0/25", 24, 64), None, "smaller than one piece");
    }
}
