//! Figures: `/stats/summary` (what `kubectl top` and the metrics server read) and the Prometheus pages.

use crate::agent::Agent;
use crate::node::machine;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::fmt::Write;
use std::sync::atomic::Ordering;
use tiphys_cri as cri;

fn time(nanos: i64, now: Timestamp) -> String {
    let at = if nanos > 0 { crate::pod::view::time(nanos) } else { now };
    tiphys_meta::time::format(at)
}

fn cpu(usage: &cri::CpuUsage, now: Timestamp) -> Value {
    json!({"time": time(usage.timestamp, now), "usageNanoCores": usage.usage_nano_cores, "usageCoreNanoSeconds": usage.usage_core_nano_seconds})
}

fn memory(usage: &cri::MemoryUsage, now: Timestamp) -> Value {
    let mut value = json!({"time": time(usage.timestamp, now), "usageBytes": usage.usage_bytes, "workingSetBytes": usage.working_set_bytes,
        "rssBytes": usage.rss_bytes, "pageFaults": usage.page_faults, "majorPageFaults": usage.major_page_faults});
    if let Some(available) = usage.available_bytes {
        value["availableBytes"] = json!(available);
    }
    value
}

fn network(usage: &cri::NetworkUsage, now: Timestamp) -> Value {
    let interface = |i: &cri::NetworkInterfaceUsage| json!({"name": i.name, "rxBytes": i.rx_bytes, "rxErrors": i.rx_errors, "txBytes": i.tx_bytes, "txErrors": i.tx_errors});
    let mut value = usage.interfaces.first().map(interface).unwrap_or_else(|| json!({}));
    value["time"] = json!(time(usage.timestamp, now));
    value["interfaces"] = usage.interfaces.iter().map(interface).collect();
    value
}

fn disk(agent: &Agent, used: Option<u64>, inodes: Option<u64>, now: Timestamp) -> Value {
    let (total, available) = machine::disk(&agent.config.root_dir).unwrap_or_default();
    let mut value = json!({"time": tiphys_meta::time::format(now), "availableBytes": available, "capacityBytes": total,
        "usedBytes": used.unwrap_or(total.saturating_sub(available))});
    if let Some(inodes) = inodes {
        value["inodesUsed"] = json!(inodes);
    }
    value
}

async fn pods(agent: &Agent) -> Vec<cri::PodSandboxStats> {
    agent.runtime.list_pod_sandbox_stats(&cri::PodSandboxStatsFilter::default()).await.unwrap_or_default()
}

pub(crate) async fn summary(agent: &Agent) -> Value {
    let now = agent.clock.now();
    let stats = pods(agent).await;
    json!({"node": node(agent, &stats, now).await, "pods": stats.iter().map(|s| pod(agent, s, now)).collect::<Vec<_>>()})
}

async fn node(agent: &Agent, stats: &[cri::PodSandboxStats], now: Timestamp) -> Value {
    let available = machine::memory_field("MemAvailable").max(0) as u64;
    let total = agent.machine.memory.max(0) as u64;
    let (busy, rate) = cpu_of_machine(stats);
    let usage = cri::MemoryUsage {
        available_bytes: Some(available),
        working_set_bytes: total.saturating_sub(available),
        usage_bytes: total.saturating_sub(machine::memory_field("MemFree").max(0) as u64),
        rss_bytes: machine::memory_field("AnonPages").max(0) as u64,
        ..cri::MemoryUsage::default()
    };
    let images = agent.images.service.image_fs_info().await.unwrap_or_default();
    let image_use = images.image_filesystems.first();
    json!({
        "nodeName": agent.config.node_name,
        "startTime": tiphys_meta::time::format(boot_time(now)),
        "cpu": {"time": tiphys_meta::time::format(now), "usageNanoCores": rate, "usageCoreNanoSeconds": busy},
        "memory": memory(&usage, now),
        "fs": disk(agent, None, None, now),
        "runtime": {"imageFs": disk(agent, image_use.map(|i| i.used_bytes), image_use.map(|i| i.inodes_used), now)},
        "rlimit": {"time": tiphys_meta::time::format(now), "maxpid": number("/proc/sys/kernel/pid_max"), "curproc": processes()},
    })
}

fn number(path: &str) -> u64 {
    std::fs::read_to_string(path).ok().and_then(|t| t.trim().parse().ok()).unwrap_or(0)
}

