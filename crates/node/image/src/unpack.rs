//! Layers onto disk: tar streams, plain or compressed, into folders that overlayfs can stack.
//!
//! A layer is unpacked beside its parents, not over them: what the archive deletes becomes overlayfs' whiteouts. Where an entry leans on
//! the parents (a folder that the archive does not list, a hard link to a file below, a path through a symbolic link below) they are
//! consulted. No entry can reach outside: every step is taken from a folder's descriptor, one name at a time, links followed by us.
//!
//! Deliberately absent: user namespace shifting (idmapped mounts do that), whiteouts for other file systems.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, RawMode, ResolveFlags, Stat, Timespec, Timestamps, Uid, XattrFlags, chmodat, chownat, fchmod,
    fchown, fsetxattr, futimens, linkat, makedev, mkdirat, mknodat, openat, openat2, readlinkat, statat, symlinkat, utimensat,
};
use rustix::io::Errno;
use tar::{Archive, Entry, EntryType};

use crate::decompress::decompress;
use crate::digest::{Digest, Hashing};
use crate::error::{ImageError, Result, io_error};

pub(crate) const OPAQUE: &str = "trusted.overlay.opaque";
const WHITEOUT: &[u8] = b".wh.";
const OPAQUE_WHITEOUT: &[u8] = b".wh..wh..opq";
/// As many links as the kernel follows in one path.
const LINKS: usize = 40;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unpacked {
    pub(crate) diff_id: Digest,
    pub(crate) bytes: u64,
    pub(crate) inodes: u64,
}

/// Unpacks a layer into the empty folder `target`; `lowers` are the layers below, the uppermost first.
pub(crate) fn unpack(layer: impl Read + 'static, target: &Path, lowers: &[PathBuf]) -> Result<Unpacked> {
    let failed = |error: io::Error| ImageError::Io(format!("failed to extract layer: {error}"));
    let mut stream = Hashing::new(decompress(layer).map_err(failed)?);
    let mut unpacker = Unpacker::new(target, lowers)?;
    let mut archive = Archive::new(&mut stream);
    for entry in archive.entries().map_err(failed)? {
        let mut entry = entry.map_err(failed)?;
        let path = PathBuf::from(OsStr::from_bytes(&entry.path_bytes()));
        let named = |error: io::Error| ImageError::Io(format!("failed to extract layer: {}: {error}", path.display()));
        unpacker.entry(&mut entry, &path).map_err(named)?;
    }
    unpacker.finish().map_err(failed)?;
    // What follows the archive's end belongs to the digest too.
    io::copy(&mut stream, &mut io::sink()).map_err(failed)?;
    let (diff_id, _) = stream.finish();
    Ok(Unpacked { diff_id, bytes: unpacker.bytes, inodes: unpacker.inodes })
}

/// A folder of the layer by its path without links, and its descriptor.
struct Folder {
    /// As the archive named it.
    asked: PathBuf,
    path: PathBuf,
    fd: OwnedFd,
}

struct Unpacker {
    root: OwnedFd,
    lowers: Vec<OwnedFd>,
    /// The folder of the last entry: archives go folder by folder.
    last: Option<Folder>,
    /// Folders get their times last, since filling them changes those.
    times: Vec<(PathBuf, Timestamps)>,
    bytes: u64,
    inodes: u64,
}

/// Owner, permissions, times and attributes of an entry.
struct Metadata {
    uid: Uid,
    gid: Gid,
    mode: Mode,
    times: Timestamps,
    xattrs: Vec<(OsString, Vec<u8>)>,
}

enum Found {
    Folder,
    Link(PathBuf),
    Whiteout,
    Other,
}

fn open_folder(path: &Path) -> Result<OwnedFd> {
    tiphys_sys::fs::open_directory(path).map_err(io_error("opening", path))
}

