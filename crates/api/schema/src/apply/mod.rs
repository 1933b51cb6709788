//! Server-side apply (KEP-555) and the tracking of field managers, by the rules of `structured-merge-diff` and `apimachinery/pkg/util/managedfields`.
//!
//! [`apply`] merges what a manager wants into the live object, takes away what it wanted last time and no longer wants, and refuses what others
//! own, unless forced. [`update`] notes who changed what in any other write. Both are pure: time comes in as text, objects are trees.
//!
//! - [`set`]: sets of fields, and `FieldsV1`, their form on the wire.
//! - [`schema`]: how places in an object merge, from the facts, from the structural schema of a custom resource, or deduced from the values.
//! - [`walk`]: sets of an object, differences of two, merging, removing.
//! - [`fresh`]: what a new object's maker owns, at once in its form on the wire.
//! - [`managers`]: `metadata.managedFields`, decoded.
//!
//! Deliberately absent: conversion between versions. Fields that a manager set in another version of the kind are taken at their paths, which is
//! right wherever the versions agree on them; and migration of sets between changes of a schema from atomic to granular.

mod fresh;
mod managers;
mod schema;
mod set;
mod walk;

use std::borrow::Cow;
use std::sync::LazyLock;

use serde_json::{Value, json};
use tiphys_meta::{ApiError, Cause, Gvk, Reason, object};

use crate::codec::canon;
use crate::facts::Kind;
use managers::{Managed, Manager, Operation, Owned};
use schema::Ty;
use set::Set;
use walk::Comparison;

/// What is known about the objects.
#[derive(Debug, Clone)]
pub enum Schema<'s> {
    /// A built-in kind.
    Kind(&'static Kind),
    /// A custom resource with its structural schema.
    Custom(Gvk, &'s Value),
    /// A custom resource of which nothing is known.
    Deduced(Gvk),
}

/// Who writes, and what.
#[derive(Debug, Clone, Copy)]
pub struct Options<'a> {
    /// The field manager, or what the user agent says; empty is `unknown`.
    pub manager: &'a str,
    /// `status` and the like; empty for the object itself.
    pub subresource: &'a str,
    /// Now, as `metav1.Time` prints it.
    pub now: &'a str,
    /// Fields that the endpoint resets and thus nobody comes to own through it: `[["status"]]` for the object, `[["spec"]]` for its status.
    pub reset: &'a [&'a [&'a str]],
    /// For apply: take over what others own.
    pub force: bool,
}

/// The manager of fields that were there before the first apply.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";
/// Where fields of the oldest updates are gathered.
const ANCIENT: &str = "ancient-changes";
const MAX_UPDATE_MANAGERS: usize = 10;
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    #[error("{0}")]
    BadRequest(String),
    /// Other managers own what is applied. Manager and path of each.
    #[error("{}", conflict_message(.0))]
    Conflicts(Vec<Conflict>),
    /// The configuration does not fit the schema, and the like: upstream answers 500.
    #[error("{0}")]
    Unexpected(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// As errors name it: `"kubectl" using apps/v1`.
    pub manager: String,
    /// `.spec.replicas`.
    pub path: String,
    pub(crate) set: Set,
}

impl From<ApplyError> for ApiError {
    fn from(error: ApplyError) -> ApiError {
        let message = error.to_string();
        match error {
            ApplyError::BadRequest(_) => ApiError::bad_request(message),
            ApplyError::Unexpected(_) => ApiError::new(Reason::Unknown, message),
            ApplyError::Conflicts(conflicts) => {
                let mut error = ApiError::new(Reason::Conflict, message);
                let cause = |c: Conflict| Cause {
                    reason: "FieldManagerConflict".into(),
                    message: format!("conflict with {}", c.manager),
                    field: c.path,
                };
                error.causes = conflicts.into_iter().map(cause).collect();
                error
            }
        }
    }
}

fn conflict_message(conflicts: &[Conflict]) -> String {
    if let [one] = conflicts {
        return format!("Apply failed with 1 conflict: conflict with {}: {}", one.manager, one.path);
    }
    let mut managers: Vec<&str> = conflicts.iter().map(|c| c.manager.as_str()).collect();
    managers.sort_unstable();
    managers.dedup();
    let mut lines = Vec::new();
    for manager in managers {
        lines.push(format!("conflicts with {manager}:"));
        lines.extend(conflicts.iter().filter(|c| c.manager == manager).map(|c| format!("- {}", c.path)));
    }
    format!("Apply failed with {} conflicts: {}", conflicts.len(), lines.join("\n"))
}

impl Schema<'_> {
    fn gvk(&self) -> &Gvk {
        match self {
            Schema::Kind(kind) => &kind.gvk,
            Schema::Custom(gvk, _) | Schema::Deduced(gvk) => gvk,
        }
    }

    fn root(&self) -> Ty<'_> {
        match self {
            Schema::Kind(kind) => Ty::of_type(kind.ty()),
            Schema::Custom(_, schema) => Ty::root_of_custom(schema),
            Schema::Deduced(_) => Ty::Deduced,
        }
    }

    /// An object without content.
    fn empty(&self) -> Value {
        match self {
            Schema::Kind(kind) => Value::Object(canon::zero_struct(kind.ty())),
            Schema::Custom(gvk, _) | Schema::Deduced(gvk) => json!({"apiVersion": gvk.api_version(), "kind": gvk.kind}),
        }
    }
}

