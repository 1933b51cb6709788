//! epoll, for the one loop that has no async runtime.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::epoll;

pub use rustix::event::epoll::EventFlags;

/// A set of descriptors to wait on, each with a number of the caller's.
pub struct Poll {
    fd: OwnedFd,
    buffer: Vec<epoll::Event>,
}

impl Poll {
    pub fn new() -> io::Result<Self> {
        Ok(Self { fd: epoll::create(epoll::CreateFlags::CLOEXEC)?, buffer: Vec::with_capacity(64) })
    }

    pub fn add(&self, fd: impl AsFd, key: u64, interest: EventFlags) -> io::Result<()> {
        Ok(epoll::add(&self.fd, fd, epoll::EventData::new_u64(key), interest)?)
    }

    pub fn modify(&self, fd: impl AsFd, key: u64, interest: EventFlags) -> io::Result<()> {
        Ok(epoll::modify(&self.fd, fd, epoll::EventData::new_u64(key), interest)?)
    }

    pub fn remove(&self, fd: impl AsFd) -> io::Result<()> {
        Ok(epoll::delete(&self.fd, fd)?)
    }

    /// Waits until something is ready: (key, what). An empty answer means that a signal or the timeout came.
    pub fn wait(&mut self, timeout: Option<std::time::Duration>) -> io::Result<Vec<(u64, EventFlags)>> {
        let timeout = timeout
            .map(|duration| rustix::event::Timespec { tv_sec: duration.as_secs() as i64, tv_nsec: i64::from(duration.subsec_nanos()) });
        self.buffer.clear();
        match epoll::wait(&self.fd, rustix::buffer::spare_capacity(&mut self.buffer), timeout.as_ref()) {
            Ok(_) => Ok(self.buffer.iter().map(|event| (event.data.u64(), event.flags)).collect()),
            Err(rustix::io::Errno::INTR) => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }
}
