//! The checks of the pod security standards, one function each, in the order in which they are told, with the versions of the standards from which
//! they hold.

use std::collections::BTreeSet;

use serde_json::Value;

use super::standard::{Level, Standard, Version};
use crate::admission::tree::{list, text};

/// What is wrong, as `reason (detail)`; none if nothing is.
type Find = fn(&Value) -> Option<String>;

struct Check {
    level: Level,
    /// By the minor version from which it is made so.
    versions: &'static [(u32, Find)],
    /// What baseline asks for less strictly, and what is therefore not asked beside it.
    instead_of: Option<&'static Check>,
}

const fn baseline(versions: &'static [(u32, Find)]) -> Check {
    Check { level: Level::Baseline, versions, instead_of: None }
}

const fn restricted(versions: &'static [(u32, Find)]) -> Check {
    Check { level: Level::Restricted, versions, instead_of: None }
}

const fn instead(of: &'static Check, versions: &'static [(u32, Find)]) -> Check {
    Check { level: Level::Restricted, versions, instead_of: Some(of) }
}

/// By upstream's names of them, those of baseline first.
static CHECKS: [&Check; 19] = [
    &baseline(&[(0, app_armor)]),
    &CAPABILITIES_BASELINE,
    &baseline(&[(0, host_namespaces)]),
    &HOST_PATH_VOLUMES,
    &baseline(&[(0, host_ports)]),
    &baseline(&[(34, probe_hosts)]),
    &baseline(&[(0, privileged)]),
    &PROC_MOUNT,
    &baseline(&[(0, |pod| selinux(pod, 4)), (31, |pod| selinux(pod, 5))]),
    &SECCOMP_BASELINE,
    &baseline(&[(0, |pod| sysctls(pod, 5)), (27, |pod| sysctls(pod, 6)), (29, |pod| sysctls(pod, 10)), (32, |pod| sysctls(pod, 12))]),
    &baseline(&[(0, windows_host_process)]),
    &restricted(&[(8, privilege_escalation), (25, |pod| unless(is_windows, privilege_escalation, pod))]),
    &instead(&CAPABILITIES_BASELINE, &[(22, capabilities_restricted), (25, |pod| unless(is_windows, capabilities_restricted, pod))]),
    &instead(&PROC_MOUNT, &[(35, proc_mount)]),
    &instead(&HOST_PATH_VOLUMES, &[(0, volume_types)]),
    &restricted(&[(0, run_as_non_root), (35, |pod| unless(has_own_users, run_as_non_root, pod))]),
    &restricted(&[(23, run_as_user), (35, |pod| unless(has_own_users, run_as_user, pod))]),
    &instead(&SECCOMP_BASELINE, &[(19, seccomp_restricted), (25, |pod| unless(is_windows, seccomp_restricted, pod))]),
];

static CAPABILITIES_BASELINE: Check = baseline(&[(0, capabilities_baseline)]);
static HOST_PATH_VOLUMES: Check = baseline(&[(0, host_path_volumes)]);
static PROC_MOUNT: Check = baseline(&[(0, proc_mount), (35, |pod| unless(has_own_users, proc_mount, pod))]);
static SECCOMP_BASELINE: Check = baseline(&[(0, seccomp_annotations), (19, seccomp_baseline)]);

impl Check {
    fn at(&self, version: Version) -> Option<Find> {
        let from = |minor: u32| version >= Version::Minor(minor);
        self.versions.iter().rev().find(|(minor, _)| from(*minor)).map(|(_, find)| *find)
    }
}

/// What of a pod breaks a standard.
pub(super) fn run(standard: Standard, pod: &Value) -> Vec<String> {
    let Standard { level, version } = standard;
    let in_force = |check: &&&Check| check.level <= level && check.at(version).is_some();
    let replaced = |check: &Check| CHECKS.iter().filter(in_force).any(|c| c.instead_of.is_some_and(|other| std::ptr::eq(other, check)));
    let checks = CHECKS.iter().filter(in_force).filter(|check| !replaced(check));
    checks.filter_map(|check| check.at(version)).filter_map(|find| find(pod)).collect()
}

