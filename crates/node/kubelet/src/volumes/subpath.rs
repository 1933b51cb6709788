//! The mounts of one container: its volumes, with subPath resolved so that no link can lead out of the volume
//! (CVE-2017-1002101): the path is opened within the volume and what was opened is bound to a place of ours.

use super::{Layout, Mounted};
use crate::expand;
use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};
use tiphys_cri as cri;
use tiphys_sys::{fs, mount};
use tiphys_types::api::core::v1::{Container, VolumeMount};

pub(crate) fn mounts_of(
    layout: &Layout,
    uid: &str,
    container: &Container,
    volumes: &BTreeMap<String, Mounted>,
    environment: &[(String, String)],
) -> Result<Vec<cri::Mount>, String> {
    let list = container.volume_mounts.as_deref().unwrap_or_default();
    list.iter().enumerate().map(|(index, wanted)| one(layout, uid, container, volumes, environment, index, wanted)).collect()
}

fn one(
    layout: &Layout,
    uid: &str,
    container: &Container,
    volumes: &BTreeMap<String, Mounted>,
    environment: &[(String, String)],
    index: usize,
    wanted: &VolumeMount,
) -> Result<cri::Mount, String> {
    let name = &wanted.name;
    let volume = volumes.get(name).ok_or_else(|| format!("cannot find volume {name:?} to mount into container {:?}", container.name))?;
    let sub_path = sub_path(wanted, environment)?;
    let mut host_path = volume.path.clone();
    let mut image_sub_path = String::new();
    if volume.image.is_some() {
        image_sub_path = sub_path;
    } else if !sub_path.is_empty() {
        let target = layout.subpaths(uid).join(name).join(&container.name).join(index.to_string());
        host_path = prepare(&volume.path, &sub_path, &target).map_err(|error| {
            tracing::warn!(%error, volume = name, sub_path, "cannot prepare subPath");
            // The details stay here: they would tell the pod about the node's files.
            format!("failed to prepare subPath for volumeMount {name:?} of container {:?}", container.name)
        })?;
    }
    let read_only = wanted.read_only == Some(true) || volume.read_only;
    let container_path = if wanted.mount_path.starts_with('/') { wanted.mount_path.clone() } else { format!("/{}", wanted.mount_path) };
    Ok(cri::Mount {
        container_path,
        host_path: host_path.to_string_lossy().into_owned(),
        readonly: read_only,
        propagation: propagation(wanted.mount_propagation.as_deref())?,
        recursive_read_only: read_only && matches!(wanted.recursive_read_only.as_deref(), Some("Enabled" | "IfPossible")),
        image: volume.image.clone(),
        image_sub_path,
        ..cri::Mount::default()
    })
}

fn propagation(mode: Option<&str>) -> Result<cri::MountPropagation, String> {
    match mode {
        None | Some("" | "None") => Ok(cri::MountPropagation::Private),
        Some("HostToContainer") => Ok(cri::MountPropagation::HostToContainer),
        Some("Bidirectional") => Ok(cri::MountPropagation::Bidirectional),
        Some(other) => Err(format!("invalid MountPropagation mode: {other:?}")),
    }
}

fn sub_path(wanted: &VolumeMount, environment: &[(String, String)]) -> Result<String, String> {
    let lookup = |name: &str| environment.iter().find(|(k, _)| k == name).map(|(_, v)| v.clone());
    let path = match wanted.sub_path_expr.as_deref().filter(|e| !e.is_empty()) {
        Some(expression) => {
            let missing = expand::missing(expression, &lookup);
            if !missing.is_empty() {
                return Err(format!("missing value for {}", missing.iter().map(|m| format!("{m:?}")).collect::<Vec<_>>().join(", ")));
            }
            expand::expand(expression, &lookup)
        }
        None => wanted.sub_path.clone().unwrap_or_default(),
    };
    if path.starts_with('/') {
        return Err(format!("error SubPath `{path}` must not be an absolute path"));
    }
    if Path::new(&path).components().any(|c| c == Component::ParentDir) {
        return Err(format!("unable to provision SubPath `{path}`: must not contain '..'"));
    }
    Ok(path)
}

/// Opens (or makes) the path within the volume and binds it to `target`.
fn prepare(volume: &Path, sub_path: &str, target: &Path) -> std::io::Result<PathBuf> {
    let root = fs::open_directory(volume)?;
    let mode = std::fs::metadata(volume)?.permissions().mode() & 0o7777;
    let relative = Path::new(sub_path);
    let found = match fs::resolve_in_root(root.as_fd(), relative) {
        Ok(found) => found,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let made = fs::make_dirs_in_root(root.as_fd(), relative, mode)?;
            // The umask had its way with the mode.
            std::fs::set_permissions(mount::fd_path(&made), PermissionsExt::from_mode(mode))?;
            made
        }
        Err(error) => return Err(error),
    };
    if target.exists() {
        // A former run's; it may be bound to what is no longer there.
        let _ = mount::detach(target);
    } else if fs::is_directory(&found)? {
        std::fs::create_dir_all(target)?;
    } else {
        if let Some(parent) = target.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::File::create(target)?;
    }
    mount::bind(&mount::fd_path(&found), target, true)?;
    Ok(target.to_path_buf())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn path_of(mount: serde_json::Value) -> Result<String, String> {
        let mut mount = mount;
        mount["name"] = json!("v");
        mount["mountPath"] = json!("/x");
        let mount: VolumeMount = serde_json::from_value(mount).expect("a mount");
        sub_path(&mount, &[("POD".into(), "p".into()), ("BAD".into(), "../..".into()), ("ABS".into(), "/etc".into())])
    }

    #[test]
    fn expressions_and_escapes() {
        assert_eq!(path_of(json!({"subPathExpr": "logs/$(POD)"})), Ok("logs/p".into()));
        assert_eq!(path_of(json!({"subPathExpr": "$(NO)"})), Err("missing value for \"NO\"".into()));
        assert_eq!(path_of(json!({"subPathExpr": "$(ABS)"})), Err("error SubPath `/etc` must not be an absolute path".into()));
        assert!(path_of(json!({"subPathExpr": "$(BAD)"})).is_err());
        assert_eq!(path_of(json!({"subPath": "a/b"})), Ok("a/b".into()));
    }
}
