//! Expressions of admission (CEL): what they are given, and match conditions (KEP-3716), which webhooks and policies share.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};
pub(crate) use tiphys_cel::admission::compile;
use tiphys_cel::admission::{Declared, Known, Variables};
use tiphys_cel::{
    Activation, Authorizer as Asked, AuthorizerVal, Decision, Env, Eval, EvalError, MATCH_CONDITIONS_LIMIT, PER_CALL_LIMIT, Program,
    Question, Type, Val,
};
use tiphys_meta::{Gvk, Gvr};

use crate::config::{Authorizer, Question as AuthorizerQuestion};
use crate::request::UserInfo;

/// A compiled expression, or why it is none.
pub(crate) type Compiled = Result<Program, String>;

const OUT_OF_BUDGET: &str = "validation failed due to running out of cost budget, no further validation rules will be run";

/// Variables that refer to variables are evaluated within each other, so deep.
const MAX_VARIABLE_DEPTH: usize = 50;

/// Variables of a policy, in order: each sees those before it.
#[derive(Default)]
pub(crate) struct Composed(Vec<(String, Compiled)>);

impl Composed {
    /// The variables, and the environment for what comes after them.
    pub(crate) fn compile(variables: &[Value], env: Env) -> (Composed, Env) {
        let (mut all, mut types) = (Vec::new(), Variables::default());
        for variable in variables {
            let (name, expression) = (text(variable, "name"), text(variable, "expression"));
            let program = compile(expression, &types.extend(env.clone()), &[]);
            types.declare(name, program.as_ref().ok().map(Program::output));
            all.push((name.to_owned(), program));
        }
        (Composed(all), types.extend(env))
    }
}

/// What an expression is given.
pub(crate) struct Inputs<'a> {
    pub(crate) object: Option<&'a Value>,
    pub(crate) old: Option<&'a Value>,
    pub(crate) params: Option<&'a Value>,
    pub(crate) request: &'a Value,
    pub(crate) namespace: Option<&'a Value>,
    pub(crate) authorizer: Option<(Arc<dyn Asked>, Question)>,
}

/// One evaluation of several expressions, which share variables and a budget.
pub(crate) struct Scope<'a, 's> {
    inputs: &'s Inputs<'a>,
    composed: &'s Composed,
    known: RefCell<HashMap<String, Eval<Val<'a>>>>,
    /// What variables have cost since this was asked last.
    spent: Cell<u64>,
    depth: Cell<usize>,
    budget: Cell<u64>,
}

impl<'a, 's> Scope<'a, 's> {
    pub(crate) fn new(inputs: &'s Inputs<'a>, composed: &'s Composed, budget: u64) -> Self {
        let known = RefCell::default();
        Scope { inputs, composed, known, spent: Cell::new(0), depth: Cell::new(0), budget: Cell::new(budget) }
    }

    /// The value, or why there is none; the outer error ends all evaluation.
    pub(crate) fn eval(&self, expression: &str, program: &Compiled) -> Result<Result<Val<'a>, String>, String> {
        let program = match program {
            Ok(program) => program,
            Err(why) => return Ok(Err(format!("compilation error: {why}"))),
        };
        let outcome = program.eval(self, PER_CALL_LIMIT);
        let cost = outcome.cost.saturating_add(self.spent.take());
        match self.budget.get().checked_sub(cost) {
            Some(rest) => self.budget.set(rest),
            None => return Err(OUT_OF_BUDGET.to_owned()),
        }
        Ok(outcome.result.map_err(|error| format!("expression '{expression}' resulted in error: {error}")))
    }

    pub(crate) fn remaining(&self) -> u64 {
        self.budget.get()
    }
}

