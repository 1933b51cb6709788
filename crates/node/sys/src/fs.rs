//! Files: device nodes, and paths that must not leave a root.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};

/// Makes a device node; `kind` is b, c, u or p.
pub fn mknod(path: &Path, kind: char, major: u32, minor: u32, mode: u32) -> io::Result<()> {
    let kind = match kind {
        'b' => FileType::BlockDevice,
        'p' => FileType::Fifo,
        _ => FileType::CharacterDevice,
    };
    Ok(rustix::fs::mknodat(rustix::fs::CWD, path, kind, Mode::from_raw_mode(mode), rustix::fs::makedev(major, minor))?)
}

pub fn mkfifo(path: &Path, mode: u32) -> io::Result<()> {
    Ok(rustix::fs::mknodat(rustix::fs::CWD, path, FileType::Fifo, Mode::from_raw_mode(mode), 0)?)
}

/// What a device file is: (kind, major, minor).
pub fn device_of(path: &Path) -> io::Result<Option<(char, u32, u32)>> {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    let metadata = std::fs::metadata(path)?;
    let kind = match metadata.file_type() {
        kind if kind.is_char_device() => 'c',
        kind if kind.is_block_device() => 'b',
        _ => return Ok(None),
    };
    Ok(Some((kind, rustix::fs::major(metadata.rdev()), rustix::fs::minor(metadata.rdev()))))
}

pub fn open_path(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?)
}

pub fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Opens `path` as if `root` were `/`: links and `..` cannot lead outside (openat2, RESOLVE_IN_ROOT).
pub fn open_in_root(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    loop {
        match rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::IN_ROOT) {
            Ok(fd) => return Ok(fd),
            // The kernel saw a rename elsewhere on the machine while it walked `..`, and asks to try again.
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// O_PATH descriptor of something below a root.
pub fn resolve_in_root(root: BorrowedFd<'_>, path: &Path) -> io::Result<OwnedFd> {
    open_in_root(root, path, OFlags::PATH)
}

/// Reads a whole file below a root.
pub fn read_in_root(root: BorrowedFd<'_>, path: &Path) -> io::Result<Vec<u8>> {
    use std::io::Read;
    let mut file = std::fs::File::from(open_in_root(root, path, OFlags::RDONLY)?);
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Makes the folders of `path` that are missing below a root and returns the last one. Links are followed inside the root, and
/// what a dangling one points to is made too.
pub fn make_dirs_in_root(root: BorrowedFd<'_>, path: &Path, mode: u32) -> io::Result<OwnedFd> {
    Walk { root, mode }.make(path, false)
}

/// Makes an empty file below a root unless something is there, and returns an O_PATH descriptor of it.
pub fn make_file_in_root(root: BorrowedFd<'_>, path: &Path) -> io::Result<OwnedFd> {
    Walk { root, mode: 0o755 }.make(path, true)
}

/// A walk, component by component, that makes what is missing.
struct Walk<'a> {
    root: BorrowedFd<'a>,
    mode: u32,
}

impl Walk<'_> {
    /// The kernel's own limit on links in one path.
    const MAX_LINKS: usize = 40;

    fn make(&self, path: &Path, file: bool) -> io::Result<OwnedFd> {
        let mut todo: Vec<PathBuf> = parts(path);
        let (mut walked, mut links) = (PathBuf::from("/"), 0);
        while let Some(name) = todo.pop() {
            if name == Path::new("..") {
                walked.pop();
                continue;
            }
            let parent = resolve_in_root(self.root, &walked)?;
            let found = rustix::fs::openat(&parent, &name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty());
            match found {
                Ok(fd) if FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode) == FileType::Symlink => {
                    links += 1;
                    if links > Self::MAX_LINKS {
                        return Err(io::Error::from_raw_os_error(libc::ELOOP));
                    }
                    let target = rustix::fs::readlinkat(&parent, &name, Vec::new())?;
                    let target = PathBuf::from(std::ffi::OsString::from_vec(target.into_bytes()));
                    if target.is_absolute() {
                        walked = "/".into();
                    }
                    todo.extend(parts(&target));
                    continue;
                }
                Ok(_) => {}
                Err(rustix::io::Errno::NOENT) if file && todo.is_empty() => {
                    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                    drop(rustix::fs::openat(&parent, &name, flags, Mode::from_raw_mode(0o644))?);
                }
                Err(rustix::io::Errno::NOENT) => match rustix::fs::mkdirat(&parent, &name, Mode::from_raw_mode(self.mode)) {
                    Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                    Err(error) => return Err(error.into()),
                },
                Err(error) => return Err(error.into()),
            }
            walked.push(name);
        }
        resolve_in_root(self.root, &walked)
    }
}