fn unless(exempt: fn(&Value) -> bool, find: Find, pod: &Value) -> Option<String> {
    if exempt(pod) { None } else { find(pod) }
}

const CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

const SYSCTLS: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
];

const SELINUX_TYPES: [&str; 5] = ["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"];

const FREE_VOLUMES: [&str; 9] =
    ["configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image", "persistentVolumeClaim", "projected", "secret"];

fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    ["initContainers", "containers", "ephemeralContainers"].into_iter().flat_map(|f| list(&pod["spec"], f))
}

/// Names of the containers that are bad.
fn bad(pod: &Value, is_bad: impl Fn(&Value) -> bool) -> Vec<&str> {
    containers(pod).filter(|c| is_bad(c)).map(|c| text(c, "name")).collect()
}

fn quoted<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().map(|n| format!("\"{n}\"")).collect::<Vec<_>>().join(", ")
}

fn plural(count: usize, one: &'static str, many: &'static str) -> &'static str {
    if count == 1 { one } else { many }
}

/// `container "a"`, `containers "a", "b"`.
fn of_containers(names: &[&str]) -> String {
    format!("{} {}", plural(names.len(), "container", "containers"), quoted(names.iter().copied()))
}

/// `pod and container "a"`.
fn setters(pod: bool, names: &[&str]) -> Option<String> {
    let pod = pod.then(|| "pod".to_owned());
    let containers = (!names.is_empty()).then(|| of_containers(names));
    let all: Vec<String> = pod.into_iter().chain(containers).collect();
    (!all.is_empty()).then(|| all.join(" and "))
}

fn context(tree: &Value) -> &Value {
    &tree["securityContext"]
}

fn pod_context(pod: &Value) -> &Value {
    &pod["spec"]["securityContext"]
}

fn is_windows(pod: &Value) -> bool {
    pod["spec"]["os"]["name"] == "windows"
}

/// A pod in a user namespace of its own may be root in it (KEP-127); the standards say so from v1.35 on.
fn has_own_users(pod: &Value) -> bool {
    pod["spec"]["hostUsers"] == false
}

fn app_armor(pod: &Value) -> Option<String> {
    const PREFIX: &str = "container.apparmor.security.beta.kubernetes.io/";
    let kind = |c: &Value| c["appArmorProfile"]["type"].as_str().map(str::to_owned);
    let forbidden = |k: &Option<String>| k.as_deref().is_some_and(|k| !matches!(k, "RuntimeDefault" | "Localhost"));
    let names = bad(pod, |c| forbidden(&kind(context(c))));
    let pod_bad = forbidden(&kind(pod_context(pod)));
    let mut values: BTreeSet<String> = containers(pod).filter_map(|c| kind(context(c))).filter(|k| forbidden(&Some(k.clone()))).collect();
    values.extend(kind(pod_context(pod)).filter(|_| pod_bad));
    let fine = |v: &str| v.is_empty() || v == "runtime/default" || v.starts_with("localhost/");
    let annotations: Vec<String> = tiphys_meta::object::annotations(pod)
        .filter(|(k, v)| k.starts_with(PREFIX) && !fine(v))
        .map(|(k, v)| format!("{k}=\"{v}\""))
        .collect();
    let mut who: Vec<String> = setters(pod_bad, &names).into_iter().collect();
    if !annotations.is_empty() {
        who.push(plural(annotations.len(), "annotation", "annotations").to_owned());
    }
    if who.is_empty() {
        return None;
    }
    let all: Vec<String> = values.into_iter().chain(annotations).collect();
    let reason = plural(all.len(), "forbidden AppArmor profile", "forbidden AppArmor profiles");
    Some(format!("{reason} ({} must not set AppArmor profile type to {})", who.join(" and "), quoted(all.iter().map(String::as_str))))
}

