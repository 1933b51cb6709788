//! What a rule is made of: expressions that load registers, compare them, and decide.

/// One of the sixteen 4-byte registers. A field of a concatenation takes one or more whole registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Register(pub u8);

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    Accept,
    Drop,
    Return,
    Jump(String),
    Goto(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Compare {
    Equal,
    NotEqual,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MetaKey {
    Mark,
    L4Proto,
    InputName,
    OutputName,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CtKey {
    State,
    Status,
}

/// A map written inside a rule; it lives and dies with the rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InlineMap {
    /// Key bytes and data bytes, all keys of one length and all data of one length.
    pub elements: Vec<(Vec<u8>, Vec<u8>)>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Expr {
    /// Bytes of the IPv4 header.
    Network {
        offset: u32,
        len: u32,
        to: Register,
    },
    /// Bytes of the transport header.
    Transport {
        offset: u32,
        len: u32,
        to: Register,
    },
    Meta {
        key: MetaKey,
        to: Register,
    },
    SetMark {
        from: Register,
    },
    Ct {
        key: CtKey,
        to: Register,
    },
    /// The type of the destination address, as the routing tables see it (`RTN_LOCAL` is 2).
    FibDestinationType {
        to: Register,
    },
    /// The same of the source address.
    FibSourceType {
        to: Register,
    },
    Cmp {
        op: Compare,
        from: Register,
        value: Vec<u8>,
    },
    /// `to = (from & mask) ^ xor`.
    Bitwise {
        from: Register,
        to: Register,
        mask: Vec<u8>,
        xor: Vec<u8>,
    },
    Load {
        to: Register,
        value: Vec<u8>,
    },
    /// The rule goes on if the key is in the set (or, inverted, if not).
    InSet {
        set: String,
        key: Register,
        inverted: bool,
    },
    /// Takes the verdict that the map has for the key; the rule ends if it has none.
    VerdictMap {
        map: String,
        key: Register,
    },
    /// Loads what an inline map has for the key.
    InlineLookup {
        map: InlineMap,
        key: Register,
        to: Register,
    },
    /// A random number below the modulus.
    Random {
        modulus: u32,
        to: Register,
    },
    /// Destination NAT; `port` is the register with the port in its first two bytes.
    Dnat {
        address: Register,
        port: Option<Register>,
    },
    Masquerade,
    RejectPortUnreachable,
    RejectAdminProhibited,
    RejectTcpReset,
    /// Adds the key to a set with timeouts, or renews it.
    Update {
        set: String,
        key: Register,
        timeout_ms: u64,
    },
    Verdict(Verdict),
}

/// Common matches, spelt once.
impl Expr {
    pub fn source(to: Register) -> Expr {
        Expr::Network { offset: 12, len: 4, to }
    }

    pub fn destination(to: Register) -> Expr {
        Expr::Network { offset: 16, len: 4, to }
    }

    pub fn destination_port(to: Register) -> Expr {
        Expr::Transport { offset: 2, len: 2, to }
    }
}
