//! Service account tokens: issued by TokenRequest, bound to objects, and verified against the objects that still exist; and those of the old form.

pub mod jwt;
pub mod keys;
mod legacy;
mod request;

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tiphys_base::Clock;
use tiphys_meta::{Gvr, object};
use tiphys_registry::UserInfo;
pub use tiphys_registry::uuid as new_uuid;

use crate::authenticate::authenticated;
use crate::objects::{Objects, known, text};
use jwt::JwtError;
use keys::{SigningKey, VerifyKey};
use legacy::Legacy;

/// How many verified signatures are remembered; the rest is checked anew for each request.
const REMEMBERED: usize = 1024;
/// Objects that were deleted this long ago no longer vouch for a token.
const LEEWAY_SECONDS: i64 = 60;

pub struct ServiceAccountTokens {
    pub(crate) settings: Settings,
    signing: SigningKey,
    keys: Vec<VerifyKey>,
    pub(crate) objects: Arc<dyn Objects>,
    pub(crate) clock: Arc<dyn Clock>,
    /// Tokens whose signature was good. Keyed by the whole token, so nothing is taken on trust.
    verified: Mutex<HashMap<String, Arc<Known>>>,
}

/// A token that has been here before.
struct Known {
    claims: Value,
    /// Who it was, while its service account and the object it is bound to stood at these revisions.
    last: Mutex<Option<(Revisions, Arc<UserInfo>)>>,
}

type Revisions = (Option<i64>, Option<i64>);

/// The part of the configuration that matters here.
#[derive(Debug, Clone)]
pub struct Settings {
    pub issuers: Vec<String>,
    pub api_audiences: Vec<String>,
    pub max_expiration_seconds: i64,
    pub extend_expiration: bool,
    pub jwks_uri: String,
}

/// Whose token it is, and for which audiences.
pub type Identified = (Arc<UserInfo>, Vec<String>);

impl ServiceAccountTokens {
    pub fn new(settings: Settings, signing: SigningKey, others: Vec<VerifyKey>, objects: Arc<dyn Objects>, clock: Arc<dyn Clock>) -> Self {
        let mut keys = vec![signing.public.clone()];
        keys.extend(others.into_iter().filter(|k| k.id != signing.public.id));
        ServiceAccountTokens { settings, signing, keys, objects, clock, verified: Mutex::default() }
    }

    pub fn api_audiences(&self) -> &[String] {
        &self.settings.api_audiences
    }

    fn issuer(&self) -> &str {
        self.settings.issuers.first().map_or("", String::as_str)
    }

    /// `/.well-known/openid-configuration` (OpenID Connect Discovery 1.0).
    pub fn openid_configuration(&self) -> Value {
        let mut algorithms: Vec<&str> = self.keys.iter().map(|k| k.algorithm.as_str()).collect();
        algorithms.sort_unstable();
        algorithms.dedup();
        json!({
            "issuer": self.issuer(),
            "jwks_uri": self.settings.jwks_uri,
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": algorithms,
        })
    }

    /// `/openid/v1/jwks` (RFC 7517).
    pub fn jwks(&self) -> Value {
        json!({"keys": self.keys.iter().map(VerifyKey::jwk).collect::<Vec<_>>()})
    }

    /// The user of a token with the token's audiences. `Ok(None)`: not a token of this issuer.
    pub fn identify(&self, token: &str, wanted: &[String]) -> Result<Option<Identified>, String> {
        let known = match self.known(token) {
            Ok(known) => known,
            Err(JwtError::Foreign) => return Ok(None),
            Err(JwtError::Invalid(why)) => return Err(why),
        };
        let legacy = Legacy::read(&known.claims).is_some();
        let audiences = if legacy { self.settings.api_audiences.clone() } else { jwt::audiences(&known.claims) };
        if !wanted.iter().any(|a| audiences.contains(a)) {
            return Err(format!("token audiences {audiences:?} is invalid for the target audiences {wanted:?}"));
        }
        jwt::check_times(&known.claims, self.clock.now().as_second()).map_err(|e| e.to_string())?;
        let now = self.revisions(&known.claims);
        if let Some((then, user)) = &*known.last.lock()
            && *then == now
        {
            return Ok(Some((user.clone(), audiences)));
        }
        let (user, leaving) = self.validate(&known.claims, token)?;
        let user = Arc::new(authenticated(user));
        // An object on its way out stops vouching at a time, not at a change.
        *known.last.lock() = (!leaving).then(|| (now, user.clone()));
        Ok(Some((user, audiences)))
    }

    fn known(&self, token: &str) -> Result<Arc<Known>, JwtError> {
        if let Some(known) = self.verified.lock().get(token) {
            return Ok(known.clone());
        }
        let issuers = self.settings.issuers.iter().map(String::as_str).chain([legacy::ISSUER]);
        let claims = jwt::verify(token, issuers, &self.keys)?;
        let known = Arc::new(Known { claims, last: Mutex::new(None) });
        let mut verified = self.verified.lock();
        if verified.len() >= REMEMBERED {
            verified.clear();
        }
        verified.insert(token.to_owned(), known.clone());
        Ok(known)
    }