/// What stands at a path of a layer; no link is followed on the way.
fn look(layer: impl AsFd, path: &Path) -> io::Result<Option<(Found, Stat)>> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let fd = match openat2(layer, path, flags, Mode::empty(), resolve) {
        Ok(fd) => fd,
        // Anything that is no folder on the way means that nothing is there.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::XDEV | Errno::LOOP) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let stat = rustix::fs::fstat(&fd)?;
    let found = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Found::Folder,
        FileType::Symlink => Found::Link(PathBuf::from(OsString::from_vec(readlinkat(&fd, "", Vec::new())?.into_bytes()))),
        FileType::CharacterDevice if stat.st_rdev == 0 => Found::Whiteout,
        _ => Found::Other,
    };
    Ok(Some((found, stat)))
}

fn names(path: &Path) -> impl DoubleEndedIterator<Item = OsString> + '_ {
    path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    })
}

/// The entry's path inside the layer, `..` taken back without leaving the root.
fn normalised(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => drop(clean.pop()),
            _ => {}
        }
    }
    clean
}

impl Unpacker {
    fn new(target: &Path, lowers: &[PathBuf]) -> Result<Self> {
        let root = open_folder(target)?;
        let lowers = lowers.iter().map(|lower| open_folder(lower)).collect::<Result<Vec<_>>>()?;
        let unpacker = Unpacker { root, lowers, last: None, times: Vec::new(), bytes: 0, inodes: 1 };
        unpacker.inherit_root().map_err(io_error("preparing", target))?;
        Ok(unpacker)
    }

    /// The layer's own root is the parent's unless the archive says otherwise.
    fn inherit_root(&self) -> io::Result<()> {
        match self.lowers.first() {
            Some(lower) => copy_metadata(&rustix::fs::fstat(lower)?, &self.root),
            None => Ok(fchmod(&self.root, Mode::from_raw_mode(0o755))?),
        }
    }

    fn entry(&mut self, entry: &mut Entry<'_, impl Read>, path: &Path) -> io::Result<()> {
        let kind = entry.header().entry_type();
        if matches!(kind, EntryType::XGlobalHeader) {
            return Ok(());
        }
        let path = normalised(path);
        let Some(name) = path.file_name() else { return self.root_entry(entry) };
        let folder = self.folder(path.parent().unwrap_or(Path::new("")))?;
        if name.as_bytes().starts_with(WHITEOUT) {
            let done = whiteout(&folder, name);
            self.last = Some(folder);
            return done;
        }
        let metadata = Metadata::of(entry)?;
        let done = match kind {
            EntryType::Directory => self.make_folder(&folder, name, &metadata),
            EntryType::Symlink => self.make_symlink(&folder, name, entry, &metadata),
            EntryType::Link => self.make_hard_link(&folder, name, entry),
            EntryType::Char | EntryType::Block | EntryType::Fifo => self.make_device(&folder, name, entry, &metadata),
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => self.make_file(&folder, name, entry, &metadata),
            other => {
                Err(io::Error::new(io::ErrorKind::Unsupported, format!("unhandled tar header type {:?}", char::from(other.as_byte()))))
            }
        };
        // A link may have taken the place of a folder that is remembered.
        self.last = (!matches!(kind, EntryType::Symlink)).then_some(folder);
        done
    }

    fn root_entry(&mut self, entry: &mut Entry<'_, impl Read>) -> io::Result<()> {
        let metadata = Metadata::of(entry)?;
        metadata.apply(&self.root)?;
        self.times.push((PathBuf::from("."), metadata.times));
        Ok(())
    }

    /// The folder that `asked` means in the stack of layers; made here if it is not, as it is below.
    fn folder(&mut self, asked: &Path) -> io::Result<Folder> {
        if let Some(last) = self.last.take_if(|last| last.asked == asked) {
            return Ok(last);
        }
        let mut at = PathBuf::new();
        let mut rest: VecDeque<OsString> = names(asked).collect();
        let mut links = 0;
        while let Some(name) = rest.pop_front() {
            if name == ".." {
                at.pop();
                continue;
            }
            let next = at.join(&name);
            let Some(target) = self.enter(&next)? else {
                at = next;
                continue;
            };
            links += 1;
            if links > LINKS {
                return Err(Errno::LOOP.into());
            }
            if target.is_absolute() {
                at.clear();
            }
            names(&target).rev().for_each(|name| rest.push_front(name));
        }
        let here = if at.as_os_str().is_empty() { Path::new(".") } else { &at };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = openat2(&self.root, here, flags, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS)?;
        Ok(Folder { asked: asked.to_owned(), path: at, fd })
    }