impl<'a> Activation<'a> for Scope<'a, '_> {
    fn resolve(&self, name: &str) -> Option<Val<'a>> {
        let some = |value: Option<&'a Value>| Some(value.map_or(Val::Null, Val::json));
        match name {
            "object" => some(self.inputs.object),
            "oldObject" => some(self.inputs.old),
            "params" => some(self.inputs.params),
            "request" => some(Some(self.inputs.request)),
            "namespaceObject" => some(self.inputs.namespace),
            "authorizer" => self.inputs.authorizer.as_ref().map(|(a, _)| AuthorizerVal::value(a.clone())),
            "authorizer.requestResource" => {
                self.inputs.authorizer.as_ref().map(|(a, question)| AuthorizerVal::request_resource(a.clone(), question.clone()))
            }
            _ => None,
        }
    }

    fn composed(&self, name: &str) -> Option<Eval<Val<'a>>> {
        if let Some(known) = self.known.borrow().get(name) {
            return Some(known.clone());
        }
        let (_, program) = self.composed.0.iter().find(|(n, _)| n == name)?;
        let failed = |why: String| Err(EvalError::Failed(why.into()));
        let value = match program {
            Err(why) => failed(format!("composited variable {name:?} fails to compile: {why}")),
            Ok(_) if self.depth.get() >= MAX_VARIABLE_DEPTH => failed(format!("composited variable {name:?} is nested too deep")),
            Ok(program) => {
                self.depth.set(self.depth.get() + 1);
                let outcome = program.eval(self, PER_CALL_LIMIT);
                self.depth.set(self.depth.get() - 1);
                self.spent.set(self.spent.get().saturating_add(outcome.cost));
                outcome.result.or_else(|error| failed(format!("composited variable {name:?} fails to evaluate: {error}")))
            }
        };
        self.known.borrow_mut().insert(name.to_owned(), value.clone());
        Some(value)
    }
}

/// `matchConditions`, compiled.
pub struct Conditions(Vec<(String, Compiled)>);

/// A request as expressions see it.
#[derive(Clone, Copy)]
pub struct Review<'a> {
    /// `CREATE`, `UPDATE`, `DELETE`, `CONNECT`.
    pub operation: &'a str,
    pub kind: &'a Gvk,
    pub gvr: &'a Gvr,
    pub subresource: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
    pub user: &'a UserInfo,
    pub dry_run: bool,
    /// In the version of the request.
    pub requested: &'a Gvr,
    pub options: &'a Value,
}

/// The kind of a request, where an object is of `kind` in the version `gvr`. A Scale or an Eviction is the same in all of them.
pub fn requested_kind(kind: &Gvk, gvr: &Gvr, requested: &Gvr) -> Gvk {
    if (&kind.group, &kind.version) != (&gvr.group, &gvr.version) {
        return kind.clone();
    }
    Gvk { group: requested.group.clone(), version: requested.version.clone(), kind: kind.kind.clone() }
}

impl Review<'_> {
    /// The AdmissionRequest, without the objects.
    pub(crate) fn to_value(self) -> Value {
        let kind = json!({"group": self.kind.group, "version": self.kind.version, "kind": self.kind.kind});
        let resource = json!({"group": self.gvr.group, "version": self.gvr.version, "resource": self.gvr.resource});
        let user = self.user;
        let mut info = json!({"username": user.name, "groups": user.groups});
        if !user.uid.is_empty() {
            info["uid"] = json!(user.uid);
        }
        if !user.extra.is_empty() {
            info["extra"] = json!(user.extra);
        }
        let asked = self.requested;
        let asked_kind = requested_kind(self.kind, self.gvr, asked);
        let mut request = json!({
            "uid": "", "kind": kind, "resource": resource,
            "requestKind": {"group": asked_kind.group, "version": asked_kind.version, "kind": asked_kind.kind},
            "requestResource": {"group": asked.group, "version": asked.version, "resource": asked.resource},
            "operation": self.operation, "userInfo": info, "object": null, "oldObject": null, "dryRun": self.dry_run, "options": self.options,
        });
        let texts = [
            ("name", self.name),
            ("namespace", self.namespace),
            ("subResource", self.subresource),
            ("requestSubResource", self.subresource),
        ];
        for (field, value) in texts.into_iter().filter(|(_, value)| !value.is_empty()) {
            request[field] = json!(value);
        }
        request
    }

    /// Answers what the authorizer of an expression is asked.
    pub(crate) fn asked(&self, authorizer: Option<Arc<dyn Authorizer>>) -> Option<(Arc<dyn Asked>, Question)> {
        let question = Question {
            group: self.gvr.group.to_string(),
            resource: self.gvr.resource.to_string(),
            subresource: self.subresource.to_owned(),
            namespace: self.namespace.to_owned(),
            name: self.name.to_owned(),
            ..Question::default()
        };
        Some((Arc::new(Bridge { authorizer: authorizer?, user: self.user.clone() }) as Arc<dyn Asked>, question))
    }
}

