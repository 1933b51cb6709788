//! Services as an nftables ruleset.
//!
//! `services` looks the destination up in a verdict map and goes to the Service's chain, which picks an endpoint at random by one
//! inline map and translates. Affinity adds a set of clients with a timeout for each endpoint. Packets to a Service without
//! endpoints are rejected in the filter hooks. Masquerading happens where a mark, a hairpin or the way out asks for it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use tiphys_netfilter::{
    Chain, ChainType, Compare, CtKey, ElementValue, Expr, Field, Hook, HookPoint, InlineMap, MetaKey, Register, Rule, Ruleset, Set,
    SetData, Verdict,
};

use crate::services::{Endpoint, NodeConfig, Place, Port, Range, ServicePort};

/// The mark that asks for masquerading, the same bit that upstream uses.
const MASQUERADE: u32 = 0x4000;

const R0: Register = Register(0);
const R1: Register = Register(1);
const R2: Register = Register(2);

const SERVICE_IPS: &str = "service-ips";
const NODE_PORTS: &str = "service-nodeports";
const NO_ENDPOINT_IPS: &str = "no-endpoint-services";
const NO_ENDPOINT_PORTS: &str = "no-endpoint-nodeports";
const HAIRPIN: &str = "hairpin";
const MARK: &str = "mark-for-masquerade";
const REJECT: &str = "reject";

pub fn ruleset(services: &BTreeMap<String, ServicePort>, node: &NodeConfig, place: &Place) -> Ruleset {
    let mut rules = skeleton(node);
    for service in services.values() {
        add_service(&mut rules, service, place);
    }
    rules
}

fn jump(chain: &str) -> Expr {
    Expr::Verdict(Verdict::Jump(chain.into()))
}

fn goto(chain: &str) -> ElementValue {
    ElementValue::Verdict(Verdict::Goto(chain.into()))
}

fn base(chain_type: ChainType, point: HookPoint, priority: i32, rules: Vec<Rule>) -> Chain {
    Chain { hook: Some(Hook { chain_type, point, priority }), rules }
}

/// Everything that is there without any Service.
fn skeleton(node: &NodeConfig) -> Ruleset {
    let mut rules = Ruleset::default();
    let ip_key = [Field::Ipv4, Field::Protocol, Field::Port];
    let port_key = [Field::Protocol, Field::Port];
    for (name, key, data) in [
        (SERVICE_IPS, &ip_key[..], SetData::Verdict),
        (NODE_PORTS, &port_key[..], SetData::Verdict),
        (NO_ENDPOINT_IPS, &ip_key[..], SetData::Verdict),
        (NO_ENDPOINT_PORTS, &port_key[..], SetData::Verdict),
        (HAIRPIN, &[Field::Ipv4, Field::Ipv4][..], SetData::None),
    ] {
        rules.sets.insert(name.into(), Set::new(key, data));
    }
    let to_services = || vec![Rule(vec![jump("services")])];
    let to_check = || vec![Rule(vec![new_connections(), vec![jump("endpoint-check")]].concat())];
    let chains = [
        ("nat-prerouting", base(ChainType::Nat, HookPoint::Prerouting, -100, to_services())),
        ("nat-output", base(ChainType::Nat, HookPoint::Output, -100, to_services())),
        ("nat-postrouting", base(ChainType::Nat, HookPoint::Postrouting, 100, postrouting(node))),
        ("filter-input", base(ChainType::Filter, HookPoint::Input, -90, to_check())),
        ("filter-forward", base(ChainType::Filter, HookPoint::Forward, -90, to_check())),
        ("filter-output", base(ChainType::Filter, HookPoint::Output, -90, to_check())),
        ("services", Chain { hook: None, rules: dispatch(SERVICE_IPS, NODE_PORTS) }),
        ("endpoint-check", Chain { hook: None, rules: endpoint_check(node) }),
        (MARK, Chain { hook: None, rules: vec![Rule(set_mark_bit())] }),
        (REJECT, Chain { hook: None, rules: reject() }),
    ];
    rules.chains.extend(chains.into_iter().map(|(name, chain)| (name.to_owned(), chain)));
    rules
}