/// Notes in `new` who changed what since `live` (`None` on create). Never fails: where the managed fields cannot be read, tracking starts anew.
pub fn update(schema: &Schema<'_>, live: Option<&Value>, new: &mut Value, options: &Options<'_>) {
    if live.is_none() && managed_fields(new).is_none_or(Value::is_null) && created(schema, new, options) {
        return;
    }
    let mut comparison = None;
    if let Some(live) = live
        && keeps_managed_fields(live, new, options)
    {
        // Managed fields are the same on both sides: no part of what is compared.
        if managed_fields(new) != managed_fields(live) {
            restore_managed_fields(new, live);
        }
        let changes = compare(schema, live, new, options);
        if changes.is_empty() {
            // Nothing changed hands: what is known stays as it is written, without being read.
            return;
        }
        if let Some(fields) = refreshed(schema, live, &changes, options) {
            drop(object::meta_mut(new).insert("managedFields".into(), fields));
            return;
        }
        comparison = Some(changes);
    }
    let mut managed = match comparison {
        // What the live object says stands here, too.
        Some(_) => Managed::take(object::meta_mut(new).remove("managedFields")).unwrap_or_default(),
        None => starting_point(live, new, options),
    };
    remove_managed_fields(new);
    let created = live.is_none_or(|l| object::uid(l).is_empty());
    // An object that is not tracked stays so until somebody applies.
    if managed.is_empty() && !created {
        return;
    }
    let live = live.map_or_else(|| Cow::Owned(schema.empty()), Cow::Borrowed);
    let comparison = comparison.unwrap_or_else(|| compare(schema, &live, new, options));
    track(schema, comparison, &mut managed, options, options.manager);
    managed.cap(MAX_UPDATE_MANAGERS, ANCIENT);
    set_managed_fields(new, managed);
}

/// The way of most objects that are made: all of it is its maker's, and is written down as such without a set. Whether it is so simple.
fn created(schema: &Schema<'_>, new: &mut Value, options: &Options<'_>) -> bool {
    remove_managed_fields(new);
    let reset: Option<Vec<&str>> = options.reset.iter().map(|path| if let [field] = path { Some(*field) } else { None }).collect();
    let fields = reset.and_then(|reset| fresh::fields(schema.root(), &schema.empty(), new, &reset));
    let Some(fields) = fields else { return false };
    if !fields.is_empty() {
        let version = schema.gvk().api_version();
        let id = Manager::new(options.manager, Operation::Update, &version, options.subresource);
        let owned = Owned::written(Some(Value::Object(fields)), version, Some(options.now.to_owned()));
        let managed = Managed { entries: [(id, owned)].into() };
        set_managed_fields(new, managed);
    }
    true
}

/// The way of most writes: a manager changes again what it owns already, and nobody else does. Then only its time is new, and no set need be read.
fn refreshed(schema: &Schema<'_>, live: &Value, changes: &Comparison, options: &Options<'_>) -> Option<Value> {
    let gained = strip(&changes.modified.union(&changes.added));
    let id = Manager::new(options.manager, Operation::Update, &schema.gvk().api_version(), options.subresource);
    managers::refresh(managed_fields(live)?, &id, changes, &gained, options.now)
}

/// Whether the writer says nothing of managed fields, or just what the live object says.
fn keeps_managed_fields(live: &Value, new: &Value, options: &Options<'_>) -> bool {
    let given = managed_fields(new);
    !options.subresource.is_empty() || given.is_none_or(Value::is_null) || given == managed_fields(live)
}

fn restore_managed_fields(new: &mut Value, live: &Value) {
    match managed_fields(live) {
        Some(fields) => drop(object::meta_mut(new).insert("managedFields".into(), fields.clone())),
        None => remove_managed_fields(new),
    }
}

