//! `x-kubernetes-validations` (KEP-2876): the rules of a CRD's schema, checked when the CRD is written and run when its objects are.
//!
//! Ratcheting (KEP-4008): what an update leaves as it was is not refused for a rule that came later; what would have been is a warning.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value as Json;
use tiphys_meta::{ErrorList, FieldError, Path};

use crate::env::Env;
use crate::eval::Activation;
use crate::program::{PER_CALL_LIMIT, Program, REQUEST_LIMIT};
use crate::schema::{Schema, SchemaTypes};
use crate::source;
use crate::types::Type;
use crate::value::{EvalError, Val};

/// The most that one rule may be estimated to cost.
const RULE_LIMIT: u64 = 10_000_000;
/// The most that all rules of a schema may be.
const SCHEMA_LIMIT: u64 = 100_000_000;
const MAX_MESSAGE: usize = 5 * 1024;
const RULES: &str = "x-kubernetes-validations";
const OUT_OF_BUDGET: &str = "validation failed due to running out of cost budget, no further validation rules will be run";

/// The compiled rules of a schema and of everything below it.
pub struct Rules(Node);

struct Node {
    rules: Vec<Rule>,
    /// `type`, which errors show in place of the value.
    kind: String,
    schema: Option<Arc<Schema>>,
    items: Option<Box<Node>>,
    values: Option<Box<Node>>,
    properties: BTreeMap<String, Node>,
    all_of: Vec<Node>,
    /// The keys by which elements of a list are the same before and after.
    list_keys: Option<Vec<String>>,
}

struct Rule {
    program: Result<Program, String>,
    uses_old: bool,
    optional_old: bool,
    text: String,
    message: String,
    message_expression: Option<(String, Program)>,
    reason: String,
    field_path: String,
}

/// What the rules say of an object.
#[derive(Default)]
pub struct Verdict {
    pub errors: ErrorList,
    /// What would have been errors, were the value new.
    pub warnings: Vec<String>,
}

fn text<'v>(schema: &'v Json, field: &str) -> &'v str {
    schema.get(field).and_then(Json::as_str).unwrap_or("")
}

fn is_true(schema: &Json, field: &str) -> bool {
    schema.get(field) == Some(&Json::Bool(true))
}

fn list<'v>(schema: &'v Json, field: &str) -> &'v [Json] {
    schema.get(field).and_then(Json::as_array).map_or(&[], Vec::as_slice)
}

fn object<'v>(schema: &'v Json, field: &str) -> Option<&'v Json> {
    schema.get(field).filter(|v| v.is_object())
}

/// Compiles the rules of a custom resource's schema. None: there are none.
#[must_use]
pub fn compile_schema(schema: &Json) -> Option<Rules> {
    if !has_rules(schema) {
        return None;
    }
    Node::of(schema, schema, Schema::of(schema, true, "selfType").as_ref()).map(Rules)
}

fn has_rules(schema: &Json) -> bool {
    !list(schema, RULES).is_empty()
        || ["items", "additionalProperties"].iter().any(|f| object(schema, f).is_some_and(has_rules))
        || schema.get("properties").and_then(Json::as_object).is_some_and(|p| p.values().any(has_rules))
        || list(schema, "allOf").iter().any(has_rules)
}

impl Node {
    /// `rules` says what is checked, `shape` what the values are: inside `allOf` these differ.
    fn of(rules: &Json, shape: &Json, schema: Option<&Arc<Schema>>) -> Option<Node> {
        let compiled: Vec<Rule> = match schema {
            Some(schema) => list(rules, RULES).iter().map(|rule| Rule::compile(rule, shape, schema)).collect(),
            None => Vec::new(),
        };
        let below = |field: &str, step: &str| {
            let (rules, shape) = (object(rules, field)?, object(shape, field)?);
            Node::of(rules, shape, schema.and_then(|s| s.step(step))).map(Box::new)
        };
        let (items, values) = (below("items", "@items"), below("additionalProperties", "@values"));
        let mut properties = BTreeMap::new();
        for (name, rules) in rules.get("properties").and_then(Json::as_object).into_iter().flatten() {
            if let Some(shape) = object(shape, "properties").and_then(|p| p.get(name))
                && let Some(node) = Node::property(rules, shape, name, schema)
            {
                properties.insert(name.clone(), node);
            }
        }
        let all_of: Vec<Node> = list(rules, "allOf").iter().filter_map(|part| Node::of(part, shape, schema)).collect();
        let empty = compiled.is_empty() && items.is_none() && values.is_none() && properties.is_empty() && all_of.is_empty();
        let list_keys = (text(shape, "x-kubernetes-list-type") == "map")
            .then(|| list(shape, "x-kubernetes-list-map-keys").iter().filter_map(Json::as_str).map(str::to_owned).collect());
        let kind = text(shape, "type").to_owned();
        (!empty).then(|| Node { rules: compiled, kind, schema: schema.cloned(), items, values, properties, all_of, list_keys })
    }

