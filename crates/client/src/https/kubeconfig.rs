use std::path::Path;

use serde::Deserialize;

use super::config::{Config, Identity};

/// The parts of `kind: Config` that are used. Certificates and tokens may stand in the file or beside it; relative paths start at its folder.
#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case", default)]
struct File {
    current_context: String,
    clusters: Vec<NamedCluster>,
    users: Vec<NamedUser>,
    contexts: Vec<NamedContext>,
}

#[derive(Deserialize)]
struct NamedCluster {
    name: String,
    cluster: Cluster,
}

#[derive(Deserialize)]
struct NamedUser {
    name: String,
    #[serde(default)]
    user: Option<User>,
}

#[derive(Deserialize)]
struct NamedContext {
    name: String,
    context: Context,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case", default)]
struct Cluster {
    server: String,
    certificate_authority: String,
    certificate_authority_data: String,
    insecure_skip_tls_verify: bool,
    tls_server_name: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case", default)]
struct User {
    client_certificate: String,
    client_certificate_data: String,
    client_key: String,
    client_key_data: String,
    token: String,
    #[serde(rename = "tokenFile")]
    token_file: String,
    username: String,
    password: String,
    #[serde(rename = "as")]
    impersonate: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Context {
    cluster: String,
    user: String,
    namespace: String,
}

pub(super) fn parse(text: &[u8], folder: &Path, context: &str) -> Result<Config, String> {
    let text = std::str::from_utf8(text).map_err(|e| e.to_string())?;
    let file: File = tiphys_yaml::from_str(text).map_err(|e| e.to_string())?;
    let wanted = if context.is_empty() { &file.current_context } else { context };
    let context = match file.contexts.iter().find(|c| c.name == wanted) {
        Some(named) => &named.context,
        None => return Err(format!("context {wanted:?} does not exist")),
    };
    let cluster =
        &file.clusters.iter().find(|c| c.name == context.cluster).ok_or(format!("cluster {:?} does not exist", context.cluster))?.cluster;
    let user = file.users.iter().find(|u| u.name == context.user).and_then(|u| u.user.as_ref());
    Ok(Config {
        server: cluster.server.clone(),
        ca: inline_or_file(&cluster.certificate_authority_data, &cluster.certificate_authority, folder)?.unwrap_or_default(),
        insecure_skip_tls_verify: cluster.insecure_skip_tls_verify,
        tls_server_name: cluster.tls_server_name.clone(),
        identity: user.map(|u| identity(u, folder)).transpose()?.unwrap_or_default(),
        impersonate: user.map(|u| u.impersonate.clone()).unwrap_or_default(),
        namespace: context.namespace.clone(),
        user_agent: String::new(),
        clock: None,
    })
}

fn identity(user: &User, folder: &Path) -> Result<Identity, String> {
    let in_files = user.client_certificate_data.is_empty() && user.client_key_data.is_empty();
    if in_files && !user.client_certificate.is_empty() && !user.client_key.is_empty() {
        return Ok(Identity::CertificateFiles { chain: folder.join(&user.client_certificate), key: folder.join(&user.client_key) });
    }
    let chain = inline_or_file(&user.client_certificate_data, &user.client_certificate, folder)?;
    let key = inline_or_file(&user.client_key_data, &user.client_key, folder)?;
    Ok(match (chain, key) {
        (Some(chain), Some(key)) => Identity::Certificate { chain, key },
        (Some(_), None) => return Err("a client certificate without its key".into()),
        _ if !user.token_file.is_empty() => Identity::TokenFile(folder.join(&user.token_file)),
        _ if !user.token.is_empty() => Identity::Token(user.token.clone()),
        _ if !user.username.is_empty() => Identity::Basic { username: user.username.clone(), password: user.password.clone() },
        _ => Identity::Anonymous,
    })
}

fn inline_or_file(data: &str, file: &str, folder: &Path) -> Result<Option<Vec<u8>>, String> {
    if !data.is_empty() {
        let decoded = tiphys_meta::base64::decode(data.trim()).map_err(|e| e.to_string())?;
        return Ok(Some(decoded));
    }
    if file.is_empty() {
        return Ok(None);
    }
    let path = folder.join(file);
    std::fs::read(&path).map(Some).map_err(|e| format!("{}: {e}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
apiVersion: v1
kind: Config
current-context: one
clusters:
- name: c
  cluster: {server: "https://127.0.0.1:6443", certificate-authority-data: Q0E=, tls-server-name: kubernetes}
users:
- name: cert
  user: {client-certificate-data: Q0VSVA==, client-key-data: S0VZ}
- name: tok
  user: {token: abc}
contexts:
- name: one
  context: {cluster: c, user: cert, namespace: web}
- name: two
  context: {cluster: c, user: tok}
- name: none
  context: {cluster: gone, user: tok}
"#;

    #[test]
    fn contexts_choose_cluster_and_user() {
        let config = parse(TEXT.as_bytes(), Path::new("."), "").ok();
        let config = config.as_ref();
        assert_eq!(
            config.map(|c| (c.server.as_str(), c.namespace.as_str(), c.ca.as_slice())),
            Some(("https://127.0.0.1:6443", "web", &b"CA"[..]))
        );
        assert!(matches!(config.map(|c| &c.identity), Some(Identity::Certificate { chain, key }) if chain == b"CERT" && key == b"KEY"));
        let two = parse(TEXT.as_bytes(), Path::new("."), "two").ok();
        assert!(matches!(two.map(|c| c.identity), Some(Identity::Token(t)) if t == "abc"));
    }

    #[test]
    fn what_is_missing_is_named() {
        assert_eq!(parse(TEXT.as_bytes(), Path::new("."), "nine").err().as_deref(), Some("context \"nine\" does not exist"));
        assert_eq!(parse(TEXT.as_bytes(), Path::new("."), "none").err().as_deref(), Some("cluster \"gone\" does not exist"));
    }
}
