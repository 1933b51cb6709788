//! The built-in image: a layer that is the running program itself, so that add-ons run as ordinary pods with nothing to pull.
//!
//! The program is hard linked into the layer, or copied where that cannot be. A program that is not static brings the libraries that it
//! runs with. The layer's digest stands for the program's file (which one, how long, how old), not for an archive, which is made only when the image is saved.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::digest::Digest;
use crate::error::{ImageError, Result, io_error};
use crate::reference::Reference;
use crate::spec::{ConfigFile, Descriptor, ImageConfig, Manifest, OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, to_json};
use crate::store::db::{Image, Layer};
use crate::store::{ImageStore, layers_of};
use crate::unpack::Unpacked;

/// What the built-in image holds.
#[derive(Debug, Clone)]
pub struct Builtin {
    /// `tiphys.io/tiphys:0.1.0`.
    pub name: String,
    pub program: PathBuf,
    /// Where it stands in the image, and what the image runs: `/tiphys`.
    pub place: String,
    /// Libraries that the program needs, each at its own path; empty for a static program.
    pub libraries: Vec<PathBuf>,
    pub labels: BTreeMap<String, String>,
}

impl Builtin {
    /// The running program under `name`, at `/tiphys`.
    pub fn of_this_program(name: impl Into<String>) -> Result<Self> {
        let program = std::env::current_exe().map_err(|error| ImageError::Io(format!("finding the running program: {error}")))?;
        let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
        Ok(Builtin { name: name.into(), program, place: "/tiphys".into(), libraries: mapped_libraries(&maps), labels: BTreeMap::new() })
    }
}

/// The shared objects that this process has mapped: what the dynamic linker found, and itself.
fn mapped_libraries(maps: &str) -> Vec<PathBuf> {
    let paths = maps.lines().filter_map(|line| line.splitn(6, ' ').nth(5)).map(str::trim_start);
    let shared = |path: &&str| path.starts_with('/') && path.rsplit('/').next().is_some_and(|name| name.contains(".so"));
    let mut libraries: Vec<PathBuf> = paths.filter(shared).map(PathBuf::from).collect();
    libraries.sort();
    libraries.dedup();
    libraries
}

const FOLDERS: [(&str, u32); 5] = [("etc", 0o755), ("tmp", 0o1777), ("var", 0o755), ("run", 0o755), ("root", 0o700)];
const FILES: [(&str, &str); 3] = [
    ("etc/passwd", "root:x:0:0:root:/root:/sbin/nologin\nnobody:x:65534:65534:nobody:/:/sbin/nologin\n"),
    ("etc/group", "root:x:0:\nnobody:x:65534:\n"),
    ("etc/nsswitch.conf", "hosts: files dns\n"),
];

impl ImageStore {
    /// Registers the built-in image under its name; what had the name loses it. Pinned, so that no garbage collection takes it. Blocks.
    pub fn register_builtin(&self, builtin: &Builtin) -> Result<Arc<Image>> {
        let name: Reference = builtin.name.parse()?;
        let adding = self.adding()?;
        let diff_id = identity(builtin)?;
        if self.layers.get(&diff_id).is_none() {
            adding.write()?;
        }
        self.layers.make(&diff_id, None, |target| build(builtin, target, &diff_id))?;
        let config = ConfigFile::for_this_machine(image_config(builtin), vec![diff_id.clone()]);
        let config_bytes = to_json(&config);
        let size = fs::metadata(&builtin.program).map_err(io_error("reading", &builtin.program))?.len();
        let manifest = Manifest {
            schema_version: 2,
            media_type: OCI_MANIFEST.into(),
            config: Descriptor::of(OCI_CONFIG, &config_bytes),
            layers: vec![Descriptor::new(OCI_LAYER, diff_id.clone(), size)],
        };
        let layers: Vec<Layer> = layers_of(&manifest, &[diff_id])?;
        let manifest_digest = self.blobs.write(&to_json(&manifest))?;
        let id = self.blobs.write(&config_bytes)?;
        self.commit(Image {
            id,
            repo_tags: name.tagged().into_iter().collect(),
            repo_digests: [name.digested(&manifest_digest)].into(),
            manifest: manifest_digest,
            size,
            pinned: true,
            config: config.config,
            layers,
        })
    }
}

