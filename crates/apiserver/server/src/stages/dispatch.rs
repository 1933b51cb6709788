//! Stage 7: to whom the request goes: another server that answers for its group, documents, questions that are answered from the request alone (reviews, tokens), streams to nodes
//! and pods, and objects, which are the registry's.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use http::{Method, header};
use tiphys_meta::Gvr;
use tiphys_registry::{Answer, RequestInfo, Verb};

use crate::body;
use crate::chain::{Call, Door, Outcome};
use crate::errors::{DoorError, method_not_allowed};
use crate::{aggregate, reviews, streams};

pub(crate) const NAME: &str = "dispatch";

/// Boxed: the futures behind it are large, and only one of them is needed.
pub(crate) fn run<'a>(door: &'a Arc<Door>, call: &'a mut Call) -> BoxFuture<'a, Result<Outcome, DoorError>> {
    Box::pin(dispatch(door, call))
}

async fn dispatch(door: &Arc<Door>, call: &mut Call) -> Result<Outcome, DoorError> {
    if let Some(remote) = door.aggregator.remote_for(&call.info) {
        return aggregate::proxy::forward(door, call, &remote).await.map(Outcome::Http);
    }
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
    to_registry(door, call).await.map(Outcome::Objects)
}

/// Discovery and OpenAPI.
fn is_about_resources(path: &str) -> bool {
    ["/api", "/openapi"].iter().any(|prefix| path.starts_with(prefix))
}

async fn to_registry(door: &Arc<Door>, call: &mut Call) -> Result<Answer, DoorError> {
    let info = &call.info;
    let gvr = Gvr::new(info.group.clone(), info.version.clone(), info.resource.clone());
    let verb = verb_of(&info.verb).ok_or_else(|| method_not_allowed(&gvr, call.parts.method.as_str()))?;
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
