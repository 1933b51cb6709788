//! The store: one folder per machine with all images and layers, used by several processes at once.
//!
//! Whatever appears, appears whole (made beside, renamed into place), so a killed process leaves nothing but leftovers, which garbage
//! collection takes away. Locks are the kernel's (flock) and die with their holder. Who adds holds `collect` shared, who removes layers
//! and blobs holds it exclusively. What a power cut does is `settle`'s matter.

pub(crate) mod blobs;
pub(crate) mod claims;
pub(crate) mod db;
pub(crate) mod files;
pub(crate) mod layers;
pub(crate) mod settle;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use tiphys_base::clock::{Clock, SystemClock};

use self::blobs::Blobs;
use self::db::{Database, Image};
use self::files::{FileLock, Paths};
use self::layers::Layers;
use self::settle::{Adding, Settling};
use crate::digest::Digest;
use crate::error::{ImageError, Result, io_error};
use crate::reference::Reference;
use crate::registry::Registries;
use crate::registry::hosts::Hosts;
use crate::spec::{Descriptor, Manifest};

#[derive(Clone)]
pub struct Options {
    pub root: PathBuf,
    pub hosts: Hosts,
    /// Keep layers as they came after unpacking them, so that images can be saved. Costs their size again.
    pub keep_blobs: bool,
    pub clock: Arc<dyn Clock>,
}

impl Options {
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Options { root: root.into(), hosts: Hosts::default(), keep_blobs: false, clock: SystemClock::shared() }
    }
}

/// Space that the images take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    pub bytes: u64,
    pub inodes: u64,
}

pub struct ImageStore {
    pub(crate) paths: Paths,
    pub(crate) blobs: Blobs,
    pub(crate) layers: Layers,
    pub(crate) database: Database,
    pub(crate) registries: Registries,
    pub(crate) keep_blobs: bool,
    pub(crate) settling: Arc<Settling>,
    clock: Arc<dyn Clock>,
    /// Pulls of the same reference take turns: the second finds everything there.
    pub(crate) pulls: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

impl ImageStore {
    /// Opens the store, which is made if need be, and clears away what a crash has left.
    pub fn open(options: Options) -> Result<Arc<Self>> {
        let paths = Paths::create(&options.root)?;
        let store = Arc::new(ImageStore {
            blobs: Blobs::new(paths.clone()),
            layers: Layers::new(paths.clone()),
            database: Database::new(paths.clone()),
            registries: Registries::new(options.hosts),
            keep_blobs: options.keep_blobs,
            settling: Arc::new(Settling::new(paths.clone())),
            clock: options.clock,
            pulls: Mutex::default(),
            paths,
        });
        store.collect_garbage()?;
        Ok(store)
    }

    pub fn root(&self) -> &Path {
        self.paths.root()
    }

    pub fn list(&self) -> Result<Vec<Arc<Image>>> {
        Ok(self.database.read()?.all().cloned().collect())
    }

    /// The image by id, a beginning of it, tag or digest; short names are what docker makes of them.
    pub fn find(&self, name: &str) -> Result<Option<Arc<Image>>> {
        Ok(self.database.read()?.find(name).cloned())
    }

    /// Forgets an image with all its names; containers that run on it keep their layers. Nothing there is fine. Blocks.
    pub fn remove(&self, name: &str) -> Result<Option<Arc<Image>>> {
        let removed = self.database.update(|images| {
            let id = images.find(name).map(|image| image.id.clone());
            id.and_then(|id| images.remove(&id))
        })?;
        if removed.is_some() {
            self.collect_garbage()?;
        }
        Ok(removed)
    }

    /// Gives an image one more name.
    pub fn tag(&self, name: &str, new: &str) -> Result<Arc<Image>> {
        let tag = new.parse::<Reference>()?.tagged();
        let tag = tag.ok_or_else(|| ImageError::InvalidReference(format!("{new} names a digest, not a tag")))?;
        let tagged = self.database.update(|images| {
            let mut image = Image::clone(images.find(name)?);
            image.repo_tags.insert(tag);
            Some(images.add(image))
        })?;
        tagged.ok_or_else(|| ImageError::NotFound(format!("image {name}: not found")))
    }

    /// Keeps garbage collection (the kubelet's) from choosing this image, or no longer.
    pub fn pin(&self, name: &str, pinned: bool) -> Result<Arc<Image>> {
        let changed = self.database.update(|images| {
            let id = images.find(name)?.id.clone();
            images.change(&id, |image| image.pinned = pinned)
        })?;
        changed.ok_or_else(|| ImageError::NotFound(format!("image {name}: not found")))
    }

