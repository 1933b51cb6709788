//! Registry credentials from imagePullSecrets: which entry fits an image. Pure.

use serde_json::Value;
use tiphys_cri::AuthConfig;
use tiphys_meta::base64;
use tiphys_types::api::core::v1::Secret;

/// Credentials that fit, the most specific path first.
pub(crate) fn lookup<'a>(secrets: impl IntoIterator<Item = &'a Secret>, image: &str) -> Vec<AuthConfig> {
    let image = full_name(image);
    let mut found: Vec<(usize, AuthConfig)> = Vec::new();
    for secret in secrets {
        for (registry, entry) in entries(secret) {
            let pattern = normal(&registry);
            if matches(&pattern, &image) {
                found.push((pattern.len(), auth(&registry, &entry)));
            }
        }
    }
    found.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
    found.into_iter().map(|(_, auth)| auth).collect()
}

fn entries(secret: &Secret) -> Vec<(String, Value)> {
    let data = |key: &str| secret.data.as_ref().and_then(|d| d.get(key)).and_then(|b| serde_json::from_slice::<Value>(&b.0).ok());
    let auths = match secret.type_.as_deref() {
        Some("kubernetes.io/dockerconfigjson") => data(".dockerconfigjson").map(|v| v["auths"].clone()),
        Some("kubernetes.io/dockercfg") => data(".dockercfg"),
        _ => None,
    };
    match auths {
        Some(Value::Object(map)) => map.into_iter().collect(),
        _ => Vec::new(),
    }
}

/// Scheme and the old `/v1/`, `/v2/` go; Docker Hub has several names.
fn normal(registry: &str) -> String {
    let bare = registry.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/');
    let bare = bare.strip_suffix("/v1").or_else(|| bare.strip_suffix("/v2")).unwrap_or(bare);
    if bare == "docker.io" { "index.docker.io".into() } else { bare.into() }
}

fn full_name(image: &str) -> String {
    let first = image.split('/').next().unwrap_or_default();
    let has_host = image.contains('/') && (first.contains('.') || first.contains(':') || first == "localhost");
    let name = if has_host { image.to_owned() } else { format!("docker.io/{image}") };
    name.strip_prefix("docker.io/").map(|rest| format!("index.docker.io/{rest}")).unwrap_or(name)
}

/// Host parts may hold `*`; the path must be a prefix.
fn matches(pattern: &str, image: &str) -> bool {
    let (host_pattern, path_pattern) = pattern.split_once('/').unwrap_or((pattern, ""));
    let (host, path) = image.split_once('/').unwrap_or((image, ""));
    let (a, b): (Vec<&str>, Vec<&str>) = (host_pattern.split('.').collect(), host.split('.').collect());
    a.len() == b.len() && a.iter().zip(&b).all(|(p, part)| glob(p, part)) && path.starts_with(path_pattern)
}

fn glob(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((before, after)) => text.len() >= before.len() + after.len() && text.starts_with(before) && text.ends_with(after),
    }
}

fn auth(registry: &str, entry: &Value) -> AuthConfig {
    let text = |key: &str| entry[key].as_str().unwrap_or_default().to_owned();
    // Written with padding or without.
    let packed = text("auth");
    let padding = if packed.trim_end().ends_with('=') { "" } else { ["", "", "==", "="][packed.len() % 4] };
    let decoded = base64::decode(&(packed + padding)).ok().and_then(|b| String::from_utf8(b).ok()).unwrap_or_default();
    let (user, password) = decoded.split_once(':').unwrap_or_default();
    let or = |given: String, other: &str| if given.is_empty() { other.trim_end_matches('\0').to_owned() } else { given };
    AuthConfig {
        username: or(text("username"), user),
        password: or(text("password"), password),
        server_address: registry.to_owned(),
        identity_token: text("identitytoken"),
        ..AuthConfig::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_most_specific_entry_wins() {
        let config = json!({"auths": {
            "https://index.docker.io/v1/": {"auth": base64::encode(b"hub:secret").trim_end_matches('=')},
            "*.corp.io": {"username": "any", "password": "p"},
            "reg.corp.io/team": {"username": "team", "password": "p"}}});
        let secret = Secret {
            type_: Some("kubernetes.io/dockerconfigjson".into()),
            data: Some([(".dockerconfigjson".to_owned(), tiphys_types::ByteString(config.to_string().into_bytes()))].into()),
            ..Secret::default()
        };
        let users = |image: &str| lookup([&secret], image).into_iter().map(|a| a.username).collect::<Vec<_>>();
        assert_eq!(users("nginx"), ["hub"]);
        assert_eq!(users("docker.io/library/nginx:1"), ["hub"]);
        assert_eq!(users("reg.corp.io/team/app"), ["team", "any"]);
        assert_eq!(users("reg.corp.io/other"), ["any"]);
        assert_eq!(users("quay.io/x"), Vec::<String>::new());
    }
}
