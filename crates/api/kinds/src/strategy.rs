//! The shape of a kind's rules, and the frame that all kinds share around them: metadata, generation, status.
//!
//! Order of a create, as upstream's `rest.BeforeCreate`: the registry decodes, calls `default`, fills name (from `generateName`), namespace, uid and
//! creationTimestamp, then `prepare_create`, admission, `validate_create`. Of an update: `default`, `prepare_update`, admission, `validate_update`.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use tiphys_meta::names::{self, NameRule};
use tiphys_meta::{ErrorList, object};
use tiphys_types::jiff::Timestamp;

use crate::{meta, table};

/// Who asks, as far as a kind's rules want to know (CertificateSigningRequest records it).
#[derive(Debug, Clone, Copy)]
pub struct User<'a> {
    pub name: &'a str,
    pub uid: &'a str,
    pub groups: &'a [String],
    pub extra: &'a BTreeMap<String, Vec<String>>,
}

/// What a rule may know besides the object.
#[derive(Debug, Clone, Copy)]
pub struct Ctx<'a> {
    pub now: Timestamp,
    pub user: User<'a>,
}

/// Fields that an object can be selected on, with their values as text.
pub type SelectableFields<'v> = Vec<(&'static str, Cow<'v, str>)>;

/// A column of `kubectl get`. Priority 0 is always shown, 1 with `-o wide`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    pub name: &'static str,
    pub kind: &'static str,
    pub format: &'static str,
    pub description: &'static str,
    pub priority: i32,
}

/// When `metadata.generation` moves.
#[derive(Clone, Copy)]
pub enum Generation {
    Never,
    /// When one of these top-level fields changes. It starts at 1.
    Fields(&'static [&'static str]),
    /// The kind's own rule. It starts at 1.
    When(fn(new: &Value, old: &Value) -> bool),
}

/// How an update of a subresource (`status`, `resize`, …) is made and checked.
pub struct Subresource {
    pub name: &'static str,
    /// Makes `new` (the object as the client sent it) what may be stored.
    pub prepare_update: fn(new: &mut Value, old: &Value, ctx: &Ctx<'_>),
    pub validate_update: fn(new: &Value, old: &Value, errors: &mut ErrorList),
}

/// All rules of a kind. Built with `Strategy::new(…)` and the setters below, in `static`s.
pub struct Strategy {
    pub namespaced: bool,
    pub name_rule: NameRule,
    /// Finalizers carry a domain, but for the few that Kubernetes itself knows.
    pub qualified_finalizers: bool,
    pub generation: Generation,
    /// What `status` is on create; `None` where the kind has no status of the server's.
    pub initial_status: Option<&'static str>,
    pub allow_create_on_update: bool,
    pub allow_unconditional_update: bool,
    pub defaults: fn(&mut Value),
    /// Defaults that are the time of the request.
    pub stamps: Option<fn(&mut Value, Timestamp)>,
    pub on_create: fn(&mut Value, &Ctx<'_>),
    pub on_update: fn(&mut Value, &Value, &Ctx<'_>),
    pub check: fn(&Value, &mut ErrorList),
    pub check_new: fn(&Value, &mut ErrorList),
    pub check_update: fn(&Value, &Value, &mut ErrorList),
    pub warn: fn(&Value, Option<&Value>) -> Vec<String>,
    pub subresources: &'static [Subresource],
    pub fields: for<'v> fn(&'v Value) -> SelectableFields<'v>,
    pub selectable_field_names: &'static [&'static str],
    pub columns: &'static [Column],
    pub cells: fn(&Value, Timestamp) -> Vec<Value>,
    /// Of what an update brings back to the server's state, no client is the manager: beyond `status`.
    pub resets: &'static [&'static [&'static str]],
    /// Metadata cannot be written through `status` either.
    pub status_alone: bool,
    /// The grace period of a delete in seconds, from the one asked for; `None` where objects of the kind go at once.
    pub grace: Option<fn(&Value, Option<i64>) -> i64>,
}

const STATUS: Subresource = Subresource { name: "status", prepare_update: keep_all_but_status, validate_update: nothing_on_update };
const STATUS_ONLY: &[Subresource] = &[STATUS];

impl Strategy {
    /// Without rules: no status, no generation, DNS subdomain names, unconditional updates allowed.
    pub const fn new(namespaced: bool) -> Strategy {
        Strategy {
            namespaced,
            name_rule: names::name_is_dns_subdomain,
            qualified_finalizers: true,
            generation: Generation::Never,
            initial_status: None,
            allow_create_on_update: false,
            allow_unconditional_update: true,
            defaults: |_| {},
            stamps: None,
            on_create: |_, _| {},
            on_update: |_, _, _| {},
            check: |_, _| {},
            check_new: |_, _| {},
            check_update: |_, _, _| {},
            warn: |_, _| Vec::new(),
            subresources: &[],
            fields: if namespaced { meta::namespaced_fields } else { meta::cluster_fields },
            selectable_field_names: if namespaced { meta::NAMESPACED_FIELDS } else { meta::CLUSTER_FIELDS },
            columns: table::NAME_CREATED,
            cells: table::name_created,
            resets: &[],
            status_alone: false,
            grace: None,
        }
    }

