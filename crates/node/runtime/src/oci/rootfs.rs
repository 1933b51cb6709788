//! The container's view of files: mounts below the new root, then the root itself.
//!
//! No path inside the container is ever walked from the host's root: targets are resolved by openat2 inside the new root,
//! and mounts are attached to descriptors. A link in an image cannot lead a mount outside.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use tiphys_sys::{fs, mount};

use super::init::{Step, doing, words};
use super::spec::{DeviceNode, Launch, Mount, MountKind, Propagation};
use super::userns;

/// Detached copies of mounts, or of devices; None where there is nothing to copy.
pub(super) type Sources = Vec<Option<OwnedFd>>;

/// Copies what is bound into the container; in a user namespace with owners as it sees them.
pub(super) fn copy_sources(launch: &Launch, users: Option<BorrowedFd<'_>>) -> Step<Sources> {
    launch.mounts.iter().map(|one| open_source(one, users)).collect()
}

/// Builds the view and makes it the root. The child is in a mount namespace of its own already.
pub(super) fn build(launch: &Launch) -> Step<()> {
    // Sources first, while shared mounts are still shared: a copy taken now stays in its group of peers.
    let sources = copy_sources(launch, None)?;
    doing("cannot make the mounts private", mount::set_propagation(Path::new("/"), mount::MS_PRIVATE | mount::MS_REC))?;
    let root = doing(format_args!("cannot open {}", launch.rootfs.display()), fs::open_directory(&launch.rootfs))?;
    let null = doing("cannot open /dev/null", fs::open_path(Path::new("/dev/null")))?;
    furnish(&root, launch, sources, None, &null)
}

/// The same in a user namespace, where the host's mounts are locked and its folders may be closed: the root is a detached copy.
pub(super) fn build_inside(launch: &Launch, root: OwnedFd, sources: Sources) -> Step<()> {
    doing("cannot make the mounts private", mount::set_propagation(Path::new("/"), mount::MS_PRIVATE | mount::MS_REC))?;
    let devices = userns::device_sources(&launch.devices);
    // Attached to be entered; where does not matter, for what is there is left behind.
    let place = doing("cannot open /dev", fs::open_directory(Path::new("/dev")))?;
    let null = doing("cannot open /dev/null", fs::open_path(Path::new("/dev/null")))?;
    doing("cannot attach the root", mount::move_mount(root.as_fd(), place.as_fd()))?;
    furnish(&root, launch, sources, Some(devices), &null)
}

/// `devices` are copies of the host's, where none can be made.
fn furnish(root: &OwnedFd, launch: &Launch, sources: Sources, devices: Option<Sources>, null: &OwnedFd) -> Step<()> {
    let nodes = Devices { nodes: &launch.devices, copies: devices };
    for (one, source) in launch.mounts.iter().zip(sources) {
        let mounted = attach(root.as_fd(), one, source, &nodes);
        mounted.map_err(|error| format!("error mounting {} to rootfs at {:?}: {}", describe(&one.kind), one.target, words(&error)))?;
    }
    for path in &launch.readonly_paths {
        doing(format_args!("cannot make {path} read-only"), cover_readonly(root.as_fd(), path))?;
    }
    for path in &launch.masked_paths {
        doing(format_args!("cannot mask {path}"), mask(root.as_fd(), path, null))?;
    }
    if !launch.process.cwd.is_empty() {
        make_working_directory(root.as_fd(), launch)?;
    }
    enter(root, launch.readonly_rootfs)
}

struct Devices<'a> {
    nodes: &'a [DeviceNode],
    copies: Option<Sources>,
}

fn describe(kind: &MountKind) -> String {
    match kind {
        MountKind::Bind { source, .. } => format!("{:?}", source.display().to_string()),
        MountKind::Proc => "\"proc\"".into(),
        MountKind::Sysfs { .. } => "\"sysfs\"".into(),
        MountKind::Tmpfs { .. } | MountKind::Devices => "\"tmpfs\"".into(),
        MountKind::Devpts => "\"devpts\"".into(),
        MountKind::Mqueue => "\"mqueue\"".into(),
        MountKind::Cgroup1 { .. } | MountKind::Cgroup2 { .. } => "\"cgroup\"".into(),
    }
}

