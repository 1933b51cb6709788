use std::sync::Arc;

use bytes::Bytes;
use http::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tiphys_meta::{ApiError, Gvr, object};

use crate::backend::{Backend, Request, Response, WatchStream};
use crate::decode::decode;
use crate::object::{Kube, ObjectList, gvr_of};
use crate::options::{DeleteOptions, ListOptions, Patch};
use crate::{ClientError, https};

/// A server ends unary requests after 60 s by itself; one that does not answer at all must not hold a worker for ever.
const CALL_LIMIT: std::time::Duration = std::time::Duration::from_secs(65);

/// The verbs, typed and untyped, over one backend. Cheap to clone.
///
/// A namespace that is empty means: none (a cluster-wide kind, or all namespaces).
#[derive(Clone)]
pub struct Client {
    backend: Arc<dyn Backend>,
}

impl Client {
    pub fn new(backend: Arc<dyn Backend>) -> Self {
        Client { backend }
    }

    pub fn https(config: https::Config) -> Result<Self, ClientError> {
        Ok(Client::new(Arc::new(https::Https::new(config)?)))
    }

    /// `context` empty: the file's current one.
    pub fn from_kubeconfig(path: &std::path::Path, context: &str) -> Result<Self, ClientError> {
        Client::https(https::Config::from_kubeconfig(path, context)?)
    }

    /// From the files and variables that every pod gets.
    pub fn in_cluster() -> Result<Self, ClientError> {
        Client::https(https::Config::in_cluster()?)
    }

    /// Any request, any answer below 400.
    pub async fn raw(&self, request: Request) -> Result<Response, ClientError> {
        let (verb, path) = (request.method.clone(), request.path.clone());
        let answered = tokio::time::timeout(CALL_LIMIT, self.backend.call(request)).await;
        let response = answered.map_err(|_| {
            tracing::warn!(%verb, path, "no answer within {} s", CALL_LIMIT.as_secs());
            ClientError::Transport(format!("{verb} {path}: no answer within {} s", CALL_LIMIT.as_secs()))
        })??;
        if response.status >= 400 {
            return Err(ApiError::from_status(response.status, &response.body).into());
        }
        Ok(response)
    }

    async fn read<T: DeserializeOwned>(&self, request: Request) -> Result<T, ClientError> {
        let response = self.raw(request).await?;
        decode(&response.body)
    }

