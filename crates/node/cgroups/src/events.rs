//! Being told when a group runs out of memory.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use tiphys_sys::watch::{Inotify, WatchFlags, event_fd};

use crate::error::{CgroupError, Result, write};
use crate::group::Cgroup;
use crate::hierarchy::Version;

/// A descriptor that becomes readable when the group ran out of memory (version 2: when `memory.events` changed).
/// After each time, call [`OomWatch::clear`] and look at [`Cgroup::oom_kills`].
pub struct OomWatch(Kind);

enum Kind {
    /// Version 1: an eventfd registered with memory.oom_control, which must stay open.
    V1 {
        events: OwnedFd,
        _control: File,
    },
    V2(Inotify),
}

impl Cgroup {
    pub fn watch_oom(&self) -> Result<OomWatch> {
        let folder = self.folder("memory").ok_or(CgroupError::NotMounted)?;
        if self.hierarchy.version == Version::V2 {
            let path = folder.join("memory.events");
            let watch = Inotify::new().and_then(|inotify| inotify.add(&path, WatchFlags::MODIFY).map(|_| inotify));
            return watch.map(|inotify| OomWatch(Kind::V2(inotify))).map_err(|source| CgroupError::Watch { path, source });
        }
        let path = folder.join("memory.oom_control");
        let failed = |source| CgroupError::Watch { path: path.clone(), source };
        let control = File::open(&path).map_err(failed)?;
        let events = event_fd().map_err(failed)?;
        write(&folder, "cgroup.event_control", &format!("{} {}", events.as_raw_fd(), control.as_raw_fd()))?;
        Ok(OomWatch(Kind::V1 { events, _control: control }))
    }
}

impl OomWatch {
    /// Takes back readiness.
    pub fn clear(&self) {
        match &self.0 {
            Kind::V1 { events, .. } => drop(tiphys_sys::process::read(events.as_fd(), &mut [0; 8])),
            Kind::V2(inotify) => drop(inotify.read()),
        }
    }
}

impl AsFd for OomWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.0 {
            Kind::V1 { events, .. } => events.as_fd(),
            Kind::V2(inotify) => inotify.as_fd(),
        }
    }
}