    /// Makes sure that there is a folder at `path`, whose parent is one; or says where a link there leads.
    fn enter(&mut self, path: &Path) -> io::Result<Option<PathBuf>> {
        match look(&self.root, path)? {
            Some((Found::Folder, _)) => return Ok(None),
            Some((Found::Link(target), _)) => return Ok(Some(target)),
            Some((Found::Whiteout, _)) => {
                rustix::fs::unlinkat(&self.root, path, AtFlags::empty())?;
                mkdirat(&self.root, path, Mode::from_raw_mode(0o755))?;
                self.inodes += 1;
                return make_opaque(&self.root, path).map(|()| None);
            }
            Some((Found::Other, _)) => rustix::fs::unlinkat(&self.root, path, AtFlags::empty())?,
            None => {}
        }
        let below = self.below(path)?;
        if let Some((Found::Link(target), _)) = below {
            return Ok(Some(target));
        }
        mkdirat(&self.root, path, Mode::from_raw_mode(0o755))?;
        self.inodes += 1;
        chmodat(&self.root, path, Mode::from_raw_mode(0o755), AtFlags::empty())?;
        if let Some((Found::Folder, stat)) = below {
            copy_metadata(&stat, open_beneath(&self.root, path)?)?;
            self.times.push((path.to_owned(), times_of(&stat)));
        }
        Ok(None)
    }

    /// What the uppermost of the layers below has at `path`.
    fn below(&self, path: &Path) -> io::Result<Option<(Found, Stat)>> {
        for lower in &self.lowers {
            match look(lower, path)? {
                Some((Found::Whiteout, _)) => return Ok(None),
                Some(found) => return Ok(Some(found)),
                None => {}
            }
        }
        Ok(None)
    }

