//! Security contexts: the pod's and the container's merged, into the CRI's words. Pure.

use crate::pod::spec;
use tiphys_cri as cri;
use tiphys_types::api::core::v1::{AppArmorProfile, Capabilities, Container, Pod, PodSecurityContext, SeccompProfile, SecurityContext};

/// Hidden and read-only below /proc and /sys unless procMount is Unmasked.
const MASKED: [&str; 11] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
];
const MASKED_TOO: [&str; 1] = ["/sys/devices/virtual/powercap"];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

fn of_pod(pod: &Pod) -> Option<&PodSecurityContext> {
    spec::spec(pod).security_context.as_ref()
}

fn of_container(container: &Container) -> Option<&SecurityContext> {
    container.security_context.as_ref()
}

pub(crate) fn run_as_user(pod: &Pod, container: &Container) -> Option<i64> {
    of_container(container).and_then(|s| s.run_as_user).or_else(|| of_pod(pod)?.run_as_user)
}

pub(crate) fn fs_group(pod: &Pod) -> Option<i64> {
    of_pod(pod)?.fs_group
}

/// The user of a pod's containers, if they all have the same: owner of projected service account tokens.
pub(crate) fn common_user(pod: &Pod) -> Option<i64> {
    let mut users = spec::init_containers(pod).iter().chain(spec::containers(pod)).map(|c| run_as_user(pod, c));
    let first = users.next()??;
    users.all(|user| user == Some(first)).then_some(first)
}

/// Whom an image runs as when the pod does not say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ImageUser {
    pub(crate) uid: Option<i64>,
    pub(crate) name: String,
}

pub(crate) fn namespaces(pod: &Pod) -> cri::NamespaceOption {
    let spec = spec::spec(pod);
    let on_host = |flag: Option<bool>, otherwise| if flag == Some(true) { cri::NamespaceMode::Node } else { otherwise };
    let own_pid = if spec.share_process_namespace == Some(true) { cri::NamespaceMode::Pod } else { cri::NamespaceMode::Container };
    cri::NamespaceOption {
        network: on_host(spec.host_network, cri::NamespaceMode::Pod),
        pid: on_host(spec.host_pid, own_pid),
        ipc: on_host(spec.host_ipc, cri::NamespaceMode::Pod),
        target_id: String::new(),
        userns_options: None,
    }
}

fn groups(pod: &Pod) -> Vec<i64> {
    let Some(context) = of_pod(pod) else { return Vec::new() };
    context.fs_group.into_iter().chain(context.supplemental_groups.iter().flatten().copied()).collect()
}

fn groups_policy(pod: &Pod) -> cri::SupplementalGroupsPolicy {
    match of_pod(pod).and_then(|c| c.supplemental_groups_policy.as_deref()) {
        Some("Strict") => cri::SupplementalGroupsPolicy::Strict,
        _ => cri::SupplementalGroupsPolicy::Merge,
    }
}

pub(crate) fn sandbox(pod: &Pod) -> cri::LinuxSandboxSecurityContext {
    let context = of_pod(pod);
    let all = || spec::init_containers(pod).iter().chain(spec::containers(pod));
    cri::LinuxSandboxSecurityContext {
        namespace_options: namespaces(pod),
        run_as_user: context.and_then(|c| c.run_as_user),
        run_as_group: context.and_then(|c| c.run_as_group),
        readonly_rootfs: false,
        supplemental_groups: groups(pod),
        supplemental_groups_policy: groups_policy(pod),
        privileged: all().any(|c| of_container(c).and_then(|s| s.privileged) == Some(true)),
        seccomp: Some(cri::SecurityProfile { profile_type: cri::ProfileType::RuntimeDefault, localhost_ref: String::new() }),
        apparmor: None,
    }
}

/// Errors are the words of events and statuses (`CreateContainerConfigError`).
pub(crate) fn container(
    pod: &Pod,
    container: &Container,
    image: &ImageUser,
    seccomp_folder: &str,
) -> Result<cri::LinuxContainerSecurityContext, String> {
    verify_non_root(pod, container, image)?;
    let (own, of_pod) = (of_container(container), of_pod(pod));
    let user = run_as_user(pod, container);
    let privileged = own.and_then(|s| s.privileged) == Some(true);
    let unmasked = own.and_then(|s| s.proc_mount.as_deref()) == Some("Unmasked") || privileged;
    let owned = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
    let paths = |list: Vec<String>| if unmasked { Vec::new() } else { list };
    let seccomp = own.and_then(|s| s.seccomp_profile.as_ref()).or_else(|| of_pod?.seccomp_profile.as_ref());
    let apparmor = own.and_then(|s| s.app_armor_profile.as_ref()).or_else(|| of_pod?.app_armor_profile.as_ref());
    Ok(cri::LinuxContainerSecurityContext {
        capabilities: own.and_then(|s| s.capabilities.as_ref()).map(capabilities),
        privileged,
        namespace_options: namespaces(pod),
        run_as_user: user.or(image.uid),
        run_as_group: own.and_then(|s| s.run_as_group).or_else(|| of_pod?.run_as_group),
        run_as_username: if user.is_none() && image.uid.is_none() { image.name.clone() } else { String::new() },
        readonly_rootfs: own.and_then(|s| s.read_only_root_filesystem) == Some(true),
        supplemental_groups: groups(pod),
        supplemental_groups_policy: groups_policy(pod),
        no_new_privs: own.and_then(|s| s.allow_privilege_escalation) == Some(false),
        masked_paths: paths([owned(&MASKED), owned(&MASKED_TOO)].concat()),
        readonly_paths: paths(owned(&READ_ONLY)),
        seccomp: if privileged { None } else { seccomp.map(|p| profile(p, seccomp_folder)) },
        apparmor: apparmor.map(apparmor_profile),
    })
}

