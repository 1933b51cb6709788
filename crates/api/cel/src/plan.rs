//! From the checked tree to what is run: variables in slots, functions and overloads decided, constants folded as cel-go's optimizer does
//! (costs depend on it).

use std::collections::BTreeMap;
use std::sync::Arc;

use regex::Regex;
use tiphys_schema::re2;

use crate::ast::{ACCU, Comprehension, Expr, Kind, Literal, Name};
use crate::checker::{Checked, Reference};
use crate::functions;
use crate::value::{Key, Map, Text, Val};

pub(crate) enum Node {
    Const(Val<'static>),
    Var(Name),
    Local(usize),
    Select {
        operand: Box<Node>,
        field: Name,
        optional: bool,
        relative: bool,
    },
    Has {
        operand: Box<Node>,
        field: Name,
    },
    Index {
        operand: Box<Node>,
        index: Box<Node>,
        optional: bool,
        relative: bool,
    },
    And(Box<[Node; 2]>),
    Or(Box<[Node; 2]>),
    If(Box<[Node; 3]>),
    NotStrictlyFalse(Box<Node>),
    Call {
        function: &'static str,
        overload: &'static str,
        args: Vec<Node>,
    },
    /// `in` a list of constants: costs nothing of its own.
    InConst {
        value: Box<Node>,
        list: Box<Node>,
    },
    Match {
        function: &'static str,
        overload: &'static str,
        regex: Box<Regex>,
        args: Vec<Node>,
    },
    List {
        elements: Vec<Node>,
        optional: Vec<usize>,
    },
    Map(Vec<(Node, Node, bool)>),
    Struct {
        name: Name,
        fields: Vec<(Name, Node, bool)>,
    },
    Fold(Box<Fold>),
    Bind {
        slot: usize,
        value: Box<Node>,
        result: Box<Node>,
    },
    /// The accumulator with one more element, in place.
    Append {
        slot: usize,
        element: Box<Node>,
    },
    /// The accumulator with one more entry, in place.
    Insert {
        slot: usize,
        args: Vec<Node>,
    },
    /// `variables.name`.
    Composed(Name),
    Broken,
}

pub(crate) struct Fold {
    pub(crate) range: Node,
    /// The accumulator's; the variables are in the slots after it.
    pub(crate) slot: usize,
    pub(crate) two: bool,
    pub(crate) init: Node,
    pub(crate) condition: Node,
    pub(crate) step: Node,
    pub(crate) result: Node,
}

/// The name of the variable whose fields are expressions of their own.
pub(crate) const VARIABLES: &str = "variables";

pub(crate) fn plan(root: &Expr, checked: &Checked) -> Node {
    Planner { checked, scopes: Vec::new() }.node(root)
}

struct Planner<'c> {
    checked: &'c Checked,
    scopes: Vec<Name>,
}

fn constant(node: &Node) -> Option<Val<'static>> {
    match node {
        Node::Const(value) => Some(value.clone()),
        _ => None,
    }
}

/// A variable with selections: costs are counted along it.
fn is_attribute(node: &Node) -> bool {
    matches!(node, Node::Var(_) | Node::Local(_) | Node::Select { .. } | Node::Index { .. } | Node::Composed(_))
}

