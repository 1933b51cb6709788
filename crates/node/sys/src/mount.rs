//! Mounting: the classic calls, and the descriptor based ones where they are safer or can do more.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use crate::{c_path, c_str, check, check_long};

pub use libc::{
    MS_BIND, MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_PRIVATE, MS_RDONLY, MS_REC, MS_RELATIME, MS_REMOUNT, MS_SHARED, MS_SLAVE, MS_STRICTATIME,
};

/// mount(2). `source`, `kind` and `data` may be empty.
pub fn mount(source: &str, target: &Path, kind: &str, flags: u64, data: &str) -> io::Result<()> {
    let (source, kind, data) = (c_str(source)?, c_str(kind)?, c_str(data)?);
    let target = c_path(target)?;
    let optional = |text: &CString| if text.as_bytes().is_empty() { std::ptr::null() } else { text.as_ptr() };
    // SAFETY: all pointers are null or live C strings.
    check(unsafe { libc::mount(optional(&source), target.as_ptr(), optional(&kind), flags, optional(&data).cast()) }).map(drop)
}

/// Binds a file or folder somewhere else.
pub fn bind(source: &Path, target: &Path, recursive: bool) -> io::Result<()> {
    let (source, target) = (c_path(source)?, c_path(target)?);
    let flags = MS_BIND | if recursive { MS_REC } else { 0 };
    // SAFETY: both are live C strings; null kind and data are what MS_BIND expects.
    check(unsafe { libc::mount(source.as_ptr(), target.as_ptr(), std::ptr::null(), flags, std::ptr::null()) }).map(drop)
}

/// Changes how mounts propagate: MS_PRIVATE, MS_SLAVE, MS_SHARED, with or without MS_REC.
pub fn set_propagation(target: &Path, flags: u64) -> io::Result<()> {
    mount("", target, "", flags, "")
}

/// Detaches a mount, however busy it is. Succeeds when nothing is mounted there.
pub fn detach(target: &Path) -> io::Result<()> {
    let target = c_path(target)?;
    // SAFETY: target is a live C string.
    match check(unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH | libc::UMOUNT_NOFOLLOW) }) {
        Ok(_) => Ok(()),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOENT)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Makes the current directory's mount the root and drops the old root: pivot_root(".", ".").
pub fn pivot_into_current_directory() -> io::Result<()> {
    let dot = c".";
    // SAFETY: both arguments are live C strings.
    check_long(unsafe { libc::syscall(libc::SYS_pivot_root, dot.as_ptr(), dot.as_ptr()) })?;
    // SAFETY: as above. The old root now lies over the new one at "."; it goes, the new one stays.
    check(unsafe { libc::umount2(dot.as_ptr(), libc::MNT_DETACH) })?;
    std::env::set_current_dir("/")
}

/// The attributes of mount_setattr(2).
#[repr(C)]
#[derive(Default)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

pub const ATTR_RDONLY: u64 = 0x1;
pub const ATTR_NOSUID: u64 = 0x2;
pub const ATTR_NODEV: u64 = 0x4;
pub const ATTR_NOEXEC: u64 = 0x8;
const ATTR_IDMAP: u64 = 0x0010_0000;

fn mount_setattr(at: RawFd, path: &Path, flags: i32, attr: &MountAttr) -> io::Result<()> {
    let path = c_path(path)?;
    // SAFETY: path is a live C string, attr a live struct of the size given.
    check_long(unsafe {
        libc::syscall(libc::SYS_mount_setattr, at, path.as_ptr(), flags, std::ptr::from_ref(attr), size_of::<MountAttr>())
    })
    .map(drop)
}

/// Sets attributes on a mount, and on all below it when `recursive`. Unlike MS_REMOUNT it leaves the others alone.
pub fn set_attributes(target: &Path, attributes: u64, recursive: bool) -> io::Result<()> {
    let flags = if recursive { libc::AT_RECURSIVE } else { 0 };
    mount_setattr(libc::AT_FDCWD, target, flags, &MountAttr { attr_set: attributes, ..MountAttr::default() })
}

/// Sets attributes on a detached mount.
pub fn set_attributes_at(tree: BorrowedFd<'_>, attributes: u64, recursive: bool) -> io::Result<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    mount_setattr(tree.as_raw_fd(), Path::new(""), flags, &MountAttr { attr_set: attributes, ..MountAttr::default() })
}

/// Takes a detached mount, and all below it, out of its group of peers.
pub fn make_private_at(tree: BorrowedFd<'_>) -> io::Result<()> {
    let attr = MountAttr { propagation: MS_PRIVATE, ..MountAttr::default() };
    mount_setattr(tree.as_raw_fd(), Path::new(""), libc::AT_EMPTY_PATH | libc::AT_RECURSIVE, &attr)
}

/// Shows a detached mount's owners through the map of a user namespace.
pub fn set_idmap(tree: BorrowedFd<'_>, user_namespace: BorrowedFd<'_>) -> io::Result<()> {
    let attr = MountAttr { attr_set: ATTR_IDMAP, userns_fd: user_namespace.as_raw_fd() as u64, ..MountAttr::default() };
    mount_setattr(tree.as_raw_fd(), Path::new(""), libc::AT_EMPTY_PATH | libc::AT_RECURSIVE, &attr)
}

