//! What a namespace asks for: a level of the standards in a version of them, for each of three modes.

use std::fmt;

use serde_json::Value;
use tiphys_meta::{ErrorList, Path, object};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    Privileged,
    Baseline,
    Restricted,
}

impl Level {
    pub(super) fn parse(text: &str) -> Result<Level, &'static str> {
        match text {
            "privileged" => Ok(Level::Privileged),
            "baseline" => Ok(Level::Baseline),
            "restricted" => Ok(Level::Restricted),
            _ => Err("must be one of privileged, baseline, restricted"),
        }
    }
}

/// `v1.x` by its x, or the latest there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Version {
    Minor(u32),
    Latest,
}

impl Version {
    pub(super) fn parse(text: &str) -> Result<Version, &'static str> {
        const WHY: &str = "must be \"latest\" or \"v1.x\"";
        if text == "latest" {
            return Ok(Version::Latest);
        }
        let minor = text.strip_prefix("v1.").ok_or(WHY)?;
        let plain = minor.bytes().all(|b| b.is_ascii_digit()) && (minor == "0" || !minor.starts_with('0'));
        if plain { minor.parse().map(Version::Minor).map_err(|_| WHY) } else { Err(WHY) }
    }
}

/// A level in a version: `baseline:v1.24`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standard {
    pub(super) level: Level,
    pub(super) version: Version,
}

impl Standard {
    pub(super) const PRIVILEGED: Standard = Standard { level: Level::Privileged, version: Version::Latest };

    fn same(self, other: Standard) -> bool {
        self == other || self.level == Level::Privileged && other.level == Level::Privileged
    }
}

impl fmt::Display for Standard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        };
        match self.version {
            Version::Latest => write!(f, "{level}:latest"),
            Version::Minor(minor) => write!(f, "{level}:v1.{minor}"),
        }
    }
}

/// What is refused, what the audit log hears of, and what the client is warned of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Policy {
    pub(super) enforce: Standard,
    pub(super) audit: Standard,
    pub(super) warn: Standard,
}

impl Policy {
    pub(super) const PRIVILEGED: Policy = Policy { enforce: Standard::PRIVILEGED, audit: Standard::PRIVILEGED, warn: Standard::PRIVILEGED };

    pub(super) fn is_privileged(&self) -> bool {
        [self.enforce, self.audit, self.warn].iter().all(|s| s.level == Level::Privileged)
    }

    fn same(&self, other: &Policy) -> bool {
        self.enforce.same(other.enforce) && self.audit.same(other.audit) && self.warn.same(other.warn)
    }

    /// What labels say, with the defaults for what they do not, and what is wrong with them. An unreadable level refuses most and says least.
    pub(super) fn of_labels<'l>(labels: impl Iterator<Item = (&'l str, &'l str)>, defaults: &Policy) -> (Policy, ErrorList) {
        let (mut policy, mut errors) = (*defaults, ErrorList::new());
        let said: Vec<(&str, &str)> = labels.filter_map(|(key, value)| Some((key.strip_prefix(PREFIX)?, value))).collect();
        let label = |name: &str| said.iter().find(|(n, _)| *n == name).map(|(_, value)| *value);
        let mut enforced = false;
        for (mode, standard, unreadable) in [
            ("enforce", &mut policy.enforce, Level::Restricted),
            ("audit", &mut policy.audit, Level::Privileged),
            ("warn", &mut policy.warn, Level::Privileged),
        ] {
            let mut wrong = |name: &str, value: &str, why: &str| {
                errors.invalid(&Path::new("metadata.labels").key(&format!("{PREFIX}{name}")), value, why);
            };
            if let Some(value) = label(mode) {
                let level = Level::parse(value).inspect_err(|why| wrong(mode, value, why));
                enforced |= mode == "enforce" && level.is_ok();
                standard.level = level.unwrap_or(unreadable);
            }
            let version = format!("{mode}-version");
            if let Some(value) = label(&version) {
                standard.version = Version::parse(value).inspect_err(|why| wrong(&version, value, why)).unwrap_or(Version::Latest);
            }
        }
        // Who is held to more than the default is warned of as much.
        if enforced && label("warn").is_none() && policy.enforce.level > policy.warn.level {
            policy.warn.level = policy.enforce.level;
            if label("warn-version").is_none() {
                policy.warn.version = policy.enforce.version;
            }
        }
        (policy, errors)
    }
}

pub(super) const PREFIX: &str = "pod-security.kubernetes.io/";

/// Of an exempt namespace, that what its labels ask for will not be.
pub(super) fn exempt_warning(namespace: &Value, policy: &Policy, defaults: &Policy) -> Option<String> {
    if policy.is_privileged() || policy.same(defaults) {
        return None;
    }
    let says = |mode: &str| {
        let names = [format!("{PREFIX}{mode}"), format!("{PREFIX}{mode}-version")];
        object::labels(namespace).any(|(k, _)| names.iter().any(|n| n == k))
    };
    let modes = [("enforce", policy.enforce), ("audit", policy.audit), ("warn", policy.warn)];
    let asked = modes.into_iter().filter(|(mode, standard)| standard.level != Level::Privileged && says(mode));
    let asked: Vec<String> = asked.map(|(mode, standard)| format!("{mode}={standard}")).collect();
    let name = object::name(namespace);
    Some(format!("namespace {name:?} is exempt from Pod Security, and the policy ({}) will be ignored", asked.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(labels: &[(&str, &str)]) -> (String, Vec<String>) {
        let labels: Vec<(String, &str)> = labels.iter().map(|(k, v)| (format!("{PREFIX}{k}"), *v)).collect();
        let (policy, errors) = Policy::of_labels(labels.iter().map(|(k, v)| (k.as_str(), *v)), &Policy::PRIVILEGED);
        let Policy { enforce, audit, warn } = policy;
        (format!("{enforce} {audit} {warn}"), errors.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn labels() {
        for (labels, want) in [
            (&[][..], "privileged:latest privileged:latest privileged:latest"),
            (&[("enforce", "baseline")], "baseline:latest privileged:latest baseline:latest"),
            (&[("enforce", "baseline"), ("enforce-version", "v1.24")], "baseline:v1.24 privileged:latest baseline:v1.24"),
            (&[("enforce", "baseline"), ("warn-version", "v1.3")], "baseline:latest privileged:latest baseline:v1.3"),
            (&[("enforce", "restricted"), ("warn", "baseline")], "restricted:latest privileged:latest baseline:latest"),
            (&[("audit", "restricted"), ("audit-version", "v1.0")], "privileged:latest restricted:v1.0 privileged:latest"),
        ] {
            assert_eq!(policy(labels), (want.to_owned(), vec![]), "{labels:?}");
        }
    }

    #[test]
    fn unreadable_labels() {
        let (said, errors) = policy(&[("enforce", "x"), ("audit", "y"), ("warn-version", "v1.01")]);
        assert_eq!(said, "restricted:latest privileged:latest privileged:latest");
        let want = [
            "metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: \"x\": must be one of privileged, baseline, restricted",
            "metadata.labels[pod-security.kubernetes.io/audit]: Invalid value: \"y\": must be one of privileged, baseline, restricted",
            "metadata.labels[pod-security.kubernetes.io/warn-version]: Invalid value: \"v1.01\": must be \"latest\" or \"v1.x\"",
        ];
        assert_eq!(errors, want);
    }
}
