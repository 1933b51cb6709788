//! `tiphys doctor`: what this machine lacks or has that would hurt a cluster; each finding names its cause and the exact cure.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::path::Path;
use std::time::Instant;

use serde::Serialize;

use crate::cluster::Cluster;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Ok,
    Warning,
    Error,
}

#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    pub what: String,
    pub level: Level,
    pub detail: String,
    /// What to do; empty where nothing is wrong.
    pub cure: String,
}

fn ok(what: &str, detail: impl Into<String>) -> Finding {
    Finding { what: what.into(), level: Level::Ok, detail: detail.into(), cure: String::new() }
}

fn bad(what: &str, level: Level, detail: impl Into<String>, cure: impl Into<String>) -> Finding {
    Finding { what: what.into(), level, detail: detail.into(), cure: cure.into() }
}

/// All findings, for a machine and, where one is given, for a cluster that is about to start.
pub fn examine(data_dir: &Path, cluster: Option<&Cluster>) -> Vec<Finding> {
    let mut findings = vec![
        user(),
        capabilities(),
        kernel(),
        cgroups(),
        filesystem("overlay"),
        namespaces(),
        descriptors(),
        inotify(),
        space(data_dir),
        sync(data_dir),
    ];
    if let Some(cluster) = cluster {
        findings.push(port(cluster));
    }
    findings
}

fn user() -> Finding {
    if rustix::process::geteuid().is_root() {
        ok("user", "root")
    } else {
        bad("user", Level::Error, "not root, which namespaces, mounts and nftables need", "run it with sudo")
    }
}

fn capabilities() -> Finding {
    const NEEDED: [(&str, u32); 7] = [
        ("CAP_SYS_ADMIN", 21),
        ("CAP_NET_ADMIN", 12),
        ("CAP_SYS_CHROOT", 18),
        ("CAP_MKNOD", 27),
        ("CAP_SETUID", 7),
        ("CAP_SETGID", 6),
        ("CAP_DAC_OVERRIDE", 1),
    ];
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective =
        status.lines().find_map(|l| l.strip_prefix("CapEff:")).and_then(|h| u64::from_str_radix(h.trim(), 16).ok()).unwrap_or(0);
    let missing: Vec<&str> = NEEDED.iter().filter(|(_, bit)| effective >> bit & 1 == 0).map(|(name, _)| *name).collect();
    if missing.is_empty() {
        ok("capabilities", "all that are needed")
    } else {
        let names = missing.join(", ");
        bad(
            "capabilities",
            Level::Error,
            format!("missing: {names}"),
            "run as root outside a container, or start the container with --privileged",
        )
    }
}

fn kernel() -> Finding {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim();
    let mut parts = release.split(['.', '-']).filter_map(|p| p.parse::<u32>().ok());
    let version = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    if version >= (5, 12) {
        ok("kernel", release)
    } else {
        bad("kernel", Level::Error, format!("{release} is older than 5.12, which brought mount_setattr"), "boot a newer kernel")
    }
}

fn cgroups() -> Finding {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let has_v1 = |controller: &str| {
        mounts.lines().any(|l| {
            let mut words = l.split(' ').skip(2);
            words.next() == Some("cgroup") && words.next().is_some_and(|o| o.split(',').any(|x| x == controller))
        })
    };
    let v2 = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
    let missing: Vec<&str> =
        ["cpu", "memory", "pids"].into_iter().filter(|c| !has_v1(c) && !v2.split_whitespace().any(|x| x == *c)).collect();
    if missing.is_empty() {
        ok("control groups", if v2.contains("memory") { "v2" } else { "v1" })
    } else {
        let names = missing.join(", ");
        bad(
            "control groups",
            Level::Error,
            format!("no controller for {names}"),
            "mount them (systemd does), or boot with cgroup_enable=memory",
        )
    }
}

fn filesystem(name: &str) -> Finding {
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if known.lines().any(|l| l.trim_start_matches("nodev").trim() == name) {
        ok(name, "known to the kernel")
    } else {
        bad(name, Level::Error, format!("the kernel has no {name} filesystem"), format!("modprobe {name}"))
    }
}

fn namespaces() -> Finding {
    let missing: Vec<&str> =
        ["mnt", "net", "pid", "ipc", "uts"].into_iter().filter(|n| !Path::new("/proc/self/ns").join(n).exists()).collect();
    if missing.is_empty() {
        ok("namespaces", "mnt, net, pid, ipc, uts")
    } else {
        bad("namespaces", Level::Error, format!("missing: {}", missing.join(", ")), "boot a kernel that was built with them")
    }
}

fn descriptors() -> Finding {
    const WANTED: u64 = 8192;
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let hard = limit.maximum.unwrap_or(u64::MAX);
    if hard >= WANTED {
        ok("open files", format!("limit {hard}"))
    } else {
        bad(
            "open files",
            Level::Warning,
            format!("the hard limit is {hard}; many pods need more than {WANTED}"),
            format!("ulimit -Hn {}", WANTED * 8),
        )
    }
}

