//! A layer as an archive again, from its unpacked folder: for images whose archives were not kept, and for the built-in one, which never
//! had any. overlayfs' whiteouts become those of archives (OCI image spec, layer.md). Entries come in the order of their names, so the same
//! folder gives the same archive.
//!
//! Deliberately absent: extended attributes, such as file capabilities.

use std::collections::HashMap;
use std::fs::{self, File, Metadata};
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use tar::{Builder, EntryType, Header};

use crate::unpack::OPAQUE;

struct Packer<W: Write> {
    tar: Builder<W>,
    root: PathBuf,
    /// Files with several names: where the first one stands.
    linked: HashMap<(u64, u64), PathBuf>,
}

/// Writes everything below `folder`.
pub(crate) fn pack(folder: &Path, out: impl Write) -> io::Result<()> {
    let mut packer = Packer { tar: Builder::new(out), root: folder.to_owned(), linked: HashMap::new() };
    packer.folder(Path::new(""))?;
    packer.tar.finish()
}

fn header(metadata: &Metadata, kind: EntryType) -> Header {
    let mut header = Header::new_gnu();
    header.set_mode(metadata.mode() & 0o7777);
    header.set_uid(metadata.uid().into());
    header.set_gid(metadata.gid().into());
    header.set_mtime(u64::try_from(metadata.mtime()).unwrap_or(0));
    header.set_entry_type(kind);
    header.set_size(0);
    header
}

fn is_opaque(folder: &Path) -> bool {
    let mut value = [0; 1];
    rustix::fs::lgetxattr(folder, OPAQUE, &mut value).is_ok_and(|length| length == 1 && value == *b"y")
}

impl<W: Write> Packer<W> {
    fn folder(&mut self, inside: &Path) -> io::Result<()> {
        let mut names = fs::read_dir(self.root.join(inside))?.map(|e| Ok(e?.file_name())).collect::<io::Result<Vec<_>>>()?;
        names.sort();
        names.into_iter().try_for_each(|name| self.entry(&inside.join(name)))
    }

    fn entry(&mut self, path: &Path) -> io::Result<()> {
        let place = self.root.join(path);
        let metadata = fs::symlink_metadata(&place)?;
        let kind = metadata.file_type();
        if kind.is_dir() {
            self.tar.append_data(&mut header(&metadata, EntryType::Directory), path, io::empty())?;
            if is_opaque(&place) {
                self.empty(&metadata, &path.join(".wh..wh..opq"))?;
            }
            self.folder(path)
        } else if kind.is_symlink() {
            self.tar.append_link(&mut header(&metadata, EntryType::Symlink), path, fs::read_link(&place)?)
        } else if kind.is_char_device() && metadata.rdev() == 0 {
            let mut name = std::ffi::OsString::from(".wh.");
            name.push(path.file_name().unwrap_or_default());
            self.empty(&metadata, &path.with_file_name(name))
        } else if kind.is_file() {
            self.file(&metadata, path, &place)
        } else {
            self.device(&metadata, path)
        }
    }

    fn empty(&mut self, metadata: &Metadata, path: &Path) -> io::Result<()> {
        let mut header = header(metadata, EntryType::Regular);
        header.set_mode(0o600);
        self.tar.append_data(&mut header, path, io::empty())
    }

    fn file(&mut self, metadata: &Metadata, path: &Path, place: &Path) -> io::Result<()> {
        if metadata.nlink() > 1 {
            let inode = (metadata.dev(), metadata.ino());
            if let Some(first) = self.linked.get(&inode) {
                return self.tar.append_link(&mut header(metadata, EntryType::Link), path, first);
            }
            self.linked.insert(inode, path.to_owned());
        }
        let mut header = header(metadata, EntryType::Regular);
        header.set_size(metadata.len());
        self.tar.append_data(&mut header, path, File::open(place)?)
    }

    /// Devices and pipes; a socket cannot stand in an archive, and nobody misses one.
    fn device(&mut self, metadata: &Metadata, path: &Path) -> io::Result<()> {
        let kind = metadata.file_type();
        let entry = match () {
            () if kind.is_fifo() => EntryType::Fifo,
            () if kind.is_block_device() => EntryType::Block,
            () if kind.is_char_device() => EntryType::Char,
            () => return Ok(()),
        };
        let mut header = header(metadata, entry);
        header.set_device_major(rustix::fs::major(metadata.rdev()))?;
        header.set_device_minor(rustix::fs::minor(metadata.rdev()))?;
        self.tar.append_data(&mut header, path, io::empty())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_folder_becomes_an_archive_with_archives_whiteouts() {
        let folder = tempfile::tempdir().expect("folder");
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("b")).expect("made");
        fs::write(at("b/file"), "text").expect("written");
        fs::hard_link(at("b/file"), at("b/same")).expect("linked");
        symlink("file", at("b/link")).expect("linked");
        fs::write(at(&"n".repeat(150)), "long").expect("written");
        let mut bytes = Vec::new();
        pack(folder.path(), &mut bytes).expect("packed");
        let mut again = Vec::new();
        pack(folder.path(), &mut again).expect("packed");
        assert!(bytes == again, "the same folder gives the same archive");
        let mut archive = tar::Archive::new(&*bytes);
        let seen: Vec<(String, EntryType, String)> = archive
            .entries()
            .expect("entries")
            .map(|entry| {
                let mut entry = entry.expect("an entry");
                let name = entry.path().expect("a name").display().to_string();
                let link = entry.link_name().expect("a link").map(|l| l.display().to_string());
                let mut text = String::new();
                entry.read_to_string(&mut text).expect("text");
                (name, entry.header().entry_type(), link.unwrap_or(text))
            })
            .collect();
        let expected = [
            ("b", EntryType::Directory, ""),
            ("b/file", EntryType::Regular, "text"),
            ("b/link", EntryType::Symlink, "file"),
            ("b/same", EntryType::Link, "b/file"),
            (&"n".repeat(150), EntryType::Regular, "long"),
        ];
        assert_eq!(seen, expected.map(|(name, kind, text)| (name.to_owned(), kind, text.to_owned())));
    }
}
