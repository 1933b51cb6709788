//! Changes as netlink messages (`linux/netfilter/nf_tables.h`). Numbers in attributes are big-endian.

use crate::expr::{Compare, CtKey, Expr, InlineMap, MetaKey, Register, Verdict};
use crate::ruleset::{ChainType, Change, Element, ElementValue, Field, Hook, HookPoint, Set, SetData};

const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEW_TABLE: u16 = 0;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const DELETE_CHAIN: u16 = 5;
const NEW_RULE: u16 = 6;
const DELETE_RULE: u16 = 8;
const NEW_SET: u16 = 9;
const DELETE_SET: u16 = 11;
const NEW_ELEMENTS: u16 = 12;
const DELETE_ELEMENTS: u16 = 14;

const REQUEST: u16 = 1;
const ACK: u16 = 4;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;

const FAMILY_IPV4: u8 = 2;
const NESTED: u16 = 0x8000;
const SET_ANONYMOUS: u32 = 1;
const SET_CONSTANT: u32 = 2;
const SET_INTERVAL: u32 = 4;
const SET_MAP: u32 = 8;
const SET_TIMEOUT: u32 = 0x10;
const SET_EVAL: u32 = 0x20;
const DATA_VERDICT: u32 = 0xffff_ff00;
const ELEMENT_INTERVAL_END: u32 = 1;

/// Elements in one message, so that no attribute outgrows its 16-bit length.
const ELEMENTS_AT_ONCE: usize = 400;

/// A whole transaction as bytes, and which change each message belongs to, by sequence number.
pub(crate) struct Encoded {
    pub(crate) bytes: Vec<u8>,
    pub(crate) first_sequence: u32,
    pub(crate) last_sequence: u32,
    /// Index of the change for each message after the first.
    pub(crate) changes: Vec<usize>,
}

pub(crate) fn encode(table: &str, changes: &[Change], sequence: u32) -> Encoded {
    let mut writer =
        Writer { table: table.into(), bytes: Vec::new(), sequence, changes: Vec::new(), current: 0, next_set_id: 1, last_start: 0 };
    writer.message(BATCH_BEGIN, REQUEST, 0, SUBSYSTEM, &[]);
    for (index, change) in changes.iter().enumerate() {
        writer.current = index;
        writer.change(change);
    }
    let last_sequence = writer.sequence;
    writer.acknowledge_last();
    writer.message(BATCH_END, REQUEST, 0, SUBSYSTEM, &[]);
    writer.changes.pop();
    Encoded { bytes: writer.bytes, first_sequence: sequence + 1, last_sequence, changes: writer.changes.split_off(1) }
}

struct Writer {
    table: String,
    bytes: Vec<u8>,
    sequence: u32,
    changes: Vec<usize>,
    current: usize,
    next_set_id: u32,
    last_start: usize,
}

