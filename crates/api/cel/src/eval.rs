//! Evaluation, with costs counted as cel-go's tracker does (`interpreter/runtimecost.go`). Stops as soon as the limit is passed.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::actual_cost::{LIST, MAP, STRUCT, call_cost};
use crate::functions;
use crate::plan::{Fold, Node};
use crate::value::{Eval, EvalError, Key, List, Map, StructVal, Val, equal, fail, no_overload};

/// What variables stand for during one evaluation.
pub trait Activation<'a> {
    fn resolve(&self, name: &str) -> Option<Val<'a>>;

    /// `variables.name`: an expression of its own, evaluated when first asked for.
    fn composed(&self, name: &str) -> Option<Eval<Val<'a>>> {
        let _ = name;
        None
    }
}

/// A few variables by name.
impl<'a> Activation<'a> for Vec<(&str, Val<'a>)> {
    fn resolve(&self, name: &str) -> Option<Val<'a>> {
        self.iter().find(|(n, _)| *n == name).map(|(_, v)| v.clone())
    }
}

pub struct Outcome<'a> {
    pub result: Eval<Val<'a>>,
    /// What was spent, also where there is no value.
    pub cost: u64,
}

pub(crate) fn run<'a>(node: &Node, activation: &dyn Activation<'a>, limit: u64) -> Outcome<'a> {
    let mut machine = Machine { activation, limit, cost: 0, locals: Vec::new() };
    let result = machine.eval(node);
    Outcome { result, cost: machine.cost }
}

struct Machine<'r, 'a> {
    activation: &'r dyn Activation<'a>,
    limit: u64,
    cost: u64,
    /// Errors too, since `all` and `exists` absorb them.
    locals: Vec<Eval<Val<'a>>>,
}

