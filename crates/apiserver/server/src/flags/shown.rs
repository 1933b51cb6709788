//! The configuration in the words of the flags, as `/flagz` shows it: of a server that was started without any as well. What came another way than by a
//! file has no name and stays empty. Secrets are in files only, and only their names are here.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::{AuditLog, Config, OidcIssuer, Pem, RequestHeader};

/// A flag and its value.
type Shown = (&'static str, String);

pub(crate) fn shown(config: &Config) -> BTreeMap<&'static str, String> {
    [serving, authentication, service_accounts, oidc, audit, objects].into_iter().flat_map(|part| part(config)).collect()
}

/// As Go prints a list of texts.
fn list(items: &[String]) -> String {
    format!("[{}]", items.join(","))
}

fn path(path: Option<&PathBuf>) -> String {
    path.map(|p| p.display().to_string()).unwrap_or_default()
}

fn pem(pem: Option<&Pem>) -> String {
    match pem {
        Some(Pem::File(file)) => file.display().to_string(),
        _ => String::new(),
    }
}

fn lasting(time: Duration) -> String {
    tiphys_meta::duration::go_string(i64::try_from(time.as_nanos()).unwrap_or(i64::MAX))
}

fn serving(config: &Config) -> Vec<Shown> {
    vec![
        ("advertise-address", config.advertise_address.map(|a| a.to_string()).unwrap_or_default()),
        ("bind-address", config.bind_address.to_string()),
        ("enable-priority-and-fairness", config.priority_and_fairness.to_string()),
        ("kubelet-certificate-authority", pem(config.kubelet.ca.as_ref())),
        ("kubelet-client-certificate", pem(config.kubelet.client.as_ref().map(|pair| &pair.cert))),
        ("kubelet-client-key", pem(config.kubelet.client.as_ref().map(|pair| &pair.key))),
        ("kubelet-preferred-address-types", list(&config.kubelet.preferred_address_types)),
        ("max-mutating-requests-inflight", config.max_mutating_requests_in_flight.to_string()),
        ("max-requests-inflight", config.max_requests_in_flight.to_string()),
        ("min-request-timeout", config.min_watch_timeout.as_secs().to_string()),
        ("proxy-client-cert-file", pem(config.proxy_client.as_ref().map(|pair| &pair.cert))),
        ("proxy-client-key-file", pem(config.proxy_client.as_ref().map(|pair| &pair.key))),
        ("request-timeout", lasting(config.request_timeout)),
        ("secure-port", config.secure_port.to_string()),
        ("tls-cert-file", pem(Some(&config.serving.cert))),
        ("tls-private-key-file", pem(Some(&config.serving.key))),
    ]
}

fn authentication(config: &Config) -> Vec<Shown> {
    let proxies = config.request_header.as_ref();
    let of_proxies = |field: fn(&RequestHeader) -> &Vec<String>| list(proxies.map_or(&[][..], |p| field(p)));
    let modes: Vec<String> = config.authorization.iter().map(|mode| mode.name().to_owned()).collect();
    vec![
        ("anonymous-auth", config.anonymous.shown()),
        ("authorization-config", path(config.authorization_file.as_ref())),
        ("authorization-mode", if config.authorization_file.is_some() { "[]".to_owned() } else { list(&modes) }),
        ("client-ca-file", pem(config.client_ca.as_ref())),
        ("enable-bootstrap-token-auth", config.bootstrap_tokens.to_string()),
        ("requestheader-allowed-names", of_proxies(|p| &p.allowed_names)),
        ("requestheader-client-ca-file", pem(proxies.map(|p| &p.client_ca))),
        ("requestheader-extra-headers-prefix", of_proxies(|p| &p.extra_header_prefixes)),
        ("requestheader-group-headers", of_proxies(|p| &p.group_headers)),
        ("requestheader-uid-headers", of_proxies(|p| &p.uid_headers)),
        ("requestheader-username-headers", of_proxies(|p| &p.username_headers)),
        ("token-auth-file", path(config.token_auth_file.as_ref())),
    ]
}

fn service_accounts(config: &Config) -> Vec<Shown> {
    let accounts = &config.service_accounts;
    let keys: Vec<String> = accounts.verify_keys.iter().map(|key| pem(Some(key))).filter(|key| !key.is_empty()).collect();
    vec![
        ("api-audiences", list(&accounts.api_audiences)),
        ("service-account-extend-token-expiration", accounts.extend_token_expiration.to_string()),
        ("service-account-issuer", list(&accounts.issuers)),
        ("service-account-jwks-uri", accounts.jwks_uri.clone().unwrap_or_default()),
        ("service-account-key-file", list(&keys)),
        ("service-account-lookup", "true".to_owned()),
        ("service-account-max-token-expiration", format!("{}s", accounts.max_token_expiration_seconds)),
        ("service-account-signing-key-file", pem(Some(&accounts.signing_key))),
    ]
}

fn oidc(config: &Config) -> Vec<Shown> {
    let oidc = config.oidc.as_ref();
    let of_issuer = |field: fn(&OidcIssuer) -> String| oidc.map(field).unwrap_or_default();
    vec![
        ("oidc-ca-file", pem(oidc.and_then(|issuer| issuer.ca.as_ref()))),
        ("oidc-client-id", of_issuer(|issuer| issuer.client_id.clone())),
        ("oidc-groups-claim", of_issuer(|issuer| issuer.groups_claim.clone().unwrap_or_default())),
        ("oidc-groups-prefix", of_issuer(|issuer| issuer.groups_prefix.clone())),
        ("oidc-issuer-url", of_issuer(|issuer| issuer.url.clone())),
        (
            "oidc-required-claim",
            of_issuer(|issuer| issuer.required_claims.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(",")),
        ),
        ("oidc-signing-algs", "[RS256,ES256]".to_owned()),
        ("oidc-username-claim", of_issuer(|issuer| issuer.username_claim.clone())),
        ("oidc-username-prefix", of_issuer(|issuer| issuer.username_prefix.clone().unwrap_or_default())),
    ]
}

fn audit(config: &Config) -> Vec<Shown> {
    let audit = config.audit.as_ref();
    let of_log = |field: fn(&AuditLog) -> String| audit.map(field).unwrap_or_default();
    vec![
        ("audit-log-format", "json".to_owned()),
        ("audit-log-maxage", of_log(|log| log.max_days.to_string())),
        ("audit-log-maxbackup", of_log(|log| log.max_backups.to_string())),
        ("audit-log-maxsize", of_log(|log| log.max_megabytes.to_string())),
        ("audit-log-path", of_log(|log| log.path.display().to_string())),
        ("audit-policy-file", path(audit.and_then(|log| log.policy_file.as_ref()))),
    ]
}

fn objects(config: &Config) -> Vec<Shown> {
    let (first, last) = config.service_node_port_range;
    vec![
        ("admission-control-config-file", path(config.admission.as_ref())),
        ("allow-privileged", "true".to_owned()),
        ("authentication-config", path(config.authentication.as_ref())),
        ("data-dir", path(config.storage.folder())),
        ("disable-admission-plugins", "[]".to_owned()),
        ("enable-admission-plugins", "[]".to_owned()),
        ("encryption-provider-config", path(config.encryption.as_ref())),
        ("etcd-servers", "[embedded]".to_owned()),
        ("runtime-config", String::new()),
        ("service-cluster-ip-range", config.service_cluster_ip_ranges.join(",")),
        ("service-node-port-range", format!("{first}-{last}")),
    ]
}
