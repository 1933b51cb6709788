//! What is asked, by whom: the request after routing, authentication and authorization, before its options are read.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tiphys_meta::Gvr;

/// Who asks (`authentication.k8s.io` UserInfo).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UserInfo {
    pub name: String,
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
}

impl UserInfo {
    pub fn new(name: impl Into<String>, groups: &[&str]) -> Self {
        UserInfo { name: name.into(), groups: groups.iter().map(|g| (*g).to_owned()).collect(), ..UserInfo::default() }
    }

    pub fn in_group(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }

    /// (namespace, name) of a service account's user name.
    pub fn service_account(&self) -> Option<(&str, &str)> {
        self.name.strip_prefix("system:serviceaccount:")?.split_once(':')
    }
}

/// The API's verbs on resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
    DeleteCollection,
}

impl Verb {
    pub fn as_str(self) -> &'static str {
        match self {
            Verb::Get => "get",
            Verb::List => "list",
            Verb::Watch => "watch",
            Verb::Create => "create",
            Verb::Update => "update",
            Verb::Patch => "patch",
            Verb::Delete => "delete",
            Verb::DeleteCollection => "deletecollection",
        }
    }
}

/// What admission has to say for the audit log (`annotations` of an audit event). Where nobody keeps a log, nothing is kept here either.
#[derive(Debug, Clone, Default)]
pub struct AuditNotes(Option<Arc<Notes>>);

#[derive(Debug, Default)]
struct Notes {
    /// The log keeps bodies, so that it may keep patches too.
    bodies: bool,
    all: Mutex<BTreeMap<String, String>>,
}

impl AuditNotes {
    /// For a request that is audited; `bodies` from the level Request on.
    pub fn kept(bodies: bool) -> Self {
        AuditNotes(Some(Arc::new(Notes { bodies, all: Mutex::default() })))
    }

    /// The first word for a key stands, as upstream has it.
    pub fn add(&self, key: impl FnOnce() -> String, value: impl FnOnce() -> String) {
        if let Some(notes) = &self.0 {
            notes.all.lock().entry(key()).or_insert_with(value);
        }
    }

    /// What only logs with bodies hear.
    pub fn add_body(&self, key: impl FnOnce() -> String, value: impl FnOnce() -> String) {
        if self.0.as_ref().is_some_and(|notes| notes.bodies) {
            self.add(key, value);
        }
    }

    pub fn all(&self) -> BTreeMap<String, String> {
        self.0.as_ref().map(|notes| notes.all.lock().clone()).unwrap_or_default()
    }
}

/// One request to a resource. Headers and query come as they were sent: the registry reads its options from them.
#[derive(Debug, Clone)]
pub struct RequestInfo {
    pub verb: Verb,
    pub gvr: Gvr,
    /// Empty for the resource itself.
    pub subresource: String,
    /// Empty for cluster-scoped resources and for lists over all namespaces.
    pub namespace: String,
    /// Empty for collections. A watch by `/watch/…/name` or of `fieldSelector=metadata.name=` may have it too.
    pub name: String,
    pub path: String,
    /// The raw query, without `?`, still percent-encoded.
    pub query: String,
    pub user: Arc<UserInfo>,
    /// The `Accept` header; empty when there was none.
    pub accept: String,
    /// The `Content-Type` header; empty when there was none.
    pub content_type: String,
    pub user_agent: String,
    pub notes: AuditNotes,
}

impl RequestInfo {
    /// A request as in-process callers make it: JSON both ways.
    pub fn new(verb: Verb, gvr: Gvr, namespace: &str, name: &str, user: Arc<UserInfo>) -> Self {
        RequestInfo {
            verb,
            path: gvr.path(namespace, name),
            gvr,
            subresource: String::new(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            query: String::new(),
            user,
            accept: String::new(),
            content_type: String::new(),
            user_agent: String::new(),
            notes: AuditNotes::default(),
        }
    }
}
