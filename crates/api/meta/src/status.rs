use serde_json::{Value, json};

use crate::Gvr;

/// `metav1.StatusReason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    Unknown,
    BadRequest,
    Unauthorized,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    NotAcceptable,
    AlreadyExists,
    Conflict,
    Expired,
    Gone,
    RequestEntityTooLarge,
    UnsupportedMediaType,
    Invalid,
    TooManyRequests,
    InternalError,
    ServiceUnavailable,
    ServerTimeout,
    Timeout,
}

impl Reason {
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Unknown => "",
            Reason::BadRequest => "BadRequest",
            Reason::Unauthorized => "Unauthorized",
            Reason::Forbidden => "Forbidden",
            Reason::NotFound => "NotFound",
            Reason::MethodNotAllowed => "MethodNotAllowed",
            Reason::NotAcceptable => "NotAcceptable",
            Reason::AlreadyExists => "AlreadyExists",
            Reason::Conflict => "Conflict",
            Reason::Expired => "Expired",
            Reason::Gone => "Gone",
            Reason::RequestEntityTooLarge => "RequestEntityTooLarge",
            Reason::UnsupportedMediaType => "UnsupportedMediaType",
            Reason::Invalid => "Invalid",
            Reason::TooManyRequests => "TooManyRequests",
            Reason::InternalError => "InternalError",
            Reason::ServiceUnavailable => "ServiceUnavailable",
            Reason::ServerTimeout => "ServerTimeout",
            Reason::Timeout => "Timeout",
        }
    }

    pub fn from_name(name: &str) -> Reason {
        const ALL: [Reason; 18] = [
            Reason::BadRequest,
            Reason::Unauthorized,
            Reason::Forbidden,
            Reason::NotFound,
            Reason::MethodNotAllowed,
            Reason::NotAcceptable,
            Reason::AlreadyExists,
            Reason::Conflict,
            Reason::Expired,
            Reason::Gone,
            Reason::RequestEntityTooLarge,
            Reason::UnsupportedMediaType,
            Reason::Invalid,
            Reason::TooManyRequests,
            Reason::InternalError,
            Reason::ServiceUnavailable,
            Reason::ServerTimeout,
            Reason::Timeout,
        ];
        ALL.into_iter().find(|r| r.as_str() == name).unwrap_or(Reason::Unknown)
    }

    /// The HTTP status that goes with the reason.
    pub fn code(self) -> u16 {
        match self {
            Reason::BadRequest => 400,
            Reason::Unauthorized => 401,
            Reason::Forbidden => 403,
            Reason::NotFound => 404,
            Reason::MethodNotAllowed => 405,
            Reason::NotAcceptable => 406,
            Reason::AlreadyExists | Reason::Conflict => 409,
            Reason::Expired | Reason::Gone => 410,
            Reason::RequestEntityTooLarge => 413,
            Reason::UnsupportedMediaType => 415,
            Reason::Invalid => 422,
            Reason::TooManyRequests => 429,
            Reason::Unknown | Reason::InternalError => 500,
            Reason::ServiceUnavailable => 503,
            Reason::ServerTimeout => 500,
            Reason::Timeout => 504,
        }
    }
}

/// One entry of `status.details.causes`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    pub reason: String,
    pub message: String,
    pub field: String,
}

/// An error as the API says it: `metav1.Status` with `status: Failure`.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    pub code: u16,
    pub reason: Reason,
    pub message: String,
    /// `details.name`, `.group`, `.kind` (upstream puts the resource or the kind here), `.uid`.
    pub name: String,
    pub group: String,
    pub kind: String,
    pub uid: String,
    pub causes: Vec<Cause>,
    pub retry_after_seconds: i32,
    /// `metadata.continue`: how a list whose first page's revision is compacted may go on.
    pub continue_token: String,
    /// `details` are shown even where they say nothing.
    pub empty_details: bool,
    /// What is told beside the error, in `Warning` headers.
    pub warnings: Vec<String>,
}

