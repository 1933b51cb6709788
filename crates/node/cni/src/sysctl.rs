//! Kernel settings that a node needs, set, recorded and put back.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::NetError;

/// Settings as they were before, by name (`net/ipv4/ip_forward`).
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Recorded(pub BTreeMap<String, String>);

fn path(name: &str) -> PathBuf {
    PathBuf::from("/proc/sys").join(name)
}

/// Sets `name` to `value` in the calling thread's namespaces, where it differs, and records what it was (the first time only).
pub fn set(name: &str, value: &str, recorded: &mut Recorded) -> Result<(), NetError> {
    let before = std::fs::read_to_string(path(name)).map_err(NetError::kernel(format!("reading the setting {name}")))?;
    let before = before.trim();
    if before == value {
        return Ok(());
    }
    std::fs::write(path(name), value).map_err(NetError::kernel(format!("setting {name} to {value}")))?;
    recorded.0.entry(name.to_owned()).or_insert_with(|| before.to_owned());
    Ok(())
}

/// Puts all settings back; what is gone (a removed link's) is passed over.
pub fn restore(recorded: &Recorded) {
    for (name, value) in &recorded.0 {
        let _ = std::fs::write(path(name), value);
    }
}
