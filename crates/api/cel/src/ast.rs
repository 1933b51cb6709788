//! The tree of an expression, after macros. Depth is bounded by the parser, so walking it by recursion is.

use std::sync::Arc;

pub(crate) type Id = u32;
pub(crate) type Name = Arc<str>;

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Literal {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Str(Arc<str>),
    Bytes(Arc<[u8]>),
}

#[derive(Debug, Clone)]
pub(crate) struct Expr {
    pub(crate) id: Id,
    pub(crate) depth: u32,
    pub(crate) kind: Kind,
}

#[derive(Debug, Clone)]
pub(crate) enum Kind {
    Literal(Literal),
    Ident(Name),
    Select { operand: Box<Expr>, field: Name, test: bool },
    Call { function: Name, target: Option<Box<Expr>>, args: Vec<Expr> },
    List { elements: Vec<Expr>, optional: Vec<usize> },
    Map(Vec<MapEntry>),
    Struct { name: Name, fields: Vec<FieldEntry> },
    Comprehension(Box<Comprehension>),
}

#[derive(Debug, Clone)]
pub(crate) struct MapEntry {
    pub(crate) key: Expr,
    pub(crate) value: Expr,
    pub(crate) optional: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct FieldEntry {
    pub(crate) id: Id,
    pub(crate) name: Name,
    pub(crate) value: Expr,
    pub(crate) optional: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Comprehension {
    pub(crate) range: Expr,
    pub(crate) var: Name,
    pub(crate) var2: Option<Name>,
    pub(crate) accu: Name,
    pub(crate) init: Expr,
    pub(crate) condition: Expr,
    pub(crate) step: Expr,
    pub(crate) result: Expr,
}

/// The accumulator of macros; no identifier in source can be it.
pub(crate) const ACCU: &str = "@result";

impl Comprehension {
    /// `cel.bind` and its kin: no range, only a name for a value.
    pub(crate) fn is_bind(&self) -> bool {
        matches!(&self.range.kind, Kind::List { elements, .. } if elements.is_empty())
            && matches!(self.condition.kind, Kind::Literal(Literal::Bool(false)))
            && &*self.accu != ACCU
    }
}

impl Expr {
    pub(crate) fn is_ident(&self, name: &str) -> bool {
        matches!(&self.kind, Kind::Ident(n) if &**n == name)
    }

    /// `a.b.c` as one name, if the tree is nothing else.
    pub(crate) fn qualified_name(&self) -> Option<String> {
        match &self.kind {
            Kind::Ident(name) => Some(name.to_string()),
            Kind::Select { operand, field, test: false } => Some(format!("{}.{field}", operand.qualified_name()?)),
            _ => None,
        }
    }
}

fn deepest<'a>(parts: impl IntoIterator<Item = &'a Expr>) -> u32 {
    parts.into_iter().map(|e| e.depth).max().unwrap_or(0)
}

impl Kind {
    pub(crate) fn depth(&self) -> u32 {
        1 + match self {
            Kind::Literal(_) | Kind::Ident(_) => 0,
            Kind::Select { operand, .. } => operand.depth,
            Kind::Call { target, args, .. } => deepest(args).max(target.as_ref().map_or(0, |t| t.depth)),
            Kind::List { elements, .. } => deepest(elements),
            Kind::Map(entries) => entries.iter().map(|e| e.key.depth.max(e.value.depth)).max().unwrap_or(0),
            Kind::Struct { fields, .. } => fields.iter().map(|f| f.value.depth).max().unwrap_or(0),
            Kind::Comprehension(c) => deepest([&c.range, &c.init, &c.condition, &c.step, &c.result]),
        }
    }
}

/// What the parser makes: the tree and where each node stands.
#[derive(Debug, Clone)]
pub(crate) struct Parsed {
    pub(crate) root: Expr,
    /// Offsets by id.
    pub(crate) offsets: Vec<u32>,
}
