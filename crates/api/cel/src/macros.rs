//! Macros: calls that the parser rewrites, of the standard library, of two-variable comprehensions, optionals and lists.

use crate::ast::{ACCU, Comprehension, Expr, Kind, Literal, Name};
use crate::parser::{Parser, Stop};

pub(crate) enum Expanded {
    Yes(Kind),
    No(Option<Expr>, Vec<Expr>),
}

type Made<T> = Result<T, Stop>;

/// Rewrites the call if it is a macro's; hands it back otherwise.
pub(crate) fn expand(p: &mut Parser, offset: usize, name: &str, target: Option<Expr>, args: Vec<Expr>) -> Made<Expanded> {
    let mut m = Maker { p, offset };
    let kind = match (target, name, args.len()) {
        (None, "has", 1) => m.has(args)?,
        (Some(range), "all" | "exists" | "exists_one" | "existsOne", 2 | 3) => m.quantifier(name, range, args)?,
        (Some(range), "map", 2 | 3) => m.map(range, args)?,
        (Some(range), "filter", 2) => m.filter(range, args)?,
        (Some(range), "transformList" | "transformMap" | "transformMapEntry", 3 | 4) => m.transform(name, range, args)?,
        (Some(target), "optMap" | "optFlatMap", 2) => m.optional_map(name, target, args)?,
        (Some(target), "sortBy", 2) => m.sort_by(target, args)?,
        (Some(target), "bind", 3) if target.is_ident("cel") => m.bind(args)?,
        (target, _, _) => return Ok(Expanded::No(target, args)),
    };
    Ok(Expanded::Yes(kind))
}

struct Maker<'p> {
    p: &'p mut Parser,
    offset: usize,
}

fn ident(expr: &Expr) -> Option<Name> {
    match &expr.kind {
        Kind::Ident(name) => Some(name.clone()),
        _ => None,
    }
}

