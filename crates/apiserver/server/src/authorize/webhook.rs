//! An authorizer elsewhere, which is asked with SubjectAccessReviews (`type: Webhook` of an AuthorizationConfiguration). Answers are kept for
//! a while; match conditions (CEL) say which requests it is asked about at all.
//!
//! Absent: label and field selectors in the reviews.

use std::collections::HashMap;
use std::time::Duration;

use http::Method;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tiphys_cel::{Activation, Env, MATCH_CONDITIONS_LIMIT, Program, Provider, Type, Val, admission};
use tiphys_client::{Client, Request};
use tiphys_registry::UserInfo;
use tokio::time::Instant;

use super::{Attributes, Decision};
use crate::objects::text;

/// Answers kept at most.
const MOST_KEPT: usize = 8192;
/// Tries of a question that fails on its way, and what is waited before the second one.
const TRIES: u32 = 5;
const FIRST_WAIT: Duration = Duration::from_millis(500);

pub(crate) struct WebhookAuthorizer {
    pub(crate) name: String,
    pub(crate) client: Client,
    pub(crate) path: String,
    /// `v1` or `v1beta1`.
    pub(crate) version: String,
    pub(crate) timeout: Duration,
    /// How long an answer that allows is kept, and one that does not; none: not at all.
    pub(crate) keep: [Option<Duration>; 2],
    /// `failurePolicy: Deny`.
    pub(crate) fails_closed: bool,
    pub(crate) conditions: Vec<Condition>,
    pub(crate) kept: Mutex<HashMap<String, (Decision, Instant)>>,
}

/// One match condition.
pub(crate) struct Condition {
    text: String,
    program: Program,
}

/// `request` of match conditions: the specification of a SubjectAccessReview.
struct Shape;

const SPEC: &str = "kubernetes.SubjectAccessReviewSpec";
const RESOURCE: &str = "kubernetes.ResourceAttributes";
const PATH: &str = "kubernetes.NonResourceAttributes";

impl Provider for Shape {
    fn has_type(&self, name: &str) -> bool {
        [SPEC, RESOURCE, PATH].contains(&name)
    }

    fn field(&self, of: &str, field: &str) -> Option<Type> {
        Some(match (of, field) {
            (SPEC, "user" | "uid") => Type::String,
            (SPEC, "groups") => Type::list(Type::String),
            (SPEC, "extra") => Type::map(Type::String, Type::list(Type::String)),
            (SPEC, "resourceAttributes") => Type::structure(RESOURCE),
            (SPEC, "nonResourceAttributes") => Type::structure(PATH),
            (RESOURCE, "namespace" | "verb" | "group" | "version" | "resource" | "subresource" | "name") => Type::String,
            (PATH, "path" | "verb") => Type::String,
            _ => return None,
        })
    }
}

impl Condition {
    pub(crate) fn compile(text: &str) -> Result<Condition, String> {
        let env = Env::default().variable("request", Type::structure(SPEC)).provider(std::sync::Arc::new(Shape));
        Ok(Condition { text: text.to_owned(), program: admission::compile(text, &env, &[Type::Bool])? })
    }
}

struct Given<'a>(&'a Value);

impl<'a> Activation<'a> for Given<'a> {
    fn resolve(&self, name: &str) -> Option<Val<'a>> {
        (name == "request").then(|| Val::json(self.0))
    }
}

/// What is asked, as conditions see it: every field is there.
fn spec(user: &UserInfo, question: &Attributes<'_>) -> Value {
    let mut spec = json!({"user": user.name, "groups": user.groups, "uid": user.uid, "extra": user.extra});
    let Attributes { verb, group, version, resource, subresource, namespace, name, path, is_resource, .. } = question;
    if *is_resource {
        spec["resourceAttributes"] = json!({"namespace": namespace, "verb": verb, "group": group, "version": version,
            "resource": resource, "subresource": subresource, "name": name});
    } else {
        spec["nonResourceAttributes"] = json!({"path": path, "verb": verb});
    }
    spec
}

/// Without what is empty, as a SubjectAccessReview is sent.
fn sent(mut spec: Value, version: &str) -> Value {
    fn prune(value: &mut Value) {
        let Some(map) = value.as_object_mut() else { return };
        map.values_mut().for_each(prune);
        map.retain(|_, v| !matches!(v, Value::String(s) if s.is_empty()) && !matches!(v, Value::Object(m) if m.is_empty()));
    }
    prune(&mut spec);
    // The older version has the groups under another name.
    if version == "v1beta1"
        && let Some(groups) = spec.as_object_mut().and_then(|map| map.remove("groups"))
    {
        spec["group"] = groups;
    }
    json!({"kind": "SubjectAccessReview", "apiVersion": format!("authorization.k8s.io/{version}"),
        "metadata": {"creationTimestamp": null}, "spec": spec, "status": {"allowed": false}})
}

impl WebhookAuthorizer {
    pub(crate) async fn decide(&self, user: &UserInfo, question: &Attributes<'_>) -> Decision {
        let spec = spec(user, question);
        match self.is_concerned(&spec) {
            Ok(true) => {}
            Ok(false) => return Decision::no_opinion(""),
            Err(why) => return self.failed(&why),
        }
        let review = sent(spec, &self.version).to_string();
        if let Some(kept) = self.known(&review) {
            return kept;
        }
        match self.ask(&review).await {
            Ok(decision) => {
                self.keep(review, &decision);
                decision
            }
            Err(why) => self.failed(&why),
        }
    }