fn added(container: &Value) -> impl Iterator<Item = &str> {
    list(&context(container)["capabilities"], "add").iter().filter_map(Value::as_str)
}

fn capabilities_baseline(pod: &Value) -> Option<String> {
    let names = bad(pod, |c| added(c).any(|a| !CAPABILITIES.contains(&a)));
    let extra: BTreeSet<&str> = containers(pod).flat_map(added).filter(|a| !CAPABILITIES.contains(a)).collect();
    (!names.is_empty()).then(|| {
        format!(
            "non-default capabilities ({} must not include {} in securityContext.capabilities.add)",
            of_containers(&names),
            quoted(extra)
        )
    })
}

fn capabilities_restricted(pod: &Value) -> Option<String> {
    let keeps = bad(pod, |c| !list(&context(c)["capabilities"], "drop").iter().any(|d| d == "ALL"));
    let adds = bad(pod, |c| added(c).any(|a| a != "NET_BIND_SERVICE"));
    let extra: BTreeSet<&str> = containers(pod).flat_map(added).filter(|a| *a != "NET_BIND_SERVICE").collect();
    let mut details = Vec::new();
    if !keeps.is_empty() {
        details.push(format!("{} must set securityContext.capabilities.drop=[\"ALL\"]", of_containers(&keeps)));
    }
    if !adds.is_empty() {
        details.push(format!("{} must not include {} in securityContext.capabilities.add", of_containers(&adds), quoted(extra)));
    }
    (!details.is_empty()).then(|| format!("unrestricted capabilities ({})", details.join("; ")))
}

fn host_namespaces(pod: &Value) -> Option<String> {
    let set: Vec<String> =
        ["hostNetwork", "hostPID", "hostIPC"].iter().filter(|f| pod["spec"][**f] == true).map(|f| format!("{f}=true")).collect();
    (!set.is_empty()).then(|| format!("host namespaces ({})", set.join(", ")))
}

fn host_path_volumes(pod: &Value) -> Option<String> {
    let names: Vec<&str> = list(&pod["spec"], "volumes").iter().filter(|v| v.get("hostPath").is_some()).map(|v| text(v, "name")).collect();
    (!names.is_empty()).then(|| format!("hostPath volumes ({} {})", plural(names.len(), "volume", "volumes"), quoted(names)))
}

fn host_ports(pod: &Value) -> Option<String> {
    let of = |c: &Value| list(c, "ports").iter().filter_map(|p| p["hostPort"].as_i64()).filter(|p| *p != 0).collect::<Vec<i64>>();
    let names = bad(pod, |c| !of(c).is_empty());
    let ports: BTreeSet<String> = containers(pod).flat_map(of).map(|p| p.to_string()).collect();
    let all = ports.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    (!names.is_empty()).then(|| {
        let (uses, word) = (plural(names.len(), "uses", "use"), plural(ports.len(), "hostPort", "hostPorts"));
        format!("hostPort ({} {uses} {word} {all})", of_containers(&names))
    })
}

fn probe_hosts(pod: &Value) -> Option<String> {
    fn hosts(container: &Value) -> Vec<&str> {
        let probes = ["livenessProbe", "readinessProbe", "startupProbe"].iter().map(|p| &container[*p]);
        let handlers = ["postStart", "preStop"].iter().map(|h| &container["lifecycle"][*h]);
        let actions = probes.chain(handlers).flat_map(|h| [&h["httpGet"], &h["tcpSocket"]]);
        actions.map(|a| text(a, "host")).filter(|h| !h.is_empty()).collect()
    }
    let names: BTreeSet<&str> = bad(pod, |c| !hosts(c).is_empty()).into_iter().collect();
    let all: BTreeSet<&str> = containers(pod).flat_map(hosts).collect();
    (!names.is_empty()).then(|| {
        let names: Vec<&str> = names.into_iter().collect();
        let (uses, word) = (plural(names.len(), "uses", "use"), plural(all.len(), "probe or lifecycle host", "probe or lifecycle hosts"));
        format!("probe or lifecycle host ({} {uses} {word} {})", of_containers(&names), quoted(all))
    })
}

