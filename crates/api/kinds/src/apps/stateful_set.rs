//! StatefulSet: pods with names, an order and claims of their own. `maxUnavailable` is behind a gate that is off: it is dropped.

use serde_json::{Value, json};
use tiphys_meta::{ErrorList, Path, names, object};
use tiphys_types::jiff::Timestamp;

use crate::core::{persistent_volume_claim, pod};
use crate::strategy::{Column, Ctx, Strategy, Subresource, keep_all_but_status};
use crate::table::{AGE, NAME, age, column, containers, wide};
use crate::tree::{array, array_mut, at, at_mut, child, int, prune_empty, remove, set_absent, set_default, text};
use crate::workloads::{self, SPEC};

pub(crate) static STRATEGY: Strategy = Strategy::new(true)
    .name(names::name_is_dns_label)
    .spec_generation()
    .status(r#"{"availableReplicas":0,"replicas":0}"#)
    .defaults(defaults)
    .on_create(|o, _| drop_max_unavailable(o))
    .on_update(on_update)
    .subresources(&[Subresource { name: "status", prepare_update: keep_all_but_status, validate_update: check_status }])
    .checks(check, check_update)
    .check_created(check_claims)
    .warnings_by(warnings)
    .table(COLUMNS, cells);

fn defaults(o: &mut Value) {
    let spec = child(o, "spec");
    set_default(spec, "podManagementPolicy", "OrderedReady");
    let strategy = child(spec, "updateStrategy");
    if text(strategy, "type").is_empty() {
        set_default(strategy, "type", "RollingUpdate");
        child(strategy, "rollingUpdate");
    }
    if text(strategy, "type") == "RollingUpdate"
        && let Some(rolling) = crate::tree::present(strategy, "rollingUpdate")
    {
        set_absent(rolling, "partition", 0);
    }
    let retention = child(spec, "persistentVolumeClaimRetentionPolicy");
    set_default(retention, "whenDeleted", "Retain");
    set_default(retention, "whenScaled", "Retain");
    set_absent(spec, "replicas", 1);
    set_absent(spec, "revisionHistoryLimit", 10);
    for claim in array_mut(spec, "volumeClaimTemplates") {
        set_default(claim, "apiVersion", "v1");
        set_default(claim, "kind", "PersistentVolumeClaim");
        persistent_volume_claim::defaults(claim);
    }
    pod::defaults::template_of(o);
}

fn drop_max_unavailable(o: &mut Value) {
    if let Some(rolling) = at_mut(o, "spec.updateStrategy.rollingUpdate") {
        remove(rolling, "maxUnavailable");
    }
}

fn on_update(new: &mut Value, old: &Value, _: &Ctx<'_>) {
    if at(old, "spec.updateStrategy.rollingUpdate.maxUnavailable").is_none() {
        drop_max_unavailable(new);
    }
}

fn check(o: &Value, errors: &mut ErrorList) {
    let policy = text(o, "spec.podManagementPolicy");
    match policy {
        "OrderedReady" | "Parallel" => {}
        "" => errors.required(&SPEC.child("podManagementPolicy"), ""),
        other => errors.invalid(&SPEC.child("podManagementPolicy"), other, "must be 'OrderedReady' or 'Parallel'"),
    }
    check_strategy(o, errors);
    for field in ["whenDeleted", "whenScaled"] {
        let policy = at(o, "spec.persistentVolumeClaimRetentionPolicy").map_or("Retain", |p| text(p, field));
        if !matches!(policy, "Retain" | "Delete") {
            let path = SPEC.child("persistentVolumeClaimRetentionPolicy");
            errors.not_supported(&path.child(field), policy, &["Retain", "Delete"]);
        }
    }
    workloads::counts(o, &["replicas", "minReadySeconds"], errors);
    workloads::not_negative(o, "spec.ordinals.start", &SPEC.child("ordinals.start"), errors);
    let service = text(o, "spec.serviceName");
    if !service.is_empty() {
        errors.invalid_all(&SPEC.child("serviceName"), service, names::dns1123_label(service));
    }
    workloads::selector_and_template(&with_claims(o), "statefulset", errors);
    let template = workloads::template_of(o);
    if text(template, "spec.restartPolicy") != "Always" {
        errors.not_supported(&SPEC.child("template.spec.restartPolicy"), text(template, "spec.restartPolicy"), &["Always"]);
    }
    if at(template, "spec.activeDeadlineSeconds").is_some() {
        errors.forbidden(&SPEC.child("template.spec.activeDeadlineSeconds"), "activeDeadlineSeconds in StatefulSet is not Supported");
    }
}

fn warnings(new: &Value, old: Option<&Value>) -> Vec<String> {
    let mut all = workloads::template_warnings(new, old);
    if old.is_none() && int(new, "spec.revisionHistoryLimit") < 0 {
        all.push("spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended".into());
    }
    all
}

/// Claims are checked when they are given: they never change.
fn check_claims(o: &Value, errors: &mut ErrorList) {
    for (i, claim) in array(o, "spec.volumeClaimTemplates").iter().enumerate() {
        let list = SPEC.child("volumeClaimTemplates");
        persistent_volume_claim::check_spec(at(claim, "spec").unwrap_or(&Value::Null), &list.index(i).child("spec"), errors);
    }
}

/// The template as its pods will be: a volume for each claim.
fn with_claims(o: &Value) -> Value {
    let mut o = o.clone();
    let claims: Vec<String> = array(&o, "spec.volumeClaimTemplates").iter().map(|c| object::name(c).to_owned()).collect();
    let Some(spec) = at_mut(&mut o, "spec.template.spec") else { return o };
    for field in ["subdomain", "hostname"] {
        remove(spec, field);
    }
    let own = array(spec, "volumes").iter().filter(|v| !claims.iter().any(|c| c == text(v, "name"))).cloned();
    let claimed = claims.iter().enumerate().filter(|(i, c)| !claims[..*i].contains(c));
    let volumes: Vec<Value> = claimed.map(|(_, c)| json!({"name": c, "persistentVolumeClaim": {"claimName": c}})).chain(own).collect();
    spec["volumes"] = json!(volumes);
    o
}

fn check_strategy(o: &Value, errors: &mut ErrorList) {
    let path = SPEC.child("updateStrategy");
    let rolling = at(o, "spec.updateStrategy.rollingUpdate");
    match text(o, "spec.updateStrategy.type") {
        "" => errors.required(&path, ""),
        "OnDelete" => {
            if let Some(rolling) = rolling {
                errors.invalid(&path.child("rollingUpdate"), rolling.clone(), "only allowed for updateStrategy 'RollingUpdate'");
            }
        }
        "RollingUpdate" => {
            if let Some(rolling) = rolling {
                workloads::not_negative(rolling, "partition", &path.child("rollingUpdate.partition"), errors);
            }
        }
        _ => {
            let shown = at(o, "spec.updateStrategy").cloned().unwrap_or_default();
            errors.invalid(&path, shown, "must be 'RollingUpdate' or 'OnDelete'");
        }
    }
}

fn check_update(new: &Value, old: &Value, errors: &mut ErrorList) {
    const MUTABLE: [&str; 7] = [
        "replicas",
        "template",
        "updateStrategy",
        "minReadySeconds",
        "ordinals",
        "revisionHistoryLimit",
        "persistentVolumeClaimRetentionPolicy",
    ];
    let fixed = |o: &Value| {
        let mut spec = o.get("spec").cloned().unwrap_or_default();
        MUTABLE.iter().for_each(|field| remove(&mut spec, field));
        prune_empty(&mut spec);
        spec
    };
    if fixed(new) != fixed(old) {
        let why = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";
        errors.forbidden(&SPEC, why);
    }
}

fn check_status(new: &Value, old: &Value, errors: &mut ErrorList) {
    let fields = ["readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"];
    workloads::status_counts(new, &fields, errors);
    workloads::not_negative(new, "status.replicas", &Path::new("status").child("replicas"), errors);
    workloads::collision_count(new, old, errors);
}

const COLUMNS: &[Column] = &[NAME, column("Ready"), AGE, wide("Containers"), wide("Images")];

fn cells(o: &Value, now: Timestamp) -> Vec<Value> {
    let [names, images] = containers(at(o, "spec.template.spec"));
    let ready = format!("{}/{}", int(o, "status.readyReplicas"), int(o, "spec.replicas"));
    vec![object::name(o).into(), ready.into(), age(o, now), names, images]
}
