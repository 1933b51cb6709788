//! Sandboxes: what the containers of a pod share.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tiphys_base::platform::host_name;
use tiphys_cri::{
    ContainerEventType, CriError, DnsConfig, LinuxContainerResources, NamespaceMode, NamespaceOption, PodSandboxConfig, Result,
};
use tiphys_sys::mount;

use super::state::{SandboxRecord, new_id, save};
use super::{Runtime, blocking, plan};
use crate::oci::spec::{self, Sandbox};
use crate::supervisor::protocol::{PROTOCOL_WITH_USERS, Request};

/// Docker's and containerd's size of /dev/shm.
const SHM_SIZE: u64 = 64 << 20;

impl Runtime {
    pub(super) async fn run_sandbox(self: &Arc<Self>, config: PodSandboxConfig, runtime_handler: &str) -> Result<String> {
        if !runtime_handler.is_empty() {
            return Err(CriError::InvalidArgument(format!("no runtime for {runtime_handler:?} is configured")));
        }
        self.check_users(&config)?;
        let record = self.plan_sandbox(config)?;
        let id = record.id.clone();
        if let Err(error) = self.build_sandbox(record).await {
            // Half a sandbox is nobody's: the kubelet never learns its id.
            self.remove_sandbox(&id).await.ok();
            return Err(error);
        }
        self.announce(&id, &id, ContainerEventType::Created);
        self.announce(&id, &id, ContainerEventType::Started);
        Ok(id)
    }

    fn check_users(&self, config: &PodSandboxConfig) -> Result<()> {
        let options = &config.linux.security_context.namespace_options;
        if !wants_users(options) {
            return Ok(());
        }
        let on_host = [options.network, options.pid, options.ipc].contains(&NamespaceMode::Node);
        if on_host {
            return Err(CriError::InvalidArgument("a pod with a user namespace cannot use the host's other namespaces".into()));
        }
        if self.protocol.load(Ordering::Relaxed) < PROTOCOL_WITH_USERS {
            let text = "the container supervisor was started by an older program and knows no user namespaces; it is replaced when \
                        the node is restarted";
            return Err(CriError::FailedPrecondition(text.into()));
        }
        Ok(())
    }

    fn plan_sandbox(&self, config: PodSandboxConfig) -> Result<SandboxRecord> {
        let id = new_id()?;
        let folder = self.folders.passing(&id);
        let options = &config.linux.security_context.namespace_options;
        let own_network = options.network != NamespaceMode::Node;
        let own_ipc = options.ipc != NamespaceMode::Node;
        let pin = |on: bool, name: &str| on.then(|| folder.join(name));
        let hostname = if own_network && !config.hostname.is_empty() { config.hostname.clone() } else { host_name() };
        Ok(SandboxRecord {
            runtime_handler: String::new(),
            created_at: self.now(),
            ready: false,
            ips: Vec::new(),
            net: pin(own_network, "net"),
            ipc: pin(own_ipc, "ipc"),
            // On the host's network a pod has the host's name.
            uts: pin(own_network, "uts"),
            user: pin(wants_users(options), "user"),
            shm: pin(own_ipc, "shm"),
            shared_pid: options.pid == NamespaceMode::Pod,
            hostname,
            files: Some(folder),
            id,
            config,
        })
    }

    async fn build_sandbox(self: &Arc<Self>, record: SandboxRecord) -> Result<()> {
        let id = record.id.clone();
        let folder = self.folders.sandbox(&id);
        self.sandboxes.lock().insert(id.clone(), record.clone());
        let runtime = self.clone();
        let cgroup = {
            let (record, folder) = (record.clone(), folder.clone());
            blocking(move || runtime.prepare_sandbox(&record, &folder)).await?
        };
        let request = Sandbox {
            id: id.clone(),
            net: record.net.clone(),
            ipc: record.ipc.clone(),
            uts: record.uts.clone(),
            hostname: record.hostname.clone(),
            sysctls: record.config.linux.sysctls.clone(),
            shm: record.shm.clone().map(|path| (path, SHM_SIZE)),
            shared_pid: record.shared_pid,
            cgroup,
            users: record.users(),
        };
        self.call(Request::Sandbox(Box::new(request))).await?;
        let mut ips = Vec::new();
        if let Some(request) = record.network_request() {
            let set_up = self.network.set_up(&request).await;
            ips = set_up.map_err(|error| CriError::Internal(format!("failed to setup network for sandbox {id:?}: {error}")))?;
        }
        self.update_sandbox(&id, |record| {
            record.ips = ips.iter().map(ToString::to_string).collect();
            record.ready = true;
        });
        Ok(())
    }