fn privileged(pod: &Value) -> Option<String> {
    let names = bad(pod, |c| context(c)["privileged"] == true);
    (!names.is_empty()).then(|| format!("privileged ({} must not set securityContext.privileged=true)", of_containers(&names)))
}

fn proc_mount(pod: &Value) -> Option<String> {
    let of = |c: &Value| context(c)["procMount"].as_str().map(str::to_owned).filter(|m| m != "Default");
    let names = bad(pod, |c| of(c).is_some());
    let values: BTreeSet<String> = containers(pod).filter_map(of).collect();
    (!names.is_empty()).then(|| {
        let values = quoted(values.iter().map(String::as_str));
        format!("procMount ({} must not set securityContext.procMount to {values})", of_containers(&names))
    })
}

/// `allowed`: how many of the types are free.
fn selinux(pod: &Value, allowed: usize) -> Option<String> {
    let free: Vec<&str> = SELINUX_TYPES.into_iter().take(allowed).collect();
    let forbidden =
        |o: &Value| o.is_object() && (!free.contains(&text(o, "type")) || !text(o, "user").is_empty() || !text(o, "role").is_empty());
    let options = |tree: &'_ Value| tree["seLinuxOptions"].clone();
    let names = bad(pod, |c| forbidden(&options(context(c))));
    let who = setters(forbidden(&options(pod_context(pod))), &names)?;
    let all: Vec<Value> = containers(pod).map(|c| options(context(c))).chain([options(pod_context(pod))]).collect();
    let types: BTreeSet<&str> = all.iter().map(|o| text(o, "type")).filter(|t| !free.contains(t)).collect();
    let mut data = Vec::new();
    if !types.is_empty() {
        data.push(format!("{} {}", plural(types.len(), "type", "types"), quoted(types)));
    }
    for field in ["user", "role"] {
        if all.iter().any(|o| !text(o, field).is_empty()) {
            data.push(format!("{field} may not be set"));
        }
    }
    Some(format!("seLinuxOptions ({who} set forbidden securityContext.seLinuxOptions: {})", data.join("; ")))
}

fn seccomp(tree: &Value) -> Option<&str> {
    tree["seccompProfile"].as_object().and_then(|p| p.get("type")).and_then(Value::as_str)
}

fn confined(kind: &str) -> bool {
    matches!(kind, "RuntimeDefault" | "Localhost")
}

/// Before there was a field for it (v1.19).
fn seccomp_annotations(pod: &Value) -> Option<String> {
    const POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
    const CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
    let fine = |v: &str| v == "runtime/default" || v == "docker/default" || v.starts_with("localhost/");
    let told = |key: &str| key == POD || key.strip_prefix(CONTAINER).is_some_and(|name| containers(pod).any(|c| text(c, "name") == name));
    let bad: BTreeSet<String> =
        tiphys_meta::object::annotations(pod).filter(|(k, v)| told(k) && !fine(v)).map(|(k, v)| format!("{k}={v:?}")).collect();
    (!bad.is_empty()).then(|| {
        let all = bad.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        format!("seccompProfile (forbidden {} {all})", plural(bad.len(), "annotation", "annotations"))
    })
}

fn seccomp_baseline(pod: &Value) -> Option<String> {
    let unconfined = |tree: &Value| seccomp(tree).is_some_and(|k| !confined(k));
    let names = bad(pod, |c| unconfined(context(c)));
    let who = setters(unconfined(pod_context(pod)), &names)?;
    let of = containers(pod).filter_map(|c| seccomp(context(c))).chain(seccomp(pod_context(pod)));
    let values: BTreeSet<&str> = of.filter(|k| !confined(k)).collect();
    Some(format!("seccompProfile ({who} must not set securityContext.seccompProfile.type to {})", quoted(values)))
}