impl Maker<'_> {
    fn make(&mut self, kind: Kind) -> Made<Expr> {
        self.p.made(self.offset, kind)
    }

    fn call(&mut self, function: &str, args: Vec<Expr>) -> Made<Expr> {
        self.make(Kind::Call { function: function.into(), target: None, args })
    }

    fn method(&mut self, target: Expr, function: &str, args: Vec<Expr>) -> Made<Expr> {
        self.make(Kind::Call { function: function.into(), target: Some(Box::new(target)), args })
    }

    fn name(&mut self, name: &str) -> Made<Expr> {
        self.make(Kind::Ident(name.into()))
    }

    fn accu(&mut self) -> Made<Expr> {
        self.name(ACCU)
    }

    fn literal(&mut self, literal: Literal) -> Made<Expr> {
        self.make(Kind::Literal(literal))
    }

    fn list(&mut self, elements: Vec<Expr>) -> Made<Expr> {
        self.make(Kind::List { elements, optional: Vec::new() })
    }

    fn refuse<T>(&mut self, at: &Expr, why: &str) -> Made<T> {
        let offset = self.p.offset(at.id);
        self.p.error(offset, why)
    }

    fn variable(&mut self, expr: &Expr, why: &str) -> Made<Name> {
        match ident(expr) {
            Some(name) if &*name == ACCU || &*name == "__result__" => {
                self.refuse(expr, "iteration variable overwrites accumulator variable")
            }
            Some(name) => Ok(name),
            None => self.refuse(expr, why),
        }
    }

    fn has(&mut self, mut args: Vec<Expr>) -> Made<Kind> {
        let arg = args.remove(0);
        match arg.kind {
            Kind::Select { operand, field, test: false } => Ok(Kind::Select { operand, field, test: true }),
            _ => self.refuse(&arg, "invalid argument to has() macro"),
        }
    }

    /// One variable, or two where there is one argument more than `least`.
    fn variables(&mut self, args: &mut Vec<Expr>, two: bool) -> Made<(Name, Option<Name>)> {
        let first = args.remove(0);
        let var = self.variable(&first, "argument must be a simple name")?;
        if !two {
            return Ok((var, None));
        }
        let second = args.remove(0);
        let var2 = self.variable(&second, "argument must be a simple name")?;
        if var == var2 {
            return self.refuse(&second, &format!("duplicate variable name: {var}"));
        }
        Ok((var, Some(var2)))
    }

    fn quantifier(&mut self, name: &str, range: Expr, mut args: Vec<Expr>) -> Made<Kind> {
        let two = args.len() == 3;
        let (var, var2) = self.variables(&mut args, two)?;
        let predicate = args.remove(0);
        let (init, condition, step, result) = match name {
            "all" => {
                let (seen, kept) = (self.accu()?, self.accu()?);
                let condition = self.call("@not_strictly_false", vec![seen])?;
                let step = self.call("_&&_", vec![kept, predicate])?;
                (Literal::Bool(true), condition, step, self.accu()?)
            }
            "exists" => {
                let (seen, kept) = (self.accu()?, self.accu()?);
                let not = self.call("!_", vec![seen])?;
                let condition = self.call("@not_strictly_false", vec![not])?;
                let step = self.call("_||_", vec![kept, predicate])?;
                (Literal::Bool(false), condition, step, self.accu()?)
            }
            _ => {
                let condition = self.literal(Literal::Bool(true))?;
                let (counted, kept, one, total, only) =
                    (self.accu()?, self.accu()?, self.literal(Literal::Int(1))?, self.accu()?, self.literal(Literal::Int(1))?);
                let more = self.call("_+_", vec![counted, one])?;
                let step = self.call("_?_:_", vec![predicate, more, kept])?;
                (Literal::Int(0), condition, step, self.call("_==_", vec![total, only])?)
            }
        };
        let init = self.literal(init)?;
        Ok(fold(Comprehension { range, var, var2, accu: ACCU.into(), init, condition, step, result }))
    }

    /// `init`, grown by `step` for each element that passes the filter.
    fn grow(&mut self, range: Expr, (var, var2): (Name, Option<Name>), init: Expr, filter: Option<Expr>, step: Expr) -> Made<Kind> {
        let step = match filter {
            None => step,
            Some(filter) => {
                let kept = self.accu()?;
                self.call("_?_:_", vec![filter, step, kept])?
            }
        };
        let (condition, result) = (self.literal(Literal::Bool(true))?, self.accu()?);
        Ok(fold(Comprehension { range, var, var2, accu: ACCU.into(), init, condition, step, result }))
    }

    fn appended(&mut self, element: Expr) -> Made<Expr> {
        let (accu, list) = (self.accu()?, self.list(vec![element])?);
        self.call("_+_", vec![accu, list])
    }

    fn map(&mut self, range: Expr, mut args: Vec<Expr>) -> Made<Kind> {
        let first = args.remove(0);
        let var = self.variable(&first, "argument is not an identifier")?;
        let filter = (args.len() == 2).then(|| args.remove(0));
        let step = self.appended(args.remove(0))?;
        let init = self.list(Vec::new())?;
        self.grow(range, (var, None), init, filter, step)
    }

    fn filter(&mut self, range: Expr, mut args: Vec<Expr>) -> Made<Kind> {
        let first = args.remove(0);
        let var = self.variable(&first, "argument is not an identifier")?;
        let element = self.name(&var)?;
        let step = self.appended(element)?;
        let init = self.list(Vec::new())?;
        self.grow(range, (var, None), init, Some(args.remove(0)), step)
    }

    fn transform(&mut self, name: &str, range: Expr, mut args: Vec<Expr>) -> Made<Kind> {
        let vars = self.variables(&mut args, true)?;
        let filter = (args.len() == 2).then(|| args.remove(0));
        let made = args.remove(0);
        let (init, step) = match name {
            "transformList" => (self.list(Vec::new())?, self.appended(made)?),
            _ => {
                let accu = self.accu()?;
                let insert = if name == "transformMap" { vec![accu, self.name(&vars.0)?, made] } else { vec![accu, made] };
                (self.make(Kind::Map(Vec::new()))?, self.call("cel.@mapInsert", insert)?)
            }
        };
        self.grow(range, vars, init, filter, step)
    }

    /// A name for a value, inside `result`.
    fn bound(&mut self, name: Name, value: Expr, result: Expr) -> Made<Kind> {
        let range = self.list(Vec::new())?;
        let condition = self.literal(Literal::Bool(false))?;
        let step = self.name(&name)?;
        Ok(fold(Comprehension { range, var: "#unused".into(), var2: None, accu: name, init: value, condition, step, result }))
    }

    fn bind(&mut self, mut args: Vec<Expr>) -> Made<Kind> {
        let first = args.remove(0);
        let Some(name) = ident(&first) else { return self.refuse(&first, "cel.bind() variable names must be simple identifiers") };
        let value = args.remove(0);
        self.bound(name, value, args.remove(0))
    }

    fn optional_map(&mut self, name: &str, target: Expr, mut args: Vec<Expr>) -> Made<Kind> {
        let first = args.remove(0);
        let Some(var) = ident(&first) else {
            return self.refuse(&first, &format!("{name}() variable name must be a simple identifier"));
        };
        let copy = self.p.copy(&target);
        let has = self.method(target, "hasValue", Vec::new())?;
        let value = self.method(copy, "value", Vec::new())?;
        let bound = self.bound(var, value, args.remove(0))?;
        let mut mapped = self.make(bound)?;
        if name == "optMap" {
            mapped = self.call("optional.of", vec![mapped])?;
        }
        let none = self.call("optional.none", Vec::new())?;
        Ok(Kind::Call { function: "_?_:_".into(), target: None, args: vec![has, mapped, none] })
    }

    fn sort_by(&mut self, target: Expr, args: Vec<Expr>) -> Made<Kind> {
        if matches!(target.kind, Kind::Literal(_) | Kind::Map(_) | Kind::Struct { .. }) {
            let why = "sortBy can only be applied to a list, identifier, comprehension, call or select expression";
            return self.refuse(&target, why);
        }
        const INPUT: &str = "@__sortBy_input__";
        let (range, sorted) = (self.name(INPUT)?, self.name(INPUT)?);
        let keys = self.map(range, args)?;
        let keys = self.make(keys)?;
        let call = self.method(sorted, "@sortByAssociatedKeys", vec![keys])?;
        self.bound(INPUT.into(), target, call)
    }
}

fn fold(comprehension: Comprehension) -> Kind {
    Kind::Comprehension(Box::new(comprehension))
}
