//! Starting, and starting again: records from disk, truth from the supervisor.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tiphys_cgroups::Hierarchy;
use tiphys_cri::{ContainerState, CriError, Result};
use tiphys_sys::mount;
use tokio::sync::mpsc;

use super::container::unmount_all;
use super::sandbox::remove_folder;
use super::state::{ContainerRecord, Folders, SandboxRecord};
use super::{ContainerEntry, Runtime, RuntimeConfig, call_error};
use crate::client::{Client, ensure_supervisor};
use crate::supervisor::protocol::{ContainerState as Known, Event, Exit, OLDEST_PROTOCOL, PROTOCOL, Reply, Request};

/// What a container is said to have ended with when nobody knows: its supervisor is gone too.
const UNKNOWN_EXIT_CODE: i32 = 255;

impl Runtime {
    /// Starts the supervisor if it does not run, and takes up what an earlier process left.
    pub(super) async fn open(config: RuntimeConfig) -> Result<Arc<Self>> {
        let folders = Folders { root: config.root };
        let runtime = Arc::new(Self {
            name: config.name,
            command: config.supervisor,
            network: config.network,
            images: config.images,
            clock: config.clock,
            hierarchy: Arc::new(Hierarchy::detect().map_err(CriError::internal)?),
            client: Mutex::new(None),
            sandboxes: Mutex::new(HashMap::new()),
            containers: Mutex::new(HashMap::new()),
            execs: Mutex::new(HashMap::new()),
            listeners: Mutex::new(Vec::new()),
            disk_usage: Mutex::new(HashMap::new()),
            closing: AtomicBool::new(false),
            protocol: AtomicU32::new(0),
            folders,
        });
        runtime.keep_passing_in_memory()?;
        runtime.load_records()?;
        let events = runtime.connect().await?;
        tokio::spawn(follow(Arc::downgrade(&runtime), events));
        Ok(runtime)
    }

    /// A tmpfs for [`Folders::run`]; it stays while sandboxes do.
    fn keep_passing_in_memory(&self) -> io::Result<()> {
        let folder = self.folders.run();
        std::fs::create_dir_all(&folder)?;
        let real = folder.canonicalize()?;
        if tiphys_sys::proc::mounts()?.iter().any(|mount| mount.mount_point == real) {
            return Ok(());
        }
        let flags = mount::MS_NOSUID | mount::MS_NODEV | mount::MS_NOEXEC;
        if let Err(error) = mount::mount("tiphys-run", &folder, "tmpfs", flags, "mode=0711,size=64m") {
            tracing::warn!(%error, "no tmpfs for the files of sandboxes: they are kept on disk");
        }
        Ok(())
    }

    fn load_records(&self) -> io::Result<()> {
        for (folder, record) in self.folders.all::<SandboxRecord>("sandboxes")? {
            match record {
                Some(record) => drop(self.sandboxes.lock().insert(record.id.clone(), record)),
                // Made and never written: nobody knows its name.
                None => drop(remove_folder(&folder)),
            }
        }
        for (folder, record) in self.folders.all::<ContainerRecord>("containers")? {
            match record {
                Some(record) => drop(self.containers.lock().insert(record.id.clone(), ContainerEntry::new(record))),
                None => {
                    unmount_all(&folder).ok();
                    remove_folder(&folder).ok();
                }
            }
        }
        Ok(())
    }

    /// Connects and learns what happened meanwhile.
    async fn connect(&self) -> Result<mpsc::UnboundedReceiver<Event>> {
        let dir = self.folders.supervisor();
        if let Some(command) = &self.command {
            let started = ensure_supervisor(command, &dir, &self.name).await;
            started.map_err(|error| CriError::Unavailable(format!("cannot start the container supervisor: {error}")))?;
        }
        let connected = Client::connect(&dir);
        let (client, events) =
            connected.map_err(|error| CriError::Unavailable(format!("cannot reach the container supervisor: {error}")))?;
        match client.call(Request::Hello).await.map_err(call_error)? {
            Reply::Hello { protocol, .. } if (OLDEST_PROTOCOL..=PROTOCOL).contains(&protocol) => {
                self.protocol.store(protocol, Ordering::Relaxed);
            }
            other => {
                return Err(CriError::Unavailable(format!("the running supervisor speaks another protocol: {other:?}, not {PROTOCOL}")));
            }
        }
        let Reply::Containers { containers, holders } = client.call(Request::List).await.map_err(call_error)? else {
            return Err(CriError::Internal("the supervisor answered something else".into()));
        };
        *self.client.lock() = Some(client);
        self.reconcile(&containers).await;
        self.mark_dead_sandboxes(&holders);
        Ok(events)
    }