impl Planner<'_> {
    fn boxed(&mut self, expr: &Expr) -> Box<Node> {
        Box::new(self.node(expr))
    }

    fn node(&mut self, expr: &Expr) -> Node {
        match &expr.kind {
            Kind::Literal(literal) => Node::Const(value(literal)),
            Kind::Ident(_) => self.name(expr).unwrap_or(Node::Broken),
            Kind::Select { operand, field, test } => self.select(expr, operand, field, *test),
            Kind::Call { function, target, args } => self.call(expr, function, target.as_deref(), args),
            Kind::List { elements, optional } => self.list(elements, optional),
            Kind::Map(_) => self.map(expr),
            Kind::Struct { name, fields } => {
                let fields = fields.iter().map(|f| (f.name.clone(), self.node(&f.value), f.optional)).collect();
                Node::Struct { name: name.clone(), fields }
            }
            Kind::Comprehension(c) => self.comprehension(c),
        }
    }

    fn name(&mut self, expr: &Expr) -> Option<Node> {
        Some(match self.checked.names.get(&expr.id)? {
            Reference::Type(ty) => Node::Const(Val::Type(ty.clone())),
            Reference::Variable(name) => match self.scopes.iter().rposition(|n| n == name) {
                Some(slot) => Node::Local(slot),
                None => Node::Var(name.clone()),
            },
        })
    }

    fn select(&mut self, expr: &Expr, operand: &Expr, field: &Name, test: bool) -> Node {
        if let Some(node) = self.name(expr) {
            return node;
        }
        let operand = self.boxed(operand);
        if test {
            return Node::Has { operand, field: field.clone() };
        }
        if matches!(&*operand, Node::Var(name) if &**name == VARIABLES) {
            return Node::Composed(field.clone());
        }
        let relative = !is_attribute(&operand);
        Node::Select { operand, field: field.clone(), optional: false, relative }
    }

    fn call(&mut self, expr: &Expr, function: &str, target: Option<&Expr>, args: &[Expr]) -> Node {
        let Some((name, overloads, member)) = self.checked.calls.get(&expr.id) else { return Node::Broken };
        let overload = if let [only] = overloads[..] { only } else { "" };
        match (*name, args) {
            ("_?._", [operand, field]) => {
                let Kind::Literal(Literal::Str(field)) = &field.kind else { return Node::Broken };
                let operand = self.boxed(operand);
                let relative = !is_attribute(&operand);
                return Node::Select { operand, field: field.clone(), optional: true, relative };
            }
            ("_[_]" | "_[?_]", [operand, index]) => {
                let (operand, index) = (self.boxed(operand), self.boxed(index));
                let relative = !is_attribute(&operand);
                return Node::Index { operand, index, optional: function == "_[?_]", relative };
            }
            ("_&&_", [a, b]) => return Node::And(Box::new([self.node(a), self.node(b)])),
            ("_||_", [a, b]) => return Node::Or(Box::new([self.node(a), self.node(b)])),
            ("_?_:_", [a, b, c]) => return Node::If(Box::new([self.node(a), self.node(b), self.node(c)])),
            ("@not_strictly_false", [a]) => return Node::NotStrictlyFalse(self.boxed(a)),
            _ => {}
        }
        let all = target.filter(|_| *member).into_iter().chain(args);
        let args: Vec<Node> = all.map(|a| self.node(a)).collect();
        self.plain_call(name, overload, args)
    }

    fn plain_call(&self, function: &'static str, overload: &'static str, mut args: Vec<Node>) -> Node {
        match (function, &args[..]) {
            ("_+_", [Node::Local(slot), Node::List { elements, optional }])
                if self.accumulates(*slot) && elements.len() == 1 && optional.is_empty() =>
            {
                let slot = *slot;
                if let Some(Node::List { mut elements, .. }) = args.pop()
                    && let Some(element) = elements.pop()
                {
                    return Node::Append { slot, element: Box::new(element) };
                }
                return Node::Broken;
            }
            ("cel.@mapInsert", [Node::Local(slot), ..]) if self.accumulates(*slot) => {
                let slot = *slot;
                args.remove(0);
                return Node::Insert { slot, args };
            }
            ("@in", [_, Node::Const(Val::List(_))]) => {
                let list = args.pop().map_or(Node::Broken, |l| l);
                let value = args.pop().map_or(Node::Broken, |v| v);
                return Node::InConst { value: Box::new(value), list: Box::new(list) };
            }
            ("bool" | "bytes" | "double" | "duration" | "int" | "string" | "timestamp" | "uint", [Node::Const(value)]) => {
                if let Ok(converted) = functions::call(function, std::slice::from_ref(value)) {
                    return Node::Const(converted);
                }
            }
            ("matches" | "find" | "findAll", [_, Node::Const(Val::Str(pattern)), ..]) => {
                if let Ok(regex) = re2::compile(pattern) {
                    return Node::Match { function, overload, regex: Box::new(regex), args };
                }
            }
            _ => {}
        }
        Node::Call { function, overload, args }
    }

    fn accumulates(&self, slot: usize) -> bool {
        self.scopes.get(slot).is_some_and(|n| &**n == ACCU)
    }

    fn list(&mut self, elements: &[Expr], optional: &[usize]) -> Node {
        let elements: Vec<Node> = elements.iter().map(|e| self.node(e)).collect();
        if optional.is_empty()
            && let Some(values) = elements.iter().map(constant).collect::<Option<Vec<_>>>()
        {
            return Node::Const(Val::list(values));
        }
        Node::List { elements, optional: optional.to_vec() }
    }

    fn map(&mut self, expr: &Expr) -> Node {
        let Kind::Map(entries) = &expr.kind else { return Node::Broken };
        let entries: Vec<_> = entries.iter().map(|e| (self.node(&e.key), self.node(&e.value), e.optional)).collect();
        let fixed = |(key, value, optional): &(Node, Node, bool)| Some((Key::of(&constant(key)?)?, constant(value)?)).filter(|_| !optional);
        if let Some(values) = entries.iter().map(fixed).collect::<Option<Vec<_>>>() {
            let map: BTreeMap<Key, Val<'static>> = values.into_iter().collect();
            if map.len() == entries.len() {
                return Node::Const(Val::Map(Map::Values(Arc::new(map))));
            }
        }
        Node::Map(entries)
    }

    fn comprehension(&mut self, c: &Comprehension) -> Node {
        if c.is_bind() {
            let value = self.boxed(&c.init);
            let slot = self.scopes.len();
            self.scopes.push(c.accu.clone());
            let result = self.boxed(&c.result);
            self.scopes.truncate(slot);
            return Node::Bind { slot, value, result };
        }
        let (range, init) = (self.node(&c.range), self.node(&c.init));
        let slot = self.scopes.len();
        self.scopes.push(c.accu.clone());
        self.scopes.push(c.var.clone());
        self.scopes.extend(c.var2.clone());
        let (condition, step) = (self.node(&c.condition), self.node(&c.step));
        self.scopes.truncate(slot + 1);
        let result = self.node(&c.result);
        self.scopes.truncate(slot);
        Node::Fold(Box::new(Fold { range, slot, two: c.var2.is_some(), init, condition, step, result }))
    }
}

fn value(literal: &Literal) -> Val<'static> {
    match literal {
        Literal::Null => Val::Null,
        Literal::Bool(b) => Val::Bool(*b),
        Literal::Int(i) => Val::Int(*i),
        Literal::Uint(u) => Val::Uint(*u),
        Literal::Double(d) => Val::Double(*d),
        Literal::Str(s) => Val::Str(Text::Shared(s.clone())),
        Literal::Bytes(b) => Val::Bytes(b.clone()),
    }
}
