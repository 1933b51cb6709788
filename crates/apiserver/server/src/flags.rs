//! kube-apiserver's flags, by upstream's names, to a [`Config`]. A flag that is not known is an error with the nearest one that is.
//!
//! Absent: the many flags whose feature is absent (webhooks, egress, tracing): they are refused, not swallowed.

mod shown;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command};
use tiphys_base::pki::{Authority, Names, Subject, Use};
use tiphys_base::{Clock, SystemClock};

use crate::config::{Anonymous, AuditLog, AuthorizationMode, Config, OidcIssuer, Pem, PemPair, RequestHeader, Storage};
pub(crate) use shown::shown;

#[derive(Debug, thiserror::Error)]
pub enum FlagError {
    /// Help and version come this way too; clap prints them.
    #[error(transparent)]
    Usage(#[from] clap::Error),
    #[error("--{flag}: {why}")]
    Value { flag: &'static str, why: String },
    #[error("--{0} is needed")]
    Missing(&'static str),
    #[error("cannot make a serving certificate in {folder}: {why}")]
    Certificate { folder: String, why: String },
}

/// What the flags come to.
pub struct Parsed {
    pub config: Config,
    /// `-v`: klog's verbosity.
    pub verbosity: u8,
}

/// `program` is how the command was called, for its help.
pub fn command(program: &'static str) -> Command {
    Command::new(program).about("The Kubernetes API server").args(serving()).args(authentication()).args(service_accounts()).args(objects())
}

pub fn parse(program: &'static str, args: impl IntoIterator<Item = String>) -> Result<Parsed, FlagError> {
    let args = std::iter::once(program.to_owned()).chain(args);
    from_matches(&command(program).try_get_matches_from(args)?)
}

fn value(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name("VALUE").help(help).action(ArgAction::Set)
}

fn list(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name("A,B").help(help).action(ArgAction::Append).value_delimiter(',')
}

/// As Go's: `--flag`, `--flag=true`, `--flag=false`.
fn switch(name: &'static str, help: &'static str) -> Arg {
    value(name, help)
        .num_args(0..=1)
        .require_equals(true)
        .default_missing_value("true")
        .value_parser(clap::builder::BoolishValueParser::new())
}

fn serving() -> Vec<Arg> {
    vec![
        value("bind-address", "address to listen on").value_parser(clap::value_parser!(IpAddr)),
        value("secure-port", "port to listen on; 0 takes any").value_parser(clap::value_parser!(u16)),
        value("advertise-address", "address that members of the cluster use").value_parser(clap::value_parser!(IpAddr)),
        value("tls-cert-file", "serving certificate with its chain (PEM)"),
        value("tls-private-key-file", "key of --tls-cert-file (PEM)"),
        value("cert-dir", "folder for a self-signed certificate where --tls-cert-file is not given"),
        switch("enable-priority-and-fairness", "queue requests by priority level; on by default"),
        value("max-requests-inflight", "reads under way at once; 0: no limit").value_parser(clap::value_parser!(usize)),
        value("max-mutating-requests-inflight", "writes under way at once; 0: no limit").value_parser(clap::value_parser!(usize)),
        value("request-timeout", "how long a request may take"),
        value("min-request-timeout", "the least that a watch lasts, in seconds").value_parser(clap::value_parser!(u64)),
        value("kubelet-client-certificate", "certificate for kubelets (PEM)"),
        value("kubelet-client-key", "key of --kubelet-client-certificate (PEM)"),
        value("kubelet-certificate-authority", "CA of kubelets' serving certificates (PEM)"),
        list("kubelet-preferred-address-types", "node address types in order of preference"),
        value("proxy-client-cert-file", "certificate for aggregated API servers (PEM)"),
        value("proxy-client-key-file", "key of --proxy-client-cert-file (PEM)"),
        Arg::new("v").short('v').long("v").value_name("LEVEL").help("verbosity of the log").value_parser(clap::value_parser!(u8)),
    ]
}

fn authentication() -> Vec<Arg> {
    vec![
        value("client-ca-file", "CA of client certificates (PEM)"),
        value("token-auth-file", "static tokens: token,user,uid,\"group1,group2\""),
        switch("enable-bootstrap-token-auth", "accept bootstrap tokens"),
        switch("anonymous-auth", "let requests without credentials in as system:anonymous; without this flag only health paths are open"),
        value("authorization-config", "file that says who authorizes, in order, webhooks among them; in the place of --authorization-mode"),
        list("authorization-mode", "Node, RBAC, AlwaysAllow, AlwaysDeny, in order"),
        value("requestheader-client-ca-file", "CA of authenticating proxies (PEM)"),
        list("requestheader-allowed-names", "common names of authenticating proxies; empty: any"),
        list("requestheader-username-headers", "headers with the user name"),
        list("requestheader-uid-headers", "headers with the user's uid"),
        list("requestheader-group-headers", "headers with groups"),
        list("requestheader-extra-headers-prefix", "prefixes of headers with extra fields"),
    ]
}

fn service_accounts() -> Vec<Arg> {
    vec![
        list("service-account-issuer", "issuers of tokens; the first one signs"),
        list("api-audiences", "audiences of tokens; the issuer where none is given"),
        value("service-account-signing-key-file", "private key that signs tokens (PEM, PKCS #8)"),
        list("service-account-key-file", "keys that verify tokens (PEM)"),
        value("service-account-jwks-uri", "where verifiers find the keys"),
        value("service-account-max-token-expiration", "the longest that a token lives"),
        switch("service-account-extend-token-expiration", "let old projected tokens live a year"),
        switch("service-account-lookup", "tokens are always held against their objects; false is refused"),
    ]
}

fn objects() -> Vec<Arg> {
    vec![
        value("etcd-servers", "'embedded', the only store so far"),
        value("data-dir", "folder of the embedded store"),
        value("authentication-config", "file that says whose JWTs are believed and how they are read; in the place of --oidc-*"),
        value("oidc-issuer-url", "the issuer whose ID tokens are believed; https://"),
        value("oidc-client-id", "the audience of its tokens"),
        value("oidc-ca-file", "who signs the issuer's certificate; by default the machine's CAs"),
        value("oidc-username-claim", "the claim that is the user's name; sub by default"),
        value("oidc-username-prefix", "put before the name; '-' for none"),
        value("oidc-groups-claim", "the claim that lists groups"),
        value("oidc-groups-prefix", "put before each group"),
        list("oidc-required-claim", "name=value that a token must have"),
        list("oidc-signing-algs", "RS256, ES256"),
        value("encryption-provider-config", "file that says which resources are encrypted at rest, and with which keys"),
        value("audit-policy-file", "what is audited (audit.k8s.io/v1 Policy); by default writes and what people read, at Metadata"),
        value("audit-log-path", "the audit log; '-' is standard output, '' is off, <data-dir>/audit/audit.log by default"),
        value("audit-log-maxsize", "megabytes before it is rotated").value_parser(clap::value_parser!(u64)),
        value("audit-log-maxbackup", "rotated files that are kept; 0: all").value_parser(clap::value_parser!(usize)),
        value("audit-log-maxage", "days that rotated files are kept; 0: for ever").value_parser(clap::value_parser!(u64)),
        value("audit-log-format", "json"),
        list("service-cluster-ip-range", "ranges of ClusterIPs, at most one per family"),
        value("service-node-port-range", "ports of NodePort Services, 30000-32767 by default"),
        list("enable-admission-plugins", "plugins that must run; those that do not are refused"),
        list("disable-admission-plugins", "refused so far"),
        value("admission-control-config-file", "file with the configurations of admission plugins (PodSecurity)"),
        list("runtime-config", "group/version=true for what must be served"),
        switch("allow-privileged", "privileged containers are allowed; false is refused"),
    ]
}

fn strings(m: &ArgMatches, flag: &str) -> Vec<String> {
    m.get_many::<String>(flag).into_iter().flatten().filter(|v| !v.is_empty()).cloned().collect()
}

fn file(m: &ArgMatches, flag: &str) -> Option<Pem> {
    m.get_one::<String>(flag).map(|path| Pem::File(PathBuf::from(path)))
}

fn pair(m: &ArgMatches, cert: &'static str, key: &'static str) -> Result<Option<PemPair>, FlagError> {
    match (file(m, cert), file(m, key)) {
        (Some(cert), Some(key)) => Ok(Some(PemPair { cert, key })),
        (None, None) => Ok(None),
        (Some(_), None) => Err(FlagError::Missing(key)),
        (None, Some(_)) => Err(FlagError::Missing(cert)),
    }
}

fn wrong<T>(flag: &'static str, why: impl Into<String>) -> Result<T, FlagError> {
    Err(FlagError::Value { flag, why: why.into() })
}

pub fn from_matches(m: &ArgMatches) -> Result<Parsed, FlagError> {
    let serving = match pair(m, "tls-cert-file", "tls-private-key-file")? {
        Some(pair) => pair,
        None => self_signed(Path::new(m.get_one::<String>("cert-dir").map_or("/var/run/kubernetes", String::as_str)))?,
    };
    let signing = file(m, "service-account-signing-key-file").ok_or(FlagError::Missing("service-account-signing-key-file"))?;
    let mut config = Config::new(serving, signing);
    set(m, "bind-address", &mut config.bind_address);
    set(m, "secure-port", &mut config.secure_port);
    set(m, "max-requests-inflight", &mut config.max_requests_in_flight);
    set(m, "max-mutating-requests-inflight", &mut config.max_mutating_requests_in_flight);
    set(m, "enable-priority-and-fairness", &mut config.priority_and_fairness);
    set(m, "enable-bootstrap-token-auth", &mut config.bootstrap_tokens);
    if m.get_one::<bool>("allow-privileged") == Some(&false) {
        return wrong(
            "allow-privileged",
            "privileged containers cannot be switched off here; Pod Security Admission limits them by namespace",
        );
    }
    config.advertise_address = m.get_one("advertise-address").copied();
    config.client_ca = file(m, "client-ca-file");
    config.token_auth_file = m.get_one::<String>("token-auth-file").map(PathBuf::from);
    check_admission(m)?;
    config.kubelet.client = pair(m, "kubelet-client-certificate", "kubelet-client-key")?;
    config.kubelet.ca = file(m, "kubelet-certificate-authority");
    config.kubelet.preferred_address_types = strings(m, "kubelet-preferred-address-types");
    config.proxy_client = pair(m, "proxy-client-cert-file", "proxy-client-key-file")?;
    if let Some(anonymous) = m.get_one::<bool>("anonymous-auth") {
        config.anonymous = if *anonymous { Anonymous::On } else { Anonymous::Off };
    }
    if let Some(text) = m.get_one::<String>("request-timeout") {
        config.request_timeout = duration("request-timeout", text)?;
    }
    if let Some(seconds) = m.get_one::<u64>("min-request-timeout") {
        config.min_watch_timeout = Duration::from_secs(*seconds);
    }
    config.storage = storage(m)?;
    config.admission = m.get_one::<String>("admission-control-config-file").map(PathBuf::from);
    config.encryption = m.get_one::<String>("encryption-provider-config").map(PathBuf::from);
    config.oidc = oidc(m)?;
    config.authentication = m.get_one::<String>("authentication-config").map(PathBuf::from);
    if config.oidc.is_some() && config.authentication.is_some() {
        return wrong("authentication-config", "the --oidc-* flags cannot be given with it");
    }
    config.audit = audit(m, &config.storage)?;
    config.request_header = request_header(m)?;
    set_modes(m, &mut config)?;
    set_service_accounts(m, &mut config)?;
    set_services(m, &mut config)?;
    check_runtime_config(&strings(m, "runtime-config"))?;
    Ok(Parsed { config, verbosity: m.get_one("v").copied().unwrap_or(0) })
}

fn set<T: Clone + Send + Sync + 'static>(m: &ArgMatches, flag: &str, field: &mut T) {
    if let Some(value) = m.get_one::<T>(flag) {
        field.clone_from(value);
    }
}

fn storage(m: &ArgMatches) -> Result<Storage, FlagError> {
    match m.get_one::<String>("etcd-servers").map(String::as_str) {
        None | Some("embedded") => {}
        Some(other) => {
            return wrong("etcd-servers", format!("{other:?}: an outside etcd is not supported yet; say 'embedded', with --data-dir"));
        }
    }
    let folder = m.get_one::<String>("data-dir").ok_or(FlagError::Missing("data-dir"))?;
    Ok(Storage::Embedded(PathBuf::from(folder)))
}

fn oidc(m: &ArgMatches) -> Result<Option<OidcIssuer>, FlagError> {
    let one = |flag: &str| m.get_one::<String>(flag).filter(|v| !v.is_empty()).cloned();
    let Some(url) = one("oidc-issuer-url") else { return Ok(None) };
    if let Some(other) = strings(m, "oidc-signing-algs").into_iter().find(|a| !matches!(a.as_str(), "RS256" | "ES256")) {
        return wrong("oidc-signing-algs", format!("{other}: only RS256 and ES256 are verified"));
    }
    let mut required_claims = Vec::new();
    for pair in strings(m, "oidc-required-claim") {
        match pair.split_once('=') {
            Some((name, value)) => required_claims.push((name.to_owned(), value.to_owned())),
            None => return wrong("oidc-required-claim", format!("{pair:?} is no name=value")),
        }
    }
    Ok(Some(OidcIssuer {
        url,
        client_id: one("oidc-client-id").ok_or(FlagError::Missing("oidc-client-id"))?,
        ca: file(m, "oidc-ca-file"),
        username_claim: one("oidc-username-claim").unwrap_or_else(|| "sub".to_owned()),
        username_prefix: one("oidc-username-prefix"),
        groups_claim: one("oidc-groups-claim"),
        groups_prefix: one("oidc-groups-prefix").unwrap_or_default(),
        required_claims,
    }))
}

/// On by default, beside the store; an empty path turns it off.
fn audit(m: &ArgMatches, storage: &Storage) -> Result<Option<AuditLog>, FlagError> {
    let folder = match storage {
        Storage::Embedded(folder) => folder.join("audit"),
        Storage::Memory => PathBuf::from("."),
    };
    let mut log = AuditLog { path: folder.join("audit.log"), ..AuditLog::default() };
    log.policy_file = m.get_one::<String>("audit-policy-file").map(PathBuf::from);
    match m.get_one::<String>("audit-log-path").map(String::as_str) {
        Some("") => return Ok(None),
        Some(path) => log.path = PathBuf::from(path),
        None => {}
    }
    set(m, "audit-log-maxsize", &mut log.max_megabytes);
    set(m, "audit-log-maxbackup", &mut log.max_backups);
    set(m, "audit-log-maxage", &mut log.max_days);
    match m.get_one::<String>("audit-log-format").map(String::as_str) {
        None | Some("json") => Ok(Some(log)),
        Some(other) => wrong("audit-log-format", format!("{other:?}: only json is written")),
    }
}

fn set_modes(m: &ArgMatches, config: &mut Config) -> Result<(), FlagError> {
    let modes = strings(m, "authorization-mode");
    config.authorization_file = m.get_one::<String>("authorization-config").map(PathBuf::from);
    if config.authorization_file.is_some() && !modes.is_empty() {
        return wrong("authorization-config", "--authorization-mode cannot be given with it");
    }
    if !modes.is_empty() {
        config.authorization.clear();
    }
    for mode in modes {
        match AuthorizationMode::named(&mode) {
            Some(mode) => config.authorization.push(mode),
            None => return wrong("authorization-mode", format!("{mode:?} is not one of Node, RBAC, AlwaysAllow, AlwaysDeny")),
        }
    }
    Ok(())
}

fn set_service_accounts(m: &ArgMatches, config: &mut Config) -> Result<(), FlagError> {
    let accounts = &mut config.service_accounts;
    let issuers = strings(m, "service-account-issuer");
    if issuers.is_empty() {
        return Err(FlagError::Missing("service-account-issuer"));
    }
    accounts.issuers = issuers;
    accounts.api_audiences = strings(m, "api-audiences");
    accounts.verify_keys = strings(m, "service-account-key-file").into_iter().map(|p| Pem::File(p.into())).collect();
    accounts.jwks_uri = m.get_one::<String>("service-account-jwks-uri").cloned();
    set(m, "service-account-extend-token-expiration", &mut accounts.extend_token_expiration);
    if m.get_one::<bool>("service-account-lookup") == Some(&false) {
        return wrong("service-account-lookup", "tokens are always held against their objects");
    }
    if let Some(text) = m.get_one::<String>("service-account-max-token-expiration") {
        let seconds = duration("service-account-max-token-expiration", text)?.as_secs();
        accounts.max_token_expiration_seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    }
    Ok(())
}

fn set_services(m: &ArgMatches, config: &mut Config) -> Result<(), FlagError> {
    let ranges = strings(m, "service-cluster-ip-range");
    if !ranges.is_empty() {
        config.service_cluster_ip_ranges = ranges;
    }
    if let Some(text) = m.get_one::<String>("service-node-port-range") {
        let parsed = text.split_once('-').and_then(|(a, b)| Some((a.trim().parse().ok()?, b.trim().parse().ok()?)));
        match parsed.filter(|(first, last): &(u16, u16)| first <= last) {
            Some(range) => config.service_node_port_range = range,
            None => return wrong("service-node-port-range", format!("{text:?} is no range like 30000-32767")),
        }
    }
    Ok(())
}

fn request_header(m: &ArgMatches) -> Result<Option<RequestHeader>, FlagError> {
    let Some(client_ca) = file(m, "requestheader-client-ca-file") else { return Ok(None) };
    let username_headers = strings(m, "requestheader-username-headers");
    if username_headers.is_empty() {
        return Err(FlagError::Missing("requestheader-username-headers"));
    }
    Ok(Some(RequestHeader {
        client_ca,
        allowed_names: strings(m, "requestheader-allowed-names"),
        username_headers,
        uid_headers: strings(m, "requestheader-uid-headers"),
        group_headers: strings(m, "requestheader-group-headers"),
        extra_header_prefixes: strings(m, "requestheader-extra-headers-prefix"),
    }))
}

/// Plugins that run in any case may be named; the set cannot be changed yet, and a flag that does nothing must not pass.
fn check_admission(m: &ArgMatches) -> Result<(), FlagError> {
    const ALWAYS: [&str; 26] = [
        "NamespaceLifecycle",
        "LimitRanger",
        "ServiceAccount",
        "TaintNodesByCondition",
        "PodSecurity",
        "Priority",
        "DefaultTolerationSeconds",
        "DefaultStorageClass",
        "StorageObjectInUseProtection",
        "PersistentVolumeClaimResize",
        "RuntimeClass",
        "CertificateApproval",
        "CertificateSigning",
        "ClusterTrustBundleAttest",
        "CertificateSubjectRestriction",
        "DefaultIngressClass",
        "PodTopologyLabels",
        "PodResizeValidator",
        "ResourceQuota",
        "NodeRestriction",
        "OwnerReferencesPermissionEnforcement",
        "NodeDeclaredFeatureValidator",
        "MutatingAdmissionPolicy",
        "MutatingAdmissionWebhook",
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionWebhook",
    ];
    if let Some(other) = strings(m, "enable-admission-plugins").into_iter().find(|p| !ALWAYS.contains(&p.as_str())) {
        return wrong("enable-admission-plugins", format!("{other} is not supported yet"));
    }
    match strings(m, "disable-admission-plugins").first() {
        Some(plugin) => wrong("disable-admission-plugins", format!("{plugin} cannot be switched off yet")),
        None => Ok(()),
    }
}

/// What is served is served: entries may say so, and nothing else.
fn check_runtime_config(pairs: &[String]) -> Result<(), FlagError> {
    for pair in pairs {
        let (key, value) = pair.split_once('=').unwrap_or((pair, "true"));
        let (group, version) = key.split_once('/').unwrap_or(("", key));
        let group = if group == "api" && version == "v1" { "" } else { group };
        let facts = tiphys_schema::Facts::builtin();
        let served =
            facts.groups().iter().any(|g| g.name == group && g.versions.contains(&version)) || matches!(key, "api/ga" | "api/legacy");
        match value {
            "true" if served => {}
            "true" => return wrong("runtime-config", format!("{key} is not served by this server")),
            "false" if served => return wrong("runtime-config", format!("{key} cannot be switched off yet")),
            "false" => {}
            other => return wrong("runtime-config", format!("{key}: {other:?} is neither true nor false")),
        }
    }
    Ok(())
}

/// Go's durations: `1h30m`, `45s`, `500ms`.
pub fn duration(flag: &'static str, text: &str) -> Result<Duration, FlagError> {
    let bad = || FlagError::Value { flag, why: format!("{text:?} is no duration like 1h30m or 45s") };
    let (mut rest, mut total) = (text, 0.0);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(bad)?;
        let (number, tail) = rest.split_at(digits);
        let unit = tail.find(|c: char| c.is_ascii_digit() || c == '.').map_or(tail, |end| &tail[..end]);
        let seconds = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            _ => return Err(bad()),
        };
        total += number.parse::<f64>().map_err(|_| bad())? * seconds;
        rest = &tail[unit.len()..];
    }
    Duration::try_from_secs_f64(total).map_err(|_| bad()).and_then(|d| if text.is_empty() { Err(bad()) } else { Ok(d) })
}

