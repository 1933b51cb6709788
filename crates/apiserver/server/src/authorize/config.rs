//! `--authorization-config`: an AuthorizationConfiguration (`apiserver.config.k8s.io/v1`), checked in upstream's words.
//!
//! Absent: webhooks that are reached `InClusterConfig`, which is for servers in pods.

use std::collections::HashSet;
use std::path::Path as FilePath;
use std::time::Duration;

use parking_lot::Mutex;
use serde::Deserialize;
use tiphys_client::Client;
use tiphys_client::https::Config as ClientConfig;
use tiphys_meta::{ErrorList, Path, duration};

use super::Member;
use super::webhook::{Condition, WebhookAuthorizer};
use crate::config::AuthorizationMode;
use crate::config_file::{self, ConfigFileError};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    authorizers: Vec<Authorizer>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Authorizer {
    #[serde(default)]
    r#type: String,
    #[serde(default)]
    name: String,
    webhook: Option<Webhook>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Webhook {
    #[serde(default, rename = "authorizedTTL")]
    authorized_ttl: String,
    cache_authorized_requests: Option<bool>,
    #[serde(default, rename = "unauthorizedTTL")]
    unauthorized_ttl: String,
    cache_unauthorized_requests: Option<bool>,
    #[serde(default)]
    timeout: String,
    #[serde(default)]
    subject_access_review_version: String,
    #[serde(default)]
    match_condition_subject_access_review_version: String,
    #[serde(default)]
    failure_policy: String,
    #[serde(default)]
    connection_info: Connection,
    #[serde(default)]
    match_conditions: Vec<MatchCondition>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Connection {
    #[serde(default)]
    r#type: String,
    #[serde(default)]
    kube_config_file: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MatchCondition {
    #[serde(default)]
    expression: String,
}

pub(crate) fn read(path: &FilePath) -> Result<Vec<Member>, ConfigFileError> {
    config_file::read("authorization-config", path, parse)
}

fn parse(bytes: &[u8]) -> Result<Vec<Member>, String> {
    let file: File = config_file::object(bytes, config_file::APISERVER, "AuthorizationConfiguration")?;
    let mut errors = ErrorList::new();
    let list = Path::new("authorizers");
    if file.authorizers.is_empty() {
        errors.required(&list, "at least one authorization mode must be defined");
    }
    let (mut types, mut names) = (HashSet::new(), HashSet::new());
    let mut members = Vec::new();
    for (i, authorizer) in file.authorizers.iter().enumerate() {
        let path = list.index(i);
        let kind = authorizer.r#type.as_str();
        if kind != "Webhook" && !types.insert(kind) {
            errors.duplicate(&path.child("type"), kind);
        }
        check_name(&authorizer.name, &mut names, &path.child("name"), &mut errors);
        members.extend(member(authorizer, &path, &mut errors));
    }
    // The API server's own rule, which upstream looks at when the others hold.
    for (kind, name) in file.authorizers.iter().map(|a| (a.r#type.as_str(), a.name.as_str())).filter(|_| errors.is_empty()) {
        let wanted = kind.to_lowercase();
        if kind != "Webhook" && wanted != name {
            return Err(format!("expected name {wanted} for authorizer {kind} instead of {name}"));
        }
    }
    if errors.is_empty() { Ok(members) } else { Err(errors.message()) }
}

fn check_name<'a>(name: &'a str, names: &mut HashSet<&'a str>, path: &Path<'_>, errors: &mut ErrorList) {
    if name.is_empty() {
        return errors.required(path, "");
    }
    if !names.insert(name) {
        errors.duplicate(path, name);
    }
    errors.invalid_all(path, name, tiphys_meta::names::dns1123_subdomain(name));
}

fn member(given: &Authorizer, path: &Path<'_>, errors: &mut ErrorList) -> Option<Member> {
    const TYPES: &[&str] = &["AlwaysAllow", "AlwaysDeny", "Node", "RBAC", "Webhook"];
    let mode = match given.r#type.as_str() {
        "Webhook" => {
            let Some(hook) = &given.webhook else {
                errors.required(&path.child("webhook"), "required when type=Webhook");
                return None;
            };
            return webhook(&given.name, hook, &path.child("webhook"), errors).map(|w| Member::Webhook(Box::new(w)));
        }
        "" => {
            errors.required(&path.child("type"), "");
            return None;
        }
        other => AuthorizationMode::named(other),
    };
    let Some(mode) = mode else {
        errors.not_supported(&path.child("type"), given.r#type.as_str(), TYPES);
        return None;
    };
    if given.webhook.is_some() {
        errors.invalid(&path.child("webhook"), "non-null", "may only be specified when type=Webhook");
    }
    Some(Member::Mode(mode))
}

fn webhook(name: &str, given: &Webhook, path: &Path<'_>, errors: &mut ErrorList) -> Option<WebhookAuthorizer> {
    let timeout = time(&given.timeout, None, &path.child("timeout"), errors);
    if timeout.is_some_and(|t| t > Duration::from_secs(30)) {
        errors.invalid(&path.child("timeout"), given.timeout.as_str(), "must be <= 30s");
    }
    let allow = time(&given.authorized_ttl, Some(Duration::from_secs(300)), &path.child("authorizedTTL"), errors);
    let deny = time(&given.unauthorized_ttl, Some(Duration::from_secs(30)), &path.child("unauthorizedTTL"), errors);
    one_of(&given.subject_access_review_version, &["v1", "v1beta1"], &path.child("subjectAccessReviewVersion"), errors);
    if !given.match_conditions.is_empty() || !given.match_condition_subject_access_review_version.is_empty() {
        let place = path.child("matchConditionSubjectAccessReviewVersion");
        one_of(&given.match_condition_subject_access_review_version, &["v1"], &place, errors);
    }
    one_of(&given.failure_policy, &["NoOpinion", "Deny"], &path.child("failurePolicy"), errors);
    let conditions = conditions(&given.match_conditions, &path.child("matchConditions"), errors);
    let (client, request_path) = connection(&given.connection_info, &path.child("connectionInfo"), errors)?;
    let kept = |time: Option<Duration>, wanted: Option<bool>| time.filter(|_| wanted.unwrap_or(true));
    Some(WebhookAuthorizer {
        name: name.to_owned(),
        client,
        path: request_path,
        version: given.subject_access_review_version.clone(),
        timeout: timeout?,
        keep: [kept(allow, given.cache_authorized_requests), kept(deny, given.cache_unauthorized_requests)],
        fails_closed: given.failure_policy == "Deny",
        conditions,
        kept: Mutex::default(),
    })
}

/// A duration above zero; one that is not given is `default`, or missing.
fn time(text: &str, default: Option<Duration>, path: &Path<'_>, errors: &mut ErrorList) -> Option<Duration> {
    if text.is_empty() {
        if default.is_none() {
            errors.required(path, "");
        }
        return default;
    }
    let nanos = duration::parse(text).and_then(|nanos| u64::try_from(nanos).ok()).filter(|nanos| *nanos > 0);
    if nanos.is_none() {
        errors.invalid(path, text, "must be > 0s");
    }
    nanos.map(Duration::from_nanos)
}

fn one_of(value: &str, supported: &[&str], path: &Path<'_>, errors: &mut ErrorList) {
    match value {
        "" => errors.required(path, ""),
        value if supported.contains(&value) => {}
        value => errors.not_supported(path, value, supported),
    }
}

fn conditions(given: &[MatchCondition], path: &Path<'_>, errors: &mut ErrorList) -> Vec<Condition> {
    if given.len() > 64 {
        errors.too_many(path, given.len(), 64);
    }
    let mut made = Vec::new();
    for (i, MatchCondition { expression }) in given.iter().enumerate() {
        let path = path.index(i);
        let place = path.child("expression");
        if expression.trim().is_empty() {
            errors.required(&place, "");
        } else if given[..i].iter().any(|other| other.expression == *expression) {
            errors.duplicate(&place, expression.as_str());
        } else {
            match Condition::compile(expression) {
                Ok(condition) => made.push(condition),
                Err(why) => errors.invalid(&place, expression.as_str(), why),
            }
        }
    }
    made
}

/// The client, and the path of the webhook's address.
fn connection(given: &Connection, path: &Path<'_>, errors: &mut ErrorList) -> Option<(Client, String)> {
    let place = path.child("kubeConfigFile");
    match given.r#type.as_str() {
        "KubeConfigFile" if given.kube_config_file.is_empty() => errors.required(&place, ""),
        "KubeConfigFile" if !given.kube_config_file.starts_with('/') => {
            errors.invalid(&place, given.kube_config_file.as_str(), "must be an absolute path");
        }
        "KubeConfigFile" => match client(FilePath::new(&given.kube_config_file)) {
            Ok(made) => return Some(made),
            Err(why) => errors.invalid(&place, given.kube_config_file.as_str(), why),
        },
        "" => errors.required(&path.child("type"), ""),
        other => errors.not_supported(&path.child("type"), other, &["KubeConfigFile"]),
    }
    None
}

fn client(kubeconfig: &FilePath) -> Result<(Client, String), String> {
    let mut config = ClientConfig::from_kubeconfig(kubeconfig, "").map_err(|e| e.to_string())?;
    let host = config.server.find("://").map_or(0, |at| at + 3);
    let path = config.server[host..].find('/').map_or_else(|| "/".to_owned(), |at| config.server.split_off(host + at));
    Ok((Client::https(config).map_err(|e| e.to_string())?, path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(webhook: &str) -> String {
        format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\nauthorizers:\n- {{type: Node, name: node}}\n\
             - {{type: RBAC, name: rbac}}\n{webhook}"
        )
    }

    fn refused(text: &str) -> String {
        parse(text.as_bytes()).map(|_| ()).expect_err("refused")
    }

    #[test]
    fn authorizers_in_their_order() {
        let members = parse(file("").as_bytes()).expect("a configuration");
        let modes: Vec<_> = members.iter().map(|m| matches!(m, Member::Mode(AuthorizationMode::Rbac))).collect();
        assert_eq!(modes, [false, true]);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        let webhook = "- type: Webhook\n  name: hook\n  webhook: {timeout: 40s, subjectAccessReviewVersion: v2, failurePolicy: Deny, \
                       matchConditionSubjectAccessReviewVersion: v1, matchConditions: [{expression: request.nonsense}], \
                       connectionInfo: {type: KubeConfigFile, kubeConfigFile: here}}\n";
        let told = refused(&file(webhook));
        for why in [
            "authorizers[2].webhook.timeout: Invalid value: \"40s\": must be <= 30s",
            "authorizers[2].webhook.subjectAccessReviewVersion: Unsupported value: \"v2\"",
            "authorizers[2].webhook.matchConditions[0].expression: Invalid value: \"request.nonsense\": compilation failed",
            "authorizers[2].webhook.connectionInfo.kubeConfigFile: Invalid value: \"here\": must be an absolute path",
        ] {
            assert!(told.contains(why), "{told}\nwanted: {why}");
        }
        assert!(refused(&file("- {type: RBAC, name: rbac}\n")).contains("authorizers[2].type: Duplicate value: \"RBAC\""));
        assert!(
            refused(&file("- {type: Webhook, name: x}\n")).contains("authorizers[2].webhook: Required value: required when type=Webhook")
        );
        assert!(refused(&file("- {type: Nonsense, name: x}\n")).contains("Unsupported value: \"Nonsense\""));
        assert_eq!(
            refused(&file("- {type: AlwaysDeny, name: never}\n")),
            "expected name alwaysdeny for authorizer AlwaysDeny instead of never"
        );
        assert!(refused("apiVersion: v1\nkind: Config\n").contains("is no AuthorizationConfiguration"));
    }
}
