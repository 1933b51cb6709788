//! Who did what, and how it ended: events of `audit.k8s.io/v1`, by upstream's policy file, into a file that rotates.
//!
//! Without a policy file everything that changes something, and what people read, is kept at the level Metadata; what components of the
//! system read all day is not. Absent: webhook backends, truncation (a body is at most as large as a request), the stage Panic of its own
//! (a panic is an answer with code 500).

mod log;
mod policy;

use std::sync::Arc;

use bytes::Bytes;
use http::header;
use serde_json::{Map, Value, json};
use tiphys_registry::{Answer, Body as AnswerBody, UserInfo};

use crate::chain::{Call, Origin, Outcome};
use crate::config::AuditLog;
use crate::errors::DoorError;
use log::LogFile;
pub(crate) use policy::PolicyError;
use policy::{Level, Policy, Stage};

#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    #[error("audit policy: {0}")]
    Policy(#[from] PolicyError),
    #[error("audit log {path}: {source}")]
    Log { path: String, source: std::io::Error },
}

/// What is kept of a request until it is answered.
pub(crate) struct Draft {
    level: Level,
    omitted: [bool; policy::STAGES],
    omit_managed_fields: bool,
    received: jiff::Timestamp,
    /// The body, where the level wants it.
    pub(crate) request: Option<Bytes>,
    pub(crate) annotations: Vec<(&'static str, String)>,
}

impl Draft {
    pub(crate) fn wants_request(&self) -> bool {
        self.level >= Level::Request
    }
}

#[derive(Clone)]
pub struct Audit {
    inner: Option<Arc<Inner>>,
}

struct Inner {
    policy: Policy,
    log: LogFile,
    clock: Arc<dyn tiphys_base::Clock>,
}

impl Audit {
    pub(crate) fn off() -> Self {
        Audit { inner: None }
    }

    pub(crate) fn new(
        config: &AuditLog,
        clock: Arc<dyn tiphys_base::Clock>,
        tasks: &tiphys_base::tasks::Tasks,
    ) -> Result<Self, AuditError> {
        let policy = match &config.policy_file {
            Some(path) => Policy::read(path)?,
            None => Policy::default(),
        };
        let log = LogFile::open(config, tasks).map_err(|source| AuditError::Log { path: config.path.display().to_string(), source })?;
        Ok(Audit { inner: Some(Arc::new(Inner { policy, log, clock })) })
    }

    /// What is to be kept of the request, if anything. Its first stage goes into the log at once.
    pub(crate) fn received(&self, call: &mut Call) {
        let Some(inner) = &self.inner else { return };
        let Some(draft) = inner.draft(call) else { return };
        if !draft.omitted[Stage::RequestReceived as usize] {
            inner.write(event(call, &draft, Stage::RequestReceived, None, inner.clock.now()));
        }
        call.audit = Some(Box::new(draft));
    }

    /// The answer's head is known. For what lasts, the end is told when the guard is dropped.
    pub(crate) fn answered(&self, call: &mut Call, code: u16, outcome: &Result<Outcome, DoorError>) -> Option<Ended> {
        let inner = self.inner.as_ref()?;
        if call.audit.is_none() && matches!(outcome, Err(DoorError::Unauthorized(_))) {
            // Who could not prove who they are never came to the stage that begins an event.
            call.audit = inner.draft(call).map(Box::new);
        }
        let draft = call.audit.take()?;
        let lasts = call.info.is_long_running() && outcome.is_ok();
        let stage = if lasts { Stage::ResponseStarted } else { Stage::ResponseComplete };
        let status = status(code, outcome.as_ref().err());
        let now = inner.clock.now();
        if !draft.omitted[stage as usize] {
            let mut event = event(call, &draft, stage, Some(&status), now);
            if stage == Stage::ResponseComplete {
                add_bodies(&mut event, &draft, outcome);
            }
            inner.write(event);
        }
        if !lasts || draft.omitted[Stage::ResponseComplete as usize] {
            return None;
        }
        let event = event(call, &draft, Stage::ResponseComplete, Some(&status), now);
        Some(Ended { inner: inner.clone(), event: Some(event) })
    }
}

/// Tells of the end of a watch or stream when it is dropped.
pub(crate) struct Ended {
    inner: Arc<Inner>,
    event: Option<Value>,
}

impl Drop for Ended {
    fn drop(&mut self) {
        if let Some(mut event) = self.event.take() {
            event["stageTimestamp"] = json!(micros(self.inner.clock.now()));
            self.inner.write(event);
        }
    }
}

impl Inner {
    fn draft(&self, call: &Call) -> Option<Draft> {
        let (level, omitted, omit_managed_fields) = self.policy.of(&call.user, &call.info);
        let draft = Draft { level, omitted, omit_managed_fields, received: self.clock.now(), request: None, annotations: Vec::new() };
        (level != Level::None).then_some(draft)
    }

