//! May this user do this? The authorizers are asked in the configured order; the first that has an opinion decides.

pub mod config;
pub mod escalation;
pub mod node;
pub mod node_restriction;
pub mod rbac;
pub(crate) mod webhook;

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use tiphys_base::threads;
use tiphys_meta::ApiError;
use tiphys_registry::{UserInfo, Write};

use crate::config::AuthorizationMode;
use crate::errors;
use crate::objects::Objects;
use crate::request_info::Info;
use crate::watched_file::WatchedFile;
use webhook::WebhookAuthorizer;

/// Whoever is in this group may do everything; certificates of the cluster's first administrator carry it.
pub const MASTERS: &str = "system:masters";

/// One question, about a resource or a path.
#[derive(Debug, Clone, Copy, Default)]
pub struct Attributes<'a> {
    pub verb: &'a str,
    pub is_resource: bool,
    pub group: &'a str,
    pub version: &'a str,
    pub resource: &'a str,
    pub subresource: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
    pub path: &'a str,
    pub field_selector: Option<&'a str>,
}

impl<'a> Attributes<'a> {
    fn of_question(question: &tiphys_registry::Question<'a>) -> Self {
        Attributes {
            verb: question.verb,
            is_resource: question.path.is_empty(),
            path: question.path,
            group: question.group,
            version: question.version,
            resource: question.resource,
            subresource: question.subresource,
            namespace: question.namespace,
            name: question.name,
            ..Attributes::default()
        }
    }

