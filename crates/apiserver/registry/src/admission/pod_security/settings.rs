//! Defaults and exemptions for the whole cluster (`PodSecurityConfiguration`, `pod-security.admission.config.k8s.io`).

use serde::Deserialize;
use serde_json::Value;
use tiphys_meta::{ErrorList, Path, names};

use super::standard::{Level, Policy, Standard, Version};

/// How pods are judged where a namespace does not say, and who is not judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodSecuritySettings {
    pub(super) defaults: Policy,
    pub(super) users: Vec<String>,
    pub(super) namespaces: Vec<String>,
    pub(super) runtime_classes: Vec<String>,
}

impl Default for PodSecuritySettings {
    fn default() -> Self {
        let none = Vec::new;
        PodSecuritySettings { defaults: Policy::PRIVILEGED, users: none(), namespaces: none(), runtime_classes: none() }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    api_version: String,
    kind: String,
    #[serde(default)]
    defaults: Defaults,
    #[serde(default)]
    exemptions: Exemptions,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct Defaults {
    enforce: String,
    enforce_version: String,
    audit: String,
    audit_version: String,
    warn: String,
    warn_version: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Exemptions {
    usernames: Vec<String>,
    namespaces: Vec<String>,
    runtime_classes: Vec<String>,
}

impl PodSecuritySettings {
    /// From a PodSecurityConfiguration.
    pub fn read(configuration: &Value) -> Result<Self, String> {
        let File { api_version, kind, defaults, exemptions } = File::deserialize(configuration).map_err(|e| e.to_string())?;
        let versions = ["v1", "v1beta1", "v1alpha1"].map(|v| format!("pod-security.admission.config.k8s.io/{v}"));
        if kind != "PodSecurityConfiguration" || !versions.contains(&api_version) {
            return Err(format!("{api_version}, Kind={kind} is no PodSecurityConfiguration"));
        }
        let mut errors = ErrorList::new();
        let mut standard = |mode: &str, level: &str, version: &str| Standard {
            level: read(&mut errors, mode, level, Level::Privileged, Level::parse),
            version: read(&mut errors, &format!("{mode}-version"), version, Version::Latest, Version::parse),
        };
        let defaults = Policy {
            enforce: standard("enforce", &defaults.enforce, &defaults.enforce_version),
            audit: standard("audit", &defaults.audit, &defaults.audit_version),
            warn: standard("warn", &defaults.warn, &defaults.warn_version),
        };
        let Exemptions { usernames, namespaces, runtime_classes } = exemptions;
        check(&mut errors, "namespaces", &namespaces, |n| names::dns1123_label(n).join(", "));
        check(&mut errors, "runtimeClasses", &runtime_classes, |n| names::dns1123_subdomain(n).join(", "));
        check(&mut errors, "usernames", &usernames, |n| if n.is_empty() { "username must not be empty".into() } else { String::new() });
        if !errors.is_empty() {
            return Err(errors.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "));
        }
        Ok(PodSecuritySettings { defaults, users: usernames, namespaces, runtime_classes })
    }
}

fn read<T>(errors: &mut ErrorList, field: &str, value: &str, absent: T, parse: fn(&str) -> Result<T, &'static str>) -> T {
    match parse(value) {
        Ok(read) => read,
        Err(_) if value.is_empty() => absent,
        Err(why) => {
            errors.invalid(&Path::new("defaults").child(field), value, why);
            absent
        }
    }
}

fn check(errors: &mut ErrorList, field: &str, values: &[String], wrong: impl Fn(&str) -> String) {
    for (i, value) in values.iter().enumerate() {
        let root = Path::new("exemptions");
        let parent = root.child(field);
        let path = parent.index(i);
        let why = wrong(value);
        if !why.is_empty() {
            errors.invalid(&path, value.as_str(), why);
        } else if values.iter().position(|v| v == value) != Some(i) {
            errors.duplicate(&path, value.as_str());
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn configurations() {
        let file = |more: Value| {
            let mut file = json!({"apiVersion": "pod-security.admission.config.k8s.io/v1", "kind": "PodSecurityConfiguration"});
            file.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
            PodSecuritySettings::read(&file)
        };
        let read =
            file(json!({"defaults": {"enforce": "baseline", "enforce-version": "v1.30"}, "exemptions": {"namespaces": ["kube-system"]}}));
        let read = read.expect("good");
        assert_eq!((read.defaults.enforce.to_string(), read.namespaces), ("baseline:v1.30".into(), vec!["kube-system".to_owned()]));
        let wrong = json!({"defaults": {"warn": "x"}, "exemptions": {"usernames": ["", "a", "a"]}});
        assert_eq!(
            file(wrong).unwrap_err(),
            "defaults.warn: Invalid value: \"x\": must be one of privileged, baseline, restricted, exemptions.usernames[0]: Invalid value: \"\": \
             username must not be empty, exemptions.usernames[2]: Duplicate value: \"a\""
        );
        assert!(file(json!({"exemption": {}})).is_err());
    }
}
