//! From the CRI's words to a description that the supervisor carries out: a pure function of what is known.

use std::path::{Path, PathBuf};

use tiphys_cgroups::{Cgroup, DeviceRule, Hierarchy, Limits, Version};
use tiphys_cri::{
    ContainerConfig, CriError, LinuxContainerResources, Mount as CriMount, MountPropagation, NamespaceMode, ProfileType, Result,
    SecurityProfile,
};
use tiphys_sys::caps::CapSet;

use super::state::SandboxRecord;
use crate::images::ImageConfig;
use crate::oci::spec::{self, DeviceNode, Launch, Mount, MountKind, Namespaces, PidNamespace, Process, Propagation};
use crate::oci::users::User;
use crate::oci::{caps, devices, seccomp};

/// Everything that goes into a container.
pub(super) struct Inputs<'a> {
    pub(super) id: &'a str,
    pub(super) sandbox: &'a SandboxRecord,
    pub(super) sandbox_folder: &'a Path,
    pub(super) config: &'a ContainerConfig,
    pub(super) image: &'a ImageConfig,
    pub(super) user: &'a User,
    pub(super) rootfs: PathBuf,
    pub(super) group: &'a Cgroup,
    pub(super) hierarchy: &'a Hierarchy,
    /// Host paths of image volumes, in the order of the mounts that have an image.
    pub(super) image_mounts: &'a [PathBuf],
}

pub(super) fn launch(inputs: &Inputs<'_>) -> Result<Launch> {
    let config = inputs.config;
    let security = &config.linux.security_context;
    let capabilities = capabilities(inputs)?;
    let mut nodes = devices::default_nodes();
    nodes.extend(device_nodes(config)?.into_iter().map(|(node, _)| node));
    Ok(Launch {
        id: inputs.id.to_owned(),
        rootfs: inputs.rootfs.clone(),
        readonly_rootfs: security.readonly_rootfs,
        namespaces: namespaces(inputs),
        mounts: mounts(inputs)?,
        masked_paths: if security.privileged { Vec::new() } else { security.masked_paths.clone() },
        readonly_paths: if security.privileged { Vec::new() } else { security.readonly_paths.clone() },
        devices: nodes,
        cgroup: cgroup(inputs.group),
        process: process(inputs, capabilities)?,
        log_path: log_path(inputs),
        stdin: config.stdin,
        stdin_once: config.stdin_once,
        outside: inputs.sandbox.outside(inputs.user.uid, inputs.user.gid),
    })
}

pub(super) fn cgroup(group: &Cgroup) -> spec::Cgroup {
    let plan = group.join_plan();
    spec::Cgroup { path: group.path().to_owned(), born_into: plan.born_into, tasks: plan.tasks }
}

fn log_path(inputs: &Inputs<'_>) -> Option<PathBuf> {
    let folder = &inputs.sandbox.config.log_directory;
    (!folder.is_empty() && !inputs.config.log_path.is_empty()).then(|| Path::new(folder).join(&inputs.config.log_path))
}

fn capabilities(inputs: &Inputs<'_>) -> Result<CapSet> {
    let security = &inputs.config.linux.security_context;
    let wanted = security.capabilities.clone().unwrap_or_default();
    caps::container_set(security.privileged, &wanted.add_capabilities, &wanted.drop_capabilities).map_err(CriError::InvalidArgument)
}

fn namespaces(inputs: &Inputs<'_>) -> Namespaces {
    let options = &inputs.config.linux.security_context.namespace_options;
    let pid = match options.pid {
        NamespaceMode::Node => PidNamespace::Host,
        NamespaceMode::Target => PidNamespace::Of(options.target_id.clone()),
        NamespaceMode::Pod if inputs.sandbox.shared_pid => PidNamespace::Of(inputs.sandbox.id.clone()),
        NamespaceMode::Pod | NamespaceMode::Container => PidNamespace::New,
    };
    Namespaces {
        net: inputs.sandbox.net.clone(),
        ipc: inputs.sandbox.ipc.clone(),
        uts: inputs.sandbox.uts.clone(),
        user: inputs.sandbox.user.clone(),
        pid,
        cgroup: inputs.hierarchy.version() == Version::V2,
    }
}

