//! The configuration of a pod's sandbox. Pure.

use super::spec;
use crate::dns::{self, ClusterDns};
use crate::{hosts, names, resources, security};
use std::path::Path;
use tiphys_cri as cri;
use tiphys_types::api::core::v1::{Container, Pod};

/// What of the node goes into sandboxes.
#[derive(Debug, Clone, Default)]
pub(crate) struct SandboxNode {
    pub(crate) cluster_dns: ClusterDns,
    pub(crate) cgroup_root: String,
    pub(crate) pod_logs: std::path::PathBuf,
    /// The node's resolv.conf.
    pub(crate) resolv_conf: String,
}

/// `/var/log/pods/<namespace>_<name>_<uid>`.
pub(crate) fn log_directory(root: &Path, pod: &Pod) -> std::path::PathBuf {
    root.join(format!("{}_{}_{}", spec::namespace(pod), spec::name(pod), spec::uid(pod)))
}

pub(crate) fn config(pod: &Pod, attempt: u32, node: &SandboxNode) -> Result<cri::PodSandboxConfig, String> {
    let names = hosts::names(pod, &node.cluster_dns.domain);
    let hostname = if spec::host_network(pod) { String::new() } else { names.kernel(pod)? };
    Ok(cri::PodSandboxConfig {
        metadata: cri::PodSandboxMetadata {
            name: spec::name(pod).into(),
            uid: spec::uid(pod).into(),
            namespace: spec::namespace(pod).into(),
            attempt,
        },
        hostname,
        log_directory: log_directory(&node.pod_logs, pod).to_string_lossy().into_owned(),
        dns_config: Some(dns::config(pod, &node.cluster_dns, &node.resolv_conf)),
        port_mappings: port_mappings(pod),
        labels: labels(pod),
        annotations: pod.metadata.annotations.clone().unwrap_or_default(),
        linux: cri::LinuxPodSandboxConfig {
            cgroup_parent: resources::cgroup_parent(&node.cgroup_root, pod),
            security_context: security::sandbox(pod),
            sysctls: sysctls(pod),
            overhead: resources::overhead(pod),
            resources: Some(resources::of_pod(pod)),
        },
    })
}

fn labels(pod: &Pod) -> cri::Map {
    let mut labels = pod.metadata.labels.clone().unwrap_or_default();
    labels.insert(names::POD_NAME.into(), spec::name(pod).into());
    labels.insert(names::POD_NAMESPACE.into(), spec::namespace(pod).into());
    labels.insert(names::POD_UID.into(), spec::uid(pod).into());
    labels
}

/// Slashes are another way to write the dots (sysctl.d(5)).
fn sysctls(pod: &Pod) -> cri::Map {
    let list = spec::spec(pod).security_context.as_ref().and_then(|c| c.sysctls.as_ref());
    list.into_iter().flatten().map(|s| (s.name.replace('/', "."), s.value.clone())).collect()
}

pub(crate) fn port_mappings(pod: &Pod) -> Vec<cri::PortMapping> {
    if spec::host_network(pod) {
        return Vec::new();
    }
    let sidecars = spec::init_containers(pod).iter().filter(|c| spec::is_sidecar(c));
    let ports = |c: &Container| c.ports.clone().unwrap_or_default();
    let all = sidecars.chain(spec::containers(pod)).flat_map(ports);
    all.filter(|p| p.host_port.is_some_and(|port| port > 0))
        .map(|p| cri::PortMapping {
            protocol: match p.protocol.as_deref() {
                Some("UDP") => cri::Protocol::Udp,
                Some("SCTP") => cri::Protocol::Sctp,
                _ => cri::Protocol::Tcp,
            },
            container_port: p.container_port,
            host_port: p.host_port.unwrap_or_default(),
            host_ip: p.host_ip.unwrap_or_default(),
        })
        .collect()
}