/// The fourth field of loadavg: running/total.
fn processes() -> u64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().nth(3).and_then(|f| f.split_once('/')?.1.parse().ok()).unwrap_or(0)
}

fn boot_time(now: Timestamp) -> Timestamp {
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let seconds = text.lines().find_map(|l| l.strip_prefix("btime ")?.trim().parse().ok());
    seconds.and_then(|s| Timestamp::from_second(s).ok()).unwrap_or(now)
}

/// Nanoseconds that all CPUs were busy since boot, and nanocores that pods use now (the kernel tells no rate).
fn cpu_of_machine(stats: &[cri::PodSandboxStats]) -> (u64, u64) {
    const TICK: u64 = 10_000_000;
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields: Vec<u64> = text.lines().next().unwrap_or_default().split_whitespace().skip(1).filter_map(|f| f.parse().ok()).collect();
    // user, nice, system, then idle and iowait, then irq, softirq, steal.
    let busy: u64 = fields.iter().enumerate().filter(|(i, _)| !matches!(i, 3 | 4) && *i < 8).map(|(_, v)| v).sum();
    (busy * TICK, stats.iter().filter_map(|s| s.cpu.usage_nano_cores).sum())
}

fn pod(agent: &Agent, stats: &cri::PodSandboxStats, now: Timestamp) -> Value {
    let meta = &stats.attributes.metadata;
    let started = agent.workers.by_uid(&meta.uid).and_then(|s| s.status.start_time.clone()).map_or(now, |t| t.0);
    let container = |c: &cri::ContainerStats| {
        let files = c.writable_layer.as_ref();
        json!({"name": c.attributes.metadata.name, "startTime": tiphys_meta::time::format(started), "cpu": cpu(&c.cpu, now), "memory": memory(&c.memory, now),
            "rootfs": disk(agent, files.map(|f| f.used_bytes), files.map(|f| f.inodes_used), now),
            "logs": disk(agent, Some(0), None, now)})
    };
    let used: u64 = stats.containers.iter().filter_map(|c| c.writable_layer.as_ref()).map(|f| f.used_bytes).sum();
    let mut value = json!({
        "podRef": {"name": meta.name, "namespace": meta.namespace, "uid": meta.uid},
        "startTime": tiphys_meta::time::format(started),
        "containers": stats.containers.iter().map(container).collect::<Vec<_>>(),
        "cpu": cpu(&stats.cpu, now),
        "memory": memory(&stats.memory, now),
        "ephemeral-storage": disk(agent, Some(used), None, now),
        "process_stats": {"process_count": stats.process_count},
    });
    if let Some(usage) = &stats.network {
        value["network"] = network(usage, now);
    }
    value
}

