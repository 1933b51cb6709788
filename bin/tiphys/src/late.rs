//! Why a cluster is not ready in the time that was given to it: what its nodes and the demo's pods say themselves.

use tiphys_cli::cluster::{Cluster, Layout};
use tiphys_client::{Client, ListOptions};
use tiphys_types::api::core::v1::{Node, Pod};

use crate::cluster::Options;

/// Lines for a person, each with its cause.
pub(crate) async fn reason(admin: &Client, layout: &Layout, cluster: &Cluster, options: &Options) -> String {
    let mut lines = Vec::new();
    let nodes = admin.list::<Node>("", &ListOptions::default()).await;
    match &nodes {
        Err(error) => lines.push(format!("the nodes cannot be read: {error}")),
        Ok(nodes) => {
            let names = (1..=cluster.nodes).map(|n| (n, cluster.node_name(n)));
            for (number, name) in names {
                match nodes.items.iter().find(|n| n.metadata.name.as_deref() == Some(name.as_str())) {
                    None => lines.push(format!("node {name} has not come; its log is {}", log_of(layout, number))),
                    Some(node) => lines.extend(of_node(&name, node, &layout.data_dir)),
                }
            }
        }
    }
    if options.demo
        && let Ok(pods) = admin.list::<Pod>("default", &ListOptions::labels("app=demo")).await
    {
        lines.extend(pods.items.iter().flat_map(of_pod));
    }
    if lines.is_empty() {
        lines.push("the nodes are ready, but the cluster's DNS does not answer".into());
    }
    lines.push(format!("the log is {}", layout.log().display()));
    lines.iter().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

fn log_of(layout: &Layout, number: u32) -> String {
    if number == 1 { layout.log().display().to_string() } else { layout.node(number).join("node.log").display().to_string() }
}

fn of_node(name: &str, node: &Node, data_dir: &std::path::Path) -> Vec<String> {
    let conditions = node.status.as_ref().and_then(|s| s.conditions.as_ref());
    let wrong = conditions.into_iter().flatten().filter(|c| (c.type_ == "Ready") != (c.status == "True"));
    wrong
        .map(|c| {
            let said = c.message.as_deref().unwrap_or("");
            let more = if c.type_ == "DiskPressure" { disk(data_dir) } else { String::new() };
            format!("node {name}: {} is {}: {said}{more}", c.type_, c.status)
        })
        .collect()
}

/// The kubelet's default threshold of `nodefs.available` is 10 %, below which it takes no pods.
fn disk(data_dir: &std::path::Path) -> String {
    let Ok((free, total)) = tiphys_cli::doctor::disk(data_dir) else { return String::new() };
    format!(
        "; {} of {} MiB are free at {}, and no pods start below 10 %: free some, or choose another place with --data-dir",
        free >> 20,
        total >> 20,
        data_dir.display()
    )
}

fn of_pod(pod: &Pod) -> Vec<String> {
    let name = pod.metadata.name.as_deref().unwrap_or("");
    let Some(status) = &pod.status else { return vec![format!("pod {name} has no status yet")] };
    let waiting = status.container_statuses.iter().flatten().filter_map(|c| {
        let waiting = c.state.as_ref()?.waiting.as_ref()?;
        let (reason, said) = (waiting.reason.as_deref().unwrap_or(""), waiting.message.as_deref().unwrap_or(""));
        Some(format!("pod {name}: container {} waits: {reason} {said}", c.name))
    });
    let conditions = status.conditions.iter().flatten().filter(|c| c.type_ == "PodScheduled" && c.status == "False");
    let unscheduled = conditions.map(|c| format!("pod {name} has no node: {}", c.message.as_deref().unwrap_or("")));
    waiting.chain(unscheduled).collect()
}
