//! The type checker: cel-go's rules (`checker/checker.go`, `checker/types.go`), its order and its words.

use std::collections::HashMap;
use std::sync::Arc;

use crate::ast::{Comprehension, Expr, Id, Kind, Literal, Name, Parsed};
use crate::decls::{self, Function, Overload};
use crate::env::Env;
use crate::source::{Issue, Source};
use crate::types::Type;

/// What checking found out, by id of the node.
#[derive(Debug, Default)]
pub(crate) struct Checked {
    pub(crate) types: HashMap<Id, Type>,
    /// Which overloads a call may mean; the function's name, where it is not the one written.
    pub(crate) calls: HashMap<Id, (&'static str, Vec<&'static str>, bool)>,
    /// Nodes that turned out to be a variable (or the name of a type).
    pub(crate) names: HashMap<Id, Reference>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Reference {
    Variable(Name),
    Type(Type),
}

pub(crate) fn check(parsed: &Parsed, source: &Source, env: &Env) -> Result<Checked, Vec<Issue>> {
    let mut checker = Checker {
        env,
        source,
        parsed,
        scopes: Vec::new(),
        known: Mapping::default(),
        fresh: 0,
        out: Checked::default(),
        issues: Vec::new(),
    };
    checker.check(&parsed.root);
    if !checker.issues.is_empty() {
        return Err(checker.issues);
    }
    let Checker { mut out, known, .. } = checker;
    out.types.values_mut().for_each(|t| *t = known.substitute(t, true));
    Ok(out)
}

struct Checker<'e> {
    env: &'e Env,
    source: &'e Source,
    parsed: &'e Parsed,
    scopes: Vec<(Name, Type)>,
    known: Mapping,
    fresh: u32,
    out: Checked,
    issues: Vec<Issue>,
}

const MAX_ISSUES: usize = 100;

