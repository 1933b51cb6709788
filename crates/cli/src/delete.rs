//! `tiphys down` and `tiphys delete`: end a cluster's processes, take its links, mounts, control groups and rules away and, for delete, its files.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::cluster::{Cluster, Layout};
use crate::kubeconfig;
use crate::processes;

const SIGTERM: i32 = 15;
const SIGKILL: i32 = 9;

/// How long each kind of process may take to end by itself.
const GRACE: Duration = Duration::from_secs(20);

/// Removes the nftables tables of a cluster; given by the program, since rules are another room's affair.
pub type RemoveTables<'a> = &'a dyn Fn(&Cluster) -> Result<()>;

/// Stops everything of the cluster and leaves its files. A cluster that does not run is fine.
pub fn stop(layout: &Layout, cluster: &Cluster, remove_tables: RemoveTables<'_>) -> Result<()> {
    take_down(layout, cluster, remove_tables)?;
    let mut stopped = cluster.clone();
    stopped.recorded = tiphys_cni::sysctl::Recorded::default();
    layout.save(&stopped)
}

/// Everything but the files, of which none is written: the disk may be full.
fn take_down(layout: &Layout, cluster: &Cluster, remove_tables: RemoveTables<'_>) -> Result<()> {
    end_all(layout)?;
    unmount_below(&layout.cluster_dir())?;
    remove_tables(cluster)?;
    remove_pod_links(cluster)?;
    cluster.network.tear_down_host(&cluster.recorded).context("cannot take the cluster's network away")?;
    remove_cgroups(&cluster.name);
    Ok(())
}

/// Removes the cluster for good, whatever state it is in.
pub fn delete(layout: &Layout, remove_tables: RemoveTables<'_>) -> Result<()> {
    if layout.exists() {
        take_down(layout, &layout.load()?, remove_tables)?;
    } else {
        end_all(layout)?;
        unmount_below(&layout.cluster_dir())?;
        remove_cgroups(&layout.name);
    }
    let mut copies = kubeconfig::remembered(layout);
    copies.extend(kubeconfig::users_file().ok().filter(|file| !copies.contains(file)));
    for file in copies {
        kubeconfig::remove_from(&file, &layout.name)?;
    }
    remove_tree(&layout.cluster_dir())?;
    let clusters = layout.data_dir.join("clusters");
    if fs::read_dir(&clusters).is_ok_and(|mut d| d.next().is_none()) {
        // The last cluster of this data directory is gone: so are the images and the directory, if nothing else lies in it.
        remove_tree(&clusters)?;
        unmount_below(&layout.images())?;
        remove_tree(&layout.images())?;
        let _ = fs::remove_dir(&layout.data_dir);
    }
    Ok(())
}

/// Ends every process. From the first line on nobody starts one again; one that was just being started is found by looking once more.
fn end_all(layout: &Layout) -> Result<()> {
    const ROUNDS: usize = 10;
    let wanted = layout.wanted();
    match fs::remove_file(&wanted) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot remove {}", wanted.display()));
        }
        _ => {}
    }
    for _ in 0..ROUNDS {
        // The supervisors go last: they hold the containers and take them along.
        for role in ["run", "node", "supervisor"] {
            end_role(layout, role)?;
        }
        if processes::of(layout).iter().all(|p| p.role == "up") {
            return Ok(());
        }
    }
    bail!("processes of the cluster {:?} come back as often as they are ended; `tiphys status` shows them", layout.name)
}

fn end_role(layout: &Layout, role: &str) -> Result<()> {
    let pids: Vec<i32> = processes::of(layout).iter().filter(|p| p.role == role).map(|p| p.pid).collect();
    let stubborn = processes::end(&pids, SIGTERM, GRACE);
    let left = processes::end(&stubborn, SIGKILL, Duration::from_secs(10));
    if left.is_empty() {
        Ok(())
    } else {
        bail!("the processes {left:?} do not end, not even by SIGKILL; see what they wait for in /proc/PID/stack")
    }
}

fn remove_tree(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot remove {}", path.display())),
    }
}

/// Detaches every mount at or below `folder`, the deepest first. Mounts that stood below others come to light when those are gone.
pub fn unmount_below(folder: &Path) -> Result<()> {
    const LAYERS: usize = 8;
    for _ in 0..LAYERS {
        let mounts = tiphys_sys::proc::mounts().context("cannot read the mounts")?;
        let mut points: Vec<_> = mounts.into_iter().map(|m| m.mount_point).filter(|t| t.starts_with(folder)).collect();
        if points.is_empty() {
            return Ok(());
        }
        points.sort_by_key(|p| std::cmp::Reverse(p.as_os_str().len()));
        for point in points {
            tiphys_sys::mount::detach(&point).with_context(|| format!("cannot unmount {}", point.display()))?;
        }
    }
    bail!("mounts below {} come back as often as they are taken away; `grep {0} /proc/self/mountinfo` shows them", folder.display())
}

/// Links of pods whose namespaces outlived their sandboxes.
fn remove_pod_links(cluster: &Cluster) -> Result<()> {
    use tiphys_cni::rtnl::Netlink;
    let mut netlink = Netlink::open().context("cannot open the routing tables")?;
    let of_pods = |name: &str| {
        let address = name.strip_prefix(POD_LINK_PREFIX).and_then(|hex| u32::from_str_radix(hex, 16).ok());
        address.is_some_and(|a| cluster.network.pods.contains(a.into()))
    };
    for link in netlink.links()?.iter().filter(|l| of_pods(&l.name)) {
        netlink.remove_link(&link.name)?;
    }
    Ok(())
}

/// Begins the names of the host's ends of pod links.
pub const POD_LINK_PREFIX: &str = "typ";

/// Removes `tiphys/NAME` in every hierarchy, and `tiphys` itself once it is empty.
fn remove_cgroups(name: &str) {
    let roots: BTreeSet<_> = match tiphys_sys::proc::mounts() {
        Ok(mounts) => mounts.into_iter().filter(|m| m.kind.starts_with("cgroup")).map(|m| m.mount_point).collect(),
        Err(_) => return,
    };
    for root in roots {
        for found in find_named(&root, &root, name) {
            remove_groups_below(&found);
            if let Some(parent) = found.parent() {
                let _ = fs::remove_dir(parent);
            }
        }
    }
}

/// Folders `…/tiphys/NAME`, wherever this process's own group stands in the hierarchy.
fn find_named(root: &Path, folder: &Path, name: &str) -> Vec<std::path::PathBuf> {
    let depth = folder.components().count().saturating_sub(root.components().count());
    let candidate = folder.join("tiphys").join(name);
    let mut found: Vec<_> = candidate.is_dir().then_some(candidate).into_iter().collect();
    if depth < 4 {
        let below = fs::read_dir(folder).into_iter().flatten().flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir()));
        found.extend(below.filter(|e| e.file_name() != "tiphys").flat_map(|e| find_named(root, &e.path(), name)));
    }
    found
}

fn remove_groups_below(folder: &Path) {
    let below = fs::read_dir(folder).into_iter().flatten().flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir()));
    for entry in below {
        remove_groups_below(&entry.path());
    }
    let _ = fs::remove_dir(folder);
}