/// A certificate by a CA of its own, kept in `folder` under upstream's names.
fn self_signed(folder: &Path) -> Result<PemPair, FlagError> {
    let (cert, key) = (folder.join("apiserver.crt"), folder.join("apiserver.key"));
    let failed = |why: String| FlagError::Certificate { folder: folder.display().to_string(), why };
    if !(cert.exists() && key.exists()) {
        let (now, year) = (SystemClock.now(), Duration::from_secs(365 * 86_400));
        let names = Names {
            dns: ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"].map(str::to_owned).to_vec(),
            ips: vec![IpAddr::from([127, 0, 0, 1])],
        };
        let subject = Subject { common_name: "kube-apiserver".into(), organizations: vec![] };
        let ca = Authority::generate("kube-apiserver-ca", now, year).map_err(|e| failed(e.to_string()))?;
        let id = ca.issue(&subject, &names, Use::Server, now, year).map_err(|e| failed(e.to_string()))?;
        std::fs::create_dir_all(folder).map_err(|e| failed(e.to_string()))?;
        let chain = format!("{}{}", id.cert_pem, ca.cert_pem());
        tiphys_base::files::write_atomic(&cert, chain.as_bytes(), 0o644).map_err(|e| failed(e.to_string()))?;
        tiphys_base::files::write_atomic(&key, id.key_pem.as_bytes(), 0o600).map_err(|e| failed(e.to_string()))?;
    }
    Ok(PemPair { cert: Pem::File(cert), key: Pem::File(key) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEEDED: &str =
        "--tls-cert-file=c --tls-private-key-file=k --service-account-signing-key-file=s --service-account-issuer=https://x --data-dir=d";

    fn given(more: &str) -> Result<Config, String> {
        let args = NEEDED.split(' ').chain(more.split_whitespace()).map(str::to_owned);
        parse("kube-apiserver", args).map(|p| p.config).map_err(|e| e.to_string())
    }

    #[test]
    fn flags_become_configuration() {
        let config = given(
            "--secure-port 0 --bind-address=127.0.0.1 --authorization-mode=Node,RBAC --allow-privileged=true --anonymous-auth=false \
             --service-cluster-ip-range=10.96.0.0/16 --service-node-port-range=31000-31999 --request-timeout=1m30s -v 2 \
             --api-audiences=a,b --runtime-config=apps/v1=true,x/v1=false --enable-admission-plugins=NodeRestriction",
        )
        .expect("good flags");
        assert_eq!((config.secure_port, config.service_node_port_range), (0, (31000, 31999)));
        assert_eq!(config.anonymous, Anonymous::Off);
        assert_eq!(config.authorization, [AuthorizationMode::Node, AuthorizationMode::Rbac]);
        assert_eq!(config.request_timeout, Duration::from_secs(90));
        assert_eq!(config.service_accounts.api_audiences, ["a", "b"]);
    }

    #[test]
    fn every_flag_is_shown() {
        // The folder is where other flags' files are by default; the log's verbosity is the process's.
        let elsewhere = ["cert-dir", "v"];
        let command = command("kube-apiserver");
        let mut known: Vec<&str> = command.get_arguments().map(|a| a.get_id().as_str()).filter(|name| !elsewhere.contains(name)).collect();
        known.sort_unstable();
        let config = given("--authorization-mode=Node,RBAC --request-timeout=90s --service-account-key-file=a,b").expect("good flags");
        let shown = shown(&config);
        assert_eq!(shown.keys().copied().collect::<Vec<_>>(), known);
        for (flag, value) in [
            ("authorization-mode", "[Node,RBAC]"),
            ("request-timeout", "1m30s"),
            ("service-account-key-file", "[a,b]"),
            ("anonymous-auth", "/livez,/readyz,/healthz"),
            ("data-dir", "d"),
            ("tls-private-key-file", "k"),
        ] {
            assert_eq!(shown[flag], value, "{flag}");
        }
    }

    #[test]
    fn wrong_flags_say_what_is_wrong() {
        let error = |more: &str| given(more).map(drop).expect_err("refused");
        assert!(error("--secure-prot=1").contains("--secure-port"), "{}", error("--secure-prot=1"));
        assert!(error("--etcd-servers=http://127.0.0.1:2379").contains("embedded"));
        assert!(error("--authorization-mode=ABAC").contains("ABAC"));
        assert!(error("--runtime-config=apps/v1=false").contains("cannot be switched off"));
        assert!(error("--enable-admission-plugins=AlwaysPullImages").contains("AlwaysPullImages"));
        assert!(error("--service-node-port-range=5").contains("30000-32767"));
        assert!(error("--request-timeout=5").contains("45s"));
        assert!(parse("kube-apiserver", ["--data-dir=d".to_owned(), "--cert-dir=/proc/none".to_owned()]).is_err());
    }
}
