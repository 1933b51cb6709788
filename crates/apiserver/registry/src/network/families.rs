//! IP families of a Service: inferred, defaulted and checked against what the cluster has (KEP-563).

use serde_json::{Value, json};
use tiphys_meta::{ErrorList, Path};

use super::{Allocator, SPEC, is_external, text, texts};

pub(super) fn fill(allocator: &Allocator, spec: &mut Value, old: Option<&Value>, errors: &mut ErrorList) {
    if is_external(spec) || stays_as_it_is(spec, old) {
        return;
    }
    let selectorless = spec["selector"].as_object().is_none_or(serde_json::Map::is_empty);
    let bare = text(spec, "clusterIP") == "None" && selectorless;
    if spec.get("ipFamilyPolicy").is_none_or(Value::is_null) {
        let before = old.map_or("", |o| text(o, "ipFamilyPolicy"));
        let policy = if !before.is_empty() {
            before
        } else if bare {
            "RequireDualStack"
        } else {
            "SingleStack"
        };
        spec["ipFamilyPolicy"] = json!(policy);
    }
    shrink_or_refuse(spec, old, errors);
    infer(allocator, spec, errors);
    if !errors.is_empty() {
        return;
    }
    let single = text(spec, "ipFamilyPolicy") == "SingleStack";
    let mut families: Vec<String> = texts(spec, "ipFamilies").into_iter().map(str::to_owned).collect();
    if !bare {
        check(allocator, spec, &families, errors);
        if !errors.is_empty() {
            return;
        }
    }
    if families.is_empty() {
        families.push(allocator.families().first().copied().unwrap_or("IPv4").to_owned());
    }
    if !single && families.len() == 1 && (bare || allocator.families().len() == 2) {
        families.push(if families[0] == "IPv4" { "IPv6" } else { "IPv4" }.to_owned());
    }
    spec["ipFamilies"] = json!(families);
}

/// A PreferDualStack Service does not follow the cluster when nothing about its families is asked.
fn stays_as_it_is(spec: &Value, old: Option<&Value>) -> bool {
    let Some(old) = old else { return false };
    let same = |field: &str| texts(spec, field) == texts(old, field);
    text(spec, "ipFamilyPolicy") == "PreferDualStack"
        && text(old, "ipFamilyPolicy") == "PreferDualStack"
        && same("ipFamilies")
        && same("clusterIPs")
}

fn shrink_or_refuse(spec: &mut Value, old: Option<&Value>, errors: &mut ErrorList) {
    let single = text(spec, "ipFamilyPolicy") == "SingleStack";
    let policy = json!(text(spec, "ipFamilyPolicy"));
    let path = SPEC.child("ipFamilyPolicy");
    let list = |s: &Value, f: &str| texts(s, f).into_iter().map(str::to_owned).collect::<Vec<_>>();
    let what = [("clusterIPs", "cluster IP", "cluster IPs"), ("ipFamilies", "IP family", "IP families")];
    for (field, one, many) in what {
        let now = list(spec, field);
        if let Some(old) = old {
            let before = list(old, field);
            if single && before == now && now.len() > 1 {
                spec[field] = json!(now[..1]);
            } else if !single && !now.is_empty() && now.len() < before.len() && before.starts_with(&now) {
                errors.invalid(&path, policy.clone(), format!("must be 'SingleStack' to release the secondary {one}"));
            }
        }
        if single && list(spec, field).len() == 2 {
            let detail = format!("must be 'RequireDualStack' or 'PreferDualStack' when multiple {many} are specified");
            errors.invalid(&path, policy.clone(), detail);
        }
    }
}

/// Families that are not said follow from the addresses that are.
fn infer(allocator: &Allocator, spec: &mut Value, errors: &mut ErrorList) {
    let ips: Vec<String> = texts(spec, "clusterIPs").into_iter().map(str::to_owned).collect();
    let mut families: Vec<String> = texts(spec, "ipFamilies").into_iter().map(str::to_owned).collect();
    for (i, ip) in ips.iter().enumerate() {
        if ip == "None" {
            break;
        }
        let family = if ip.contains(':') { "IPv6" } else { "IPv4" };
        if i >= families.len() && !ip.is_empty() {
            if !allocator.families().contains(&family) {
                let path: Path<'_> = SPEC.child("clusterIPs");
                errors.invalid(&path.index(i), json!(ips), format!("{family} is not configured on this cluster"));
                return;
            }
            families.push(family.to_owned());
        }
    }
    if !families.is_empty() {
        spec["ipFamilies"] = json!(families);
    }
}

fn check(allocator: &Allocator, spec: &Value, families: &[String], errors: &mut ErrorList) {
    if text(spec, "ipFamilyPolicy") == "RequireDualStack" && allocator.families().len() < 2 {
        errors.invalid(&SPEC.child("ipFamilyPolicy"), "RequireDualStack", "this cluster is not configured for dual-stack services");
    }
    let path = SPEC.child("ipFamilies");
    for (i, family) in families.iter().enumerate() {
        if !allocator.families().contains(&family.as_str()) {
            errors.invalid(&path.index(i), family.as_str(), "not configured on this cluster");
        }
    }
}
