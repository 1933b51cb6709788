//! OpenID Connect: ID tokens of one issuer. What its claims say is `claims`'; keys come from the issuer's discovery document, and are fetched again when a token
//! names one that is not known.
//!
//! Absent: distributed claims, signing algorithms other than RS256 and ES256.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::{Request, header};
use rustls::ClientConfig;
use serde_json::Value;
use tiphys_base::Clock;
use tiphys_base::tls::{self, ServerTrust, TlsError};
use tiphys_registry::UserInfo;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::authenticated;
use super::claims::Authenticator;
use crate::body;
use crate::config::Pem;
use crate::objects::{items, text};
use crate::streams::{Dialer, boxed};
use crate::tokens::jwt::{self, JwtError};
use crate::tokens::keys::VerifyKey;

/// Between two fetches, whoever asks for them.
const APART: Duration = Duration::from_secs(10);
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

#[derive(Debug, thiserror::Error)]
pub enum OidcError {
    #[error("the CA of an OpenID issuer: {0}")]
    Read(#[from] std::io::Error),
    #[error("the CA of an OpenID issuer: {0}")]
    Tls(#[from] TlsError),
    #[error("--oidc-issuer-url: {0:?} is no https:// address")]
    Issuer(String),
}

pub struct Oidc {
    issuer: Authenticator,
    issuers: [String; 1],
    tls: Arc<ClientConfig>,
    keys: ArcSwap<Vec<VerifyKey>>,
    unknown_key: Notify,
    clock: Arc<dyn Clock>,
    gone: CancellationToken,
}

impl Oidc {
    pub(super) fn new(issuer: Authenticator, clock: Arc<dyn Clock>) -> Result<Arc<Self>, OidcError> {
        if !issuer.url.starts_with("https://") {
            return Err(OidcError::Issuer(issuer.url));
        }
        let ca = issuer.ca.as_ref().map(Pem::read).transpose()?;
        let trust = ca.as_ref().map_or(ServerTrust::Machine, |pem| ServerTrust::Ca(pem.as_bytes()));
        let tls = Arc::new(tls::client(trust, None)?);
        let issuers = [issuer.url.clone()];
        Ok(Arc::new(Oidc {
            issuer,
            issuers,
            tls,
            keys: ArcSwap::default(),
            unknown_key: Notify::new(),
            clock,
            gone: CancellationToken::new(),
        }))
    }

    /// None: another's token.
    pub(super) fn identify(&self, token: &str) -> Result<Option<Arc<UserInfo>>, String> {
        let keys = self.keys.load();
        let claims = match jwt::verify(token, self.issuers.iter().map(String::as_str), &keys) {
            Ok(claims) => claims,
            Err(JwtError::Foreign) => return Ok(None),
            Err(error) => {
                self.unknown_key.notify_one();
                return Err(format!("oidc: {error}"));
            }
        };
        self.user_of(&claims).map(Some).map_err(|why| format!("oidc: {why}"))
    }

    fn user_of(&self, claims: &Value) -> Result<Arc<UserInfo>, String> {
        let exp = claims.get("exp").and_then(Value::as_i64).ok_or("the token has no expiry")?;
        let now = self.clock.now().as_second();
        if now > exp || claims.get("nbf").and_then(Value::as_i64).is_some_and(|nbf| now < nbf) {
            return Err("the token is expired or not valid yet".to_owned());
        }
        let wanted = &self.issuer.audiences;
        if !jwt::audiences(claims).iter().any(|audience| wanted.contains(audience)) {
            return Err(format!("expected audience in {wanted:?}"));
        }
        Ok(Arc::new(authenticated(self.issuer.user_of(claims)?)))
    }

    /// Its tokens are believed no more.
    pub(super) fn forget(&self) {
        self.gone.cancel();
    }

    /// Fetches the keys, at the start and whenever a token was signed with another one.
    pub(super) async fn follow_keys(self: Arc<Self>, dialer: Arc<Dialer>) {
        self.gone.run_until_cancelled(self.fetch_and_wait(&dialer)).await;
    }

    async fn fetch_and_wait(&self, dialer: &Dialer) {
        loop {
            match self.fetch(dialer).await {
                Ok(keys) => {
                    self.keys.store(Arc::new(keys));
                    self.unknown_key.notified().await;
                }
                Err(why) => tracing::warn!(issuer = self.issuer.url, why, "the keys of the OpenID issuer cannot be fetched"),
            }
            tokio::time::sleep(APART).await;
        }
    }

    async fn fetch(&self, dialer: &Dialer) -> Result<Vec<VerifyKey>, String> {
        let usual = || format!("{}/.well-known/openid-configuration", self.issuer.url.trim_end_matches('/'));
        let discovery = self.get(dialer, &self.issuer.discovery_url.clone().unwrap_or_else(usual)).await?;
        if text(&discovery, &["issuer"]) != self.issuer.url {
            return Err(format!("the discovery document is of issuer {:?}", text(&discovery, &["issuer"])));
        }
        let jwks = self.get(dialer, text(&discovery, &["jwks_uri"])).await?;
        Ok(items(&jwks, &["keys"]).iter().filter_map(VerifyKey::from_jwk).collect())
    }

    async fn get(&self, dialer: &Dialer, url: &str) -> Result<Value, String> {
        let uri: http::Uri = url.parse().map_err(|e| format!("{url}: {e}"))?;
        let host = uri.host().filter(|_| uri.scheme_str() == Some("https")).ok_or_else(|| format!("{url:?} is no https:// address"))?;
        let path = uri.path_and_query().map_or("/", |p| p.as_str());
        let authority = uri.authority().map_or(host, |a| a.as_str());
        let request = Request::get(path).header(header::HOST, authority).header(header::ACCEPT, "application/json");
        let request = request.body(body::empty()).map_err(|e| e.to_string())?;
        let sending = dialer.send_tls(host, uri.port_u16().unwrap_or(443), host, self.tls.clone(), request);
        let response =
            tokio::time::timeout(ANSWER_LIMIT, sending).await.map_err(|_| format!("{url}: no answer"))?.map_err(|e| e.to_string())?;
        let code = response.status().as_u16();
        let said = body::collect(boxed(response.into_body())).await.map_err(|e| e.to_string())?;
        if code != 200 {
            return Err(format!("{url}: answered {code}"));
        }
        serde_json::from_slice(&said).map_err(|e| format!("{url}: {e}"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tiphys_base::SystemClock;

    use super::*;
    use crate::config::OidcIssuer;
    use crate::tokens::keys::SigningKey;

    fn oidc(change: impl FnOnce(&mut OidcIssuer)) -> (Arc<Oidc>, SigningKey) {
        let ca = tiphys_base::pki::Authority::generate("ca", SystemClock.now(), Duration::from_secs(60)).expect("CA");
        let mut issuer = OidcIssuer {
            url: "https://issuer.example.com".into(),
            client_id: "kubernetes".into(),
            ca: Some(Pem::Text(ca.cert_pem().to_owned())),
            username_claim: "sub".into(),
            username_prefix: None,
            groups_claim: Some("groups".into()),
            groups_prefix: "oidc:".into(),
            required_claims: vec![],
        };
        change(&mut issuer);
        let oidc = Oidc::new(Authenticator::of_flags(issuer), SystemClock::shared()).expect("configured");
        let key = SigningKey::from_pem(&tiphys_base::pki::generate_key_pem().expect("key")).expect("key");
        // As it comes from the issuer.
        let public = VerifyKey::from_jwk(&key.public.jwk()).expect("a key");
        oidc.keys.store(Arc::new(vec![public]));
        (oidc, key)
    }

    fn claims() -> Value {
        json!({"iss": "https://issuer.example.com", "aud": ["kubernetes", "x"], "sub": "ann", "groups": ["dev", "ops"],
            "email": "ann@example.com", "email_verified": false, "exp": SystemClock.now().as_second() + 60})
    }

    #[test]
    fn tokens_name_users_and_groups() {
        let (oidc, key) = oidc(|_| {});
        let token = jwt::sign(&key, &claims()).expect("signed");
        let user = oidc.identify(&token).expect("good").expect("ours");
        assert_eq!(user.name, "https://issuer.example.com#ann");
        assert_eq!(user.groups, ["oidc:dev", "oidc:ops", "system:authenticated"]);
        assert_eq!(oidc.identify("abc"), Ok(None));
    }

    #[test]
    fn wrong_tokens_are_refused() {
        type Change = fn(&mut Value);
        let changes: [(&str, Change); 3] = [
            ("audience", |c| c["aud"] = json!("other")),
            ("expired", |c| c["exp"] = json!(5)),
            ("no claim", |c| drop(c.as_object_mut().map(|c| c.remove("sub")))),
        ];
        let (oidc_, key) = oidc(|_| {});
        for (why, change) in changes {
            let mut claims = claims();
            change(&mut claims);
            let refused = oidc_.identify(&jwt::sign(&key, &claims).expect("signed")).expect_err(why);
            assert!(refused.contains(why), "{refused}");
        }
        let (by_mail, key) = oidc(|issuer| issuer.username_claim = "email".into());
        assert_eq!(by_mail.identify(&jwt::sign(&key, &claims()).expect("signed")), Err("oidc: email not verified".into()));
        let (strict, key) = oidc(|issuer| issuer.required_claims = vec![("hd".into(), "example.com".into())]);
        assert!(strict.identify(&jwt::sign(&key, &claims()).expect("signed")).is_err());
        let (other, _) = oidc(|_| {});
        let forged = jwt::sign(&key, &claims()).expect("signed");
        assert!(other.identify(&forged).is_err());
    }
}