impl ApiError {
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        ApiError {
            code: reason.code(),
            reason,
            message: message.into(),
            name: String::new(),
            group: String::new(),
            kind: String::new(),
            uid: String::new(),
            causes: Vec::new(),
            retry_after_seconds: 0,
            continue_token: String::new(),
            empty_details: matches!(reason, Reason::NotFound | Reason::Invalid | Reason::Forbidden),
            warnings: Vec::new(),
        }
    }

    /// An answer that upstream's router gives, before anybody asks what the request is about.
    pub fn of_the_router(reason: Reason, message: impl Into<String>) -> Self {
        ApiError { empty_details: true, ..ApiError::new(reason, message) }
    }

    /// Nothing is served at the path.
    pub fn not_found_path() -> Self {
        ApiError::new(Reason::NotFound, "the server could not find the requested resource")
    }

    pub fn method_not_allowed() -> Self {
        ApiError::of_the_router(Reason::MethodNotAllowed, "the server does not allow this method on the requested resource")
    }

    fn about(mut self, gvr: &Gvr, name: &str) -> Self {
        self.group = gvr.group.to_string();
        self.kind = gvr.resource.to_string();
        self.name = name.to_owned();
        self
    }

    pub fn bad_request(message: impl Into<String>) -> Self {
        ApiError::new(Reason::BadRequest, message)
    }

    pub fn not_found(gvr: &Gvr, name: &str) -> Self {
        ApiError::new(Reason::NotFound, format!("{} \"{name}\" not found", gvr.group_resource())).about(gvr, name)
    }

    pub fn already_exists(gvr: &Gvr, name: &str) -> Self {
        ApiError::new(Reason::AlreadyExists, format!("{} \"{name}\" already exists", gvr.group_resource())).about(gvr, name)
    }

    pub fn conflict(gvr: &Gvr, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {} \"{name}\": {why}", gvr.group_resource());
        ApiError::new(Reason::Conflict, message).about(gvr, name)
    }

    pub fn forbidden(gvr: &Gvr, name: &str, why: &str) -> Self {
        let message = if name.is_empty() {
            format!("{} is forbidden: {why}", gvr.group_resource())
        } else {
            format!("{} \"{name}\" is forbidden: {why}", gvr.group_resource())
        };
        ApiError::new(Reason::Forbidden, message).about(gvr, name)
    }

    pub fn internal(message: impl std::fmt::Display) -> Self {
        let message = message.to_string();
        let mut error = ApiError::new(Reason::InternalError, format!("Internal error occurred: {message}"));
        error.causes.push(Cause { reason: String::new(), message, field: String::new() });
        error
    }

    pub fn is_not_found(&self) -> bool {
        self.reason == Reason::NotFound
    }

    pub fn is_conflict(&self) -> bool {
        self.reason == Reason::Conflict
    }

    pub fn is_already_exists(&self) -> bool {
        self.reason == Reason::AlreadyExists
    }

    /// The `Status` object as clients read it.
    pub fn to_status(&self) -> Value {
        let mut details = serde_json::Map::new();
        for (field, value) in [("name", &self.name), ("group", &self.group), ("kind", &self.kind), ("uid", &self.uid)] {
            if !value.is_empty() {
                details.insert(field.into(), json!(value));
            }
        }
        if !self.causes.is_empty() {
            details.insert("causes".into(), self.causes.iter().map(Cause::to_value).collect());
        }
        if self.retry_after_seconds > 0 {
            details.insert("retryAfterSeconds".into(), json!(self.retry_after_seconds));
        }
        let mut status =
            json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": self.message, "code": self.code});
        if self.reason != Reason::Unknown {
            status["reason"] = json!(self.reason.as_str());
        }
        if !self.continue_token.is_empty() {
            status["metadata"]["continue"] = json!(self.continue_token);
        }
        if !details.is_empty() || self.empty_details {
            status["details"] = Value::Object(details);
        }
        status
    }

    /// Reads a `Status`; an answer that is none keeps its text.
    pub fn from_status(code: u16, body: &[u8]) -> Self {
        let Ok(status) = serde_json::from_slice::<Value>(body) else {
            let mut error = ApiError::new(Reason::Unknown, String::from_utf8_lossy(body).into_owned());
            error.code = code;
            return error;
        };
        let text = |v: &Value, f: &str| v.get(f).and_then(Value::as_str).unwrap_or("").to_owned();
        let mut error = ApiError::new(Reason::from_name(&text(&status, "reason")), text(&status, "message"));
        error.code = status.get("code").and_then(Value::as_u64).and_then(|c| u16::try_from(c).ok()).unwrap_or(code);
        if let Some(details) = status.get("details") {
            error.name = text(details, "name");
            error.group = text(details, "group");
            error.kind = text(details, "kind");
            error.uid = text(details, "uid");
            error.retry_after_seconds =
                details.get("retryAfterSeconds").and_then(Value::as_i64).and_then(|s| i32::try_from(s).ok()).unwrap_or(0);
            let causes = details.get("causes").and_then(Value::as_array).into_iter().flatten();
            error.causes =
                causes.map(|c| Cause { reason: text(c, "reason"), message: text(c, "message"), field: text(c, "field") }).collect();
        }
        error
    }
}

impl Cause {
    fn to_value(&self) -> Value {
        let mut cause = serde_json::Map::new();
        for (field, value) in [("reason", &self.reason), ("message", &self.message), ("field", &self.field)] {
            if !value.is_empty() {
                cause.insert(field.into(), json!(value));
            }
        }
        Value::Object(cause)
    }
}