fn new_connections() -> Vec<Expr> {
    const NEW: u32 = 8;
    vec![
        Expr::Ct { key: CtKey::State, to: R0 },
        Expr::Bitwise { from: R0, to: R0, mask: NEW.to_ne_bytes().into(), xor: vec![0; 4] },
        Expr::Cmp { op: Compare::NotEqual, from: R0, value: vec![0; 4] },
    ]
}

/// By destination address, protocol and port; then by protocol and port on the node's own addresses.
fn dispatch(by_address: &str, by_port: &str) -> Vec<Rule> {
    let by_address = Rule(vec![
        Expr::destination(R0),
        Expr::Meta { key: MetaKey::L4Proto, to: R1 },
        Expr::destination_port(R2),
        Expr::VerdictMap { map: by_address.into(), key: R0 },
    ]);
    let by_port = Rule(vec![
        Expr::FibDestinationType { to: R0 },
        Expr::Cmp { op: Compare::Equal, from: R0, value: 2u32.to_ne_bytes().into() },
        Expr::Meta { key: MetaKey::L4Proto, to: R1 },
        Expr::destination_port(R2),
        Expr::VerdictMap { map: by_port.into(), key: R1 },
    ]);
    vec![by_address, by_port]
}

/// Refuses what goes to a Service without endpoints, and what goes to a Service range address that nothing translated.
fn endpoint_check(node: &NodeConfig) -> Vec<Rule> {
    let mut rules = dispatch(NO_ENDPOINT_IPS, NO_ENDPOINT_PORTS);
    rules.push(Rule([Expr::destination(R0)].into_iter().chain(in_range(node.services, Compare::Equal)).chain([jump(REJECT)]).collect()));
    rules
}

fn reject() -> Vec<Rule> {
    vec![Rule(vec![Expr::RejectPortUnreachable])]
}

fn set_mark_bit() -> Vec<Expr> {
    vec![
        Expr::Meta { key: MetaKey::Mark, to: R0 },
        Expr::Bitwise { from: R0, to: R0, mask: (!MASQUERADE).to_ne_bytes().into(), xor: MASQUERADE.to_ne_bytes().into() },
        Expr::SetMark { from: R0 },
    ]
}

/// Whether the address in register 0 is in the range; register 0 is used up.
fn in_range(range: Range, op: Compare) -> [Expr; 2] {
    let mask = if range.prefix == 0 { 0u32 } else { u32::MAX << (32 - u32::from(range.prefix.min(32))) };
    let network = u32::from(range.address) & mask;
    [
        Expr::Bitwise { from: R0, to: R0, mask: mask.to_be_bytes().into(), xor: vec![0; 4] },
        Expr::Cmp { op, from: R0, value: network.to_be_bytes().into() },
    ]
}

fn postrouting(node: &NodeConfig) -> Vec<Rule> {
    let marked = Rule(vec![
        Expr::Meta { key: MetaKey::Mark, to: R0 },
        Expr::Bitwise { from: R0, to: R0, mask: MASQUERADE.to_ne_bytes().into(), xor: vec![0; 4] },
        Expr::Cmp { op: Compare::NotEqual, from: R0, value: vec![0; 4] },
        Expr::Masquerade,
    ]);
    let hairpin = Rule(vec![
        Expr::source(R0),
        Expr::destination(R1),
        Expr::InSet { set: HAIRPIN.into(), key: R0, inverted: false },
        Expr::Masquerade,
    ]);
    let mut out = vec![Expr::source(R0)];
    out.extend(in_range(node.pods, Compare::Equal));
    for inside in [node.pods, node.nodes, node.services] {
        out.push(Expr::destination(R0));
        out.extend(in_range(inside, Compare::NotEqual));
    }
    out.push(Expr::Masquerade);
    vec![marked, hairpin, Rule(out)]
}

fn ip_key(address: Ipv4Addr, port: Port) -> Vec<u8> {
    [&address.octets()[..], &port_key(port)].concat()
}

/// Concatenated fields take whole four-byte registers.
fn port_key(port: Port) -> Vec<u8> {
    let [high, low] = port.number.to_be_bytes();
    vec![port.protocol.number(), 0, 0, 0, high, low, 0, 0]
}

