//! Ranges of host users for pods with a user namespace of their own (`hostUsers: false`, KEP-127).
//!
//! Each pod has 65,536 users that no other pod and nobody on the host has. Which ones stands in its folder, in the file and
//! form that upstream's kubelet uses, so that a restart finds them again.
//! Deliberately absent: ranges from the `kubelet` entry of /etc/subuid; all of the numbers above the first block are ours.

use crate::pod::spec;
use crate::volumes::Layout;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use tiphys_cri as cri;
use tiphys_types::api::core::v1::Pod;

const LENGTH: u32 = 65_536;
const FILE: &str = "userns";

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Saved {
    uid_mappings: Vec<Mapping>,
    gid_mappings: Vec<Mapping>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mapping {
    host_id: u32,
    container_id: u32,
    length: u32,
}

/// Which block of users belongs to which pod.
pub(crate) struct UserRanges {
    layout: Layout,
    blocks: Mutex<HashMap<u32, String>>,
}

impl UserRanges {
    /// Takes up what earlier kubelets gave out.
    pub(crate) fn open(layout: Layout) -> Self {
        let mut blocks = HashMap::new();
        for entry in std::fs::read_dir(layout.pods()).into_iter().flatten().flatten() {
            let uid = entry.file_name().to_string_lossy().into_owned();
            if let Some(first) = read(&layout.pod(&uid).join(FILE)) {
                blocks.insert(first / LENGTH, uid);
            }
        }
        UserRanges { layout, blocks: Mutex::new(blocks) }
    }

    /// The pod's users; None when it shares the host's.
    pub(crate) fn of(&self, pod: &Pod) -> Result<Option<cri::UserNamespace>, String> {
        if spec::spec(pod).host_users != Some(false) {
            return Ok(None);
        }
        let uid = spec::uid(pod);
        let file = self.layout.pod(uid).join(FILE);
        let first = match read(&file) {
            Some(first) => first,
            None => self.take(uid, &file)?,
        };
        let maps = || vec![cri::IdMapping { host_id: first, container_id: 0, length: LENGTH }];
        Ok(Some(cri::UserNamespace { mode: cri::NamespaceMode::Pod, uids: maps(), gids: maps() }))
    }

    fn take(&self, uid: &str, file: &Path) -> Result<u32, String> {
        let mut blocks = self.blocks.lock();
        let block = (1..u32::MAX / LENGTH).find(|block| !blocks.contains_key(block));
        let block = block.ok_or("no range of users is left for the pod's user namespace")?;
        let first = block * LENGTH;
        write(file, first).map_err(|e| format!("cannot keep the pod's range of users: {e}"))?;
        blocks.insert(block, uid.to_owned());
        Ok(first)
    }

    /// The pod is gone, and its files with it.
    pub(crate) fn release(&self, uid: &str) {
        self.blocks.lock().retain(|_, owner| owner != uid);
    }
}

fn read(file: &Path) -> Option<u32> {
    let saved: Saved = serde_json::from_slice(&std::fs::read(file).ok()?).ok()?;
    saved.uid_mappings.first().map(|mapping| mapping.host_id).filter(|first| *first >= LENGTH && first % LENGTH == 0)
}

/// Whole or not at all: half a file would give the pod other users after a restart.
fn write(file: &Path, first: u32) -> std::io::Result<()> {
    let maps = || vec![Mapping { host_id: first, container_id: 0, length: LENGTH }];
    let text = serde_json::to_vec(&Saved { uid_mappings: maps(), gid_mappings: maps() })?;
    let temporary: PathBuf = file.with_extension("new");
    std::fs::write(&temporary, text)?;
    std::fs::rename(temporary, file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(layout: &Layout, uid: &str, host_users: Option<bool>) -> Pod {
        std::fs::create_dir_all(layout.pod(uid)).expect("a folder");
        serde_json::from_value(json!({"metadata": {"uid": uid}, "spec": {"containers": [], "hostUsers": host_users}})).expect("a pod")
    }

    fn first(ranges: &UserRanges, pod: &Pod) -> Option<u32> {
        ranges.of(pod).expect("a range").map(|users| users.uids[0].host_id)
    }

    #[test]
    fn every_pod_has_its_own_users_and_keeps_them() {
        let folder = tempfile::tempdir().expect("a folder");
        let layout = Layout { root: folder.path().to_owned() };
        let ranges = UserRanges::open(layout.clone());
        let [a, b, c] = ["a", "b", "c"].map(|uid| pod(&layout, uid, Some(false)));
        assert_eq!(first(&ranges, &pod(&layout, "h", None)), None);
        assert_eq!(first(&ranges, &pod(&layout, "t", Some(true))), None);
        assert_eq!((first(&ranges, &a), first(&ranges, &b), first(&ranges, &a)), (Some(65_536), Some(131_072), Some(65_536)));
        let again = UserRanges::open(layout.clone());
        assert_eq!((first(&again, &c), first(&again, &b)), (Some(196_608), Some(131_072)));
        std::fs::remove_dir_all(layout.pod("a")).expect("removed");
        again.release("a");
        assert_eq!(first(&again, &pod(&layout, "d", Some(false))), Some(65_536));
    }
}
