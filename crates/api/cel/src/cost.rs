//! What an expression may cost at most, before it has run: cel-go's estimator (`checker/cost.go`) with Kubernetes' (`library/cost.go`).
//! CRDs are accepted or refused by these numbers, so they are upstream's to the unit.

use std::collections::HashMap;

use crate::actual_cost::{CHECK, COSTS_ONE, LIST, MAP, REGEX_FACTOR, STRING_FACTOR, STRUCT};
use crate::ast::{ACCU, Comprehension, Expr, Id, Kind, Literal};
use crate::checker::{Checked, Reference};
use crate::schema::Schema;
use crate::types::Type;

/// A range, of costs and of sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Estimate {
    pub min: u64,
    pub max: u64,
}

impl Estimate {
    const ZERO: Estimate = Estimate::fixed(0);
    const UNKNOWN: Estimate = Estimate { min: 0, max: u64::MAX };

    const fn fixed(n: u64) -> Estimate {
        Estimate { min: n, max: n }
    }

    fn plus(self, other: Estimate) -> Estimate {
        Estimate { min: self.min.saturating_add(other.min), max: self.max.saturating_add(other.max) }
    }

    fn times(self, other: Estimate) -> Estimate {
        Estimate { min: self.min.saturating_mul(other.min), max: self.max.saturating_mul(other.max) }
    }

    fn scaled(self, factor: f64) -> Estimate {
        // Conversion to integers saturates.
        let scale = |n: u64| (n as f64 * factor).ceil() as u64;
        Estimate { min: scale(self.min), max: scale(self.max) }
    }

    fn union(self, other: Estimate) -> Estimate {
        Estimate { min: self.min.min(other.min), max: self.max.max(other.max) }
    }
}

pub(crate) fn estimate(root: &Expr, checked: &Checked, schema: Option<&Schema>) -> Estimate {
    let mut coster = Coster { checked, schema, paths: HashMap::new(), sizes: HashMap::new(), entries: HashMap::new(), locals: Vec::new() };
    coster.cost(root)
}

type Path = Vec<String>;

/// The sizes of keys (or indexes) and values of a container that an expression makes.
#[derive(Debug, Clone, Copy)]
struct Entries {
    list: bool,
    key: Estimate,
    value: Estimate,
}

impl Entries {
    fn union(a: Option<Entries>, b: Option<Entries>) -> Option<Entries> {
        let (a, b) = (a?, b?);
        Some(Entries { list: a.list, key: a.key.union(b.key), value: a.value.union(b.value) })
    }
}

struct Local {
    name: String,
    path: Path,
    size: Option<Estimate>,
    entries: Option<Entries>,
}

struct Coster<'c> {
    checked: &'c Checked,
    schema: Option<&'c Schema>,
    paths: HashMap<Id, Path>,
    sizes: HashMap<Id, Estimate>,
    entries: HashMap<Id, Entries>,
    locals: Vec<Local>,
}

/// An argument as estimates of calls see it.
struct Arg<'e> {
    expr: &'e Expr,
    path: Path,
    size: Option<Estimate>,
    ty: Type,
}

struct CallEstimate {
    cost: Estimate,
    size: Option<Estimate>,
}

impl From<Estimate> for CallEstimate {
    fn from(cost: Estimate) -> CallEstimate {
        CallEstimate { cost, size: None }
    }
}

