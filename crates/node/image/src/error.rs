//! What can go wrong with an image, told apart as far as callers act differently.

use std::io;
use std::path::Path;

pub(crate) type Result<T> = std::result::Result<T, ImageError>;

/// The texts use the words that users of kubelets and containerd know ("not found", "unauthorized", "no such host").
#[derive(Debug, Clone, thiserror::Error)]
pub enum ImageError {
    /// Not a reference; another try will not help.
    #[error("{0}")]
    InvalidReference(String),
    #[error("{0}")]
    NotFound(String),
    #[error("{0}")]
    Unauthorized(String),
    /// The registry or the network did not answer as it should: worth another try.
    #[error("{0}")]
    Unavailable(String),
    /// Bytes that are not what their digest says, or that make no sense.
    #[error("{0}")]
    Corrupt(String),
    /// Something of the image formats that is not done here.
    #[error("{0}")]
    Unsupported(String),
    #[error("{0}")]
    Io(String),
}

impl ImageError {
    /// The same error, saying first what was being done.
    pub(crate) fn while_doing(self, doing: impl std::fmt::Display) -> Self {
        use ImageError::*;
        let text = format!("{doing}: {self}");
        match self {
            InvalidReference(_) => InvalidReference(text),
            NotFound(_) => NotFound(text),
            Unauthorized(_) => Unauthorized(text),
            Unavailable(_) => Unavailable(text),
            Corrupt(_) => Corrupt(text),
            Unsupported(_) => Unsupported(text),
            Io(_) => Io(text),
        }
    }
}

/// For `map_err`: an IO error with what was done to which file.
pub(crate) fn io_error(doing: &str, path: &Path) -> impl FnOnce(io::Error) -> ImageError {
    let context = format!("{doing} {}", path.display());
    move |error| ImageError::Io(format!("{context}: {error}"))
}
