//! May a pod run on this node? What the scheduler checked is checked again here, since others may bind pods too.

use crate::agent::Agent;
use crate::node::eviction::plan::Pressure;
use crate::pod::spec;
use crate::pod::status::Verdict;
use crate::resources::qos_class as kubelet_qos;
use tiphys_types::api::core::v1::{Node, Pod, Taint, Toleration};
use tiphys_types::qos;
use tiphys_types::resources::{self, ResourceList};
use tiphys_types::{node_affinity, taints};

type Rejection = Verdict;

fn reject(reason: impl Into<String>, message: impl Into<String>) -> Result<(), Rejection> {
    Err(Verdict { reason: reason.into(), message: message.into() })
}

/// A pod that was here before this kubelet started is not judged again: its containers may be running.
pub(crate) fn admit(agent: &Agent, pod: &Pod) -> Result<(), Rejection> {
    let status = pod.status.as_ref();
    let known = status.is_some_and(|s| s.start_time.is_some());
    let over = status.and_then(|s| s.phase.as_deref()).is_some_and(crate::pod::phase::is_terminal);
    if known || over || spec::is_deleted(pod) {
        return Ok(());
    }
    under_pressure(pod, *agent.pressure.lock())?;
    let Some(node) = agent.node.get("", &agent.config.node_name) else { return Ok(()) };
    let others = agent.workers.counted();
    check(pod, &node, &others.iter().map(AsRef::as_ref).collect::<Vec<_>>())
}

/// A node in need takes critical pods; while only memory is short, also those that asked for memory, or tolerate it.
fn under_pressure(pod: &Pod, pressure: Pressure) -> Result<(), Rejection> {
    if pressure == Pressure::default() || spec::is_critical(pod) {
        return Ok(());
    }
    if pressure == (Pressure { memory: true, ..Pressure::default() }) {
        let tolerations = spec::spec(pod).tolerations.as_deref().unwrap_or_default();
        let taint = Taint { key: "node.kubernetes.io/memory-pressure".into(), effect: "NoSchedule".into(), ..Taint::default() };
        if kubelet_qos(pod) != qos::BEST_EFFORT || taints::untolerated(&[taint], tolerations, &["NoSchedule"]).is_none() {
            return Ok(());
        }
    }
    let names = [("MemoryPressure", pressure.memory), ("DiskPressure", pressure.disk), ("PIDPressure", pressure.pids)];
    let names: Vec<&str> = names.iter().filter(|(_, on)| *on).map(|(name, _)| *name).collect();
    reject("Evicted", format!("The node had condition: [{}]. ", names.join(" ")))
}

fn check(pod: &Pod, node: &Node, others: &[&Pod]) -> Result<(), Rejection> {
    operating_system(pod)?;
    sysctls(pod)?;
    room(pod, node, others)?;
    if !node_affinity::required_matches(pod, node) {
        return reject("NodeAffinity", "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector");
    }
    host_ports(pod, others)?;
    let listed = node.spec.as_ref().and_then(|s| s.taints.clone()).unwrap_or_default();
    let tolerations: Vec<Toleration> = spec::spec(pod).tolerations.clone().unwrap_or_default();
    if !spec::is_static(pod) && taints::untolerated(&listed, &tolerations, &["NoExecute"]).is_some() {
        return reject("TaintToleration", "Predicate TaintToleration failed: node(s) had taints that the pod didn't tolerate");
    }
    Ok(())
}

/// Can the node give a pod that is here already what it asks for now (KEP-1287)? Never is `Infeasible`, not yet is `Deferred`.
pub(crate) fn resize(agent: &Agent, pod: &Pod) -> Result<(), Rejection> {
    let Some(node) = agent.node.get("", &agent.config.node_name) else { return Ok(()) };
    let others = agent.workers.counted().into_iter().filter(|other| spec::uid(other) != spec::uid(pod));
    check_resize(pod, &node, &others.collect::<Vec<_>>().iter().map(AsRef::as_ref).collect::<Vec<_>>())
}

fn check_resize(pod: &Pod, node: &Node, others: &[&Pod]) -> Result<(), Rejection> {
    let allocatable = resources::list(node.status.as_ref().and_then(|s| s.allocatable.as_ref()));
    for (name, wanted) in resources::requests(pod) {
        if let Some(capacity) = allocatable.get(&name).filter(|capacity| wanted > **capacity) {
            let number = |q: tiphys_meta::Quantity| if name == resources::CPU { q.milli() } else { q.value() };
            let (wanted, capacity) = (number(wanted), number(*capacity));
            return reject("Infeasible", format!("Node didn't have enough capacity: {name}, requested: {wanted}, capacity: {capacity}"));
        }
    }
    room(pod, node, others).map_err(|full| Verdict { reason: "Deferred".into(), ..full })
}