impl Checker<'_> {
    fn issue(&mut self, id: Id, message: String) {
        if self.issues.len() < MAX_ISSUES {
            let offset = self.parsed.offsets.get(id as usize).map_or(0, |o| *o as usize);
            self.issues.push(self.source.issue(offset, message));
        }
    }

    fn mismatch(&mut self, id: Id, expected: &Type, actual: &Type) {
        self.issue(id, format!("expected type '{expected}' but found '{actual}'"));
    }

    fn undeclared(&mut self, id: Id, name: &str) {
        self.issue(id, format!("undeclared reference to '{name}' (in container '')"));
    }

    fn set(&mut self, id: Id, ty: Type) {
        self.out.types.insert(id, ty);
    }

    fn ty(&self, expr: &Expr) -> Type {
        self.out.types.get(&expr.id).cloned().unwrap_or(Type::Error)
    }

    fn new_var(&mut self) -> Type {
        self.fresh += 1;
        Type::Var(self.fresh - 1)
    }

    fn check(&mut self, expr: &Expr) {
        match &expr.kind {
            Kind::Literal(literal) => self.set(expr.id, literal_type(literal)),
            Kind::Ident(name) => self.ident(expr, name),
            Kind::Select { operand, field, test } => self.select(expr, operand, field, *test),
            Kind::Call { function, target, args } if &**function == "_?._" => {
                debug_assert!(target.is_none());
                self.optional_select(expr, args);
            }
            Kind::Call { function, target, args } => self.call(expr, function, target.as_deref(), args),
            Kind::List { elements, optional } => self.list(expr, elements, optional),
            Kind::Map(_) => self.map(expr),
            Kind::Struct { .. } => self.structure(expr),
            Kind::Comprehension(comprehension) => self.comprehension(expr, comprehension),
        }
    }

    fn lookup(&self, name: &str) -> Option<(Type, Reference)> {
        let name = name.strip_prefix('.').unwrap_or(name);
        if let Some((name, ty)) = self.scopes.iter().rev().find(|(n, _)| &**n == name) {
            return Some((ty.clone(), Reference::Variable(name.clone())));
        }
        if let Some(ty) = self.env.find(name) {
            return Some((ty.clone(), Reference::Variable(name.into())));
        }
        let ty = match decls::named_type(name) {
            Some(ty) => ty,
            None if self.env.has_type(name) => Type::structure(name),
            None => return None,
        };
        Some((Type::Type(Some(Arc::new(ty.clone()))), Reference::Type(ty)))
    }

    fn ident(&mut self, expr: &Expr, name: &Name) {
        match self.lookup(name) {
            Some((ty, reference)) => {
                self.set(expr.id, ty);
                self.out.names.insert(expr.id, reference);
            }
            None => {
                self.set(expr.id, Type::Error);
                self.undeclared(expr.id, name);
            }
        }
    }

    fn select(&mut self, expr: &Expr, operand: &Expr, field: &str, test: bool) {
        if !test
            && let Some(name) = expr.qualified_name()
            && let Some((ty, reference)) = self.lookup(&name)
        {
            self.set(expr.id, ty);
            self.out.names.insert(expr.id, reference);
            return;
        }
        let result = self.field(expr.id, operand, field, false);
        let result = if test { Type::Bool } else { self.known.substitute(&result, false) };
        self.set(expr.id, result);
    }

    fn optional_select(&mut self, expr: &Expr, args: &[Expr]) {
        let (Some(operand), Some(Kind::Literal(Literal::Str(field)))) = (args.first(), args.get(1).map(|a| &a.kind)) else { return };
        let result = self.field(expr.id, operand, field, true);
        if let Some(name) = args.get(1) {
            self.set(name.id, Type::String);
        }
        let result = self.known.substitute(&result, false);
        self.set(expr.id, result);
        self.out.calls.insert(expr.id, ("_?._", vec!["select_optional_field"], false));
    }

    fn field(&mut self, id: Id, operand: &Expr, field: &str, optional: bool) -> Type {
        self.check(operand);
        let operand_type = self.known.substitute(&self.ty(operand), false);
        let inner = operand_type.optional_inner();
        let target = inner.unwrap_or(&operand_type).clone();
        let result = match &target {
            Type::Map(_, value) => (**value).clone(),
            Type::Struct(name) => match self.env.field(name, field) {
                Some(ty) => ty,
                None => {
                    self.issue(id, format!("undefined field '{field}'"));
                    Type::Error
                }
            },
            Type::Var(_) => {
                self.assignable(&Type::Dyn, &target);
                Type::Dyn
            }
            other => {
                if !other.is_dyn_or_error() {
                    self.issue(id, format!("type '{other}' does not support field selection"));
                }
                Type::Dyn
            }
        };
        if inner.is_some() || optional { Type::optional(result) } else { result }
    }

    fn call(&mut self, expr: &Expr, function: &str, target: Option<&Expr>, args: &[Expr]) {
        args.iter().for_each(|a| self.check(a));
        let Some(target) = target else {
            let name = function.strip_prefix('.').unwrap_or(function);
            match self.function(name) {
                Some(found) => self.resolve(expr, found, None, args),
                None => self.unknown(expr, function),
            }
            return;
        };
        if let Some(prefix) = target.qualified_name()
            && let Some(found) = self.function(&format!("{prefix}.{function}"))
        {
            self.resolve(expr, found, None, args);
            return;
        }
        self.check(target);
        match self.function(function) {
            Some(found) => self.resolve(expr, found, Some(target), args),
            None => self.unknown(expr, function),
        }
    }

    fn function(&self, name: &str) -> Option<&'static Function> {
        decls::find(name).filter(|f| self.env.allows(f.name))
    }

    fn unknown(&mut self, expr: &Expr, name: &str) {
        self.set(expr.id, Type::Error);
        self.undeclared(expr.id, name);
    }

    fn resolve(&mut self, call: &Expr, function: &'static Function, target: Option<&Expr>, args: &[Expr]) {
        let types: Vec<Type> = target.into_iter().chain(args).map(|a| self.ty(a)).collect();
        if matches!(function.name, "_&&_" | "_||_") {
            return self.logical(call, function, args, &types);
        }
        let (mut result, mut ids): (Option<Type>, Vec<&'static str>) = (None, Vec::new());
        for overload in function.overloads.iter().filter(|o| o.member == target.is_some() && o.args.len() == types.len()) {
            let (params, declared) = self.instantiate(overload);
            if !self.all_assignable(&types, &params) {
                continue;
            }
            ids.push(overload.id);
            let found = self.known.substitute(&declared, false);
            result = Some(match result {
                None => found,
                Some(before) if !before.is_dyn() && before != found => Type::Dyn,
                Some(before) => before,
            });
        }
        match result {
            Some(result) => {
                self.set(call.id, result);
                self.out.calls.insert(call.id, (function.name, ids, target.is_some()));
            }
            None => {
                self.set(call.id, Type::Error);
                let types: Vec<Type> = types.iter().map(|t| self.known.substitute(t, true)).collect();
                let shown = |types: &[Type]| types.iter().map(Type::to_string).collect::<Vec<_>>().join(", ");
                let signature = match (target, types.split_first()) {
                    (Some(_), Some((of, rest))) => format!("{of}.({})", shown(rest)),
                    _ => format!("({})", shown(&types)),
                };
                self.issue(call.id, format!("found no matching overload for '{}' applied to '{signature}'", function.name));
            }
        }
    }

    fn logical(&mut self, call: &Expr, function: &'static Function, args: &[Expr], types: &[Type]) {
        let mut fine = true;
        for (arg, ty) in args.iter().zip(types) {
            if !self.assignable(ty, &Type::Bool) {
                self.mismatch(arg.id, &Type::Bool, ty);
                fine = false;
            }
        }
        self.set(call.id, if fine { Type::Bool } else { Type::Error });
        self.out.calls.insert(call.id, (function.name, vec![function.overloads[0].id], false));
    }

    /// The overload with type variables of its own in place of its parameters.
    fn instantiate(&mut self, overload: &'static Overload) -> (Vec<Type>, Type) {
        let mut vars: HashMap<char, Type> = HashMap::new();
        let params = overload.args.iter().map(|t| self.with_vars(t, &mut vars)).collect();
        (params, self.with_vars(&overload.result, &mut vars))
    }

    fn with_vars(&mut self, ty: &Type, vars: &mut HashMap<char, Type>) -> Type {
        match ty {
            Type::Param(name) => {
                if let Some(var) = vars.get(name) {
                    return var.clone();
                }
                let var = self.new_var();
                vars.insert(*name, var.clone());
                var
            }
            other => other.map_parts(&mut |part| self.with_vars(part, vars)),
        }
    }

    fn list(&mut self, expr: &Expr, elements: &[Expr], optional: &[usize]) {
        let mut joined = None;
        for (i, element) in elements.iter().enumerate() {
            self.check(element);
            let ty = self.element(element, optional.contains(&i));
            joined = Some(self.join(element.id, joined, ty));
        }
        let element = joined.unwrap_or_else(|| self.new_var());
        self.set(expr.id, Type::list(element));
    }

    /// The type of an element: what is inside, if it is marked optional.
    fn element(&mut self, expr: &Expr, optional: bool) -> Type {
        let ty = self.ty(expr);
        if !optional {
            return ty;
        }
        if let Some(inner) = ty.optional_inner() {
            return inner.clone();
        }
        if !ty.is_dyn() {
            self.mismatch(expr.id, &Type::optional(ty.clone()), &ty);
        }
        ty
    }

    fn join(&mut self, id: Id, before: Option<Type>, ty: Type) -> Type {
        let Some(before) = before else { return ty };
        if self.assignable(&before, &ty) {
            return most_general(&before, &ty);
        }
        self.mismatch(id, &before, &ty);
        Type::Error
    }

    fn map(&mut self, expr: &Expr) {
        let Kind::Map(entries) = &expr.kind else { return };
        let (mut keys, mut values) = (None, None);
        for entry in entries {
            self.check(&entry.key);
            let key = self.ty(&entry.key);
            keys = Some(self.join(entry.key.id, keys, key));
            self.check(&entry.value);
            let value = self.element(&entry.value, entry.optional);
            values = Some(self.join(entry.value.id, values, value));
        }
        let key = keys.unwrap_or_else(|| self.new_var());
        let value = values.unwrap_or_else(|| self.new_var());
        self.set(expr.id, Type::map(key, value));
    }

    fn structure(&mut self, expr: &Expr) {
        let Kind::Struct { name, fields } = &expr.kind else { return };
        let result = match self.lookup(name) {
            None => {
                self.undeclared(expr.id, name);
                self.set(expr.id, Type::Error);
                return;
            }
            Some((_, Reference::Type(ty @ Type::Struct(_)))) => ty,
            Some((_, Reference::Type(ty))) => {
                self.issue(expr.id, format!("'{}' is not a message type", ty.declared()));
                Type::Error
            }
            Some((ty, Reference::Variable(_))) => {
                self.issue(expr.id, format!("'{}' is not a type", ty.declared()));
                Type::Error
            }
        };
        self.set(expr.id, result.clone());
        for field in fields {
            self.check(&field.value);
            let declared = match &result {
                Type::Struct(name) => self.env.field(name, &field.name),
                _ => Some(Type::Error),
            };
            let declared = declared.unwrap_or_else(|| {
                self.issue(field.id, format!("undefined field '{}'", field.name));
                Type::Error
            });
            let value = self.element(&field.value, field.optional);
            if !self.assignable(&declared, &value) {
                let why = format!("expected type of field '{}' is '{declared}' but provided type is '{value}'", field.name);
                self.issue(field.id, why);
            }
        }
    }

    fn comprehension(&mut self, expr: &Expr, c: &Comprehension) {
        if c.is_bind() && !self.env.binds() && &*c.var == "#unused" && is_cel_bind(c) {
            self.undeclared(expr.id, "bind");
            self.set(expr.id, Type::Error);
            return;
        }
        self.check(&c.range);
        self.check(&c.init);
        let range = self.known.substitute(&self.ty(&c.range), false);
        let accu = self.ty(&c.init);
        let depth = self.scopes.len();
        self.scopes.push((c.accu.clone(), accu.clone()));
        let (var, var2) = self.ranged(c, &range);
        self.scopes.push((c.var.clone(), var));
        if let Some(name) = &c.var2 {
            self.scopes.push((name.clone(), var2));
        }
        self.check(&c.condition);
        self.expect(&c.condition, &Type::Bool);
        self.check(&c.step);
        self.expect(&c.step, &accu);
        self.scopes.truncate(depth + 1);
        self.check(&c.result);
        self.scopes.truncate(depth);
        let result = self.known.substitute(&self.ty(&c.result), false);
        self.set(expr.id, result);
    }

    /// The types of the variables that run over a range.
    fn ranged(&mut self, c: &Comprehension, range: &Type) -> (Type, Type) {
        let two = c.var2.is_some();
        match range {
            Type::List(element) if two => (Type::Int, (**element).clone()),
            Type::List(element) => ((**element).clone(), Type::Dyn),
            Type::Map(key, value) => ((**key).clone(), (**value).clone()),
            Type::Dyn | Type::Error | Type::Var(_) => {
                self.assignable(&Type::Dyn, range);
                (Type::Dyn, Type::Dyn)
            }
            other => {
                let why = format!("expression of type '{other}' cannot be range of a comprehension (must be list, map, or dynamic)");
                self.issue(c.range.id, why);
                (Type::Error, Type::Error)
            }
        }
    }

    fn expect(&mut self, expr: &Expr, ty: &Type) {
        let actual = self.ty(expr);
        if !self.assignable(ty, &actual) {
            self.mismatch(expr.id, ty, &actual);
        }
    }

    fn assignable(&mut self, from: &Type, to: &Type) -> bool {
        let mark = self.known.mark();
        let fine = self.known.assignable(from, to);
        if !fine {
            self.known.undo(mark);
        }
        fine
    }

    fn all_assignable(&mut self, from: &[Type], to: &[Type]) -> bool {
        let mark = self.known.mark();
        let fine = self.known.lists(from.iter(), to.iter());
        if !fine {
            self.known.undo(mark);
        }
        fine
    }
}

