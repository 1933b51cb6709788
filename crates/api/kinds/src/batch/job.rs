//! Job: pods that run until enough of them have succeeded. Its selector is made from its uid, so that no two Jobs take each other's pods.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tiphys_meta::{ErrorList, Path, duration, names, object, time};
use tiphys_types::jiff::Timestamp;

use crate::core::pod;
use crate::fields::selectable;
use crate::meta::immutable;
use crate::strategy::{Column, Ctx, Strategy, Subresource, keep_all_but_status};
use crate::table::{AGE, NAME, age, column, containers, selector, wide};
use crate::tree::{array, array_mut, at, child, int, is_true, map_at, one_of, present, remove, said, set_absent, set_default, text};
use crate::workloads::{self, SPEC};

pub(crate) static STRATEGY: Strategy = Strategy::new(true)
    .spec_generation()
    .status("{}")
    .defaults(defaults)
    .on_create(on_create)
    .subresources(&[Subresource { name: "status", prepare_update: keep_all_but_status, validate_update: check_status }])
    .checks(|_, _| {}, check_update)
    .check_created(check_created)
    .warnings_by(workloads::warnings)
    .selectable(select::NAMES, select_fields)
    .table(COLUMNS, cells);

mod select {
    super::selectable!("metadata.name" = "", "metadata.namespace" = "", "status.successful" = "0");
}

const NAME_LABELS: [&str; 2] = ["job-name", "batch.kubernetes.io/job-name"];
const UID_LABELS: [&str; 2] = ["controller-uid", "batch.kubernetes.io/controller-uid"];
const MAX_INDEXED: i64 = 100_000;

fn select_fields(o: &Value) -> crate::fields::Fields<'_> {
    let mut all = select::of(o);
    all.retain(|(name, _)| *name != "status.successful");
    all.push(("status.successful", int(o, "status.succeeded").to_string().into()));
    all
}

fn defaults(o: &mut Value) {
    labels_from_template(o);
    let spec = child(o, "spec");
    if at(spec, "completions").is_none() && at(spec, "parallelism").is_none() {
        set_absent(spec, "completions", 1);
    }
    set_absent(spec, "parallelism", 1);
    let limit = if at(spec, "backoffLimitPerIndex").is_some() { i32::MAX } else { 6 };
    set_absent(spec, "backoffLimit", limit);
    set_absent(spec, "completionMode", "NonIndexed");
    set_absent(spec, "suspend", false);
    let replacement = if at(spec, "podFailurePolicy").is_some() { "Failed" } else { "TerminatingOrFailed" };
    set_absent(spec, "podReplacementPolicy", replacement);
    set_absent(spec, "manualSelector", false);
    failure_policy_defaults(spec);
    pod::defaults::template_of(o);
}

/// A Job without labels has those of its template.
fn labels_from_template(o: &mut Value) {
    let labels = map_at(o, "spec.template.metadata.labels").filter(|l| !l.is_empty()).cloned();
    if let Some(labels) = labels
        && map_at(o, "metadata.labels").is_none_or(serde_json::Map::is_empty)
    {
        object::meta_mut(o).insert("labels".into(), Value::Object(labels));
    }
}

pub(super) fn failure_policy_defaults(spec: &mut Value) {
    let Some(policy) = present(spec, "podFailurePolicy") else { return };
    for rule in array_mut(policy, "rules") {
        for pattern in array_mut(rule, "onPodConditions") {
            set_default(pattern, "status", "True");
        }
    }
}

fn on_create(o: &mut Value, _: &Ctx<'_>) {
    if is_true(o, "spec.manualSelector") {
        return;
    }
    let (name, uid) = (object::name(o).to_owned(), object::uid(o).to_owned());
    // Labels that came from the template are the template's own map upstream: what is added to the one is in the other.
    let shared = map_at(o, "metadata.labels").is_some_and(|own| Some(own) == map_at(o, "spec.template.metadata.labels"));
    let spec = child(o, "spec");
    let labels = object::as_map(child(child(child(spec, "template"), "metadata"), "labels"));
    for (keys, value) in [(NAME_LABELS, &name), (UID_LABELS, &uid)] {
        for key in keys {
            labels.entry(key).or_insert_with(|| json!(value));
        }
    }
    let selector = object::as_map(child(child(spec, "selector"), "matchLabels"));
    selector.entry(UID_LABELS[1]).or_insert_with(|| json!(uid));
    if shared {
        remove(child(o, "metadata"), "labels");
    }
    labels_from_template(o);
}

