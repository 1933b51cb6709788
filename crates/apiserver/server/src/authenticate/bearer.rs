//! Bearer tokens: those of the static file, service account tokens, ID tokens (OpenID Connect), and bootstrap tokens.
//!
//! Absent: webhook authenticators.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use tiphys_base::Clock;
use tiphys_registry::UserInfo;

use super::authenticated;
use super::issuers::Issuers;
use crate::objects::{Objects, known, text};
use crate::tokens::ServiceAccountTokens;

/// A token's user, and which of the wanted audiences the token is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub user: Arc<UserInfo>,
    pub audiences: Vec<String>,
}

/// A user, and the audiences of the token where its kind has any.
type WithAudiences = (Arc<UserInfo>, Option<Vec<String>>);

/// SHA-256 of a token.
type Fingerprint = [u8; ring::digest::SHA256_OUTPUT_LEN];

/// The tokens of the static file, by what they hash to.
pub type FixedTokens = HashMap<Fingerprint, Arc<UserInfo>>;

pub struct Bearer {
    fixed: FixedTokens,
    service_accounts: Arc<ServiceAccountTokens>,
    bootstrap: Option<Arc<dyn Objects>>,
    issuers: Option<Arc<Issuers>>,
    clock: Arc<dyn Clock>,
}

impl Bearer {
    pub fn new(
        fixed: FixedTokens,
        service_accounts: Arc<ServiceAccountTokens>,
        bootstrap: Option<Arc<dyn Objects>>,
        issuers: Option<Arc<Issuers>>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Bearer { fixed, service_accounts, bootstrap, issuers, clock }
    }

    pub(crate) fn metrics(&self, out: &mut String) {
        if let Some(issuers) = &self.issuers {
            issuers.metrics(out);
        }
    }

    /// `audiences` empty: those of this server. `Ok(None)`: nobody knows the token.
    pub fn identify(&self, token: &str, audiences: &[String]) -> Result<Option<Found>, String> {
        let api = self.service_accounts.api_audiences();
        let wanted = if audiences.is_empty() { api } else { audiences };
        let found = self.identify_by_scheme(token, wanted)?;
        // Tokens without audiences of their own are for this server alone.
        Ok(found.and_then(|(user, of_token)| {
            let of_token = of_token.unwrap_or_else(|| api.to_vec());
            let audiences: Vec<String> = wanted.iter().filter(|a| of_token.contains(a)).cloned().collect();
            (!audiences.is_empty()).then_some(Found { user, audiences })
        }))
    }

    fn identify_by_scheme(&self, token: &str, wanted: &[String]) -> Result<Option<WithAudiences>, String> {
        // Hashing first makes the look-up's time say nothing about how much of a guess was right.
        if let Some(user) = self.fixed.get(&fingerprint(token)) {
            return Ok(Some((user.clone(), None)));
        }
        if let Some((user, audiences)) = self.service_accounts.identify(token, wanted)? {
            return Ok(Some((user, Some(audiences))));
        }
        if let Some(issuers) = &self.issuers
            && let Some(user) = issuers.identify(token)?
        {
            return Ok(Some((user, None)));
        }
        Ok(self.bootstrap_user(token).map(|user| (user, None)))
    }

    /// `abcdef.0123456789abcdef`: a Secret of kube-system says who and until when.
    fn bootstrap_user(&self, token: &str) -> Option<Arc<UserInfo>> {
        let objects = self.bootstrap.as_ref()?;
        let (id, secret) = token.split_once('.').filter(|(id, secret)| id.len() == 6 && secret.len() == 16)?;
        if !token.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'.') {
            return None;
        }
        let object = objects.get(&known::SECRETS, "kube-system", &format!("bootstrap-token-{id}"))?;
        let field = |name: &str| {
            let raw = tiphys_meta::base64::decode(text(&object, &["data", name])).ok()?;
            String::from_utf8(raw).ok().filter(|value| !value.is_empty())
        };
        let alive = match field("expiration") {
            Some(until) => until.parse::<jiff::Timestamp>().is_ok_and(|until| until > self.clock.now()),
            None => true,
        };
        let good = text(&object, &["type"]) == "bootstrap.kubernetes.io/token"
            && tiphys_meta::object::deletion_timestamp(&object).is_none()
            && field("token-id").as_deref() == Some(id)
            && field("token-secret").is_some_and(|s| same(s.as_bytes(), secret.as_bytes()))
            && field("usage-bootstrap-authentication").as_deref() == Some("true")
            && alive;
        if !good {
            return None;
        }
        let mut user = UserInfo::new(format!("system:bootstrap:{id}"), &["system:bootstrappers"]);
        let extra = field("auth-extra-groups").unwrap_or_default();
        user.groups.extend(extra.split(',').map(str::trim).filter(|g| g.starts_with("system:bootstrappers:")).map(str::to_owned));
        Some(Arc::new(authenticated(user)))
    }
}