fn inotify() -> Finding {
    const WANTED: u64 = 128;
    let text = fs::read_to_string("/proc/sys/fs/inotify/max_user_instances").unwrap_or_default();
    let instances: u64 = text.trim().parse().unwrap_or(0);
    if instances >= WANTED {
        ok("inotify", format!("{instances} instances"))
    } else {
        bad(
            "inotify",
            Level::Warning,
            format!("{instances} instances for all processes together"),
            "sysctl fs.inotify.max_user_instances=512",
        )
    }
}

/// The nearest folder above that is there.
fn existing(path: &Path) -> &Path {
    path.ancestors().find(|p| p.is_dir()).unwrap_or(Path::new("/"))
}

/// Free and all bytes of the disk that a folder is on, or will be.
pub fn disk(folder: &Path) -> std::io::Result<(u64, u64)> {
    let stat = rustix::fs::statvfs(existing(folder))?;
    Ok((stat.f_bavail.saturating_mul(stat.f_frsize), stat.f_blocks.saturating_mul(stat.f_frsize)))
}

fn space(data_dir: &Path) -> Finding {
    const WANTED_MIB: u64 = 2048;
    // Without so much even the store cannot be made.
    const NEEDED_MIB: u64 = 32;
    // The kubelet's default for nodefs.available.
    const PODS_PERCENT: u64 = 10;
    match disk(data_dir) {
        Ok((free, total)) => {
            let mib = free >> 20;
            let place = data_dir.display();
            let cure = "free some, or choose another place with --data-dir";
            if mib < NEEDED_MIB {
                bad("disk space", Level::Error, format!("only {mib} MiB free for {place}; a cluster needs {NEEDED_MIB} to begin"), cure)
            } else if free / PODS_PERCENT < total / 100 {
                let detail =
                    format!("{mib} of {} MiB free for {place}: below {PODS_PERCENT} % nodes take no pods (DiskPressure)", total >> 20);
                bad("disk space", Level::Warning, detail, cure)
            } else if mib < WANTED_MIB {
                bad("disk space", Level::Warning, format!("only {mib} MiB free for {place}"), cure)
            } else {
                ok("disk space", format!("{mib} MiB free for {place}"))
            }
        }
        Err(error) => bad(
            "disk space",
            Level::Error,
            format!("cannot look at {}: {error}", data_dir.display()),
            "choose another place with --data-dir",
        ),
    }
}

fn sync(data_dir: &Path) -> Finding {
    const SLOW_MS: f64 = 10.0;
    let folder = existing(data_dir);
    let path = folder.join(format!(".tiphys-doctor-{}", std::process::id()));
    let measured = (|| {
        let mut file = fs::File::create(&path)?;
        let start = Instant::now();
        for _ in 0..10 {
            file.write_all(&[0; 1024])?;
            file.sync_data()?;
        }
        std::io::Result::Ok(start.elapsed().as_secs_f64() * 100.0)
    })();
    let _ = fs::remove_file(&path);
    match measured {
        Ok(ms) if ms < SLOW_MS => ok("disk sync", format!("{ms:.2} ms")),
        Ok(ms) => bad(
            "disk sync",
            Level::Warning,
            format!("{ms:.1} ms for each write: every write to the API waits that long"),
            "put --data-dir on a faster disk",
        ),
        Err(error) => {
            bad("disk sync", Level::Error, format!("cannot write in {}: {error}", folder.display()), "choose another place with --data-dir")
        }
    }
}

fn port(cluster: &Cluster) -> Finding {
    let address = std::net::SocketAddr::new(cluster.api_address, cluster.api_port);
    match TcpListener::bind(address) {
        Ok(_) => ok("API server's port", format!("{address} is free")),
        // The cluster's own bridge may not be there yet.
        Err(error)
            if error.kind() == std::io::ErrorKind::AddrNotAvailable
                && std::net::IpAddr::V4(cluster.node_address(1).unwrap_or(std::net::Ipv4Addr::UNSPECIFIED)) == cluster.api_address =>
        {
            ok("API server's port", format!("{address} will be made"))
        }
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => bad(
            "API server's port",
            Level::Error,
            format!("{address} is in use by another program"),
            "end it (`ss -ltnp` shows which it is), or choose another with --listen ADDRESS:PORT",
        ),
        Err(error) => bad(
            "API server's port",
            Level::Error,
            format!("cannot listen on {address}: {error}"),
            "choose an address of this machine with --listen ADDRESS:PORT",
        ),
    }
}

/// The findings for a person.
pub fn text(findings: &[Finding]) -> String {
    let mut out = String::new();
    for finding in findings {
        let mark = match finding.level {
            Level::Ok => "ok     ",
            Level::Warning => "warning",
            Level::Error => "ERROR  ",
        };
        out.push_str(&format!("{mark}  {}: {}\n", finding.what, finding.detail));
        if !finding.cure.is_empty() {
            out.push_str(&format!("         cure: {}\n", finding.cure));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_finding_that_is_not_ok_has_a_cure() {
        let folder = tempfile::tempdir().expect("folder");
        let findings = examine(folder.path(), None);
        assert!(findings.len() >= 10);
        for finding in &findings {
            assert_eq!(finding.level == Level::Ok, finding.cure.is_empty(), "{finding:?}");
        }
        assert_eq!(fs::read_dir(folder.path()).expect("folder").count(), 0, "nothing is left behind");
    }
}
