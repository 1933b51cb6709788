//! What a definition's schema means for one object (upstream's `customResourceStrategy`).

use serde_json::{Value, json};
use tiphys_cel::crd_rules;
use tiphys_kinds::{Ctx, Subresource};
use tiphys_meta::{ApiError, ErrorList, ErrorType, FieldError, names, object};
use tiphys_schema::structural;
use tiphys_schema::structural::embedded::{self, Misfit};

use super::Version;

/// The status subresource: only the status is written, and who wrote it.
pub(crate) static STATUS: Subresource = Subresource { name: "status", prepare_update: keep_all_but_status, validate_update: |_, _, _| {} };

fn keep_all_but_status(new: &mut Value, old: &Value, _: &Ctx<'_>) {
    let status = new.get_mut("status").map(Value::take);
    let managers = object::meta_mut(new).remove("managedFields");
    *new = old.clone();
    set_or_remove(object::as_map(new), "status", status);
    set_or_remove(object::meta_mut(new), "managedFields", managers);
}

fn set_or_remove(map: &mut serde_json::Map<String, Value>, field: &str, value: Option<Value>) {
    match value {
        Some(value) => drop(map.insert(field.into(), value)),
        None => drop(map.remove(field)),
    }
}

impl Version {
    /// Brings an object into the form of the schema. Returns what the schema does not know, in the words of strict decoding.
    pub(crate) fn coerce(&self, tree: &mut Value, misfit: Misfit) -> Result<Vec<String>, ApiError> {
        let mut unknown = structural::unknown_fields(&structural::prune(Some(&self.schema), tree));
        structural::drop_nulls(&self.schema, tree);
        let embedded = embedded::coerce(&self.schema, tree, misfit).map_err(|e| ApiError::bad_request(e.to_string()))?;
        unknown.extend(embedded);
        Ok(unknown)
    }

    pub(crate) fn default(&self, tree: &mut Value) {
        structural::default(&self.schema, tree);
    }

    pub(crate) fn prepare_create(&self, tree: &mut Value) {
        if self.status {
            object::as_map(tree).remove("status");
        }
        object::meta_mut(tree).insert("generation".into(), json!(1));
    }

    pub(crate) fn prepare_update(&self, new: &mut Value, old: &Value) {
        if self.status {
            set_or_remove(object::as_map(new), "status", old.get("status").cloned());
        }
        let generation = old["metadata"]["generation"].as_i64().unwrap_or(0);
        let moved = i64::from(differs(new, old));
        object::meta_mut(new).insert("generation".into(), json!(generation + moved));
    }

    pub(crate) fn validate(&self, new: &Value, old: Option<&Value>) -> ErrorList {
        let mut errors = self.type_errors(new);
        if !errors.is_empty() {
            return errors;
        }
        errors.append(structural::validate_at(&self.schema, new, old, ""));
        errors.append(self.scale_errors(new, true));
        errors.append(embedded::validate(&self.schema, new));
        errors.append(self.item_errors(new, old));
        self.check_rules(new, old, &mut errors);
        errors
    }

    pub(crate) fn validate_status(&self, new: &Value, old: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        let schema = self.schema.get("properties").and_then(|p| p.get("status"));
        if let (Some(status), Some(schema)) = (new.get("status"), schema) {
            errors.append(structural::validate_at(schema, status, old.get("status"), "status"));
        }
        errors.append(self.scale_errors(new, false));
        errors.append(self.item_errors(new, Some(old)));
        self.check_rules(new, Some(old), &mut errors);
        errors
    }

    /// The rules in CEL (`x-kubernetes-validations`) are only looked at where the object is of the right shape.
    fn check_rules(&self, new: &Value, old: Option<&Value>, errors: &mut ErrorList) {
        let Some(rules) = self.rules() else { return };
        let blocks = |kind: ErrorType| {
            use ErrorType::{NotSupported, Required, TooLong, TooMany, TypeInvalid};
            matches!(kind, NotSupported | Required | TooLong | TooMany | TypeInvalid)
        };
        if errors.iter().any(|e| blocks(e.kind)) {
            let detail =
                "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation";
            errors.push(FieldError { kind: ErrorType::Invalid, field: "<nil>".into(), value: Some(Value::Null), detail: detail.into() });
        } else {
            errors.append(crd_rules::validate(rules, new, old, &tiphys_meta::Path::ROOT).errors);
        }
    }

    /// Lists that held duplicates before may go on holding some.
    fn item_errors(&self, new: &Value, old: Option<&Value>) -> ErrorList {
        let errors = structural::validate_items(&self.schema, new);
        let before = old.is_some_and(|old| !errors.is_empty() && !structural::validate_items(&self.schema, old).is_empty());
        if before { ErrorList::new() } else { errors }
    }

    fn type_errors(&self, tree: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        for (field, wanted) in [("kind", &*self.gvk.kind), ("apiVersion", self.api_version.as_str())] {
            let given = tree.get(field).and_then(Value::as_str).unwrap_or("");
            if given != wanted {
                errors.invalid(&tiphys_meta::Path::new(field), given, format!("must be {wanted}"));
            }
        }
        errors
    }

    /// Finalizers that are no names of a domain.
    pub(crate) fn warnings(&self, new: &Value, old: Option<&Value>) -> Vec<String> {
        let finalizers = |o: &Value| -> Vec<String> {
            o["metadata"]["finalizers"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let known = old.map(finalizers).unwrap_or_default();
        let mut added: Vec<String> = finalizers(new).into_iter().filter(|f| !known.contains(f)).collect();
        added.sort();
        added.iter().flat_map(|f| finalizer_warnings(f)).collect()
    }
}

fn finalizer_warnings(finalizer: &str) -> Vec<String> {
    const STANDARD: [&str; 3] = ["orphan", "foregroundDeletion", "kubernetes"];
    let at = format!("metadata.finalizers: {finalizer:?}: ");
    let mut warnings: Vec<String> = names::qualified_name(finalizer).into_iter().map(|why| format!("{at}{why}")).collect();
    if !finalizer.contains('/') && !STANDARD.contains(&finalizer) {
        let path = if finalizer.contains('.') { " including a path (/)" } else { "" };
        let why = format!("prefer a domain-qualified finalizer name{path} to avoid accidental conflicts with other finalizer writers");
        warnings.push(format!("{at}{why}"));
    }
    warnings
}

/// Anything but metadata.
fn differs(new: &Value, old: &Value) -> bool {
    let rest = |o: &Value| -> Vec<(String, Value)> {
        let fields = o.as_object().into_iter().flatten().filter(|(name, _)| *name != "metadata");
        fields.map(|(name, value)| (name.clone(), value.clone())).collect()
    };
    rest(new) != rest(old)
}