    /// What custom resources share.
    pub const fn custom(namespaced: bool) -> Strategy {
        let mut strategy = Strategy::new(namespaced).unconditional_update(false).table(table::NAME_AGE, table::name_age);
        strategy.qualified_finalizers = false;
        strategy
    }

    pub const fn name(mut self, rule: NameRule) -> Self {
        self.name_rule = rule;
        self
    }

    pub const fn generation(mut self, generation: Generation) -> Self {
        self.generation = generation;
        self
    }

    /// Generation moves with `spec`.
    pub const fn spec_generation(self) -> Self {
        self.generation(Generation::Fields(&["spec"]))
    }

    /// The server owns `status`: it starts as this JSON and changes only through the subresource.
    pub const fn status(mut self, initial: &'static str) -> Self {
        self.initial_status = Some(initial);
        if self.subresources.is_empty() {
            self.subresources = STATUS_ONLY;
        }
        self
    }

    pub const fn subresources(mut self, subresources: &'static [Subresource]) -> Self {
        self.subresources = subresources;
        self
    }

    pub const fn create_on_update(mut self) -> Self {
        self.allow_create_on_update = true;
        self
    }

    pub const fn unconditional_update(mut self, allow: bool) -> Self {
        self.allow_unconditional_update = allow;
        self
    }

    pub const fn defaults(mut self, defaults: fn(&mut Value)) -> Self {
        self.defaults = defaults;
        self
    }

    pub const fn stamps(mut self, stamps: fn(&mut Value, Timestamp)) -> Self {
        self.stamps = Some(stamps);
        self
    }

    pub const fn on_create(mut self, on_create: fn(&mut Value, &Ctx<'_>)) -> Self {
        self.on_create = on_create;
        self
    }

    pub const fn on_update(mut self, on_update: fn(&mut Value, &Value, &Ctx<'_>)) -> Self {
        self.on_update = on_update;
        self
    }

    /// `check` sees every object that is written; `check_update` what may change.
    pub const fn checks(mut self, check: fn(&Value, &mut ErrorList), check_update: fn(&Value, &Value, &mut ErrorList)) -> Self {
        self.check = check;
        self.check_update = check_update;
        self
    }

    /// What only a create may not say.
    pub const fn check_created(mut self, check: fn(&Value, &mut ErrorList)) -> Self {
        self.check_new = check;
        self
    }

    pub const fn warnings_by(mut self, warn: fn(&Value, Option<&Value>) -> Vec<String>) -> Self {
        self.warn = warn;
        self
    }

    pub const fn selectable(mut self, names: &'static [&'static str], fields: for<'v> fn(&'v Value) -> SelectableFields<'v>) -> Self {
        self.selectable_field_names = names;
        self.fields = fields;
        self
    }