    pub fn of(info: &'a Info) -> Self {
        Attributes {
            verb: &info.verb,
            is_resource: info.is_resource,
            group: &info.group,
            version: &info.version,
            resource: &info.resource,
            subresource: &info.subresource,
            namespace: &info.namespace,
            name: &info.name,
            path: &info.path,
            field_selector: info.field_selector.as_deref(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    Allow { reason: String },
    Deny { reason: String },
    NoOpinion { reason: String },
}

impl Decision {
    pub fn allow(reason: impl Into<String>) -> Self {
        Decision::Allow { reason: reason.into() }
    }

    pub fn no_opinion(reason: impl Into<String>) -> Self {
        Decision::NoOpinion { reason: reason.into() }
    }

    pub fn is_allowed(&self) -> bool {
        matches!(self, Decision::Allow { .. })
    }

    pub fn reason(&self) -> &str {
        match self {
            Decision::Allow { reason } | Decision::Deny { reason } | Decision::NoOpinion { reason } => reason,
        }
    }
}

/// One of the configured authorizers.
pub(crate) enum Member {
    Mode(AuthorizationMode),
    Webhook(Box<WebhookAuthorizer>),
}

/// Authorizers in their order.
struct Members {
    list: Vec<Member>,
    /// One of them must be waited for.
    waits: bool,
}

impl Members {
    fn new(list: Vec<Member>) -> Self {
        let waits = list.iter().any(|m| matches!(m, Member::Webhook(_)));
        Members { list, waits }
    }

    fn modes(&self) -> impl Iterator<Item = &AuthorizationMode> {
        self.list.iter().filter_map(|member| match member {
            Member::Mode(mode) => Some(mode),
            Member::Webhook(_) => None,
        })
    }
}

/// The configured authorizers.
pub struct Authorization {
    members: ArcSwap<Members>,
    /// Where they are written.
    file: Option<WatchedFile>,
    pub rbac: Arc<rbac::Rbac>,
    node: node::NodeAuthorizer,
    objects: Arc<dyn Objects>,
}

impl Authorization {
    pub(crate) fn new(members: Vec<Member>, file: Option<WatchedFile>, rbac: Arc<rbac::Rbac>, objects: Arc<dyn Objects>) -> Self {
        let members = ArcSwap::from_pointee(Members::new(members));
        Authorization { members, file, rbac, node: node::NodeAuthorizer::new(objects.clone()), objects }
    }

    pub fn has(&self, mode: &AuthorizationMode) -> bool {
        self.members.load().modes().any(|m| m == mode)
    }

    /// The authorizers as the file says now.
    fn members(&self) -> Guard<Arc<Members>> {
        if let Some(file) = &self.file {
            file.look(|path| {
                let new = Members::new(config::read(path).map_err(|e| e.to_string())?);
                same_modes(&self.members.load(), &new)?;
                self.members.store(Arc::new(new));
                Ok(())
            });
        }
        self.members.load()
    }

    pub(crate) fn metrics(&self, out: &mut String) {
        if let Some(file) = &self.file {
            file.metrics(out);
        }
    }

    /// For those who cannot wait: where a webhook must be asked, the thread does.
    pub fn decide(&self, user: &UserInfo, question: &Attributes<'_>) -> Decision {
        let members = self.members();
        if !members.waits || user.in_group(MASTERS) {
            return self.decide_here(&members, user, question);
        }
        drop(members);
        let asked = threads::wait(self.ask_all(user, question));
        asked.unwrap_or_else(|_| Decision::no_opinion("an authorization webhook cannot be asked here"))
    }

    pub(crate) async fn judge(&self, user: &UserInfo, question: &Attributes<'_>) -> Decision {
        let members = self.members();
        if !members.waits || user.in_group(MASTERS) {
            return self.decide_here(&members, user, question);
        }
        drop(members);
        Box::pin(self.ask_all(user, question)).await
    }

    fn decide_here(&self, members: &Members, user: &UserInfo, question: &Attributes<'_>) -> Decision {
        if user.in_group(MASTERS) {
            return Decision::allow("");
        }
        let mut reasons = Vec::new();
        for mode in members.modes() {
            match self.mode(mode, user, question) {
                Decision::NoOpinion { reason } => reasons.push(reason),
                decided => return decided,
            }
        }
        undecided(reasons)
    }

    async fn ask_all(&self, user: &UserInfo, question: &Attributes<'_>) -> Decision {
        let mut reasons = Vec::new();
        let members = self.members.load_full();
        for member in &members.list {
            let decision = match member {
                Member::Mode(mode) => self.mode(mode, user, question),
                Member::Webhook(webhook) => webhook.decide(user, question).await,
            };
            match decision {
                Decision::NoOpinion { reason } => reasons.push(reason),
                decided => return decided,
            }
        }
        undecided(reasons)
    }

    fn mode(&self, mode: &AuthorizationMode, user: &UserInfo, question: &Attributes<'_>) -> Decision {
        match mode {
            AuthorizationMode::Node => self.node.decide(user, question),
            AuthorizationMode::Rbac => self.rbac.decide(user, question),
            AuthorizationMode::AlwaysAllow => Decision::allow(""),
            AuthorizationMode::AlwaysDeny => Decision::no_opinion("Everything is forbidden."),
        }
    }
}

/// What stands in the way of taking authorizers over while the server runs: only webhooks may come, go and change. In upstream's words.
fn same_modes(old: &Members, new: &Members) -> Result<(), String> {
    let without = |these: &Members, those: &Members| {
        let mut names: Vec<&str> = these.modes().filter(|m| !those.modes().any(|other| other == *m)).map(AuthorizationMode::name).collect();
        names.sort_unstable();
        names
    };
    let (missing, added) = (without(old, new), without(new, old));
    match added.first() {
        _ if !missing.is_empty() => Err(format!("missing required types: [{}]", missing.join(" "))),
        Some(mode) => Err(format!("authorizer type {mode} is not allowed if it was not enabled at initial server startup")),
        None => Ok(()),
    }
}

fn undecided(mut reasons: Vec<String>) -> Decision {
    reasons.retain(|r| !r.is_empty());
    Decision::no_opinion(reasons.join("\n"))
}

#[async_trait::async_trait]
impl tiphys_registry::Authorizer for Authorization {
    async fn allowed(&self, user: &UserInfo, question: &tiphys_registry::Question<'_>) -> bool {
        self.judge(user, &Attributes::of_question(question)).await.is_allowed()
    }

    fn decide(&self, user: &UserInfo, question: &tiphys_registry::Question<'_>) -> (bool, String) {
        let decision = Authorization::decide(self, user, &Attributes::of_question(question));
        (decision.is_allowed(), decision.reason().to_owned())
    }

    fn refusal(&self, user: &UserInfo, question: &tiphys_registry::Question<'_>) -> Option<String> {
        let question = Attributes::of_question(question);
        let decision = Authorization::decide(self, user, &question);
        (!decision.is_allowed()).then(|| errors::forbidden(user, &question, decision.reason()).message)
    }

    fn check_write(&self, user: &UserInfo, write: &Write<'_>) -> Result<(), ApiError> {
        if self.has(&AuthorizationMode::Node) {
            node_restriction::check(self.objects.as_ref(), user, write)?;
        }
        match write.object {
            Some(new) if self.has(&AuthorizationMode::Rbac) && write.gvr.group == escalation::GROUP => {
                escalation::check(self, user, write.gvr, new, write.old)
            }
            _ => Ok(()),
        }
    }
}