impl Coster<'_> {
    fn ty(&self, expr: &Expr) -> Type {
        self.checked.types.get(&expr.id).cloned().unwrap_or(Type::Error)
    }

    fn local(&self, name: &str) -> Option<&Local> {
        self.locals.iter().rev().find(|l| l.name == name)
    }

    fn cost(&mut self, expr: &Expr) -> Estimate {
        if let Some(Reference::Variable(name)) = self.checked.names.get(&expr.id) {
            let path = self.local(name).map_or_else(|| vec![name.to_string()], |l| l.path.clone());
            self.paths.insert(expr.id, path);
            return Estimate::fixed(1);
        }
        match &expr.kind {
            Kind::Ident(name) => {
                self.paths.insert(expr.id, vec![name.to_string()]);
                Estimate::fixed(1)
            }
            Kind::Literal(_) => Estimate::ZERO,
            Kind::Select { operand, field, test } => self.select(expr, operand, field, *test),
            Kind::Call { target, args, .. } => self.call(expr, target.as_deref(), args),
            Kind::List { elements, .. } => self.list(expr, elements),
            Kind::Map(_) => self.map(expr),
            Kind::Struct { fields, .. } => {
                fields.iter().fold(Estimate::ZERO, |sum, f| sum.plus(self.cost(&f.value))).plus(Estimate::fixed(STRUCT))
            }
            Kind::Comprehension(c) if c.is_bind() => self.bind(expr, c),
            Kind::Comprehension(c) => self.comprehension(expr, c),
        }
    }

    fn select(&mut self, expr: &Expr, operand: &Expr, field: &str, test: bool) -> Estimate {
        let sum = self.cost(operand);
        if test {
            return sum;
        }
        let mut path = self.path(operand);
        path.push(field.to_owned());
        self.paths.insert(expr.id, path);
        let counted = matches!(self.ty(operand), Type::Map(..) | Type::Struct(_) | Type::Var(_));
        sum.plus(Estimate::fixed(u64::from(counted)))
    }

    fn call(&mut self, expr: &Expr, target: Option<&Expr>, args: &[Expr]) -> Estimate {
        let Some((function, overloads, member)) = self.checked.calls.get(&expr.id) else { return Estimate::ZERO };
        if let ("dyn", [arg]) = (*function, args) {
            let cost = self.cost(arg).plus(Estimate::fixed(1));
            self.copy(expr, arg);
            return cost;
        }
        let costs: Vec<Estimate> = args.iter().map(|a| self.cost(a)).collect();
        let target = target.filter(|_| *member);
        let sum = target.map_or(Estimate::ZERO, |t| self.cost(t));
        let mut nodes: Vec<Arg<'_>> = args.iter().map(|a| self.arg(a)).collect();
        let of = target.map(|t| self.arg(t));
        let (mut total, mut size): (Option<Estimate>, Option<Estimate>) = (None, None);
        for overload in overloads {
            let found = self.overload(expr, function, overload, of.as_ref(), &mut nodes, &costs);
            total = Some(total.map_or(found.cost, |t| t.union(found.cost)));
            size = match (size, found.size) {
                (Some(a), Some(b)) => Some(a.union(b)),
                (a, b) => a.or(b),
            };
            let step = match *overload {
                "index_list" => Some("@items"),
                "index_map" => Some("@values"),
                _ => None,
            };
            if let (Some(step), Some(of)) = (step, args.first()) {
                size = self.entry_sizes(of).map(|e| e.value);
                let mut path = self.path(of);
                path.push(step.to_owned());
                self.paths.insert(expr.id, path);
            }
            size = size.or_else(|| self.size(expr));
        }
        if let Some(size) = size {
            self.sizes.insert(expr.id, size);
        }
        sum.plus(total.unwrap_or(Estimate::ZERO))
    }

    fn list(&mut self, expr: &Expr, elements: &[Expr]) -> Estimate {
        let (mut sum, mut size) = (Estimate::ZERO, None);
        for element in elements {
            sum = sum.plus(self.cost(element));
            let this = self.size(element).unwrap_or(Estimate::UNKNOWN);
            size = Some(size.map_or(this, |s: Estimate| s.union(this)));
        }
        let value = size.unwrap_or(Estimate::ZERO);
        self.entries.insert(expr.id, Entries { list: true, key: Estimate::fixed(1), value });
        sum.plus(Estimate::fixed(LIST))
    }

    fn map(&mut self, expr: &Expr) -> Estimate {
        let Kind::Map(entries) = &expr.kind else { return Estimate::ZERO };
        let (mut sum, mut sizes) = (Estimate::ZERO, None);
        for entry in entries {
            sum = sum.plus(self.cost(&entry.key)).plus(self.cost(&entry.value));
            let key = self.size(&entry.key).unwrap_or(Estimate::UNKNOWN);
            let value = self.size(&entry.value).unwrap_or(Estimate::UNKNOWN);
            sizes = Some(sizes.map_or((key, value), |(k, v): (Estimate, Estimate)| (k.union(key), v.union(value))));
        }
        let (key, value) = sizes.unwrap_or((Estimate::ZERO, Estimate::ZERO));
        self.entries.insert(expr.id, Entries { list: false, key, value });
        sum.plus(Estimate::fixed(MAP))
    }

    fn bind(&mut self, expr: &Expr, c: &Comprehension) -> Estimate {
        let mut sum = self.cost(&c.range).plus(self.cost(&c.init));
        self.push_bound(&c.accu, &c.init);
        sum = sum.plus(self.cost(&c.result));
        self.copy(expr, &c.result);
        self.locals.pop();
        sum
    }

    fn push_bound(&mut self, name: &str, expr: &Expr) {
        let local = Local { name: name.to_owned(), path: self.path(expr), size: self.size(expr), entries: self.entry_sizes(expr) };
        self.locals.push(local);
    }

    /// A variable over a range, at this step below it.
    fn push_variable(&mut self, name: &str, c: &Comprehension, list_step: &str, map_step: &str) {
        let entries = self.entry_sizes(&c.range);
        let list = entries.map_or_else(|| matches!(self.ty(&c.range), Type::List(_)), |e| e.list);
        let step = if list { list_step } else { map_step };
        let size = entries.map(|e| if step.starts_with("@items") || step == "@values" { e.value } else { e.key });
        let mut path = self.path(&c.range);
        path.push(step.to_owned());
        self.locals.push(Local { name: name.to_owned(), path, size, entries: None });
    }

    fn comprehension(&mut self, expr: &Expr, c: &Comprehension) -> Estimate {
        let mut sum = self.cost(&c.range).plus(self.cost(&c.init));
        self.push_bound(&c.accu, &c.init);
        let depth = self.locals.len();
        match &c.var2 {
            Some(second) => {
                self.push_variable(&c.var, c, "@indices", "@keys");
                self.push_variable(second, c, "@items", "@values");
            }
            None => self.push_variable(&c.var, c, "@items", "@keys"),
        }
        let each = self.cost(&c.condition).plus(self.cost(&c.step));
        let grown = self.entry_sizes(&c.step);
        self.locals.truncate(depth);
        sum = sum.plus(self.cost(&c.result));
        self.locals.truncate(depth - 1);
        let count = self.size(&c.range).unwrap_or(Estimate::UNKNOWN);
        match &c.init.kind {
            Kind::Literal(_) => {
                if let Some(size) = self.size(&c.init) {
                    self.sizes.insert(expr.id, size);
                }
            }
            Kind::List { .. } | Kind::Map(_) => {
                self.sizes.insert(expr.id, count);
                if let Some(grown) = grown {
                    self.entries.insert(expr.id, grown);
                }
            }
            _ => {}
        }
        sum.plus(count.times(each))
    }

    fn copy(&mut self, to: &Expr, from: &Expr) {
        if let Some(size) = self.size(from) {
            self.sizes.insert(to.id, size);
        }
        if let Some(entries) = self.entry_sizes(from) {
            self.entries.insert(to.id, entries);
        }
    }

    fn path(&self, expr: &Expr) -> Path {
        if let Kind::Ident(name) = &expr.kind
            && let Some(local) = self.local(name)
        {
            return local.path.clone();
        }
        self.paths.get(&expr.id).cloned().unwrap_or_default()
    }

    fn arg<'e>(&mut self, expr: &'e Expr) -> Arg<'e> {
        let path = self.path(expr);
        let path = if path.first().is_some_and(|p| p == ACCU) { Vec::new() } else { path };
        Arg { expr, path, size: self.size(expr), ty: self.ty(expr) }
    }

    fn size(&mut self, expr: &Expr) -> Option<Estimate> {
        if let Some(size) = self.sizes.get(&expr.id) {
            return Some(*size);
        }
        let own = match &expr.kind {
            Kind::Literal(Literal::Str(s)) => Some(s.chars().count() as u64),
            Kind::Literal(Literal::Bytes(b)) => Some(b.len() as u64),
            Kind::Literal(_) => Some(1),
            Kind::List { elements, .. } => Some(elements.len() as u64),
            Kind::Map(entries) => Some(entries.len() as u64),
            _ => None,
        };
        if let Some(own) = own {
            return Some(Estimate::fixed(own));
        }
        if let Some(size) = self.declared(&self.path(expr)) {
            self.sizes.insert(expr.id, size);
            return Some(size);
        }
        if self.ty(expr).is_scalar() {
            return Some(Estimate::fixed(1));
        }
        match &expr.kind {
            Kind::Ident(name) => self.local(name).and_then(|l| l.size),
            _ => None,
        }
    }

    /// What the schema says of a place. The first step, the variable, is not looked at: there is one schema.
    fn declared(&self, path: &[String]) -> Option<Estimate> {
        let (_, steps) = path.split_first()?;
        let mut at = self.schema?;
        for (i, step) in steps.iter().enumerate() {
            if step == "@keys" && at.is_map() && i + 1 == steps.len() {
                return Some(Estimate { min: 0, max: at.keys() });
            }
            at = at.step(step).filter(|_| !matches!(step.as_str(), "@idx" | "@elem"))?;
        }
        Some(Estimate { min: 0, max: at.max_elements })
    }

    fn entry_sizes(&self, expr: &Expr) -> Option<Entries> {
        if let Some(entries) = self.entries.get(&expr.id) {
            return Some(*entries);
        }
        match &expr.kind {
            Kind::Ident(name) => self.local(name).and_then(|l| l.entries),
            _ => None,
        }
    }

    fn overload(
        &mut self,
        expr: &Expr,
        function: &str,
        overload: &str,
        target: Option<&Arg<'_>>,
        args: &mut [Arg<'_>],
        costs: &[Estimate],
    ) -> CallEstimate {
        let sum = costs.iter().fold(Estimate::ZERO, |a, b| a.plus(*b));
        let known = extension(overload, target, args).or_else(|| self.kubernetes(function, overload, target, args));
        if let Some(found) = known {
            return CallEstimate { cost: found.cost.plus(sum), size: found.size };
        }
        match (overload, costs) {
            // One side may be all that is looked at.
            ("logical_or" | "logical_and", [a, b]) => return Estimate { min: a.min, max: a.plus(*b).max }.into(),
            ("conditional", [condition, yes, no]) => {
                let size = of(&args[1]).union(of(&args[2]));
                let entries = Entries::union(self.entry_sizes(args[1].expr), self.entry_sizes(args[2].expr));
                self.set_entries(expr, entries);
                return CallEstimate { cost: condition.plus(yes.union(*no)), size: Some(size) };
            }
            ("add_string" | "add_bytes" | "add_list", _) if args.len() == 2 => {
                let entries = Entries::union(self.entry_sizes(args[0].expr), self.entry_sizes(args[1].expr));
                self.set_entries(expr, entries);
            }
            _ => {}
        }
        let found = standard(overload, target, args);
        CallEstimate { cost: found.cost.plus(sum), size: found.size }
    }

    fn set_entries(&mut self, expr: &Expr, entries: Option<Entries>) {
        if let Some(entries) = entries {
            self.entries.insert(expr.id, entries);
        }
    }

    /// The size of the elements of a list, where something says it.
    fn elements(&self, list: &Arg<'_>) -> Estimate {
        let mut path = list.path.clone();
        if path.is_empty() {
            return Estimate::UNKNOWN;
        }
        path.push("@items".to_owned());
        self.declared(&path).unwrap_or(Estimate::UNKNOWN)
    }

    fn kubernetes(&self, function: &str, overload: &str, target: Option<&Arg<'_>>, args: &[Arg<'_>]) -> Option<CallEstimate> {
        let one = Some(Estimate::fixed(1).into());
        let first = args.first().map(of);
        let whole = target.map(of);
        let parse = |factor: f64| first.map(|s| s.scaled(factor * STRING_FACTOR).into());
        match function {
            "check" => Some(Estimate::fixed(CHECK).into()),
            "serviceAccount" | "path" | "group" | "resource" | "subresource" | "namespace" | "name" | "allowed" | "reason" | "error"
            | "errored" => one,
            "fieldSelector" | "labelSelector" => first.map(|length| selector(length).into()),
            "isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf" => Some(self.traversed(target?)),
            "url" | "jsonpatch.escapeKey" => first.map(|size| CallEstimate { cost: size.scaled(STRING_FACTOR), size: Some(size) }),
            "lowerAscii" | "upperAscii" | "substring" | "trim" => {
                whole.map(|size| CallEstimate { cost: size.scaled(STRING_FACTOR), size: Some(size) })
            }
            "replace" if args.len() >= 2 => whole.map(|size| replaced(size, of(&args[0]), of(&args[1]))),
            "split" => whole.map(|size| split(size, args.get(1))),
            "join" => Some(self.joined(target?, args.first())),
            "find" | "findAll" => {
                let (text, pattern) = (whole?, first?);
                let cost = text.plus(Estimate::fixed(1)).scaled(STRING_FACTOR).times(pattern.scaled(REGEX_FACTOR));
                Some(CallEstimate { cost, size: Some(Estimate { min: 0, max: text.max }) })
            }
            "ip" if overload == "cidr_ip" => one,
            "cidr" | "isIP" | "isCIDR" | "ip" | "quantity" | "isQuantity" | "semver" | "isSemver" => parse(1.0),
            "ip.isCanonical" => parse(2.0),
            "containsIP" | "containsCIDR" => first.map(|text| contained(function, overload, text).into()),
            "validate" => first.map(|size| size.scaled(STRING_FACTOR).scaled(128.0 * REGEX_FACTOR).into()),
            _ if COSTS_ONE.contains(&function) => one,
            "_==_" if args.len() == 2 && args[0].ty == args[1].ty => opaque_equality(&args[0], &args[1]),
            _ => None,
        }
    }

    fn traversed(&self, target: &Arg<'_>) -> CallEstimate {
        let Type::List(element) = &target.ty else { return of(target).scaled(STRING_FACTOR).into() };
        let mut each = Estimate::fixed(1);
        if matches!(**element, Type::String | Type::Bytes) {
            each = each.plus(self.elements(target).scaled(STRING_FACTOR));
        }
        of(target).times(each).into()
    }

    fn joined(&self, target: &Arg<'_>, separator: Option<&Arg<'_>>) -> CallEstimate {
        let count = of(target);
        let mut size = count.times(self.elements(target));
        if let Some(separator) = separator {
            let between = Estimate { min: count.min.saturating_sub(1), max: count.max.saturating_sub(1) };
            size = size.plus(of(separator).times(between));
        }
        CallEstimate { cost: size.scaled(STRING_FACTOR), size: Some(size) }
    }
}

