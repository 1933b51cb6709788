//! Questions that are posted and answered at once, kept nowhere: who am I, may they, is this token good, and a token request.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};
use tiphys_meta::{ApiError, Gvk};
use tiphys_registry::UserInfo;
use tiphys_schema::apply;

use crate::authorize::node::node_of;
use crate::authorize::rbac::Rule;
use crate::authorize::{Attributes, Decision, MASTERS};
use crate::body::{Answered, add_warnings};
use crate::chain::{Call, Door};
use crate::config::AuthorizationMode;
use crate::errors::{BadField, DoorError, invalid};
use crate::objects::{strings, text};
use crate::request_info::Info;
use crate::wire;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Review {
    SubjectAccess,
    LocalSubjectAccess,
    SelfSubjectAccess,
    SelfSubjectRules,
    SelfSubject,
    Token,
    TokenRequest,
}

impl Review {
    pub(crate) fn of(info: &Info) -> Option<Self> {
        Some(match (info.group.as_str(), info.version.as_str(), info.resource.as_str(), info.subresource.as_str()) {
            ("authorization.k8s.io", "v1", "subjectaccessreviews", "") => Review::SubjectAccess,
            ("authorization.k8s.io", "v1", "localsubjectaccessreviews", "") => Review::LocalSubjectAccess,
            ("authorization.k8s.io", "v1", "selfsubjectaccessreviews", "") => Review::SelfSubjectAccess,
            ("authorization.k8s.io", "v1", "selfsubjectrulesreviews", "") => Review::SelfSubjectRules,
            ("authentication.k8s.io", "v1", "selfsubjectreviews", "") => Review::SelfSubject,
            ("authentication.k8s.io", "v1", "tokenreviews", "") => Review::Token,
            ("", "v1", "serviceaccounts", "token") => Review::TokenRequest,
            _ => return None,
        })
    }

    /// The answers to the others are made anew.
    fn is_kept_by_its_manager(self) -> bool {
        matches!(self, Review::SubjectAccess | Review::LocalSubjectAccess | Review::SelfSubjectAccess | Review::Token)
    }

    fn gvk(self) -> Gvk {
        match self {
            Review::SubjectAccess => Gvk::new("authorization.k8s.io", "v1", "SubjectAccessReview"),
            Review::LocalSubjectAccess => Gvk::new("authorization.k8s.io", "v1", "LocalSubjectAccessReview"),
            Review::SelfSubjectAccess => Gvk::new("authorization.k8s.io", "v1", "SelfSubjectAccessReview"),
            Review::SelfSubjectRules => Gvk::new("authorization.k8s.io", "v1", "SelfSubjectRulesReview"),
            Review::SelfSubject => Gvk::new("authentication.k8s.io", "v1", "SelfSubjectReview"),
            Review::Token => Gvk::new("authentication.k8s.io", "v1", "TokenReview"),
            Review::TokenRequest => Gvk::new("authentication.k8s.io", "v1", "TokenRequest"),
        }
    }
}

pub(crate) async fn serve(door: &Arc<Door>, call: &mut Call, review: Review) -> Result<Answered, DoorError> {
    if call.info.verb != "create" {
        return Err(ApiError::method_not_allowed().into());
    }
    let gvk = review.gvk();
    let mut object = wire::decode(call, &gvk).await?;
    if review.is_kept_by_its_manager() {
        note_manager(door, call, &gvk, &mut object);
    }
    let mut warnings = Vec::new();
    match review {
        Review::SubjectAccess | Review::LocalSubjectAccess => {
            let user = subject(&object["spec"]);
            check_access_spec(&gvk, &object, review, &call.info.namespace)?;
            object["status"] = access(door, &user, &object["spec"]);
        }
        Review::SelfSubjectAccess => {
            check_access_spec(&gvk, &object, review, "")?;
            object["status"] = access(door, &call.user, &object["spec"]);
        }
        Review::SelfSubjectRules => {
            let namespace = text(&object, &["spec", "namespace"]).to_owned();
            if namespace.is_empty() {
                return Err(ApiError::bad_request("no namespace on request").into());
            }
            object["status"] = rules(door, &call.user, &namespace);
            // The question is not repeated.
            object["spec"] = json!({});
        }
        Review::SelfSubject => {
            object["metadata"]["creationTimestamp"] = json!(tiphys_meta::time::format(door.clock.now()));
            object["status"] = json!({"userInfo": user_value(&call.user)});
        }
        Review::Token => object["status"] = token(door, &object["spec"])?,
        Review::TokenRequest => {
            let issued = door.tokens.issue(&call.info.namespace, &call.info.name, admitted_token(door, call, object)?)?;
            object = issued.request;
            warnings = issued.warnings;
        }
    }
    let mut response = wire::encode(call, 201, &gvk, &object)?;
    add_warnings(&mut response, &warnings);
    Ok(response)
}