fn add_element(rules: &mut Ruleset, set: &str, key: Vec<u8>, value: ElementValue) {
    if let Some(set) = rules.sets.get_mut(set) {
        set.elements.entry(key).or_insert(value);
    }
}

/// What becomes of traffic that this node has no endpoint for: another node may have one, so the sender may try again elsewhere; or no node has.
fn verdict_without_endpoints(service: &ServicePort) -> ElementValue {
    if service.anywhere { ElementValue::Verdict(Verdict::Drop) } else { goto(REJECT) }
}

fn add_service(rules: &mut Ruleset, service: &ServicePort, place: &Place) {
    for endpoint in service.endpoints.iter().chain(&service.local) {
        add_element(rules, HAIRPIN, endpoint.address.octets().repeat(2), ElementValue::None);
    }
    let internal = format!("svc/{}", service.id);
    let cluster_key = ip_key(service.cluster_ip, service.port);
    if service.internal().is_empty() {
        add_element(rules, NO_ENDPOINT_IPS, cluster_key, verdict_without_endpoints(service));
    } else {
        add_picker(rules, &internal, service, service.internal());
        add_element(rules, SERVICE_IPS, cluster_key, goto(&internal));
    }
    if service.has_external() {
        add_external(rules, service, place);
    }
}

fn add_external(rules: &mut Ruleset, service: &ServicePort, place: &Place) {
    let number = |n| Port { protocol: service.port.protocol, number: n };
    if service.external().is_empty() {
        // Traffic of the node's own pods and processes is translated before this is looked at.
        let verdict = verdict_without_endpoints(service);
        for ip in service.external_ips.iter().chain(&service.load_balancer_ips) {
            add_element(rules, NO_ENDPOINT_IPS, ip_key(*ip, service.port), verdict.clone());
        }
        if let Some(port) = service.node_port {
            add_element(rules, NO_ENDPOINT_PORTS, port_key(number(port)), verdict);
        }
    }
    let external = format!("ext/{}", service.id);
    let chain = external_chain(rules, service, place);
    if chain.is_empty() {
        return;
    }
    rules.chains.insert(external.clone(), Chain { hook: None, rules: chain });
    let guarded = add_firewall(rules, service, &external);
    for ip in &service.external_ips {
        add_element(rules, SERVICE_IPS, ip_key(*ip, service.port), goto(&external));
    }
    for ip in &service.load_balancer_ips {
        add_element(rules, SERVICE_IPS, ip_key(*ip, service.port), goto(&guarded));
    }
    if let Some(port) = service.node_port {
        add_element(rules, NODE_PORTS, port_key(number(port)), goto(&external));
    }
}

/// Local policy is for what comes from outside: the node's own pods and processes get any endpoint, since for them nothing is gained by staying.
fn external_chain(rules: &mut Ruleset, service: &ServicePort, place: &Place) -> Vec<Rule> {
    let picker = format!("pick/{}", service.id);
    let to_picker = || Expr::Verdict(Verdict::Goto(picker.clone()));
    if !service.endpoints.is_empty() {
        add_picker(rules, &picker, service, &service.endpoints);
    }
    if !service.external_local {
        return if service.endpoints.is_empty() { Vec::new() } else { vec![Rule(vec![jump(MARK)]), Rule(vec![to_picker()])] };
    }
    let mut chain = Vec::new();
    if !service.endpoints.is_empty() {
        if let Some(own) = place.own_pods {
            chain.push(Rule([Expr::source(R0)].into_iter().chain(in_range(own, Compare::Equal)).chain([to_picker()]).collect()));
        }
        let local = || [Expr::FibSourceType { to: R0 }, Expr::Cmp { op: Compare::Equal, from: R0, value: 2u32.to_ne_bytes().into() }];
        chain.push(Rule(local().into_iter().chain([jump(MARK)]).collect()));
        chain.push(Rule(local().into_iter().chain([to_picker()]).collect()));
    }
    if !service.local.is_empty() {
        let local_picker = format!("local/{}", service.id);
        add_picker(rules, &local_picker, service, &service.local);
        chain.push(Rule(vec![Expr::Verdict(Verdict::Goto(local_picker))]));
    }
    chain
}

