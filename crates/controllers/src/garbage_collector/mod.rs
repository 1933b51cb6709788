//! Deletes what its owners have left behind, and keeps the two promises of a delete: `Foreground` (the owner goes after its dependents) and
//! `Orphan` (dependents lose their owner and stay).
//!
//! Watches the metadata of everything that can be listed, watched and deleted, custom resources as they come; deletes, and patches owner
//! references and finalizers. A graph by uid says who might have to go; before anything is deleted, the object and each of its owners are
//! asked for at the API server itself, for caches of different kinds run at different speeds (a child may be seen before its parent).
//!
//! Absent: events about owner references that cross namespaces (they are logged).

mod graph;
mod work;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tiphys_client::{Delta, Informer, Kube, Partial, WorkQueue};
use tiphys_meta::Gvr;
use tiphys_types::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use tiphys_types::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use tokio::sync::Notify;

use crate::Context;
use crate::shared::discovery::{Discovery, Served};
use graph::Graph;
use work::Collector;

pub(crate) fn start(context: &Context) {
    let queue: WorkQueue<String> = WorkQueue::new();
    let graph = Arc::new(Mutex::new(Graph::default()));
    let discovery = context.discovery.clone();
    let collector =
        Collector { client: context.client.clone(), discovery: discovery.clone(), graph: Arc::clone(&graph), queue: queue.clone() };
    let changed = Arc::new(Notify::new());
    wake_on(&context.informers.of::<CustomResourceDefinition>(), &changed);
    wake_on(&context.informers.of::<APIService>(), &changed);
    let watcher = Watcher { informers: context.informers.clone(), discovery, graph, queue: queue.clone(), open: HashSet::new(), changed };
    let (ready, synced) = tokio::sync::oneshot::channel();
    context.tasks.spawn("garbage-collector-watch", watcher.run(ready));
    context.run_live("garbage-collector-controller", 20, queue, Arc::new(collector), async move {
        // The sender only goes with the whole process.
        let _ = synced.await;
    });
}

fn wake_on<K: Kube>(informer: &Informer<K>, changed: &Arc<Notify>) {
    let changed = Arc::clone(changed);
    informer.on_change(move |_| {
        changed.notify_one();
        true
    });
}

/// Keeps an informer open for every kind.
struct Watcher {
    informers: tiphys_client::Informers,
    discovery: Discovery,
    graph: Arc<Mutex<Graph>>,
    queue: WorkQueue<String>,
    open: HashSet<Gvr>,
    changed: Arc<Notify>,
}

/// Events are many, own nothing and are owned by none; the server ages them out.
fn is_ignored(served: &Served) -> bool {
    served.gvr.resource == "events"
}

impl Watcher {
    async fn run(mut self, ready: tokio::sync::oneshot::Sender<()>) {
        let mut ready = Some(ready);
        loop {
            match self.discovery.catalogue().await {
                Ok(catalogue) => {
                    let wanted: Vec<Gvr> =
                        catalogue.preferred(&["list", "watch", "delete"]).filter(|s| !is_ignored(s)).map(|s| s.gvr.clone()).collect();
                    self.follow(&wanted).await;
                    if let Some(ready) = ready.take() {
                        let _ = ready.send(());
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot learn what there is to collect");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    continue;
                }
            }
            self.changed.notified().await;
            // A definition is served shortly after it is established.
            tokio::time::sleep(Duration::from_millis(500)).await;
            self.discovery.forget().await;
        }
    }

    async fn follow(&mut self, wanted: &[Gvr]) {
        for gone in self.open.iter().filter(|g| !wanted.contains(g)).cloned().collect::<Vec<_>>() {
            self.informers.forget_metadata(&gone);
            self.graph.lock().forget_kind(&gone);
            self.open.remove(&gone);
        }
        let mut new = Vec::new();
        for gvr in wanted {
            if self.open.insert(gvr.clone()) {
                let informer = self.informers.metadata(gvr.clone());
                self.feed(gvr.clone(), &informer);
                new.push(informer);
            }
        }
        let first = futures_util::future::join_all(new.iter().map(|i| i.synced()));
        // A kind that cannot be listed must not keep all others waiting.
        if tokio::time::timeout(Duration::from_secs(30), first).await.is_err() {
            tracing::warn!("some kinds could not be listed for the garbage collector yet");
        }
    }

    fn feed(&self, gvr: Gvr, informer: &Informer<Partial>) {
        let (graph, queue) = (Arc::clone(&self.graph), self.queue.clone());
        informer.on_change(move |delta| {
            let work = match delta {
                Delta::Added(new) | Delta::Updated { new, .. } => graph.lock().put(&gvr, &new.metadata),
                Delta::Deleted(old) => graph.lock().remove(old.metadata.uid.as_deref().unwrap_or("")),
            };
            work.into_iter().for_each(|uid| queue.add(uid));
            true
        });
    }
}

#[cfg(test)]
mod tests;
