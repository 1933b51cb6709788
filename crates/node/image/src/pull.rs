//! Pulling: reference to manifest to layers, fetched side by side and unpacked in order.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http_body_util::BodyExt;
use tokio::task::JoinHandle;

use crate::digest::Digest;
use crate::error::{ImageError, Result};
use crate::reference::Reference;
use crate::registry::{Credentials, Repository};
use crate::spec::{ConfigFile, Descriptor, Document, Manifest};
use crate::store::blobs::Ingest;
use crate::store::db::{Image, Layer};
use crate::store::files::blocking;
use crate::store::{ImageStore, layers_of};

/// Layers that are fetched at once, docker's number.
const FETCHES: usize = 3;
/// Tries per blob; each goes on where the last one stopped.
const TRIES: u32 = 5;
/// A download that brings nothing for so long is broken off.
const STALL: Duration = Duration::from_secs(60);

/// What a reference turned out to mean.
struct Resolved {
    /// The digest that the reference's repository knows it by: of the index, if there is one.
    top: Digest,
    digest: Digest,
    manifest: Manifest,
    /// The manifest's bytes.
    content: Bytes,
}

/// Ends its task when it is dropped: nobody downloads for a pull that has failed.
struct Fetch(JoinHandle<Result<()>>);

impl Drop for Fetch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Fetch {
    async fn done(mut self) -> Result<()> {
        (&mut self.0).await.unwrap_or_else(|error| Err(ImageError::Io(format!("the download was broken off: {error}"))))
    }
}

impl ImageStore {
    /// Fetches an image, or makes sure that it is what the registry has now. Pulls of one reference at the same time do the work once.
    pub async fn pull(self: &Arc<Self>, name: &str, credentials: Option<&Credentials>) -> Result<Arc<Image>> {
        let reference: Reference = name.parse()?;
        let turn = self.pulls.lock().entry(reference.to_string()).or_default().clone();
        let guard = turn.lock().await;
        let pulled = self.pull_alone(&reference, credentials).await;
        drop(guard);
        drop(turn);
        self.pulls.lock().retain(|_, turn| Arc::strong_count(turn) > 1);
        pulled.map_err(|error| error.while_doing(format_args!("failed to pull and unpack image \"{reference}\"")))
    }

    async fn pull_alone(self: &Arc<Self>, reference: &Reference, credentials: Option<&Credentials>) -> Result<Arc<Image>> {
        let store = self.clone();
        let adding = Arc::new(blocking(move || store.adding()).await?);
        let repository = Arc::new(self.registries.repository(reference, credentials)?);
        let resolving = |error: ImageError| error.while_doing(format_args!("failed to resolve reference \"{reference}\""));
        let resolved = self.resolve(&repository, &reference.target()).await.map_err(resolving)?;
        if !self.is_here(&resolved.digest)? {
            let adding = adding.clone();
            blocking(move || adding.write()).await?;
        }
        self.blobs.write(&resolved.content)?;
        let config = self.config(&repository, &resolved.manifest.config).await?;
        let layers = layers_of(&resolved.manifest, &config.rootfs.diff_ids)?;
        self.fetch_layers(&repository, &layers).await?;
        let size = resolved.content.len() as u64 + resolved.manifest.config.size + layers.iter().map(|layer| layer.size).sum::<u64>();
        let image = Image {
            id: resolved.manifest.config.digest,
            manifest: resolved.digest,
            repo_tags: reference.tagged().filter(|_| reference.digest.is_none()).into_iter().collect(),
            repo_digests: [reference.digested(&resolved.top)].into(),
            size,
            pinned: false,
            config: config.config,
            layers,
        };
        let store = self.clone();
        blocking(move || store.commit(image)).await
    }

    /// Enters an image whose parts are all here.
    pub(crate) fn commit(&self, image: Image) -> Result<Arc<Image>> {
        self.database.update(|images| images.add(image))
    }

    /// Whether an image of this manifest is here with all its parts.
    fn is_here(&self, manifest: &Digest) -> Result<bool> {
        let whole = |image: &Arc<Image>| image.layers.iter().all(|layer| !self.needs(&layer.digest, &layer.chain_id));
        Ok(self.list()?.iter().any(|image| image.manifest == *manifest && self.blobs.has(&image.id) && whole(image)))
    }

    async fn resolve(&self, repository: &Repository, target: &str) -> Result<Resolved> {
        let (top, bytes) = repository.manifest(target).await?;
        let (digest, bytes, manifest) = match Document::parse(&bytes)? {
            Document::Manifest(manifest) => (top.clone(), bytes, manifest),
            Document::Index(index) => {
                let ours = index.for_this_machine()?.digest.clone();
                let (digest, bytes) = repository.manifest(&ours.to_string()).await?;
                match Document::parse(&bytes)? {
                    Document::Manifest(manifest) => (digest, bytes, manifest),
                    Document::Index(_) => return Err(ImageError::Unsupported("an index of indexes is not supported".into())),
                }
            }
        };
        Ok(Resolved { top, digest, manifest, content: bytes })
    }