/// Upstream's create handler notes who manages the fields, of questions too.
fn note_manager(door: &Door, call: &Call, gvk: &Gvk, object: &mut Value) {
    let Some(kind) = tiphys_schema::Facts::builtin().kind(gvk) else { return };
    let named = call.info.query.get("fieldManager").unwrap_or("");
    let agent = call.header(http::header::USER_AGENT).split('/').next().unwrap_or("");
    let manager = if named.is_empty() { agent } else { named };
    let now = tiphys_meta::time::format(door.clock.now());
    let options = apply::Options { manager, subresource: "", now: &now, reset: &[], force: false };
    apply::update(&apply::Schema::Kind(kind), None, object, &options);
}

/// What NodeRestriction says of token requests: a kubelet asks only for its own pods.
fn admitted_token(door: &Door, call: &Call, request: Value) -> Result<Value, ApiError> {
    let Some(node) = node_of(&call.user) else { return Ok(request) };
    let refuse = |why: &str| Err(ApiError::forbidden(&crate::objects::known::SERVICE_ACCOUNTS, &call.info.name, why));
    let reference = &request["spec"]["boundObjectRef"];
    let is_pod = text(reference, &["apiVersion"]) == "v1" && text(reference, &["kind"]) == "Pod";
    if !is_pod || text(reference, &["name"]).is_empty() {
        return refuse("node requested token not bound to a pod");
    }
    let uid = text(reference, &["uid"]);
    if uid.is_empty() {
        return refuse("node requested token with a pod binding without a uid");
    }
    let pods = &crate::objects::known::PODS;
    let name = text(reference, &["name"]);
    let pod = door.objects.get(pods, &call.info.namespace, name).ok_or_else(|| ApiError::not_found(pods, name))?;
    if tiphys_meta::object::uid(&pod) != uid {
        return refuse(&format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
        ));
    }
    if text(&pod, &["spec", "nodeName"]) != node {
        return refuse("node requested token bound to a pod scheduled on a different node");
    }
    Ok(request)
}

fn subject(spec: &Value) -> UserInfo {
    let mut user = UserInfo::new(text(spec, &["user"]), &[]);
    user.uid = text(spec, &["uid"]).to_owned();
    user.groups = strings(spec, "groups");
    let extra = spec.get("extra").and_then(Value::as_object).into_iter().flatten();
    user.extra = extra
        .map(|(key, values)| {
            let values = values.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
            (key.clone(), values)
        })
        .collect::<BTreeMap<_, _>>();
    user
}

fn check_access_spec(gvk: &Gvk, object: &Value, review: Review, namespace: &str) -> Result<(), ApiError> {
    let spec = &object["spec"];
    let mut bad = Vec::new();
    let has = |field: &str| spec.get(field).is_some_and(Value::is_object);
    let mut wrong = |field: &'static str, value: String, why: &str| {
        bad.push(BadField { field, reason: "FieldValueInvalid", detail: format!("Invalid value: {value}: {why}") });
    };
    match (has("resourceAttributes"), has("nonResourceAttributes")) {
        (true, true) => wrong(
            "spec.nonResourceAttributes",
            spec["nonResourceAttributes"].to_string(),
            "cannot be specified in combination with resourceAttributes",
        ),
        (false, false) => {
            wrong("spec.resourceAttributes", "null".into(), "exactly one of nonResourceAttributes or resourceAttributes must be specified");
        }
        _ => {}
    }
    if review != Review::SelfSubjectAccess && text(spec, &["user"]).is_empty() && strings(spec, "groups").is_empty() {
        wrong("spec.user", "\"\"".into(), "at least one of user or group must be specified");
    }
    let mut meta = object.get("metadata").cloned().unwrap_or_else(|| json!({}));
    if let Some(fields) = meta.as_object_mut() {
        fields.retain(|field, value| {
            !value.is_null() && field != "managedFields" && !(field == "namespace" && review == Review::LocalSubjectAccess)
        });
        if !fields.is_empty() {
            let local = review == Review::LocalSubjectAccess;
            wrong("metadata", meta.to_string(), if local { "must be empty except for namespace" } else { "must be empty" });
        }
    }
    if review == Review::LocalSubjectAccess {
        let given = text(spec, &["resourceAttributes", "namespace"]);
        if given != namespace {
            wrong("spec.resourceAttributes.namespace", format!("{given:?}"), "must match metadata.namespace");
        }
        if has("nonResourceAttributes") {
            wrong("spec.nonResourceAttributes", "{}".into(), "disallowed on this kind of request");
        }
    }
    // Upstream leaves the kind out of these.
    if bad.is_empty() { Ok(()) } else { Err(invalid(&Gvk::new(gvk.group.clone(), gvk.version.clone(), ""), "", bad)) }
}

