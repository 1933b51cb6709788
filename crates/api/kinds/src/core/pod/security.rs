//! Checks of security contexts. Windows options are not read: no node of ours runs Windows.

use serde_json::Value;
use tiphys_meta::{ErrorList, Path, names};

use super::volumes::local_path;
use crate::tree::{array, at, is_true, one_of, text};

pub(super) fn pod(spec: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let Some(context) = at(spec, "securityContext") else { return };
    let path = path.child("securityContext");
    for field in ["fsGroup", "runAsUser", "runAsGroup"] {
        unix_id(at(context, field), &path.child(field), errors);
    }
    for (i, group) in array(context, "supplementalGroups").iter().enumerate() {
        unix_id(Some(group), &path.child("supplementalGroups").index(i), errors);
    }
    if is_true(spec, "shareProcessNamespace") && is_true(spec, "hostPID") {
        let why = "ShareProcessNamespace and HostPID cannot both be enabled";
        errors.invalid(&path.child("shareProcessNamespace"), true, why);
    }
    sysctls(context, spec, &path.child("sysctls"), errors);
    one_of(at(context, "fsGroupChangePolicy"), &["Always", "OnRootMismatch"], &path.child("fsGroupChangePolicy"), errors);
    one_of(at(context, "supplementalGroupsPolicy"), &["Merge", "Strict"], &path.child("supplementalGroupsPolicy"), errors);
    one_of(at(context, "seLinuxChangePolicy"), &["MountOption", "Recursive"], &path.child("seLinuxChangePolicy"), errors);
    profile(at(context, "seccompProfile"), "seccomp", &path.child("seccompProfile"), errors);
    profile(at(context, "appArmorProfile"), "AppArmor", &path.child("appArmorProfile"), errors);
}

pub(super) fn container(container: &Value, host_users: bool, path: &Path<'_>, errors: &mut ErrorList) {
    let Some(context) = at(container, "securityContext") else { return };
    for field in ["runAsUser", "runAsGroup"] {
        unix_id(at(context, field), &path.child(field), errors);
    }
    let mount = text(context, "procMount");
    one_of(at(context, "procMount"), &["Default", "Unmasked"], &path.child("procMount"), errors);
    if mount == "Unmasked" && host_users {
        errors.invalid(&path.child("procMount"), mount, "`hostUsers` must be false to use `Unmasked`");
    }
    profile(at(context, "seccompProfile"), "seccomp", &path.child("seccompProfile"), errors);
    profile(at(context, "appArmorProfile"), "AppArmor", &path.child("appArmorProfile"), errors);
    if at(context, "allowPrivilegeEscalation") == Some(&Value::Bool(false)) {
        if is_true(context, "privileged") {
            errors.invalid(path, context.clone(), "cannot set `allowPrivilegeEscalation` to false and `privileged` to true");
        }
        for added in array(context, "capabilities.add") {
            if added == "CAP_SYS_ADMIN" {
                let why = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
                errors.invalid(path, context.clone(), why);
            }
        }
    }
}

fn unix_id(id: Option<&Value>, path: &Path<'_>, errors: &mut ErrorList) {
    let Some(id) = id.and_then(Value::as_i64) else { return };
    for message in names::unix_id(id) {
        errors.invalid(path, id, message);
    }
}

/// Optional, and one of a few.
fn profile(profile: Option<&Value>, what: &str, path: &Path<'_>, errors: &mut ErrorList) {
    let Some(profile) = profile else { return };
    let (kind, local) = (text(profile, "type"), at(profile, "localhostProfile").and_then(Value::as_str));
    let local_path_field = path.child("localhostProfile");
    match kind {
        "Localhost" => match local {
            Some(local) if !local.is_empty() && what == "seccomp" => local_path(local, &local_path_field, errors),
            Some(local) if !local.is_empty() => {}
            _ if what == "seccomp" => errors.required(&local_path_field, "must be set when seccomp type is Localhost"),
            _ => errors.required(&local_path_field, "must be set when AppArmor type is Localhost"),
        },
        "RuntimeDefault" | "Unconfined" => {
            if local.is_some() {
                let why = format!("can only be set when {what} type is Localhost");
                errors.invalid(&local_path_field, profile.clone(), why);
            }
        }
        "" => {
            let field = if what == "seccomp" { "seccompProfile" } else { "appArmorProfile" };
            errors.required(&path.child("type"), format!("type is required when {field} is set"));
        }
        other => errors.not_supported(&path.child("type"), other, &["Localhost", "RuntimeDefault", "Unconfined"]),
    }
}

const SYSCTL_REGEX: &str = "^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";

fn sysctls(context: &Value, spec: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let all = array(context, "sysctls");
    for (i, sysctl) in all.iter().enumerate() {
        let (name, path) = (text(sysctl, "name"), path.index(i));
        let path = path.child("name");
        if name.is_empty() {
            errors.required(&path, "");
        } else if !is_sysctl(name) {
            errors.invalid(&path, name, format!("must have at most 253 characters and match regex {SYSCTL_REGEX}"));
        } else if all[..i].iter().any(|s| text(s, "name") == name) {
            errors.duplicate(&path, name);
        }
        let name = name.replace('/', ".");
        for (prefix, flag) in [("net.", "hostNetwork"), ("kernel.shm", "hostIPC"), ("kernel.msg", "hostIPC"), ("fs.mqueue.", "hostIPC")] {
            if name.starts_with(prefix) && is_true(spec, flag) {
                errors.invalid(&path, name.as_str(), format!("may not be specified when '{flag}' is true"));
            }
        }
    }
}

fn is_sysctl(name: &str) -> bool {
    let edge = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let part = |p: &str| {
        let bytes = p.as_bytes();
        bytes.first().is_some_and(|b| edge(*b))
            && bytes.last().is_some_and(|b| edge(*b))
            && bytes.iter().all(|b| edge(*b) || b"-_".contains(b))
    };
    name.len() <= 253 && name.split(['.', '/']).all(part)
}