/// A detached copy of a mount, or of a file or folder in one.
pub fn open_tree(path: &Path, recursive: bool) -> io::Result<OwnedFd> {
    const OPEN_TREE_CLONE: i32 = 1;
    let path = c_path(path)?;
    let flags = OPEN_TREE_CLONE | libc::O_CLOEXEC | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: path is a live C string.
    let fd = check_long(unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) })?;
    // SAFETY: the descriptor is new and ours.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Attaches a detached mount at what `target` (opened with O_PATH) stands for: no path is walked a second time.
pub fn move_mount(tree: BorrowedFd<'_>, target: BorrowedFd<'_>) -> io::Result<()> {
    const MOVE_MOUNT_F_EMPTY_PATH: i32 = 4;
    const MOVE_MOUNT_T_EMPTY_PATH: i32 = 0x40;
    let empty = c"";
    // SAFETY: both paths are live C strings.
    check_long(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            empty.as_ptr(),
            target.as_raw_fd(),
            empty.as_ptr(),
            MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH,
        )
    })
    .map(drop)
}

/// Mounts an overlay; `lower` has the topmost layer first. Without `upper` (folder, work folder) it is read-only.
///
/// Nothing is synced to disk for it (`volatile`): what a container writes lives no longer than the container.
/// `index=off` lets layers be shared among mounts without a claim on them.
pub fn overlay(lower: &[PathBuf], upper: Option<(&Path, &Path)>, target: &Path) -> io::Result<()> {
    match overlay_by_descriptors(lower, upper, target) {
        // Before Linux 6.5 there is no `lowerdir+`.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => overlay_by_options(lower, upper, target),
        result => result,
    }
}

/// One call per layer: a single option string ends at one page.
fn overlay_by_descriptors(lower: &[PathBuf], upper: Option<(&Path, &Path)>, target: &Path) -> io::Result<()> {
    use rustix::mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen,
    };
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for layer in lower {
        fsconfig_set_string(&context, "lowerdir+", layer)?;
    }
    if let Some((upper, work)) = upper {
        fsconfig_set_string(&context, "upperdir", upper)?;
        fsconfig_set_string(&context, "workdir", work)?;
        fsconfig_set_string(&context, "index", "off")?;
        fsconfig_set_flag(&context, "volatile")?;
    }
    fsconfig_create(&context)?;
    let tree = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
    move_mount(tree.as_fd(), crate::fs::open_path(target)?.as_fd())
}

/// Layers by the numbers of descriptors, so that some two hundred fit into the page.
fn overlay_by_options(lower: &[PathBuf], upper: Option<(&Path, &Path)>, target: &Path) -> io::Result<()> {
    let open: Vec<OwnedFd> = lower.iter().map(|layer| crate::fs::open_path(layer)).collect::<io::Result<_>>()?;
    let names: Vec<String> = open.iter().map(|fd| fd_path(fd).to_string_lossy().into_owned()).collect();
    let mut options = format!("lowerdir={}", names.join(":"));
    let folders = upper.map(|(upper, work)| Ok::<_, io::Error>((crate::fs::open_path(upper)?, crate::fs::open_path(work)?))).transpose()?;
    if let Some((upper, work)) = &folders {
        options += &format!(",upperdir={},workdir={},index=off,volatile", fd_path(upper).display(), fd_path(work).display());
    }
    mount("overlay", target, "overlay", 0, &options)
}

/// Where an O_PATH descriptor can be named as a path, for the classic calls.
pub fn fd_path(fd: impl AsFd) -> PathBuf {
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both ways to say it mean the same. Needs root.
    #[test]
    fn overlays_of_new_and_old_kernels() {
        for (name, way) in
            [("new", overlay_by_descriptors as fn(&[PathBuf], Option<(&Path, &Path)>, &Path) -> _), ("old", overlay_by_options)]
        {
            let folder = std::env::temp_dir().join(format!("tiphys-sys-overlay-{name}-{}", std::process::id()));
            let [top, bottom, upper, work, target] = ["top:1", "bottom,2", "upper", "work", "target"].map(|part| folder.join(part));
            for part in [&top, &bottom, &upper, &work, &target] {
                std::fs::create_dir_all(part).unwrap();
            }
            std::fs::write(top.join("both"), "top").unwrap();
            std::fs::write(bottom.join("both"), "bottom").unwrap();
            std::fs::write(bottom.join("one"), "bottom").unwrap();
            way(&[top, bottom], Some((&upper, &work)), &target).unwrap();
            let read = |file: &str| std::fs::read_to_string(target.join(file)).unwrap();
            let found = (read("both"), read("one"));
            std::fs::write(target.join("new"), "").unwrap();
            detach(&target).unwrap();
            assert_eq!(found, ("top".to_owned(), "bottom".to_owned()));
            assert!(upper.join("new").exists());
            std::fs::remove_dir_all(&folder).unwrap();
        }
    }
}
