//! One webhook as its configuration says it: what it wants to hear of, and what its answers mean.

use serde_json::Value;
use tiphys_meta::{ApiError, Cause, Gvr, Reason, base64};
use tiphys_schema::patch;

use crate::objects::{at, items, selector_matches, strings, text};

pub(crate) struct Hook {
    pub(crate) name: String,
    /// The configuration that it stands in.
    pub(crate) configuration: String,
    pub(crate) client: Value,
    pub(crate) seconds: u64,
    /// `failurePolicy: Ignore`.
    pub(crate) fails_open: bool,
    pub(crate) dry_run_safe: bool,
    pub(crate) conditions: Vec<Value>,
    pub(crate) reinvoked: bool,
    /// `matchPolicy: Equivalent`: rules for one version of a resource are meant for all.
    pub(crate) equivalent: bool,
    rules: Vec<Value>,
    namespaces: Value,
    objects: Value,
}

/// What rules are held against.
pub(crate) struct Subject<'a> {
    pub(crate) operation: &'a str,
    pub(crate) gvr: &'a Gvr,
    pub(crate) subresource: &'a str,
    pub(crate) namespaced: bool,
}

/// What a webhook said.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) refusal: Option<ApiError>,
    pub(crate) patch: Option<Vec<u8>>,
    pub(crate) warnings: Vec<String>,
    /// For the audit log, under `HOOK/KEY`.
    pub(crate) annotations: Vec<(String, String)>,
}

impl Hook {
    pub(crate) fn all_of(configuration: &Value) -> Vec<Hook> {
        let name = tiphys_meta::object::name(configuration);
        items(configuration, &["webhooks"]).iter().map(|webhook| Hook::of(webhook, name)).collect()
    }

    fn of(webhook: &Value, configuration: &str) -> Hook {
        Hook {
            name: text(webhook, &["name"]).to_owned(),
            configuration: configuration.to_owned(),
            client: webhook["clientConfig"].clone(),
            seconds: webhook["timeoutSeconds"].as_u64().unwrap_or(10),
            fails_open: text(webhook, &["failurePolicy"]) == "Ignore",
            dry_run_safe: matches!(text(webhook, &["sideEffects"]), "None" | "NoneOnDryRun"),
            conditions: items(webhook, &["matchConditions"]).to_vec(),
            reinvoked: text(webhook, &["reinvocationPolicy"]) == "IfNeeded",
            equivalent: text(webhook, &["matchPolicy"]) != "Exact",
            rules: items(webhook, &["rules"]).to_vec(),
            namespaces: webhook["namespaceSelector"].clone(),
            objects: webhook["objectSelector"].clone(),
        }
    }

    pub(crate) fn rules_match(&self, subject: &Subject<'_>) -> bool {
        self.rules.iter().any(|rule| rule_matches(rule, subject))
    }

    pub(crate) fn namespace_selected(&self, namespace: &Value) -> bool {
        selector_matches(&self.namespaces, namespace)
    }

    /// Either state of the object fits.
    pub(crate) fn object_selected(&self, new: Option<&Value>, old: Option<&Value>) -> bool {
        let empty = self.objects.as_object().is_none_or(serde_json::Map::is_empty);
        empty || [new, old].into_iter().flatten().any(|o| selector_matches(&self.objects, o))
    }

    /// The webhook could not be asked, and must be.
    pub(crate) fn failed(&self, why: &str) -> ApiError {
        ApiError::internal(format!("failed calling webhook {:?}: {why}", self.name))
    }

    pub(crate) fn read(&self, said: &[u8], uid: &str) -> Result<Answer, String> {
        let review: Value = serde_json::from_slice(said).map_err(|e| format!("failed to call webhook: {e}"))?;
        let kind = (text(&review, &["apiVersion"]), text(&review, &["kind"]));
        if kind != ("admission.k8s.io/v1", "AdmissionReview") {
            return Err(format!("expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got {}, Kind={}", kind.0, kind.1));
        }
        let response = review.get("response").filter(|r| r.is_object()).ok_or("webhook response was absent")?;
        if text(response, &["uid"]) != uid {
            return Err(format!("expected response.uid={uid:?}, got {:?}", text(response, &["uid"])));
        }
        let patch = match text(response, &["patch"]) {
            "" => None,
            _ if text(response, &["patchType"]) != "JSONPatch" => {
                return Err("webhook returned response.patch but not response.patchType".into());
            }
            encoded => Some(base64::decode(encoded).map_err(|e| format!("response.patch: {e}"))?),
        };
        let warnings = strings(response, "warnings");
        let annotations = response["auditAnnotations"].as_object().into_iter().flatten();
        let annotations = annotations.map(|(k, v)| (format!("{}/{k}", self.name), v.as_str().unwrap_or("").to_owned())).collect();
        let refusal = (response["allowed"] != true).then(|| self.refusal(&response["status"]));
        Ok(Answer { refusal, patch, warnings, annotations })
    }