fn check_created(o: &Value, errors: &mut ErrorList) {
    check(o, true, errors);
}

/// For `prefixed` see [`check_generated`].
fn check(o: &Value, prefixed: bool, errors: &mut ErrorList) {
    check_generated(o, prefixed, errors);
    let empty = json!({});
    let spec = o.get("spec").unwrap_or(&empty);
    check_spec(spec, &SPEC, errors);
    let selector_path = SPEC.child("selector");
    match at(spec, "selector") {
        None => errors.required(&selector_path, ""),
        Some(selector) => crate::selectors::check(Some(selector), &selector_path, errors),
    }
    // Of a selector that cannot be read its own errors are enough.
    let matches = at(spec, "selector")
        .map(tiphys_types::selector::from_value)
        .is_some_and(|parsed| parsed.map_or(true, |parsed| parsed.matches_object(workloads::template_of(o))));
    if !matches {
        let labels = at(spec, "template.metadata.labels").cloned().unwrap_or_default();
        errors.invalid(&SPEC.child("template.metadata.labels"), labels, "`selector` does not match template `labels`");
    }
}

/// A generated selector names this Job and no other. `prefixed`: in labels of Kubernetes' own domain too, which Jobs had not always.
fn check_generated(o: &Value, prefixed: bool, errors: &mut ErrorList) {
    let (name, uid) = (object::name(o), object::uid(o));
    if is_true(o, "spec.manualSelector") || at(o, "spec.selector").is_none() {
        return;
    }
    let (labels, path) = (map_at(o, "spec.template.metadata.labels"), SPEC.child("template.metadata.labels"));
    for (key, value) in [(UID_LABELS[0], uid), (NAME_LABELS[0], name), (UID_LABELS[1], uid), (NAME_LABELS[1], name)] {
        if !prefixed && key.contains('/') {
            continue;
        }
        match labels.and_then(|l| l.get(key)).and_then(Value::as_str) {
            None => errors.required(&path.key(key), format!("must be '{value}'")),
            Some(have) if have != value => {
                let shown = labels.cloned().map_or(Value::Null, Value::Object);
                errors.invalid(&path.key(key), shown, format!("must be '{value}'"));
            }
            Some(_) => {}
        }
    }
    let generated = |key: &str| match key {
        key if UID_LABELS.contains(&key) => Some(uid),
        key if NAME_LABELS.contains(&key) => Some(name),
        _ => None,
    };
    if let Some(selector) = at(o, "spec.selector")
        && tiphys_types::selector::from_value(selector).is_ok_and(|s| !s.matches(generated))
    {
        errors.invalid(&SPEC.child("selector"), selector.clone(), "`selector` not auto-generated");
    }
}

pub(super) fn check_spec(spec: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    for field in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ] {
        workloads::not_negative(spec, field, &path.child(field), errors);
    }
    if at(spec, "maxFailedIndexes").is_some() && at(spec, "backoffLimitPerIndex").is_none() {
        errors.required(&path.child("backoffLimitPerIndex"), "when maxFailedIndexes is specified");
    }
    if let Some(manager) = at(spec, "managedBy").and_then(Value::as_str) {
        domain_path(manager, &path.child("managedBy"), errors);
    }
    check_mode(spec, path, errors);
    if at(spec, "podFailurePolicy").is_some() {
        check_failure_policy(spec, &path.child("podFailurePolicy"), errors);
    }
    if let Some(policy) = at(spec, "successPolicy") {
        check_success_policy(spec, policy, &path.child("successPolicy"), errors);
    }
    check_replacement(spec, &path.child("podReplacementPolicy"), errors);
    let empty = json!({});
    let template = at(spec, "template").unwrap_or(&empty);
    pod::validation::template(template, &path.child("template"), errors);
    let restart = path.child("template.spec.restartPolicy");
    match text(template, "spec.restartPolicy") {
        "" | "Always" => errors.required(&restart, "valid values: \"OnFailure\", \"Never\""),
        "Never" => {}
        "OnFailure" if at(spec, "podFailurePolicy").is_none() => {}
        "OnFailure" => errors.invalid(&restart, "OnFailure", "only \"Never\" is supported when podFailurePolicy is specified"),
        other => errors.not_supported(&restart, other, &["OnFailure", "Never"]),
    }
}