fn access(door: &Door, user: &UserInfo, spec: &Value) -> Value {
    let r = &spec["resourceAttributes"];
    let n = &spec["nonResourceAttributes"];
    let is_resource = r.is_object();
    let fields = field_requirements(r);
    let question = Attributes {
        is_resource,
        verb: text(if is_resource { r } else { n }, &["verb"]),
        group: text(r, &["group"]),
        version: text(r, &["version"]),
        resource: text(r, &["resource"]),
        subresource: text(r, &["subresource"]),
        namespace: text(r, &["namespace"]),
        name: text(r, &["name"]),
        path: text(n, &["path"]),
        field_selector: fields.as_deref(),
    };
    let decision = door.authorization.decide(user, &question);
    let mut status = json!({"allowed": decision.is_allowed()});
    if matches!(decision, Decision::Deny { .. }) {
        status["denied"] = json!(true);
    }
    if !decision.reason().is_empty() {
        status["reason"] = json!(decision.reason());
    }
    status
}

/// The field selector as text: the raw one, or the requirements that pin a field to one value.
fn field_requirements(attributes: &Value) -> Option<String> {
    let selector = attributes.get("fieldSelector")?;
    let raw = text(selector, &["rawSelector"]);
    if !raw.is_empty() {
        return Some(raw.to_owned());
    }
    let terms = selector.get("requirements")?.as_array()?.iter().filter_map(|r| {
        let values = strings(r, "values");
        (text(r, &["operator"]) == "In" && values.len() == 1).then(|| format!("{}={}", text(r, &["key"]), values[0]))
    });
    Some(terms.collect::<Vec<_>>().join(","))
}

fn rules(door: &Door, user: &UserInfo, namespace: &str) -> Value {
    let mut rules = door.authorization.rbac.rules_for(user, namespace);
    if user.in_group(MASTERS) || door.authorization.has(&AuthorizationMode::AlwaysAllow) {
        let all = || vec!["*".to_owned()];
        rules.push(Rule { verbs: all(), groups: all(), resources: all(), ..Rule::default() });
        rules.push(Rule { verbs: all(), urls: all(), ..Rule::default() });
    }
    let (paths, resources): (Vec<&Rule>, Vec<&Rule>) = rules.iter().partition(|r| !r.urls.is_empty());
    let incomplete = node_of(user).is_some();
    let mut status = json!({
        "resourceRules": resources.iter().map(|r| r.to_value()).collect::<Vec<_>>(),
        "nonResourceRules": paths.iter().map(|r| r.to_value()).collect::<Vec<_>>(),
        "incomplete": incomplete,
    });
    if incomplete {
        status["evaluationError"] = json!("node authorizer does not support user rule resolution");
    }
    status
}

fn token(door: &Door, spec: &Value) -> Result<Value, ApiError> {
    let token = text(spec, &["token"]);
    if token.is_empty() {
        return Err(ApiError::bad_request("token is required for TokenReview in authentication"));
    }
    let audiences = strings(spec, "audiences");
    Ok(match door.authentication.bearer.identify(token, &audiences) {
        Ok(Some(found)) => {
            json!({"authenticated": true, "user": user_value(&found.user), "audiences": found.audiences})
        }
        Ok(None) => json!({"user": {}, "error": "invalid bearer token"}),
        Err(why) => json!({"user": {}, "error": why}),
    })
}

pub(crate) fn user_value(user: &UserInfo) -> Value {
    let mut value = json!({"username": user.name});
    if !user.uid.is_empty() {
        value["uid"] = json!(user.uid);
    }
    if !user.groups.is_empty() {
        value["groups"] = json!(user.groups);
    }
    if !user.extra.is_empty() {
        value["extra"] = json!(user.extra);
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn access_specs_are_checked() {
        let gvk = Review::SubjectAccess.gvk();
        let check = |spec: Value| check_access_spec(&gvk, &json!({"spec": spec}), Review::SubjectAccess, "").map_err(|e| e.causes.len());
        let resource = json!({"verb": "get", "resource": "pods"});
        assert_eq!(check(json!({"user": "a", "resourceAttributes": resource})), Ok(()));
        assert_eq!(check(json!({"groups": ["a"], "nonResourceAttributes": {"path": "/", "verb": "get"}})), Ok(()));
        assert_eq!(check(json!({"resourceAttributes": resource})), Err(1));
        assert_eq!(check(json!({})), Err(2));
        let local = |spec: Value| check_access_spec(&gvk, &json!({"spec": spec}), Review::LocalSubjectAccess, "a").is_ok();
        assert!(local(json!({"user": "a", "resourceAttributes": {"namespace": "a"}})));
        assert!(!local(json!({"user": "a", "resourceAttributes": {"namespace": "b"}})));
    }
}
