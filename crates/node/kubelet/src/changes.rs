//! One inotify instance for all folders that somebody follows (instances are few: 128 per user on many machines).

use parking_lot::Mutex;
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tiphys_base::tasks::Tasks;
use tiphys_sys::watch::{Inotify, WatchFlags};
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

struct Fd(Inotify);

impl AsRawFd for Fd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// Tells of changes within folders.
pub(crate) struct Changes {
    inotify: AsyncFd<Fd>,
    folders: Mutex<HashMap<i32, (PathBuf, watch::Sender<u64>)>>,
}

impl Changes {
    #[expect(deprecated, reason = "the descriptor is owned for as long as it is registered; the successor is unsafe to call")]
    pub(crate) fn start(tasks: &Tasks) -> io::Result<Arc<Self>> {
        let changes = Arc::new(Changes { inotify: AsyncFd::new(Fd(Inotify::new()?))?, folders: Mutex::default() });
        let reader = changes.clone();
        tasks.spawn("inotify", async move { reader.read().await });
        Ok(changes)
    }

    /// A number that grows with each change in the folder.
    pub(crate) fn of(&self, folder: &Path) -> io::Result<watch::Receiver<u64>> {
        let flags = WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::DELETE | WatchFlags::CLOSE_WRITE;
        let mut folders = self.folders.lock();
        let id = self.inotify.get_ref().0.add(folder, flags)?;
        let (_, sender) = folders.entry(id).or_insert_with(|| (folder.to_path_buf(), watch::Sender::new(0)));
        Ok(sender.subscribe())
    }

    /// Wakes all who follow anything: containers have ended.
    pub(crate) fn wake_all(&self) {
        self.folders.lock().values().for_each(|(_, sender)| sender.send_modify(|n| *n += 1));
    }

    async fn read(&self) {
        loop {
            let Ok(mut ready) = self.inotify.readable().await else { return };
            let events = self.inotify.get_ref().0.read();
            ready.clear_ready();
            let Ok(events) = events else { continue };
            let mut folders = self.folders.lock();
            for event in events {
                let Some((_, sender)) = folders.get(&event.watch) else { continue };
                sender.send_modify(|n| *n += 1);
                if sender.receiver_count() == 0 {
                    folders.remove(&event.watch);
                    let _ = self.inotify.get_ref().0.remove(event.watch);
                }
            }
        }
    }
}
