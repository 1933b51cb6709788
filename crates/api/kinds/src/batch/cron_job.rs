//! CronJob: Jobs on a schedule.

use serde_json::{Value, json};
use tiphys_meta::{ErrorList, Path, object};
use tiphys_types::jiff::Timestamp;

use super::{job, schedule};
use crate::strategy::{Column, Strategy};
use crate::table::{AGE, NAME, age, boolean, column, containers, integer, selector, since, wide};
use crate::tree::{array, at, child, set_absent, set_default, text};
use crate::workloads::{self, SPEC};

pub(crate) static STRATEGY: Strategy = Strategy::new(true)
    .spec_generation()
    .status("{}")
    .defaults(defaults)
    .checks(check, check_update)
    .check_created(check_created)
    .warnings_by(warnings)
    .table(COLUMNS, cells);

/// Jobs are named after it, with a suffix of eleven characters.
const NAME_MAX: usize = 52;

fn defaults(o: &mut Value) {
    let spec = child(o, "spec");
    set_default(spec, "concurrencyPolicy", "Allow");
    set_absent(spec, "suspend", false);
    set_absent(spec, "successfulJobsHistoryLimit", 3);
    set_absent(spec, "failedJobsHistoryLimit", 1);
    let template = child(spec, "jobTemplate");
    crate::core::pod::defaults::template_of(template);
    job::failure_policy_defaults(child(template, "spec"));
}

fn warnings(new: &Value, old: Option<&Value>) -> Vec<String> {
    let mut all = workloads::name_warnings(new, old);
    let template = |o: &Value| at(o, "spec.jobTemplate.spec.template").cloned();
    if let Some(own) = template(new).filter(|own| old.and_then(template).as_ref() != Some(own)) {
        all.extend(crate::core::pod::warnings::pod(&own, "spec.jobTemplate.spec.template"));
    }
    all
}

fn check(o: &Value, errors: &mut ErrorList) {
    workloads::counts(o, &["startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"], errors);
    let policy = text(o, "spec.concurrencyPolicy");
    match policy {
        "Allow" | "Forbid" | "Replace" => {}
        "" => errors.required(&SPEC.child("concurrencyPolicy"), ""),
        other => errors.not_supported(&SPEC.child("concurrencyPolicy"), other, &["Allow", "Forbid", "Replace"]),
    }
    let path = SPEC.child("jobTemplate.spec");
    let empty = json!({});
    let spec = at(o, "spec.jobTemplate.spec").unwrap_or(&empty);
    job::check_spec(spec, &path, errors);
    if let Some(selector) = at(spec, "selector") {
        errors.invalid(&path.child("selector"), selector.clone(), "`selector` will be auto-generated");
    }
    if at(spec, "manualSelector") == Some(&Value::Bool(true)) {
        errors.not_supported(&path.child("manualSelector"), true, &["nil", "false"]);
    }
}

fn check_created(o: &Value, errors: &mut ErrorList) {
    let name = object::name(o);
    if name.len() > NAME_MAX {
        errors.invalid(&Path::new("metadata").child("name"), name, format!("must be no more than {NAME_MAX} characters"));
    }
    check_schedule(o, false, errors);
    check_time_zone(o, errors);
}

fn check_update(new: &Value, old: &Value, errors: &mut ErrorList) {
    check_schedule(new, text(old, "spec.schedule").contains("TZ"), errors);
    if at(new, "spec.timeZone") != at(old, "spec.timeZone") {
        check_time_zone(new, errors);
    }
}

fn check_schedule(o: &Value, allow_tz: bool, errors: &mut ErrorList) {
    let (path, text) = (SPEC.child("schedule"), text(o, "spec.schedule"));
    if text.is_empty() {
        errors.required(&path, "");
        return;
    }
    if let Err(why) = schedule::check(text) {
        errors.invalid(&path, text, why);
    }
    if text.contains("TZ") {
        if !allow_tz {
            errors.invalid(&path, text, "cannot use TZ or CRON_TZ in schedule, use timeZone field instead");
        } else if at(o, "spec.timeZone").is_some() {
            errors.invalid(&path, text, "cannot use both timeZone field and TZ or CRON_TZ in schedule");
        }
    }
}

fn check_time_zone(o: &Value, errors: &mut ErrorList) {
    let Some(zone) = at(o, "spec.timeZone").and_then(Value::as_str) else { return };
    let path = SPEC.child("timeZone");
    let part = |p: &str| {
        !p.is_empty()
            && p != "."
            && p != ".."
            && !p.starts_with('-')
            && p.bytes().all(|b| b.is_ascii_alphanumeric() || b"._+-".contains(&b))
    };
    if zone.is_empty() {
        errors.invalid(&path, zone, "timeZone must be nil or non-empty string");
    } else if !zone.split('/').all(part) || (!zone.eq_ignore_ascii_case("local") && !is_known(zone)) {
        errors.invalid(&path, zone, format!("unknown time zone {zone}"));
    } else if zone.eq_ignore_ascii_case("local") {
        let why = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
        errors.invalid(&path, zone, why);
    }
}

/// Names are case-sensitive, as files of the zoneinfo folder are.
fn is_known(zone: &str) -> bool {
    jiff::tz::TimeZone::get(zone).is_ok_and(|found| found.iana_name() == Some(zone))
}

const COLUMNS: &[Column] = &[
    NAME,
    column("Schedule"),
    column("Timezone"),
    boolean("Suspend"),
    integer("Active"),
    column("Last Schedule"),
    AGE,
    wide("Containers"),
    wide("Images"),
    wide("Selector"),
];

fn cells(o: &Value, now: Timestamp) -> Vec<Value> {
    let suspend = match at(o, "spec.suspend").and_then(Value::as_bool) {
        Some(true) => "True",
        Some(false) => "False",
        None => "<unset>",
    };
    let last = at(o, "status.lastScheduleTime").map_or_else(|| "<none>".into(), |t| since(Some(t), now));
    let zone = at(o, "spec.timeZone").and_then(Value::as_str).unwrap_or("<none>");
    let [names, images] = containers(at(o, "spec.jobTemplate.spec.template.spec"));
    vec![
        object::name(o).into(),
        text(o, "spec.schedule").into(),
        zone.into(),
        suspend.into(),
        json!(array(o, "status.active").len()),
        last.into(),
        age(o, now),
        names,
        images,
        selector(at(o, "spec.jobTemplate.spec.selector")).into(),
    ]
}
