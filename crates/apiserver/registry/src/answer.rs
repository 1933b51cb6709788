//! What comes back from the registry, ready for the wire.

use std::borrow::Cow;
use std::fmt;

use bytes::{Bytes, BytesMut};

use crate::cache::WatchStream;

/// The answer to a request that went well; errors are `tiphys_meta::ApiError`.
#[derive(Debug)]
pub enum Answer {
    /// One document: an object, a list, a table or a Status.
    Object(Document),
    /// A watch: its headers go out at once, its frames as they come.
    Watch(WatchStream),
}

#[derive(Debug)]
pub struct Document {
    pub code: u16,
    pub content_type: Cow<'static, str>,
    pub body: Body,
    /// Texts of `Warning: 299 - "…"` headers.
    pub warnings: Vec<String>,
}

/// Long lists are made chunk by chunk while they are written, from shared entries, so that no list is in memory twice.
pub enum Body {
    Full(Bytes),
    Chunks(Box<dyn Iterator<Item = Bytes> + Send>),
}

impl Body {
    /// The whole body as one piece.
    pub fn into_bytes(self) -> Bytes {
        match self {
            Body::Full(bytes) => bytes,
            Body::Chunks(chunks) => {
                let mut whole = BytesMut::new();
                chunks.for_each(|chunk| whole.extend_from_slice(&chunk));
                whole.freeze()
            }
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Body::Full(bytes) => write!(f, "Full({} bytes)", bytes.len()),
            Body::Chunks(_) => f.write_str("Chunks"),
        }
    }
}

impl Answer {
    /// The document as a tree, where it is one in JSON.
    pub(crate) fn into_value(self) -> Option<serde_json::Value> {
        match self {
            Answer::Object(document) => serde_json::from_slice(&document.body.into_bytes()).ok(),
            Answer::Watch(_) => None,
        }
    }

    pub fn object(code: u16, content_type: impl Into<Cow<'static, str>>, body: impl Into<Bytes>) -> Self {
        Answer::Object(Document { code, content_type: content_type.into(), body: Body::Full(body.into()), warnings: Vec::new() })
    }
}
