//! The messages. All of them serialize, since the embedded runtime keeps configurations on disk.
//! Times are nanoseconds since the epoch, as in `runtime.v1`; zero means "not yet".

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

macro_rules! messages {
    ($($(#[$meta:meta])* $name:ident { $($(#[$fmeta:meta])* $field:ident: $ty:ty,)* })*) => {
        $($(#[$meta])*
        #[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
        #[serde(default)]
        pub struct $name { $($(#[$fmeta])* pub $field: $ty,)* })*
    };
}

macro_rules! enumerations {
    ($($(#[$meta:meta])* $name:ident { $first:ident, $($rest:ident,)* })*) => {
        $($(#[$meta])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name { #[default] $first, $($rest,)* })*
    };
}

pub type Map = BTreeMap<String, String>;

enumerations! {
    Protocol { Tcp, Udp, Sctp, }
    MountPropagation { Private, HostToContainer, Bidirectional, }
    /// Whose namespace a container uses. `Target` names a container by id.
    NamespaceMode { Pod, Container, Node, Target, }
    /// Whether groups of the image's /etc/group count too (KEP-3619).
    SupplementalGroupsPolicy { Merge, Strict, }
    ProfileType { RuntimeDefault, Unconfined, Localhost, }
    PodSandboxState { Ready, NotReady, }
    ContainerState { Created, Running, Exited, Unknown, }
    ContainerEventType { Created, Started, Stopped, Deleted, }
}

messages! {
    VersionResponse { version: String, runtime_name: String, runtime_version: String, runtime_api_version: String, }
    /// What /etc/resolv.conf says in the pod.
    DnsConfig { servers: Vec<String>, searches: Vec<String>, options: Vec<String>, }
    PortMapping { protocol: Protocol, container_port: i32, host_port: i32, host_ip: String, }
    Mount {
        container_path: String,
        host_path: String,
        readonly: bool,
        propagation: MountPropagation,
        uid_mappings: Vec<IdMapping>,
        gid_mappings: Vec<IdMapping>,
        recursive_read_only: bool,
        /// An image volume: the image is mounted instead of `host_path`.
        image: Option<ImageSpec>,
        image_sub_path: String,
    }
    IdMapping { host_id: u32, container_id: u32, length: u32, }
    UserNamespace { mode: NamespaceMode, uids: Vec<IdMapping>, gids: Vec<IdMapping>, }
    NamespaceOption {
        network: NamespaceMode,
        pid: NamespaceMode,
        ipc: NamespaceMode,
        target_id: String,
        userns_options: Option<UserNamespace>,
    }
    SecurityProfile { profile_type: ProfileType, localhost_ref: String, }
    LinuxSandboxSecurityContext {
        namespace_options: NamespaceOption,
        run_as_user: Option<i64>,
        run_as_group: Option<i64>,
        readonly_rootfs: bool,
        supplemental_groups: Vec<i64>,
        supplemental_groups_policy: SupplementalGroupsPolicy,
        privileged: bool,
        seccomp: Option<SecurityProfile>,
        apparmor: Option<SecurityProfile>,
    }
    LinuxPodSandboxConfig {
        /// Relative to the cgroup root, e.g. `/kubepods/burstable/pod<uid>`; the kubelet has made it.
        cgroup_parent: String,
        security_context: LinuxSandboxSecurityContext,
        sysctls: Map,
        overhead: Option<LinuxContainerResources>,
        resources: Option<LinuxContainerResources>,
    }
    PodSandboxMetadata { name: String, uid: String, namespace: String, attempt: u32, }
    PodSandboxConfig {
        metadata: PodSandboxMetadata,
        hostname: String,
        log_directory: String,
        dns_config: Option<DnsConfig>,
        port_mappings: Vec<PortMapping>,
        labels: Map,
        annotations: Map,
        linux: LinuxPodSandboxConfig,
    }
    PodSandboxStatus {
        id: String,
        metadata: PodSandboxMetadata,
        state: PodSandboxState,
        created_at: i64,
        /// The pod's addresses, the primary one first; empty on the host's network.
        ips: Vec<String>,
        namespaces: NamespaceOption,
        labels: Map,
        annotations: Map,
        runtime_handler: String,
    }
    /// Absent conditions match everything.
    PodSandboxFilter { id: Option<String>, state: Option<PodSandboxState>, label_selector: Map, }
    PodSandbox {
        id: String,
        metadata: PodSandboxMetadata,
        state: PodSandboxState,
        created_at: i64,
        labels: Map,
        annotations: Map,
        runtime_handler: String,
    }
    /// `image` is what the pod asked for or an id; `user_specified_image` is the pod's own words.
    ImageSpec { image: String, annotations: Map, user_specified_image: String, runtime_handler: String, image_ref: String, }
    HugepageLimit { page_size: String, limit: u64, }
    LinuxContainerResources {
        cpu_period: i64,
        cpu_quota: i64,
        cpu_shares: i64,
        memory_limit_in_bytes: i64,
        oom_score_adj: i64,
        cpuset_cpus: String,
        cpuset_mems: String,
        hugepage_limits: Vec<HugepageLimit>,
        /// Files of cgroup v2 by name; ignored on v1.
        unified: Map,
        memory_swap_limit_in_bytes: i64,
    }
    Capability { add_capabilities: Vec<String>, drop_capabilities: Vec<String>, add_ambient_capabilities: Vec<String>, }
    LinuxContainerSecurityContext {
        capabilities: Option<Capability>,
        privileged: bool,
        namespace_options: NamespaceOption,
        run_as_user: Option<i64>,
        run_as_group: Option<i64>,
        run_as_username: String,
        readonly_rootfs: bool,
        supplemental_groups: Vec<i64>,
        supplemental_groups_policy: SupplementalGroupsPolicy,
        no_new_privs: bool,
        masked_paths: Vec<String>,
        readonly_paths: Vec<String>,
        /// None means unconfined.
        seccomp: Option<SecurityProfile>,
        apparmor: Option<SecurityProfile>,
    }
    LinuxContainerConfig { resources: Option<LinuxContainerResources>, security_context: LinuxContainerSecurityContext, }
    ContainerMetadata { name: String, attempt: u32, }
    Device { container_path: String, host_path: String, permissions: String, }
    KeyValue { key: String, value: String, }
    ContainerConfig {
        metadata: ContainerMetadata,
        image: ImageSpec,
        command: Vec<String>,
        args: Vec<String>,
        working_dir: String,
        envs: Vec<KeyValue>,
        mounts: Vec<Mount>,
        devices: Vec<Device>,
        labels: Map,
        annotations: Map,
        /// Relative to the sandbox's log directory.
        log_path: String,
        stdin: bool,
        stdin_once: bool,
        tty: bool,
        linux: LinuxContainerConfig,
        /// `SIGTERM`, `SIGRTMIN+3`, …; empty means the image's, or SIGTERM.
        stop_signal: String,
    }
    ContainerFilter { id: Option<String>, state: Option<ContainerState>, pod_sandbox_id: Option<String>, label_selector: Map, }
    Container {
        id: String,
        pod_sandbox_id: String,
        metadata: ContainerMetadata,
        image: ImageSpec,
        image_ref: String,
        image_id: String,
        state: ContainerState,
        created_at: i64,
        labels: Map,
        annotations: Map,
    }
    LinuxContainerUser { uid: i64, gid: i64, supplemental_groups: Vec<i64>, }
    ContainerStatus {
        id: String,
        /// Not in `runtime.v1`: saves the kubelet a look-up.
        pod_sandbox_id: String,
        metadata: ContainerMetadata,
        state: ContainerState,
        created_at: i64,
        started_at: i64,
        finished_at: i64,
        exit_code: i32,
        image: ImageSpec,
        image_ref: String,
        image_id: String,
        /// `Completed`, `Error`, `OOMKilled`, `StartError`, `ContainerCannotRun`, … once it has ended.
        reason: String,
        message: String,
        labels: Map,
        annotations: Map,
        mounts: Vec<Mount>,
        log_path: String,
        resources: Option<LinuxContainerResources>,
        user: Option<LinuxContainerUser>,
        stop_signal: String,
    }
    ExecSyncResponse { stdout: Vec<u8>, stderr: Vec<u8>, exit_code: i32, }
    Image {
        id: String,
        repo_tags: Vec<String>,
        repo_digests: Vec<String>,
        size: u64,
        /// The image's numeric USER, or None when it is a name (then in `username`) or not set.
        uid: Option<i64>,
        username: String,
        spec: ImageSpec,
        pinned: bool,
    }
    AuthConfig {
        username: String,
        password: String,
        auth: String,
        server_address: String,
        identity_token: String,
        registry_token: String,
    }
    RuntimeCondition { r#type: String, status: bool, reason: String, message: String, }
    RuntimeHandler { name: String, recursive_read_only_mounts: bool, user_namespaces: bool, }
    RuntimeStatus {
        /// `RuntimeReady` and `NetworkReady`.
        conditions: Vec<RuntimeCondition>,
        handlers: Vec<RuntimeHandler>,
        supplemental_groups_policy: bool,
    }
    FilesystemUsage { timestamp: i64, mountpoint: String, used_bytes: u64, inodes_used: u64, }
    ImageFsInfo { image_filesystems: Vec<FilesystemUsage>, container_filesystems: Vec<FilesystemUsage>, }
    ContainerStatsFilter { id: Option<String>, pod_sandbox_id: Option<String>, label_selector: Map, }
    PodSandboxStatsFilter { id: Option<String>, label_selector: Map, }
    ContainerAttributes { id: String, metadata: ContainerMetadata, labels: Map, annotations: Map, }
    PodSandboxAttributes { id: String, metadata: PodSandboxMetadata, labels: Map, annotations: Map, }
    CpuUsage { timestamp: i64, usage_core_nano_seconds: u64, usage_nano_cores: Option<u64>, }
    MemoryUsage {
        timestamp: i64,
        working_set_bytes: u64,
        /// None without a limit.
        available_bytes: Option<u64>,
        usage_bytes: u64,
        rss_bytes: u64,
        page_faults: u64,
        major_page_faults: u64,
    }
    SwapUsage { timestamp: i64, swap_available_bytes: Option<u64>, swap_usage_bytes: u64, }
    ContainerStats {
        attributes: ContainerAttributes,
        cpu: CpuUsage,
        memory: MemoryUsage,
        writable_layer: Option<FilesystemUsage>,
        swap: Option<SwapUsage>,
    }
    NetworkInterfaceUsage { name: String, rx_bytes: u64, rx_errors: u64, tx_bytes: u64, tx_errors: u64, }
    NetworkUsage { timestamp: i64, interfaces: Vec<NetworkInterfaceUsage>, }
    PodSandboxStats {
        attributes: PodSandboxAttributes,
        cpu: CpuUsage,
        memory: MemoryUsage,
        /// The default interface first. None on the host's network.
        network: Option<NetworkUsage>,
        process_count: u64,
        containers: Vec<ContainerStats>,
    }
    /// Something happened to a container or (with the sandbox's id) to a sandbox. Carries the state right after it.
    ContainerEvent {
        container_id: String,
        event_type: ContainerEventType,
        created_at: i64,
        pod_sandbox_status: Option<PodSandboxStatus>,
        containers_statuses: Vec<ContainerStatus>,
    }
}