    async fn config(self: &Arc<Self>, repository: &Arc<Repository>, descriptor: &Descriptor) -> Result<ConfigFile> {
        fetch(self.clone(), repository.clone(), descriptor.digest.clone(), None).await?;
        ConfigFile::parse(&self.blobs.read(&descriptor.digest)?)
    }

    async fn fetch_layers(self: &Arc<Self>, repository: &Arc<Repository>, layers: &[Layer]) -> Result<()> {
        let mut underway = VecDeque::new();
        let mut begun = 0;
        for at in 0..layers.len() {
            while underway.len() < FETCHES && begun < layers.len() {
                underway.push_back(self.begin_fetch(repository, &layers[begun]));
                begun += 1;
            }
            if let Some(fetch) = underway.pop_front().flatten() {
                fetch.done().await?;
            }
            self.unpack_layer(layers, at).await?;
        }
        Ok(())
    }

    /// A task of its own, so that it goes on while another layer is being unpacked; none if the layer is here.
    fn begin_fetch(self: &Arc<Self>, repository: &Arc<Repository>, layer: &Layer) -> Option<Fetch> {
        let fetch = || fetch(self.clone(), repository.clone(), layer.digest.clone(), Some(layer.chain_id.clone()));
        self.needs(&layer.digest, &layer.chain_id).then(|| Fetch(tokio::spawn(fetch())))
    }

    /// Whether the blob of this layer is of any use.
    fn needs(&self, blob: &Digest, chain_id: &Digest) -> bool {
        self.layers.get(chain_id).is_none() || (self.keep_blobs && !self.blobs.has(blob))
    }

    async fn unpack_layer(self: &Arc<Self>, layers: &[Layer], at: usize) -> Result<()> {
        let (store, stack) = (self.clone(), layers[..=at].to_vec());
        blocking(move || store.unpack_top(&stack)).await
    }

    /// Unpacks the uppermost of these layers, the others being there.
    pub(crate) fn unpack_top(&self, stack: &[Layer]) -> Result<()> {
        let Some((top, below)) = stack.split_last() else { return Ok(()) };
        if self.layers.get(&top.chain_id).is_none() {
            let parents: Vec<Digest> = below.iter().map(|layer| layer.chain_id.clone()).collect();
            match self.blobs.open(&top.digest) {
                Ok(blob) => drop(self.layers.add(blob, &top.diff_id, &parents)?),
                // Another process has unpacked the layer just now, and then removed the blob.
                Err(_) if self.layers.get(&top.chain_id).is_some() => {}
                Err(error) => return Err(error),
            }
        }
        if !self.keep_blobs {
            self.blobs.remove(&top.digest)?;
        }
        Ok(())
    }
}

/// Brings a blob here unless it is; someone else fetching the same is waited for, and may even have unpacked it.
async fn fetch(store: Arc<ImageStore>, repository: Arc<Repository>, digest: Digest, layer: Option<Digest>) -> Result<()> {
    for attempt in 1.. {
        let (blobs, wanted) = (store.blobs.clone(), digest.clone());
        let Some(mut ingest) = blocking(move || blobs.ingest(&wanted)).await? else { break };
        if layer.as_ref().is_some_and(|layer| !store.needs(&digest, layer)) {
            return ingest.abandon();
        }
        let error = match stream(&repository, &digest, &mut ingest).await {
            Ok(()) => match ingest.finish() {
                Ok(()) => break,
                Err(error) => error,
            },
            Err(error) => error,
        };
        if attempt == TRIES || !matches!(error, ImageError::Unavailable(_) | ImageError::Corrupt(_)) {
            return Err(error.while_doing(format_args!("failed to copy blob {digest}")));
        }
        tracing::info!(%digest, %error, attempt, "downloading again");
        tokio::time::sleep(Duration::from_millis(100) * 2u32.pow(attempt)).await;
    }
    Ok(())
}

async fn stream(repository: &Repository, digest: &Digest, ingest: &mut Ingest) -> Result<()> {
    let response = repository.blob(digest, ingest.size()).await?;
    if response.status() != StatusCode::PARTIAL_CONTENT && ingest.size() > 0 {
        ingest.restart()?;
    }
    let mut body = response.into_body();
    loop {
        match tokio::time::timeout(STALL, body.frame()).await {
            Err(_) => return Err(ImageError::Unavailable("no progress: i/o timeout".into())),
            Ok(None) => return Ok(()),
            Ok(Some(Err(error))) => return Err(ImageError::Unavailable(format!("unexpected EOF: {error}"))),
            Ok(Some(Ok(frame))) => {
                if let Some(bytes) = frame.data_ref() {
                    ingest.write(bytes)?;
                }
            }
        }
    }
}