fn family(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

pub(crate) fn own(agent: &Agent) -> String {
    let metrics = &agent.metrics;
    let mut out = String::new();
    for (name, help, counter) in [
        ("kubelet_started_pods_total", "Pods started", &metrics.started_pods),
        ("kubelet_started_pods_errors_total", "Errors when starting pods", &metrics.started_pod_errors),
        ("kubelet_started_containers_total", "Containers started", &metrics.started_containers),
        ("kubelet_started_containers_errors_total", "Errors when starting containers", &metrics.started_container_errors),
        ("kubelet_evictions", "Pods evicted", &metrics.evictions),
    ] {
        family(&mut out, name, "counter", help);
        let _ = writeln!(out, "{name} {}", counter.load(Ordering::Relaxed));
    }
    let shown = agent.workers.list();
    let containers: usize = shown.iter().map(|s| s.view.running().count()).sum();
    family(&mut out, "kubelet_running_pods", "gauge", "Pods that have a running sandbox");
    let _ = writeln!(out, "kubelet_running_pods {}", shown.iter().filter(|s| s.view.ready_sandbox().is_some()).count());
    family(&mut out, "kubelet_running_containers", "gauge", "Containers that run");
    let _ = writeln!(out, "kubelet_running_containers{{container_state=\"running\"}} {containers}");
    family(&mut out, "kubelet_node_name", "gauge", "The node's name, as a label");
    let _ = writeln!(out, "kubelet_node_name{{node=\"{}\"}} 1", agent.config.node_name);
    out
}

pub(crate) fn probes(agent: &Agent) -> String {
    let mut out = String::new();
    family(&mut out, "prober_probe_total", "counter", "Probes by result");
    let metrics = &agent.metrics;
    for (result, counter) in [("successful", &metrics.probe_success), ("failed", &metrics.probe_failure)] {
        let _ = writeln!(out, "prober_probe_total{{result=\"{result}\"}} {}", counter.load(Ordering::Relaxed));
    }
    out
}

fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

pub(crate) async fn resource(agent: &Agent) -> String {
    let stats = pods(agent).await;
    let (busy, _) = cpu_of_machine(&stats);
    let used = agent.machine.memory - machine::memory_field("MemAvailable");
    let mut out = String::new();
    family(&mut out, "node_cpu_usage_seconds_total", "counter", "CPU time of the node in core-seconds");
    let _ = writeln!(out, "node_cpu_usage_seconds_total {}", seconds(busy));
    family(&mut out, "node_memory_working_set_bytes", "gauge", "Working set of the node in bytes");
    let _ = writeln!(out, "node_memory_working_set_bytes {used}");
    let labels = |pod: &cri::PodSandboxMetadata| format!("namespace=\"{}\",pod=\"{}\"", pod.namespace, pod.name);
    family(&mut out, "container_cpu_usage_seconds_total", "counter", "CPU time of the container in core-seconds");
    for pod in &stats {
        for c in &pod.containers {
            let name = &c.attributes.metadata.name;
            let value = seconds(c.cpu.usage_core_nano_seconds);
            let _ = writeln!(out, "container_cpu_usage_seconds_total{{container=\"{name}\",{}}} {value}", labels(&pod.attributes.metadata));
        }
    }
    family(&mut out, "container_memory_working_set_bytes", "gauge", "Working set of the container in bytes");
    for pod in &stats {
        for c in &pod.containers {
            let (name, value) = (&c.attributes.metadata.name, c.memory.working_set_bytes);
            let _ =
                writeln!(out, "container_memory_working_set_bytes{{container=\"{name}\",{}}} {value}", labels(&pod.attributes.metadata));
        }
    }
    family(&mut out, "pod_cpu_usage_seconds_total", "counter", "CPU time of the pod in core-seconds");
    for pod in &stats {
        let _ = writeln!(
            out,
            "pod_cpu_usage_seconds_total{{{}}} {}",
            labels(&pod.attributes.metadata),
            seconds(pod.cpu.usage_core_nano_seconds)
        );
    }
    family(&mut out, "pod_memory_working_set_bytes", "gauge", "Working set of the pod in bytes");
    for pod in &stats {
        let _ = writeln!(out, "pod_memory_working_set_bytes{{{}}} {}", labels(&pod.attributes.metadata), pod.memory.working_set_bytes);
    }
    family(&mut out, "resource_scrape_error", "gauge", "1 if there was an error while getting container metrics, 0 otherwise");
    out.push_str("resource_scrape_error 0\n");
    out
}

pub(crate) async fn cadvisor(agent: &Agent) -> String {
    let stats = pods(agent).await;
    let mut out = String::new();
    let mut each = |name: &str, kind: &str, value: &dyn Fn(&cri::ContainerStats) -> f64| {
        family(&mut out, name, kind, "As cAdvisor names it");
        for pod in &stats {
            let meta = &pod.attributes.metadata;
            for c in &pod.containers {
                let (id, container) = (&c.attributes.id, &c.attributes.metadata.name);
                let labels = format!(
                    "container=\"{container}\",id=\"{id}\",image=\"\",name=\"{id}\",namespace=\"{}\",pod=\"{}\"",
                    meta.namespace, meta.name
                );
                let _ = writeln!(out, "{name}{{{labels}}} {}", value(c));
            }
        }
    };
    each("container_cpu_usage_seconds_total", "counter", &|c| seconds(c.cpu.usage_core_nano_seconds));
    each("container_memory_working_set_bytes", "gauge", &|c| c.memory.working_set_bytes as f64);
    each("container_memory_usage_bytes", "gauge", &|c| c.memory.usage_bytes as f64);
    each("container_memory_rss", "gauge", &|c| c.memory.rss_bytes as f64);
    each("container_fs_usage_bytes", "gauge", &|c| c.writable_layer.as_ref().map_or(0, |f| f.used_bytes) as f64);
    out
}
