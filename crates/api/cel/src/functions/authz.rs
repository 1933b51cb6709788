//! Authorization checks: `authorizer.group('apps').resource('deployments').check('create').allowed()`.

use std::sync::Arc;

use tiphys_meta::names;

use super::opaque::Opaque;
use crate::value::{Eval, Val, fail};

/// Who answers. Asked while an expression is evaluated: it may not wait.
pub trait Authorizer: Send + Sync {
    fn authorize(&self, question: &Question) -> Decision;
}

/// What is asked. Without a path it is about a resource.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Question {
    /// Namespace and name of the service account asked about; the request's own user otherwise.
    pub service_account: Option<(String, String)>,
    pub verb: String,
    pub path: Option<String>,
    pub group: String,
    pub resource: String,
    pub subresource: String,
    pub namespace: String,
    pub name: String,
    pub field_selector: String,
    pub label_selector: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decision {
    pub allowed: bool,
    pub reason: String,
    pub error: Option<String>,
}

#[derive(Clone)]
pub struct AuthorizerVal {
    authorizer: Arc<dyn Authorizer>,
    service_account: Option<(String, String)>,
}

pub struct PathCheck {
    of: AuthorizerVal,
    path: String,
}

#[derive(Clone)]
pub struct ResourceCheck {
    of: AuthorizerVal,
    question: Question,
}

impl AuthorizerVal {
    /// The variable `authorizer`.
    pub fn value<'a>(authorizer: Arc<dyn Authorizer>) -> Val<'a> {
        Val::Opaque(Opaque::Authorizer(AuthorizerVal { authorizer, service_account: None }))
    }

    /// The variable `authorizer.requestResource`.
    pub fn request_resource<'a>(authorizer: Arc<dyn Authorizer>, question: Question) -> Val<'a> {
        let of = AuthorizerVal { authorizer, service_account: None };
        Val::Opaque(Opaque::ResourceCheck(Arc::new(ResourceCheck { of, question })))
    }

    fn ask(&self, mut question: Question, verb: &str) -> Decision {
        question.verb = verb.to_owned();
        question.service_account = self.service_account.clone();
        self.authorizer.authorize(&question)
    }
}

pub(crate) fn call<'a>(name: &str, args: &[Val<'a>]) -> Option<Eval<Val<'a>>> {
    let Val::Opaque(target) = args.first()? else { return None };
    let mut texts = Vec::new();
    for arg in &args[1..] {
        let Val::Str(text) = arg else { return None };
        texts.push(&**text);
    }
    let called = match (target, name, &texts[..]) {
        (Opaque::Authorizer(of), "path", [path]) if !path.trim().is_empty() => {
            Opaque::PathCheck(Arc::new(PathCheck { of: of.clone(), path: (*path).to_owned() }))
        }
        (Opaque::Authorizer(_), "path", [_]) => return Some(fail("path must not be empty")),
        (Opaque::Authorizer(of), "group", [group]) => Opaque::GroupCheck(of.clone(), Arc::from(*group)),
        (Opaque::Authorizer(of), "serviceAccount", [namespace, name]) => match service_account(of, namespace, name) {
            Ok(of) => Opaque::Authorizer(of),
            Err(error) => return Some(Err(error)),
        },
        (Opaque::GroupCheck(of, group), "resource", [resource]) if !resource.trim().is_empty() => {
            let question = Question { group: group.to_string(), resource: (*resource).to_owned(), ..Question::default() };
            Opaque::ResourceCheck(Arc::new(ResourceCheck { of: of.clone(), question }))
        }
        (Opaque::GroupCheck(..), "resource", [_]) => return Some(fail("resource must not be empty")),
        (Opaque::ResourceCheck(check), "check", [verb]) => Opaque::Decision(Arc::new(check.of.ask(check.question.clone(), verb))),
        (Opaque::ResourceCheck(check), part, [text]) => {
            let mut check = ResourceCheck::clone(check);
            let q = &mut check.question;
            let place = match part {
                "subresource" => &mut q.subresource,
                "namespace" => &mut q.namespace,
                "name" => &mut q.name,
                "fieldSelector" => &mut q.field_selector,
                "labelSelector" => &mut q.label_selector,
                _ => return None,
            };
            *place = (*text).to_owned();
            Opaque::ResourceCheck(Arc::new(check))
        }
        (Opaque::PathCheck(check), "check", [verb]) => {
            let question = Question { path: Some(check.path.clone()), ..Question::default() };
            Opaque::Decision(Arc::new(check.of.ask(question, verb)))
        }
        (Opaque::Decision(decision), name, []) => return decided(decision, name).map(Ok),
        _ => return None,
    };
    Some(Ok(Val::Opaque(called)))
}

fn decided<'a>(decision: &Decision, name: &str) -> Option<Val<'a>> {
    Some(match name {
        "allowed" => Val::Bool(decision.allowed),
        "reason" => Val::text(&decision.reason),
        "errored" => Val::Bool(decision.error.is_some()),
        "error" => Val::text(decision.error.as_deref().unwrap_or("")),
        _ => return None,
    })
}

fn service_account(of: &AuthorizerVal, namespace: &str, name: &str) -> Eval<AuthorizerVal> {
    if !names::name_is_dns_subdomain(name, false).is_empty() {
        return fail("Invalid service account name");
    }
    if !names::name_is_dns_label(namespace, false).is_empty() {
        return fail("Invalid service account namespace");
    }
    Ok(AuthorizerVal { authorizer: of.authorizer.clone(), service_account: Some((namespace.to_owned(), name.to_owned())) })
}