fn process(inputs: &Inputs<'_>, capabilities: CapSet) -> Result<Process> {
    let (config, image) = (inputs.config, inputs.image);
    let security = &config.linux.security_context;
    let args = arguments(config, image);
    if args.is_empty() {
        return Err(CriError::InvalidArgument("no command specified".into()));
    }
    let (seccomp, seccomp_flags) = filter(security.seccomp.as_ref().filter(|_| !security.privileged), capabilities)?;
    let resources = config.linux.resources.clone().unwrap_or_default();
    let ambient = security.capabilities.iter().flat_map(|wanted| &wanted.add_ambient_capabilities);
    let cwd = [&config.working_dir, &image.working_dir].into_iter().find(|dir| !dir.is_empty());
    Ok(Process {
        args,
        env: environment(inputs),
        cwd: cwd.cloned().unwrap_or_else(|| "/".into()),
        uid: inputs.user.uid,
        gid: inputs.user.gid,
        groups: inputs.user.groups.clone(),
        capabilities: capabilities.0,
        ambient: ambient.filter_map(|name| CapSet::by_name(name)).fold(CapSet::default(), CapSet::with).0,
        seccomp,
        seccomp_flags,
        no_new_privs: security.no_new_privs,
        rlimits: Vec::new(),
        oom_score_adj: Some(resources.oom_score_adj),
        tty: config.tty,
    })
}

/// The pod's command replaces the image's entrypoint and its arguments; the pod's arguments alone replace only the latter.
fn arguments(config: &ContainerConfig, image: &ImageConfig) -> Vec<String> {
    let arguments = match (config.command.is_empty(), config.args.is_empty()) {
        (true, true) => &image.cmd,
        _ => &config.args,
    };
    let command = if config.command.is_empty() { &image.entrypoint } else { &config.command };
    command.iter().chain(arguments).cloned().collect()
}

fn environment(inputs: &Inputs<'_>) -> Vec<String> {
    let mut env: Vec<String> = inputs.image.env.clone();
    let mut set = |key: &str, value: &str, keep: bool| {
        let old = env.iter().position(|entry| entry.split_once('=').is_some_and(|(name, _)| name == key));
        match old {
            Some(_) if keep => {}
            Some(index) => env[index] = format!("{key}={value}"),
            None => env.push(format!("{key}={value}")),
        }
    };
    set("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", true);
    if inputs.config.tty {
        set("TERM", "xterm", true);
    }
    set("HOSTNAME", &inputs.sandbox.hostname, false);
    for pair in &inputs.config.envs {
        set(&pair.key, &pair.value, false);
    }
    set("HOME", &inputs.user.home, true);
    env
}

fn filter(profile: Option<&SecurityProfile>, capabilities: CapSet) -> Result<(Vec<u64>, u32)> {
    let invalid = |error: seccomp::SeccompError| CriError::InvalidArgument(error.to_string());
    let profile = match profile.map(|profile| (profile.profile_type, profile.localhost_ref.as_str())) {
        None | Some((ProfileType::Unconfined, _)) => return Ok(Default::default()),
        Some((ProfileType::RuntimeDefault, _)) => seccomp::default_profile(capabilities),
        Some((ProfileType::Localhost, path)) => {
            let path = path.strip_prefix("localhost/").unwrap_or(path);
            let text =
                std::fs::read(path).map_err(|error| CriError::InvalidArgument(format!("cannot load seccomp profile {path:?}: {error}")))?;
            seccomp::Profile::parse(&text).map_err(invalid)?
        }
    };
    Ok((seccomp::pack(&seccomp::compile(&profile).map_err(invalid)?), profile.flags))
}

fn device_nodes(config: &ContainerConfig) -> Result<Vec<(DeviceNode, String)>> {
    let all = if config.linux.security_context.privileged { devices::all_host_nodes() } else { Vec::new() };
    let mut nodes: Vec<(DeviceNode, String)> = all.into_iter().map(|node| (node, "rwm".to_owned())).collect();
    for device in &config.devices {
        let node = devices::host_node(Path::new(&device.host_path), &device.container_path);
        let node = node.map_err(|error| CriError::InvalidArgument(format!("device {}: {error}", device.host_path)))?;
        nodes.push((node, device.permissions.clone()));
    }
    Ok(nodes)
}

/// What the container's cgroup allows, limits and devices.
pub(super) fn limits(config: &ContainerConfig) -> Result<Limits> {
    let mut limits = resource_limits(&config.linux.resources.clone().unwrap_or_default());
    limits.devices =
        Some(if config.linux.security_context.privileged { vec![DeviceRule::EVERYTHING] } else { devices::rules(&device_nodes(config)?) });
    Ok(limits)
}