    fn property(rules: &Json, shape: &Json, name: &str, parent: Option<&Arc<Schema>>) -> Option<Node> {
        let embedded = is_true(shape, "x-kubernetes-embedded-resource");
        match crate::escape::escape(name) {
            Some(escaped) => Node::of(rules, shape, Some(parent?.step(&escaped)?)),
            // The parent's type cannot name it; rules at the field itself can still be.
            None => Node::of(rules, shape, Some(&Schema::of(shape, embedded, "selfType")?)),
        }
    }

    fn validate(&self, run: &mut Run, place: Place<'_>) -> Result<(), Stop> {
        if place.new.is_null() {
            return Ok(());
        }
        self.rules.iter().try_for_each(|rule| self.check(rule, run, &place))?;
        for part in &self.all_of {
            part.validate(run, Place { same: Sameness { current: None, ..place.same }, ..place })?;
        }
        match place.new {
            Json::Array(items) => self.validate_items(run, &place, items),
            Json::Object(fields) => self.validate_fields(run, &place, fields),
            _ => Ok(()),
        }
    }

    fn validate_items(&self, run: &mut Run, place: &Place<'_>, items: &[Json]) -> Result<(), Stop> {
        let Some(node) = &self.items else { return Ok(()) };
        let old = place.old.and_then(Json::as_array);
        for (i, item) in items.iter().enumerate() {
            let before = self.list_keys.as_ref().and_then(|keys| old?.iter().find(|o| keys.iter().all(|k| o.get(k) == item.get(k))));
            let path = place.path.index(i);
            node.validate(run, Place { path: &path, new: item, old: before, same: place.same.below(item, before) })?;
        }
        Ok(())
    }

    fn validate_fields(&self, run: &mut Run, place: &Place<'_>, fields: &serde_json::Map<String, Json>) -> Result<(), Stop> {
        let old = place.old.and_then(Json::as_object);
        for (name, value) in fields {
            let before = old.and_then(|o| o.get(name));
            let same = place.same.below(value, before);
            if let Some(node) = &self.values {
                let path = place.path.key(name);
                node.validate(run, Place { path: &path, new: value, old: before, same })?;
            }
            if let Some(node) = self.properties.get(name) {
                let path = place.path.child(name);
                node.validate(run, Place { path: &path, new: value, old: before, same })?;
            }
        }
        Ok(())
    }

    fn check(&self, rule: &Rule, run: &mut Run, place: &Place<'_>) -> Result<(), Stop> {
        let program = match &rule.program {
            Ok(program) => program,
            Err(why) => return run.refuse(self.error(place.path, format!("rule compile error: {why}"))),
        };
        if rule.uses_old && place.old.is_none_or(Json::is_null) && !rule.optional_old {
            return Ok(());
        }
        if run.budget == 0 {
            return run.stop(self.error(place.path, OUT_OF_BUDGET.to_owned()));
        }
        let value = |json| Schema::value(self.schema.as_deref(), json);
        let old = place.old.filter(|o| !o.is_null()).map(value);
        let activation = Selves { new: value(place.new), old, optional: rule.optional_old };
        let outcome = program.eval(&activation, PER_CALL_LIMIT);
        if outcome.cost > run.budget {
            return run.stop(self.error(place.path, OUT_OF_BUDGET.to_owned()));
        }
        run.budget -= outcome.cost;
        let shown = rule.shown();
        match outcome.result {
            Ok(Val::Bool(true)) => Ok(()),
            Ok(_) => self.failed(rule, run, place, &activation),
            Err(EvalError::CostLimit) => {
                let why = EvalError::CostLimit;
                let rest = "no further validation rules will be run due to call cost exceeds limit for rule";
                run.stop(self.error(place.path, format!("'{why}': {rest}: {shown}")))
            }
            Err(error) if error.to_string().starts_with("no such overload") => {
                let rest = "call arguments did not match a supported operator, function or macro signature for rule";
                run.refuse(self.error(place.path, format!("'{error}': {rest}: {shown}")))
            }
            Err(error) => run.refuse(self.error(place.path, format!("{error} evaluating rule: {shown}"))),
        }
    }