fn of(arg: &Arg<'_>) -> Estimate {
    arg.size.unwrap_or(Estimate::UNKNOWN)
}

fn int(arg: &Arg<'_>) -> Option<u64> {
    match &arg.expr.kind {
        Kind::Literal(Literal::Int(i)) => u64::try_from(*i).ok(),
        _ => None,
    }
}

fn selector(length: Estimate) -> Estimate {
    let requirements = length.scaled(0.5).scaled((LIST + STRUCT) as f64);
    Estimate::fixed(LIST).plus(length.scaled(STRING_FACTOR)).plus(requirements)
}

fn replaced(text: Estimate, old: Estimate, new: Estimate) -> CallEstimate {
    let (mut count, mut kept) = (Estimate::ZERO, Estimate::ZERO);
    let most = |a: u64, b: u64| (a as f64 / b as f64).ceil() as u64;
    if old.min == 0 {
        count.max = text.max.saturating_add(1);
        kept.max = text.max;
    } else if new.max <= old.min {
        kept.max = text.max;
    } else {
        count.max = most(text.max, old.min);
    }
    if old.max == 0 {
        count.min = text.min.saturating_add(1);
        kept.min = text.min;
    } else if old.max <= new.min {
        kept.min = text.min;
    } else {
        count.min = most(text.min, old.max);
    }
    CallEstimate { cost: text.scaled(2.0 * STRING_FACTOR), size: Some(count.times(new).plus(kept)) }
}