/// Zero and empty are "as it is", as the CRI has it.
pub(super) fn resource_limits(resources: &LinuxContainerResources) -> Limits {
    let set = |value: i64| (value != 0).then_some(value);
    let text = |text: &String| (!text.is_empty()).then(|| text.clone());
    Limits {
        cpu_shares: set(resources.cpu_shares).map(|shares| shares.max(2) as u64),
        cpu_quota: set(resources.cpu_quota),
        cpu_period: set(resources.cpu_period).map(|period| period as u64),
        memory: set(resources.memory_limit_in_bytes),
        memory_swap: set(resources.memory_swap_limit_in_bytes),
        pids: None,
        hugepages: resources.hugepage_limits.iter().map(|limit| (limit.page_size.clone(), limit.limit)).collect(),
        cpuset_cpus: text(&resources.cpuset_cpus),
        cpuset_mems: text(&resources.cpuset_mems),
        devices: None,
        unified: resources.unified.clone(),
    }
}

/// What is in force after a change.
pub(super) fn merge_resources(old: &LinuxContainerResources, new: &LinuxContainerResources) -> LinuxContainerResources {
    let number = |old: i64, new: i64| if new == 0 { old } else { new };
    let text = |old: &String, new: &String| if new.is_empty() { old.clone() } else { new.clone() };
    let mut unified = old.unified.clone();
    unified.extend(new.unified.clone());
    LinuxContainerResources {
        cpu_period: number(old.cpu_period, new.cpu_period),
        cpu_quota: number(old.cpu_quota, new.cpu_quota),
        cpu_shares: number(old.cpu_shares, new.cpu_shares),
        memory_limit_in_bytes: number(old.memory_limit_in_bytes, new.memory_limit_in_bytes),
        oom_score_adj: number(old.oom_score_adj, new.oom_score_adj),
        cpuset_cpus: text(&old.cpuset_cpus, &new.cpuset_cpus),
        cpuset_mems: text(&old.cpuset_mems, &new.cpuset_mems),
        hugepage_limits: if new.hugepage_limits.is_empty() { old.hugepage_limits.clone() } else { new.hugepage_limits.clone() },
        unified,
        memory_swap_limit_in_bytes: number(old.memory_swap_limit_in_bytes, new.memory_swap_limit_in_bytes),
    }
}

fn mounts(inputs: &Inputs<'_>) -> Result<Vec<Mount>> {
    let mut images = inputs.image_mounts.iter();
    let mut wanted: Vec<Mount> = inputs.config.mounts.iter().map(|mount| user_mount(mount, &mut images)).collect::<Result<_>>()?;
    let mut mounts = default_mounts(inputs);
    let own_dev = wanted.iter().any(|mount| clean(&mount.target) == "/dev");
    mounts.retain(|default| {
        let below_dev = own_dev && (default.target == "/dev" || default.target.starts_with("/dev/"));
        !below_dev && wanted.iter().all(|mount| clean(&mount.target) != default.target)
    });
    // Shallow before deep: a mount over a folder would hide those made below it before. Stable among equals.
    wanted.sort_by_key(|mount| mount.target.split('/').filter(|part| !part.is_empty()).count());
    mounts.extend(wanted);
    Ok(mounts)
}

fn clean(path: &str) -> &str {
    path.trim_end_matches('/')
}

fn bind(source: PathBuf, target: &str, readonly: bool) -> Mount {
    Mount {
        target: target.into(),
        kind: MountKind::Bind { source, readonly, recursive_readonly: false, propagation: Propagation::Private, idmap: true },
    }
}

fn default_mounts(inputs: &Inputs<'_>) -> Vec<Mount> {
    let security = &inputs.config.linux.security_context;
    let plain = |target: &str, kind| Mount { target: target.into(), kind };
    let mut mounts = vec![
        plain("/proc", MountKind::Proc),
        plain("/dev", MountKind::Devices),
        plain("/dev/pts", MountKind::Devpts),
        plain("/dev/mqueue", MountKind::Mqueue),
        plain("/sys", MountKind::Sysfs { readonly: !security.privileged }),
        plain("/sys/fs/cgroup", cgroup_mount(inputs, !security.privileged)),
        shared_memory(inputs),
    ];
    for (file, target) in [("hostname", "/etc/hostname"), ("hosts", "/etc/hosts"), ("resolv.conf", "/etc/resolv.conf")] {
        mounts.push(bind(inputs.sandbox_folder.join(file), target, security.readonly_rootfs));
    }
    mounts
}

/// Its owner is the pod's root already.
fn shared_memory(inputs: &Inputs<'_>) -> Mount {
    let mut mount = bind(inputs.sandbox.shm.clone().unwrap_or_else(|| "/dev/shm".into()), "/dev/shm", false);
    if let MountKind::Bind { idmap, .. } = &mut mount.kind {
        *idmap = false;
    }
    mount
}

fn cgroup_mount(inputs: &Inputs<'_>, readonly: bool) -> MountKind {
    if inputs.hierarchy.version() == Version::V2 {
        return MountKind::Cgroup2 { readonly };
    }
    let folder = |name: &String| Some((name.clone(), inputs.group.folder(name)?));
    MountKind::Cgroup1 { folders: inputs.hierarchy.controllers().iter().filter_map(folder).collect(), readonly }
}

