//! Host ports of the pods of one node, a table of their own: `hostIP:hostPort` to the pod, with masquerading for hairpins and for `127.0.0.1`.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use tiphys_netfilter::{
    Chain, ChainType, Compare, ElementValue, Expr, Field, Hook, HookPoint, MetaKey, Register, Rule, Ruleset, Set, SetData, Verdict,
};

use crate::services::Port;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPort {
    /// Unspecified: every address of the node.
    pub host_ip: Ipv4Addr,
    pub port: Port,
    pub pod_ip: Ipv4Addr,
    pub pod_port: u16,
}

const R0: Register = Register(0);
const R1: Register = Register(1);
const R2: Register = Register(2);

pub fn ruleset(ports: &[HostPort]) -> Ruleset {
    let mut rules = Ruleset::default();
    let dispatch = dispatch();
    let base = |point, priority, rules| Chain { hook: Some(Hook { chain_type: ChainType::Nat, point, priority }), rules };
    let local_only = Rule(vec![
        Expr::FibDestinationType { to: R0 },
        Expr::Cmp { op: Compare::Equal, from: R0, value: 2u32.to_ne_bytes().into() },
        Expr::Verdict(Verdict::Jump("hostports".into())),
    ]);
    rules.chains.insert("prerouting".into(), base(HookPoint::Prerouting, -101, vec![local_only.clone()]));
    rules.chains.insert("output".into(), base(HookPoint::Output, -101, vec![local_only]));
    rules.chains.insert("postrouting".into(), base(HookPoint::Postrouting, 99, masquerade()));
    rules.chains.insert("hostports".into(), Chain { hook: None, rules: dispatch });
    let mut by_address = Set::new(&[Field::Ipv4, Field::Protocol, Field::Port], SetData::Verdict);
    let mut by_port = Set::new(&[Field::Protocol, Field::Port], SetData::Verdict);
    let mut hairpin = Set::new(&[Field::Ipv4, Field::Ipv4], SetData::None);
    for port in ports {
        let chain = format!("{}/{}/{}/{}", port.host_ip, port.port.protocol.word(), port.port.number, port.pod_ip);
        let verdict = ElementValue::Verdict(Verdict::Goto(chain.clone()));
        let [high, low] = port.port.number.to_be_bytes();
        let key = vec![port.port.protocol.number(), 0, 0, 0, high, low, 0, 0];
        if port.host_ip.is_unspecified() {
            by_port.elements.insert(key, verdict);
        } else {
            by_address.elements.insert([&port.host_ip.octets()[..], &key].concat(), verdict);
        }
        hairpin.elements.insert(port.pod_ip.octets().repeat(2), ElementValue::None);
        rules.chains.insert(chain, Chain { hook: None, rules: vec![translate(port)] });
    }
    rules.sets = BTreeMap::from([("by-address".into(), by_address), ("by-port".into(), by_port), ("hairpin".into(), hairpin)]);
    rules
}

fn dispatch() -> Vec<Rule> {
    let proto_and_port = [Expr::Meta { key: MetaKey::L4Proto, to: R1 }, Expr::destination_port(R2)];
    let mut exact = vec![Expr::destination(R0)];
    exact.extend(proto_and_port.clone());
    exact.push(Expr::VerdictMap { map: "by-address".into(), key: R0 });
    let mut any = proto_and_port.to_vec();
    any.push(Expr::VerdictMap { map: "by-port".into(), key: R1 });
    vec![Rule(exact), Rule(any)]
}

fn translate(port: &HostPort) -> Rule {
    let [high, low] = port.pod_port.to_be_bytes();
    Rule(vec![
        Expr::Load { to: R0, value: port.pod_ip.octets().into() },
        Expr::Load { to: R1, value: vec![high, low, 0, 0] },
        Expr::Dnat { address: R0, port: Some(R1) },
    ])
}

/// Hairpins, and what the node's own loopback sends to a pod.
fn masquerade() -> Vec<Rule> {
    let hairpin = Rule(vec![
        Expr::source(R0),
        Expr::destination(R1),
        Expr::InSet { set: "hairpin".into(), key: R0, inverted: false },
        Expr::Masquerade,
    ]);
    let loopback = |op| {
        [
            Expr::Bitwise { from: R0, to: R0, mask: vec![255, 0, 0, 0], xor: vec![0; 4] },
            Expr::Cmp { op, from: R0, value: vec![127, 0, 0, 0] },
        ]
    };
    let mut from_loopback = vec![Expr::source(R0)];
    from_loopback.extend(loopback(Compare::Equal));
    from_loopback.push(Expr::destination(R0));
    from_loopback.extend(loopback(Compare::NotEqual));
    from_loopback.push(Expr::Masquerade);
    vec![hairpin, Rule(from_loopback)]
}
