//! Which device files a container finds in /dev, and which devices its cgroup lets it use.

use std::io;
use std::path::Path;

use tiphys_cgroups::{Access, DeviceKind, DeviceRule};

use super::spec::DeviceNode;

/// The devices that every container has: (path, major, minor).
const DEFAULT: [(&str, u32, u32); 6] =
    [("/dev/null", 1, 3), ("/dev/zero", 1, 5), ("/dev/full", 1, 7), ("/dev/random", 1, 8), ("/dev/urandom", 1, 9), ("/dev/tty", 5, 0)];

pub fn default_nodes() -> Vec<DeviceNode> {
    let node = |(path, major, minor): &(&str, u32, u32)| DeviceNode {
        path: (*path).into(),
        kind: 'c',
        major: *major,
        minor: *minor,
        mode: 0o666,
        uid: 0,
        gid: 0,
    };
    DEFAULT.iter().map(node).collect()
}

/// The device behind a host path as a node at `path`.
pub fn host_node(host_path: &Path, path: &str) -> io::Result<DeviceNode> {
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::metadata(host_path)?;
    let (kind, major, minor) =
        tiphys_sys::fs::device_of(host_path)?.ok_or_else(|| io::Error::other(format!("{} is not a device node", host_path.display())))?;
    Ok(DeviceNode { path: path.into(), kind, major, minor, mode: metadata.mode() & 0o777, uid: metadata.uid(), gid: metadata.gid() })
}

/// Every device of the host, for privileged containers; terminals and memory belong to the container itself.
pub fn all_host_nodes() -> Vec<DeviceNode> {
    let mut found = Vec::new();
    collect(Path::new("/dev"), &mut found);
    found
}

fn collect(folder: &Path, found: &mut Vec<DeviceNode>) {
    const OWN: [&str; 6] = ["/dev/pts", "/dev/shm", "/dev/mqueue", "/dev/fd", "/dev/console", "/dev/ptmx"];
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let Ok(kind) = entry.file_type() else { continue };
        let Some(text) = path.to_str().filter(|text| !OWN.contains(text)) else { continue };
        if kind.is_dir() {
            collect(&path, found);
        } else if !kind.is_symlink() {
            found.extend(host_node(&path, text));
        }
    }
}

/// What the cgroup of an ordinary container allows: making any node, using the usual ones and those asked for.
pub fn rules(extra: &[(DeviceNode, String)]) -> Vec<DeviceRule> {
    let any = |kind| DeviceRule { kind, major: None, minor: None, access: Access::MKNOD };
    let mut rules = vec![any(DeviceKind::Char), any(DeviceKind::Block)];
    rules.extend(DEFAULT.iter().map(|(_, major, minor)| DeviceRule::char(*major, *minor)));
    // Pseudo terminals, their multiplexer, the console.
    rules.push(DeviceRule { kind: DeviceKind::Char, major: Some(136), minor: None, access: Access::ALL });
    rules.extend([DeviceRule::char(5, 2), DeviceRule::char(5, 1)]);
    rules.extend(extra.iter().map(|(node, permissions)| DeviceRule {
        kind: if node.kind == 'b' { DeviceKind::Block } else { DeviceKind::Char },
        major: Some(node.major),
        minor: Some(node.minor),
        access: if permissions.is_empty() { Access::ALL } else { Access::parse(permissions) },
    }));
    rules
}