    async fn send<T: DeserializeOwned>(&self, method: Method, path: String, body: &impl Serialize) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(|e| ClientError::Encode(e.to_string()))?;
        self.read(Request::with_json(method, path, body)).await
    }

    async fn send_patch<T: DeserializeOwned>(&self, path: String, patch: &Patch) -> Result<T, ClientError> {
        let body = serde_json::to_vec(patch.body()).map_err(|e| ClientError::Encode(e.to_string()))?;
        let path = path + &patch.query();
        self.read(Request { method: Method::PATCH, path, content_type: patch.content_type(), body: body.into() }).await
    }

    // Typed.

    pub async fn get<K: Kube>(&self, namespace: &str, name: &str) -> Result<K, ClientError> {
        self.read(Request::get(gvr_of::<K>().path(namespace, name))).await
    }

    pub async fn list<K: Kube>(&self, namespace: &str, options: &ListOptions) -> Result<ObjectList<K>, ClientError> {
        self.read(Request::get(gvr_of::<K>().path(namespace, "") + &options.query())).await
    }

    pub async fn create<K: Kube>(&self, object: &K) -> Result<K, ClientError> {
        self.send(Method::POST, gvr_of::<K>().path(namespace_of(object), ""), object).await
    }

    /// Carries the object's resourceVersion, so that a newer object answers with a conflict.
    pub async fn update<K: Kube>(&self, object: &K) -> Result<K, ClientError> {
        self.send(Method::PUT, gvr_of::<K>().path(namespace_of(object), name_of(object)), object).await
    }

    pub async fn update_status<K: Kube>(&self, object: &K) -> Result<K, ClientError> {
        self.update_subresource(object, "status").await
    }

    pub async fn update_subresource<K: Kube>(&self, object: &K, subresource: &str) -> Result<K, ClientError> {
        self.send(Method::PUT, with_sub(gvr_of::<K>().path(namespace_of(object), name_of(object)), subresource), object).await
    }

    /// `subresource` empty: the object itself.
    pub async fn patch<K: Kube>(&self, namespace: &str, name: &str, subresource: &str, patch: &Patch) -> Result<K, ClientError> {
        self.send_patch(with_sub(gvr_of::<K>().path(namespace, name), subresource), patch).await
    }

    /// The answer is the object as it was or is, or a `Status`.
    pub async fn delete<K: Kube>(&self, namespace: &str, name: &str, options: &DeleteOptions) -> Result<Value, ClientError> {
        self.delete_value(&gvr_of::<K>(), namespace, name, options).await
    }

    // Untyped.

    pub async fn get_value(&self, gvr: &Gvr, namespace: &str, name: &str) -> Result<Value, ClientError> {
        self.read(Request::get(gvr.path(namespace, name))).await
    }

    /// Decodes the answer into anything that fits, `Partial` for one.
    pub async fn get_as<T: DeserializeOwned>(&self, gvr: &Gvr, namespace: &str, name: &str) -> Result<T, ClientError> {
        self.read(Request::get(gvr.path(namespace, name))).await
    }

    pub async fn list_value(&self, gvr: &Gvr, namespace: &str, options: &ListOptions) -> Result<Value, ClientError> {
        self.read(Request::get(gvr.path(namespace, "") + &options.query())).await
    }

    pub async fn list_as<T: DeserializeOwned>(
        &self,
        gvr: &Gvr,
        namespace: &str,
        options: &ListOptions,
    ) -> Result<ObjectList<T>, ClientError> {
        self.read(Request::get(gvr.path(namespace, "") + &options.query())).await
    }

    pub async fn create_value(&self, gvr: &Gvr, namespace: &str, object: &Value) -> Result<Value, ClientError> {
        self.send(Method::POST, gvr.path(namespace, ""), object).await
    }

    /// POST to a subresource: `binding`, `eviction`, `token`.
    pub async fn create_subresource(
        &self,
        gvr: &Gvr,
        namespace: &str,
        name: &str,
        subresource: &str,
        object: &Value,
    ) -> Result<Value, ClientError> {
        self.send(Method::POST, with_sub(gvr.path(namespace, name), subresource), object).await
    }

    /// `subresource` empty: the object itself.
    pub async fn update_value(&self, gvr: &Gvr, object: &Value, subresource: &str) -> Result<Value, ClientError> {
        let path = gvr.path(object::namespace(object), object::name(object));
        self.send(Method::PUT, with_sub(path, subresource), object).await
    }

    pub async fn patch_value(
        &self,
        gvr: &Gvr,
        namespace: &str,
        name: &str,
        subresource: &str,
        patch: &Patch,
    ) -> Result<Value, ClientError> {
        self.send_patch(with_sub(gvr.path(namespace, name), subresource), patch).await
    }

    pub async fn delete_value(&self, gvr: &Gvr, namespace: &str, name: &str, options: &DeleteOptions) -> Result<Value, ClientError> {
        self.send(Method::DELETE, gvr.path(namespace, name), options).await
    }

    pub async fn delete_collection(
        &self,
        gvr: &Gvr,
        namespace: &str,
        list: &ListOptions,
        options: &DeleteOptions,
    ) -> Result<Value, ClientError> {
        self.send(Method::DELETE, gvr.path(namespace, "") + &list.query(), options).await
    }

    /// Opens a watch on a path with its whole query (`watch=1` too).
    pub async fn watch_path(&self, path: String) -> Result<WatchStream, ClientError> {
        self.backend.watch(path).await
    }

    /// The body of any GET: `/version`, `/healthz`.
    pub async fn text(&self, path: &str) -> Result<Bytes, ClientError> {
        Ok(self.raw(Request::get(path)).await?.body)
    }
}

fn with_sub(mut path: String, subresource: &str) -> String {
    if !subresource.is_empty() {
        path.push('/');
        path.push_str(subresource);
    }
    path
}

fn namespace_of<K: Kube>(object: &K) -> &str {
    object.metadata().namespace.as_deref().unwrap_or("")
}

fn name_of<K: Kube>(object: &K) -> &str {
    object.metadata().name.as_deref().unwrap_or("")
}

/// Reads, changes and writes until no one wrote between; five tries, as upstream's default retry has. `change` answering false means: nothing to do.
pub async fn retry_on_conflict<K: Kube>(
    client: &Client,
    namespace: &str,
    name: &str,
    subresource: &str,
    mut change: impl FnMut(&mut K) -> bool,
) -> Result<K, ClientError> {
    let mut tries = 5;
    loop {
        let mut object: K = client.get(namespace, name).await?;
        if !change(&mut object) {
            return Ok(object);
        }
        tries -= 1;
        match client.update_subresource(&object, subresource).await {
            Err(error) if error.is_conflict() && tries > 0 => {
                tokio::time::sleep(crate::random::jitter(std::time::Duration::from_millis(5), 1.0)).await
            }
            other => return other,
        }
    }
}