fn open_source(one: &Mount, users: Option<BorrowedFd<'_>>) -> Step<Option<OwnedFd>> {
    let MountKind::Bind { source, idmap, .. } = &one.kind else { return Ok(None) };
    let failed = |what: &str, error: io::Error| {
        format!("error mounting {} to rootfs at {:?}: {what}: {}", describe(&one.kind), one.target, words(&error))
    };
    let tree = mount::open_tree(source, true).map_err(|error| failed("stat", error))?;
    if let Some(users) = users.filter(|_| *idmap) {
        mount::set_idmap(tree.as_fd(), users).map_err(|error| failed("failed to set MOUNT_ATTR_IDMAP", error))?;
    }
    Ok(Some(tree))
}

const NOTHING_SPECIAL: u64 = mount::MS_NOSUID | mount::MS_NODEV | mount::MS_NOEXEC;

fn attach(root: BorrowedFd<'_>, one: &Mount, source: Option<OwnedFd>, devices: &Devices<'_>) -> io::Result<()> {
    let target = Path::new(&one.target);
    match (&one.kind, source) {
        (MountKind::Bind { readonly, recursive_readonly, propagation, .. }, Some(tree)) => {
            bind(root, target, &tree, *readonly, *recursive_readonly, *propagation)
        }
        (MountKind::Bind { .. }, None) => Err(io::Error::from(io::ErrorKind::NotFound)),
        (MountKind::Proc, _) => new_mount(root, target, "proc", NOTHING_SPECIAL, ""),
        (MountKind::Sysfs { readonly }, _) => {
            new_mount(root, target, "sysfs", NOTHING_SPECIAL | if *readonly { mount::MS_RDONLY } else { 0 }, "")
        }
        (MountKind::Tmpfs { options, nosuid, nodev, noexec }, _) => {
            let flag = |on: &bool, flag| if *on { flag } else { 0 };
            let flags = flag(nosuid, mount::MS_NOSUID) | flag(nodev, mount::MS_NODEV) | flag(noexec, mount::MS_NOEXEC);
            new_mount(root, target, "tmpfs", flags, options)
        }
        (MountKind::Devices, _) => {
            new_mount(root, target, "tmpfs", mount::MS_NOSUID | mount::MS_STRICTATIME, "mode=755,size=65536k")?;
            fill_dev(root, target, devices)
        }
        (MountKind::Devpts, _) => {
            new_mount(root, target, "devpts", mount::MS_NOSUID | mount::MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5")
        }
        (MountKind::Mqueue, _) => new_mount(root, target, "mqueue", NOTHING_SPECIAL, ""),
        (MountKind::Cgroup2 { readonly }, _) => {
            new_mount(root, target, "cgroup2", NOTHING_SPECIAL | if *readonly { mount::MS_RDONLY } else { 0 }, "")
        }
        (MountKind::Cgroup1 { folders, readonly }, _) => cgroup1(root, target, folders, *readonly),
    }
}

/// Mounts a new file system at a folder below the root, made if missing.
fn new_mount(root: BorrowedFd<'_>, target: &Path, kind: &str, flags: u64, options: &str) -> io::Result<()> {
    let target = fs::make_dirs_in_root(root, target, 0o755)?;
    mount::mount(kind, &mount::fd_path(&target), kind, flags, options)
}

fn bind(
    root: BorrowedFd<'_>,
    target: &Path,
    tree: &OwnedFd,
    readonly: bool,
    recursive_readonly: bool,
    propagation: Propagation,
) -> io::Result<()> {
    if readonly {
        mount::set_attributes_at(tree.as_fd(), mount::ATTR_RDONLY, recursive_readonly)?;
    }
    let target = if fs::is_directory(tree)? { fs::make_dirs_in_root(root, target, 0o755)? } else { fs::make_file_in_root(root, target)? };
    mount::move_mount(tree.as_fd(), target.as_fd())?;
    let kind = match propagation {
        Propagation::Private => mount::MS_PRIVATE,
        Propagation::Slave => mount::MS_SLAVE,
        Propagation::Shared => mount::MS_SHARED,
    };
    mount::set_propagation(&mount::fd_path(tree), kind | mount::MS_REC)
}

fn fill_dev(root: BorrowedFd<'_>, dev: &Path, devices: &Devices<'_>) -> io::Result<()> {
    let folder = fs::resolve_in_root(root, dev)?;
    let base = mount::fd_path(&folder);
    for (link, to) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
    ] {
        std::os::unix::fs::symlink(to, base.join(link))?;
    }
    let Some(copies) = &devices.copies else { return devices.nodes.iter().try_for_each(|node| make_device(root, node)) };
    for (node, copy) in devices.nodes.iter().zip(copies) {
        let Some(copy) = copy else { continue };
        let target = fs::make_file_in_root(root, Path::new(&node.path))?;
        mount::move_mount(copy.as_fd(), target.as_fd())?;
    }
    Ok(())
}