    fn make_folder(&mut self, parent: &Folder, name: &OsStr, metadata: &Metadata) -> io::Result<()> {
        let path = parent.path.join(name);
        let mut opaque = false;
        match look(&parent.fd, Path::new(name))? {
            Some((Found::Folder, _)) => {}
            before => {
                opaque = matches!(before, Some((Found::Whiteout, _)));
                clear(parent, name)?;
                mkdirat(&parent.fd, name, Mode::from_raw_mode(0o755))?;
                self.inodes += 1;
            }
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat(&parent.fd, name, flags, Mode::empty())?;
        metadata.apply(&fd)?;
        self.times.push((path, metadata.times.clone()));
        if opaque { Ok(fsetxattr(&fd, OPAQUE, b"y", XattrFlags::empty())?) } else { Ok(()) }
    }

    fn make_file(&mut self, parent: &Folder, name: &OsStr, content: &mut impl Read, metadata: &Metadata) -> io::Result<()> {
        clear(parent, name)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(openat(&parent.fd, name, flags, Mode::from_raw_mode(0o600))?);
        let bytes = io::copy(content, &mut file)?;
        self.count(bytes);
        metadata.apply(&file)?;
        Ok(futimens(&file, &metadata.times)?)
    }

    fn count(&mut self, bytes: u64) {
        self.inodes += 1;
        self.bytes += bytes.next_multiple_of(4096);
    }

    fn make_symlink(&mut self, parent: &Folder, name: &OsStr, entry: &Entry<'_, impl Read>, metadata: &Metadata) -> io::Result<()> {
        clear(parent, name)?;
        symlinkat(link_target(entry)?, &parent.fd, name)?;
        self.count(0);
        metadata.apply_at(parent, name, false)
    }

    /// A target that only the layers below have is copied up first, as overlayfs would.
    fn make_hard_link(&mut self, parent: &Folder, name: &OsStr, entry: &Entry<'_, impl Read>) -> io::Result<()> {
        let target = normalised(&link_target(entry)?);
        let missing = || io::Error::new(io::ErrorKind::NotFound, format!("hard link to {}, which is not there", target.display()));
        let target_name = target.file_name().ok_or_else(missing)?;
        let folder = self.folder(target.parent().unwrap_or(Path::new("")))?;
        if folder.path == parent.path && target_name == name {
            return Ok(());
        }
        if !matches!(look(&folder.fd, Path::new(target_name))?, Some((Found::Other | Found::Link(_), _))) {
            self.copy_up(&folder, target_name)?.ok_or_else(missing)?;
        }
        clear(parent, name)?;
        Ok(linkat(&folder.fd, target_name, &parent.fd, name, AtFlags::empty())?)
    }

    fn copy_up(&mut self, folder: &Folder, name: &OsStr) -> io::Result<Option<()>> {
        let path = folder.path.join(name);
        let Some((Found::Other, stat)) = self.below(&path)? else { return Ok(None) };
        let mut from = None;
        for lower in &self.lowers {
            if look(lower, &path)?.is_some() {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                from = Some(File::from(openat2(lower, &path, flags, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS)?));
                break;
            }
        }
        let Some(mut from) = from else { return Ok(None) };
        let metadata = Metadata {
            uid: Uid::from_raw(stat.st_uid),
            gid: Gid::from_raw(stat.st_gid),
            mode: Mode::from_raw_mode(stat.st_mode & 0o7777),
            times: times_of(&stat),
            xattrs: Vec::new(),
        };
        self.make_file(folder, name, &mut from, &metadata).map(Some)
    }

    fn make_device(&mut self, parent: &Folder, name: &OsStr, entry: &Entry<'_, impl Read>, metadata: &Metadata) -> io::Result<()> {
        clear(parent, name)?;
        let header = entry.header();
        let kind = match header.entry_type() {
            EntryType::Char => FileType::CharacterDevice,
            EntryType::Block => FileType::BlockDevice,
            _ => FileType::Fifo,
        };
        let (major, minor) = (header.device_major().ok().flatten().unwrap_or(0), header.device_minor().ok().flatten().unwrap_or(0));
        let device = if kind == FileType::Fifo { 0 } else { makedev(major, minor) };
        mknodat(&parent.fd, name, kind, metadata.mode, device)?;
        self.count(0);
        metadata.apply_at(parent, name, true)
    }

    fn finish(&mut self) -> io::Result<()> {
        // Inner folders come after their parents, so that setting in reverse ends with the outer ones.
        for (path, times) in self.times.drain(..).rev() {
            if matches!(look(&self.root, &path)?, Some((Found::Folder, _))) {
                futimens(open_beneath(&self.root, &path)?, &times)?;
            }
        }
        Ok(())
    }
}

fn open_beneath(root: impl AsFd, path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(openat2(root, path, flags, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS)?)
}

fn link_target(entry: &Entry<'_, impl Read>) -> io::Result<PathBuf> {
    let target = entry.link_name_bytes().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a link without a target"))?;
    Ok(PathBuf::from(OsStr::from_bytes(&target)))
}

fn make_opaque(root: impl AsFd, path: &Path) -> io::Result<()> {
    Ok(fsetxattr(open_beneath(root, path)?, OPAQUE, b"y", XattrFlags::empty())?)
}

/// `.wh.NAME` hides NAME of the layers below; `.wh..wh..opq` all that they have in this folder. What this layer has itself stays.
fn whiteout(folder: &Folder, name: &OsStr) -> io::Result<()> {
    if name.as_bytes() == OPAQUE_WHITEOUT {
        return Ok(fsetxattr(&folder.fd, OPAQUE, b"y", XattrFlags::empty())?);
    }
    let hidden = OsStr::from_bytes(&name.as_bytes()[WHITEOUT.len()..]);
    if hidden.is_empty() || hidden == "." || hidden == ".." || hidden.as_bytes().starts_with(WHITEOUT) {
        // aufs' own bookkeeping (`.wh..wh.plnk`), which says nothing about files.
        return Ok(());
    }
    match look(&folder.fd, Path::new(hidden))? {
        Some((Found::Folder, _)) => make_opaque(&folder.fd, Path::new(hidden)),
        Some(_) => Ok(()),
        None => Ok(mknodat(&folder.fd, hidden, FileType::CharacterDevice, Mode::empty(), makedev(0, 0))?),
    }
}

/// Makes room for an entry; later entries of an archive replace earlier ones.
fn clear(folder: &Folder, name: &OsStr) -> io::Result<()> {
    match statat(&folder.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
            std::fs::remove_dir_all(tiphys_sys::mount::fd_path(&folder.fd).join(name))
        }
        Ok(_) => Ok(rustix::fs::unlinkat(&folder.fd, name, AtFlags::empty())?),
    }
}

