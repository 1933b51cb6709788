//! A registry over the engine that ships with it, for those who must not know the store.

use std::path::Path;
use std::sync::Arc;

use tiphys_store::{Embedded, Engine, Memory, Options, StoreError};

use crate::config::RegistryConfig;
use crate::registry::Registry;

impl Registry {
    /// The embedded engine in `dir`, or one that keeps everything in memory where there is none.
    pub async fn open(dir: Option<&Path>, config: RegistryConfig) -> Result<Arc<Registry>, StoreError> {
        let engine: Arc<dyn Engine> = match dir {
            Some(dir) => Embedded::open(Options::new(dir))?,
            None => Memory::open()?,
        };
        Registry::new(engine, config).await
    }
}
