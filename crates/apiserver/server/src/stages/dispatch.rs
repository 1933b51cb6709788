//! Stage 7: to whom the request goes: another server that answers for its group, documents, questions that are answered from the request alone (reviews, tokens), streams to nodes
//! and pods, and objects, which are the registry's.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use http::{Method, header};
use tiphys_meta::{ApiError, Gvr};
use tiphys_registry::{Answer, RequestInfo, Verb};
use tiphys_schema::Facts;

use crate::body;
use crate::chain::{Call, Door, Outcome};
use crate::errors::DoorError;
use crate::request_info::Info;
use crate::{aggregate, component_statuses, resource_metrics, reviews, streams};

pub(crate) const NAME: &str = "dispatch";

/// Boxed: the futures behind it are large, and only one of them is needed.
pub(crate) fn run<'a>(door: &'a Arc<Door>, call: &'a mut Call) -> BoxFuture<'a, Result<Outcome, DoorError>> {
    Box::pin(dispatch(door, call))
}

async fn dispatch(door: &Arc<Door>, call: &mut Call) -> Result<Outcome, DoorError> {
    if let Some(remote) = door.aggregator.remote_for(&call.info) {
        return aggregate::proxy::forward(door, call, &remote).await.map(Outcome::Http);
    }
    check_scope(&call.info)?;
    if !call.info.is_resource && call.info.path.starts_with("/openapi/") && door.aggregator.has_remotes() {
        return door.documents.merged_openapi(door, call).await.map(Outcome::Http);
    }
    if !call.info.is_resource {
        if is_about_resources(&call.info.path) {
            // Who has seen a definition established finds it here.
            door.registry.catch_up().await;
        }
        return door.documents.answer(door, call).map(Outcome::Http);
    }
    if let Some(kind) = streams::Kind::of(&call.info) {
        // Who has just made the pod may look into it: the caches must show what was acknowledged.
        door.registry.catch_up().await;
        return streams::serve(door, call, kind).await.map(Outcome::Http);
    }
    if let Some(review) = reviews::Review::of(&call.info) {
        door.registry.catch_up().await;
        return reviews::serve(door, call, review).await.map(Outcome::Http);
    }
    if let Some(kind) = resource_metrics::Kind::of(&call.info) {
        door.registry.catch_up().await;
        return resource_metrics::serve(door, call, kind).await.map(Outcome::Objects);
    }
    if component_statuses::is_meant(&call.info) {
        door.registry.catch_up().await;
        return component_statuses::serve(door, call).await.map(Outcome::Objects);
    }
    to_registry(door, call).await.map(Outcome::Objects)
}

/// A resource without namespaces has no path within one, nor the other way round: what was authorized in a namespace must not reach what stands outside
/// of it (the fault class of CVE-2019-11247). For custom resources the registry says the same.
fn check_scope(info: &Info) -> Result<(), DoorError> {
    if !info.is_resource {
        return Ok(());
    }
    if info.group.is_empty() && info.resource == "namespaces" {
        let itself = info.namespace.is_empty() || info.namespace == info.name;
        return if itself { Ok(()) } else { Err(ApiError::not_found_path().into()) };
    }
    let Some(facts) = Facts::builtin().resource_of(&info.group, &info.version, &info.resource) else { return Ok(()) };
    let across = matches!(info.verb.as_str(), "list" | "watch");
    match (facts.namespaced, info.namespace.is_empty()) {
        (true, true) if across => Ok(()),
        (true, true) if info.name.is_empty() => Err(ApiError::method_not_allowed().into()),
        (namespaced, none) if namespaced == none => Err(ApiError::not_found_path().into()),
        _ => Ok(()),
    }
}

/// Discovery and OpenAPI.
fn is_about_resources(path: &str) -> bool {
    ["/api", "/openapi"].iter().any(|prefix| path.starts_with(prefix))
}

