//! Who did what, and how it ended: events of `audit.k8s.io/v1`, by upstream's policy file, into a file that rotates.
//!
//! Without a policy file everything that changes something, and what people read, is kept at the level Metadata; what components of the
//! system read all day is not. Absent: webhook backends, truncation (a body is at most as large as a request), the stage Panic of its own
//! (a panic is an answer with code 500).

mod log;
mod policy;

use std::fmt::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use http::header;
use serde::Serialize;
use serde_json::Value;
use tiphys_registry::{Answer, AuditNotes, Body as AnswerBody, UserInfo};

use crate::chain::{Call, Origin, Outcome};
use crate::config::AuditLog;
use crate::config_file::ConfigFileError;
use crate::errors::DoorError;
use log::LogFile;
use policy::{Level, Policy, Stage};

#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    #[error(transparent)]
    Policy(#[from] ConfigFileError),
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
    /// What admission adds to them.
    pub(crate) notes: AuditNotes,
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
            inner.log.write(head(call, &draft, Stage::RequestReceived, None).finish(inner.clock.now()));
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
        let answer = Some((code, outcome.as_ref().err()));
        let now = inner.clock.now();
        if !draft.omitted[stage as usize] {
            let mut line = head(call, &draft, stage, answer);
            if stage == Stage::ResponseComplete {
                add_bodies(&mut line, &draft, outcome);
            }
            inner.log.write(line.finish(now));
        }
        if !lasts || draft.omitted[Stage::ResponseComplete as usize] {
            return None;
        }
        Some(Ended { inner: inner.clone(), line: Some(head(call, &draft, Stage::ResponseComplete, answer)) })
    }
}

/// Tells of the end of a watch or stream when it is dropped.
pub(crate) struct Ended {
    inner: Arc<Inner>,
    line: Option<Line>,
}

impl Drop for Ended {
    fn drop(&mut self) {
        if let Some(line) = self.line.take() {
            self.inner.log.write(line.finish(self.inner.clock.now()));
        }
    }
}

impl Inner {
    fn draft(&self, call: &Call) -> Option<Draft> {
        let (level, omitted, omit_managed_fields) = self.policy.of(&call.user, &call.info);
        (level != Level::None).then(|| Draft {
            level,
            omitted,
            omit_managed_fields,
            received: self.clock.now(),
            request: None,
            annotations: Vec::new(),
            notes: AuditNotes::kept(level >= Level::Request),
        })
    }
}

/// An event as it is written: JSON straight into its text, since most requests leave one.
struct Line(String);

impl Line {
    fn new(level: Level, id: &str, stage: Stage) -> Self {
        let mut line = Line(String::with_capacity(1024));
        line.0.push_str("{\"kind\":\"Event\",\"apiVersion\":\"audit.k8s.io/v1\"");
        for (field, text) in [("level", level.name()), ("auditID", id), ("stage", stage.name())] {
            line.text(field, text);
        }
        line
    }

    /// The field's name, behind a comma.
    fn name(&mut self, field: &str) {
        self.0.push_str(",\"");
        self.0.push_str(field);
        self.0.push_str("\":");
    }

    fn text(&mut self, field: &str, text: &str) {
        self.name(field);
        self.quoted(text);
    }

    fn quoted(&mut self, text: &str) {
        // All of them in any case: so the compiler looks at many at once.
        let escaped = text.bytes().fold(false, |found, b| found | (b < b' ') | (b == b'"') | (b == b'\\'));
        if !escaped {
            self.0.push('"');
            self.0.push_str(text);
            self.0.push('"');
        } else {
            self.json(text);
        }
    }

    fn json(&mut self, value: &(impl Serialize + ?Sized)) {
        self.0.push_str(&serde_json::to_string(value).unwrap_or_else(|_| "null".to_owned()));
    }

    fn put(&mut self, field: &str, value: &(impl Serialize + ?Sized)) {
        self.name(field);
        self.json(value);
    }

    /// The fields of an object; empty texts are left out.
    fn object<'t>(&mut self, field: &str, texts: impl IntoIterator<Item = (&'t str, &'t str)>) {
        self.name(field);
        let begin = self.0.len();
        for (name, text) in texts {
            if !text.is_empty() {
                self.text(name, text);
            }
        }
        if self.0.len() == begin {
            self.0.push_str("{}");
        } else {
            // The first name's comma.
            self.0.replace_range(begin..=begin, "{");
            self.0.push('}');
        }
    }

    fn texts(&mut self, field: &str, texts: &[String]) {
        self.name(field);
        for (i, text) in texts.iter().enumerate() {
            self.0.push(if i == 0 { '[' } else { ',' });
            self.quoted(text);
        }
        self.0.push(']');
    }

    /// As authentication reviews show a user.
    fn user(&mut self, field: &str, user: &UserInfo) {
        self.object(field, [("username", &*user.name), ("uid", &user.uid)]);
        self.0.pop();
        if !user.groups.is_empty() {
            self.texts("groups", &user.groups);
        }
        if !user.extra.is_empty() {
            self.put("extra", &user.extra);
        }
        self.0.push('}');
    }

    fn time(&mut self, field: &str, at: jiff::Timestamp) {
        self.name(field);
        self.0.push('"');
        tiphys_meta::time::push_time(&mut self.0, at);
        self.0.push('"');
    }

    fn finish(mut self, now: jiff::Timestamp) -> Vec<u8> {
        self.time("stageTimestamp", now);
        self.0.push_str("}\n");
        self.0.into_bytes()
    }
}