fn domain_path(value: &str, path: &Path<'_>, errors: &mut ErrorList) {
    match value.split_once('/') {
        Some((domain, rest)) if !domain.is_empty() && !rest.is_empty() => {
            errors.invalid_all(path, domain, names::dns1123_subdomain(domain));
        }
        _ if value.is_empty() => errors.required(path, ""),
        _ => errors.invalid(path, value, "must be a domain-prefixed path (such as \"acme.io/foo\")"),
    }
    if value.len() > 63 {
        errors.too_long(path, 63);
    }
}

fn check_mode(spec: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let number = |field: &str| at(spec, field).and_then(Value::as_i64);
    match said(spec, "completionMode") {
        Some("Indexed") => {
            if number("completions").is_none() {
                errors.required(&path.child("completions"), "when completion mode is Indexed");
            }
            if let Some(parallelism) = number("parallelism").filter(|p| *p > MAX_INDEXED) {
                let why = format!("must be less than or equal to {MAX_INDEXED} when completion mode is Indexed");
                errors.invalid(&path.child("parallelism"), parallelism, why);
            }
            if let (Some(failed), Some(completions)) = (number("maxFailedIndexes"), number("completions"))
                && failed > completions
            {
                errors.invalid(&path.child("maxFailedIndexes"), failed, "must be less than or equal to completions");
            }
            if let Some(failed) = number("maxFailedIndexes").filter(|f| *f > MAX_INDEXED) {
                errors.invalid(&path.child("maxFailedIndexes"), failed, format!("must be less than or equal to {MAX_INDEXED}"));
            }
        }
        None | Some("NonIndexed") => {
            for field in ["backoffLimitPerIndex", "maxFailedIndexes"] {
                if let Some(value) = number(field) {
                    errors.invalid(&path.child(field), value, "requires indexed completion mode");
                }
            }
        }
        Some(other) => errors.not_supported(&path.child("completionMode"), other, &["NonIndexed", "Indexed"]),
    }
}

fn check_replacement(spec: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let known: &[&str] = if at(spec, "podFailurePolicy").is_some() { &["Failed"] } else { &["Failed", "TerminatingOrFailed"] };
    one_of(at(spec, "podReplacementPolicy"), known, path, errors);
}

const ACTIONS: &[&str] = &["Count", "FailIndex", "FailJob", "Ignore"];

fn check_failure_policy(spec: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let rules = array(spec, "podFailurePolicy.rules");
    let list = path.child("rules");
    if rules.len() > 20 {
        errors.too_many(&list, rules.len(), 20);
    }
    for (i, rule) in rules.iter().enumerate() {
        let path = list.index(i);
        let action = text(rule, "action");
        match action {
            "" => errors.required(&path.child("action"), "valid values: [\"Count\" \"FailIndex\" \"FailJob\" \"Ignore\"]"),
            "FailIndex" if at(spec, "backoffLimitPerIndex").is_none() => {
                errors.invalid(&path.child("action"), action, "requires the backoffLimitPerIndex to be set");
            }
            known if ACTIONS.contains(&known) => {}
            other => errors.not_supported(&path.child("action"), other, ACTIONS),
        }
        let (codes, conditions) = (at(rule, "onExitCodes"), array(rule, "onPodConditions"));
        if let Some(codes) = codes {
            check_exit_codes(codes, spec, &path.child("onExitCodes"), errors);
        }
        for (j, pattern) in conditions.iter().enumerate() {
            let list = path.child("onPodConditions");
            let path = list.index(j);
            let (kind, status) = (text(pattern, "type"), text(pattern, "status"));
            errors.invalid_all(&path.child("type"), kind, names::qualified_name(kind));
            if !matches!(status, "True" | "False" | "Unknown") {
                errors.not_supported(&path.child("status"), status, &["False", "True", "Unknown"]);
            }
        }
        match (codes.is_some(), conditions.is_empty()) {
            (true, false) => errors.invalid_unshown(&path, "specifying both OnExitCodes and OnPodConditions is not supported"),
            (false, true) => errors.invalid_unshown(&path, "specifying one of OnExitCodes and OnPodConditions is required"),
            _ => {}
        }
    }
}