async fn to_registry(door: &Arc<Door>, call: &mut Call) -> Result<Answer, DoorError> {
    let info = &call.info;
    let gvr = Gvr::new(info.group.clone(), info.version.clone(), info.resource.clone());
    let verb = verb_of(&info.verb).filter(|_| call.parts.method != Method::HEAD).ok_or_else(ApiError::method_not_allowed)?;
    let request = RequestInfo {
        verb,
        gvr,
        subresource: info.subresource.clone(),
        namespace: if info.resource == "namespaces" { String::new() } else { info.namespace.clone() },
        name: info.name.clone(),
        path: info.path.clone(),
        query: call.raw_query().to_owned(),
        user: call.user.clone(),
        accept: call.header(header::ACCEPT).to_owned(),
        content_type: call.header(header::CONTENT_TYPE).to_owned(),
        user_agent: call.header(header::USER_AGENT).to_owned(),
        notes: call.notes(),
    };
    let bytes = match call.body.take() {
        Some(body) if call.parts.method != Method::GET => body::collect(body).await?,
        _ => bytes::Bytes::new(),
    };
    if let Some(draft) = call.audit.as_mut().filter(|draft| draft.wants_request()) {
        draft.request = Some(bytes.clone());
    }
    Ok(door.registry.handle(&request, bytes).await?)
}

fn verb_of(verb: &str) -> Option<Verb> {
    const ALL: [Verb; 8] =
        [Verb::Get, Verb::List, Verb::Watch, Verb::Create, Verb::Update, Verb::Patch, Verb::Delete, Verb::DeleteCollection];
    ALL.into_iter().find(|v| v.as_str() == verb)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CVE-2019-11247: what a role in a namespace allows is looked up by the path's namespace, so the path must be one that the resource has.
    #[test]
    fn paths_have_the_scope_of_their_resource() {
        for (method, path, code) in [
            ("GET", "/api/v1/nodes/n", 200),
            ("GET", "/api/v1/namespaces/mine/nodes/n", 404),
            ("GET", "/api/v1/namespaces/mine/nodes", 404),
            ("GET", "/api/v1/namespaces/mine/nodes/n/proxy/pods", 404),
            ("GET", "/api/v1/namespaces/mine", 200),
            ("PUT", "/api/v1/namespaces/mine/status", 200),
            ("GET", "/api/v1/namespaces/mine/namespaces/other", 404),
            ("GET", "/api/v1/namespaces/mine/namespaces", 404),
            ("POST", "/api/v1/namespaces", 200),
            ("POST", "/apis/rbac.authorization.k8s.io/v1/namespaces/mine/clusterrolebindings", 404),
            ("POST", "/apis/rbac.authorization.k8s.io/v1/namespaces/mine/rolebindings", 200),
            ("POST", "/apis/authentication.k8s.io/v1/namespaces/mine/tokenreviews", 404),
            ("POST", "/apis/authorization.k8s.io/v1/namespaces/mine/subjectaccessreviews", 404),
            ("POST", "/apis/authorization.k8s.io/v1/localsubjectaccessreviews", 405),
            ("GET", "/api/v1/pods", 200),
            ("GET", "/api/v1/pods?watch=true", 200),
            ("GET", "/api/v1/secrets/mine%2Ftoken", 404),
            ("POST", "/api/v1/pods", 405),
            ("DELETE", "/api/v1/pods", 405),
            ("GET", "/api/v1/watch/namespaces/mine/nodes/n", 404),
            ("GET", "/apis/example.com/v1/namespaces/mine/things", 200),
        ] {
            let (path, query) = path.split_once('?').unwrap_or((path, ""));
            let method = Method::from_bytes(method.as_bytes()).expect("a method");
            let info = Info::parse(&method, path, query).expect("a path");
            assert_eq!(check_scope(&info).map_or_else(|e| e.code(), |()| 200), code, "{method} {path}");
        }
    }
}
