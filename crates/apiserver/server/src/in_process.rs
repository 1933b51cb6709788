//! The door for components of this process: calls go through the whole chain (their own identity, authorization, admission, audit)
//! as function calls; watch events are handed over without being framed and parsed again.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use http::HeaderValue;
use http::header::{ACCEPT, CONTENT_TYPE, USER_AGENT};
use http_body_util::BodyExt;
use tiphys_client::{Backend, Client, ClientError, Request, Response, WatchStream};
use tiphys_meta::ApiError;
use tiphys_registry::{Answer, UserInfo, WatchEvent};

use crate::authenticate::authenticated;
use crate::body::{self, Body};
use crate::chain::{Call, Door, Origin, Outcome};
use crate::errors::DoorError;

/// Carries requests of one identity.
pub(crate) struct InProcess {
    door: Arc<Door>,
    user: Arc<UserInfo>,
}

impl InProcess {
    pub(crate) fn new(door: Arc<Door>, user: UserInfo) -> Self {
        InProcess { door, user: Arc::new(authenticated(user)) }
    }

    fn call_of(&self, request: Request) -> Result<Call, ClientError> {
        let uri =
            request.path.parse::<http::Uri>().map_err(|e| ClientError::from(ApiError::bad_request(format!("{}: {e}", request.path))))?;
        let mut http = http::Request::new(body::full(request.body));
        *http.method_mut() = request.method;
        *http.uri_mut() = uri;
        let headers = http.headers_mut();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        if !request.content_type.is_empty() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(request.content_type));
        }
        if let Ok(agent) = HeaderValue::from_str(agent_of(&self.user.name)) {
            headers.insert(USER_AGENT, agent);
        }
        Ok(Call::new(http, Origin::InProcess(self.user.clone())))
    }
}

/// Field managers are named after the client's program: the component that upstream has for this identity.
fn agent_of(user: &str) -> &str {
    if user.starts_with("system:node:") {
        return "kubelet";
    }
    if user.starts_with("system:serviceaccount:kube-system:") {
        return "kube-controller-manager";
    }
    if user == "system:apiserver" {
        return "kube-apiserver";
    }
    user.rsplit(':').next().unwrap_or("tiphys")
}

/// Makes clients of the API server of this process.
#[derive(Clone)]
pub struct Clients {
    door: Arc<Door>,
}

impl Clients {
    pub(crate) fn new(door: Arc<Door>) -> Self {
        Clients { door }
    }

    /// A client that asks as `user` and passes the whole chain.
    pub fn of(&self, user: UserInfo) -> Client {
        Client::new(Arc::new(InProcess::new(self.door.clone(), user)))
    }

    /// One that asks as a ServiceAccount.
    pub fn of_account(&self, namespace: &str, name: &str) -> Client {
        let own = format!("system:serviceaccounts:{namespace}");
        self.of(UserInfo::new(format!("system:serviceaccount:{namespace}:{name}"), &["system:serviceaccounts", &own]))
    }
}

#[async_trait::async_trait]
impl Backend for InProcess {
    async fn call(&self, request: Request) -> Result<Response, ClientError> {
        let mut call = self.call_of(request)?;
        match self.door.answer(&mut call).await {
            Ok(Outcome::Objects(Answer::Object(document))) => {
                Ok(Response { status: document.code, warnings: document.warnings, body: document.body.into_bytes() })
            }
            Ok(Outcome::Objects(Answer::Watch(_))) => Err(ApiError::bad_request("a watch was asked for with a unary call").into()),
            Ok(Outcome::Http(response)) => {
                let status = response.status().as_u16();
                Ok(Response { status, warnings: Vec::new(), body: whole(response.into_body()).await? })
            }
            Err(error) => Ok(refused(error)),
        }
    }

    async fn watch(&self, path: String) -> Result<WatchStream, ClientError> {
        let mut call = self.call_of(Request::get(path))?;
        let watch = match self.door.answer(&mut call).await {
            Ok(Outcome::Objects(Answer::Watch(watch))) => watch,
            Ok(_) => return Err(ApiError::bad_request("the path is no watch").into()),
            Err(error) => return Err(error.into_api().into()),
        };
        let stop = self.door.stop.clone();
        let events = stream::unfold((watch, stop, (call.ended.take(), call.lasting.take())), |(mut watch, stop, guards)| async move {
            let event = tokio::select! {
                biased;
                () = stop.cancelled() => None,
                event = watch.next_event() => event,
            };
            event.map(|WatchEvent { kind, object, .. }| (Ok((kind, object)), (watch, stop, guards)))
        });
        Ok(Box::pin(events))
    }
}

fn refused(error: DoorError) -> Response {
    let error = error.into_api();
    Response { status: error.code, body: error.to_status().to_string().into(), warnings: Vec::new() }
}

async fn whole(body: Body) -> Result<Bytes, ClientError> {
    let collected = body.collect().await.map_err(|e| ClientError::from(ApiError::internal(e)))?;
    Ok(collected.to_bytes())
}

#[cfg(test)]
mod tests {
    use super::agent_of;

    #[test]
    fn managers_are_named_as_upstreams_programs() {
        for (user, agent) in [
            ("system:node:n-1", "kubelet"),
            ("system:serviceaccount:kube-system:deployment-controller", "kube-controller-manager"),
            ("system:apiserver", "kube-apiserver"),
            ("system:kube-scheduler", "kube-scheduler"),
            ("system:kube-controller-manager", "kube-controller-manager"),
        ] {
            assert_eq!(agent_of(user), agent);
        }
    }
}