fn image_config(builtin: &Builtin) -> ImageConfig {
    ImageConfig {
        env: vec!["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into()],
        entrypoint: vec![builtin.place.clone()],
        working_dir: "/".into(),
        labels: builtin.labels.clone(),
        ..ImageConfig::default()
    }
}

/// Stands for the files' content without reading them.
fn identity(builtin: &Builtin) -> Result<Digest> {
    let mut text = format!("tiphys built-in image 1\n{}\n", builtin.place);
    for path in std::iter::once(&builtin.program).chain(&builtin.libraries) {
        let found = fs::metadata(path).map_err(io_error("reading", path))?;
        let (device, inode, size, modified) = (found.dev(), found.ino(), found.size(), (found.mtime(), found.mtime_nsec()));
        text += &format!("{} {device} {inode} {size} {modified:?}\n", path.display());
    }
    Ok(Digest::of(text.as_bytes()))
}

fn build(builtin: &Builtin, target: &Path, diff_id: &Digest) -> Result<Unpacked> {
    fs::set_permissions(target, fs::Permissions::from_mode(0o755)).map_err(io_error("changing", target))?;
    for (name, mode) in FOLDERS {
        let path = target.join(name);
        fs::create_dir_all(&path).map_err(io_error("creating", &path))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).map_err(io_error("changing", &path))?;
    }
    for (name, content) in FILES {
        let path = target.join(name);
        fs::write(&path, content).map_err(io_error("writing", &path))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).map_err(io_error("changing", &path))?;
    }
    let mut bytes = place(&builtin.program, target, Path::new(&builtin.place))?;
    for library in &builtin.libraries {
        bytes += place(library, target, library)?;
        if library.file_name().is_some_and(|name| name.to_string_lossy().starts_with("ld-linux")) {
            // The name by which programs ask for the dynamic linker, whatever it leads to on this machine.
            let folder = if cfg!(target_arch = "x86_64") { "lib64" } else { "lib" };
            let linker = Path::new(folder).join(library.file_name().unwrap_or_default());
            bytes += place(library, target, &linker)?;
        }
    }
    let inodes = (FOLDERS.len() + FILES.len() + builtin.libraries.len() + 2) as u64;
    Ok(Unpacked { diff_id: diff_id.clone(), bytes, inodes })
}

/// Puts a file into the layer: linked if the file system is the same, else copied (by reference, where the file system can).
fn place(file: &Path, target: &Path, at: &Path) -> Result<u64> {
    let place = target.join(at.strip_prefix("/").unwrap_or(at));
    if place.exists() {
        return Ok(0);
    }
    if let Some(folder) = place.parent() {
        fs::create_dir_all(folder).map_err(io_error("creating", folder))?;
    }
    let file = fs::canonicalize(file).map_err(io_error("finding", file))?;
    if fs::hard_link(&file, &place).is_ok() {
        return Ok(0);
    }
    let bytes = fs::copy(&file, &place).map_err(io_error("copying", &file))?;
    fs::set_permissions(&place, fs::Permissions::from_mode(0o755)).map_err(io_error("changing", &place))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_found_in_the_maps() {
        let maps = "55d-55e r--p 00000000 fe:00 1    /usr/bin/tiphys\n\
            7f1-7f2 r--p 00000000 fe:00 2                          /usr/lib/x86_64-linux-gnu/libc.so.6\n\
            7f2-7f3 r-xp 00001000 fe:00 2                          /usr/lib/x86_64-linux-gnu/libc.so.6\n\
            7f4-7f5 r--p 00000000 fe:00 3                          /usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2\n\
            7ff-800 rw-p 00000000 00:00 0                          [stack]\n\
            801-802 rw-p 00000000 00:00 0 \n";
        let expected = ["/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2", "/usr/lib/x86_64-linux-gnu/libc.so.6"];
        assert_eq!(mapped_libraries(maps), expected.map(PathBuf::from));
    }
}