    /// Errors of rules show the type of the value.
    fn error(&self, path: &Path<'_>, detail: String) -> FieldError {
        FieldError::invalid(path, self.kind.clone(), detail)
    }

    fn failed(&self, rule: &Rule, run: &mut Run, place: &Place<'_>, activation: &Selves<'_>) -> Result<(), Stop> {
        let inner;
        let path = match rule.field_path.as_str() {
            "" => place.path,
            below => {
                inner = place.path.child(below);
                &inner
            }
        };
        let detail = match rule.evaluated_message(run, activation) {
            Ok(message) => message.unwrap_or_else(|| rule.fixed_message()),
            Err(why) => {
                run.report(rule, place, self.error(path, why));
                return Err(Stop);
            }
        };
        let whole = matches!(self.kind.as_str(), "object" | "array");
        let error = match rule.reason.as_str() {
            "FieldValueForbidden" => FieldError::forbidden(path, detail),
            "FieldValueRequired" => FieldError::required(path, detail),
            "FieldValueDuplicate" => FieldError { value: (!whole).then(|| place.new.clone()), ..FieldError::duplicate(path, Json::Null) },
            _ if whole => FieldError::invalid_unshown(path, detail),
            _ => FieldError::invalid(path, place.new.clone(), detail),
        };
        run.report(rule, place, error);
        Ok(())
    }
}

/// No further rules are run.
struct Stop;

struct Run {
    verdict: Verdict,
    budget: u64,
}

impl Run {
    fn refuse(&mut self, error: FieldError) -> Result<(), Stop> {
        self.verdict.errors.push(error);
        Ok(())
    }

    fn stop(&mut self, error: FieldError) -> Result<(), Stop> {
        self.verdict.errors.push(error);
        Err(Stop)
    }

    /// An error, or a warning where the value is what it was.
    fn report(&mut self, rule: &Rule, place: &Place<'_>, error: FieldError) {
        if !rule.uses_old && place.same.unchanged() {
            self.verdict.warnings.push(error.to_string());
        } else {
            self.verdict.errors.push(error);
        }
    }
}

#[derive(Clone, Copy)]
struct Place<'p> {
    path: &'p Path<'p>,
    new: &'p Json,
    old: Option<&'p Json>,
    same: Sameness<'p>,
}

/// The value and what it was, where these can be told to be the same place; and the nearest such pair above.
#[derive(Clone, Copy, Default)]
struct Sameness<'p> {
    current: Option<(&'p Json, &'p Json)>,
    above: Option<(&'p Json, &'p Json)>,
}

impl<'p> Sameness<'p> {
    fn below(self, new: &'p Json, old: Option<&'p Json>) -> Sameness<'p> {
        match self.current {
            None => self,
            current => Sameness { current: old.map(|old| (new, old)), above: current },
        }
    }

    fn unchanged(self) -> bool {
        self.current.or(self.above).is_some_and(|(new, old)| new == old)
    }
}

/// `self` and `oldSelf`.
struct Selves<'a> {
    new: Val<'a>,
    old: Option<Val<'a>>,
    optional: bool,
}

impl<'a> Activation<'a> for Selves<'a> {
    fn resolve(&self, name: &str) -> Option<Val<'a>> {
        match name {
            "self" => Some(self.new.clone()),
            "oldSelf" if self.optional => Some(Val::Optional(self.old.clone().map(Arc::new))),
            "oldSelf" => self.old.clone(),
            _ => None,
        }
    }
}

impl Rule {
    fn compile(rule: &Json, shape: &Json, schema: &Arc<Schema>) -> Rule {
        let optional_old = is_true(rule, "optionalOldSelf");
        let env = rule_env(schema, optional_old);
        let program = compile_bool(text(rule, "rule"), &env, schema);
        let expression = text(rule, "messageExpression");
        let message_expression = (!expression.is_empty())
            .then(|| Program::compile_sized(expression, &env, Some(schema)).ok())
            .flatten()
            .filter(|p| *p.output() == Type::String)
            .map(|p| (expression.to_owned(), p));
        Rule {
            uses_old: program.as_ref().is_ok_and(|p| p.uses("oldSelf")),
            program,
            optional_old,
            text: text(rule, "rule").trim().to_owned(),
            message: text(rule, "message").trim().to_owned(),
            message_expression,
            reason: text(rule, "reason").to_owned(),
            field_path: field_path(text(rule, "fieldPath"), shape).unwrap_or_default(),
        }
    }