fn split(text: Estimate, limit: Option<&Arg<'_>>) -> CallEstimate {
    let max = limit.and_then(int).unwrap_or(text.max);
    CallEstimate { cost: text.scaled(2.0 * STRING_FACTOR), size: Some(Estimate { min: 0, max }) }
}

fn contained(function: &str, overload: &str, text: Estimate) -> Estimate {
    let bytes = Estimate { min: 4, max: 16 };
    let mut cost = bytes.plus(bytes).scaled(STRING_FACTOR);
    if function == "containsCIDR" {
        cost = cost.plus(bytes.scaled(STRING_FACTOR)).plus(Estimate::fixed(1));
    }
    if matches!(overload, "cidr_contains_ip_string" | "cidr_contains_cidr_string") {
        cost = cost.plus(text.scaled(STRING_FACTOR));
    }
    cost
}

fn opaque_equality(a: &Arg<'_>, b: &Arg<'_>) -> Option<CallEstimate> {
    let name = match &a.ty {
        Type::Opaque(name, _) | Type::Struct(name) => &**name,
        _ => return None,
    };
    match name {
        "net.IP" | "net.CIDR" | "kubernetes.Quantity" | "kubernetes.Semver" => Some(Estimate::fixed(1).into()),
        name if name.starts_with("kubernetes.authorization.") => Some(Estimate::fixed(1).into()),
        "kubernetes.NamedFormat" => Some(Estimate { min: 1, max: 64 }.scaled(STRING_FACTOR).into()),
        "kubernetes.URL" => {
            let max = b.size.map_or(1, |s| s.max);
            Some(Estimate { min: 1, max }.scaled(STRING_FACTOR).into())
        }
        _ => None,
    }
}

