//! `serviceaccounts/token`: a TokenRequest in, the same with its token out.

use serde_json::{Value, json};
use tiphys_meta::{ApiError, Gvk, Gvr, Reason, object};

use super::{ServiceAccountTokens, jwt, new_uuid};
use crate::errors::{BadField, DoorError, invalid};
use crate::objects::{known, strings, text};

const MIN_SECONDS: i64 = 10 * 60;
const MAX_SECONDS: i64 = 1 << 32;
const DEFAULT_SECONDS: i64 = 3600;
/// What older clients' projected tokens ask for; they do not reload in time, so theirs live a year and a claim says from when to warn.
const WARN_ONLY_SECONDS: i64 = 3607;
const EXTENDED_SECONDS: i64 = 365 * 24 * 3600;

/// The object that a token lives and dies with.
struct Bound {
    claim: &'static str,
    value: Value,
    node: Option<Value>,
}

pub struct Issued {
    pub request: Value,
    pub warnings: Vec<String>,
}

impl ServiceAccountTokens {
    /// Answers a TokenRequest for the service account `namespace`/`name`.
    pub fn issue(&self, namespace: &str, name: &str, mut request: Value) -> Result<Issued, DoorError> {
        let account = self.objects.get(&known::SERVICE_ACCOUNTS, namespace, name);
        let account = account.ok_or_else(|| ApiError::not_found(&known::SERVICE_ACCOUNTS, name))?;
        check_meta(&request, namespace, name, object::uid(&account))?;
        let now = self.clock.now();
        let mut audiences = request.get("spec").map(|s| strings(s, "audiences")).unwrap_or_default();
        if audiences.is_empty() {
            audiences = self.settings.api_audiences.clone();
        }
        let mut seconds = request["spec"]["expirationSeconds"].as_i64().unwrap_or(DEFAULT_SECONDS);
        check_seconds(seconds)?;
        let bound = self.bound_object(namespace, name, &request["spec"]["boundObjectRef"])?;
        let mut warnings = Vec::new();
        let max = self.settings.max_expiration_seconds;
        if max > 0 && seconds > max {
            warnings.push(format!("requested expiration of {seconds} seconds shortened to {max} seconds"));
            seconds = max;
        }
        let claims = self.make_claims(namespace, &account, bound.as_ref(), seconds, &audiences);
        let token = jwt::sign(&self.signing, &claims)?;
        let until = jiff::Timestamp::from_second(now.as_second().saturating_add(seconds)).unwrap_or(jiff::Timestamp::MAX);
        let created = jiff::Timestamp::from_second(now.as_second()).unwrap_or(now);
        let bound_ref = request["spec"]["boundObjectRef"].take();
        request["apiVersion"] = json!("authentication.k8s.io/v1");
        request["kind"] = json!("TokenRequest");
        let meta = object::meta_mut(&mut request);
        for (field, value) in
            [("name", name), ("namespace", namespace), ("uid", object::uid(&account)), ("creationTimestamp", &created.to_string())]
        {
            meta.insert(field.to_owned(), json!(value));
        }
        request["spec"] = json!({"audiences": audiences, "expirationSeconds": seconds, "boundObjectRef": bound_ref});
        request["status"] = json!({"token": token, "expirationTimestamp": until.to_string()});
        Ok(Issued { request, warnings })
    }

    fn make_claims(&self, namespace: &str, account: &Value, bound: Option<&Bound>, seconds: i64, audiences: &[String]) -> Value {
        let now = self.clock.now().as_second();
        let reference = |value: &Value| json!({"name": object::name(value), "uid": object::uid(value)});
        let mut private = json!({"namespace": namespace, "serviceaccount": reference(account)});
        let mut lifetime = seconds;
        if let Some(bound) = bound {
            private[bound.claim] = reference(&bound.value);
            if let Some(node) = &bound.node {
                private["node"] = reference(node);
                if object::uid(node).is_empty() {
                    private["node"] = json!({"name": object::name(node)});
                }
            }
            let ours = audiences.iter().all(|a| self.settings.api_audiences.contains(a));
            if bound.claim == "pod" && self.settings.extend_expiration && seconds == WARN_ONLY_SECONDS && ours {
                private["warnafter"] = json!(now + seconds);
                lifetime = EXTENDED_SECONDS;
            }
        }
        json!({
            "aud": audiences, "exp": now + lifetime, "iat": now, "iss": self.issuer(), "jti": new_uuid(),
            "kubernetes.io": private, "nbf": now,
            "sub": format!("system:serviceaccount:{namespace}:{}", object::name(account)),
        })
    }

