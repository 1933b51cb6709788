//! An expression, compiled once and run often.

use std::sync::Arc;

use crate::ast::{Expr, Kind, Literal};
use crate::checker::{self, Checked, Reference};
use crate::cost::{self, Estimate};
use crate::env::Env;
use crate::eval::{self, Activation, Outcome};
use crate::parser;
use crate::plan::{self, Node};
use crate::schema::Schema;
use crate::source::{Issue, Source};
use crate::types::Type;

/// What one expression may cost when it runs.
pub const PER_CALL_LIMIT: u64 = 1_000_000;
/// What all expressions of one policy binding, or of one custom resource, may cost together.
pub const REQUEST_LIMIT: u64 = 10_000_000;
/// What the match conditions of one webhook or policy may cost together.
pub const MATCH_CONDITIONS_LIMIT: u64 = 2_500_000;

pub struct Program {
    node: Node,
    output: Type,
    variables: Vec<Arc<str>>,
    estimate: Estimate,
}

impl Program {
    pub fn compile(expression: &str, env: &Env) -> Result<Program, Vec<Issue>> {
        Program::compile_sized(expression, env, None)
    }

    /// With the schema of the variables, from which sizes are estimated.
    pub fn compile_sized(expression: &str, env: &Env, schema: Option<&Schema>) -> Result<Program, Vec<Issue>> {
        let source = Source::new(expression);
        let parsed = parser::parse(&source)?;
        let checked = checker::check(&parsed, &source, env)?;
        let mut issues = Vec::new();
        literals(&parsed.root, &checked, &mut |expr, why| {
            let offset = parsed.offsets.get(expr.id as usize).map_or(0, |o| *o as usize);
            issues.push(source.issue(offset, why));
        });
        if !issues.is_empty() {
            return Err(issues);
        }
        let mut variables: Vec<Arc<str>> = Vec::new();
        for reference in checked.names.values() {
            if let Reference::Variable(name) = reference
                && !variables.contains(name)
            {
                variables.push(name.clone());
            }
        }
        Ok(Program {
            node: plan::plan(&parsed.root, &checked),
            output: checked.types.get(&parsed.root.id).cloned().unwrap_or(Type::Dyn),
            variables,
            estimate: cost::estimate(&parsed.root, &checked, schema),
        })
    }

    #[must_use]
    pub fn output(&self) -> &Type {
        &self.output
    }

    /// Whether the expression refers to the variable.
    #[must_use]
    pub fn uses(&self, variable: &str) -> bool {
        self.variables.iter().any(|v| &**v == variable)
    }

    /// What it may cost.
    #[must_use]
    pub fn estimate(&self) -> Estimate {
        self.estimate
    }

    pub fn eval<'a>(&self, activation: &dyn Activation<'a>, limit: u64) -> Outcome<'a> {
        eval::run(&self.node, activation, limit)
    }
}

/// Literals that a function can never take.
fn literals(expr: &Expr, checked: &Checked, found: &mut dyn FnMut(&Expr, String)) {
    if let Kind::Call { target, args, .. } = &expr.kind
        && let Some((function, ..)) = checked.calls.get(&expr.id)
    {
        let arg = match (*function, target) {
            ("duration" | "timestamp", None) => args.first(),
            ("matches", Some(_)) => args.first(),
            ("matches", None) => args.get(1),
            _ => None,
        };
        if let Some(arg) = arg
            && let Kind::Literal(Literal::Str(text)) = &arg.kind
        {
            let fine = match *function {
                "duration" => tiphys_meta::duration::parse(text).is_some(),
                "timestamp" => crate::time::parse(text).is_some(),
                _ => tiphys_schema::re2::compile(text).is_ok(),
            };
            if !fine {
                found(arg, format!("invalid {function} argument"));
            }
        }
    }
    match &expr.kind {
        Kind::Literal(_) | Kind::Ident(_) => {}
        Kind::Select { operand, .. } => literals(operand, checked, found),
        Kind::Call { target, args, .. } => target.as_deref().into_iter().chain(args).for_each(|e| literals(e, checked, found)),
        Kind::List { elements, .. } => elements.iter().for_each(|e| literals(e, checked, found)),
        Kind::Map(entries) => entries.iter().for_each(|e| {
            literals(&e.key, checked, found);
            literals(&e.value, checked, found);
        }),
        Kind::Struct { fields, .. } => fields.iter().for_each(|f| literals(&f.value, checked, found)),
        Kind::Comprehension(c) => {
            [&c.range, &c.init, &c.condition, &c.step, &c.result].into_iter().for_each(|e| literals(e, checked, found));
        }
    }
}