impl Writer {
    fn message(&mut self, kind: u16, flags: u16, family: u8, resource: u16, body: &[u8]) {
        self.sequence += 1;
        self.changes.push(self.current);
        self.last_start = self.bytes.len();
        self.bytes.extend(u32::try_from(20 + body.len()).unwrap_or(u32::MAX).to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(flags.to_ne_bytes());
        self.bytes.extend(self.sequence.to_ne_bytes());
        self.bytes.extend(0u32.to_ne_bytes());
        self.bytes.extend([family, 0]);
        self.bytes.extend(resource.to_be_bytes());
        self.bytes.extend(body);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn acknowledge_last(&mut self) {
        let at = self.last_start + 6;
        if let Some(flags) = self.bytes.get_mut(at..at + 2) {
            let now = u16::from_ne_bytes([flags[0], flags[1]]) | ACK;
            flags.copy_from_slice(&now.to_ne_bytes());
        }
    }

    fn nft(&mut self, kind: u16, flags: u16, body: &Attrs) {
        self.message(SUBSYSTEM << 8 | kind, REQUEST | flags, FAMILY_IPV4, 0, &body.0);
    }

    fn change(&mut self, change: &Change) {
        let table = self.table.clone();
        let named = |number: u16, name: &str| Attrs::default().string(1, &table).string(number, name);
        match change {
            Change::AddTable => self.nft(NEW_TABLE, CREATE, &Attrs::default().string(1, &table)),
            Change::DeleteTable => self.nft(DELETE_TABLE, 0, &Attrs::default().string(1, &table)),
            Change::AddSet { name, set } => {
                let id = self.set_id();
                self.nft(NEW_SET, CREATE, &set_attrs(&table, name, set, id));
            }
            Change::DeleteSet { name } => self.nft(DELETE_SET, 0, &named(2, name)),
            Change::AddChain { name, hook } => self.nft(NEW_CHAIN, CREATE, &chain_attrs(named(3, name), hook.as_ref())),
            Change::FlushChain { name } => self.nft(DELETE_RULE, 0, &named(2, name)),
            Change::DeleteChain { name } => self.nft(DELETE_CHAIN, 0, &named(3, name)),
            Change::AddRule { chain, rule } => self.rule(&table, chain, &rule.0),
            Change::AddElements { set, key, data, elements } => self.elements(NEW_ELEMENTS, CREATE, set, key, *data, elements),
            Change::DeleteElements { set, key, data, elements } => self.elements(DELETE_ELEMENTS, 0, set, key, *data, elements),
        }
    }

    fn set_id(&mut self) -> u32 {
        self.next_set_id += 1;
        self.next_set_id
    }

    fn elements(&mut self, kind: u16, flags: u16, set: &str, key: &[Field], data: SetData, elements: &[Element]) {
        for part in elements.chunks(ELEMENTS_AT_ONCE) {
            let mut list = Attrs::default();
            for element in part {
                list = element_attrs(list, key, data, element);
            }
            let body = Attrs::default().string(1, &self.table).string(2, set).nested(3, &list);
            self.nft(kind, flags, &body);
        }
    }

    fn rule(&mut self, table: &str, chain: &str, exprs: &[Expr]) {
        let mut list = Attrs::default();
        for expr in exprs {
            let (name, data) = match expr {
                Expr::InlineLookup { map, key, to } => self.inline(table, map, *key, *to),
                other => expression(other),
            };
            list = list.nested(1, &Attrs::default().string(1, name).nested(2, &data));
        }
        let body = Attrs::default().string(1, table).string(2, chain).nested(4, &list);
        self.nft(NEW_RULE, CREATE | APPEND, &body);
    }

    /// Makes the anonymous map and gives the lookup in it.
    fn inline(&mut self, table: &str, map: &InlineMap, key: Register, to: Register) -> (&'static str, Attrs) {
        const NAME: &str = "__map%d";
        const TYPE_INTEGER: u32 = 4;
        let id = self.set_id();
        let length = |pick: fn(&(Vec<u8>, Vec<u8>)) -> usize| u32::try_from(map.elements.first().map_or(0, pick)).unwrap_or(0);
        let set = Attrs::default()
            .string(1, table)
            .string(2, NAME)
            .u32(3, SET_ANONYMOUS | SET_CONSTANT | SET_MAP)
            .u32(4, TYPE_INTEGER)
            .u32(5, length(|e| e.0.len()))
            .u32(6, Field::Ipv4.type_number() << 6 | Field::Port.type_number())
            .u32(7, length(|e| e.1.len()))
            .u32(10, id);
        self.nft(NEW_SET, CREATE, &set);
        for part in map.elements.chunks(ELEMENTS_AT_ONCE) {
            let mut list = Attrs::default();
            for (from, data) in part {
                list = list.nested(1, &Attrs::default().nested(1, &value(from)).nested(2, &value(data)));
            }
            self.nft(NEW_ELEMENTS, CREATE, &Attrs::default().string(1, table).string(2, NAME).nested(3, &list).u32(4, id));
        }
        ("lookup", Attrs::default().string(1, NAME).register(2, key).register(3, to).u32(4, id))
    }
}

fn key_length(key: &[Field]) -> usize {
    match key {
        [one] => one.len(),
        many => many.iter().map(|f| f.len().next_multiple_of(4)).sum(),
    }
}

fn set_attrs(table: &str, name: &str, set: &Set, id: u32) -> Attrs {
    let mut flags = 0;
    if set.interval {
        flags |= SET_INTERVAL;
    }
    if set.data == SetData::Verdict {
        flags |= SET_MAP;
    }
    if set.dynamic_timeout_ms.is_some() {
        flags |= SET_TIMEOUT | SET_EVAL;
    }
    let key_type = set.key.iter().fold(0, |all, field| all << 6 | field.type_number());
    let key_len = u32::try_from(key_length(&set.key)).unwrap_or(0);
    let mut attrs = Attrs::default().string(1, table).string(2, name).u32(3, flags).u32(4, key_type).u32(5, key_len);
    if set.data == SetData::Verdict {
        attrs = attrs.u32(6, DATA_VERDICT).u32(7, 0);
    }
    attrs = attrs.u32(10, id);
    match set.dynamic_timeout_ms {
        Some(ms) => attrs.u64(11, ms),
        None => attrs,
    }
}

fn element_attrs(list: Attrs, _key: &[Field], data: SetData, element: &Element) -> Attrs {
    let mut attrs = Attrs::default().nested(1, &value(&element.key));
    if let (SetData::Verdict, ElementValue::Verdict(verdict)) = (data, &element.value) {
        attrs = attrs.nested(2, &verdict_data(verdict));
    }
    let list = list.nested(1, &attrs);
    match element.end.as_deref() {
        None | Some([]) => list,
        Some(end) => list.nested(1, &Attrs::default().nested(1, &value(end)).u32(3, ELEMENT_INTERVAL_END)),
    }
}

fn chain_attrs(attrs: Attrs, hook: Option<&Hook>) -> Attrs {
    const POLICY_ACCEPT: u32 = 1;
    let Some(hook) = hook else { return attrs };
    let number = match hook.point {
        HookPoint::Prerouting => 0,
        HookPoint::Input => 1,
        HookPoint::Forward => 2,
        HookPoint::Output => 3,
        HookPoint::Postrouting => 4,
    };
    let chain_type = match hook.chain_type {
        ChainType::Filter => "filter",
        ChainType::Nat => "nat",
    };
    let place = Attrs::default().u32(1, number).u32(2, hook.priority.cast_unsigned());
    attrs.nested(4, &place).u32(5, POLICY_ACCEPT).string(7, chain_type)
}

fn expression(expr: &Expr) -> (&'static str, Attrs) {
    let none = Attrs::default();
    match expr {
        Expr::Network { offset, len, to } => ("payload", none.register(1, *to).u32(2, 1).u32(3, *offset).u32(4, *len)),
        Expr::Transport { offset, len, to } => ("payload", none.register(1, *to).u32(2, 2).u32(3, *offset).u32(4, *len)),
        Expr::Meta { key, to } => ("meta", none.register(1, *to).u32(2, meta_number(*key))),
        Expr::SetMark { from } => ("meta", none.u32(2, meta_number(MetaKey::Mark)).register(3, *from)),
        Expr::Ct { key, to } => ("ct", none.register(1, *to).u32(2, if *key == CtKey::State { 0 } else { 2 })),
        Expr::FibDestinationType { to } => ("fib", none.register(1, *to).u32(2, 3).u32(3, 2)),
        Expr::FibSourceType { to } => ("fib", none.register(1, *to).u32(2, 3).u32(3, 1)),
        Expr::Cmp { op, from, value: to } => {
            ("cmp", none.register(1, *from).u32(2, if *op == Compare::Equal { 0 } else { 1 }).nested(3, &value(to)))
        }
        Expr::Bitwise { from, to, mask, xor } => {
            let len = u32::try_from(mask.len()).unwrap_or(0);
            ("bitwise", none.register(1, *from).register(2, *to).u32(3, len).nested(4, &value(mask)).nested(5, &value(xor)))
        }
        Expr::Load { to, value: bytes } => ("immediate", none.register(1, *to).nested(2, &value(bytes))),
        Expr::InSet { set, key, inverted } => ("lookup", none.string(1, set).register(2, *key).u32(5, u32::from(*inverted))),
        Expr::VerdictMap { map, key } => ("lookup", none.string(1, map).register(2, *key).u32(3, 0)),
        Expr::InlineLookup { .. } => ("lookup", none),
        Expr::Random { modulus, to } => ("numgen", none.register(1, *to).u32(2, *modulus).u32(3, 1).u32(4, 0)),
        Expr::Dnat { address, port } => dnat(*address, *port),
        Expr::Masquerade => ("masq", none),
        Expr::RejectPortUnreachable => ("reject", none.u32(1, 0).u8(2, 3)),
        Expr::RejectAdminProhibited => ("reject", none.u32(1, 0).u8(2, 13)),
        Expr::RejectTcpReset => ("reject", none.u32(1, 1).u8(2, 0)),
        Expr::Update { set, key, timeout_ms } => ("dynset", none.string(1, set).u32(3, 1).register(4, *key).u64(6, *timeout_ms)),
        Expr::Verdict(verdict) => ("immediate", none.u32(1, 0).nested(2, &verdict_data(verdict))),
    }
}

fn dnat(address: Register, port: Option<Register>) -> (&'static str, Attrs) {
    const DESTINATION: u32 = 1;
    let attrs = Attrs::default().u32(1, DESTINATION).u32(2, u32::from(FAMILY_IPV4)).register(3, address);
    (
        "nat",
        match port {
            Some(port) => attrs.register(5, port),
            None => attrs,
        },
    )
}

fn meta_number(key: MetaKey) -> u32 {
    match key {
        MetaKey::Mark => 3,
        MetaKey::InputName => 6,
        MetaKey::OutputName => 7,
        MetaKey::L4Proto => 16,
    }
}

fn value(bytes: &[u8]) -> Attrs {
    Attrs::default().bytes(1, bytes)
}

fn verdict_data(verdict: &Verdict) -> Attrs {
    let (code, chain): (i32, Option<&str>) = match verdict {
        Verdict::Drop => (0, None),
        Verdict::Accept => (1, None),
        Verdict::Return => (-5, None),
        Verdict::Jump(chain) => (-3, Some(chain)),
        Verdict::Goto(chain) => (-4, Some(chain)),
    };
    let attrs = Attrs::default().u32(1, code.cast_unsigned());
    let attrs = match chain {
        Some(chain) => attrs.string(2, chain),
        None => attrs,
    };
    Attrs::default().nested(2, &attrs)
}

#[derive(Default)]
struct Attrs(Vec<u8>);

impl Attrs {
    fn bytes(mut self, kind: u16, value: &[u8]) -> Self {
        self.0.extend(u16::try_from(value.len() + 4).unwrap_or(u16::MAX).to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    fn string(self, kind: u16, text: &str) -> Self {
        let mut bytes = text.as_bytes().to_vec();
        bytes.push(0);
        self.bytes(kind, &bytes)
    }

    fn u8(self, kind: u16, number: u8) -> Self {
        self.bytes(kind, &[number])
    }

    fn u32(self, kind: u16, number: u32) -> Self {
        self.bytes(kind, &number.to_be_bytes())
    }

    fn u64(self, kind: u16, number: u64) -> Self {
        self.bytes(kind, &number.to_be_bytes())
    }

    /// `NFT_REG32_00` is number 8.
    fn register(self, kind: u16, register: Register) -> Self {
        self.u32(kind, 8 + u32::from(register.0))
    }

    fn nested(self, kind: u16, inner: &Attrs) -> Self {
        self.bytes(kind | NESTED, &inner.0)
    }
}
