//! Static pods: files in a folder, run whatever the API says, shown there by a mirror pod.

use crate::agent::Agent;
use crate::changes::Changes;
use crate::pod::spec;
use crate::resources::fnv;
use serde_json::json;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tiphys_client::{DeleteOptions, Delta};
use tiphys_types::api::core::v1::Pod;
use tiphys_yaml::Unbounded;
use tokio::sync::{Notify, watch};

/// How the task that keeps static pods hears of things.
#[derive(Default)]
pub(crate) struct Statics {
    /// A mirror or a namesake has gone: look again.
    pub(crate) changed: Notify,
    /// The folder has been read once, or there is none: who is not known by now is an orphan.
    read: watch::Sender<bool>,
}

impl Statics {
    pub(crate) async fn were_read(&self) {
        // The sender lives as long as this does.
        let _ = self.read.subscribe().wait_for(|read| *read).await;
    }
}

const FIRST_RETRY: Duration = Duration::from_millis(500);
const LAST_RETRY: Duration = Duration::from_secs(20);

pub(crate) fn start(agent: &Arc<Agent>, changes: &Arc<Changes>) {
    let Some(folder) = agent.config.static_pod_path.clone() else {
        agent.statics.read.send_replace(true);
        return;
    };
    let (this, changes) = (agent.clone(), changes.clone());
    agent.tasks.spawn("static-pods", async move {
        let mut started: HashMap<String, Arc<Pod>> = HashMap::new();
        let mut retry = FIRST_RETRY;
        loop {
            let mut told = changes.of(&folder).ok();
            if let Some(told) = &mut told {
                told.mark_unchanged();
            }
            let shown = keep(&this, &folder, &mut started).await;
            this.statics.read.send_replace(true);
            // Nobody tells when a folder that is missing appears, or when the API server answers again.
            let again = if shown && told.is_some() { None } else { Some(retry) };
            retry = if again.is_some() { (retry * 2).min(LAST_RETRY) } else { FIRST_RETRY };
            tokio::select! {
                // An editor writes in several steps; the last of them counts.
                () = async { match &mut told { Some(told) => drop(told.changed().await), None => std::future::pending().await } } => {}
                () = this.statics.changed.notified() => {}
                () = async { match again { Some(wait) => tokio::time::sleep(wait).await, None => std::future::pending().await } } => {}
            }
        }
    });
}

/// The pods of the files that can be read, by uid.
fn read(folder: &Path, node: &str) -> HashMap<String, Arc<Pod>> {
    let mut found = HashMap::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let hidden = entry.file_name().to_string_lossy().starts_with('.');
        if hidden || !path.is_file() {
            continue;
        }
        match std::fs::read_to_string(&path).map_err(|e| e.to_string()).and_then(|text| parse(&text, &path, node)) {
            Ok(pod) => {
                found.insert(spec::uid(&pod).to_owned(), Arc::new(pod));
            }
            Err(error) => tracing::warn!(path = %path.display(), error, "not a static pod"),
        }
    }
    found
}

/// Stops what has no file any more, starts what has one. True when all mirrors are as they should be.
async fn keep(agent: &Arc<Agent>, folder: &Path, started: &mut HashMap<String, Arc<Pod>>) -> bool {
    let found = read(folder, &agent.config.node_name);
    let gone: Vec<Arc<Pod>> = started.iter().filter(|(uid, _)| !found.contains_key(*uid)).map(|(_, pod)| pod.clone()).collect();
    let mut fine = true;
    for pod in gone {
        tracing::info!(pod = spec::format(&pod), "a static pod's file is gone");
        started.remove(spec::uid(&pod));
        agent.workers.remove(pod.clone());
        fine &= delete_mirror(agent, &pod).await;
    }
    for (uid, pod) in &found {
        if !started.contains_key(uid) {
            // A changed file is another pod, which has to wait until the former has ended; the worker's end tells.
            if agent.workers.has_namesake(pod) {
                continue;
            }
            agent.workers.update(agent, pod.clone());
            started.insert(uid.clone(), pod.clone());
        }
        fine &= create_mirror(agent, pod).await;
    }
    fine
}

/// The pod of a file: its uid is a hash of the content, so that a changed file is another pod.
fn parse(text: &str, path: &Path, node: &str) -> Result<Pod, String> {
    let mut value = tiphys_yaml::read(text, &Unbounded).map_err(|e| e.to_string())?.tree;
    let hash = format!("{:016x}", fnv(format!("{}\0{node}\0{text}", path.display()).as_bytes()));
    let meta = &mut value["metadata"];
    let name = meta["name"].as_str().ok_or("no metadata.name")?.to_owned();
    meta["name"] = json!(format!("{name}-{node}"));
    if meta["namespace"].is_null() {
        meta["namespace"] = json!("default");
    }
    meta["uid"] = json!(format!("{hash}{:016x}", fnv(hash.as_bytes())));
    meta["annotations"][spec::CONFIG_HASH] = json!(hash);
    meta["annotations"][spec::CONFIG_SOURCE] = json!("file");
    value["spec"]["nodeName"] = json!(node);
    let defaults = [("restartPolicy", json!("Always")), ("dnsPolicy", json!("ClusterFirst")), ("terminationGracePeriodSeconds", json!(30))];
    for (key, default) in defaults.into_iter().chain([("enableServiceLinks", json!(true)), ("tolerations", json!([]))]) {
        if value["spec"][key].is_null() {
            value["spec"][key] = default;
        }
    }
    if let Some(tolerations) = value["spec"]["tolerations"].as_array_mut() {
        tolerations.push(json!({"operator": "Exists", "effect": "NoExecute"}));
    }
    for list in ["containers", "initContainers"] {
        for container in value["spec"][list].as_array_mut().into_iter().flatten() {
            if container["terminationMessagePath"].is_null() {
                container["terminationMessagePath"] = json!("/dev/termination-log");
            }
        }
    }
    let pod: Pod = serde_json::from_value(value).map_err(|e| e.to_string())?;
    if spec::containers(&pod).is_empty() { Err("no containers".into()) } else { Ok(pod) }
}

