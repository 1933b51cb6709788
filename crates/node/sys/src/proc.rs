//! Reading /proc.

use std::io;
use std::path::{Path, PathBuf};

/// One line of mountinfo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountInfo {
    pub id: u32,
    pub parent: u32,
    /// The folder of the file system that is the root of this mount.
    pub root: String,
    pub mount_point: PathBuf,
    pub options: Vec<String>,
    /// Whether it shares its mounts with others.
    pub shared: bool,
    pub kind: String,
    pub source: String,
    pub super_options: Vec<String>,
}

pub fn mounts() -> io::Result<Vec<MountInfo>> {
    Ok(parse_mounts(&std::fs::read_to_string("/proc/self/mountinfo")?))
}

fn parse_mounts(text: &str) -> Vec<MountInfo> {
    text.lines().filter_map(parse_mount).collect()
}

fn parse_mount(line: &str) -> Option<MountInfo> {
    let (left, right) = line.split_once(" - ")?;
    let left: Vec<&str> = left.split(' ').collect();
    let mut right = right.split(' ');
    let list = |text: &str| text.split(',').map(str::to_owned).collect();
    Some(MountInfo {
        id: left.first()?.parse().ok()?,
        parent: left.get(1)?.parse().ok()?,
        root: unescape(left.get(3)?),
        mount_point: unescape(left.get(4)?).into(),
        options: list(left.get(5)?),
        shared: left.iter().skip(6).any(|field| field.starts_with("shared:")),
        kind: right.next()?.to_owned(),
        source: unescape(right.next()?),
        super_options: list(right.next().unwrap_or("")),
    })
}

/// Spaces, tabs, newlines and backslashes stand as octal numbers in mountinfo.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let octal = (first == b'\\' && tail.len() >= 3).then(|| std::str::from_utf8(&tail[..3]).ok()).flatten();
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            None => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The mount that holds `path`.
pub fn mount_of(path: &Path) -> io::Result<MountInfo> {
    let path = path.canonicalize()?;
    let best =
        mounts()?.into_iter().filter(|mount| path.starts_with(&mount.mount_point)).max_by_key(|mount| mount.mount_point.as_os_str().len());
    best.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
}

/// The cgroups of a process: (controllers, path); the v2 line has no controllers.
pub fn cgroups_of(pid: Option<i32>) -> io::Result<Vec<(Vec<String>, String)>> {
    let file = pid.map_or_else(|| "/proc/self/cgroup".to_owned(), |pid| format!("/proc/{pid}/cgroup"));
    Ok(std::fs::read_to_string(file)?
        .lines()
        .filter_map(|line| {
            let mut parts = line.splitn(3, ':');
            let controllers = parts.nth(1)?;
            let path = parts.next()?.to_owned();
            Some((controllers.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect(), path))
        })
        .collect())
}

/// The moment a process started, in clock ticks since boot: with the pid it names a process for good.
pub fn start_time(pid: i32) -> io::Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    parse_start_time(&stat).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

fn parse_start_time(stat: &str) -> Option<u64> {
    // The name may hold spaces and brackets; after the last bracket the fields are plain. Start time is field 22.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

/// Bytes and errors of each interface: (name, rx bytes, rx errors, tx bytes, tx errors). `pid` selects the network namespace.
pub fn network_counters(text: &str) -> Vec<(String, u64, u64, u64, u64)> {
    text.lines()
        .skip(2)
        .filter_map(|line| {
            let (name, rest) = line.split_once(':')?;
            let fields: Vec<u64> = rest.split_whitespace().filter_map(|field| field.parse().ok()).collect();
            Some((name.trim().to_owned(), *fields.first()?, *fields.get(2)?, *fields.get(8)?, *fields.get(10)?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo_lines() {
        let text = "36 35 98:0 /mnt1 /mnt/a\\040b rw,noatime master:1 shared:7 - ext3 /dev/root rw,errors=continue\n\
                    37 35 0:5 / /proc rw - proc proc rw\nbroken\n";
        let mounts = parse_mounts(text);
        assert_eq!(mounts.len(), 2);
        assert_eq!(mounts[0].mount_point, Path::new("/mnt/a b"));
        assert!(mounts[0].shared && !mounts[1].shared);
        assert_eq!((mounts[0].kind.as_str(), mounts[0].source.as_str()), ("ext3", "/dev/root"));
    }

    #[test]
    fn start_time_of_an_awkward_name() {
        let stat = "12 (a) b) S 1 12 12 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 777 0 0";
        assert_eq!(parse_start_time(stat), Some(777));
    }

    #[test]
    fn counters() {
        let text = "a\nb\n  eth0: 10 1 2 0 0 0 0 0 20 3 4 0 0 0 0 0\n";
        assert_eq!(network_counters(text), [("eth0".to_owned(), 10, 2, 20, 4)]);
    }
}
