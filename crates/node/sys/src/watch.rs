//! inotify and eventfd.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::inotify;

pub use rustix::fs::inotify::WatchFlags;

/// An inotify instance, to be read when its descriptor says so.
pub struct Inotify(OwnedFd);

/// One event: the watch it belongs to, the name inside a watched folder, what happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchEvent {
    pub watch: i32,
    pub name: String,
    pub mask: u32,
}

impl Inotify {
    pub fn new() -> io::Result<Self> {
        Ok(Self(inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?))
    }

    pub fn add(&self, path: &Path, flags: WatchFlags) -> io::Result<i32> {
        Ok(inotify::add_watch(&self.0, path, flags)?)
    }

    pub fn remove(&self, watch: i32) -> io::Result<()> {
        Ok(inotify::remove_watch(&self.0, watch)?)
    }

    /// All events that are there now.
    pub fn read(&self) -> io::Result<Vec<WatchEvent>> {
        let mut buffer = [const { std::mem::MaybeUninit::uninit() }; 4096];
        let mut reader = inotify::Reader::new(&self.0, &mut buffer);
        let mut events = Vec::new();
        loop {
            match reader.next() {
                Ok(event) => events.push(WatchEvent {
                    watch: event.wd(),
                    name: event.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
                    mask: event.events().bits(),
                }),
                Err(rustix::io::Errno::AGAIN) => return Ok(events),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl AsFd for Inotify {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

pub fn event_fd() -> io::Result<OwnedFd> {
    Ok(rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC | rustix::event::EventfdFlags::NONBLOCK)?)
}

/// Waits until a file raises POLLPRI, as `memory.pressure` and `cgroup.events` do, or the time is over. True if it did.
pub fn wait_priority(fd: BorrowedFd<'_>, timeout: std::time::Duration) -> io::Result<bool> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let timeout = Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: i64::from(timeout.subsec_nanos()) };
    match poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::PRI)], Some(&timeout)) {
        Ok(count) => Ok(count > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