    fn bound_object(&self, namespace: &str, account: &str, reference: &Value) -> Result<Option<Bound>, ApiError> {
        if !reference.is_object() {
            return Ok(None);
        }
        let gvk = Gvk::from_api_version(text(reference, &["apiVersion"]), text(reference, &["kind"]));
        let name = text(reference, &["name"]);
        let (gvr, claim, home): (&Gvr, _, _) = match (gvk.group.as_ref(), gvk.kind.as_ref()) {
            ("", "Pod") => (&known::PODS, "pod", namespace),
            ("", "Secret") => (&known::SECRETS, "secret", namespace),
            ("", "Node") => (&known::NODES, "node", ""),
            _ => {
                let (group, version, kind) = (&gvk.group, &gvk.version, &gvk.kind);
                return Err(ApiError::bad_request(format!("cannot bind token to object of type {group}/{version}, Kind={kind}")));
            }
        };
        let value = self.objects.get(gvr, home, name).ok_or_else(|| ApiError::not_found(gvr, name))?;
        if claim == "pod" && text(&value, &["spec", "serviceAccountName"]) != account {
            return Err(ApiError::bad_request(format!(
                "cannot bind token for serviceaccount {account:?} to pod running with different serviceaccount name."
            )));
        }
        let uid = text(reference, &["uid"]);
        if !uid.is_empty() && uid != object::uid(&value) {
            let why = format!(
                "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
            );
            return Err(ApiError::conflict(&Gvr::new(gvk.group, gvk.version, gvk.kind), name, &why));
        }
        let node = (claim == "pod").then(|| self.node_of_pod(&value)).flatten();
        Ok(Some(Bound { claim, value: value.as_ref().clone(), node }))
    }

    /// The node that a pod runs on; only its name where the object is gone.
    fn node_of_pod(&self, pod: &Value) -> Option<Value> {
        let name = text(pod, &["spec", "nodeName"]);
        if name.is_empty() {
            return None;
        }
        let node = self.objects.get(&known::NODES, "", name).map(|n| json!({"metadata": {"name": name, "uid": object::uid(&n)}}));
        Some(node.unwrap_or_else(|| json!({"metadata": {"name": name}})))
    }
}

fn token_request() -> Gvk {
    Gvk::new("authentication.k8s.io", "v1", "TokenRequest")
}

fn check_meta(request: &Value, namespace: &str, name: &str, uid: &str) -> Result<(), ApiError> {
    let wrong = |field: &'static str, value: &str, what: &str| {
        let detail = format!("Invalid value: {value:?}: must match the service account {what} if specified");
        invalid(&token_request(), name, vec![BadField { field, reason: "FieldValueInvalid", detail }])
    };
    let (given_name, given_namespace) = (object::name(request), object::namespace(request));
    if !given_name.is_empty() && given_name != name {
        return Err(wrong("metadata.name", given_name, "name"));
    }
    if !given_namespace.is_empty() && given_namespace != namespace {
        return Err(wrong("metadata.namespace", given_namespace, "namespace"));
    }
    let given = object::uid(request);
    if !given.is_empty() && given != uid {
        let message = format!("the UID in the token request ({given}) does not match the UID of the service account ({uid})");
        let gvr = Gvr::new("authentication.k8s.io", "v1", "TokenRequest");
        return Err(ApiError { reason: Reason::Conflict, ..ApiError::conflict(&gvr, name, &message) });
    }
    Ok(())
}

