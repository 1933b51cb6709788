//! emptyDir: a folder of the pod's own, on disk or in a tmpfs.

use super::{Mounted, is_mount_point, ownership};
use crate::pod::spec;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use tiphys_types::api::core::v1::{EmptyDirVolumeSource, Pod};
use tiphys_types::resources::{self, MEMORY};

pub(super) fn set_up(
    path: &Path,
    source: &EmptyDirVolumeSource,
    pod: &Pod,
    group: Option<i64>,
    node_memory: i64,
) -> Result<Mounted, String> {
    let failed = |e: std::io::Error| format!("{}: {e}", path.display());
    let fresh = !path.exists();
    std::fs::create_dir_all(path).map_err(failed)?;
    match source.medium.as_deref().unwrap_or_default() {
        "" => {}
        "Memory" if !is_mount_point(path) => mount_tmpfs(path, &size_option(source, pod, node_memory)).map_err(failed)?,
        "Memory" => {}
        medium => return Err(format!("unknown storage medium {medium:?}")),
    }
    if fresh {
        // The umask must not take bits away: any user of the pod may write here.
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o777)).map_err(failed)?;
        ownership::folder(path, group, false).map_err(failed)?;
    }
    Ok(Mounted::at(path))
}

fn mount_tmpfs(path: &Path, options: &str) -> std::io::Result<()> {
    tiphys_sys::mount::mount("tmpfs", path, "tmpfs", 0, options)
}

/// The smallest of sizeLimit, the pod's memory limit, and the node's memory (KEP-1967).
fn size_option(source: &EmptyDirVolumeSource, pod: &Pod, node_memory: i64) -> String {
    let given = source.size_limit.as_ref().map(|q| resources::quantity(q).value()).filter(|size| *size > 0);
    let limited = |c: &tiphys_types::api::core::v1::Container| {
        c.resources.as_ref().and_then(|r| r.limits.as_ref()).is_some_and(|l| l.contains_key(MEMORY))
    };
    let of_pod = spec::containers(pod).iter().all(limited).then(|| resources::limits(pod).get(MEMORY).map(|q| q.value())).flatten();
    let size = [given, of_pod, Some(node_memory)].into_iter().flatten().filter(|size| *size > 0).min();
    match size {
        Some(size) => format!("mode=0777,size={size}"),
        None => "mode=0777".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_folder_for_all_and_a_size_for_memory() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("v");
        let pod: Pod = serde_json::from_value(json!({"spec": {"containers": [{"name": "c", "resources": {"limits": {"memory": "1Mi"}}}]}}))
            .expect("a pod");
        set_up(&path, &EmptyDirVolumeSource::default(), &pod, None, 1 << 30).expect("set up");
        assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o7777, 0o777);
        let sized: EmptyDirVolumeSource = serde_json::from_value(json!({"medium": "Memory", "sizeLimit": "64Ki"})).expect("a source");
        assert_eq!(size_option(&sized, &pod, 1 << 30), "mode=0777,size=65536");
        assert_eq!(size_option(&EmptyDirVolumeSource::default(), &pod, 1 << 30), "mode=0777,size=1048576");
    }
}