    fn revisions(&self, claims: &Value) -> Revisions {
        if let Some(Legacy { namespace, secret, account, .. }) = Legacy::read(claims) {
            let revision = |gvr, name| self.objects.revision(gvr, namespace, name);
            return (revision(&known::SERVICE_ACCOUNTS, account), revision(&known::SECRETS, secret));
        }
        let private = &claims["kubernetes.io"];
        let namespace = text(private, &["namespace"]);
        let account = self.objects.revision(&known::SERVICE_ACCOUNTS, namespace, text(private, &["serviceaccount", "name"]));
        let bound = bound_to(private).and_then(|(gvr, reference)| {
            let home = if *gvr == known::NODES { "" } else { namespace };
            self.objects.revision(gvr, home, text(reference, &["name"]))
        });
        (account, bound)
    }

    /// That the objects the token is bound to still are the same; and whether one of them is being deleted.
    fn validate(&self, claims: &Value, token: &str) -> Result<(UserInfo, bool), String> {
        if let Some(old) = Legacy::read(claims) {
            old.validate(claims, token, &*self.objects)?;
            return Ok((user_of(claims, old.namespace, old.account, old.uid), false));
        }
        let private = &claims["kubernetes.io"];
        let namespace = text(private, &["namespace"]);
        let (name, uid) = (text(private, &["serviceaccount", "name"]), text(private, &["serviceaccount", "uid"]));
        if text(claims, &["sub"]) != format!("system:serviceaccount:{namespace}:{name}") || namespace.is_empty() || name.is_empty() {
            return Err("sub claim does not match the service account claims".into());
        }
        let account = self.objects.get(&known::SERVICE_ACCOUNTS, namespace, name);
        let account = account.ok_or_else(|| format!("serviceaccounts \"{name}\" not found"))?;
        if object::uid(&account) != uid {
            return Err(format!("service account UID ({}) does not match claim ({uid})", object::uid(&account)));
        }
        if self.is_gone(&account) {
            return Err(format!("service account {namespace}/{name} has been deleted"));
        }
        let mut leaving = object::deletion_timestamp(&account).is_some();
        if let Some((gvr, reference)) = bound_to(private) {
            let home = if *gvr == known::NODES { "" } else { namespace };
            leaving |= self.still_there(gvr, home, reference)?;
        }
        Ok((user_of(claims, namespace, name, uid), leaving))
    }

    /// Whether it is being deleted, if it is there at all and the same.
    fn still_there(&self, gvr: &Gvr, namespace: &str, reference: &Value) -> Result<bool, String> {
        let (name, uid) = (text(reference, &["name"]), text(reference, &["uid"]));
        let found = self.objects.get(gvr, namespace, name).filter(|o| !self.is_gone(o));
        let found = found.ok_or("service account token has been invalidated")?;
        if object::uid(&found) != uid {
            let singular = gvr.resource.trim_end_matches('s');
            return Err(format!("{singular} UID ({}) does not match service account {singular} ref claim ({uid})", object::uid(&found)));
        }
        Ok(object::deletion_timestamp(&found).is_some())
    }

    fn is_gone(&self, value: &Value) -> bool {
        let deleted = object::deletion_timestamp(value).and_then(|t| t.parse::<jiff::Timestamp>().ok());
        deleted.is_some_and(|at| at.as_second() < self.clock.now().as_second() - LEEWAY_SECONDS)
    }
}

/// The object that a token lives and dies with. A pod's node is only mentioned beside it.
fn bound_to(private: &Value) -> Option<(&'static Gvr, &Value)> {
    const KINDS: [(&str, &Gvr); 3] = [("secret", &known::SECRETS), ("pod", &known::PODS), ("node", &known::NODES)];
    KINDS.into_iter().find_map(|(claim, gvr)| Some((gvr, private.get(claim).filter(|r| r.is_object())?)))
}

fn user_of(claims: &Value, namespace: &str, name: &str, uid: &str) -> UserInfo {
    let group = format!("system:serviceaccounts:{namespace}");
    let mut user = UserInfo::new(format!("system:serviceaccount:{namespace}:{name}"), &["system:serviceaccounts", &group]);
    user.uid = uid.to_owned();
    let mut extra = |key: &str, value: &str| {
        if !value.is_empty() {
            user.extra.insert(format!("authentication.kubernetes.io/{key}"), vec![value.to_owned()]);
        }
    };
    let private = &claims["kubernetes.io"];
    extra("pod-name", text(private, &["pod", "name"]));
    extra("pod-uid", text(private, &["pod", "uid"]));
    extra("node-name", text(private, &["node", "name"]));
    extra("node-uid", text(private, &["node", "uid"]));
    let id = text(claims, &["jti"]);
    extra("credential-id", &if id.is_empty() { String::new() } else { format!("JTI={id}") });
    user
}
