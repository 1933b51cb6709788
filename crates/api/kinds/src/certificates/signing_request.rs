//! CertificateSigningRequest: somebody asks, somebody approves (subresource `approval`), a signer signs (subresource `status`). The server writes
//! down who asked.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tiphys_meta::{ErrorList, Path, duration, names, object, time};
use tiphys_types::jiff::Timestamp;

use crate::fields::selectable;
use crate::strategy::{Column, Ctx, Strategy, Subresource, copy_field, keep_all_but_status};
use crate::table::{AGE, NAME, age, column};
use crate::tree::{array, array_mut, at, child, remove, text};
use crate::workloads::SPEC;

pub(super) static STRATEGY: Strategy = Strategy::new(false)
    .name(names::path_segment)
    .status("{}")
    .resets(&[&["spec"], &["status"]])
    .on_create(on_create)
    .on_update(|new, old, _| copy_field(new, old, "spec"))
    .subresources(&[
        Subresource { name: "status", prepare_update: prepare_status, validate_update: check_status },
        Subresource { name: "approval", prepare_update: prepare_approval, validate_update: check_approval },
    ])
    .checks(check, |_, _, _| {})
    .selectable(select::NAMES, select::of)
    .table(COLUMNS, cells);

mod select {
    super::selectable!("metadata.name" = "", "spec.signerName" = "");
}

const USAGES: &[&str] = &[
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];
const DECISIONS: [&str; 2] = ["Approved", "Denied"];

fn on_create(o: &mut Value, ctx: &Ctx<'_>) {
    let spec = child(o, "spec");
    for field in ["username", "uid", "groups", "extra"] {
        remove(spec, field);
    }
    for (field, value) in [("username", ctx.user.name), ("uid", ctx.user.uid)] {
        if !value.is_empty() {
            spec[field] = json!(value);
        }
    }
    if !ctx.user.groups.is_empty() {
        spec["groups"] = json!(ctx.user.groups);
    }
    if !ctx.user.extra.is_empty() {
        spec["extra"] = json!(ctx.user.extra);
    }
}

/// Conditions without times get them; a status that did not change keeps its transition.
fn fill_times(new: &mut Value, old: &Value, now: Timestamp) {
    let now = time::format(now);
    let before = array(old, "status.conditions").to_vec();
    let Some(status) = crate::tree::present(new, "status") else { return };
    for condition in array_mut(status, "conditions") {
        if text(condition, "lastUpdateTime").is_empty() {
            condition["lastUpdateTime"] = json!(now);
        }
        if text(condition, "lastTransitionTime").is_empty() {
            let same = |c: &&Value| text(c, "type") == text(condition, "type") && text(c, "status") == text(condition, "status");
            let known = before.iter().find(same).map(|c| text(c, "lastTransitionTime")).filter(|t| !t.is_empty());
            condition["lastTransitionTime"] = json!(known.unwrap_or(&now));
        }
    }
}

/// A signer that forgets the approval does not take it back.
fn prepare_status(new: &mut Value, old: &Value, ctx: &Ctx<'_>) {
    keep_all_but_status(new, old, ctx);
    for decision in DECISIONS {
        let of =
            |o: &Value| -> Vec<Value> { array(o, "status.conditions").iter().filter(|c| text(c, "type") == decision).cloned().collect() };
        let (before, after) = (of(old), of(new));
        if after.is_empty() && !before.is_empty() {
            let mut all = before;
            all.extend(array(new, "status.conditions").iter().cloned());
            child(new, "status")["conditions"] = json!(all);
        }
    }
    fill_times(new, old, ctx.now);
}

fn prepare_approval(new: &mut Value, old: &Value, ctx: &Ctx<'_>) {
    fill_times(new, old, ctx.now);
    let conditions = at(new, "status.conditions").cloned();
    copy_field(new, old, "spec");
    copy_field(new, old, "status");
    if let Some(conditions) = conditions {
        child(new, "status")["conditions"] = conditions;
    }
}

fn check(o: &Value, errors: &mut ErrorList) {
    if text(o, "spec.request").is_empty() {
        errors.invalid(&SPEC.child("request"), Value::Null, "PEM block type must be CERTIFICATE REQUEST");
    }
    let (usages, list) = (array(o, "spec.usages"), SPEC.child("usages"));
    if usages.is_empty() {
        errors.required(&list, "");
    }
    let mut seen = BTreeSet::new();
    for (i, usage) in usages.iter().filter_map(Value::as_str).enumerate() {
        if !USAGES.contains(&usage) {
            errors.not_supported(&list.index(i), usage, USAGES);
        }
        if !seen.insert(usage) {
            errors.duplicate(&list.index(i), usage);
        }
    }
    check_signer(text(o, "spec.signerName"), &SPEC.child("signerName"), errors);
    if let Some(seconds) = at(o, "spec.expirationSeconds").and_then(Value::as_i64).filter(|s| *s < 600) {
        let why = "may not specify a duration less than 600 seconds (10 minutes)";
        errors.invalid(&SPEC.child("expirationSeconds"), seconds, why);
    }
    check_conditions(o, errors);
}

