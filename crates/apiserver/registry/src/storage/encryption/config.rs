//! From an EncryptionConfiguration to providers, refused in upstream's words.

use std::collections::BTreeSet;
use std::sync::Arc;

use ring::rand::{SecureRandom, SystemRandom};
use serde::Deserialize;
use tiphys_meta::base64;

use super::ciphers::Cipher;
use super::{Encryption, Pattern, Provider, Rule, Sealer};

const AES_KEYS: &[usize] = &[16, 24, 32];
const BOX_KEYS: &[usize] = &[32];

/// Why a configuration is refused: the field and the reason.
#[derive(Debug, thiserror::Error)]
pub enum EncryptionError {
    #[error("the encryption configuration is no YAML of an EncryptionConfiguration: {0}")]
    Unreadable(String),
    #[error("encryption configuration: {path}: {reason}")]
    Invalid { path: String, reason: String },
    #[error("the system gives no random bytes for a key")]
    NoRandomness,
}

pub(super) fn generate() -> Result<String, EncryptionError> {
    let mut key = [0; 32];
    SystemRandom::new().fill(&mut key).map_err(|_| EncryptionError::NoRandomness)?;
    Ok(format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: [secrets]\n  providers:\n  \
         - aesgcm:\n      keys:\n      - name: generated\n        secret: {}\n  - identity: {{}}\n",
        base64::encode(&key)
    ))
}

