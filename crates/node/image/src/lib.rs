//! Images and layers on disk: fetched from registries, loaded from archives, unpacked for overlayfs. Knows no pods.
//!
//! [`ImageStore`] is a folder that all nodes of a machine share, at the same time. A pull resolves a [`Reference`] (through mirrors),
//! fetches layers side by side, unpacks them in order and then enters the [`Image`]; a container claims its layers ([`Claimed`]). Mounting is the
//! runtime's.
//!
//! Deliberately absent: pushing, building, signatures, encrypted layers, docker schema 1, snapshotters other than overlayfs.

mod archive;
mod builtin;
mod decompress;
mod digest;
mod error;
mod pull;
mod reference;
mod registry;
mod repack;
mod spec;
mod store;
mod unpack;

pub use builtin::Builtin;
pub use digest::Digest;
pub use error::ImageError;
pub use reference::Reference;
pub use registry::Credentials;
pub use registry::hosts::{Hosts, Mirror};
pub use spec::ImageConfig;
pub use store::claims::{Claim, Claimed};
pub use store::db::{Image, Layer};
pub use store::{ImageStore, Options, Usage};