/// The components that matter, the last one first.
fn parts(path: &Path) -> Vec<PathBuf> {
    let matters = |part: Component<'_>| match part {
        Component::Normal(name) => Some(PathBuf::from(name)),
        Component::ParentDir => Some(PathBuf::from("..")),
        _ => None,
    };
    path.components().rev().filter_map(matters).collect()
}

/// Kind (c or b), major and minor of a device behind a descriptor.
pub fn device_behind(fd: impl AsFd) -> io::Result<Option<(char, u32, u32)>> {
    let stat = rustix::fs::fstat(fd)?;
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::CharacterDevice => 'c',
        FileType::BlockDevice => 'b',
        _ => return Ok(None),
    };
    Ok(Some((kind, rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev))))
}

pub fn is_directory(fd: impl AsFd) -> io::Result<bool> {
    Ok(FileType::from_raw_mode(rustix::fs::fstat(fd)?.st_mode) == FileType::Directory)
}

/// Device and inode: whether two descriptors are the same file.
pub fn identity(fd: impl AsFd) -> io::Result<(u64, u64)> {
    let stat = rustix::fs::fstat(fd)?;
    Ok((stat.st_dev, stat.st_ino))
}

pub fn chown_fd(fd: impl AsFd, uid: u32, gid: u32) -> io::Result<()> {
    let (uid, gid) = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
    Ok(rustix::fs::chownat(fd, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH)?)
}

/// (total bytes, free bytes, available bytes, total inodes, free inodes) of the file system that holds `path`.
pub fn filesystem_space(path: &Path) -> io::Result<(u64, u64, u64, u64, u64)> {
    let stat = rustix::fs::statvfs(path)?;
    let block = stat.f_frsize;
    Ok((stat.f_blocks * block, stat.f_bfree * block, stat.f_bavail * block, stat.f_files, stat.f_ffree))
}

/// Bytes on disk and inodes below a folder, itself included. Hard links count once.
pub fn usage_below(folder: &Path) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt;
    let (mut bytes, mut seen) = (0, std::collections::HashSet::new());
    let mut open = vec![folder.to_owned()];
    while let Some(path) = open.pop() {
        let Ok(metadata) = std::fs::symlink_metadata(&path) else { continue };
        if seen.insert(metadata.ino()) {
            bytes += metadata.blocks() * 512;
        }
        if metadata.is_dir() {
            open.extend(std::fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()));
        }
    }
    (bytes, seen.len() as u64)
}

/// Whether the mount that holds `path` refuses writing.
pub fn is_readonly(path: &Path) -> io::Result<bool> {
    Ok(rustix::fs::statvfs(path)?.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_stay_inside_the_root() {
        let folder = std::env::temp_dir().join(format!("tiphys-sys-root-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("a")).unwrap();
        std::os::unix::fs::symlink("/../../a", folder.join("link")).unwrap();
        let root = open_directory(&folder).unwrap();
        let made = make_dirs_in_root(root.as_fd(), Path::new("/link/b/../c"), 0o755).unwrap();
        assert_eq!(identity(&made).unwrap(), identity(open_path(&folder.join("a/c")).unwrap()).unwrap());
        make_file_in_root(root.as_fd(), Path::new("/link/f")).unwrap();
        assert!(folder.join("a/f").is_file());
        // A dangling link leads to what is made for it, inside.
        std::os::unix::fs::symlink("../../run/x", folder.join("a/resolv")).unwrap();
        make_file_in_root(root.as_fd(), Path::new("/a/resolv")).unwrap();
        assert!(folder.join("run/x").is_file());
        std::os::unix::fs::symlink("/run/y", folder.join("dir")).unwrap();
        make_dirs_in_root(root.as_fd(), Path::new("/dir/z"), 0o755).unwrap();
        assert!(folder.join("run/y/z").is_dir());
        std::os::unix::fs::symlink("loop", folder.join("loop")).unwrap();
        assert!(make_dirs_in_root(root.as_fd(), Path::new("/loop/z"), 0o755).is_err());
        assert!(make_dirs_in_root(root.as_fd(), Path::new("/a/f/z"), 0o755).is_err());
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