fn check_seconds(seconds: i64) -> Result<(), ApiError> {
    let why = if seconds < MIN_SECONDS {
        "may not specify a duration less than 10 minutes"
    } else if seconds > MAX_SECONDS {
        "may not specify a duration larger than 2^32 seconds"
    } else {
        return Ok(());
    };
    let detail = format!("Invalid value: {seconds}: {why}");
    Err(invalid(&token_request(), "", vec![BadField { field: "spec.expirationSeconds", reason: "FieldValueInvalid", detail }]))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tiphys_base::FakeClock;

    use super::super::Settings;
    use super::super::keys::SigningKey;
    use super::*;
    use crate::objects::fake::FakeObjects;

    fn setup() -> (Arc<FakeObjects>, Arc<FakeClock>, ServiceAccountTokens) {
        let objects = Arc::new(FakeObjects::default());
        objects.put(&known::SERVICE_ACCOUNTS, json!({"metadata": {"name": "sa", "namespace": "ns", "uid": "u1"}}));
        objects.put(
            &known::PODS,
            json!({"metadata": {"name": "p", "namespace": "ns", "uid": "p1"}, "spec": {"serviceAccountName": "sa", "nodeName": "n"}}),
        );
        objects.put(&known::NODES, json!({"metadata": {"name": "n", "uid": "n1"}}));
        let clock = FakeClock::at(jiff::Timestamp::from_second(1_800_000_000).expect("time"));
        let settings = Settings {
            issuers: vec!["https://us".into()],
            api_audiences: vec!["https://us".into()],
            max_expiration_seconds: 0,
            extend_expiration: true,
            jwks_uri: "https://us/openid/v1/jwks".into(),
        };
        let key = SigningKey::from_pem(&tiphys_base::pki::generate_key_pem().expect("key")).expect("signing key");
        let tokens = ServiceAccountTokens::new(settings, key, vec![], objects.clone(), clock.clone());
        (objects, clock, tokens)
    }

    fn issue(tokens: &ServiceAccountTokens, spec: Value) -> Result<Value, ApiError> {
        tokens.issue("ns", "sa", json!({"spec": spec})).map(|i| i.request).map_err(DoorError::into_api)
    }

    #[test]
    fn a_pod_bound_token_lives_as_long_as_its_pod() {
        let (objects, clock, tokens) = setup();
        let wanted = ["https://us".to_owned()];
        let spec = json!({"expirationSeconds": 600, "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "p1"}});
        let answer = issue(&tokens, spec).expect("issued");
        assert_eq!(answer["status"]["expirationTimestamp"], "2027-01-15T08:10:00Z");
        let token = answer["status"]["token"].as_str().expect("token").to_owned();
        let (user, _) = tokens.identify(&token, &wanted).expect("good").expect("ours");
        assert_eq!(user.name, "system:serviceaccount:ns:sa");
        assert_eq!(user.groups, ["system:serviceaccounts", "system:serviceaccounts:ns", "system:authenticated"]);
        assert_eq!(user.extra["authentication.kubernetes.io/node-uid"], ["n1"]);
        assert!(tokens.identify(&token, &["other".to_owned()]).is_err());
        clock.advance(Duration::from_secs(661));
        assert_eq!(tokens.identify(&token, &wanted), Err("service account token has expired".into()));
        clock.set(jiff::Timestamp::from_second(1_800_000_001).expect("time"));
        objects.put(&known::PODS, json!({"metadata": {"name": "p", "namespace": "ns", "uid": "p2"}}));
        assert!(tokens.identify(&token, &wanted).is_err());
    }

    #[test]
    fn old_projected_tokens_live_a_year() {
        let (_, clock, tokens) = setup();
        let spec = json!({"expirationSeconds": 3607, "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "p"}});
        let answer = issue(&tokens, spec).expect("issued");
        let known = tokens.known(answer["status"]["token"].as_str().expect("token")).expect("good");
        let claims = &known.claims;
        let now = tiphys_base::Clock::now(clock.as_ref()).as_second();
        assert_eq!(claims["exp"], now + EXTENDED_SECONDS);
        assert_eq!(claims["kubernetes.io"]["warnafter"], now + 3607);
    }

    #[test]
    fn requests_that_are_refused() {
        let (_, _, tokens) = setup();
        let code = |spec| issue(&tokens, spec).expect_err("refused").code;
        assert_eq!(code(json!({"expirationSeconds": 599})), 422);
        assert_eq!(code(json!({"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "x"}})), 409);
        assert_eq!(code(json!({"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "q"}})), 404);
        assert_eq!(code(json!({"boundObjectRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "q"}})), 400);
        let missing = tokens.issue("ns", "nobody", json!({})).map(|_| ()).map_err(DoorError::into_api);
        assert_eq!(missing.expect_err("refused").message, "serviceaccounts \"nobody\" not found");
    }
}