/// Not one of the bindings that other macros make.
fn is_cel_bind(c: &Comprehension) -> bool {
    let value_call = matches!(&c.init.kind, Kind::Call { function, args, target: Some(_) } if &**function == "value" && args.is_empty());
    !c.accu.starts_with('@') && !value_call
}

fn literal_type(literal: &Literal) -> Type {
    match literal {
        Literal::Null => Type::Null,
        Literal::Bool(_) => Type::Bool,
        Literal::Int(_) => Type::Int,
        Literal::Uint(_) => Type::Uint,
        Literal::Double(_) => Type::Double,
        Literal::Str(_) => Type::String,
        Literal::Bytes(_) => Type::Bytes,
    }
}

/// What type variables stand for, with a journal so that an attempt can be undone.
#[derive(Default)]
struct Mapping {
    types: HashMap<u32, Type>,
    journal: Vec<(u32, Option<Type>)>,
}

impl Mapping {
    fn mark(&self) -> usize {
        self.journal.len()
    }

    fn undo(&mut self, mark: usize) {
        while self.journal.len() > mark {
            match self.journal.pop() {
                Some((var, Some(before))) => drop(self.types.insert(var, before)),
                Some((var, None)) => drop(self.types.remove(&var)),
                None => return,
            }
        }
    }