/// What was managed before: as the writer says, if it says something, else as the live object says.
fn starting_point(live: Option<&Value>, new: &Value, options: &Options<'_>) -> Managed {
    let of_live = || live.and_then(|l| Managed::decode(managed_fields(l))).unwrap_or_default();
    if !options.subresource.is_empty() {
        return of_live();
    }
    if is_reset(new) {
        return Managed::default();
    }
    match Managed::decode(managed_fields(new)) {
        Some(managed) if !managed.is_empty() => managed,
        _ => of_live(),
    }
}

/// Whether the writer asks for tracking to be dropped: a list that is empty, or holds one empty entry.
fn is_reset(object: &Value) -> bool {
    match managed_fields(object) {
        Some(Value::Array(list)) => match &list[..] {
            [] => true,
            [one] => one.as_object().is_some_and(serde_json::Map::is_empty),
            _ => false,
        },
        _ => false,
    }
}

fn managed_fields(object: &Value) -> Option<&Value> {
    object.get("metadata").and_then(|m| m.get("managedFields"))
}

fn remove_managed_fields(object: &mut Value) {
    if let Some(Value::Object(meta)) = object.get_mut("metadata") {
        meta.remove("managedFields");
    }
}

fn set_managed_fields(object: &mut Value, managed: Managed) {
    let meta = object::meta_mut(object);
    match managed.encode() {
        Some(fields) => drop(meta.insert("managedFields".into(), fields)),
        None => drop(meta.remove("managedFields")),
    }
}

/// Takes what changed from its owners and gives it to the manager.
fn track(schema: &Schema<'_>, comparison: Comparison, managed: &mut Managed, options: &Options<'_>, manager: &str) {
    managed.entries.iter_mut().for_each(|(_, owned)| owned.lose(&comparison));
    managed.drop_empty();
    let mut gained = comparison.modified;
    gained.absorb(comparison.added);
    gained.remove_all(unowned(), false);
    if gained.is_empty() {
        return;
    }
    let version = schema.gvk().api_version();
    let id = Manager::new(manager, Operation::Update, &version, options.subresource);
    let owned = managed.entries.entry(id).or_insert_with(|| Owned::new(Set::default(), version.clone(), None));
    owned.change(|set| set.absorb(gained));
    owned.api_version = version;
    owned.time = Some(options.now.to_owned());
}

fn compare(schema: &Schema<'_>, old: &Value, new: &Value, options: &Options<'_>) -> Comparison {
    let mut comparison = walk::compare(schema.root(), old, new);
    if !options.reset.is_empty() {
        let reset = Set::of_paths(options.reset);
        for set in [&mut comparison.added, &mut comparison.modified, &mut comparison.removed] {
            set.remove_all(&reset, true);
        }
    }
    comparison
}

fn filter(set: Set, reset: &[&[&str]]) -> Set {
    if reset.is_empty() { set } else { set.recursive_difference(&Set::of_paths(reset)) }
}

fn strip(set: &Set) -> Set {
    set.difference(unowned())
}

/// Fields that are nobody's: what an object is, and what the server alone writes.
fn unowned() -> &'static Set {
    static UNOWNED: LazyLock<Set> = LazyLock::new(fields_of_nobody);
    &UNOWNED
}

fn fields_of_nobody() -> Set {
    Set::of_paths(&[
        &["apiVersion"],
        &["kind"],
        &["metadata"],
        &["metadata", "name"],
        &["metadata", "namespace"],
        &["metadata", "creationTimestamp"],
        &["metadata", "selfLink"],
        &["metadata", "uid"],
        &["metadata", "clusterName"],
        &["metadata", "generation"],
        &["metadata", "managedFields"],
        &["metadata", "resourceVersion"],
    ])
}

/// Applies a configuration to the live object (`None`: there is none) and returns the object to write, with its managed fields. It is not canonical
/// and not defaulted: the caller does both.
pub fn apply(schema: &Schema<'_>, live: Option<&Value>, config: &Value, options: &Options<'_>) -> Result<Value, ApplyError> {
    check_config(schema, config)?;
    let managed = match live {
        Some(live) => Managed::decode(managed_fields(live))
            .ok_or_else(|| ApplyError::Unexpected("failed to decode managed fields: operation must be `Apply` or `Update`".into()))?,
        None => Managed::default(),
    };
    let live = live.map_or_else(|| Cow::Owned(schema.empty()), Cow::Borrowed);
    let applied = match apply_once(schema, &live, config, managed.clone(), options) {
        Err(ApplyError::Conflicts(conflicts)) if options.manager == "kubectl" && !options.force => {
            forgive_last_applied(schema, &live, config, managed, options, conflicts)
        }
        other => other,
    };
    let mut object = applied?;
    if options.manager == "kubectl" {
        renew_last_applied(&mut object, config);
    }
    Ok(object)
}

