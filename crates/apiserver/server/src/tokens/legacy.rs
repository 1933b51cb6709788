//! Tokens of the old form: without an end and without audiences, good for as long as the Secret that holds them. Upstream's controller manager
//! signs them still, for Secrets of the type `kubernetes.io/service-account-token`, and a store that was upstream's holds some.
//!
//! Absent: the label `kubernetes.io/legacy-token-last-used` (KEP-2799); nothing is written when a token is shown.

use serde_json::Value;
use tiphys_meta::object;

use crate::objects::{Objects, known, text};

pub(super) const ISSUER: &str = "kubernetes/serviceaccount";
/// What the cleaner of long unused tokens puts on their Secrets.
const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";

#[derive(Clone, Copy)]
pub(super) struct Legacy<'a> {
    pub(super) namespace: &'a str,
    pub(super) secret: &'a str,
    pub(super) account: &'a str,
    pub(super) uid: &'a str,
}

impl<'a> Legacy<'a> {
    /// None: a token of the form of today.
    pub(super) fn read(claims: &'a Value) -> Option<Self> {
        let claim = |name: &str| claims.get(format!("kubernetes.io/serviceaccount/{name}")).and_then(Value::as_str).unwrap_or_default();
        (text(claims, &["iss"]) == ISSUER).then(|| Legacy {
            namespace: claim("namespace"),
            secret: claim("secret.name"),
            account: claim("service-account.name"),
            uid: claim("service-account.uid"),
        })
    }

    /// That the Secret still holds this very token, and the account is the same.
    pub(super) fn validate(self, claims: &Value, token: &str, objects: &dyn Objects) -> Result<(), String> {
        let Legacy { namespace, secret, account, uid } = self;
        for (value, name) in [(namespace, "namespace"), (secret, "secretName"), (account, "serviceAccountName"), (uid, "serviceAccountUID")]
        {
            if value.is_empty() {
                return Err(format!("{name} claim is missing"));
            }
        }
        if text(claims, &["sub"]) != format!("system:serviceaccount:{namespace}:{account}") {
            return Err("sub claim is invalid".into());
        }
        let held = objects.get(&known::SECRETS, namespace, secret).filter(|s| object::deletion_timestamp(s).is_none());
        let held = held.ok_or("Token has been invalidated")?;
        let copy = tiphys_meta::base64::decode(text(&held, &["data", "token"])).unwrap_or_default();
        if !crate::authenticate::same(&copy, token.as_bytes()) {
            return Err("Token does not match server's copy".into());
        }
        let found = objects.get(&known::SERVICE_ACCOUNTS, namespace, account);
        let found = found.ok_or_else(|| format!("serviceaccounts \"{account}\" not found"))?;
        if object::deletion_timestamp(&found).is_some() {
            return Err(format!("ServiceAccount {namespace}/{account} has been deleted"));
        }
        if object::uid(&found) != uid {
            return Err(format!("ServiceAccount UID ({}) does not match claim ({uid})", object::uid(&found)));
        }
        if !text(&held, &["metadata", "labels", INVALID_SINCE]).is_empty() {
            return Err(format!(
                "the token in secret {namespace}/{secret} for service account {namespace}/{account} has been marked invalid. Use tokens from the \
                 TokenRequest API or manually created secret-based tokens, or remove the '{INVALID_SINCE}' label from the secret to temporarily \
                 allow use of this token"
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::super::keys::SigningKey;
    use super::super::{ServiceAccountTokens, Settings, jwt};
    use super::*;
    use crate::objects::fake::FakeObjects;

    fn claims() -> Value {
        json!({"iss": ISSUER, "sub": "system:serviceaccount:ns:sa", "kubernetes.io/serviceaccount/namespace": "ns",
               "kubernetes.io/serviceaccount/secret.name": "old", "kubernetes.io/serviceaccount/service-account.name": "sa",
               "kubernetes.io/serviceaccount/service-account.uid": "u1"})
    }

    fn setup() -> (Arc<FakeObjects>, SigningKey, ServiceAccountTokens) {
        let objects = Arc::new(FakeObjects::default());
        objects.put(&known::SERVICE_ACCOUNTS, json!({"metadata": {"name": "sa", "namespace": "ns", "uid": "u1"}}));
        let us = vec!["https://us".to_owned()];
        let settings = Settings {
            issuers: us.clone(),
            api_audiences: us,
            max_expiration_seconds: 0,
            extend_expiration: true,
            jwks_uri: String::new(),
        };
        let pem = tiphys_base::pki::generate_key_pem().expect("key");
        let key = || SigningKey::from_pem(&pem).expect("signing key");
        let clock = tiphys_base::FakeClock::at(jiff::Timestamp::from_second(1_800_000_000).expect("time"));
        (objects.clone(), key(), ServiceAccountTokens::new(settings, key(), vec![], objects, clock))
    }

    fn hold(objects: &FakeObjects, token: &str, labels: Value) {
        let token = tiphys_meta::base64::encode(token.as_bytes());
        objects.put(&known::SECRETS, json!({"metadata": {"name": "old", "namespace": "ns", "labels": labels}, "data": {"token": token}}));
    }

    #[test]
    fn good_for_as_long_as_its_secret() {
        let (objects, key, tokens) = setup();
        let token = jwt::sign(&key, &claims()).expect("signed");
        let who = |audience: &str| tokens.identify(&token, &[audience.to_owned()]);
        assert_eq!(who("https://us"), Err("Token has been invalidated".into()));
        hold(&objects, &token, json!({}));
        let (user, audiences) = who("https://us").expect("good").expect("ours");
        assert_eq!(
            (user.name.as_str(), user.uid.as_str(), audiences),
            ("system:serviceaccount:ns:sa", "u1", vec!["https://us".to_owned()])
        );
        assert!(user.extra.is_empty());
        assert!(who("elsewhere").is_err(), "it is for this server alone");
        hold(&objects, &token, json!({INVALID_SINCE: "2026-01-01"}));
        assert!(who("https://us").expect_err("marked").contains("has been marked invalid"));
        hold(&objects, "another", json!({}));
        assert_eq!(who("https://us"), Err("Token does not match server's copy".into()));
    }

    #[test]
    fn what_it_claims_must_fit() {
        let (objects, key, tokens) = setup();
        for (claim, value, why) in [
            ("sub", "system:serviceaccount:ns:other", "sub claim is invalid"),
            ("kubernetes.io/serviceaccount/secret.name", "", "secretName claim is missing"),
            ("kubernetes.io/serviceaccount/service-account.uid", "u2", "ServiceAccount UID (u1) does not match claim (u2)"),
        ] {
            let mut changed = claims();
            changed[claim] = json!(value);
            let token = jwt::sign(&key, &changed).expect("signed");
            hold(&objects, &token, json!({}));
            assert_eq!(tokens.identify(&token, &["https://us".to_owned()]), Err(why.into()));
        }
    }
}