impl<'a> Machine<'_, 'a> {
    fn spend(&mut self, cost: u64) -> Eval<()> {
        self.cost = self.cost.saturating_add(cost);
        if self.cost > self.limit { Err(EvalError::CostLimit) } else { Ok(()) }
    }

    fn eval(&mut self, node: &Node) -> Eval<Val<'a>> {
        match node {
            Node::Const(value) => Ok(value.clone()),
            Node::Local(slot) => {
                self.spend(1)?;
                self.locals.get(*slot).cloned().unwrap_or_else(no_overload)
            }
            Node::Var(name) => self.variable(name),
            Node::Composed(name) => {
                self.spend(2)?;
                self.activation.composed(name).unwrap_or_else(|| fail(format!("no such key: {name}")))
            }
            Node::Select { operand, field, optional, relative } => self.select(operand, field, *optional, *relative),
            Node::Has { operand, field } => self.has(operand, field),
            Node::Index { operand, index, optional, relative } => self.index(operand, index, *optional, *relative),
            Node::And(parts) => self.junction(&parts[..], false),
            Node::Or(parts) => self.junction(&parts[..], true),
            Node::If(parts) => self.choose(parts),
            Node::NotStrictlyFalse(inner) => self.not_strictly_false(inner),
            Node::Call { function, overload, args } => self.call(function, overload, args),
            Node::InConst { value, list } => self.in_const(value, list),
            Node::Match { function, overload, regex, args } => self.matches(function, overload, regex, args),
            Node::List { elements, optional } => self.list(elements, optional),
            Node::Map(entries) => self.map(entries),
            Node::Struct { name, fields } => self.structure(name, fields),
            Node::Fold(fold) => self.fold(fold),
            Node::Bind { slot, value, result } => self.bind(*slot, value, result),
            Node::Append { slot, element } => self.append(*slot, element),
            Node::Insert { slot, args } => self.insert(*slot, args),
            Node::Broken => fail("unsupported expression"),
        }
    }

    fn variable(&mut self, name: &str) -> Eval<Val<'a>> {
        self.spend(1)?;
        self.activation.resolve(name).map_or_else(|| fail(format!("no such attribute(s): {name}")), Ok)
    }

    fn select(&mut self, operand: &Node, field: &str, optional: bool, relative: bool) -> Eval<Val<'a>> {
        let value = self.eval(operand)?;
        self.spend(1 + u64::from(relative))?;
        let found = |v: &Val<'a>| v.field(field).ok().flatten();
        match &value {
            Val::Optional(inner) => Ok(functions::optional::wrapped(inner.as_deref().and_then(found))),
            v if optional => Ok(functions::optional::wrapped(found(v))),
            v => v.field(field)?.map_or_else(|| fail(format!("no such key: {field}")), Ok),
        }
    }

    fn has(&mut self, operand: &Node, field: &str) -> Eval<Val<'a>> {
        let value = match operand {
            // Variables that are declared are there.
            Node::Var(name) if &**name == crate::plan::VARIABLES => {
                self.spend(1)?;
                return Ok(Val::Bool(self.activation.composed(field).is_some()));
            }
            operand => self.eval(operand)?,
        };
        let inner = match &value {
            Val::Optional(None) => return Ok(Val::Bool(false)),
            Val::Optional(Some(inner)) => inner,
            other => other,
        };
        Ok(Val::Bool(inner.field(field).ok().flatten().is_some()))
    }

    fn index(&mut self, operand: &Node, index: &Node, optional: bool, relative: bool) -> Eval<Val<'a>> {
        let value = self.eval(operand)?;
        let key = self.eval(index)?;
        self.spend(1 + u64::from(relative))?;
        match &value {
            Val::Optional(None) => Ok(Val::Optional(None)),
            Val::Optional(Some(inner)) => Ok(functions::optional::wrapped(at(inner, &key)?)),
            v if optional => Ok(functions::optional::wrapped(at(v, &key)?)),
            v => match at(v, &key)? {
                Some(found) => Ok(found),
                None if matches!(v, Val::List(_)) => fail(format!("index out of bounds: {key:?}")),
                None => fail(format!("no such key: {}", crate::convert::text(&key).unwrap_or_default())),
            },
        }
    }

    /// Errors are absorbed by a side that decides, whichever comes first.
    fn junction(&mut self, parts: &[Node], decides: bool) -> Eval<Val<'a>> {
        let mut error = None;
        for part in parts {
            match self.eval(part) {
                Ok(Val::Bool(b)) if b == decides => return Ok(Val::Bool(decides)),
                Ok(Val::Bool(_)) => {}
                Ok(_) => error = error.or(no_overload::<Val<'a>>().err()),
                Err(EvalError::CostLimit) => return Err(EvalError::CostLimit),
                Err(other) => error = error.or(Some(other)),
            }
        }
        error.map_or(Ok(Val::Bool(!decides)), Err)
    }

    fn choose(&mut self, parts: &[Node; 3]) -> Eval<Val<'a>> {
        match self.eval(&parts[0])? {
            Val::Bool(true) => self.eval(&parts[1]),
            Val::Bool(false) => self.eval(&parts[2]),
            _ => no_overload(),
        }
    }

    fn not_strictly_false(&mut self, inner: &Node) -> Eval<Val<'a>> {
        let value = self.eval(inner);
        self.spend(1)?;
        match value {
            Ok(Val::Bool(b)) => Ok(Val::Bool(b)),
            Err(EvalError::CostLimit) => Err(EvalError::CostLimit),
            _ => Ok(Val::Bool(true)),
        }
    }

    fn all(&mut self, nodes: &[Node]) -> Eval<Vec<Val<'a>>> {
        let mut values = Vec::with_capacity(nodes.len());
        for node in nodes {
            values.push(self.eval(node)?);
        }
        Ok(values)
    }

    fn call(&mut self, function: &str, overload: &str, args: &[Node]) -> Eval<Val<'a>> {
        let args = self.all(args)?;
        let result = functions::call(function, &args);
        self.spend(call_cost(function, overload, &args, result.as_ref().ok()))?;
        result
    }

    fn in_const(&mut self, value: &Node, list: &Node) -> Eval<Val<'a>> {
        let value = self.eval(value)?;
        match list {
            Node::Const(Val::List(list)) => Ok(Val::Bool(list.iter().any(|item| equal(&item, &value)))),
            _ => no_overload(),
        }
    }

    fn matches(&mut self, function: &str, overload: &str, regex: &regex::Regex, args: &[Node]) -> Eval<Val<'a>> {
        let args = self.all(args)?;
        let Some(Val::Str(text)) = args.first() else { return no_overload() };
        // What the search may cost is known before it begins.
        self.spend(call_cost(function, overload, &args, None))?;
        functions::regex::run(function, regex, text, args.get(2))
    }

    fn list(&mut self, elements: &[Node], optional: &[usize]) -> Eval<Val<'a>> {
        let mut values = Vec::with_capacity(elements.len());
        for (i, element) in elements.iter().enumerate() {
            match self.eval(element)? {
                value if !optional.contains(&i) => values.push(value),
                Val::Optional(inner) => values.extend(inner.map(|v| (*v).clone())),
                value => return fail(format!("cannot initialize optional list element from non-optional value {value:?}")),
            }
        }
        self.spend(LIST)?;
        Ok(Val::list(values))
    }

    fn map(&mut self, entries: &[(Node, Node, bool)]) -> Eval<Val<'a>> {
        let mut map = BTreeMap::new();
        for (key, value, optional) in entries {
            let (key, mut value) = (self.eval(key)?, self.eval(value)?);
            if *optional {
                match value {
                    Val::Optional(None) => continue,
                    Val::Optional(Some(inner)) => value = (*inner).clone(),
                    other => return fail(format!("cannot initialize optional entry '{key:?}' from non-optional value {other:?}")),
                }
            }
            let Some(k) = Key::of(&key).filter(|_| !matches!(key, Val::Double(_))) else {
                return fail(format!("unsupported key type: {}", key.type_of().runtime_name()));
            };
            if map.insert(k, value).is_some() {
                return fail(format!("Failed with repeated key {}", crate::convert::text(&key)?));
            }
        }
        self.spend(MAP)?;
        Ok(Val::Map(Map::Values(Arc::new(map))))
    }

    fn structure(&mut self, name: &Arc<str>, fields: &[(Arc<str>, Node, bool)]) -> Eval<Val<'a>> {
        let mut made = BTreeMap::new();
        for (field, value, optional) in fields {
            let value = match (self.eval(value)?, optional) {
                (Val::Optional(None), true) => continue,
                (Val::Optional(Some(inner)), true) => (*inner).clone(),
                (other, true) => return fail(format!("cannot initialize optional entry '{field}' from non-optional value {other:?}")),
                (value, false) => value,
            };
            made.insert(field.clone(), value);
        }
        self.spend(STRUCT)?;
        Ok(Val::Struct(Arc::new(StructVal { name: name.clone(), fields: made })))
    }

    fn fold(&mut self, fold: &Fold) -> Eval<Val<'a>> {
        let range = self.eval(&fold.range)?;
        let init = self.eval(&fold.init);
        self.locals.truncate(fold.slot);
        self.locals.push(init);
        let looped = match &range {
            Val::List(list) if fold.two => self.each(fold, list.len(), &|i| Some((Val::Int(i as i64), list.get(i)))),
            Val::List(list) => self.each(fold, list.len(), &|i| Some((list.get(i)?, None))),
            Val::Map(map) => {
                let keys: Vec<Val<'a>> = map.keys().collect();
                self.each(fold, keys.len(), &|i| {
                    let key = keys.get(i)?.clone();
                    let value = if fold.two { map.get(&key) } else { None };
                    Some((key, value))
                })
            }
            other => fail(format!("unsupported comprehension range type: {}", other.type_of().runtime_name())),
        };
        let result = looped.and_then(|()| self.eval(&fold.result));
        self.locals.truncate(fold.slot);
        result
    }

    /// One step for each entry: its one variable, or its two.
    fn each(&mut self, fold: &Fold, count: usize, entry: &dyn Fn(usize) -> Option<(Val<'a>, Option<Val<'a>>)>) -> Eval<()> {
        for i in 0..count {
            let Some((first, second)) = entry(i) else { break };
            self.locals.truncate(fold.slot + 1);
            self.locals.push(Ok(first));
            self.locals.extend(second.map(Ok));
            match self.eval(&fold.condition) {
                Ok(Val::Bool(true)) => {}
                Err(EvalError::CostLimit) => return Err(EvalError::CostLimit),
                _ => break,
            }
            let step = self.eval(&fold.step);
            if matches!(step, Err(EvalError::CostLimit)) {
                return Err(EvalError::CostLimit);
            }
            if let Some(accu) = self.locals.get_mut(fold.slot) {
                *accu = step;
            }
        }
        self.locals.truncate(fold.slot + 1);
        Ok(())
    }

    fn bind(&mut self, slot: usize, value: &Node, result: &Node) -> Eval<Val<'a>> {
        let value = self.eval(value);
        self.locals.truncate(slot);
        self.locals.push(value);
        let result = self.eval(result);
        self.locals.truncate(slot);
        result
    }

    fn take(&mut self, slot: usize) -> Eval<Val<'a>> {
        self.locals.get_mut(slot).map_or_else(no_overload, |local| std::mem::replace(local, Ok(Val::Null)))
    }

    fn append(&mut self, slot: usize, element: &Node) -> Eval<Val<'a>> {
        let element = self.eval(element)?;
        self.spend(1 + LIST + 1)?;
        match self.take(slot)? {
            Val::List(List::Values(mut values)) => {
                Arc::make_mut(&mut values).push(element);
                Ok(Val::List(List::Values(values)))
            }
            _ => no_overload(),
        }
    }

    fn insert(&mut self, slot: usize, args: &[Node]) -> Eval<Val<'a>> {
        let args = self.all(args)?;
        let accu = self.take(slot)?;
        self.spend(2)?;
        let Val::Map(Map::Values(mut map)) = accu else { return no_overload() };
        let entries: Vec<(Val<'a>, Val<'a>)> = match &args[..] {
            [key, value] => vec![(key.clone(), value.clone())],
            [Val::Map(more)] => more.keys().filter_map(|k| more.get(&k).map(|v| (k, v))).collect(),
            _ => return no_overload(),
        };
        let grown = Arc::make_mut(&mut map);
        for (key, value) in entries {
            let Some(k) = Key::of(&key) else { return no_overload() };
            if grown.insert(k, value).is_some() {
                return fail(format!("insert failed: key {} already exists", crate::convert::text(&key)?));
            }
        }
        Ok(Val::Map(Map::Values(map)))
    }
}

/// The element or entry, none where there is no such one.
fn at<'a>(value: &Val<'a>, key: &Val<'a>) -> Eval<Option<Val<'a>>> {
    match (value, key) {
        (Val::List(list), Val::Int(i)) => Ok(usize::try_from(*i).ok().and_then(|i| list.get(i))),
        (Val::List(list), Val::Uint(u)) => Ok(usize::try_from(*u).ok().and_then(|i| list.get(i))),
        (Val::List(list), Val::Double(d)) if d.fract() == 0.0 && *d >= 0.0 => Ok(list.get(*d as usize)),
        (Val::List(_), Val::Double(_)) => fail(format!("unsupported index value {key:?} in list")),
        (Val::List(_), other) => fail(format!("unsupported index type '{}' in list", other.type_of().runtime_name())),
        (Val::Map(map), key) => Ok(map.get(key)),
        (Val::Object(..) | Val::Struct(_), Val::Str(name)) => value.field(name),
        _ => no_overload(),
    }
}