fn operating_system(pod: &Pod) -> Result<(), Rejection> {
    let wanted = spec::spec(pod).os.as_ref().map(|os| os.name.as_str()).unwrap_or("linux");
    if wanted != "linux" {
        return reject("PodOSNotSupported", "Failed to admit pod as the OS field doesn't match node OS");
    }
    let selected = spec::spec(pod).node_selector.as_ref().and_then(|s| s.get("kubernetes.io/os"));
    if selected.is_some_and(|os| os != "linux") {
        return reject(
            "PodOSSelectorNodeLabelDoesNotMatch",
            "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label",
        );
    }
    Ok(())
}

/// Namespaced, and harmless to others on the node (pkg/kubelet/sysctl).
const SAFE_SYSCTLS: [&str; 12] = [
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

fn sysctls(pod: &Pod) -> Result<(), Rejection> {
    let list = spec::spec(pod).security_context.as_ref().and_then(|c| c.sysctls.as_ref());
    for name in list.into_iter().flatten().map(|s| s.name.replace('/', ".")) {
        if !SAFE_SYSCTLS.contains(&name.as_str()) {
            return reject("SysctlForbidden", format!("forbidden sysctl: {name:?} not allowlisted"));
        }
        let shared = (name.starts_with("net.") && spec::host_network(pod))
            || (name.starts_with("kernel.") && spec::spec(pod).host_ipc == Some(true));
        if shared {
            return reject("SysctlForbidden", format!("forbidden sysctl: {name:?} not allowed with host net/ipc enabled"));
        }
    }
    Ok(())
}

fn room(pod: &Pod, node: &Node, others: &[&Pod]) -> Result<(), Rejection> {
    let status = node.status.as_ref();
    let allocatable = resources::list(status.and_then(|s| s.allocatable.as_ref()));
    if allocatable.is_empty() {
        return Ok(());
    }
    let pods = allocatable.get(resources::PODS).map_or(i64::MAX, |q| q.value());
    if others.len() as i64 + 1 > pods {
        let message = format!("Node didn't have enough resource: pods, requested: 1, used: {}, capacity: {pods}", others.len());
        return reject("OutOfpods", message);
    }
    let mut used = ResourceList::new();
    others.iter().for_each(|other| resources::add(&mut used, &resources::requests(other)));
    for (name, wanted) in resources::requests(pod) {
        let Some(capacity) = allocatable.get(&name) else { continue };
        let used = used.get(&name).copied().unwrap_or(tiphys_meta::Quantity::ZERO);
        if !wanted.is_zero() && used + wanted > *capacity {
            let number = |q: tiphys_meta::Quantity| if name == resources::CPU { q.milli() } else { q.value() };
            let (wanted, used, capacity) = (number(wanted), number(used), number(*capacity));
            let message = format!("Node didn't have enough resource: {name}, requested: {wanted}, used: {used}, capacity: {capacity}");
            return reject(format!("OutOf{name}"), message);
        }
    }
    Ok(())
}

type Port = (String, String, i32);

fn ports(pod: &Pod) -> Vec<Port> {
    let sidecars = spec::init_containers(pod).iter().filter(|c| spec::is_sidecar(c));
    let all = sidecars.chain(spec::containers(pod)).flat_map(|c| c.ports.iter().flatten());
    let text = |t: &Option<String>, otherwise: &str| t.clone().filter(|t| !t.is_empty()).unwrap_or_else(|| otherwise.to_owned());
    all.filter_map(|p| Some((text(&p.host_ip, "0.0.0.0"), text(&p.protocol, "TCP"), p.host_port.filter(|n| *n > 0)?))).collect()
}

fn host_ports(pod: &Pod, others: &[&Pod]) -> Result<(), Rejection> {
    let clash = |a: &Port, b: &Port| {
        let any = |ip: &str| ip == "0.0.0.0" || ip == "::";
        a.2 == b.2 && a.1 == b.1 && (a.0 == b.0 || any(&a.0) || any(&b.0))
    };
    let taken: Vec<Port> = others.iter().flat_map(|p| ports(p)).collect();
    if ports(pod).iter().any(|port| taken.iter().any(|other| clash(port, other))) {
        return reject("NodePorts", "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn run(spec: Value, others: &[Value]) -> Result<(), String> {
        let pod = |spec: &Value| serde_json::from_value::<Pod>(json!({"metadata": {"uid": "u"}, "spec": spec})).expect("a pod");
        let node: Node = serde_json::from_value(json!({"metadata": {"name": "n", "labels": {"a": "b"}},
            "spec": {"taints": [{"key": "k", "effect": "NoExecute"}]}, "status": {"allocatable": {"cpu": "1", "pods": "3"}}}))
        .expect("a node");
        let others: Vec<Pod> = others.iter().map(pod).collect();
        check(&pod(&spec), &node, &others.iter().collect::<Vec<_>>()).map_err(|v| format!("{}: {}", v.reason, v.message))
    }

    #[test]
    fn a_node_in_need_takes_less() {
        let pod = |spec: Value| serde_json::from_value::<Pod>(json!({"metadata": {"uid": "u"}, "spec": spec})).expect("a pod");
        let best_effort = pod(json!({"containers": [{"name": "c"}]}));
        let burstable = pod(json!({"containers": [{"name": "c", "resources": {"requests": {"memory": "1Mi"}}}]}));
        let critical = pod(json!({"priority": 2_000_000_000, "containers": [{"name": "c"}]}));
        let memory = Pressure { memory: true, ..Pressure::default() };
        let why = |pod: &Pod, pressure| under_pressure(pod, pressure).err().map(|v| v.message);
        assert_eq!(why(&best_effort, Pressure::default()), None);
        assert_eq!(why(&best_effort, memory).as_deref(), Some("The node had condition: [MemoryPressure]. "));
        assert_eq!((why(&burstable, memory), why(&critical, Pressure { disk: true, ..memory })), (None, None));
        assert!(why(&burstable, Pressure { disk: true, ..Pressure::default() }).is_some());
        let tolerant = json!([{"key": "node.kubernetes.io/memory-pressure", "operator": "Exists"}]);
        assert_eq!(why(&pod(json!({"tolerations": tolerant, "containers": [{"name": "c"}]})), memory), None);
    }

    #[test]
    fn rejections() {
        let tolerant = |mut spec: Value| {
            spec["tolerations"] = json!([{"operator": "Exists"}]);
            spec
        };
        let cpu = |cpu: &str| tolerant(json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}));
        assert_eq!(run(cpu("500m"), &[cpu("500m")]), Ok(()));
        let full = run(cpu("500m"), &[cpu("501m")]).expect_err("too much");
        assert_eq!(full, "OutOfcpu: Node didn't have enough resource: cpu, requested: 500, used: 501, capacity: 1000");
        let bare = tolerant(json!({"containers": []}));
        assert!(run(bare.clone(), &[bare.clone(), bare.clone(), bare.clone()]).expect_err("too many").starts_with("OutOfpods"));
        let port = tolerant(json!({"containers": [{"name": "c", "ports": [{"containerPort": 1, "hostPort": 80}]}]}));
        assert!(run(port.clone(), &[port]).expect_err("taken").starts_with("NodePorts"));
        assert!(run(json!({"containers": []}), &[]).expect_err("tainted").starts_with("TaintToleration"));
        assert!(
            run(tolerant(json!({"containers": [], "nodeSelector": {"a": "x"}})), &[]).expect_err("elsewhere").starts_with("NodeAffinity")
        );
        let resized = |cpu: &str| {
            let pod: Pod =
                serde_json::from_value(json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}}))
                    .expect("a pod");
            let node: Node = serde_json::from_value(json!({"status": {"allocatable": {"cpu": "1"}}})).expect("a node");
            check_resize(&pod, &node, &[&pod]).map_err(|v| v.reason)
        };
        assert_eq!((resized("500m"), resized("600m"), resized("2")), (Ok(()), Err("Deferred".into()), Err("Infeasible".into())));
        let sysctl = tolerant(json!({"containers": [], "securityContext": {"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}}));
        assert_eq!(run(sysctl, &[]), Err("SysctlForbidden: forbidden sysctl: \"kernel.msgmax\" not allowlisted".into()));
        assert!(run(json!({"containers": [], "os": {"name": "windows"}}), &[]).expect_err("no").starts_with("PodOSNotSupported"));
    }
}
