//! The watch cache.

mod stream;

pub use stream::{EventType, WatchEvent, WatchStream};