    fn add(&mut self, var: u32, ty: Type) {
        let before = self.types.insert(var, ty);
        self.journal.push((var, before));
    }

    fn substitute(&self, ty: &Type, to_dyn: bool) -> Type {
        match ty {
            Type::Var(var) => match self.types.get(var) {
                Some(known) => self.substitute(known, to_dyn),
                None if to_dyn => Type::Dyn,
                None => ty.clone(),
            },
            other => other.map_parts(&mut |part| self.substitute(part, to_dyn)),
        }
    }

    fn lists<'t>(&mut self, from: impl ExactSizeIterator<Item = &'t Type>, to: impl ExactSizeIterator<Item = &'t Type>) -> bool {
        from.len() == to.len() && from.zip(to).all(|(f, t)| self.assignable(f, t))
    }

    fn assignable(&mut self, from: &Type, to: &Type) -> bool {
        if let Type::Var(var) = to {
            match self.valid(from, *var) {
                (true, _) => return true,
                (false, true) => return false,
                (false, false) => {}
            }
        }
        if let Type::Var(var) = from {
            return self.valid(to, *var).0;
        }
        if from.is_dyn_or_error() || to.is_dyn_or_error() {
            return true;
        }
        match (from, to) {
            (Type::Null, other) | (other, Type::Null) => nullable(other),
            (Type::Type(_), Type::Type(_)) => true,
            (Type::List(a), Type::List(b)) => self.assignable(a, b),
            (Type::Map(k, v), Type::Map(k2, v2)) => self.assignable(k, k2) && self.assignable(v, v2),
            (Type::Opaque(a, parts), Type::Opaque(b, parts2)) => a == b && self.lists(parts.iter(), parts2.iter()),
            (a, b) => a == b,
        }
    }

    /// Whether a variable may stand for the type, and whether it stood for something already.
    fn valid(&mut self, ty: &Type, var: u32) -> (bool, bool) {
        if *ty == Type::Var(var) {
            return (true, true);
        }
        if let Some(known) = self.types.get(&var).cloned() {
            if *ty == known {
                return (true, true);
            }
            if self.assignable(ty, &known) {
                let general = most_general(ty, &known);
                if self.absent(var, &general) {
                    self.add(var, general);
                }
                return (true, true);
            }
            return (false, true);
        }
        let fine = self.absent(var, ty);
        if fine {
            self.add(var, ty.clone());
        }
        (fine, false)
    }

    /// The variable does not occur in the type.
    fn absent(&self, var: u32, ty: &Type) -> bool {
        match ty {
            Type::Var(other) if *other == var => false,
            Type::Var(other) => self.types.get(other).is_none_or(|known| self.absent(var, known)),
            other => other.parts().into_iter().all(|part| self.absent(var, part)),
        }
    }
}

fn nullable(ty: &Type) -> bool {
    matches!(ty, Type::Null | Type::Opaque(..) | Type::Struct(_) | Type::Any | Type::Duration | Type::Timestamp)
}

fn most_general(a: &Type, b: &Type) -> Type {
    if less_specific(a, b) { a.clone() } else { b.clone() }
}

fn less_specific(a: &Type, b: &Type) -> bool {
    if a.is_dyn() || matches!(a, Type::Var(_)) {
        return true;
    }
    if b.is_dyn() || matches!(b, Type::Var(_)) {
        return false;
    }
    match (a, b) {
        (Type::Type(_), Type::Type(_)) => true,
        (Type::List(a), Type::List(b)) => less_specific(a, b),
        (Type::Map(k, v), Type::Map(k2, v2)) => less_specific(k, k2) && less_specific(v, v2),
        (Type::Opaque(n, parts), Type::Opaque(n2, parts2)) => {
            n == n2 && parts.len() == parts2.len() && parts.iter().zip(parts2.iter()).all(|(a, b)| less_specific(a, b))
        }
        (a, b) => a == b,
    }
}