/// The door's authorizer, for expressions. Field and label selectors of a check are not looked at.
struct Bridge {
    authorizer: Arc<dyn Authorizer>,
    user: UserInfo,
}

impl Asked for Bridge {
    fn authorize(&self, q: &Question) -> Decision {
        let account;
        let user = match &q.service_account {
            None => &self.user,
            Some((namespace, name)) => {
                let groups = ["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")];
                account =
                    UserInfo { name: format!("system:serviceaccount:{namespace}:{name}"), groups: groups.into(), ..UserInfo::default() };
                &account
            }
        };
        let question = AuthorizerQuestion {
            verb: &q.verb,
            group: &q.group,
            version: if q.path.is_some() { "" } else { "*" },
            resource: &q.resource,
            subresource: &q.subresource,
            namespace: &q.namespace,
            name: &q.name,
            path: q.path.as_deref().unwrap_or(""),
        };
        let (allowed, reason) = self.authorizer.decide(user, &question);
        Decision { allowed, reason, error: None }
    }
}

impl Conditions {
    /// Of a webhook.
    #[must_use]
    pub fn of_webhook(conditions: &[Value]) -> Conditions {
        let declared = Declared { authorizer: true, ..Declared::default() };
        Conditions::compile(conditions, &tiphys_cel::admission::env(declared, &Known::default()))
    }

    pub(crate) fn compile(conditions: &[Value], env: &Env) -> Conditions {
        let one = |c: &Value| (text(c, "expression").to_owned(), compile(text(c, "expression"), env, &[Type::Bool]));
        Conditions(conditions.iter().map(one).collect())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether all hold of a request: a webhook's.
    pub fn hold(
        &self,
        review: Review<'_>,
        object: Option<&Value>,
        old: Option<&Value>,
        authorizer: Option<Arc<dyn Authorizer>>,
    ) -> Result<bool, String> {
        let request = review.to_value();
        let authorizer = review.asked(authorizer);
        let inputs = Inputs { object, old, params: None, request: &request, namespace: None, authorizer };
        self.hold_in(&inputs, &Composed::default())
    }

    /// One that does not hold decides; otherwise errors do.
    pub(crate) fn hold_in(&self, inputs: &Inputs<'_>, composed: &Composed) -> Result<bool, String> {
        let scope = Scope::new(inputs, composed, MATCH_CONDITIONS_LIMIT);
        let mut errors: Vec<String> = Vec::new();
        for (expression, program) in &self.0 {
            match scope.eval(expression, program)? {
                Ok(Val::Bool(false)) => return Ok(false),
                Ok(_) => {}
                Err(why) => errors.push(why),
            }
        }
        match &errors[..] {
            [] => Ok(true),
            [one] => Err(one.clone()),
            many => Err(format!("[{}]", many.join(", "))),
        }
    }
}

fn text<'v>(value: &'v Value, field: &str) -> &'v str {
    value.get(field).and_then(Value::as_str).unwrap_or("")
}

/// Labels of an object against a `metav1.LabelSelector`; one that says nothing matches everything.
pub(crate) fn selects(selector: Option<&Value>, object: &Value) -> bool {
    let Some(selector) = selector.filter(|s| s.as_object().is_some_and(|m: &Map<String, Value>| !m.is_empty())) else { return true };
    tiphys_types::selector::from_value(selector).is_ok_and(|s| s.matches_object(object))
}