/// True when it is there.
async fn create_mirror(agent: &Agent, pod: &Pod) -> bool {
    let mut mirror = pod.clone();
    mirror.metadata.uid = None;
    let hash = spec::annotation(pod, spec::CONFIG_HASH).unwrap_or_default().to_owned();
    mirror.metadata.annotations.get_or_insert_default().insert(spec::CONFIG_MIRROR.into(), hash);
    if let Some(node) = agent.node.get("", &agent.config.node_name) {
        mirror.metadata.owner_references = Some(vec![tiphys_types::metav1::OwnerReference {
            api_version: "v1".into(),
            kind: "Node".into(),
            name: agent.config.node_name.clone(),
            uid: node.metadata.uid.clone().unwrap_or_default(),
            controller: Some(true),
            ..Default::default()
        }]);
    }
    match agent.client.create(&mirror).await {
        Ok(_) => true,
        Err(error) if error.is_already_exists() => true,
        Err(error) => {
            tracing::warn!(%error, pod = spec::format(pod), "cannot create a mirror pod");
            false
        }
    }
}

/// True when it is gone.
async fn delete_mirror(agent: &Agent, pod: &Pod) -> bool {
    match agent.client.delete::<Pod>(spec::namespace(pod), spec::name(pod), &DeleteOptions::grace(0)).await {
        Ok(_) => true,
        Err(error) if error.is_not_found() => true,
        Err(error) => {
            tracing::warn!(%error, pod = spec::format(pod), "cannot delete a mirror pod");
            false
        }
    }
}

/// Connects a mirror with the static pod that it shows; one of an older file or of no file goes.
pub(crate) fn mirror_changed(agent: &Arc<Agent>, delta: &Delta<Pod>) {
    let mirror = delta.object();
    let source = agent
        .workers
        .list()
        .into_iter()
        .map(|s| s.pod)
        .find(|p| spec::is_static(p) && spec::name(p) == spec::name(mirror) && spec::namespace(p) == spec::namespace(mirror));
    let (agent, mirror) = (agent.clone(), mirror.clone());
    let fits = source.as_ref().is_some_and(|p| spec::annotation(p, spec::CONFIG_HASH) == spec::annotation(&mirror, spec::CONFIG_MIRROR));
    let gone = matches!(delta, Delta::Deleted(_));
    match source {
        Some(pod) if fits && !gone && !spec::is_deleted(&mirror) => agent.workers.mirror(spec::uid(&pod), Some(mirror)),
        Some(pod) if gone => {
            agent.workers.mirror(spec::uid(&pod), None);
            agent.statics.changed.notify_one();
        }
        _ if !gone => agent.clone().tasks.spawn("mirror", async move {
            // Where a pod of a changed file waits for its namesake, its mirror waits for this one.
            delete_mirror(&agent, &mirror).await;
            agent.statics.changed.notify_one();
        }),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_becomes_a_pod_of_this_node() {
        let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec:\n  containers: [{name: c, image: nginx}]\n";
        let pod = parse(text, Path::new("/etc/web.yaml"), "node-1").expect("a pod");
        assert_eq!((spec::name(&pod), spec::namespace(&pod)), ("web-node-1", "default"));
        assert!(spec::is_static(&pod) && !spec::is_mirror(&pod));
        let changed = parse(&text.replace("nginx", "nginx:2"), Path::new("/etc/web.yaml"), "node-1").expect("a pod");
        assert_ne!(spec::uid(&pod), spec::uid(&changed));
        assert!(parse("metadata: {name: x}", Path::new("x"), "n").is_err());
    }

    /// As the API server would read it: modes are octal, what looks like a number too large is a text.
    #[test]
    fn a_file_is_read_as_kubernetes_reads_yaml() {
        let text = "metadata: {name: web, annotations: {commit: 12e4567}}\nspec:\n  containers: [{name: c, image: nginx}]\n  \
                    volumes: [{name: v, configMap: {name: m, defaultMode: 0644}}]\n";
        let pod = serde_json::to_value(parse(text, Path::new("/etc/web.yaml"), "node-1").expect("a pod")).expect("JSON");
        assert_eq!(pod["metadata"]["annotations"]["commit"], "12e4567");
        assert_eq!(pod["spec"]["volumes"][0]["configMap"]["defaultMode"], 0o644);
    }
}