fn check_exit_codes(codes: &Value, spec: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let operator = text(codes, "operator");
    match operator {
        "In" | "NotIn" => {}
        "" => errors.required(&path.child("operator"), "valid values: [\"In\" \"NotIn\"]"),
        other => errors.not_supported(&path.child("operator"), other, &["In", "NotIn"]),
    }
    if let Some(name) = at(codes, "containerName").and_then(Value::as_str) {
        let lists = ["template.spec.containers", "template.spec.initContainers"];
        if !lists.iter().any(|l| array(spec, l).iter().any(|c| text(c, "name") == name)) {
            let why = "must be one of the container or initContainer names in the pod template";
            errors.invalid(&path.child("containerName"), name, why);
        }
    }
    let values: Vec<i64> = array(codes, "values").iter().filter_map(Value::as_i64).collect();
    let list = path.child("values");
    if values.is_empty() {
        errors.invalid(&list, json!(values), "at least one value is required");
    } else if values.len() > 255 {
        errors.too_many(&list, values.len(), 255);
    }
    let mut seen = BTreeSet::new();
    for (i, value) in values.iter().enumerate() {
        if operator == "In" && *value == 0 {
            errors.invalid(&list.index(i), 0, "must not be 0 for the In operator");
        }
        if !seen.insert(value) {
            errors.duplicate(&list.index(i), *value);
        }
    }
    if !values.is_sorted() {
        errors.invalid(&list, json!(values), "must be ordered");
    }
}

fn check_success_policy(spec: &Value, policy: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    if text(spec, "completionMode") != "Indexed" {
        errors.invalid(path, policy.clone(), "requires indexed completion mode");
        return;
    }
    let (rules, list) = (array(policy, "rules"), path.child("rules"));
    if rules.is_empty() {
        errors.required(&list, "at least one rules must be specified when the successPolicy is specified");
    }
    if rules.len() > 20 {
        errors.too_many(&list, rules.len(), 20);
    }
    let completions = int(spec, "completions");
    for (i, rule) in rules.iter().enumerate() {
        let path = list.index(i);
        let (count, indexes) = (at(rule, "succeededCount").and_then(Value::as_i64), at(rule, "succeededIndexes").and_then(Value::as_str));
        if count.is_none() && indexes.is_none() {
            errors.required(&path, "at least one of succeededCount or succeededIndexes must be specified");
        }
        let total = indexes.map(|text| (text, index_total(text, completions)));
        if let Some((text, Err(why))) = &total {
            errors.invalid(&path.child("succeededIndexes"), *text, format!("error parsing succeededIndexes: {why}"));
        }
        let Some(count) = count else { continue };
        if count < 0 {
            errors.invalid(&path.child("succeededCount"), count, "must be greater than or equal to 0");
        }
        if count > completions {
            let why = format!("must be less than or equal to {completions} (the number of specified completions)");
            errors.invalid(&path.child("succeededCount"), count, why);
        }
        if let Some(total) = total.map(|(_, total)| total.unwrap_or(0)).filter(|total| count > *total) {
            let why = format!("must be less than or equal to {total} (the number of indexes in the specified succeededIndexes field)");
            errors.invalid(&path.child("succeededCount"), count, why);
        }
    }
}

/// How many indexes `1,3-5` names; ascending, below `completions`.
fn index_total(text: &str, completions: i64) -> Result<i64, String> {
    let (mut total, mut last) = (0, -1);
    if text.is_empty() {
        return Ok(0);
    }
    for part in text.split(',') {
        let (start, end) = part.split_once('-').unwrap_or((part, part));
        if end.contains('-') {
            return Err(format!(
                "the fragment \"{part}\" violates the requirement that an index interval can have at most two parts separated by '-'"
            ));
        }
        let number = |t: &str| {
            let number = t.parse::<i64>().map_err(|_| format!("cannot convert string to integer for index: \"{t}\""))?;
            if number >= completions { Err(format!("too large index: \"{t}\"")) } else { Ok(number) }
        };
        let (start, end) = (number(start)?, number(end)?);
        if part.contains('-') && start >= end {
            return Err(format!("non-increasing order, previous: {start}, current: {end}"));
        }
        if start <= last {
            return Err(format!("non-increasing order, previous: {last}, current: {start}"));
        }
        total += end - start + 1;
        last = end;
    }
    Ok(total)
}

fn check_update(new: &Value, old: &Value, errors: &mut ErrorList) {
    let labels = map_at(old, "spec.template.metadata.labels");
    let prefixed = [UID_LABELS[1], NAME_LABELS[1]].iter().all(|key| labels.is_some_and(|l| l.contains_key(*key)));
    check(new, prefixed, errors);
    check_completions(new, old, errors);
    for field in ["selector", "completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"] {
        let get = |o: &Value| o.get("spec").and_then(|s| s.get(field)).cloned();
        immutable(get(new).as_ref(), get(old).as_ref(), &SPEC.child(field), errors);
    }
    check_template_update(new, old, errors);
}

