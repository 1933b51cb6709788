//! The one place where what went wrong at the door becomes a `Status`. Clients match on these words.

use tiphys_meta::{ApiError, Cause, Gvk, Gvr, Reason};
use tiphys_registry::UserInfo;

use crate::authenticate::Rejected;
use crate::authorize::Attributes;
use crate::request_info::BadPath;
use crate::tokens::keys::KeyError;

/// Everything that the stages of the chain can answer instead of going on.
#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    #[error(transparent)]
    Path(#[from] BadPath),
    #[error(transparent)]
    Unauthorized(#[from] Rejected),
    #[error(transparent)]
    Api(#[from] ApiError),
    #[error("no such path")]
    NoSuchPath,
    #[error("too many requests")]
    TooMany,
    #[error("timed out")]
    Timeout,
    #[error("the request panicked")]
    Panicked,
    #[error("the body is larger than {0} bytes")]
    TooLarge(usize),
    #[error("the body could not be read: {0}")]
    Body(String),
    #[error(transparent)]
    Key(#[from] KeyError),
}

impl DoorError {
    /// The HTTP status that it will have.
    pub fn code(&self) -> u16 {
        match self {
            DoorError::Api(error) => error.code,
            DoorError::Path(_) | DoorError::Body(_) => 400,
            DoorError::Unauthorized(_) => 401,
            DoorError::NoSuchPath => 404,
            DoorError::TooLarge(_) => 413,
            DoorError::TooMany => 429,
            DoorError::Panicked | DoorError::Key(_) => 500,
            DoorError::Timeout => 504,
        }
    }

    pub fn into_api(self) -> ApiError {
        match self {
            DoorError::Api(error) => error,
            DoorError::Path(error) => ApiError::bad_request(error.to_string()),
            DoorError::Unauthorized(_) => ApiError::new(Reason::Unauthorized, "Unauthorized"),
            DoorError::NoSuchPath => ApiError::not_found_path(),
            DoorError::TooMany => {
                let mut error = ApiError::new(Reason::TooManyRequests, "Too many requests, please try again later.");
                error.retry_after_seconds = 1;
                error
            }
            DoorError::Timeout => ApiError::new(Reason::Timeout, "Timeout: request did not complete within the allotted timeout"),
            DoorError::Panicked => ApiError::internal("This request caused apiserver to panic. Look in the logs for details."),
            DoorError::TooLarge(limit) => {
                ApiError::new(Reason::RequestEntityTooLarge, format!("Request entity too large: limit is {limit}"))
            }
            DoorError::Body(what) => ApiError::bad_request(what),
            DoorError::Key(error) => ApiError::internal(format!("failed to generate token: {error}")),
        }
    }
}

/// `pods is forbidden: User "x" cannot list resource "pods" in API group "" in the namespace "default"`.
pub(crate) fn forbidden(user: &UserInfo, question: &Attributes<'_>, reason: &str) -> ApiError {
    let mut why = escape(&cannot(user, question));
    if !reason.is_empty() {
        why.push_str(": ");
        why.push_str(reason);
    }
    if !question.is_resource {
        return ApiError::new(Reason::Forbidden, format!("forbidden: {why}"));
    }
    let gvr = Gvr::new(question.group.to_owned(), question.version.to_owned(), question.resource.to_owned());
    ApiError::forbidden(&gvr, question.name, &why)
}

fn cannot(user: &UserInfo, q: &Attributes<'_>) -> String {
    if !q.is_resource {
        return format!("User {:?} cannot {} path {:?}", user.name, q.verb, q.path);
    }
    let slash = if q.subresource.is_empty() { "" } else { "/" };
    let place = if q.namespace.is_empty() { "at the cluster scope".to_owned() } else { format!("in the namespace {:?}", q.namespace) };
    let resource = format!("{}{slash}{}", q.resource, q.subresource);
    format!("User {:?} cannot {} resource {resource:?} in API group {:?} {place}", user.name, q.verb, q.group)
}

/// No answer may look like HTML to a browser.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// One field of a kind that does not validate.
pub(crate) struct BadField<'a> {
    pub field: &'a str,
    /// `FieldValueInvalid`, `FieldValueRequired`, …
    pub reason: &'a str,
    /// `Invalid value: 5: must not be five`.
    pub detail: String,
}

pub(crate) fn invalid(gvk: &Gvk, name: &str, bad: Vec<BadField<'_>>) -> ApiError {
    let texts: Vec<String> = bad.iter().map(|b| format!("{}: {}", b.field, b.detail)).collect();
    let all = if let [one] = texts.as_slice() { one.clone() } else { format!("[{}]", texts.join(", ")) };
    let kind = if gvk.group.is_empty() { gvk.kind.to_string() } else { format!("{}.{}", gvk.kind, gvk.group) };
    let mut error = ApiError::new(Reason::Invalid, format!("{kind} {name:?} is invalid: {all}"));
    error.name = name.to_owned();
    error.group = gvk.group.to_string();
    error.kind = gvk.kind.to_string();
    error.causes = bad.into_iter().map(|b| Cause { reason: b.reason.to_owned(), message: b.detail, field: b.field.to_owned() }).collect();
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forbidden_in_upstreams_words() {
        let user = UserInfo::new("x", &[]);
        let pods = Attributes { verb: "list", is_resource: true, resource: "pods", namespace: "default", ..Attributes::default() };
        let table = [
            (pods, "", r#"pods is forbidden: User "x" cannot list resource "pods" in API group "" in the namespace "default""#),
            (
                Attributes { group: "apps", resource: "deployments", subresource: "scale", verb: "get", name: "d", namespace: "", ..pods },
                "",
                r#"deployments.apps "d" is forbidden: User "x" cannot get resource "deployments/scale" in API group "apps" at the cluster scope"#,
            ),
            (pods, "why", r#"pods is forbidden: User "x" cannot list resource "pods" in API group "" in the namespace "default": why"#),
            (Attributes { verb: "get", path: "/<b>", ..Attributes::default() }, "", r#"forbidden: User "x" cannot get path "/&lt;b&gt;""#),
        ];
        for (question, reason, want) in table {
            let error = forbidden(&user, &question, reason);
            assert_eq!((error.code, error.message.as_str()), (403, want));
        }
    }
}