fn invalid(path: impl Into<String>, reason: impl Into<String>) -> EncryptionError {
    EncryptionError::Invalid { path: path.into(), reason: reason.into() }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    api_version: String,
    kind: String,
    #[serde(default)]
    resources: Vec<FileRule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileRule {
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    providers: Vec<FileProvider>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileProvider {
    aesgcm: Option<FileKeys>,
    aescbc: Option<FileKeys>,
    secretbox: Option<FileKeys>,
    identity: Option<Empty>,
    kms: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Empty {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileKeys {
    #[serde(default)]
    keys: Vec<FileKey>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileKey {
    #[serde(default)]
    name: String,
    #[serde(default)]
    secret: String,
}

pub(super) fn parse(text: &[u8]) -> Result<Encryption, EncryptionError> {
    let unreadable = |error: String| EncryptionError::Unreadable(error);
    let tree = tiphys_schema::codec::yaml::to_tree(text).map_err(|e| unreadable(e.to_string()))?;
    let file: File = serde_json::from_value(tree).map_err(|e| unreadable(e.to_string()))?;
    if !matches!(file.api_version.as_str(), "apiserver.config.k8s.io/v1" | "v1") || file.kind != "EncryptionConfiguration" {
        let found = format!("{} {}", file.api_version, file.kind);
        return Err(unreadable(format!("it is a {found}; wanted is apiserver.config.k8s.io/v1 EncryptionConfiguration")));
    }
    if file.resources.is_empty() {
        return Err(invalid("resources", "Required value: at least one resources is required"));
    }
    let rules = file.resources.iter().enumerate().map(|(i, r)| rule(r, &format!("resources[{i}]")));
    Ok(Encryption { rules: rules.collect::<Result<_, _>>()? })
}

fn rule(rule: &FileRule, path: &str) -> Result<Rule, EncryptionError> {
    if rule.resources.is_empty() {
        return Err(invalid(format!("{path}.resources"), "Required value: at least one resources is required"));
    }
    if rule.providers.is_empty() {
        return Err(invalid(format!("{path}.providers"), "Required value: at least one providers is required"));
    }
    for (i, name) in rule.resources.iter().enumerate() {
        check_resource(name).map_err(|reason| invalid(format!("{path}.resources[{i}]"), format!("Invalid value: \"{name}\": {reason}")))?;
    }
    let resources: Vec<Pattern> = rule.resources.iter().map(|r| Pattern::parse(r)).collect();
    check_overlap(&resources, &format!("{path}.resources"))?;
    let mut providers = Vec::new();
    for (i, provider) in rule.providers.iter().enumerate() {
        providers.extend(keys_of(provider, &format!("{path}.providers[{i}]"))?);
    }
    Ok(Rule { resources, sealer: Arc::new(Sealer { providers }) })
}

fn check_resource(name: &str) -> Result<(), &'static str> {
    let pattern = Pattern::parse(name);
    if name.chars().any(char::is_uppercase) {
        return Err("resource name should not contain capital letters");
    }
    if name == "*" {
        return Err("use '*.' to encrypt all the resources from core API group or *.* to encrypt all resources");
    }
    if matches!(name, "apiserveripinfo" | "serviceipallocations" | "servicenodeportallocations") {
        return Err("resources which do not have REST API/s cannot be encrypted");
    }
    if pattern.group == "events.k8s.io" {
        return Err("'*.events.k8s.io' objects are stored using the 'events' API group in etcd. Use 'events' instead in the config file");
    }
    if pattern.group == "extensions" {
        return Err("'extensions' group has been removed and cannot be used for encryption");
    }
    if pattern.group == "*" && pattern.resource != "*" {
        return Err("encryption of resource '*' across groups is not supported; name the group, or use '*.*'");
    }
    Ok(())
}

/// Within one rule a resource may be named once, and a wildcard covers nothing that is named beside it.
fn check_overlap(resources: &[Pattern], path: &str) -> Result<(), EncryptionError> {
    for (i, one) in resources.iter().enumerate() {
        for other in resources.iter().skip(i + 1) {
            if one == other {
                return Err(invalid(path, "Invalid value: the same resource cannot be specified multiple times"));
            }
            let everything = [one, other].iter().any(|p| p.group == "*");
            let whole_group = one.group == other.group && [one, other].iter().any(|p| p.resource == "*");
            if everything || whole_group {
                let reason = "Invalid value: using overlapping resources such as 'secrets' and '*.' in the same resource list is not allowed as they will be masked";
                return Err(invalid(path, reason));
            }
        }
    }
    Ok(())
}

fn keys_of(provider: &FileProvider, path: &str) -> Result<Vec<Provider>, EncryptionError> {
    let given = [
        provider.aesgcm.is_some(),
        provider.aescbc.is_some(),
        provider.secretbox.is_some(),
        provider.identity.is_some(),
        provider.kms.is_some(),
    ];
    match given.iter().filter(|g| **g).count() {
        1 => {}
        0 => {
            let reason = "Invalid value: provider does not contain any of the expected providers: KMS, AESGCM, AESCBC, Secretbox, Identity";
            return Err(invalid(path, reason));
        }
        _ => {
            return Err(invalid(
                path,
                "Invalid value: more than one provider specified in a single element, should split into different list elements",
            ));
        }
    }
    if provider.kms.is_some() {
        return Err(invalid(
            format!("{path}.kms"),
            "KMS plugins are not supported; use aesgcm, aescbc or secretbox with keys in this file",
        ));
    }
    type Make = fn(&[u8]) -> Option<Cipher>;
    let kinds = [
        ("aesgcm", &provider.aesgcm, AES_KEYS, Cipher::gcm as Make),
        ("aescbc", &provider.aescbc, AES_KEYS, Cipher::cbc),
        ("secretbox", &provider.secretbox, BOX_KEYS, Cipher::secretbox),
    ];
    for (name, keys, lengths, make) in kinds {
        if let Some(keys) = keys {
            return ciphers(name, &keys.keys, lengths, make, &format!("{path}.{name}.keys"));
        }
    }
    Ok(vec![Provider::Identity])
}

fn ciphers(
    provider: &str,
    keys: &[FileKey],
    lengths: &[usize],
    make: fn(&[u8]) -> Option<Cipher>,
    path: &str,
) -> Result<Vec<Provider>, EncryptionError> {
    if keys.is_empty() {
        return Err(invalid(path, "Required value: at least one keys is required"));
    }
    let mut names = BTreeSet::new();
    let mut made = Vec::new();
    for (i, key) in keys.iter().enumerate() {
        let at = |field: &str| format!("{path}[{i}].{field}");
        if key.name.is_empty() {
            return Err(invalid(at("name"), "Required value: name is a required field"));
        }
        if key.name.contains(':') || !names.insert(&key.name) {
            return Err(invalid(at("name"), format!("Invalid value: \"{}\": key names are unique and have no colon", key.name)));
        }
        if key.secret.is_empty() {
            return Err(invalid(at("secret"), "Required value: secret is a required field"));
        }
        // The secret itself stands in no message.
        let secret =
            base64::decode(&key.secret).map_err(|_| invalid(at("secret"), "Invalid value: \"REDACTED\": secret must be base64 encoded"))?;
        let Some(cipher) = Some(&secret).filter(|s| lengths.contains(&s.len())).and_then(|s| make(s)) else {
            let reason = format!(
                "Invalid value: \"REDACTED\": secret is not of the expected length, got {}, expected one of {lengths:?}",
                secret.len()
            );
            return Err(invalid(at("secret"), reason));
        };
        made.push(Provider::Key { prefix: format!("k8s:enc:{provider}:v1:{}:", key.name), cipher });
    }
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(rule: &str) -> String {
        let text = format!("apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources: [{rule}]");
        parse(text.as_bytes()).expect_err("refused").to_string()
    }

    #[test]
    fn a_generated_configuration_covers_secrets() {
        let text = generate().expect("random");
        let made = parse(text.as_bytes()).expect("valid");
        assert!(made.of("", "secrets").is_some() && made.of("", "configmaps").is_none());
        assert_ne!(text, generate().expect("random"));
    }

    #[test]
    fn a_wrong_configuration_is_named_by_field() {
        for (rule, want) in [
            ("{providers: [{identity: {}}]}", "resources[0].resources: Required value"),
            ("{resources: [secrets]}", "resources[0].providers: Required value"),
            ("{resources: [secrets], providers: [{}]}", "resources[0].providers[0]: Invalid value: provider does not contain any"),
            ("{resources: [secrets], providers: [{identity: {}, aesgcm: {keys: []}}]}", "more than one provider"),
            ("{resources: [secrets], providers: [{aesgcm: {keys: []}}]}", "providers[0].aesgcm.keys: Required value"),
            ("{resources: [secrets], providers: [{aesgcm: {keys: [{name: a, secret: AAAA}]}}]}", "expected length, got 3"),
            ("{resources: [secrets], providers: [{secretbox: {keys: [{name: a, secret: '%'}]}}]}", "base64"),
            ("{resources: [secrets], providers: [{kms: {name: x}}]}", "KMS plugins are not supported"),
            ("{resources: ['*'], providers: [{identity: {}}]}", "resources[0].resources[0]: Invalid value: \"*\""),
            ("{resources: [secrets, '*.'], providers: [{identity: {}}]}", "overlapping"),
            ("{resources: [secrets, secrets], providers: [{identity: {}}]}", "multiple times"),
        ] {
            let message = refused(rule);
            assert!(message.contains(want), "{rule}: {message}");
        }
        assert!(parse(b"kind: Pod").is_err() && parse(b"{").is_err());
    }
}
