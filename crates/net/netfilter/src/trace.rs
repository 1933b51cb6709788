//! A packet tracer over a ruleset: what the rules would do to a packet, without a kernel.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use crate::expr::{Compare, CtKey, Expr, MetaKey, Register, Verdict};
use crate::ruleset::{ElementValue, HookPoint, Rule, Ruleset, Set};

#[derive(Debug, Clone)]
pub struct Packet {
    pub source: Ipv4Addr,
    pub destination: Ipv4Addr,
    /// 6 TCP, 17 UDP.
    pub protocol: u8,
    pub port: u16,
    pub input: String,
    pub output: String,
    /// The destination is an address of this node.
    pub to_local: bool,
    /// The source is one.
    pub from_local: bool,
    pub mark: u32,
    /// What a random choice gives, modulo its modulus.
    pub dice: u32,
    /// `ct state` bits: 8 is new, 2 established.
    pub ct_state: u32,
    /// `ct status` bits: 0x20 is destination NAT done.
    pub ct_status: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing decided; the packet goes on.
    Accepted,
    Dropped,
    Rejected,
    Dnat(Ipv4Addr, u16),
    Masqueraded,
}

/// Follows `packet` through all base chains of `point`, in priority order; marks that rules set stay in the packet.
pub fn trace(rules: &Ruleset, point: HookPoint, packet: &mut Packet) -> Outcome {
    let mut chains: Vec<_> =
        rules.chains.iter().filter_map(|(n, c)| c.hook.filter(|h| h.point == point).map(|h| (h.priority, n))).collect();
    chains.sort();
    for (_, name) in chains {
        if let Flow::Done(outcome) = run(rules, name, packet, 0)
            && outcome != Outcome::Accepted
        {
            return outcome;
        }
    }
    Outcome::Accepted
}

enum Flow {
    Next,
    Return,
    Done(Outcome),
}

fn run(rules: &Ruleset, chain: &str, packet: &mut Packet, depth: usize) -> Flow {
    assert!(depth < 16, "nftables allows sixteen levels of jumps");
    let Some(chain) = rules.chains.get(chain) else { return Flow::Next };
    for rule in &chain.rules {
        match apply(rules, rule, packet, depth) {
            Flow::Next => {}
            Flow::Return => return Flow::Next,
            done @ Flow::Done(_) => return done,
        }
    }
    Flow::Next
}

#[derive(Default)]
struct Registers(BTreeMap<Register, Vec<u8>>);

impl Registers {
    fn load(&mut self, to: Register, bytes: &[u8]) {
        for (i, word) in bytes.chunks(4).enumerate() {
            let mut padded = word.to_vec();
            padded.resize(4, 0);
            self.0.insert(Register(to.0 + u8::try_from(i).unwrap_or(u8::MAX)), padded);
        }
    }

    fn read(&self, from: Register, len: usize) -> Vec<u8> {
        let words = (0..len.div_ceil(4))
            .flat_map(|i| self.0.get(&Register(from.0 + u8::try_from(i).unwrap_or(u8::MAX))).cloned().unwrap_or(vec![0; 4]));
        words.take(len).collect()
    }
}

fn apply(rules: &Ruleset, rule: &Rule, packet: &mut Packet, depth: usize) -> Flow {
    let mut regs = Registers::default();
    for expr in &rule.0 {
        match step(rules, expr, packet, &mut regs) {
            Step::On => {}
            Step::Break => return Flow::Next,
            Step::Done(outcome) => return Flow::Done(outcome),
            Step::Verdict(verdict) => return decide(rules, &verdict, packet, depth),
        }
    }
    Flow::Next
}

fn decide(rules: &Ruleset, verdict: &Verdict, packet: &mut Packet, depth: usize) -> Flow {
    match verdict {
        Verdict::Accept => Flow::Done(Outcome::Accepted),
        Verdict::Drop => Flow::Done(Outcome::Dropped),
        Verdict::Return => Flow::Return,
        Verdict::Jump(chain) => run(rules, chain, packet, depth + 1),
        // After a goto the calling chain is not gone on with.
        Verdict::Goto(chain) => match run(rules, chain, packet, depth + 1) {
            Flow::Next => Flow::Return,
            other => other,
        },
    }
}

enum Step {
    On,
    Break,
    Done(Outcome),
    Verdict(Verdict),
}

fn only_if(condition: bool) -> Step {
    if condition { Step::On } else { Step::Break }
}