    fn shown(&self) -> &str {
        if self.message.is_empty() { &self.text } else { &self.message }
    }

    fn fixed_message(&self) -> String {
        if self.message.is_empty() { format!("failed rule: {}", self.text) } else { self.message.clone() }
    }

    /// The message of the expression; none where there is none or it says nothing of use. An error ends the run.
    fn evaluated_message(&self, run: &mut Run, activation: &Selves<'_>) -> Result<Option<String>, String> {
        let Some((source, program)) = &self.message_expression else { return Ok(None) };
        let outcome = program.eval(activation, PER_CALL_LIMIT);
        if outcome.cost > run.budget {
            let why = "messageExpression evaluation failed due to running out of cost budget, no further validation rules will be run";
            return Err(why.to_owned());
        }
        run.budget -= outcome.cost;
        match outcome.result {
            Ok(Val::Str(message)) => {
                let message = message.trim();
                let fine = !message.is_empty() && message.len() <= MAX_MESSAGE && !message.contains('\n');
                Ok(fine.then(|| message.to_owned()))
            }
            Err(EvalError::CostLimit) => {
                let why = "no further validation rules will be run due to call cost exceeds limit for messageExpression";
                Err(format!("{why}: {}", tiphys_meta::field::go_quote(source)))
            }
            _ => Ok(None),
        }
    }
}

fn rule_env(schema: &Arc<Schema>, optional_old: bool) -> Env {
    let ty = schema.ty();
    let old = if optional_old { Type::optional(ty.clone()) } else { ty.clone() };
    Env::default().provider(types_of(schema)).variable("self", ty).variable("oldSelf", old)
}

/// The types below a schema: of elements too, since those carry the names of where they stand.
fn types_of(schema: &Arc<Schema>) -> Arc<SchemaTypes> {
    Arc::new(SchemaTypes(schema.clone()))
}

fn compile_bool(rule: &str, env: &Env, schema: &Schema) -> Result<Program, String> {
    let program = Program::compile_sized(rule, env, Some(schema)).map_err(|i| format!("compilation failed: {}", source::display(&i)))?;
    if *program.output() != Type::Bool {
        return Err("cel expression must evaluate to a bool".into());
    }
    Ok(program)
}

/// Runs the rules on a new object, or on an update where there is an old one.
#[must_use]
pub fn validate(rules: &Rules, new: &Json, old: Option<&Json>, path: &Path<'_>) -> Verdict {
    let mut run = Run { verdict: Verdict::default(), budget: REQUEST_LIMIT };
    let same = Sameness { current: old.map(|old| (new, old)), above: None };
    // Where a rule stopped the run, its error says so.
    let _ = rules.0.validate(&mut run, Place { path, new, old, same });
    run.verdict
}

/// A path of fields (`.spec.x`, `['a-b']`) that the schema has, as errors print it.
#[must_use]
pub fn field_path(path: &str, schema: &Json) -> Option<String> {
    let (mut out, mut rest, mut at) = (String::new(), path, schema);
    while !rest.is_empty() {
        let (name, after) = if let Some(quoted) = rest.strip_prefix("['") {
            let end = quoted.match_indices("']").map(|(i, _)| i).find(|i| !quoted[..*i].ends_with('\\'))?;
            (quoted[..end].replace("\\'", "'").replace("\\\\", "\\"), &quoted[end + 2..])
        } else {
            let name = rest.strip_prefix('.')?;
            let end = name.find(['.', '[']).unwrap_or(name.len());
            (name[..end].to_owned(), &name[end..])
        };
        if let Some(properties) = object(at, "properties") {
            at = properties.get(&name)?;
            out.push_str(if out.is_empty() { "" } else { "." });
            out.push_str(&name);
        } else {
            at = object(at, "additionalProperties")?;
            out.push_str(&format!("[{name}]"));
        }
        rest = after;
    }
    (!out.is_empty()).then_some(out)
}

