//! Which images there are: one small file, replaced whole under a lock, read again when it has changed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::error::{ImageError, Result, io_error};
use crate::reference::Reference;
use crate::spec::{ImageConfig, to_json};
use crate::store::files::{FileLock, Paths};

/// A layer of an image: what it is stacked on is part of what it is (its chain id).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    pub chain_id: Digest,
    pub diff_id: Digest,
    /// The blob that it came in, and its size.
    pub digest: Digest,
    pub size: u64,
}

/// An image that is here, layers and all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// The digest of its configuration.
    pub id: Digest,
    /// The manifest for this machine.
    pub manifest: Digest,
    /// `docker.io/library/busybox:latest`.
    pub repo_tags: BTreeSet<String>,
    /// `docker.io/library/busybox@sha256:…`; of the index, if it was pulled through one.
    pub repo_digests: BTreeSet<String>,
    /// Bytes of manifest, configuration and layers as they travel.
    pub size: u64,
    /// Never a candidate for removal by garbage collection.
    pub pinned: bool,
    pub config: ImageConfig,
    /// The lowest first.
    pub layers: Vec<Layer>,
}

impl Image {
    fn answers_to(&self, name: &Name) -> bool {
        match name {
            Name::Id(prefix) => self.id.hex().starts_with(prefix.as_str()),
            Name::Digested(name) => self.repo_digests.contains(name),
            Name::Tagged(name) => self.repo_tags.contains(name),
        }
    }
}

/// The ways to name an image.
enum Name {
    Id(String),
    Tagged(String),
    Digested(String),
}

impl Name {
    fn all_of(text: &str) -> Vec<Name> {
        let mut names = Vec::new();
        let hex = text.strip_prefix("sha256:").unwrap_or(text);
        if (hex.len() == 64 || (7..64).contains(&hex.len())) && hex.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f')) {
            names.push(Name::Id(hex.to_owned()));
        }
        if let Ok(reference) = text.parse::<Reference>() {
            match &reference.digest {
                Some(digest) => names.push(Name::Digested(reference.digested(digest))),
                None => names.extend(reference.tagged().map(Name::Tagged)),
            }
        }
        names
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Images {
    images: BTreeMap<Digest, Arc<Image>>,
}

impl Images {
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Image>> {
        self.images.values()
    }

    /// By id, a beginning of the id that fits only one, tag or digest.
    pub(crate) fn find(&self, text: &str) -> Option<&Arc<Image>> {
        Name::all_of(text).iter().find_map(|name| {
            let mut fitting = self.images.values().filter(|image| image.answers_to(name));
            let first = fitting.next()?;
            fitting.next().is_none().then_some(first)
        })
    }

    /// Adds an image, or its names to the one that is here. A tag belongs to one image: it leaves the one that had it.
    pub(crate) fn add(&mut self, mut image: Image) -> Arc<Image> {
        if let Some(known) = self.images.get(&image.id) {
            image.repo_tags.extend(known.repo_tags.iter().cloned());
            image.repo_digests.extend(known.repo_digests.iter().cloned());
            image.pinned |= known.pinned;
        }
        for other in self.images.values_mut().filter(|other| other.id != image.id) {
            if !other.repo_tags.is_disjoint(&image.repo_tags) {
                Arc::make_mut(other).repo_tags.retain(|tag| !image.repo_tags.contains(tag));
            }
        }
        let image = Arc::new(image);
        self.images.insert(image.id.clone(), image.clone());
        image
    }

    pub(crate) fn remove(&mut self, id: &Digest) -> Option<Arc<Image>> {
        self.images.remove(id)
    }

    pub(crate) fn retain(&mut self, keep: impl Fn(&Image) -> bool) {
        self.images.retain(|_, image| keep(image));
    }

    pub(crate) fn change(&mut self, id: &Digest, change: impl FnOnce(&mut Image)) -> Option<Arc<Image>> {
        let image = self.images.get_mut(id)?;
        change(Arc::make_mut(image));
        Some(image.clone())
    }
}

/// Tells one version of the file from the next: it is replaced, never written into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    modified: (i64, i64),
    size: u64,
}

#[derive(Debug)]
pub(crate) struct Database {
    paths: Paths,
    cache: Mutex<Option<(Stamp, Arc<Images>)>>,
}

impl Database {
    pub(crate) fn new(paths: Paths) -> Self {
        Database { paths, cache: Mutex::default() }
    }

    fn stamp(&self) -> Result<Option<Stamp>> {
        let path = self.paths.database();
        match fs::metadata(&path) {
            Ok(found) => Ok(Some(Stamp { inode: found.ino(), modified: (found.mtime(), found.mtime_nsec()), size: found.size() })),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io_error("reading", &path)(error)),
        }
    }

    pub(crate) fn read(&self) -> Result<Arc<Images>> {
        let mut cache = self.cache.lock();
        let Some(stamp) = self.stamp()? else { return Ok(Arc::default()) };
        if let Some((known, images)) = &*cache
            && *known == stamp
        {
            return Ok(images.clone());
        }
        let path = self.paths.database();
        let bytes = fs::read(&path).map_err(io_error("reading", &path))?;
        let images: Arc<Images> =
            serde_json::from_slice(&bytes).map(Arc::new).map_err(|error| ImageError::Corrupt(format!("{}: {error}", path.display())))?;
        *cache = Some((stamp, images.clone()));
        Ok(images)
    }

    /// Changes the images; nobody else does meanwhile, in this process or another. Blocks.
    pub(crate) fn update<T>(&self, change: impl FnOnce(&mut Images) -> T) -> Result<T> {
        let _lock = FileLock::exclusive(&self.paths.lock("images"))?;
        let before = self.read()?;
        let mut images = Images::clone(&before);
        let result = change(&mut images);
        if images == *before {
            return Ok(result);
        }
        let path = self.paths.database();
        tiphys_base::files::write_atomic(&path, &to_json(&images), 0o600).map_err(io_error("writing", &path))?;
        Ok(result)
    }
}