/// Lists and sets of cel-go's extensions.
fn extension(overload: &str, target: Option<&Arg<'_>>, args: &[Arg<'_>]) -> Option<CallEstimate> {
    let made = |factor: f64, size: Estimate| {
        let cost = size.scaled(factor).plus(Estimate::fixed(1 + LIST));
        Some(CallEstimate { cost, size: Some(size) })
    };
    match overload {
        "list_slice" => {
            let (start, end) = (int(args.first()?).unwrap_or(0), int(args.get(1)?).unwrap_or(of(target?).max));
            made(1.0, Estimate::fixed(end.saturating_sub(start)))
        }
        "lists_range" => made(1.0, Estimate::fixed(int(args.first()?).unwrap_or(u64::MAX))),
        "list_reverse" => made(1.0, of(target?)),
        "list_flatten" => made(1.0, of(target?)),
        "list_flatten_int" => made(int(args.first()?).unwrap_or(u64::MAX) as f64, of(target?)),
        "list_distinct" => made(2.0, of(target?).times(of(target?))),
        o if o.ends_with("_sort") || o.ends_with("_sortByAssociatedKeys") => {
            let list = of(if o.ends_with("_sort") { target? } else { args.first()? });
            let text = o.starts_with("list_string_") || o.starts_with("list_bytes_");
            made(if text { 2.0 + STRING_FACTOR } else { 2.0 }, list.times(list))
        }
        "list_sets_contains_list" | "list_sets_intersects_list" | "list_sets_equivalent_list" => {
            let factor = if overload == "list_sets_equivalent_list" { 2.0 } else { 1.0 };
            Some(of(args.first()?).times(of(args.get(1)?)).scaled(factor).plus(Estimate::fixed(1)).into())
        }
        _ => None,
    }
}