/// Merges a configuration into an object as [`apply`] does, without noting whose it is: mutating admission policies. Lists, maps and structs that merge
/// as a whole may not be in it, for what it does not say of them would be lost.
pub fn merge_config(schema: &Schema<'_>, live: &Value, config: &Value) -> Result<Value, String> {
    let errors = walk::validate(schema.root(), config);
    if !errors.is_empty() {
        let errors = if let [one] = &errors[..] { one.clone() } else { format!("errors:\n  {}", errors.join("\n  ")) };
        return Err(format!("failed to convert patch object to typed object: {errors}"));
    }
    let atomic = walk::atomics(schema.root(), config);
    if !atomic.is_empty() {
        return Err(format!("invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: {}", atomic.join(", ")));
    }
    walk::merge(schema.root(), live, config).map_err(|errors| format!("failed to merge patch: {}", errors.join("\n")))
}

fn check_config(schema: &Schema<'_>, config: &Value) -> Result<(), ApplyError> {
    let text = |field: &str| config.get(field).and_then(Value::as_str).unwrap_or("");
    let gvk = Gvk::from_api_version(text("apiVersion"), text("kind"));
    // As Go prints a kind: the group is there even where it is empty.
    let printed = format!("{}/{}, Kind={}", gvk.group, gvk.version, gvk.kind);
    if gvk != *schema.gvk() {
        return Err(ApplyError::BadRequest(format!("invalid object type: {printed}")));
    }
    if managed_fields(config).is_some_and(|m| !m.is_null()) {
        return Err(ApplyError::BadRequest("metadata.managedFields must be nil".into()));
    }
    let errors = walk::validate(schema.root(), config);
    if errors.is_empty() {
        return Ok(());
    }
    let errors = if let [one] = &errors[..] { one.clone() } else { format!("errors:\n  {}", errors.join("\n  ")) };
    let (namespace, name) = (object::namespace(config), object::name(config));
    Err(ApplyError::Unexpected(format!("failed to create typed patch object ({namespace}/{name}; {printed}): {errors}")))
}

fn apply_once(schema: &Schema<'_>, live: &Value, config: &Value, mut managed: Managed, options: &Options<'_>) -> Result<Value, ApplyError> {
    if managed.is_empty() {
        let all = compare(schema, &schema.empty(), live, options);
        track(schema, all, &mut managed, options, BEFORE_FIRST_APPLY);
    }
    let ty = schema.root();
    let unexpected = |what: &str, errors: Vec<String>| ApplyError::Unexpected(format!("failed to {what}: {}", errors.join("\n")));
    let merged = walk::merge(ty, live, config).map_err(|e| unexpected("merge config", e))?;
    let version = schema.gvk().api_version();
    let id = Manager::new(options.manager, Operation::Apply, "", options.subresource);
    let last = managed.entries.get(&id).cloned();
    let wanted = filter(walk::field_set(ty, config), options.reset);
    let time = last.as_ref().and_then(|l| l.time.clone());
    managed.entries.insert(id.clone(), Owned::new(wanted, version, time));
    let merged = match &last {
        Some(last) if !last.set().is_empty() => prune(ty, merged, &managed, last.set()),
        _ => merged,
    };
    let comparison = compare(schema, live, &merged, options);
    let conflicts = conflicts(&managed, &id, &comparison);
    if !options.force && !conflicts.is_empty() {
        return Err(ApplyError::Conflicts(conflicts));
    }
    managed.entries.iter_mut().filter(|(other, _)| **other != id).for_each(|(_, owned)| owned.lose(&comparison));
    if let Some(owned) = managed.entries.get_mut(&id) {
        owned.change(|set| *set = strip(set));
    }
    managed.drop_empty();
    let mut object = merged;
    let same = same_but_managed_fields(live, &object);
    if !same && let Some(owned) = managed.entries.get_mut(&id) {
        owned.time = Some(options.now.to_owned());
    }
    set_managed_fields(&mut object, managed);
    Ok(object)
}

fn same_but_managed_fields(live: &Value, new: &Value) -> bool {
    let bare = |v: &Value| {
        let mut v = v.clone();
        remove_managed_fields(&mut v);
        v
    };
    bare(live) == bare(new)
}