fn times_of(stat: &Stat) -> Timestamps {
    let at = |seconds, nanos| Timespec { tv_sec: seconds, tv_nsec: nanos };
    Timestamps { last_access: at(stat.st_atime, stat.st_atime_nsec as _), last_modification: at(stat.st_mtime, stat.st_mtime_nsec as _) }
}

fn copy_metadata(stat: &Stat, to: impl AsFd) -> io::Result<()> {
    fchown(&to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    Ok(fchmod(&to, Mode::from_raw_mode(stat.st_mode & 0o7777))?)
}

impl Metadata {
    fn of(entry: &mut Entry<'_, impl Read>) -> io::Result<Self> {
        let header = entry.header();
        let owner =
            |id: u64| u32::try_from(id).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, format!("owner {id} is out of range")));
        let old = header.as_old();
        let uid = Uid::from_raw(owner(or_blank(header.uid(), &old.uid)?)?);
        let gid = Gid::from_raw(owner(or_blank(header.gid(), &old.gid)?)?);
        let mode = Mode::from_raw_mode(or_blank(header.mode(), &old.mode)? as RawMode & 0o7777);
        let mut modified = Timespec { tv_sec: or_blank(header.mtime(), &old.mtime)? as i64, tv_nsec: 0 };
        let mut xattrs = Vec::new();
        for extension in entry.pax_extensions()?.into_iter().flatten() {
            let extension = extension?;
            match extension.key_bytes() {
                b"mtime" => modified = extension.value().ok().and_then(pax_time).unwrap_or(modified),
                key => {
                    // An archive must not steer the overlay itself.
                    let name = key.strip_prefix(b"SCHILY.xattr.").filter(|name| !name.starts_with(b"trusted.overlay."));
                    xattrs.extend(name.map(|name| (OsStr::from_bytes(name).to_owned(), extension.value_bytes().to_vec())));
                }
            }
        }
        Ok(Metadata { uid, gid, mode, times: Timestamps { last_access: modified, last_modification: modified }, xattrs })
    }

    /// Everything but the times. The owner comes first, for changing it clears set-user-id bits and file capabilities.
    fn apply(&self, fd: impl AsFd) -> io::Result<()> {
        fchown(&fd, Some(self.uid), Some(self.gid))?;
        fchmod(&fd, self.mode)?;
        for (name, value) in &self.xattrs {
            match fsetxattr(&fd, name.as_os_str(), value, XattrFlags::empty()) {
                // The file system does not know it, as containerd lets pass too.
                Ok(()) | Err(Errno::OPNOTSUPP) => {}
                Err(error) => return Err(io::Error::new(io::Error::from(error).kind(), format!("attribute {}: {error}", name.display()))),
            }
        }
        Ok(())
    }

    /// For what cannot be opened: links and devices.
    fn apply_at(&self, parent: &Folder, name: &OsStr, mode: bool) -> io::Result<()> {
        chownat(&parent.fd, name, Some(self.uid), Some(self.gid), AtFlags::SYMLINK_NOFOLLOW)?;
        if mode {
            chmodat(&parent.fd, name, self.mode, AtFlags::empty())?;
        }
        Ok(utimensat(&parent.fd, name, &self.times, AtFlags::SYMLINK_NOFOLLOW)?)
    }
}

/// A field that was left blank is zero, as Go's reader has it.
fn or_blank<T: Default>(read: io::Result<T>, field: &[u8]) -> io::Result<T> {
    if field.iter().all(|byte| matches!(byte, 0 | b' ')) { Ok(T::default()) } else { read }
}