/// Everything but the bodies and the time of the stage.
fn head(call: &Call, draft: &Draft, stage: Stage, answer: Option<(u16, Option<&DoorError>)>) -> Line {
    let info = &call.info;
    let mut line = Line::new(draft.level, &call.audit_id, stage);
    line.text("requestURI", call.parts.uri.path_and_query().map_or("", |p| p.as_str()));
    line.text("verb", &info.verb);
    line.user("user", call.impersonator.as_deref().unwrap_or(&call.user));
    if call.impersonator.is_some() {
        line.user("impersonatedUser", &call.user);
    }
    if let Origin::Socket(peer) = &call.origin
        && !peer.ip.is_empty()
    {
        line.texts("sourceIPs", std::slice::from_ref(&peer.ip));
    }
    let agent = call.header(header::USER_AGENT);
    if !agent.is_empty() {
        line.text("userAgent", agent);
    }
    if info.is_resource {
        let place = [("resource", &*info.resource), ("namespace", &info.namespace), ("name", &info.name)];
        let kind = [("apiGroup", &*info.group), ("apiVersion", &info.version), ("subresource", &info.subresource)];
        line.object("objectRef", place.into_iter().chain(kind));
    }
    if let Some((code, error)) = answer {
        add_status(&mut line, code, error);
    }
    add_annotations(&mut line, draft);
    line.time("requestReceivedTimestamp", draft.received);
    line
}

/// Sorted by their keys; empty values are said, too.
fn add_annotations(line: &mut Line, draft: &Draft) {
    let notes = draft.notes.all();
    let own = draft.annotations.iter().map(|(key, value)| (*key, value.as_str()));
    let mut all: Vec<(&str, &str)> = notes.iter().map(|(key, value)| (key.as_str(), value.as_str())).chain(own).collect();
    if all.is_empty() {
        return;
    }
    all.sort_unstable();
    line.name("annotations");
    for (i, (key, value)) in all.into_iter().enumerate() {
        line.0.push(if i == 0 { '{' } else { ',' });
        line.quoted(key);
        line.0.push(':');
        line.quoted(value);
    }
    line.0.push('}');
}

fn add_status(line: &mut Line, code: u16, error: Option<&DoorError>) {
    let (reason, message) = match error {
        Some(DoorError::Api(error)) => (error.reason.as_str(), error.message.as_str()),
        Some(DoorError::Unauthorized(_)) => ("Unauthorized", "Unauthorized"),
        Some(DoorError::TooMany) => ("TooManyRequests", "Too many requests, please try again later."),
        _ => ("", ""),
    };
    let status = if error.is_some() { "Failure" } else { "" };
    line.object("responseStatus", [("status", status), ("reason", reason), ("message", message)]);
    line.0.pop();
    let comma = if error.is_some() { "," } else { "" };
    let _ = write!(line.0, "{comma}\"metadata\":{{}},\"code\":{code}}}");
}

fn add_bodies(line: &mut Line, draft: &Draft, outcome: &Result<Outcome, DoorError>) {
    let mut put = |field: &str, bytes: &[u8]| {
        if let Some(mut object) = decoded(bytes) {
            if draft.omit_managed_fields
                && let Some(meta) = object.get_mut("metadata").and_then(Value::as_object_mut)
            {
                meta.remove("managedFields");
            }
            line.put(field, &object);
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
    use tiphys_schema::codec::{json, proto, yaml};
    if bytes.starts_with(b"k8s\0") {
        return proto::decode(bytes).ok().map(|(_, tree)| tree);
    }
    json::decode_raw(bytes).ok().or_else(|| yaml::to_tree(bytes).ok())
}

#[cfg(test)]
mod tests {
    use http::Method;
    use serde_json::json;

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
        assert_eq!(event["responseStatus"]["reason"], "TooManyRequests");
        assert!(event["stageTimestamp"].as_str().is_some_and(|t| t.len() == "2026-11-21T13:41:00.000000Z".len()), "{event}");
        assert_eq!(event["annotations"]["authorization.k8s.io/decision"], "allow");
    }

    #[test]
    fn bodies_in_any_encoding() {
        assert_eq!(decoded(b"{\"a\":1}"), Some(json!({"a": 1})));
        assert_eq!(decoded(b"a: 1\n"), Some(json!({"a": 1})));
        assert_eq!(decoded(b"k8s\0\xff"), None);
    }
}