    /// Images that nobody runs and that are not pinned: what may go when space is short.
    pub fn unused(&self) -> Result<Vec<Arc<Image>>> {
        let used: HashSet<Digest> = self.claims()?.into_iter().map(|(_, record)| record.image).collect();
        Ok(self.list()?.into_iter().filter(|image| !image.pinned && !used.contains(&image.id)).collect())
    }

    /// What images take on disk; containers' own files are not counted.
    pub fn usage(&self) -> Result<Usage> {
        let (mut bytes, mut inodes) = self.layers.usage()?;
        for file in read_folder(&self.paths.blobs())? {
            bytes += fs::metadata(&file).map_or(0, |found| found.blocks() * 512);
            inodes += 1;
        }
        Ok(Usage { bytes, inodes })
    }

    /// The image's configuration as it is in its blob, every field of it.
    pub fn raw_config(&self, image: &Image) -> Result<Vec<u8>> {
        self.blobs.read(&image.id)
    }

    /// To be held while something is added. Blocks.
    pub(crate) fn adding(&self) -> Result<Adding> {
        Adding::begin(&self.paths, &self.settling)
    }

    /// Removes what no image and no container refers to. Does nothing while someone is adding; then the next time will do. Blocks.
    pub fn collect_garbage(&self) -> Result<()> {
        let Some(_alone) = FileLock::try_exclusive(&self.paths.lock("collect"))? else { return Ok(()) };
        self.settling.recover(&self.layers, &self.database)?;
        let images = self.database.read()?;
        let mut layers: HashSet<Digest> = images.all().flat_map(|image| image.layers.iter()).map(|layer| layer.chain_id.clone()).collect();
        layers.extend(self.claims()?.into_iter().flat_map(|(_, record)| record.layers));
        for info in self.layers.all()?.iter().filter(|info| !layers.contains(&info.chain_id)) {
            self.layers.remove(&info.chain_id)?;
        }
        let blobs: HashSet<String> = images.all().flat_map(|image| blobs_of(image)).map(|digest| digest.hex().to_owned()).collect();
        remove_others(&self.paths.blobs(), |name| blobs.contains(name))?;
        self.remove_leftovers()
    }

    /// Half made things; and downloads broken off, but for young ones, which the next pull can go on with.
    fn remove_leftovers(&self) -> Result<()> {
        remove_others(&self.paths.tmp(), |_| false)?;
        remove_others(&self.paths.layers(), |name| {
            let info = name.strip_suffix(".json").unwrap_or(name);
            self.paths.layers().join(format!("{info}.json")).exists()
        })?;
        let yesterday = self.clock.now().as_second() - 24 * 3600;
        let ingests = self.paths.ingests();
        remove_others(&ingests, |name| fs::metadata(ingests.join(name)).is_ok_and(|found| found.mtime() > yesterday && found.len() > 0))?;
        let containers = self.paths.containers();
        remove_others(&containers, |name| claims::read_claim(&containers.join(name)).is_some())
    }
}

fn blobs_of(image: &Image) -> impl Iterator<Item = &Digest> {
    let layers = image.layers.iter().map(|layer| &layer.digest);
    let digests = [&image.id, &image.manifest].into_iter();
    digests.chain(layers)
}

fn read_folder(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).map_err(io_error("reading", folder))?;
    entries.map(|entry| entry.map(|entry| entry.path()).map_err(io_error("reading", folder))).collect()
}

fn remove_others(folder: &Path, keep: impl Fn(&str) -> bool) -> Result<()> {
    for path in read_folder(folder)? {
        if path.file_name().and_then(|name| name.to_str()).is_some_and(&keep) {
            continue;
        }
        let removed = if path.is_dir() && !path.is_symlink() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        match removed {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io_error("removing", &path)(error)),
            _ => {}
        }
    }
    Ok(())
}

/// Everything that a manifest stands for, as the database keeps it.
pub(crate) fn layers_of(manifest: &Manifest, diff_ids: &[Digest]) -> Result<Vec<db::Layer>> {
    if manifest.layers.len() != diff_ids.len() {
        let text = format!("mismatched image rootfs and manifest layers: {} and {}", diff_ids.len(), manifest.layers.len());
        return Err(ImageError::Corrupt(text));
    }
    let mut parent: Option<Digest> = None;
    let stack = |(blob, diff_id): (&Descriptor, &Digest)| {
        let chain_id = Digest::chain(parent.as_ref(), diff_id);
        parent = Some(chain_id.clone());
        db::Layer { chain_id, diff_id: diff_id.clone(), digest: blob.digest.clone(), size: blob.size }
    };
    Ok(manifest.layers.iter().zip(diff_ids).map(stack).collect())
}