fn step(rules: &Ruleset, expr: &Expr, packet: &mut Packet, regs: &mut Registers) -> Step {
    match expr {
        Expr::Network { offset: 12, to, .. } => regs.load(*to, &packet.source.octets()),
        Expr::Network { to, .. } => regs.load(*to, &packet.destination.octets()),
        Expr::Transport { to, .. } => regs.load(*to, &packet.port.to_be_bytes()),
        Expr::Meta { key, to } => regs.load(*to, &meta(*key, packet)),
        Expr::SetMark { from } => packet.mark = u32::from_ne_bytes(regs.read(*from, 4).try_into().unwrap_or_default()),
        Expr::Ct { key: CtKey::State, to } => regs.load(*to, &packet.ct_state.to_ne_bytes()),
        Expr::Ct { key: CtKey::Status, to } => regs.load(*to, &packet.ct_status.to_ne_bytes()),
        Expr::FibDestinationType { to } => regs.load(*to, &(if packet.to_local { 2u32 } else { 1 }).to_ne_bytes()),
        Expr::FibSourceType { to } => regs.load(*to, &(if packet.from_local { 2u32 } else { 1 }).to_ne_bytes()),
        Expr::Cmp { op, from, value } => return only_if((regs.read(*from, value.len()) == *value) == (*op == Compare::Equal)),
        Expr::Bitwise { from, to, mask, xor } => {
            let bytes: Vec<u8> = regs.read(*from, mask.len()).iter().zip(mask).zip(xor).map(|((b, m), x)| (b & m) ^ x).collect();
            regs.load(*to, &bytes);
        }
        Expr::Load { to, value } => regs.load(*to, value),
        Expr::InSet { set, key, inverted } => {
            return only_if(rules.sets.get(set).is_some_and(|s| find(s, *key, regs).is_some()) != *inverted);
        }
        Expr::VerdictMap { map, key } => {
            return match rules.sets.get(map).and_then(|s| find(s, *key, regs)) {
                Some(ElementValue::Verdict(verdict)) => Step::Verdict(verdict.clone()),
                _ => Step::Break,
            };
        }
        Expr::InlineLookup { map, key, to } => {
            let wanted = regs.read(*key, map.elements.first().map_or(0, |e| e.0.len()));
            let Some((_, data)) = map.elements.iter().find(|(k, _)| *k == wanted) else { return Step::Break };
            regs.load(*to, data);
        }
        Expr::Random { modulus, to } => regs.load(*to, &(packet.dice % modulus).to_ne_bytes()),
        Expr::Dnat { address, port } => {
            let ip: [u8; 4] = regs.read(*address, 4).try_into().unwrap_or_default();
            let port = port.map_or(packet.port, |p| u16::from_be_bytes(regs.read(p, 2).try_into().unwrap_or_default()));
            return Step::Done(Outcome::Dnat(ip.into(), port));
        }
        Expr::Masquerade => return Step::Done(Outcome::Masqueraded),
        Expr::RejectPortUnreachable | Expr::RejectAdminProhibited | Expr::RejectTcpReset => return Step::Done(Outcome::Rejected),
        Expr::Update { .. } => {}
        Expr::Verdict(verdict) => return Step::Verdict(verdict.clone()),
    }
    Step::On
}

fn meta(key: MetaKey, packet: &Packet) -> Vec<u8> {
    let name = |text: &str| {
        let mut bytes = text.as_bytes().to_vec();
        bytes.resize(16, 0);
        bytes
    };
    match key {
        MetaKey::Mark => packet.mark.to_ne_bytes().to_vec(),
        MetaKey::L4Proto => vec![packet.protocol],
        MetaKey::InputName => name(&packet.input),
        MetaKey::OutputName => name(&packet.output),
    }
}

fn find<'a>(set: &'a Set, key: Register, regs: &Registers) -> Option<&'a ElementValue> {
    let len = match set.key.as_slice() {
        [one] => one.len(),
        many => many.iter().map(|f| f.len().next_multiple_of(4)).sum(),
    };
    let wanted = regs.read(key, len);
    if !set.interval {
        return set.elements.get(&wanted);
    }
    let (start, value) = set.elements.range(..=wanted.clone()).next_back()?;
    let end = set.ranges.get(start);
    end.is_none_or(|e| e.is_empty() || wanted < *e).then_some(value)
}