/// Seconds with a fraction, as PAX headers have them.
fn pax_time(text: &str) -> Option<Timespec> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    Some(Timespec { tv_sec: seconds.parse().ok()?, tv_nsec: digits.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{FileTypeExt, MetadataExt};

    /// An entry: kind, path, link target or content.
    type Line<'a> = (EntryType, &'a str, &'a str);

    const DIR: EntryType = EntryType::Directory;
    const FILE: EntryType = EntryType::Regular;
    const SYM: EntryType = EntryType::Symlink;
    const LINK: EntryType = EntryType::Link;

    fn archive(lines: &[Line<'_>]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (kind, path, text) in lines {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_mode(if *kind == DIR { 0o711 } else { 0o4750 });
            header.set_uid(1000);
            header.set_gid(2000);
            header.set_mtime(1_000_000_000);
            // Paths as they are: the builder's own setter refuses what a hostile archive has.
            header.as_gnu_mut().expect("a GNU header").name[..path.len()].copy_from_slice(path.as_bytes());
            let content = if *kind == FILE { text.as_bytes() } else { b"" };
            if matches!(*kind, SYM | LINK) {
                header.as_gnu_mut().expect("a GNU header").linkname[..text.len()].copy_from_slice(text.as_bytes());
            }
            header.set_size(content.len() as u64);
            header.set_cksum();
            builder.append(&header, content).expect("appended");
        }
        builder.into_inner().expect("finished")
    }

    struct Stack {
        dir: tempfile::TempDir,
        layers: Vec<PathBuf>,
    }

    impl Stack {
        fn new() -> Self {
            Stack { dir: tempfile::tempdir().expect("a folder"), layers: Vec::new() }
        }

        fn add(&mut self, lines: &[Line<'_>]) -> Result<PathBuf> {
            let target = self.dir.path().join(format!("layer{}", fs::read_dir(self.dir.path()).expect("a folder").count()));
            fs::create_dir(&target).expect("a folder");
            let bytes = archive(lines);
            let expected = Digest::of(&bytes);
            let unpacked = unpack(io::Cursor::new(bytes), &target, &self.layers)?;
            assert_eq!(unpacked.diff_id, expected);
            self.layers.insert(0, target.clone());
            Ok(target)
        }
    }

    fn is_whiteout(path: &Path) -> bool {
        fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_char_device() && found.rdev() == 0)
    }

    fn is_opaque(path: &Path) -> bool {
        let mut value = [0u8; 8];
        rustix::fs::getxattr(path, OPAQUE, &mut value).is_ok_and(|length| &value[..length] == b"y")
    }

    #[test]
    fn entries_get_all_their_metadata() {
        let mut stack = Stack::new();
        let root = stack
            .add(&[
                (DIR, "./", ""),
                (DIR, "d/", ""),
                (FILE, "d/f", "hello"),
                (SYM, "d/s", "/nowhere"),
                (LINK, "d/l", "d/f"),
                (EntryType::Fifo, "p", ""),
            ])
            .expect("unpacked");
        let file = fs::metadata(root.join("d/f")).expect("a file");
        assert_eq!((file.uid(), file.gid(), file.mode() & 0o7777, file.mtime(), file.nlink()), (1000, 2000, 0o4750, 1_000_000_000, 2));
        let folder = fs::metadata(root.join("d")).expect("a folder");
        assert_eq!((folder.uid(), folder.mode() & 0o7777, folder.mtime()), (1000, 0o711, 1_000_000_000));
        let link = fs::symlink_metadata(root.join("d/s")).expect("a link");
        assert_eq!((link.uid(), link.mtime()), (1000, 1_000_000_000));
        assert_eq!(fs::metadata(&root).expect("the root").mode() & 0o7777, 0o711);
        assert!(fs::symlink_metadata(root.join("p")).expect("a pipe").file_type().is_fifo());
        assert_eq!(fs::read(root.join("d/l")).expect("readable"), b"hello");
    }

    #[test]
    fn whiteouts_become_overlayfs_own() {
        let mut stack = Stack::new();
        stack.add(&[(FILE, "a", "1"), (DIR, "d/", ""), (FILE, "d/x", "1"), (DIR, "e/", "")]).expect("unpacked");
        let top = stack
            .add(&[
                (FILE, ".wh.a", ""),
                (FILE, "d/.wh..wh..opq", ""),
                (FILE, "d/y", "2"),
                (FILE, ".wh.e", ""),
                (DIR, "e/", ""),
                (FILE, "kept", ""),
                (FILE, ".wh.kept", ""),
            ])
            .expect("unpacked");
        assert!(is_whiteout(&top.join("a")));
        assert!(is_opaque(&top.join("d")) && top.join("d/y").is_file());
        assert!(top.join("e").is_dir() && is_opaque(&top.join("e")), "deleted and made again: nothing of the old one shows");
        assert!(top.join("kept").is_file(), "a whiteout hides what is below only");
        assert!(!top.join("d/.wh..wh..opq").exists());
    }

    #[test]
    fn entries_lean_on_the_layers_below() {
        let mut stack = Stack::new();
        stack.add(&[(DIR, "usr/", ""), (DIR, "usr/bin/", ""), (SYM, "bin", "usr/bin"), (FILE, "usr/bin/tool", "tool")]).expect("unpacked");
        let top = stack.add(&[(FILE, "bin/new", "new"), (LINK, "usr/bin/same", "bin/tool")]).expect("unpacked");
        assert!(!top.join("bin").exists(), "the link below stays a link");
        assert_eq!(fs::read(top.join("usr/bin/new")).expect("readable"), b"new");
        let folder = fs::metadata(top.join("usr/bin")).expect("a folder");
        assert_eq!((folder.uid(), folder.mode() & 0o7777, folder.mtime()), (1000, 0o711, 1_000_000_000), "as below");
        let same = fs::metadata(top.join("usr/bin/same")).expect("a file");
        assert_eq!((same.nlink(), same.mode() & 0o7777), (2, 0o4750), "copied up, then linked");
    }

    #[test]
    fn later_entries_replace_earlier_ones() {
        let mut stack = Stack::new();
        let top = stack
            .add(&[(DIR, "x/", ""), (FILE, "x/y", "1"), (FILE, "x", "2"), (FILE, "z", "3"), (FILE, "z/inner", "4")])
            .expect("unpacked");
        assert_eq!(fs::read(top.join("x")).expect("readable"), b"2");
        assert_eq!(fs::read(top.join("z/inner")).expect("readable"), b"4");
    }

    #[test]
    fn nothing_leaves_the_layer() {
        let mut stack = Stack::new();
        let outside = stack.dir.path().join("outside");
        fs::create_dir(&outside).expect("a folder");
        fs::write(outside.join("secret"), "secret").expect("a file");
        let absolute = outside.to_string_lossy().into_owned();
        let through = format!("abs/{}", "evil");
        let top = stack
            .add(&[
                (FILE, "../../outside/a", ""),
                (FILE, "/outside/b", ""),
                (SYM, "rel", "../outside"),
                (FILE, "rel/c", ""),
                (SYM, "abs", &absolute),
                (FILE, &through, ""),
                (SYM, "loop", "loop2/x"),
            ])
            .expect("unpacked");
        let listed: Vec<_> = fs::read_dir(&outside).expect("a folder").map(|entry| entry.expect("an entry").file_name()).collect();
        assert_eq!(listed, ["secret"]);
        for inside in ["outside/a", "outside/b", "outside/c"] {
            assert!(top.join(inside).is_file(), "{inside}");
        }
        assert!(top.join(absolute.trim_start_matches('/')).join("evil").is_file(), "an absolute link starts at the layer's root");
        let secret = format!("../..{absolute}/secret");
        let error = stack.add(&[(LINK, "stolen", &secret)]).expect_err("no such file in the layer").to_string();
        assert!(error.contains("which is not there"), "{error}");
        let looped = stack.add(&[(SYM, "l1", "l2"), (SYM, "l2", "l1"), (FILE, "l1/x", "")]).expect_err("a loop").to_string();
        assert!(looped.contains("symbolic links"), "{looped}");
    }
}