fn conflicts(managed: &Managed, applier: &Manager, comparison: &Comparison) -> Vec<Conflict> {
    let changed = comparison.modified.union(&comparison.added);
    let mut all = Vec::new();
    for (id, owned) in managed.entries.iter().filter(|(id, _)| *id != applier) {
        for path in owned.set().intersection(&changed).paths() {
            let text = path.iter().map(ToString::to_string).collect();
            all.push(Conflict { manager: id.printed(), path: text, set: Set::of_path(&path) });
        }
    }
    all
}

/// Removes what the applier applied last time, did not apply this time, and nobody else wants.
fn prune(ty: Ty<'_>, merged: Value, managed: &Managed, last: &Set) -> Value {
    let named = |set: &Set| set.with_named_fields(ty);
    let last = named(last);
    let pruned = walk::remove(ty, &merged, &last);
    // Back comes what anybody owns, the applier's new configuration included …
    let owned = managed.entries.values().fold(Set::default(), |all, o| all.union(o.set()));
    let merged_set = named(&walk::field_set(ty, &merged));
    let kept = named(&walk::field_set(ty, &pruned)).union(&named(&owned));
    let pruned = walk::remove(ty, &merged, &merged_set.difference(&kept));
    // … and what the applier did not own last time, either.
    let pruned_set = named(&walk::field_set(ty, &pruned));
    walk::remove(ty, &merged, &merged_set.difference(&pruned_set).intersection(&last))
}

/// Who moves from client-side to server-side apply need not force what its own last configuration says already.
fn forgive_last_applied(
    schema: &Schema<'_>,
    live: &Value,
    config: &Value,
    managed: Managed,
    options: &Options<'_>,
    conflicts: Vec<Conflict>,
) -> Result<Value, ApplyError> {
    let Some(allowed) = allowed_conflicts(schema, live) else { return Err(ApplyError::Conflicts(conflicts)) };
    let left: Vec<Conflict> = conflicts.into_iter().filter(|c| !c.set.difference(&allowed).is_empty()).collect();
    if !left.is_empty() {
        return Err(ApplyError::Conflicts(left));
    }
    apply_once(schema, live, config, managed, &Options { force: true, ..*options })
}

/// Fields of the last client-side configuration that nobody has changed since.
fn allowed_conflicts(schema: &Schema<'_>, live: &Value) -> Option<Set> {
    let (_, text) = object::annotations(live).find(|(name, _)| *name == LAST_APPLIED)?;
    let last: Value = serde_json::from_str(text).ok()?;
    let same_version = last.get("apiVersion").and_then(Value::as_str) == Some(&schema.gvk().api_version());
    if !same_version || !walk::validate(schema.root(), &last).is_empty() {
        return None;
    }
    let comparison = walk::compare(schema.root(), &last, live);
    let set = walk::field_set(schema.root(), &last);
    Some(set.difference(&comparison.modified).difference(&comparison.added).difference(&comparison.removed))
}

/// An object with the annotation of client-side apply keeps one that is true.
fn renew_last_applied(object: &mut Value, config: &Value) {
    if !object::annotations(object).any(|(name, value)| name == LAST_APPLIED && !value.is_empty()) {
        return;
    }
    let mut config = config.clone();
    if let Some(Value::Object(annotations)) = config.get_mut("metadata").and_then(|m| m.get_mut("annotations")) {
        annotations.remove(LAST_APPLIED);
    }
    let text = String::from_utf8(crate::codec::json::encode(&config)).unwrap_or_default();
    if let Some(Value::Object(annotations)) = object.get_mut("metadata").and_then(|m| m.get_mut("annotations")) {
        annotations.insert(LAST_APPLIED.into(), Value::String(text));
    }
}

/// A write that changes nothing but the times of managed fields is none: they go back to what they were, so that the caller sees no change.
pub fn forget_new_times(old: &Value, new: &mut Value) {
    let (Some(old_fields), Some(new_fields)) = (managed_fields(old), managed_fields(new)) else { return };
    if old_fields == new_fields || !same_but_managed_fields(old, new) || !same_but_times(old_fields, new_fields) {
        return;
    }
    let fields = old_fields.clone();
    object::meta_mut(new).insert("managedFields".into(), fields);
}

fn same_but_times(old: &Value, new: &Value) -> bool {
    let (Some(old), Some(new)) = (old.as_array(), new.as_array()) else { return false };
    let timeless = |list: &[Value]| {
        let mut list: Vec<Value> = list.to_vec();
        list.iter_mut().filter_map(Value::as_object_mut).for_each(|e| drop(e.remove("time")));
        // Entries are ordered by their times, too.
        list.sort_by_key(ToString::to_string);
        list
    };
    timeless(old) == timeless(new)
}
