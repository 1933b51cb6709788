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

fn cpu(agent: &Agent, id: &str, usage: &cri::CpuUsage, now: Timestamp) -> Value {
    let mut value = json!({"time": time(usage.timestamp, now), "usageCoreNanoSeconds": usage.usage_core_nano_seconds});
    if let Some(rate) = agent.rates.of(id, usage) {
        value["usageNanoCores"] = json!(rate);
    }
    value
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
    json!({"node": node(agent, now).await, "pods": stats.iter().map(|s| pod(agent, s, now)).collect::<Vec<_>>()})
}

async fn node(agent: &Agent, now: Timestamp) -> Value {
    let available = machine::memory_field("MemAvailable").max(0) as u64;
    let total = agent.machine.memory.max(0) as u64;
    let busy = cpu_of_machine();
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
        "cpu": cpu(agent, "", &cri::CpuUsage { timestamp: i64::try_from(now.as_nanosecond()).unwrap_or(0), usage_core_nano_seconds: busy, usage_nano_cores: None }, now),
        "memory": memory(&usage, now),
        "fs": disk(agent, None, None, now),
        "runtime": {"imageFs": disk(agent, image_use.map(|i| i.used_bytes), image_use.map(|i| i.inodes_used), now)},
        "rlimit": {"time": tiphys_meta::time::format(now), "maxpid": machine::max_processes(), "curproc": machine::processes()},
    })
}

fn boot_time(now: Timestamp) -> Timestamp {
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let seconds = text.lines().find_map(|l| l.strip_prefix("btime ")?.trim().parse().ok());
    seconds.and_then(|s| Timestamp::from_second(s).ok()).unwrap_or(now)
}

/// Nanoseconds that all CPUs were busy since boot.
fn cpu_of_machine() -> u64 {
    const TICK: u64 = 10_000_000;
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields: Vec<u64> = text.lines().next().unwrap_or_default().split_whitespace().skip(1).filter_map(|f| f.parse().ok()).collect();
    // user, nice, system, then idle and iowait, then irq, softirq, steal.
    let busy: u64 = fields.iter().enumerate().filter(|(i, _)| !matches!(i, 3 | 4) && *i < 8).map(|(_, v)| v).sum();
    busy * TICK
}