fn user_mount<'a>(mount: &CriMount, images: &mut impl Iterator<Item = &'a PathBuf>) -> Result<Mount> {
    let source = match &mount.image {
        None => PathBuf::from(&mount.host_path),
        Some(_) => images.next().cloned().ok_or_else(|| CriError::Internal("an image volume is not mounted".into()))?,
    };
    if mount.container_path.is_empty() || source.as_os_str().is_empty() {
        return Err(CriError::InvalidArgument(format!("mount of {:?} at {:?} has no path", mount.host_path, mount.container_path)));
    }
    let propagation = match mount.propagation {
        MountPropagation::Private => Propagation::Private,
        MountPropagation::HostToContainer => Propagation::Slave,
        MountPropagation::Bidirectional => Propagation::Shared,
    };
    let readonly = mount.readonly || mount.image.is_some();
    // An image's layers are mapped where they are mounted.
    let idmap = mount.image.is_none();
    let kind = MountKind::Bind { source, readonly, recursive_readonly: mount.recursive_read_only, propagation, idmap };
    Ok(Mount { target: mount.container_path.clone(), kind })
}

#[cfg(test)]
mod tests {
    use tiphys_cri::KeyValue;

    use super::*;

    #[test]
    fn commands_and_arguments() {
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let image = ImageConfig { entrypoint: words("/ep x"), cmd: words("c1 c2"), ..ImageConfig::default() };
        for (command, args, expected) in [("", "", "/ep x c1 c2"), ("", "a", "/ep x a"), ("/cmd", "", "/cmd"), ("/cmd", "a b", "/cmd a b")]
        {
            let config = ContainerConfig { command: words(command), args: words(args), ..ContainerConfig::default() };
            assert_eq!(arguments(&config, &image), words(expected), "{command:?} {args:?}");
        }
    }

    fn with_inputs<T>(config: &ContainerConfig, check: impl FnOnce(&Inputs<'_>) -> T) -> T {
        let hierarchy = Hierarchy::detect().unwrap();
        let group = Cgroup::new(std::sync::Arc::new(hierarchy.clone()), "/x");
        let image = ImageConfig { env: vec!["PATH=/p".into(), "A=1".into()], cmd: vec!["sh".into()], ..ImageConfig::default() };
        let user = User { home: "/home/u".into(), ..User::default() };
        let sandbox = SandboxRecord { hostname: "h".into(), ..SandboxRecord::default() };
        check(&Inputs {
            id: "id",
            sandbox: &sandbox,
            sandbox_folder: Path::new("/s"),
            config,
            image: &image,
            user: &user,
            rootfs: "/r".into(),
            group: &group,
            hierarchy: &hierarchy,
            image_mounts: &[],
        })
    }

    #[test]
    fn the_environment_comes_from_image_sandbox_and_pod() {
        let env = |key: &str, value: &str| KeyValue { key: key.into(), value: value.into() };
        let config = ContainerConfig { envs: vec![env("A", "2"), env("B", "3")], tty: true, ..ContainerConfig::default() };
        let expected = ["PATH=/p", "A=2", "TERM=xterm", "HOSTNAME=h", "B=3", "HOME=/home/u"];
        assert_eq!(with_inputs(&config, environment), expected);
    }

    #[test]
    fn mounts_of_the_pod_replace_the_usual_ones_and_stand_in_order_of_depth() {
        let mount = |target: &str| CriMount { container_path: target.into(), host_path: "/h".into(), ..CriMount::default() };
        let config =
            ContainerConfig { mounts: vec![mount("/a/b"), mount("/etc/hosts"), mount("/a"), mount("/dev/")], ..ContainerConfig::default() };
        let targets = with_inputs(&config, |inputs| mounts(inputs).unwrap().into_iter().map(|mount| mount.target).collect::<Vec<_>>());
        assert_eq!(targets, ["/proc", "/sys", "/sys/fs/cgroup", "/etc/hostname", "/etc/resolv.conf", "/a", "/dev/", "/a/b", "/etc/hosts"]);
    }

    #[test]
    fn zero_changes_nothing() {
        let old = LinuxContainerResources { cpu_shares: 5, memory_limit_in_bytes: 7, ..Default::default() };
        let new = LinuxContainerResources { memory_limit_in_bytes: 9, ..Default::default() };
        let merged = merge_resources(&old, &new);
        assert_eq!((merged.cpu_shares, merged.memory_limit_in_bytes), (5, 9));
        assert_eq!(resource_limits(&new).cpu_shares, None);
    }
}
