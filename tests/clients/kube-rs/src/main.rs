//! kube-rs as its users write it, run by tests/tests/blackbox/clients.rs with KUBECONFIG set: a typed API, a derived definition, a controller.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{
    Api, AttachParams, DeleteParams, ListParams, LogParams, ObjectMeta, Patch, PatchParams, PostParams, WatchEvent, WatchParams,
};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::wait::{await_condition, conditions};
use kube::runtime::{WatchStreamExt, reflector, watcher};
use kube::{Client, CustomResource, CustomResourceExt, Resource, ResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::timeout;

const NAMESPACE: &str = "rusty";
const SOON: Duration = Duration::from_secs(60);

#[derive(CustomResource, Deserialize, Serialize, Clone, Debug, JsonSchema)]
#[kube(group = "rs.example.com", version = "v1", kind = "Crab", namespaced, status = "CrabStatus", shortname = "cr")]
struct CrabSpec {
    #[schemars(range(min = 2, max = 10))]
    legs: u8,
}

#[derive(Deserialize, Serialize, Clone, Debug, Default, JsonSchema)]
struct CrabStatus {
    walks: bool,
}

async fn objects(client: &Client) -> Result<()> {
    let namespace = Namespace { metadata: ObjectMeta { name: Some(NAMESPACE.into()), ..ObjectMeta::default() }, ..Namespace::default() };
    Api::<Namespace>::all(client.clone()).create(&PostParams::default(), &namespace).await?;
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
    let map: ConfigMap = serde_json::from_value(json!({"metadata": {"name": "a", "labels": {"k": "v"}}, "data": {"x": "1"}}))?;
    let made = maps.create(&PostParams::default(), &map).await?;
    match maps.create(&PostParams::default(), &map).await {
        Err(kube::Error::Api(error)) => ensure!(error.code == 409 && error.reason == "AlreadyExists", "{error:?}"),
        other => anyhow::bail!("a second one: {other:?}"),
    }
    let applied = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"y": "2"}});
    let applied = maps.patch("a", &PatchParams::apply("rs").force(), &Patch::Apply(applied)).await?;
    ensure!(applied.data == Some(BTreeMap::from([("x".into(), "1".into()), ("y".into(), "2".into())])), "{applied:?}");
    let stream = maps.watch(&WatchParams::default().labels("k=v"), &made.resource_version().context("a version")?).await?;
    let mut stream = stream.boxed();
    maps.delete("a", &DeleteParams::default()).await?;
    let mut seen = Vec::new();
    while let Some(event) = timeout(SOON, stream.try_next()).await?? {
        match event {
            WatchEvent::Modified(_) => seen.push("modified"),
            WatchEvent::Deleted(_) => break,
            other => anyhow::bail!("{other:?}"),
        }
    }
    ensure!(seen == ["modified"], "{seen:?}");
    Ok(())
}

async fn pods(client: &Client) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    let (reader, writer) = reflector::store();
    let reflected =
        reflector(writer, watcher(pods.clone(), watcher::Config::default().streaming_lists())).default_backoff().applied_objects();
    let following = tokio::spawn(reflected.for_each(|_| futures::future::ready(())));
    let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": {"terminationGracePeriodSeconds": 1, "containers": [
        {"name": "c", "image": "busybox", "command": ["sh", "-c", "echo ready; sleep 1000"]}]}}))?;
    pods.create(&PostParams::default(), &pod).await?;
    timeout(SOON, await_condition(pods.clone(), "p", conditions::is_pod_running())).await??;
    ensure!(reader.state().iter().any(|p| p.name_any() == "p"), "the reflector has it");
    ensure!(pods.logs("p", &LogParams::default()).await? == "ready\n", "its log");
    let mut process = pods.exec("p", ["cat", "/etc/hostname"], &AttachParams::default().stderr(false)).await?;
    let mut said = String::new();
    tokio::io::AsyncReadExt::read_to_string(&mut process.stdout().context("its output")?, &mut said).await?;
    ensure!(said.trim() == "p", "{said}");
    following.abort();
    pods.delete("p", &DeleteParams::default()).await.map(drop)?;
    Ok(())
}

struct Data(Client);

#[derive(Debug, thiserror::Error)]
#[error(transparent)]
struct Failed(#[from] kube::Error);

/// A crab has a ConfigMap with as many keys as legs, and walks then.
async fn reconcile(crab: Arc<Crab>, data: Arc<Data>) -> Result<Action, Failed> {
    let (name, namespace) = (crab.name_any(), crab.namespace().unwrap_or_default());
    let legs: BTreeMap<String, String> = (0..crab.spec.legs).map(|leg| (format!("leg-{leg}"), String::new())).collect();
    let map =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "data": legs, "metadata": {"ownerReferences": [crab.controller_owner_ref(&())]}});
    let maps: Api<ConfigMap> = Api::namespaced(data.0.clone(), &namespace);
    maps.patch(&name, &PatchParams::apply("crabs").force(), &Patch::Apply(map)).await?;
    let crabs: Api<Crab> = Api::namespaced(data.0.clone(), &namespace);
    crabs.patch_status(&name, &PatchParams::default(), &Patch::Merge(json!({"status": {"walks": true}}))).await?;
    Ok(Action::await_change())
}

async fn a_controller(client: &Client) -> Result<()> {
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let name = Crab::crd().name_any();
    definitions.patch(&name, &PatchParams::apply("rs"), &Patch::Apply(Crab::crd())).await?;
    timeout(SOON, await_condition(definitions.clone(), &name, conditions::is_crd_established())).await??;
    let crabs: Api<Crab> = Api::namespaced(client.clone(), NAMESPACE);
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
    let again = |_: Arc<Crab>, _: &Failed, _: Arc<Data>| Action::requeue(Duration::from_secs(1));
    let controller = Controller::new(crabs.clone(), watcher::Config::default()).owns(maps.clone(), watcher::Config::default());
    let running = tokio::spawn(controller.run(reconcile, again, Arc::new(Data(client.clone()))).for_each(|_| futures::future::ready(())));
    crabs.create(&PostParams::default(), &Crab::new("c", CrabSpec { legs: 8 })).await?;
    let walks = |crab: Option<&Crab>| crab.and_then(|c| c.status.as_ref()).is_some_and(|s| s.walks);
    timeout(SOON, await_condition(crabs.clone(), "c", walks)).await??;
    let legs = maps.get("c").await?.data.map_or(0, |data| data.len());
    ensure!(legs == 8, "{legs} legs");
    let wrong = crabs.patch("c", &PatchParams::default(), &Patch::Merge(json!({"spec": {"legs": 11}}))).await;
    ensure!(matches!(&wrong, Err(kube::Error::Api(e)) if e.code == 422), "too many legs: {wrong:?}");
    let uid = maps.get("c").await?.uid().context("a uid")?;
    crabs.delete("c", &DeleteParams::foreground()).await?;
    timeout(SOON, await_condition(maps.clone(), "c", conditions::is_deleted(&uid))).await??;
    running.abort();
    ensure!(crabs.list(&ListParams::default()).await?.items.is_empty(), "none is left");
    definitions.delete(&name, &DeleteParams::default()).await?;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<()> {
    let client = Client::try_default().await?;
    ensure!(client.apiserver_version().await?.minor == "36", "the version");
    objects(&client).await.context("objects")?;
    println!("passed: objects");
    pods(&client).await.context("pods")?;
    println!("passed: pods");
    a_controller(&client).await.context("a controller")?;
    println!("passed: a controller");
    Api::<Namespace>::all(client).delete(NAMESPACE, &DeleteParams::default()).await?;
    Ok(())
}