fn check_completions(new: &Value, old: &Value, errors: &mut ErrorList) {
    let path = SPEC.child("completions");
    let (after, before) = (at(new, "spec.completions"), at(old, "spec.completions"));
    if text(new, "spec.completionMode") != "Indexed" {
        immutable(after, before, &path, errors);
    } else if after != before && after != at(new, "spec.parallelism") {
        errors.invalid(&path, after.cloned().unwrap_or_default(), "can only be modified in tandem with spec.parallelism");
    }
}

/// While a Job is suspended and has not run, where its pods may go and what they get can be changed (KEP-2926, KEP-5440).
fn check_template_update(new: &Value, old: &Value, errors: &mut ErrorList) {
    let template = |o: &Value| at(o, "spec.template").cloned().unwrap_or(json!({}));
    let (mut before, mut after) = (template(old), template(new));
    let suspended_condition = array(old, "status.conditions").iter().any(|c| text(c, "type") == "Suspended" && text(c, "status") == "True");
    let open =
        is_true(old, "spec.suspend") && (at(old, "status.startTime").is_none() || suspended_condition) && int(old, "status.active") == 0;
    if open {
        for template in [&mut before, &mut after] {
            for field in ["annotations", "labels"] {
                if let Some(meta) = present(template, "metadata") {
                    remove(meta, field);
                }
            }
            let Some(spec) = present(template, "spec") else { continue };
            for field in ["nodeSelector", "tolerations", "schedulingGates", "affinity"] {
                remove(spec, field);
            }
            for list in ["containers", "initContainers"] {
                array_mut(spec, list).iter_mut().for_each(|c| remove(c, "resources"));
            }
        }
    }
    if before != after {
        let field = if open { "template.spec" } else { "template" };
        errors.invalid(&SPEC.child(field), at(new, "spec.template").cloned().unwrap_or_default(), crate::meta::FIELD_IMMUTABLE);
    }
}

fn has_condition(o: &Value, kind: &str) -> bool {
    array(o, "status.conditions").iter().any(|c| text(c, "type") == kind && text(c, "status") == "True")
}

fn check_status(new: &Value, old: &Value, errors: &mut ErrorList) {
    let status = Path::new("status");
    for field in ["active", "succeeded", "failed", "ready", "terminating"] {
        workloads::not_negative(new, &format!("status.{field}"), &status.child(field), errors);
    }
    let conditions = status.child("conditions");
    for kind in ["Complete", "Failed", "FailureTarget"] {
        if has_condition(old, kind) && !has_condition(new, kind) {
            errors.invalid_unshown(&conditions, format!("cannot disable the terminal {kind}=True condition"));
        }
    }
    let (complete, failed) = (has_condition(new, "Complete"), has_condition(new, "Failed"));
    let (met, target) = (has_condition(new, "SuccessCriteriaMet"), has_condition(new, "FailureTarget"));
    for (bad, why) in [
        (complete && failed, "cannot set Complete=True and Failed=true conditions"),
        (complete && target, "cannot set Complete=True and FailureTarget=true conditions"),
        (met && failed, "cannot set SuccessCriteriaMet=True and Failed=true conditions"),
        (met && target, "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions"),
        (failed && !has_condition(old, "Failed") && !target, "cannot set Failed=True condition without the FailureTarget=true condition"),
    ] {
        if bad {
            errors.invalid_unshown(&conditions, why);
        }
    }
    check_times(new, old, complete, &status, errors);
    if complete && !has_condition(old, "Complete") && !met {
        errors.invalid_unshown(&conditions, "cannot set Complete=True condition without the SuccessCriteriaMet=true condition");
    }
    let finished = |o: &Value| has_condition(o, "Complete") || has_condition(o, "Failed");
    let never_ran = is_true(new, "spec.suspend") && int(new, "spec.completions") == 0;
    if finished(new) && !finished(old) && at(new, "status.startTime").is_none() && !never_ran {
        errors.required(&status.child("startTime"), "startTime is required for finished job");
    }
    if finished(new) && !finished(old) && int(new, "status.active") > 0 {
        errors.invalid(&status.child("active"), int(new, "status.active"), "active>0 is invalid for finished job");
    }
    if int(new, "status.failed") < int(old, "status.failed") {
        errors.invalid(&status.child("failed"), int(new, "status.failed"), "cannot decrease the failed counter");
    }
}

