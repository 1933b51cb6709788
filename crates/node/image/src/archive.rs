//! Images as one tar: OCI image layouts and docker's archives (both at once, as `docker save` writes them) in; the same out.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;

use crate::decompress::decompress;
use crate::digest::{Digest, Hashing};
use crate::error::{ImageError, Result, io_error};
use crate::reference::Reference;
use crate::repack;
use crate::spec::*;
use crate::store::blobs::spool;
use crate::store::db::Image;
use crate::store::files::FileLock;
use crate::store::{ImageStore, layers_of};

/// containerd's annotation with the whole name; the standard one may be a tag only.
const FULL_NAME: &str = "io.containerd.image.name";
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// The archive's files, spooled; removed when this is dropped.
struct Spooled {
    folder: PathBuf,
    files: BTreeMap<String, SpooledFile>,
}

#[derive(Clone)]
struct SpooledFile {
    path: PathBuf,
    digest: Digest,
    size: u64,
}

impl Drop for Spooled {
    fn drop(&mut self) {
        // What is left over goes with the next garbage collection.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// An entry of docker's manifest.json.
#[derive(Debug, Deserialize, serde::Serialize)]
#[serde(rename_all = "PascalCase")]
struct DockerEntry {
    config: String,
    #[serde(default, deserialize_with = "null_is_none")]
    repo_tags: Vec<String>,
    layers: Vec<String>,
}

fn null_is_none<'de, D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Vec<String>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

fn corrupt(what: impl std::fmt::Display) -> ImageError {
    ImageError::Corrupt(format!("image archive: {what}"))
}

fn clean(name: &str) -> String {
    name.trim_start_matches("./").to_owned()
}

impl Spooled {
    fn read(archive: impl Read + 'static, folder: PathBuf) -> Result<Self> {
        fs::create_dir(&folder).map_err(io_error("creating", &folder))?;
        let mut spooled = Spooled { folder, files: BTreeMap::new() };
        let mut links = Vec::new();
        let mut archive = tar::Archive::new(decompress(archive).map_err(corrupt)?);
        for (at, entry) in archive.entries().map_err(corrupt)?.enumerate() {
            let mut entry = entry.map_err(corrupt)?;
            let name = clean(&String::from_utf8_lossy(&entry.path_bytes()));
            if entry.header().entry_type().is_file() {
                let path = spooled.folder.join(at.to_string());
                let (digest, size) = spool(&mut entry, &path)?;
                spooled.files.insert(name, SpooledFile { path, digest, size });
            } else if let Some(target) = entry.link_name_bytes() {
                links.push((name, String::from_utf8_lossy(&target).into_owned()));
            }
        }
        // Old `docker save` writes a layer that occurs twice as a link to the first.
        for (name, target) in links {
            let beside = join(&name, &target);
            if let Some(file) = spooled.files.get(&clean(&target)).or_else(|| spooled.files.get(&beside)).cloned() {
                spooled.files.insert(name, file);
            }
        }
        Ok(spooled)
    }

    fn file(&self, name: &str) -> Result<&SpooledFile> {
        self.files.get(&clean(name)).ok_or_else(|| corrupt(format_args!("{name} is missing")))
    }

    fn blob(&self, digest: &Digest) -> Result<&SpooledFile> {
        let file = self.file(&format!("blobs/sha256/{}", digest.hex()))?;
        if file.digest != *digest {
            return Err(corrupt(format_args!("blob {digest} is in truth {}", file.digest)));
        }
        Ok(file)
    }

    fn bytes(&self, file: &SpooledFile) -> Result<Vec<u8>> {
        if file.size > LARGEST_DOCUMENT {
            return Err(corrupt(format_args!("a document of {} bytes is too large", file.size)));
        }
        fs::read(&file.path).map_err(io_error("reading", &file.path))
    }

    fn json<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        let Some(file) = self.files.get(name) else { return Ok(None) };
        serde_json::from_slice(&self.bytes(file)?).map(Some).map_err(|error| corrupt(format_args!("{name}: {error}")))
    }
}

/// `target` as seen from the folder of `name`.
fn join(name: &str, target: &str) -> String {
    let mut parts: Vec<&str> = name.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            ".." => drop(parts.pop()),
            "" | "." => {}
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// An image of an archive: its manifest, its names, and where its blobs are.
struct Found {
    top: Digest,
    manifest_bytes: Vec<u8>,
    manifest: Manifest,
    names: BTreeSet<String>,
    blobs: BTreeMap<Digest, SpooledFile>,
}

impl ImageStore {
    /// Takes all images of an archive, plain or compressed, into the store. Blocks.
    pub fn load(&self, archive: impl Read + 'static) -> Result<Vec<Arc<Image>>> {
        let adding = self.adding()?;
        adding.write()?;
        let spooled = Spooled::read(archive, self.paths.fresh_tmp("load"))?;
        let docker: Vec<DockerEntry> = spooled.json("manifest.json")?.unwrap_or_default();
        let found = match spooled.json::<Index>("index.json")? {
            Some(index) => oci_images(&spooled, &index, &docker)?,
            None => docker.iter().map(|entry| docker_image(&spooled, entry)).collect::<Result<Vec<_>>>()?,
        };
        if found.is_empty() {
            return Err(corrupt("it holds no image"));
        }
        found.into_iter().map(|found| self.take(found)).collect()
    }

    fn take(&self, found: Found) -> Result<Arc<Image>> {
        let Found { top, manifest_bytes, manifest, names, blobs } = found;
        let blob = |digest: &Digest| blobs.get(digest).ok_or_else(|| corrupt(format_args!("blob {digest} is missing")));
        let config_file = blob(&manifest.config.digest)?;
        let config_bytes = fs::read(&config_file.path).map_err(io_error("reading", &config_file.path))?;
        let config = ConfigFile::parse(&config_bytes)?;
        let layers = layers_of(&manifest, &config.rootfs.diff_ids)?;
        for at in 0..layers.len() {
            let wanted = self.layers.get(&layers[at].chain_id).is_none() || self.keep_blobs;
            if wanted && !self.blobs.has(&layers[at].digest) {
                copy_blob(self, blob(&layers[at].digest)?)?;
            }
            self.unpack_top(&layers[..=at])?;
        }
        self.blobs.write(&config_bytes)?;
        let manifest_digest = self.blobs.write(&manifest_bytes)?;
        let names = names.iter().map(|name| name.parse::<Reference>()).collect::<Result<Vec<_>>>()?;
        self.commit(Image {
            id: manifest.config.digest.clone(),
            manifest: manifest_digest,
            repo_tags: names.iter().filter_map(Reference::tagged).collect(),
            repo_digests: names.iter().map(|name| name.digested(&top)).collect(),
            size: manifest_bytes.len() as u64 + manifest.config.size + layers.iter().map(|layer| layer.size).sum::<u64>(),
            pinned: false,
            config: config.config,
            layers,
        })
    }

    /// Writes images as an archive that this store, docker and containerd can load. Layers whose archives were not kept are packed again,
    /// under digests of their own. Blocks.
    pub fn save(&self, names: &[&str], out: impl Write) -> Result<()> {
        let _use = FileLock::shared(&self.paths.lock("collect"))?;
        let mut writer = ArchiveWriter { store: self, tar: tar::Builder::new(out), written: BTreeSet::new() };
        let mut index = Index { schema_version: 2, media_type: OCI_INDEX.into(), manifests: Vec::new() };
        let mut docker = Vec::new();
        writer.document("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        for name in names {
            let image = self.find(name)?.ok_or_else(|| ImageError::NotFound(format!("image {name}: not found")))?;
            let Saved { manifest, config, layers } = writer.image(&image)?;
            for tag in &image.repo_tags {
                let mut named = manifest.clone();
                named.annotations.insert(FULL_NAME.into(), tag.clone());
                named.annotations.insert(REF_NAME.into(), tag.rsplit_once(':').map_or("latest", |(_, tag)| tag).into());
                index.manifests.push(named);
            }
            if image.repo_tags.is_empty() {
                index.manifests.push(manifest);
            }
            docker.push(DockerEntry {
                config: blob_name(&config),
                repo_tags: image.repo_tags.iter().cloned().collect(),
                layers: layers.iter().map(blob_name).collect(),
            });
        }
        writer.document("index.json", &to_json(&index))?;
        writer.document("manifest.json", &to_json(&docker))?;
        writer.tar.finish().map_err(writing)
    }
}

fn copy_blob(store: &ImageStore, file: &SpooledFile) -> Result<()> {
    // A layer may occur in several images of the archive, so the spooled file stays: linked, not moved.
    let beside = store.paths.fresh_tmp("blob");
    fs::hard_link(&file.path, &beside).or_else(|_| fs::copy(&file.path, &beside).map(drop)).map_err(io_error("copying", &file.path))?;
    store.blobs.adopt(&beside, &file.digest)
}

fn oci_images(spooled: &Spooled, index: &Index, docker: &[DockerEntry]) -> Result<Vec<Found>> {
    let mut found: Vec<Found> = Vec::new();
    for entry in fitting(index) {
        let image = oci_image(spooled, entry)?;
        match found.iter_mut().find(|known| known.top == image.top) {
            Some(known) => known.names.extend(image.names),
            None => found.push(image),
        }
    }
    for image in &mut found {
        let config = &image.manifest.config.digest;
        let same = |entry: &&DockerEntry| spooled.files.get(&clean(&entry.config)).is_some_and(|file| file.digest == *config);
        image.names.extend(docker.iter().filter(same).flat_map(|entry| entry.repo_tags.iter().cloned()));
    }
    Ok(found)
}

/// An archive may hold one image for several platforms, or several images.
fn fitting(index: &Index) -> Vec<&Descriptor> {
    let ours = |entry: &&Descriptor| {
        let alone = Index { manifests: vec![(*entry).clone()], ..index.clone() };
        alone.for_this_machine().is_ok()
    };
    index.manifests.iter().filter(ours).collect()
}

fn oci_image(spooled: &Spooled, entry: &Descriptor) -> Result<Found> {
    let mut bytes = spooled.bytes(spooled.blob(&entry.digest)?)?;
    let mut document = Document::parse(&bytes)?;
    if let Document::Index(index) = &document {
        bytes = spooled.bytes(spooled.blob(&index.for_this_machine()?.digest)?)?;
        document = Document::parse(&bytes)?;
    }
    let Document::Manifest(manifest) = document else { return Err(corrupt("an index of indexes")) };
    // A bare tag names nothing; then docker's manifest.json has to.
    let name = entry.annotations.get(FULL_NAME).or_else(|| entry.annotations.get(REF_NAME).filter(|name| name.contains(['/', ':'])));
    let digests = manifest.layers.iter().chain([&manifest.config]).map(|blob| &blob.digest);
    // Layers that are here already may be missing in the archive.
    let blobs = digests.filter_map(|digest| Some((digest.clone(), spooled.blob(digest).ok()?.clone()))).collect();
    let names = name.into_iter().cloned().collect();
    Ok(Found { top: entry.digest.clone(), manifest_bytes: bytes, manifest, names, blobs })
}

/// docker's archives have no manifest in the registry's sense; one is made.
fn docker_image(spooled: &Spooled, entry: &DockerEntry) -> Result<Found> {
    let config = spooled.file(&entry.config)?;
    let files = entry.layers.iter().map(|layer| spooled.file(layer)).collect::<Result<Vec<_>>>()?;
    let manifest = Manifest {
        schema_version: 2,
        media_type: OCI_MANIFEST.into(),
        config: Descriptor::new(OCI_CONFIG, config.digest.clone(), config.size),
        layers: files.iter().map(|file| Descriptor::new(OCI_LAYER, file.digest.clone(), file.size)).collect(),
    };
    let manifest_bytes = to_json(&manifest);
    let blobs = files.into_iter().chain([config]).map(|file| (file.digest.clone(), file.clone())).collect();
    let names = entry.repo_tags.iter().cloned().collect();
    Ok(Found { top: Digest::of(&manifest_bytes), manifest_bytes, manifest, names, blobs })
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn writing(error: std::io::Error) -> ImageError {
    ImageError::Io(format!("writing the archive: {error}"))
}

/// What an image came to in an archive.
struct Saved {
    manifest: Descriptor,
    config: Digest,
    layers: Vec<Digest>,
}

struct ArchiveWriter<'a, W: Write> {
    store: &'a ImageStore,
    tar: tar::Builder<W>,
    written: BTreeSet<Digest>,
}

impl<W: Write> ArchiveWriter<'_, W> {
    fn image(&mut self, image: &Image) -> Result<Saved> {
        if !image.layers.iter().all(|layer| self.store.blobs.has(&layer.digest)) {
            return self.packed_again(image);
        }
        let bytes = self.store.blobs.read(&image.manifest)?;
        let Document::Manifest(manifest) = Document::parse(&bytes)? else { return Err(corrupt("the manifest is an index")) };
        let digests = [&image.manifest, &image.id].into_iter().chain(image.layers.iter().map(|layer| &layer.digest));
        digests.into_iter().try_for_each(|digest| self.blob(digest))?;
        let media_type = if manifest.media_type.is_empty() { OCI_MANIFEST } else { &manifest.media_type };
        let layers = image.layers.iter().map(|layer| layer.digest.clone()).collect();
        Ok(Saved { manifest: Descriptor::of(media_type, &bytes), config: image.id.clone(), layers })
    }

    /// New archives of the layers, and documents that name them.
    fn packed_again(&mut self, image: &Image) -> Result<Saved> {
        let layers = image.layers.iter().map(|layer| self.layer(&layer.chain_id)).collect::<Result<Vec<_>>>()?;
        let digests: Vec<Digest> = layers.iter().map(|layer| layer.digest.clone()).collect();
        let raw = self.store.raw_config(image)?;
        let mut config: serde_json::Value = serde_json::from_slice(&raw).map_err(corrupt)?;
        config["rootfs"]["diff_ids"] = digests.iter().map(Digest::to_string).collect();
        let config = to_json(&config);
        let config_descriptor = Descriptor::of(OCI_CONFIG, &config);
        self.once(&config_descriptor.digest, &config)?;
        let manifest = Manifest { schema_version: 2, media_type: OCI_MANIFEST.into(), config: config_descriptor, layers };
        let bytes = to_json(&manifest);
        let descriptor = Descriptor::of(OCI_MANIFEST, &bytes);
        self.once(&descriptor.digest, &bytes)?;
        Ok(Saved { manifest: descriptor, config: manifest.config.digest, layers: digests })
    }

    fn layer(&mut self, chain_id: &Digest) -> Result<Descriptor> {
        let beside = self.store.paths.fresh_tmp("pack");
        let packed = self.pack_layer(chain_id, &beside);
        let _ = fs::remove_file(&beside);
        packed
    }

    fn pack_layer(&mut self, chain_id: &Digest, beside: &Path) -> Result<Descriptor> {
        let file = fs::File::create(beside).map_err(io_error("creating", beside))?;
        let mut out = Hashing::new(std::io::BufWriter::new(file));
        let folder = self.store.layers.path(chain_id);
        repack::pack(&folder, &mut out).map_err(io_error("packing", &folder))?;
        out.flush().map_err(io_error("writing", beside))?;
        let (digest, size) = out.finish();
        if self.written.insert(digest.clone()) {
            let file = fs::File::open(beside).map_err(io_error("opening", beside))?;
            self.append(&blob_name(&digest), size, file)?;
        }
        Ok(Descriptor::new(OCI_LAYER, digest, size))
    }

    /// A document under its digest.
    fn once(&mut self, digest: &Digest, bytes: &[u8]) -> Result<()> {
        if self.written.insert(digest.clone()) { self.document(&blob_name(digest), bytes) } else { Ok(()) }
    }

    fn blob(&mut self, digest: &Digest) -> Result<()> {
        if self.written.insert(digest.clone()) {
            let file = self.store.blobs.open(digest)?;
            let size = file.metadata().map_err(writing)?.len();
            self.append(&blob_name(digest), size, file)?;
        }
        Ok(())
    }

    fn document(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        self.append(name, bytes.len() as u64, bytes)
    }

    fn append(&mut self, name: &str, size: u64, content: impl Read) -> Result<()> {
        let mut header = tar::Header::new_ustar();
        header.set_size(size);
        header.set_mode(0o644);
        self.tar.append_data(&mut header, Path::new(name), content).map_err(writing)
    }
}
