use serde::Serialize;
use serde_json::Value;

/// What to list or watch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct ListOptions {
    pub label_selector: String,
    pub field_selector: String,
    /// 0: no limit.
    pub limit: u32,
    pub continue_: String,
    /// Empty: the newest, read from the store. `0`: whatever the server's cache holds.
    pub resource_version: String,
    pub resource_version_match: &'static str,
}

impl ListOptions {
    pub fn labels(selector: impl Into<String>) -> Self {
        ListOptions { label_selector: selector.into(), ..Default::default() }
    }

    pub fn fields(selector: impl Into<String>) -> Self {
        ListOptions { field_selector: selector.into(), ..Default::default() }
    }

    /// What an informer's list asks for: no paging, and the server's cache is fresh enough.
    pub(crate) fn cached(mut self) -> Self {
        self.resource_version = "0".into();
        self
    }

    pub(crate) fn query(&self) -> String {
        let mut query = Query::default();
        query.add("labelSelector", &self.label_selector);
        query.add("fieldSelector", &self.field_selector);
        if self.limit > 0 {
            query.add("limit", &self.limit.to_string());
        }
        query.add("continue", &self.continue_);
        query.add("resourceVersion", &self.resource_version);
        query.add("resourceVersionMatch", self.resource_version_match);
        query.0
    }
}

/// A query string with its question mark; parameters without a value are left out.
#[derive(Default)]
pub(crate) struct Query(pub(crate) String);

impl Query {
    pub(crate) fn add(&mut self, name: &str, value: &str) {
        if value.is_empty() {
            return;
        }
        self.0.push(if self.0.is_empty() { '?' } else { '&' });
        self.0.push_str(name);
        self.0.push('=');
        for byte in value.bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => self.0.push(byte as char),
                _ => self.0.push_str(&format!("%{byte:02X}")),
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Propagation {
    Orphan,
    Background,
    Foreground,
}

#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeleteOptions {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grace_period_seconds: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub propagation_policy: Option<Propagation>,
    #[serde(skip_serializing_if = "Preconditions::is_none")]
    pub preconditions: Preconditions,
}

#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Preconditions {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_version: Option<String>,
}

impl Preconditions {
    fn is_none(&self) -> bool {
        self.uid.is_none() && self.resource_version.is_none()
    }
}

impl DeleteOptions {
    pub fn background() -> Self {
        DeleteOptions { propagation_policy: Some(Propagation::Background), ..Default::default() }
    }

    pub fn grace(seconds: i64) -> Self {
        DeleteOptions { grace_period_seconds: Some(seconds), ..Default::default() }
    }

    #[must_use]
    pub fn only_uid(mut self, uid: impl Into<String>) -> Self {
        self.preconditions.uid = Some(uid.into());
        self
    }

    #[must_use]
    pub fn only_version(mut self, resource_version: impl Into<String>) -> Self {
        self.preconditions.resource_version = Some(resource_version.into());
        self
    }
}

#[derive(Debug, Clone, PartialEq)]
pub enum Patch {
    /// RFC 7386.
    Merge(Value),
    Strategic(Value),
    /// RFC 6902.
    Json(Value),
    /// Server-side apply.
    Apply {
        object: Value,
        manager: &'static str,
        force: bool,
    },
}

impl Patch {
    pub(crate) fn content_type(&self) -> &'static str {
        match self {
            Patch::Merge(_) => "application/merge-patch+json",
            Patch::Strategic(_) => "application/strategic-merge-patch+json",
            Patch::Json(_) => "application/json-patch+json",
            Patch::Apply { .. } => "application/apply-patch+yaml",
        }
    }

    pub(crate) fn body(&self) -> &Value {
        match self {
            Patch::Merge(v) | Patch::Strategic(v) | Patch::Json(v) => v,
            Patch::Apply { object, .. } => object,
        }
    }

    pub(crate) fn query(&self) -> String {
        let mut query = Query::default();
        if let Patch::Apply { manager, force, .. } = self {
            query.add("fieldManager", manager);
            query.add("force", if *force { "true" } else { "" });
        }
        query.0
    }
}