/// The chain that load balancer traffic enters: one that lets only the allowed sources on, where some are named.
fn add_firewall(rules: &mut Ruleset, service: &ServicePort, external: &str) -> String {
    if service.source_ranges.is_empty() {
        return external.to_owned();
    }
    let name = format!("fw/{}", service.id);
    let allow = |range: &Range| {
        let mut exprs = vec![Expr::source(R0)];
        exprs.extend(in_range(*range, Compare::Equal));
        exprs.push(Expr::Verdict(Verdict::Goto(external.to_owned())));
        Rule(exprs)
    };
    let mut chain: Vec<Rule> = service.source_ranges.iter().map(allow).collect();
    chain.push(Rule(vec![Expr::Verdict(Verdict::Drop)]));
    rules.chains.insert(name.clone(), Chain { hook: None, rules: chain });
    name
}

fn add_picker(rules: &mut Ruleset, name: &str, service: &ServicePort, endpoints: &BTreeSet<Endpoint>) {
    let chain = match service.affinity {
        None => vec![pick_any(endpoints)],
        Some(affinity) => sticky(rules, name, endpoints, affinity.timeout_seconds),
    };
    rules.chains.insert(name.to_owned(), Chain { hook: None, rules: chain });
}

/// One rule: a random number, an inline map from it to address and port, translation.
fn pick_any(endpoints: &BTreeSet<Endpoint>) -> Rule {
    let data = |e: &Endpoint| [&e.address.octets()[..], &e.port.to_be_bytes(), &[0, 0]].concat();
    let numbered = endpoints.iter().enumerate();
    let elements = numbered.map(|(i, e)| (u32::try_from(i).unwrap_or(u32::MAX).to_ne_bytes().to_vec(), data(e))).collect();
    let modulus = u32::try_from(endpoints.len()).unwrap_or(u32::MAX);
    Rule(vec![
        Expr::Random { modulus, to: R0 },
        Expr::InlineLookup { map: InlineMap { elements }, key: R0, to: R1 },
        Expr::Dnat { address: R1, port: Some(R2) },
    ])
}

/// First those who were at an endpoint before, then anyone at random; each endpoint's chain renews its set of clients.
fn sticky(rules: &mut Ruleset, name: &str, endpoints: &BTreeSet<Endpoint>, timeout_seconds: u32) -> Vec<Rule> {
    let timeout_ms = u64::from(timeout_seconds) * 1000;
    let mut known = Vec::new();
    let mut random = Vec::new();
    let count = u32::try_from(endpoints.len()).unwrap_or(u32::MAX);
    for (i, endpoint) in endpoints.iter().enumerate() {
        let chain = format!("ep/{name}/{}:{}", endpoint.address, endpoint.port);
        let clients = format!("aff/{name}/{}:{}", endpoint.address, endpoint.port);
        let mut set = Set::new(&[Field::Ipv4], SetData::None);
        set.dynamic_timeout_ms = Some(timeout_ms);
        rules.sets.insert(clients.clone(), set);
        rules.chains.insert(chain.clone(), Chain { hook: None, rules: vec![remember_and_translate(&clients, timeout_ms, endpoint)] });
        let to_endpoint = Expr::Verdict(Verdict::Goto(chain));
        known.push(Rule(vec![Expr::source(R0), Expr::InSet { set: clients, key: R0, inverted: false }, to_endpoint.clone()]));
        let left = count - u32::try_from(i).unwrap_or(0);
        let draw = [Expr::Random { modulus: left, to: R0 }, Expr::Cmp { op: Compare::Equal, from: R0, value: vec![0; 4] }, to_endpoint];
        random.push(Rule(draw.into()));
    }
    known.extend(random);
    known
}

fn remember_and_translate(clients: &str, timeout_ms: u64, endpoint: &Endpoint) -> Rule {
    let [high, low] = endpoint.port.to_be_bytes();
    Rule(vec![
        Expr::source(R0),
        Expr::Update { set: clients.into(), key: R0, timeout_ms },
        Expr::Load { to: R1, value: endpoint.address.octets().into() },
        Expr::Load { to: R2, value: vec![high, low, 0, 0] },
        Expr::Dnat { address: R1, port: Some(R2) },
    ])
}