    fn failed(&self, why: &str) -> Decision {
        tracing::warn!(webhook = self.name, why, "an authorization webhook cannot be asked");
        if self.fails_closed { Decision::Deny { reason: why.to_owned() } } else { Decision::no_opinion(why) }
    }

    /// One condition that does not hold settles it, whatever is wrong with others.
    fn is_concerned(&self, spec: &Value) -> Result<bool, String> {
        let (mut budget, mut wrong) = (MATCH_CONDITIONS_LIMIT, None);
        for condition in &self.conditions {
            let outcome = condition.program.eval(&Given(spec), budget);
            budget = budget.saturating_sub(outcome.cost);
            match outcome.result {
                Ok(Val::Bool(true)) => {}
                Ok(_) => return Ok(false),
                Err(error) => wrong = Some(format!("expression '{}' resulted in error: {error}", condition.text)),
            }
        }
        wrong.map_or(Ok(true), Err)
    }

    fn known(&self, review: &str) -> Option<Decision> {
        let kept = self.kept.lock();
        kept.get(review).filter(|(_, until)| *until > Instant::now()).map(|(decision, _)| decision.clone())
    }

    fn keep(&self, review: String, decision: &Decision) {
        let Some(time) = self.keep[usize::from(!decision.is_allowed())] else { return };
        let now = Instant::now();
        let mut kept = self.kept.lock();
        if kept.len() >= MOST_KEPT {
            kept.retain(|_, (_, until)| *until > now);
        }
        if kept.len() >= MOST_KEPT {
            kept.clear();
        }
        kept.insert(review, (decision.clone(), now + time));
    }

    async fn ask(&self, review: &str) -> Result<Decision, String> {
        let mut wait = FIRST_WAIT;
        for attempt in 1.. {
            let request = Request::with_json(Method::POST, self.path.clone(), review.as_bytes().to_vec());
            let error = match tokio::time::timeout(self.timeout, self.client.raw(request)).await {
                Ok(Ok(answer)) => return read(&answer.body),
                Ok(Err(error)) if error.api().is_some_and(|e| e.code < 500 && e.code != 429) => return Err(error.to_string()),
                Ok(Err(error)) => error.to_string(),
                Err(_) => return Err("context deadline exceeded".into()),
            };
            if attempt == TRIES {
                return Err(error);
            }
            tokio::time::sleep(wait).await;
            wait = wait.mul_f64(1.5);
        }
        Err("it was not asked".into())
    }
}

fn read(answer: &[u8]) -> Result<Decision, String> {
    let review: Value = serde_json::from_slice(answer).map_err(|e| e.to_string())?;
    let status = &review["status"];
    let flag = |field: &str| status[field].as_bool().unwrap_or(false);
    let reason = text(status, &["reason"]).to_owned();
    match (flag("allowed"), flag("denied")) {
        (true, true) => Err(format!("webhook subject access review returned both allow and deny response: {reason}")),
        (true, false) => Ok(Decision::Allow { reason }),
        (false, true) => Ok(Decision::Deny { reason }),
        (false, false) => Ok(Decision::NoOpinion { reason }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question() -> Attributes<'static> {
        Attributes { verb: "get", is_resource: true, resource: "pods", namespace: "a", ..Attributes::default() }
    }

    #[test]
    fn reviews_leave_out_what_is_empty() {
        let user = UserInfo::new("ann", &["dev"]);
        let review = sent(spec(&user, &question()), "v1beta1");
        let attributes = json!({"namespace": "a", "verb": "get", "resource": "pods"});
        assert_eq!(review["spec"], json!({"user": "ann", "group": ["dev"], "resourceAttributes": attributes}));
        let path = Attributes { verb: "get", path: "/version", ..Attributes::default() };
        assert_eq!(sent(spec(&user, &path), "v1")["spec"]["nonResourceAttributes"], json!({"verb": "get", "path": "/version"}));
    }

    #[test]
    fn conditions_see_the_request() {
        let spec = spec(&UserInfo::new("ann", &["dev"]), &question());
        for (expression, holds) in [
            ("'dev' in request.groups", Ok(true)),
            ("has(request.resourceAttributes) && request.resourceAttributes.namespace == 'a'", Ok(true)),
            ("has(request.nonResourceAttributes)", Ok(false)),
            ("request.resourceAttributes.group == ''", Ok(true)),
            ("request.nonResourceAttributes.path == '/'", Err(())),
        ] {
            let condition = Condition::compile(expression).expect(expression);
            let held = condition.program.eval(&Given(&spec), MATCH_CONDITIONS_LIMIT).result;
            assert_eq!(held.map(|v| matches!(v, Val::Bool(true))).map_err(drop), holds, "{expression}");
        }
        assert!(Condition::compile("request.nonsense == 1").is_err());
        assert!(Condition::compile("request.user").is_err_and(|why| why.contains("must evaluate to bool")));
    }

    #[test]
    fn answers() {
        let told = |status: Value| read(json!({"status": status}).to_string().as_bytes());
        assert_eq!(told(json!({"allowed": true, "reason": "x"})), Ok(Decision::Allow { reason: "x".into() }));
        assert_eq!(told(json!({"allowed": false, "denied": true})), Ok(Decision::Deny { reason: String::new() }));
        assert_eq!(told(json!({"allowed": false})), Ok(Decision::no_opinion("")));
        assert!(told(json!({"allowed": true, "denied": true})).is_err());
    }
}