    fn write(&self, event: Value) {
        self.log.write(&event);
    }
}

fn micros(at: jiff::Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

fn event(call: &Call, draft: &Draft, stage: Stage, status: Option<&Value>, now: jiff::Timestamp) -> Value {
    let mut event = json!({
        "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": draft.level.name(), "auditID": call.audit_id, "stage": stage.name(),
        "requestURI": call.parts.uri.path_and_query().map_or("", |p| p.as_str()), "verb": call.info.verb,
        "user": user(call.impersonator.as_deref().unwrap_or(&call.user)),
        "requestReceivedTimestamp": micros(draft.received), "stageTimestamp": micros(now),
    });
    if call.impersonator.is_some() {
        event["impersonatedUser"] = user(&call.user);
    }
    if let Origin::Socket(peer) = &call.origin
        && let Some(address) = peer.address
    {
        event["sourceIPs"] = json!([address.ip().to_string()]);
    }
    let agent = call.header(header::USER_AGENT);
    if !agent.is_empty() {
        event["userAgent"] = json!(agent);
    }
    if call.info.is_resource {
        event["objectRef"] = object_ref(call);
    }
    if let Some(status) = status {
        event["responseStatus"] = status.clone();
    }
    if !draft.annotations.is_empty() {
        event["annotations"] = draft.annotations.iter().map(|(k, v)| ((*k).to_owned(), json!(v))).collect::<Map<_, _>>().into();
    }
    event
}

/// As authentication reviews show a user, with Go's field names.
fn user(user: &UserInfo) -> Value {
    crate::reviews::user_value(user)
}

fn object_ref(call: &Call) -> Value {
    let info = &call.info;
    let mut object = Map::new();
    for (field, text) in [
        ("resource", &info.resource),
        ("namespace", &info.namespace),
        ("name", &info.name),
        ("apiGroup", &info.group),
        ("apiVersion", &info.version),
        ("subresource", &info.subresource),
    ] {
        if !text.is_empty() {
            object.insert(field.to_owned(), json!(text));
        }
    }
    Value::Object(object)
}

fn status(code: u16, error: Option<&DoorError>) -> Value {
    let mut status = json!({"metadata": {}, "code": code});
    if let Some(error) = error {
        let said = match error {
            DoorError::Api(error) => Some((error.reason.as_str(), error.message.clone())),
            DoorError::Unauthorized(_) => Some(("Unauthorized", "Unauthorized".to_owned())),
            DoorError::TooMany => Some(("TooManyRequests", "Too many requests, please try again later.".to_owned())),
            _ => None,
        };
        status["status"] = json!("Failure");
        if let Some((reason, message)) = said {
            (status["reason"], status["message"]) = (json!(reason), json!(message));
        }
    }
    status
}

fn add_bodies(event: &mut Value, draft: &Draft, outcome: &Result<Outcome, DoorError>) {
    let mut put = |field: &str, bytes: &[u8]| {
        if let Some(mut object) = decoded(bytes) {
            if draft.omit_managed_fields
                && let Some(meta) = object.get_mut("metadata").and_then(Value::as_object_mut)
            {
                meta.remove("managedFields");
            }
            event[field] = object;
        }
    };
    if let Some(request) = draft.request.as_ref().filter(|b| !b.is_empty()) {
        put("requestObject", request);
    }
    if draft.level >= Level::RequestResponse
        && let Ok(Outcome::Objects(Answer::Object(document))) = outcome
        && let AnswerBody::Full(bytes) = &document.body
    {
        put("responseObject", bytes);
    }
}

/// JSON, YAML or protobuf as a tree; patches of JSON are lists and stay so.
fn decoded(bytes: &[u8]) -> Option<Value> {
    use tiphys_schema::codec::{proto, yaml};
    if bytes.starts_with(b"k8s\0") {
        return proto::decode(bytes).ok().map(|(_, tree)| tree);
    }
    serde_json::from_slice(bytes).ok().or_else(|| yaml::to_tree(bytes).ok())
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::body;
    use crate::request_info::Info;

    fn call(method: Method, path: &str) -> Call {
        let user = Arc::new(UserInfo::new("ann", &["system:authenticated"]));
        let mut request = http::Request::new(body::empty());
        *request.uri_mut() = path.parse().expect("path");
        let mut call = Call::new(request, Origin::InProcess(user.clone()));
        call.info = Info::parse(&method, path, "").expect("path");
        call.user = user;
        call
    }

    #[tokio::test]
    async fn events_are_written_and_secrets_are_not() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("audit.log");
        let tasks = tiphys_base::tasks::Tasks::new();
        let config = AuditLog { path: path.clone(), ..AuditLog::default() };
        let audit = Audit::new(&config, tiphys_base::SystemClock::shared(), &tasks).expect("opens");
        let mut call = call(Method::POST, "/api/v1/namespaces/a/secrets");
        audit.received(&mut call);
        let draft = call.audit.as_mut().expect("audited");
        assert!(!draft.wants_request(), "the level Metadata keeps no bodies");
        draft.annotations.push(("authorization.k8s.io/decision", "allow".into()));
        let outcome = Err(DoorError::TooMany);
        assert!(audit.answered(&mut call, 429, &outcome).is_none());
        drop(audit);
        assert!(tasks.shut_down(std::time::Duration::from_secs(5)).await);
        let text = std::fs::read_to_string(path).expect("written");
        let event: Value = serde_json::from_str(text.lines().next().expect("a line")).expect("JSON");
        assert_eq!((&event["verb"], &event["stage"], &event["level"]), (&json!("create"), &json!("ResponseComplete"), &json!("Metadata")));
        assert_eq!(event["objectRef"], json!({"resource": "secrets", "namespace": "a", "apiVersion": "v1"}));
        assert_eq!((&event["responseStatus"]["code"], &event["user"]["username"]), (&json!(429), &json!("ann")));
        assert_eq!(event["annotations"]["authorization.k8s.io/decision"], "allow");
    }

    #[test]
    fn bodies_in_any_encoding() {
        assert_eq!(decoded(b"{\"a\":1}"), Some(json!({"a": 1})));
        assert_eq!(decoded(b"a: 1\n"), Some(json!({"a": 1})));
        assert_eq!(decoded(b"k8s\0\xff"), None);
    }
}
