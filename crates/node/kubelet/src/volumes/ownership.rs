//! fsGroup: the group of a volume's files, and the bits that let it read (and write, where the volume can be written).

use super::payload::File;
use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::{PermissionsExt, lchown};
use std::path::Path;

const SET_GID: u32 = 0o2000;

fn bits(read_only: bool, folder: bool) -> u32 {
    let bits = if read_only { 0o440 } else { 0o660 };
    if folder { bits | 0o110 | SET_GID } else { bits }
}

fn one(path: &Path, group: i64, read_only: bool) -> io::Result<()> {
    let meta = std::fs::symlink_metadata(path)?;
    lchown(path, None, Some(group as u32))?;
    if meta.is_symlink() {
        return Ok(());
    }
    let mode = meta.permissions().mode() | bits(read_only, meta.is_dir());
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode & 0o7777))
}

/// The folder itself.
pub(crate) fn folder(path: &Path, group: Option<i64>, read_only: bool) -> io::Result<()> {
    group.map_or(Ok(()), |group| one(path, group, read_only))
}

/// Everything that was written.
pub(crate) fn tree(root: &Path, group: Option<i64>, read_only: bool, files: &BTreeMap<String, File>) -> io::Result<()> {
    let Some(group) = group else { return Ok(()) };
    one(root, group, read_only)?;
    for path in files.keys() {
        let mut at = root.to_path_buf();
        for part in Path::new(path).components() {
            at.push(part);
            one(&at, group, read_only)?;
        }
    }
    Ok(())
}
