//! The machine's image store as the CRI's image service and as the runtime's source of layers.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use async_trait::async_trait;
use tiphys_cri::{self as cri, AuthConfig, CriError, ImageFsInfo, ImageService, ImageSpec, PodSandboxConfig};
use tiphys_image::{Builtin, Credentials, Hosts, Image, ImageError, ImageStore, Options};
use tiphys_runtime::{ContainerImage, ContainerImages, ImageConfig};

use crate::image_pull;

/// The image that the program carries in itself.
pub(crate) fn builtin_name() -> String {
    format!("tiphys.io/tiphys:{}", env!("CARGO_PKG_VERSION"))
}

pub(crate) fn open_store(root: &Path, mirrors: &[String], certs_dir: Option<PathBuf>) -> Result<Arc<ImageStore>> {
    let mirrors = mirrors.iter().map(|m| m.parse()).collect::<Result<_, ImageError>>()?;
    Ok(ImageStore::open(Options { hosts: Hosts { mirrors, certs_dir }, ..Options::new(root) })?)
}

pub(crate) struct NodeImages {
    store: Arc<ImageStore>,
    /// Who holds root file systems in the shared store.
    node: String,
    /// Where to ask for pulls; none: this node pulls itself.
    puller: Option<PathBuf>,
}

impl NodeImages {
    pub(crate) fn new(store: Arc<ImageStore>, node: String, puller: Option<PathBuf>) -> Self {
        NodeImages { store, node, puller }
    }

    pub(crate) async fn register_builtin(&self) -> Result<()> {
        let store = self.store.clone();
        tokio::task::spawn_blocking(move || store.register_builtin(&Builtin::of_this_program(builtin_name())?)).await??;
        Ok(())
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&ImageStore) -> Result<T, ImageError> + Send + 'static,
    ) -> cri::Result<T> {
        let store = self.store.clone();
        tokio::task::spawn_blocking(move || work(&store)).await.map_err(CriError::internal)?.map_err(cri_error)
    }
}

pub(crate) fn cri_error(error: ImageError) -> CriError {
    let text = error.to_string();
    match error {
        ImageError::InvalidReference(_) => CriError::InvalidArgument(text),
        ImageError::NotFound(_) => CriError::NotFound(text),
        ImageError::Unauthorized(_) => CriError::FailedPrecondition(text),
        ImageError::Unavailable(_) => CriError::Unavailable(text),
        ImageError::Unsupported(_) => CriError::Unimplemented(text),
        ImageError::Corrupt(_) | ImageError::Io(_) => CriError::Internal(text),
    }
}

fn to_cri(image: &Image) -> cri::Image {
    let (uid, username) = image.config.uid_or_name();
    cri::Image {
        id: image.id.to_string(),
        repo_tags: image.repo_tags.iter().cloned().collect(),
        repo_digests: image.repo_digests.iter().cloned().collect(),
        size: image.size,
        uid,
        username: username.to_owned(),
        spec: ImageSpec::default(),
        pinned: image.pinned,
    }
}

/// What containers name the image by: its digest where it came from a registry.
fn reference(image: &Image) -> String {
    image.repo_digests.first().cloned().unwrap_or_else(|| image.id.to_string())
}

fn credentials(auth: &AuthConfig) -> Credentials {
    Credentials {
        username: auth.username.clone(),
        password: auth.password.clone(),
        auth: auth.auth.clone(),
        server_address: auth.server_address.clone(),
        identity_token: auth.identity_token.clone(),
        registry_token: auth.registry_token.clone(),
    }
}

/// Pulls in this process's network namespace; gives what containers name the image by.
pub(crate) async fn pull(store: &Arc<ImageStore>, image: &str, auth: Option<&AuthConfig>) -> Result<String, ImageError> {
    let credentials = auth.map(credentials);
    Ok(reference(&*store.pull(image, credentials.as_ref()).await?))
}

#[async_trait]
impl ImageService for NodeImages {
    async fn list_images(&self, filter: Option<&ImageSpec>) -> cri::Result<Vec<cri::Image>> {
        let wanted = filter.map(|f| f.image.clone()).filter(|i| !i.is_empty());
        self.blocking(move |store| {
            let images = match wanted {
                Some(name) => store.find(&name)?.into_iter().collect(),
                None => store.list()?,
            };
            Ok(images.iter().map(|i| to_cri(i)).collect())
        })
        .await
    }

    async fn image_status(&self, image: &ImageSpec) -> cri::Result<Option<cri::Image>> {
        Ok(self.store.find(&image.image).map_err(cri_error)?.map(|i| to_cri(&i)))
    }

    async fn pull_image(&self, image: &ImageSpec, auth: Option<&AuthConfig>, _: Option<&PodSandboxConfig>) -> cri::Result<String> {
        match &self.puller {
            Some(socket) => image_pull::ask(socket, &image.image, auth).await,
            None => pull(&self.store, &image.image, auth).await.map_err(cri_error),
        }
    }

    async fn remove_image(&self, image: &ImageSpec) -> cri::Result<()> {
        let name = image.image.clone();
        self.blocking(move |store| store.remove(&name).and_then(|_| store.collect_garbage())).await
    }

    async fn image_fs_info(&self) -> cri::Result<ImageFsInfo> {
        let mountpoint = self.store.root().display().to_string();
        let used = self.blocking(|store| store.usage()).await?;
        let timestamp = i64::try_from(crate::cluster::clock().now().as_nanosecond()).unwrap_or(i64::MAX);
        let usage = cri::FilesystemUsage { timestamp, mountpoint, used_bytes: used.bytes, inodes_used: used.inodes };
        Ok(ImageFsInfo { image_filesystems: vec![usage.clone()], container_filesystems: vec![usage] })
    }
}

#[async_trait]
impl ContainerImages for NodeImages {
    async fn acquire(&self, image: &ImageSpec, owner: &str) -> cri::Result<ContainerImage> {
        let (name, owner, node) = (image.image.clone(), owner.to_owned(), self.node.clone());
        self.blocking(move |store| {
            let claimed = store.claim(&owner, &name, &node)?;
            let found = &claimed.image;
            Ok(ContainerImage {
                id: found.id.to_string(),
                reference: reference(found),
                layers: claimed.layers,
                config: ImageConfig {
                    user: found.config.user.clone(),
                    env: found.config.env.clone(),
                    entrypoint: found.config.entrypoint.clone(),
                    cmd: found.config.cmd.clone(),
                    working_dir: found.config.working_dir.clone(),
                    stop_signal: found.config.stop_signal.clone(),
                },
            })
        })
        .await
    }

    async fn release(&self, owner: &str) {
        let owner = owner.to_owned();
        if let Err(error) = self.blocking(move |store| store.release(&owner)).await {
            tracing::warn!(%error, "the layers of a container could not be let go");
        }
    }
}