    /// Folders and files, and the cgroup of the process that holds a shared PID namespace.
    fn prepare_sandbox(&self, record: &SandboxRecord, folder: &Path) -> Result<spec::Cgroup> {
        std::fs::create_dir_all(folder)?;
        save(folder, record)?;
        let files = record.files.as_deref().unwrap_or(folder);
        std::fs::create_dir_all(files)?;
        if let Some(shm) = &record.shm {
            std::fs::create_dir_all(shm)?;
        }
        std::fs::write(files.join("hostname"), format!("{}\n", record.hostname))?;
        std::fs::write(files.join("resolv.conf"), resolv_conf(record.config.dns_config.as_ref())?)?;
        std::fs::copy("/etc/hosts", files.join("hosts"))
            .map(drop)
            .or_else(|_| std::fs::write(files.join("hosts"), "127.0.0.1 localhost\n"))?;
        if !record.config.log_directory.is_empty() {
            std::fs::create_dir_all(&record.config.log_directory)?;
        }
        let parent = self.group(&record.config.linux.cgroup_parent);
        parent.create().map_err(CriError::internal)?;
        if !record.shared_pid {
            return Ok(spec::Cgroup::default());
        }
        let own = parent.child(&record.id);
        own.create().map_err(CriError::internal)?;
        own.apply(&plan::resource_limits(&LinuxContainerResources { cpu_shares: 2, ..Default::default() })).map_err(CriError::internal)?;
        Ok(plan::cgroup(&own))
    }

    pub(super) async fn stop_sandbox(self: &Arc<Self>, id: &str) -> Result<()> {
        let Ok(record) = self.sandbox(id) else { return Ok(()) };
        for container in self.containers_of(id) {
            self.stop_container(&container, Duration::ZERO).await?;
        }
        if let Some(request) = record.network_request() {
            let down = self.network.tear_down(&request).await;
            down.map_err(|error| CriError::Internal(format!("failed to destroy network for sandbox {id:?}: {error}")))?;
        }
        self.call(Request::Forget { id: id.into() }).await?;
        let group = self.group(&record.config.linux.cgroup_parent).child(id);
        let pinned: Vec<PathBuf> =
            [&record.net, &record.ipc, &record.uts, &record.user, &record.shm].into_iter().flatten().cloned().collect();
        blocking(move || {
            pinned.iter().try_for_each(|path| mount::detach(path))?;
            group.remove().map_err(CriError::internal)
        })
        .await?;
        if record.ready {
            self.update_sandbox(id, |record| record.ready = false);
            self.announce(id, id, ContainerEventType::Stopped);
        }
        Ok(())
    }

    pub(super) async fn remove_sandbox(self: &Arc<Self>, id: &str) -> Result<()> {
        if self.sandbox(id).is_err() {
            return Ok(());
        }
        self.stop_sandbox(id).await?;
        for container in self.containers_of(id) {
            self.remove_container(&container).await?;
        }
        let folders = [self.folders.passing(id), self.folders.sandbox(id)];
        blocking(move || folders.iter().try_for_each(|folder| remove_folder(folder))).await?;
        self.announce(id, id, ContainerEventType::Deleted);
        self.sandboxes.lock().remove(id);
        Ok(())
    }
}

fn wants_users(options: &NamespaceOption) -> bool {
    options.userns_options.as_ref().is_some_and(|users| users.mode == NamespaceMode::Pod && !users.uids.is_empty())
}

/// Removes a folder of ours; its own gone-ness is success.
pub(super) fn remove_folder(folder: &Path) -> Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(CriError::Internal(format!("cannot remove {}: {error}", folder.display())))
        }
        _ => Ok(()),
    }
}

/// Without a word about DNS the host's file is copied.
fn resolv_conf(dns: Option<&DnsConfig>) -> Result<String> {
    let Some(dns) = dns else { return Ok(std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default()) };
    let mut text = String::new();
    if !dns.searches.is_empty() {
        text += &format!("search {}\n", dns.searches.join(" "));
    }
    for server in &dns.servers {
        text += &format!("nameserver {server}\n");
    }
    if !dns.options.is_empty() {
        text += &format!("options {}\n", dns.options.join(" "));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_says_what_the_pod_asked_for() {
        let list = |items: &[&str]| items.iter().map(|item| (*item).to_owned()).collect();
        let dns = DnsConfig { servers: list(&["10.0.0.1", "10.0.0.2"]), searches: list(&["a.b", "c"]), options: list(&["ndots:5"]) };
        assert_eq!(resolv_conf(Some(&dns)).unwrap(), "search a.b c\nnameserver 10.0.0.1\nnameserver 10.0.0.2\noptions ndots:5\n");
        assert_eq!(resolv_conf(Some(&DnsConfig::default())).unwrap(), "");
    }
}