fn check_times(new: &Value, old: &Value, complete: bool, status: &Path<'_>, errors: &mut ErrorList) {
    let path = status.child("completionTime");
    let time = |o: &Value| at(o, "status.completionTime").cloned();
    match (time(new), time(old)) {
        (Some(after), Some(before)) if after != before => errors.invalid(&path, after, crate::meta::FIELD_IMMUTABLE),
        (Some(after), _) if !complete => {
            errors.invalid(&path, after, "cannot set completionTime when there is no Complete=True condition");
        }
        (None, _) if complete => errors.required(&path, "completionTime is required for Complete jobs"),
        _ => {}
    }
    let (ready, active) = (int(new, "status.ready"), int(new, "status.active"));
    if at(new, "status.ready").is_some() && ready > active {
        errors.invalid(&status.child("ready"), ready, "cannot set more ready pods than active");
    }
}

const COLUMNS: &[Column] =
    &[NAME, column("Status"), column("Completions"), column("Duration"), AGE, wide("Containers"), wide("Images"), wide("Selector")];

fn cells(o: &Value, now: Timestamp) -> Vec<Value> {
    let succeeded = int(o, "status.succeeded");
    let completions = match at(o, "spec.completions").and_then(Value::as_i64) {
        Some(completions) => format!("{succeeded}/{completions}"),
        None if int(o, "spec.parallelism") > 1 => format!("{succeeded}/1 of {}", int(o, "spec.parallelism")),
        None => format!("{succeeded}/1"),
    };
    let [names, images] = containers(at(o, "spec.template.spec"));
    vec![
        object::name(o).into(),
        state(o).into(),
        completions.into(),
        took(o, now).into(),
        age(o, now),
        names,
        images,
        selector(at(o, "spec.selector")).into(),
    ]
}

fn state(o: &Value) -> &'static str {
    let first = ["Complete", "Failed"].into_iter().find(|kind| has_condition(o, kind));
    let deleted = || object::deletion_timestamp(o).map(|_| "Terminating");
    let later = || ["Suspended", "FailureTarget", "SuccessCriteriaMet"].into_iter().find(|kind| has_condition(o, kind));
    first.or_else(deleted).or_else(later).unwrap_or("Running")
}

fn took(o: &Value, now: Timestamp) -> String {
    let at_time = |field: &str| time::parse(text(o, field));
    match (at_time("status.startTime"), at_time("status.completionTime")) {
        (None, _) => String::new(),
        (Some(start), end) => duration::human(end.unwrap_or(now).as_second() - start.as_second()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::strategy::tests::ctx;

    fn job() -> Value {
        json!({"metadata": {"name": "j", "namespace": "default", "uid": "u1"},
            "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}})
    }

    #[test]
    fn selectors_are_generated() {
        let mut j = job();
        STRATEGY.default(&mut j);
        STRATEGY.prepare_create(&mut j, &ctx());
        assert_eq!(j["spec"]["selector"], json!({"matchLabels": {"batch.kubernetes.io/controller-uid": "u1"}}));
        assert_eq!(j["spec"]["template"]["metadata"]["labels"]["job-name"], "j");
        let errors = STRATEGY.validate_create(&j);
        assert!(errors.is_empty(), "{}", errors.message());
    }

    #[test]
    fn always_is_no_policy_for_jobs() {
        let mut j = job();
        j["spec"]["template"]["spec"]["restartPolicy"] = json!("Always");
        STRATEGY.default(&mut j);
        STRATEGY.prepare_create(&mut j, &ctx());
        assert_eq!(
            STRATEGY.validate_create(&j).message(),
            "spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\""
        );
    }

    #[test]
    fn indexes() {
        assert_eq!(index_total("1,3-5", 10), Ok(4));
        assert_eq!(index_total("", 10), Ok(0));
        assert!(index_total("5,3", 10).is_err());
        assert!(index_total("10", 10).is_err());
        assert!(index_total("x", 10).is_err());
    }

    #[test]
    fn rows() {
        let now: Timestamp = "2024-01-01T00:01:00Z".parse().unwrap();
        let mut j = job();
        j["status"] = json!({"startTime": "2024-01-01T00:00:00Z", "succeeded": 1, "completionTime": "2024-01-01T00:00:05Z",
            "conditions": [{"type": "Complete", "status": "True"}]});
        j["spec"]["completions"] = json!(1);
        let row = cells(&j, now);
        assert_eq!(row[1..4], [json!("Complete"), json!("1/1"), json!("5s")]);
    }
}
