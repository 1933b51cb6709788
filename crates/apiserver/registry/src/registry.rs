//! The door to objects.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLock;
use tiphys_meta::{ApiError, Reason};
use tiphys_store::{Engine, StoreError};

use crate::answer::Answer;
use crate::config::{Authorizer, RegistryConfig};
use crate::request::RequestInfo;

pub struct Registry {
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) config: RegistryConfig,
    authorizer: RwLock<Option<Arc<dyn Authorizer>>>,
}

impl Registry {
    /// Reads the store once and keeps the watch caches from then on.
    pub async fn new(engine: Arc<dyn Engine>, config: RegistryConfig) -> Result<Arc<Registry>, StoreError> {
        Ok(Arc::new(Registry { engine, config, authorizer: RwLock::new(None) }))
    }

    /// Admission that asks "may this user …" asks this one; until it is set the answer is no.
    pub fn set_authorizer(&self, authorizer: Arc<dyn Authorizer>) {
        *self.authorizer.write() = Some(authorizer);
    }

    /// Answers one authorized request.
    pub async fn handle(self: &Arc<Self>, info: &RequestInfo, _body: Bytes) -> Result<Answer, ApiError> {
        Err(ApiError::new(
            Reason::MethodNotAllowed,
            format!("{} is not supported on resources of kind \"{}\"", info.verb.as_str(), info.gvr.group_resource()),
        ))
    }
}

/// The error as a document in the encoding that the client accepts (JSON when it accepts none that we have).
pub fn error_document(_accept: &str, error: &ApiError) -> Answer {
    Answer::object(error.code, "application/json", error.to_status().to_string().into_bytes())
}