fn seccomp_restricted(pod: &Value) -> Option<String> {
    if let Some(explicit) = seccomp_baseline(pod) {
        return Some(explicit);
    }
    if seccomp(pod_context(pod)).is_some() {
        return None;
    }
    let names = bad(pod, |c| seccomp(context(c)).is_none());
    (!names.is_empty()).then(|| {
        let who = of_containers(&names);
        format!("seccompProfile (pod or {who} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")")
    })
}

/// `allowed`: how many of them are free.
fn sysctls(pod: &Value, allowed: usize) -> Option<String> {
    let names = list(pod_context(pod), "sysctls").iter().map(|s| text(s, "name"));
    let forbidden: Vec<&str> = names.filter(|n| !SYSCTLS.iter().take(allowed).any(|s| s == n)).collect();
    (!forbidden.is_empty()).then(|| format!("forbidden sysctls ({})", forbidden.join(", ")))
}

fn windows_host_process(pod: &Value) -> Option<String> {
    let set = |tree: &Value| tree["windowsOptions"]["hostProcess"] == true;
    let names = bad(pod, |c| set(context(c)));
    let who = setters(set(pod_context(pod)), &names)?;
    Some(format!("hostProcess ({who} must not set securityContext.windowsOptions.hostProcess=true)"))
}

fn privilege_escalation(pod: &Value) -> Option<String> {
    let names = bad(pod, |c| context(c)["allowPrivilegeEscalation"] != false);
    (!names.is_empty()).then(|| {
        format!("allowPrivilegeEscalation != false ({} must set securityContext.allowPrivilegeEscalation=false)", of_containers(&names))
    })
}

fn volume_types(pod: &Value) -> Option<String> {
    let kind = |v: &Value| v.as_object().and_then(|m| m.keys().find(|k| *k != "name").cloned()).unwrap_or_else(|| "unknown".into());
    let volumes: Vec<(&str, String)> = list(&pod["spec"], "volumes").iter().map(|v| (text(v, "name"), kind(v))).collect();
    let (names, kinds): (Vec<&str>, BTreeSet<&str>) =
        volumes.iter().filter(|(_, kind)| !FREE_VOLUMES.contains(&kind.as_str())).map(|(name, kind)| (*name, kind.as_str())).unzip();
    (!names.is_empty()).then(|| {
        let (volume, uses) = (plural(names.len(), "volume", "volumes"), plural(names.len(), "uses", "use"));
        let word = plural(kinds.len(), "restricted volume type", "restricted volume types");
        format!("restricted volume types ({volume} {} {uses} {word} {})", quoted(names), quoted(kinds))
    })
}

fn run_as_non_root(pod: &Value) -> Option<String> {
    let says = |tree: &Value| tree["runAsNonRoot"].as_bool();
    let roots = bad(pod, |c| says(context(c)) == Some(false));
    if let Some(who) = setters(says(pod_context(pod)) == Some(false), &roots) {
        return Some(format!("runAsNonRoot != true ({who} must not set securityContext.runAsNonRoot=false)"));
    }
    if says(pod_context(pod)) == Some(true) {
        return None;
    }
    let silent = bad(pod, |c| says(context(c)).is_none());
    (!silent.is_empty())
        .then(|| format!("runAsNonRoot != true (pod or {} must set securityContext.runAsNonRoot=true)", of_containers(&silent)))
}

fn run_as_user(pod: &Value) -> Option<String> {
    let root = |tree: &Value| tree["runAsUser"] == 0;
    let names = bad(pod, |c| root(context(c)));
    let who = setters(root(pod_context(pod)), &names)?;
    Some(format!("runAsUser=0 ({who} must not set runAsUser=0)"))
}