fn pod(agent: &Agent, stats: &cri::PodSandboxStats, now: Timestamp) -> Value {
    let meta = &stats.attributes.metadata;
    let shown = agent.workers.by_uid(&meta.uid);
    let started = shown.as_ref().and_then(|s| s.status.start_time.clone()).map_or(now, |t| t.0);
    let container = |c: &cri::ContainerStats| {
        let files = c.writable_layer.as_ref();
        let run = shown.as_ref().and_then(|s| s.view.run(&c.attributes.metadata.name));
        let started = run.map_or(started, |run| run.started_at);
        json!({"name": c.attributes.metadata.name, "startTime": tiphys_meta::time::format(started), "cpu": cpu(agent, &c.attributes.id, &c.cpu, now), "memory": memory(&c.memory, now),
            "rootfs": disk(agent, files.map(|f| f.used_bytes), files.map(|f| f.inodes_used), now),
            "logs": disk(agent, Some(0), None, now)})
    };
    let used: u64 = stats.containers.iter().filter_map(|c| c.writable_layer.as_ref()).map(|f| f.used_bytes).sum();
    let mut value = json!({
        "podRef": {"name": meta.name, "namespace": meta.namespace, "uid": meta.uid},
        "startTime": tiphys_meta::time::format(started),
        "containers": stats.containers.iter().map(container).collect::<Vec<_>>(),
        "cpu": cpu(agent, &meta.uid, &stats.cpu, now),
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

/// One line of a page: its value, and when it was read (milliseconds), as the metrics server wants to know.
struct Line {
    labels: String,
    value: f64,
    at: i64,
}

fn write_family(out: &mut String, name: &str, kind: &str, help: &str, lines: impl IntoIterator<Item = Line>) {
    family(out, name, kind, help);
    for line in lines {
        let labels = if line.labels.is_empty() { String::new() } else { format!("{{{}}}", line.labels) };
        let _ = writeln!(out, "{name}{labels} {} {}", line.value, line.at);
    }
}

pub(crate) async fn resource(agent: &Agent) -> String {
    let stats = pods(agent).await;
    let now = agent.clock.now();
    let mut out = String::new();
    resource_of_node(agent, now, &mut out);
    let of_pod = |pod: &cri::PodSandboxMetadata| format!("namespace=\"{}\",pod=\"{}\"", pod.namespace, pod.name);
    let started = |pod: &cri::PodSandboxStats, name: &str| {
        let shown = agent.workers.by_uid(&pod.attributes.metadata.uid)?;
        shown.view.run(name).map(|run| run.started_at)
    };
    let containers = |value: &dyn Fn(&cri::PodSandboxStats, &cri::ContainerStats) -> Option<(f64, i64)>| -> Vec<Line> {
        let all = stats.iter().flat_map(|pod| pod.containers.iter().map(move |c| (pod, c)));
        let line = |(pod, c): (&cri::PodSandboxStats, &cri::ContainerStats)| {
            let (value, nanos) = value(pod, c)?;
            let labels = format!("container=\"{}\",{}", c.attributes.metadata.name, of_pod(&pod.attributes.metadata));
            Some(Line { labels, value, at: nanos / 1_000_000 })
        };
        all.filter_map(line).collect()
    };
    let cpu = containers(&|_, c| Some((seconds(c.cpu.usage_core_nano_seconds), c.cpu.timestamp)));
    write_family(&mut out, "container_cpu_usage_seconds_total", "counter", "CPU time of the container in core-seconds", cpu);
    let memory = containers(&|_, c| Some((c.memory.working_set_bytes as f64, c.memory.timestamp)));
    write_family(&mut out, "container_memory_working_set_bytes", "gauge", "Working set of the container in bytes", memory);
    let swap = containers(&|_, c| c.swap.as_ref().map(|swap| (swap.swap_usage_bytes as f64, swap.timestamp)));
    write_family(&mut out, "container_swap_usage_bytes", "gauge", "Swap usage of the container in bytes", swap);
    let start = containers(&|pod, c| {
        let at = started(pod, &c.attributes.metadata.name)?;
        Some((at.as_millisecond() as f64 / 1e3, c.cpu.timestamp))
    });
    write_family(&mut out, "container_start_time_seconds", "gauge", "Start time of the container since the epoch in seconds", start);
    let all = |value: &dyn Fn(&cri::PodSandboxStats) -> (f64, i64)| -> Vec<Line> {
        let line = |pod: &cri::PodSandboxStats| {
            let (value, nanos) = value(pod);
            Line { labels: of_pod(&pod.attributes.metadata), value, at: nanos / 1_000_000 }
        };
        stats.iter().map(line).collect()
    };
    let cpu = all(&|pod| (seconds(pod.cpu.usage_core_nano_seconds), pod.cpu.timestamp));
    write_family(&mut out, "pod_cpu_usage_seconds_total", "counter", "CPU time of the pod in core-seconds", cpu);
    let memory = all(&|pod| (pod.memory.working_set_bytes as f64, pod.memory.timestamp));
    write_family(&mut out, "pod_memory_working_set_bytes", "gauge", "Working set of the pod in bytes", memory);
    family(&mut out, "resource_scrape_error", "gauge", "1 if there was an error while getting container metrics, 0 otherwise");
    out.push_str("resource_scrape_error 0\n");
    out
}

fn resource_of_node(agent: &Agent, now: Timestamp, out: &mut String) {
    let line = |value: f64| [Line { labels: String::new(), value, at: now.as_millisecond() }];
    let used = agent.machine.memory - machine::memory_field("MemAvailable");
    let swap = machine::memory_field("SwapTotal") - machine::memory_field("SwapFree");
    write_family(out, "node_cpu_usage_seconds_total", "counter", "CPU time of the node in core-seconds", line(seconds(cpu_of_machine())));
    write_family(out, "node_memory_working_set_bytes", "gauge", "Working set of the node in bytes", line(used as f64));
    write_family(out, "node_swap_usage_bytes", "gauge", "Swap usage of the node in bytes", line(swap as f64));
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
