//! What can go wrong with a cgroup file.

use std::io;
use std::path::{Path, PathBuf};

pub type Result<T> = std::result::Result<T, CgroupError>;

#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    #[error("cgroups are not mounted")]
    NotMounted,
    #[error("cannot create cgroup {path}")]
    Create { path: PathBuf, source: io::Error },
    #[error("cannot remove cgroup {path}")]
    Remove { path: PathBuf, source: io::Error },
    #[error("cannot write {value:?} to {path}: {source}")]
    Write { path: PathBuf, value: String, source: io::Error },
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot install the device filter of {path}")]
    Devices { path: PathBuf, source: io::Error },
    #[error("cannot watch {path} for running out of memory")]
    Watch { path: PathBuf, source: io::Error },
}

impl CgroupError {
    /// The system's error number, where there is one.
    pub fn os_error(&self) -> Option<i32> {
        match self {
            Self::NotMounted => None,
            Self::Create { source, .. }
            | Self::Remove { source, .. }
            | Self::Write { source, .. }
            | Self::Read { source, .. }
            | Self::Devices { source, .. }
            | Self::Watch { source, .. } => source.raw_os_error(),
        }
    }
}

/// Writes one value to a cgroup file in one write, as the kernel expects.
pub(crate) fn write(folder: &Path, file: &str, value: &str) -> Result<()> {
    use std::io::Write;
    let path = folder.join(file);
    let open = std::fs::OpenOptions::new().write(true).open(&path);
    open.and_then(|mut file| file.write_all(value.as_bytes())).map_err(|source| CgroupError::Write {
        path,
        value: value.to_owned(),
        source,
    })
}

pub(crate) fn read(folder: &Path, file: &str) -> Result<String> {
    let path = folder.join(file);
    std::fs::read_to_string(&path).map_err(|source| CgroupError::Read { path, source })
}

/// A file with one number; `max` and version 1's huge "no limit" value read as None.
pub(crate) fn read_number(folder: &Path, file: &str) -> Option<u64> {
    let text = read(folder, file).ok()?;
    text.trim().parse().ok()
}

/// The value of one key in a file of `key value` lines.
pub(crate) fn value_of(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}
