//! What can go wrong, in the gRPC codes that CRI clients tell apart.

/// Result of every CRI call.
pub type Result<T> = std::result::Result<T, CriError>;

/// A CRI error: the variant is the gRPC code, the text is for people (the kubelet puts it into statuses and events).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CriError {
    #[error("{0}")]
    NotFound(String),
    #[error("{0}")]
    AlreadyExists(String),
    #[error("{0}")]
    InvalidArgument(String),
    #[error("{0}")]
    FailedPrecondition(String),
    /// exec_sync ran into its timeout; probes count this as a failure with this text.
    #[error("{0}")]
    DeadlineExceeded(String),
    /// The supervisor, the registry or the network is away for now: worth another try.
    #[error("{0}")]
    Unavailable(String),
    #[error("{0}")]
    Unimplemented(String),
    #[error("{0}")]
    Internal(String),
}

impl CriError {
    pub fn internal(error: impl std::fmt::Display) -> Self {
        Self::Internal(error.to_string())
    }

    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound(_))
    }
}

impl From<std::io::Error> for CriError {
    fn from(error: std::io::Error) -> Self {
        Self::Internal(error.to_string())
    }
}
