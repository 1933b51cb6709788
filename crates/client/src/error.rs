use tiphys_meta::{ApiError, Reason};

/// Why a request gave no object.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ClientError {
    /// The server's own words.
    #[error(transparent)]
    Api(#[from] Box<ApiError>),
    #[error("cannot reach the API server: {0}")]
    Transport(String),
    #[error("cannot read the API server's answer: {0}")]
    Decode(String),
    #[error("cannot write the object as JSON: {0}")]
    Encode(String),
    #[error("client configuration: {0}")]
    Config(String),
}

impl From<ApiError> for ClientError {
    fn from(error: ApiError) -> Self {
        ClientError::Api(Box::new(error))
    }
}

impl ClientError {
    pub fn api(&self) -> Option<&ApiError> {
        match self {
            ClientError::Api(error) => Some(error),
            _ => None,
        }
    }

    pub fn reason(&self) -> Option<Reason> {
        self.api().map(|e| e.reason)
    }

    pub fn is_not_found(&self) -> bool {
        self.reason() == Some(Reason::NotFound)
    }

    pub fn is_conflict(&self) -> bool {
        self.reason() == Some(Reason::Conflict)
    }

    pub fn is_already_exists(&self) -> bool {
        self.reason() == Some(Reason::AlreadyExists)
    }

    pub fn is_forbidden(&self) -> bool {
        self.reason() == Some(Reason::Forbidden)
    }

    pub fn is_invalid(&self) -> bool {
        self.reason() == Some(Reason::Invalid)
    }

    /// The namespace is going away and takes no new objects: a cause of `NamespaceTerminating`.
    pub fn is_namespace_terminating(&self) -> bool {
        self.api().is_some_and(|e| e.causes.iter().any(|c| c.reason == "NamespaceTerminating"))
    }

    /// The revision asked for is no longer held: list again.
    pub fn is_expired(&self) -> bool {
        self.api().is_some_and(|e| e.code == 410)
    }
}