    pub const fn table(mut self, columns: &'static [Column], cells: fn(&Value, Timestamp) -> Vec<Value>) -> Self {
        self.columns = columns;
        self.cells = cells;
        self
    }

    pub const fn resets(mut self, fields: &'static [&'static [&'static str]]) -> Self {
        self.resets = fields;
        self
    }

    /// Through `status`, nothing but the status is written.
    pub const fn status_alone(mut self, subresources: &'static [Subresource]) -> Self {
        self.status_alone = true;
        self.subresources(subresources)
    }

    pub const fn graceful(mut self, grace: fn(&Value, Option<i64>) -> i64) -> Self {
        self.grace = Some(grace);
        self
    }
}

impl Strategy {
    pub fn default(&self, object: &mut Value) {
        (self.defaults)(object);
    }

    /// Uid, name and namespace stand in the object already.
    pub fn prepare_create(&self, object: &mut Value, ctx: &Ctx<'_>) {
        if let Some(status) = self.initial_status {
            object::as_map(object).insert("status".into(), initial(status));
        }
        if !matches!(self.generation, Generation::Never) {
            object::meta_mut(object).insert("generation".into(), json!(1));
        }
        (self.on_create)(object, ctx);
    }

    pub fn prepare_update(&self, new: &mut Value, old: &Value, ctx: &Ctx<'_>) {
        if self.initial_status.is_some() {
            copy_field(new, old, "status");
        }
        keep_generation(new, old);
        (self.on_update)(new, old, ctx);
        if self.moves_generation(new, old) {
            bump_generation(new, old);
        }
    }

    pub fn validate_create(&self, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        meta::validate(object, self.namespaced, self.name_rule, &mut errors);
        if self.qualified_finalizers {
            meta::qualified_finalizers(object, &mut errors);
        }
        (self.check)(object, &mut errors);
        (self.check_new)(object, &mut errors);
        errors
    }

    pub fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        meta::validate(new, self.namespaced, self.name_rule, &mut errors);
        meta::validate_update(new, old, &mut errors);
        if self.qualified_finalizers {
            meta::qualified_finalizers(new, &mut errors);
        }
        (self.check)(new, &mut errors);
        (self.check_update)(new, old, &mut errors);
        errors
    }

    pub fn warnings(&self, new: &Value, old: Option<&Value>) -> Vec<String> {
        (self.warn)(new, old)
    }

    pub fn subresource(&self, name: &str) -> Option<&'static Subresource> {
        self.subresources.iter().find(|s| s.name == name)
    }

    pub fn status_strategy(&self) -> Option<&'static Subresource> {
        self.subresource("status")
    }

    pub fn selectable_fields<'v>(&self, object: &'v Value) -> SelectableFields<'v> {
        (self.fields)(object)
    }

    pub fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        (self.cells)(object, now)
    }

    fn moves_generation(&self, new: &Value, old: &Value) -> bool {
        match self.generation {
            Generation::Never => false,
            Generation::Fields(fields) => fields.iter().any(|f| new.get(f) != old.get(f)),
            Generation::When(changed) => changed(new, old),
        }
    }
}

impl Subresource {
    /// An update through the subresource: metadata as the main resource's frame has it, then its own rule.
    pub fn update(&self, new: &mut Value, old: &Value, ctx: &Ctx<'_>) {
        keep_generation(new, old);
        (self.prepare_update)(new, old, ctx);
    }

    pub fn validate(&self, new: &Value, old: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        meta::validate_update(new, old, &mut errors);
        (self.validate_update)(new, old, &mut errors);
        errors
    }
}

fn initial(status: &'static str) -> Value {
    serde_json::from_str(status).unwrap_or_else(|_| Value::Object(Map::new()))
}