/// `domain/path`.
fn check_signer(signer: &str, path: &Path<'_>, errors: &mut ErrorList) {
    if signer == "kubernetes.io/legacy-unknown" {
        errors.invalid(path, signer, "the legacy signerName is not allowed via this API version");
    }
    let Some((domain, name)) = signer.split_once('/').filter(|(_, name)| !name.contains('/')) else {
        match signer {
            "" => errors.required(path, ""),
            _ => errors.invalid(path, signer, "must be a fully qualified domain and path of the form 'example.com/signer-name'"),
        }
        return;
    };
    for message in names::dns1123_subdomain(domain) {
        errors.invalid(path, signer, format!("validating label \"{domain}\": {message}"));
    }
    if domain.split('.').count() < 2 {
        errors.invalid(path, signer, "should be a domain with at least two segments separated by dots");
    }
    for message in names::dns1123_subdomain(name) {
        errors.invalid(path, signer, format!("validating path segment \"{name}\": {message}"));
    }
}

fn check_conditions(o: &Value, errors: &mut ErrorList) {
    let status = Path::new("status");
    let list = status.child("conditions");
    let conditions = array(o, "status.conditions");
    let has = |kind: &str| conditions.iter().any(|c| text(c, "type") == kind);
    for (i, condition) in conditions.iter().enumerate() {
        let (path, kind, state) = (list.index(i), text(condition, "type"), text(condition, "status"));
        if kind.is_empty() {
            errors.required(&path.child("type"), "");
        }
        let known: &[&str] = if DECISIONS.contains(&kind) || kind == "Failed" { &["True"] } else { &["False", "True", "Unknown"] };
        if state.is_empty() {
            errors.required(&path.child("status"), "");
        } else if !known.contains(&state) {
            errors.not_supported(&path.child("status"), state, known);
        }
        if conditions[..i].iter().any(|c| text(c, "type") == kind) {
            errors.duplicate(&path.child("type"), kind);
        }
    }
    if has("Approved") && has("Denied") {
        errors.invalid(&list, "Denied", "Approved and Denied conditions are mutually exclusive");
    }
}

fn decisions<'a>(o: &'a Value, kind: &str) -> Vec<&'a Value> {
    array(o, "status.conditions").iter().filter(|c| text(c, "type") == kind).collect()
}

fn kept(new: &Value, old: &Value, errors: &mut ErrorList) {
    let status = Path::new("status");
    for kind in ["Approved", "Denied", "Failed"] {
        if decisions(new, kind).len() < decisions(old, kind).len() {
            errors.forbidden(&status.child("conditions"), format!("updates may not remove a condition of type \"{kind}\""));
        }
    }
}

fn check_status(new: &Value, old: &Value, errors: &mut ErrorList) {
    let status = Path::new("status");
    check_conditions(new, errors);
    kept(new, old, errors);
    for kind in DECISIONS {
        let (after, before) = (decisions(new, kind), decisions(old, kind));
        if after.len() > before.len() {
            errors.forbidden(&status.child("conditions"), format!("updates may not add a condition of type \"{kind}\""));
        } else if after.len() == before.len() && after != before {
            errors.forbidden(&status.child("conditions"), format!("updates may not modify a condition of type \"{kind}\"\n"));
        }
    }
    let certificate = |o: &Value| text(o, "status.certificate").to_owned();
    if !certificate(old).is_empty() && certificate(new) != certificate(old) {
        errors.forbidden(&status.child("certificate"), "updates may not modify existing certificate content");
    }
}

fn check_approval(new: &Value, old: &Value, errors: &mut ErrorList) {
    check_conditions(new, errors);
    kept(new, old, errors);
}

const COLUMNS: &[Column] = &[NAME, AGE, column("SignerName"), column("Requestor"), column("RequestedDuration"), column("Condition")];

fn cells(o: &Value, now: Timestamp) -> Vec<Value> {
    let has = |kind: &str| !decisions(o, kind).is_empty();
    let mut state = if has("Denied") {
        "Denied"
    } else if has("Approved") {
        "Approved"
    } else {
        "Pending"
    }
    .to_owned();
    if has("Failed") {
        state.push_str(",Failed");
    }
    if !text(o, "status.certificate").is_empty() {
        state.push_str(",Issued");
    }
    let signer = text(o, "spec.signerName");
    let wanted = at(o, "spec.expirationSeconds").and_then(Value::as_i64).map_or("<none>".to_owned(), duration::human);
    vec![
        object::name(o).into(),
        age(o, now),
        if signer.is_empty() { "<none>" } else { signer }.into(),
        text(o, "spec.username").into(),
        wanted.into(),
        state.into(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::strategy::tests::ctx;

    #[test]
    fn approval_touches_conditions_alone() {
        let mut created = json!({"metadata": {"name": "c"}, "spec": {"request": "eA==", "username": "mallory", "signerName": "a.b/c", "usages": ["any"]}});
        STRATEGY.prepare_create(&mut created, &ctx());
        assert_eq!(created["spec"]["username"], "alice");
        let mut approved = created.clone();
        approved["spec"]["request"] = json!("eQ==");
        approved["status"] = json!({"certificate": "eA==", "conditions": [{"type": "Approved", "status": "True"}]});
        STRATEGY.subresource("approval").unwrap().update(&mut approved, &created, &ctx());
        assert_eq!(approved["spec"], created["spec"]);
        assert_eq!(
            approved["status"],
            json!({"conditions": [{"type": "Approved", "status": "True", "lastUpdateTime": "2024-01-01T00:00:00Z", "lastTransitionTime": "2024-01-01T00:00:00Z"}]})
        );
        let mut signed = approved.clone();
        signed["status"] = json!({"certificate": "eA=="});
        STRATEGY.status_strategy().unwrap().update(&mut signed, &approved, &ctx());
        assert_eq!(signed["status"]["conditions"], approved["status"]["conditions"]);
        assert_eq!(cells(&signed, ctx().now)[5], "Approved,Issued");
    }
}