    /// The webhook's own Status, with who said it in front.
    fn refusal(&self, status: &Value) -> ApiError {
        let by = format!("admission webhook {:?} denied the request", self.name);
        let (message, reason) = (text(status, &["message"]), text(status, &["reason"]));
        let message = match (message, reason) {
            ("", "") => format!("{by} without explanation"),
            ("", reason) => format!("{by}: {reason}"),
            (message, _) => format!("{by}: {message}"),
        };
        let mut error = ApiError::new(Reason::from_name(reason), message);
        let code = status.get("code").and_then(Value::as_u64).and_then(|c| u16::try_from(c).ok()).unwrap_or(0);
        error.code = if code < 400 { 400 } else { code };
        for cause in items(status, &["details", "causes"]) {
            let field = |name: &str| text(cause, &[name]).to_owned();
            error.causes.push(Cause { reason: field("reason"), message: field("message"), field: field("field") });
        }
        error
    }
}

fn rule_matches(rule: &Value, subject: &Subject<'_>) -> bool {
    let one_of = |field: &str, wanted: &str| strings(rule, field).iter().any(|v| v == "*" || v == wanted);
    let scope = match text(rule, &["scope"]) {
        "Namespaced" => subject.namespaced,
        "Cluster" => !subject.namespaced,
        _ => true,
    };
    let resources = strings(rule, "resources");
    let resource = resources.iter().any(|r| {
        let (main, sub) = r.split_once('/').unwrap_or((r, ""));
        (main == "*" || main == subject.gvr.resource) && (sub == subject.subresource || (r.contains('/') && sub == "*"))
    });
    one_of("operations", subject.operation)
        && one_of("apiGroups", &subject.gvr.group)
        && one_of("apiVersions", &subject.gvr.version)
        && scope
        && resource
}

/// A JSON patch (RFC 6902) on the object.
pub(crate) fn apply(object: &Value, bytes: &[u8]) -> Result<Value, String> {
    let (operations, _) = patch::parse_json_patch(bytes).map_err(|e| e.to_string())?;
    let mut patched = object.clone();
    patch::json(&mut patched, &operations).map_err(|e| e.to_string())?;
    Ok(patched)
}

/// `https://name.namespace.svc:port/path` of a service, or the URL that is given.
pub(crate) fn url_of(client: &Value) -> String {
    match at(client, &["service"]) {
        Some(service) => {
            let path = text(service, &["path"]).trim_start_matches('/').to_owned();
            let port = service["port"].as_u64().unwrap_or(443);
            format!("https://{}.{}.svc:{port}/{path}", text(service, &["name"]), text(service, &["namespace"]))
        }
        None => text(client, &["url"]).to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn hook(more: Value) -> Hook {
        let mut webhook = json!({"name": "w.example.com", "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"],
            "resources": ["pods", "pods/attach"]}]});
        patch::merge(&mut webhook, &more).expect("an object");
        Hook::of(&webhook, "c")
    }

    #[test]
    fn rules() {
        let pods = Gvr::new("", "v1", "pods");
        let matches = |rules: Value, operation, subresource| {
            let subject = Subject { operation, gvr: &pods, subresource, namespaced: true };
            hook(json!({"rules": [rules]})).rules_match(&subject)
        };
        let rule = |resources: Value| json!({"operations": ["CREATE", "CONNECT"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": resources});
        assert!(matches(rule(json!(["pods"])), "CREATE", ""));
        assert!(!matches(rule(json!(["pods"])), "UPDATE", ""));
        assert!(!matches(rule(json!(["pods"])), "CONNECT", "attach"));
        assert!(matches(rule(json!(["pods/attach"])), "CONNECT", "attach"));
        assert!(matches(rule(json!(["*/*"])), "CONNECT", "attach"));
        assert!(matches(rule(json!(["*/*"])), "CREATE", ""));
        assert!(matches(rule(json!(["*"])), "CREATE", ""));
        assert!(!matches(rule(json!(["*"])), "CONNECT", "attach"));
        let cluster = json!({"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"], "scope": "Cluster"});
        assert!(!matches(cluster, "CREATE", ""));
    }

    #[test]
    fn answers() {
        let said = |response: Value| {
            let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response});
            hook(json!({})).read(review.to_string().as_bytes(), "u")
        };
        assert!(said(json!({"uid": "u", "allowed": true})).expect("read").refusal.is_none());
        let refusal = said(json!({"uid": "u", "allowed": false, "status": {"message": "no"}})).expect("read").refusal.expect("refused");
        assert_eq!((refusal.code, refusal.message.as_str()), (400, "admission webhook \"w.example.com\" denied the request: no"));
        assert!(said(json!({"uid": "x", "allowed": true})).is_err());
        let patch = base64::encode(br#"[{"op":"add","path":"/data/b","value":"2"}]"#);
        let answer = said(json!({"uid": "u", "allowed": true, "patch": patch, "patchType": "JSONPatch"})).expect("read");
        let patched = apply(&json!({"data": {"a": "1"}}), &answer.patch.expect("patch")).expect("applied");
        assert_eq!(patched, json!({"data": {"a": "1", "b": "2"}}));
    }

    #[test]
    fn addresses() {
        let service = json!({"service": {"name": "s", "namespace": "n", "path": "/p", "port": 8443}});
        assert_eq!(url_of(&service), "https://s.n.svc:8443/p");
        assert_eq!(url_of(&json!({"url": "https://x/y"})), "https://x/y");
    }
}