/// Clients do not set the generation (API conventions, metadata).
fn keep_generation(new: &mut Value, old: &Value) {
    let generation = old.get("metadata").and_then(|m| m.get("generation")).cloned();
    set_or_remove(object::meta_mut(new), "generation", generation);
}

pub(crate) fn bump_generation(new: &mut Value, old: &Value) {
    let generation = old.get("metadata").and_then(|m| m.get("generation")).and_then(Value::as_i64).unwrap_or(0);
    object::meta_mut(new).insert("generation".into(), json!(generation + 1));
}

/// The field as the old object has it.
pub(crate) fn copy_field(new: &mut Value, old: &Value, field: &str) {
    set_or_remove(object::as_map(new), field, old.get(field).cloned());
}

fn set_or_remove(map: &mut Map<String, Value>, field: &str, value: Option<Value>) {
    match value {
        Some(value) => {
            map.insert(field.into(), value);
        }
        None => {
            map.remove(field);
        }
    }
}

/// A status update: everything that is neither metadata nor status stays; of metadata, labels too (upstream's kinds differ; most keep them).
pub(crate) fn keep_all_but_status(new: &mut Value, old: &Value, _: &Ctx<'_>) {
    const WRITTEN: [&str; 2] = ["status", "metadata"];
    let (new, empty) = (object::as_map(new), Map::new());
    let old = old.as_object().unwrap_or(&empty);
    new.retain(|name, _| WRITTEN.contains(&name.as_str()) || old.contains_key(name));
    for (name, kept) in old.iter().filter(|(name, _)| !WRITTEN.contains(&name.as_str())) {
        // Most writers send it as it is: to compare is cheaper than to copy.
        if new.get(name) != Some(kept) {
            new.insert(name.clone(), kept.clone());
        }
    }
}

/// A status update of the kinds that keep their metadata to themselves (`ResetObjectMetaForStatus`).
pub(crate) fn keep_all_but_bare_status(new: &mut Value, old: &Value, ctx: &Ctx<'_>) {
    keep_all_but_status(new, old, ctx);
    for field in ["labels", "annotations", "finalizers", "ownerReferences", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        let value = old.get("metadata").and_then(|m| m.get(field)).cloned();
        set_or_remove(object::meta_mut(new), field, value);
    }
}

pub(crate) const BARE_STATUS: &[Subresource] =
    &[Subresource { name: "status", prepare_update: keep_all_but_bare_status, validate_update: nothing_on_update }];

pub(crate) fn nothing_on_update(_: &Value, _: &Value, _: &mut ErrorList) {}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    static EXTRA: BTreeMap<String, Vec<String>> = BTreeMap::new();

    pub(crate) fn ctx() -> Ctx<'static> {
        let user = User { name: "alice", uid: "1", groups: &[], extra: &EXTRA };
        Ctx { now: Timestamp::from_second(1_704_067_200).unwrap(), user }
    }

    #[test]
    fn generation_and_status_are_the_servers() {
        static S: Strategy = Strategy::new(true).spec_generation().status("{}");
        let mut created = json!({"metadata": {"name": "a", "generation": 9}, "spec": {}, "status": {"x": 1}});
        S.prepare_create(&mut created, &ctx());
        assert_eq!(created, json!({"metadata": {"name": "a", "generation": 1}, "spec": {}, "status": {}}));
        let mut same = json!({"metadata": {"name": "a", "labels": {"l": "1"}}, "spec": {}, "status": {"x": 1}});
        S.prepare_update(&mut same, &created, &ctx());
        assert_eq!(same["metadata"]["generation"], 1);
        assert_eq!(same["status"], json!({}));
        let mut changed = json!({"metadata": {"name": "a", "generation": 7}, "spec": {"b": 1}});
        S.prepare_update(&mut changed, &created, &ctx());
        assert_eq!(changed["metadata"]["generation"], 2);
    }
}