/// What is wrong with the rules of a schema, for the CRD that is about to be written. `unchanged`: the schema was accepted before, so the cost of
/// single rules is not held against it. `wrong`: the places of what else is wrong with the schema, at and above which no rule is compiled; without it
/// none is.
#[must_use]
pub fn check(schema: &Json, path: &Path<'_>, unchanged: bool, wrong: Option<&[String]>) -> ErrorList {
    let wrong_places = wrong.map(<[String]>::to_vec).unwrap_or_default();
    let mut checker = Checker { errors: ErrorList::new(), total: 0, expensive: Vec::new(), unchanged, wrong: wrong_places };
    checker.form(schema, path);
    checker.wrong.extend(checker.errors.iter().map(|e| e.field.clone()));
    if wrong.is_some() && has_rules(schema) {
        let types = Schema::of(schema, true, "selfType");
        checker.schema(schema, types.as_ref(), path, Some(1), None);
    }
    if checker.total > SCHEMA_LIMIT {
        checker.expensive.sort_by_key(|(cost, _)| std::cmp::Reverse(*cost));
        for (_, path) in checker.expensive.iter().take(4) {
            let why = "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema";
            checker.errors.push(FieldError::forbidden(&Path::new(path), why));
        }
        let what = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
        checker.errors.push(FieldError::forbidden(path, too_expensive(what, checker.total, SCHEMA_LIMIT)));
    }
    checker.errors
}

fn too_expensive(what: &str, cost: u64, limit: u64) -> String {
    let factor = cost as f64 / limit as f64;
    let factor = match factor {
        f if f > 100.0 => "more than 100x".to_owned(),
        f if f < 1.5 => format!("{f:.6}x"),
        f => format!("{f:.1}x"),
    };
    let advice = "try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared";
    format!("{what} exceeds budget by factor of {factor} ({advice})")
}

struct Checker {
    errors: ErrorList,
    total: u64,
    expensive: Vec<(u64, String)>,
    unchanged: bool,
    wrong: Vec<String>,
}

/// How often a value below can stand in one object. None: nothing bounds it.
fn repeats(schema: &Json) -> Option<u64> {
    let most = |field: &str| schema.get(field).and_then(Json::as_i64).map(|n| n.max(0) as u64);
    match text(schema, "type") {
        "object" if schema.get("additionalProperties").is_some_and(|a| !a.is_null()) => most("maxProperties"),
        "array" => most("maxItems"),
        _ => Some(1),
    }
}

impl Checker {
    /// What can be said of a rule without compiling it.
    fn form(&mut self, schema: &Json, path: &Path<'_>) {
        let rules = path.child(RULES);
        for (i, rule) in list(schema, RULES).iter().enumerate() {
            self.rule_form(rule, schema, &rules.index(i));
        }
        self.below(schema, path, &mut |checker, part, path, _| checker.form(part, path));
    }