    /// Brings the records in line with what the supervisor says.
    async fn reconcile(&self, known: &[Known]) {
        for state in known {
            match (&state.exit, self.container(&state.id)) {
                (Some(exit), Ok(_)) => self.container_exited(&state.id, exit),
                (None, Ok(record)) if record.started_at == 0 => {
                    // Started, but the answer was not heard.
                    self.update_container(&state.id, |record| record.started_at = state.started_at);
                }
                (None, Ok(_)) => {}
                // Removed here, and the supervisor was not told any more.
                (_, Err(_)) => drop(self.call(Request::Forget { id: state.id.clone() }).await),
            }
        }
        let known: HashSet<&str> = known.iter().map(|state| state.id.as_str()).collect();
        let unknown: Vec<ContainerRecord> = self
            .containers
            .lock()
            .values()
            .filter(|entry| entry.record.ended.is_none() && !known.contains(entry.record.id.as_str()))
            .map(|entry| entry.record.clone())
            .collect();
        for record in unknown {
            match record.state() {
                ContainerState::Running => self.lost(&record),
                // Its start may have been under way when its supervisor went.
                _ => drop(self.group(&record.launch.cgroup.path).kill_all()),
            }
        }
    }

    /// A container that the supervisor does not know: it is a new one, and the old one's children have lost their parent.
    fn lost(&self, record: &ContainerRecord) {
        self.group(&record.launch.cgroup.path).kill_all().ok();
        let file = self.folders.supervisor().join("exits").join(&record.id);
        let written = std::fs::read(file).ok().and_then(|text| serde_json::from_slice::<Exit>(&text).ok());
        let unknown = Exit { code: UNKNOWN_EXIT_CODE, started_at: record.started_at, finished_at: self.now(), oom_killed: false };
        self.container_exited(&record.id, &written.unwrap_or(unknown));
    }

    /// After a reboot the pinned namespaces are empty files, and with its supervisor a shared PID namespace has lost its first
    /// process: such sandboxes are dead, and the kubelet makes new ones.
    fn mark_dead_sandboxes(&self, holders: &[String]) {
        let Ok(mounts) = tiphys_sys::proc::mounts() else { return };
        let mounted: HashSet<_> = mounts.into_iter().map(|mount| mount.mount_point).collect();
        let dead: Vec<String> = self
            .sandboxes
            .lock()
            .values()
            .filter(|record| record.ready)
            .filter(|record| {
                let unpinned = [&record.net, &record.ipc, &record.user].into_iter().flatten().any(|path| !mounted.contains(path));
                unpinned || (record.shared_pid && !holders.contains(&record.id))
            })
            .map(|record| record.id.clone())
            .collect();
        for id in dead {
            self.update_sandbox(&id, |record| record.ready = false);
        }
    }

    fn handle(&self, event: Event) {
        match event {
            Event::Exited { id, exit } => self.container_exited(&id, &exit),
            Event::ExecExited { exec_id, code } => self.exec_exited(&exec_id, code),
        }
    }
}

/// Carries events to the runtime for as long as it lives; connects again if the supervisor should ever go.
async fn follow(runtime: Weak<Runtime>, mut events: mpsc::UnboundedReceiver<Event>) {
    let mut pause = Duration::from_millis(50);
    loop {
        while let Some(event) = events.recv().await {
            let Some(runtime) = runtime.upgrade() else { return };
            runtime.handle(event);
        }
        let Some(runtime) = runtime.upgrade() else { return };
        *runtime.client.lock() = None;
        if runtime.closing.load(Ordering::Relaxed) {
            return;
        }
        // Whoever waits for a command hears that it will not come.
        runtime.execs.lock().clear();
        match runtime.connect().await {
            Ok(again) => {
                events = again;
                pause = Duration::from_millis(50);
            }
            Err(error) => {
                tracing::warn!(%error, "the container supervisor is away");
                drop(runtime);
                // Nothing tells when it can be started again; a backoff, not a poll: each round is an attempt.
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(5));
            }
        }
    }
}