/// Equality in a time that does not depend on where the first difference is.
pub(crate) fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |acc, (x, y)| acc | (x ^ y)) == 0
}

fn fingerprint(token: &str) -> Fingerprint {
    let mut bytes = Fingerprint::default();
    bytes.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, token.as_bytes()).as_ref());
    bytes
}

#[derive(Debug, thiserror::Error)]
pub enum TokenFileError {
    #[error("{path}: {source}")]
    Read { path: String, source: std::io::Error },
    #[error("{path}, line {line}: a line needs at least token, user name and user uid")]
    Line { path: String, line: usize },
}

/// `--token-auth-file`: lines of `token,user,uid,"group1,group2"`.
pub fn read_token_file(path: &Path) -> Result<FixedTokens, TokenFileError> {
    let shown = path.display().to_string();
    let content = std::fs::read_to_string(path).map_err(|source| TokenFileError::Read { path: shown.clone(), source })?;
    let mut users = FixedTokens::new();
    for (number, line) in content.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()) {
        let fields = csv_fields(line);
        let [token, name, uid, groups @ ..] = fields.as_slice() else {
            return Err(TokenFileError::Line { path: shown, line: number + 1 });
        };
        let mut user = UserInfo::new(name.as_str(), &[]);
        user.uid.clone_from(uid);
        let groups = groups.first().map_or("", String::as_str);
        user.groups = groups.split(',').filter(|g| !g.is_empty()).map(str::to_owned).collect();
        users.insert(fingerprint(token), Arc::new(authenticated(user)));
    }
    Ok(users)
}

/// Fields of one line of CSV (RFC 4180): quoted ones may hold commas and doubled quotes.
fn csv_fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut chars = line.trim().chars().peekable();
    while let Some(c) = chars.next() {
        let last = fields.len() - 1;
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                fields[last].push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            ' ' if !quoted && fields[last].is_empty() => {}
            c => fields[last].push(c),
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::objects::fake::FakeObjects;
    use crate::tokens::Settings;
    use crate::tokens::keys::SigningKey;

    fn bootstrap(data: &[(&str, &str)]) -> Option<Arc<UserInfo>> {
        let objects = Arc::new(FakeObjects::default());
        let clock = tiphys_base::FakeClock::at(jiff::Timestamp::from_second(1_800_000_000).expect("time"));
        let b64 = |text: &str| tiphys_meta::base64::encode(text.as_bytes());
        let data: serde_json::Map<String, Value> = data.iter().map(|(k, v)| ((*k).to_owned(), json!(b64(v)))).collect();
        objects.put(
            &known::SECRETS,
            json!({"metadata": {"name": "bootstrap-token-abcdef", "namespace": "kube-system"}, "type": "bootstrap.kubernetes.io/token", "data": data}),
        );
        let settings = Settings {
            issuers: vec!["https://us".into()],
            api_audiences: vec!["https://us".into()],
            max_expiration_seconds: 0,
            extend_expiration: false,
            jwks_uri: String::new(),
        };
        let key = SigningKey::from_pem(&tiphys_base::pki::generate_key_pem().expect("key")).expect("signing key");
        let accounts = Arc::new(ServiceAccountTokens::new(settings, key, vec![], objects.clone(), clock.clone()));
        let bearer = Bearer::new(HashMap::new(), accounts, Some(objects), None, clock);
        bearer.identify("abcdef.0123456789abcdef", &[]).expect("no failure").map(|found| found.user)
    }

    #[test]
    fn bootstrap_tokens() {
        let good = [("token-id", "abcdef"), ("token-secret", "0123456789abcdef"), ("usage-bootstrap-authentication", "true")];
        let with = |more: &[(&'static str, &'static str)]| bootstrap(&[&good, more].concat());
        let user = with(&[]).expect("without an end it is good");
        assert_eq!(user.name, "system:bootstrap:abcdef");
        assert_eq!(user.groups, ["system:bootstrappers", "system:authenticated"]);
        let grouped = with(&[("expiration", "2027-06-01T00:00:00Z"), ("auth-extra-groups", "system:bootstrappers:kubeadm,system:masters")]);
        assert_eq!(grouped.expect("good").groups, ["system:bootstrappers", "system:bootstrappers:kubeadm", "system:authenticated"]);
        assert!(with(&[("expiration", "2026-01-01T00:00:00Z")]).is_none(), "over");
        assert!(with(&[("expiration", "soon")]).is_none());
        assert!(bootstrap(&good[..2]).is_none(), "not for authentication");
        assert!(bootstrap(&[good[0], ("token-secret", "another678901234"), good[2]]).is_none());
    }

    #[test]
    fn csv() {
        assert_eq!(csv_fields(r#"t,u,1,"a,b""#), ["t", "u", "1", "a,b"]);
        assert_eq!(csv_fields(r#"t, u, "say ""hi""""#), ["t", "u", r#"say "hi""#]);
    }
}