fn make_device(root: BorrowedFd<'_>, node: &DeviceNode) -> io::Result<()> {
    let path = Path::new(&node.path);
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::from_raw_os_error(22));
    };
    let parent = fs::make_dirs_in_root(root, parent, 0o755)?;
    let path: PathBuf = mount::fd_path(&parent).join(name);
    match fs::mknod(&path, node.kind, node.major, node.minor, node.mode) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        other => other?,
    }
    std::os::unix::fs::lchown(&path, Some(node.uid), Some(node.gid))
}

/// A tmpfs with the container's own group of each hierarchy bound into it.
fn cgroup1(root: BorrowedFd<'_>, target: &Path, folders: &[(String, PathBuf)], readonly: bool) -> io::Result<()> {
    new_mount(root, target, "tmpfs", NOTHING_SPECIAL, "mode=755")?;
    for (name, folder) in folders {
        let tree = mount::open_tree(folder, false)?;
        bind(root, &target.join(name), &tree, readonly, false, Propagation::Private)?;
    }
    if !readonly {
        return Ok(());
    }
    let here = fs::resolve_in_root(root, target)?;
    mount::set_attributes_at(here.as_fd(), mount::ATTR_RDONLY, false)
}

fn cover_readonly(root: BorrowedFd<'_>, path: &str) -> io::Result<()> {
    let Some(target) = existing(root, path)? else { return Ok(()) };
    let tree = mount::open_tree(&mount::fd_path(&target), true)?;
    mount::set_attributes_at(tree.as_fd(), mount::ATTR_RDONLY, true)?;
    mount::move_mount(tree.as_fd(), target.as_fd())
}

/// Covers a file with /dev/null, a folder with an empty read-only one.
fn mask(root: BorrowedFd<'_>, path: &str, null: &OwnedFd) -> io::Result<()> {
    let Some(target) = existing(root, path)? else { return Ok(()) };
    if fs::is_directory(&target)? {
        return mount::mount("tmpfs", &mount::fd_path(&target), "tmpfs", mount::MS_RDONLY, "size=0k");
    }
    let tree = mount::open_tree(&mount::fd_path(null), false)?;
    mount::move_mount(tree.as_fd(), target.as_fd())
}

fn existing(root: BorrowedFd<'_>, path: &str) -> io::Result<Option<OwnedFd>> {
    match fs::resolve_in_root(root, Path::new(path)) {
        Ok(fd) => Ok(Some(fd)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error),
    }
}

fn make_working_directory(root: BorrowedFd<'_>, launch: &Launch) -> Step<()> {
    let made = fs::make_dirs_in_root(root, Path::new(&launch.process.cwd), 0o755);
    made.map(drop).map_err(|error| format!("mkdir {}: {}", launch.process.cwd, words(&error)))
}

/// Makes the folder behind the descriptor the root of everything this process sees.
fn enter(root: &OwnedFd, readonly: bool) -> Step<()> {
    if readonly {
        doing("cannot make the root read-only", mount::set_attributes_at(root.as_fd(), mount::ATTR_RDONLY, false))?;
    }
    doing("cannot enter the root", std::env::set_current_dir(mount::fd_path(root)))?;
    doing("cannot change the root", mount::pivot_into_current_directory())
}
