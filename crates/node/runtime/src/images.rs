//! What the runtime asks of the image store.

use std::path::PathBuf;

use async_trait::async_trait;
use tiphys_cri::{ImageSpec, Result};

/// An image as a container uses it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContainerImage {
    /// `sha256:…` of its configuration.
    pub id: String,
    /// What statuses name: a reference by digest.
    pub reference: String,
    /// Unpacked layers, the topmost first.
    pub layers: Vec<PathBuf>,
    pub config: ImageConfig,
}

/// The part of an image's configuration that containers inherit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageConfig {
    pub user: String,
    pub env: Vec<String>,
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    pub working_dir: String,
    pub stop_signal: String,
}

/// Images that are on this machine.
#[async_trait]
pub trait ContainerImages: Send + Sync {
    /// Finds an image and keeps its layers from being removed until `owner` lets go.
    async fn acquire(&self, image: &ImageSpec, owner: &str) -> Result<ContainerImage>;
    /// Idempotent.
    async fn release(&self, owner: &str);
}