    fn below(&mut self, schema: &Json, path: &Path<'_>, visit: &mut dyn FnMut(&mut Checker, &Json, &Path<'_>, &str)) {
        let properties = path.child("properties");
        for (name, property) in schema.get("properties").and_then(Json::as_object).into_iter().flatten() {
            let step = crate::escape::escape(name).unwrap_or_default();
            visit(self, property, &properties.key(name), &step);
        }
        for (field, step) in [("items", "@items"), ("additionalProperties", "@values")] {
            if let Some(part) = object(schema, field) {
                visit(self, part, &path.child(field), step);
            }
        }
    }

    fn rule_form(&mut self, rule: &Json, schema: &Json, path: &Path<'_>) {
        let breaks = |text: &str| text.contains(['\n', '\r']);
        let (source, message) = (text(rule, "rule").trim(), text(rule, "message"));
        let message_path = path.child("message");
        if source.is_empty() {
            self.errors.required(&path.child("rule"), "rule is not specified");
        } else if !message.is_empty() && message.trim().is_empty() {
            self.errors.invalid(&message_path, message, "must be non-empty if specified");
        } else if breaks(message.trim()) {
            self.errors.invalid(&message_path, message, "must not contain line breaks");
        } else if breaks(source) && message.trim().is_empty() {
            self.errors.required(&message_path, "message must be specified if rule contains line breaks");
        }
        let expression = text(rule, "messageExpression");
        if !expression.is_empty() && expression.trim().is_empty() {
            self.errors.required(&path.child("messageExpression"), "messageExpression must be non-empty if specified");
        }
        const REASONS: [&str; 4] = ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];
        if let Some(reason) = rule.get("reason").and_then(Json::as_str).filter(|r| !REASONS.contains(r)) {
            self.errors.not_supported(&path.child("reason"), reason, &REASONS);
        }
        let field = text(rule, "fieldPath");
        let place = path.child("fieldPath");
        if !field.is_empty() && field.trim().is_empty() {
            self.errors.invalid(&place, field, "must be non-empty if specified");
        }
        if breaks(field) {
            self.errors.invalid(&place, field, "must not contain line breaks");
        }
        if !field.is_empty() && field_path(field, schema).is_none() {
            self.errors.invalid(&place, field, "must be a valid path");
        }
    }

    /// `lost`: the path within which elements before and after cannot be told to be the same.
    fn schema(&mut self, schema: &Json, types: Option<&Arc<Schema>>, path: &Path<'_>, count: Option<u64>, lost: Option<&str>) {
        let (rules, here) = (path.child(RULES), path.to_string());
        let sound = !self.wrong.iter().any(|place| place.starts_with(&here));
        for (i, rule) in list(schema, RULES).iter().enumerate().filter(|_| sound) {
            match types {
                Some(types) => self.rule(rule, types, &rules.index(i), count, lost),
                None => {
                    let why = "internal error: failed to retrieve type information for x-kubernetes-validations";
                    self.errors.push(FieldError::internal(&rules, why));
                }
            }
        }
        let inner = count.and_then(|count| repeats(schema).map(|n| count.saturating_mul(n)));
        let unordered = text(schema, "type") == "array" && text(schema, "x-kubernetes-list-type") != "map";
        self.below(schema, path, &mut |checker, part, path, step| {
            let own;
            let types = match types.and_then(|t| t.step(step)) {
                Some(types) => Some(types),
                None => {
                    own = Schema::of(part, is_true(part, "x-kubernetes-embedded-resource"), "selfType");
                    own.as_ref()
                }
            };
            let lost = lost.or_else(|| (unordered && step == "@items").then_some(here.as_str()));
            checker.schema(part, types, path, inner, lost);
        });
    }

    fn rule(&mut self, rule: &Json, types: &Arc<Schema>, path: &Path<'_>, count: Option<u64>, lost: Option<&str>) {
        let optional_old = is_true(rule, "optionalOldSelf");
        let env = rule_env(types, optional_old);
        let rule_path = path.child("rule");
        let program = match compile_bool(text(rule, "rule"), &env, types) {
            Ok(program) => program,
            Err(why) => return self.errors.invalid(&rule_path, rule.clone(), why),
        };
        let most = count.unwrap_or(crate::schema::MAX_REQUEST / (types.min_size + 1));
        self.cost("estimated rule cost", program.estimate().max.saturating_mul(most), &rule_path);
        let expression = text(rule, "messageExpression");
        if !expression.trim().is_empty() {
            self.message(rule, expression, &env, types, &path.child("messageExpression"));
        }
        if !program.uses("oldSelf") {
            if let Some(optional) = rule.get("optionalOldSelf").filter(|o| !o.is_null()) {
                self.errors.invalid(&path.child("optionalOldSelf"), optional.clone(), "may not be set if oldSelf is not used in rule");
            }
        } else if let Some(lost) = lost {
            let why = format!("oldSelf cannot be used on the uncorrelatable portion of the schema within {lost}");
            self.errors.invalid(&rule_path, text(rule, "rule"), why);
        }
    }

    fn message(&mut self, rule: &Json, expression: &str, env: &Env, types: &Schema, path: &Path<'_>) {
        match Program::compile_sized(expression, env, Some(types)) {
            Err(issues) => {
                self.errors.invalid(path, rule.clone(), format!("messageExpression compilation failed: {}", source::display(&issues)));
            }
            Ok(program) if *program.output() != Type::String => {
                self.errors.invalid(path, rule.clone(), "messageExpression must evaluate to a string");
            }
            Ok(program) => self.cost("estimated messageExpression cost", program.estimate().max, path),
        }
    }

    fn cost(&mut self, what: &str, cost: u64, path: &Path<'_>) {
        if cost > RULE_LIMIT && !self.unchanged {
            self.errors.forbidden(path, too_expensive(what, cost, RULE_LIMIT));
        }
        self.total = self.total.saturating_add(cost);
        if cost >= SCHEMA_LIMIT / 100 {
            self.expensive.push((cost, path.to_string()));
        }
    }
}