fn capabilities(given: &Capabilities) -> cri::Capability {
    cri::Capability {
        add_capabilities: given.add.clone().unwrap_or_default(),
        drop_capabilities: given.drop.clone().unwrap_or_default(),
        add_ambient_capabilities: Vec::new(),
    }
}

fn profile(given: &SeccompProfile, folder: &str) -> cri::SecurityProfile {
    let profile_type = profile_type(&given.type_);
    let file = given.localhost_profile.as_deref().filter(|_| profile_type == cri::ProfileType::Localhost);
    cri::SecurityProfile { profile_type, localhost_ref: file.map(|f| format!("{folder}/{f}")).unwrap_or_default() }
}

fn apparmor_profile(given: &AppArmorProfile) -> cri::SecurityProfile {
    cri::SecurityProfile { profile_type: profile_type(&given.type_), localhost_ref: given.localhost_profile.clone().unwrap_or_default() }
}

fn profile_type(name: &str) -> cri::ProfileType {
    match name {
        "Localhost" => cri::ProfileType::Localhost,
        "RuntimeDefault" => cri::ProfileType::RuntimeDefault,
        _ => cri::ProfileType::Unconfined,
    }
}

fn verify_non_root(pod: &Pod, container: &Container, image: &ImageUser) -> Result<(), String> {
    let wanted = of_container(container).and_then(|s| s.run_as_non_root).or_else(|| of_pod(pod)?.run_as_non_root);
    if wanted != Some(true) {
        return Ok(());
    }
    let place = format!("(pod: {:?}, container: {})", spec::format(pod), container.name);
    match (run_as_user(pod, container), image.uid, image.name.as_str()) {
        (Some(0), _, _) => Err(format!("container's runAsUser breaks non-root policy {place}")),
        (Some(_), _, _) => Ok(()),
        (None, None, name) if !name.is_empty() => {
            Err(format!("container has runAsNonRoot and image has non-numeric user ({name}), cannot verify user is non-root {place}"))
        }
        // An image without a user runs as root.
        (None, None | Some(0), _) => Err(format!("container has runAsNonRoot and image will run as root {place}")),
        (None, Some(_), _) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn run(pod_context: Value, own: Value, image: ImageUser) -> Result<cri::LinuxContainerSecurityContext, String> {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"},
            "spec": {"securityContext": pod_context, "containers": [{"name": "c", "securityContext": own}]}}))
        .expect("a pod");
        container(&pod, &spec::containers(&pod)[0], &image, "/seccomp")
    }

    #[test]
    fn the_container_outweighs_the_pod() {
        let got = run(
            json!({"runAsUser": 1, "runAsGroup": 2, "fsGroup": 3, "supplementalGroups": [4]}),
            json!({"runAsUser": 9}),
            ImageUser::default(),
        );
        let got = got.expect("fine");
        assert_eq!((got.run_as_user, got.run_as_group, got.supplemental_groups), (Some(9), Some(2), vec![3, 4]));
    }

    #[test]
    fn non_root_is_verified() {
        let image = |uid, name: &str| ImageUser { uid, name: name.into() };
        let wanted = json!({"runAsNonRoot": true});
        assert_eq!(run(wanted.clone(), json!({}), image(Some(5), "")).map(|c| c.run_as_user), Ok(Some(5)));
        let text = |r: Result<_, String>| r.expect_err("refused");
        assert_eq!(
            text(run(wanted.clone(), json!({}), image(Some(0), ""))),
            "container has runAsNonRoot and image will run as root (pod: \"p_n(u)\", container: c)"
        );
        assert!(text(run(wanted.clone(), json!({}), image(None, "app"))).contains("non-numeric user (app)"));
        assert!(text(run(wanted, json!({"runAsUser": 0}), image(Some(5), ""))).starts_with("container's runAsUser breaks"));
    }
}