fn standard(overload: &str, target: Option<&Arg<'_>>, args: &[Arg<'_>]) -> CallEstimate {
    let first = args.first().map(of);
    let second = args.get(1).map(of);
    let whole = target.map(of);
    let traversal = |size: Estimate| size.scaled(STRING_FACTOR);
    match (overload, whole, first, second) {
        ("string_format", Some(text), ..) => traversal(text).into(),
        ("string_to_bytes", _, Some(size), _) => {
            CallEstimate { cost: traversal(size), size: Some(Estimate { min: size.min, max: size.max.wrapping_mul(4) }) }
        }
        ("bytes_to_string", _, Some(size), _) => {
            CallEstimate { cost: traversal(size), size: Some(Estimate { min: size.min / 4, max: size.max }) }
        }
        ("strings_quote", _, Some(size), _) => {
            let quoted = Estimate { min: size.min.wrapping_add(2), max: size.max.wrapping_mul(2).wrapping_add(2) };
            CallEstimate { cost: traversal(size), size: Some(quoted) }
        }
        ("starts_with_string" | "ends_with_string", _, Some(size), _) => traversal(size).into(),
        ("in_list", _, _, Some(list)) => list.into(),
        ("matches_string", Some(text), Some(pattern), _) => {
            traversal(text.plus(Estimate::fixed(1))).times(pattern.scaled(REGEX_FACTOR)).into()
        }
        ("contains_string", Some(text), Some(part), _) => traversal(text).times(traversal(part)).into(),
        ("add_list", _, Some(a), Some(b)) => CallEstimate { cost: Estimate::fixed(1), size: Some(a.plus(b)) },
        ("add_string" | "add_bytes", _, Some(a), Some(b)) => CallEstimate { cost: traversal(a.plus(b)), size: Some(a.plus(b)) },
        (
            "less_string"
            | "greater_string"
            | "less_equals_string"
            | "greater_equals_string"
            | "less_bytes"
            | "greater_bytes"
            | "less_equals_bytes"
            | "greater_equals_bytes"
            | "equals"
            | "not_equals",
            _,
            Some(a),
            Some(b),
        ) => {
            let max = a.max.min(b.max);
            traversal(Estimate { min: max.min(1), max }).into()
        }
        _ => Estimate::fixed(1).into(),
    }
}
