//! Starting and stopping: builds what the parts share, connects watches and runtime events to pod workers.

use crate::agent::Agent;
use crate::certificates::{self, RotationError};
use crate::cgroups::PodGroups;
use crate::changes::Changes;
use crate::config::Config;
use crate::events::Events;
use crate::images::Images;
use crate::node::{self, machine};
use crate::objects::Objects;
use crate::pod::spec;
use crate::tokens::Tokens;
use crate::users::UserRanges;
use crate::volumes::{Layout, Volumes};
use crate::{gc, names, server, static_pods};
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;
use tiphys_base::clock::Clock;
use tiphys_base::tasks::Tasks;
use tiphys_client::{Client, Delta, EventRecorder, Informers, ListOptions};
use tiphys_cri as cri;
use tiphys_types::api::core::v1::{Node, Pod, Service};

/// Why a kubelet did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the kubelet's folder {path} cannot be used")]
    Folder {
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error("the container runtime does not answer")]
    Runtime(#[from] cri::CriError),
    #[error("the kubelet cannot listen on {address}")]
    Listen {
        address: SocketAddr,
        #[source]
        source: std::io::Error,
    },
    #[error("the kubelet's serving certificate cannot be used")]
    Tls(#[from] tiphys_base::tls::TlsError),
    #[error("the kubelet's certificates cannot be used")]
    Certificates(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl From<RotationError> for StartError {
    fn from(error: RotationError) -> Self {
        StartError::Certificates(error.into())
    }
}

/// The node agent.
pub struct Kubelet;

/// A kubelet that runs. Dropping it does not stop it; containers outlive it in any case.
pub struct Running {
    agent: Arc<Agent>,
    /// Where the HTTPS server listens.
    pub address: SocketAddr,
}

impl Kubelet {
    pub async fn start(
        config: Config,
        client: Client,
        runtime: Arc<dyn cri::RuntimeService>,
        images: Arc<dyn cri::ImageService>,
        clock: Arc<dyn Clock>,
        tasks: &Tasks,
    ) -> Result<Running, StartError> {
        let tasks = tasks.child();
        let folder = |path: &std::path::Path, source| StartError::Folder { path: path.display().to_string(), source };
        let volumes = Volumes::new(Layout { root: config.root_dir.clone() });
        volumes.prepare(config.memory_backed_secrets).map_err(|e| folder(&config.root_dir, e))?;
        std::fs::create_dir_all(&config.pod_logs_dir).map_err(|e| folder(&config.pod_logs_dir, e))?;
        let changes = Changes::start(&tasks).map_err(|e| folder(&config.root_dir, e))?;
        let informers = Informers::with_tasks(client.clone(), tasks.clone());
        let node_options = ListOptions::fields(format!("metadata.name={}", config.node_name));
        let recorder = EventRecorder::new(client.clone(), names::COMPONENT, &config.node_name, clock.clone(), &tasks);
        let agent = Arc::new_cyclic(|this: &Weak<Agent>| {
            let told = || {
                let this = this.clone();
                Arc::new(move |uid: &str| {
                    if let Some(agent) = this.upgrade() {
                        agent.workers.touch(uid);
                    }
                }) as Arc<dyn Fn(&str) + Send + Sync>
            };
            Agent {
                users: UserRanges::open(Layout { root: config.root_dir.clone() }),
                groups: PodGroups::new(config.cgroups_per_qos, &config.cgroup_root),
                machine: machine::machine(&config),
                events: Events::new(recorder, &config.node_name),
                images: Images::new(images, clock.clone()),
                config_maps: Objects::new(client.clone(), tasks.clone(), told()),
                secrets: Objects::new(client.clone(), tasks.clone(), told()),
                tokens: Tokens::new(client.clone(), clock.clone()),
                services: informers.of::<Service>(),
                node: informers.filtered::<Node>(node_options),
                workers: Default::default(),
                statics: Default::default(),
                metrics: Default::default(),
                rates: Default::default(),
                pressure: Default::default(),
                port: OnceLock::new(),
                config,
                client,
                clock,
                runtime,
                volumes,
                tasks,
            }
        });
        let address = server::start(&agent, &changes).await?;
        let _ = agent.port.set(address.port());
        certificates::rotate_client(&agent)?;
        let node = node::start(&agent).await?;
        follow_runtime(&agent, &changes, &node);
        follow_pods(&agent, &informers);
        static_pods::start(&agent, &changes);
        gc::start(&agent, &node);
        agent.tasks.spawn("eviction", node::eviction::run(agent.clone(), node));
        Ok(Running { agent, address })
    }
}

impl Running {
    /// Stops the kubelet. Pods and their containers go on.
    pub async fn stop(&self) -> bool {
        self.agent.tasks.shut_down(Duration::from_secs(10)).await
    }
}

/// Every pod of the API that is bound to this node gets a worker.
fn follow_pods(agent: &Arc<Agent>, informers: &Informers) {
    let pods = informers.filtered::<Pod>(ListOptions::fields(format!("spec.nodeName={}", agent.config.node_name)));
    let this = Arc::downgrade(agent);
    let synced = pods.clone();
    // Admission reads the node, and restarted pods should be judged by what is known; so the node comes first.
    let start = agent.clone();
    agent.tasks.spawn("pods", async move {
        if tokio::time::timeout(Duration::from_secs(5), start.node.synced()).await.is_err() {
            tracing::warn!("the node is not known yet; pods are taken without it");
        }
        pods.on_change(move |delta| match this.upgrade() {
            Some(agent) => {
                dispatch(&agent, delta);
                true
            }
            None => false,
        });
        synced.synced().await;
        start.statics.were_read().await;
        gc::sweep_orphans(&start, &synced).await;
    });
}

fn dispatch(agent: &Arc<Agent>, delta: &Delta<Pod>) {
    let pod = delta.object();
    if spec::is_mirror(pod) {
        return static_pods::mirror_changed(agent, delta);
    }
    match delta {
        Delta::Added(pod) | Delta::Updated { new: pod, .. } => agent.workers.update(agent, pod.clone()),
        Delta::Deleted(pod) => agent.workers.remove(pod.clone()),
    }
}

/// Container events wake the worker of their pod. A broken stream is opened again, and everyone looks anew.
fn follow_runtime(agent: &Arc<Agent>, changes: &Arc<Changes>, node: &Arc<node::NodeState>) {
    let (agent, changes, node) = (agent.clone(), changes.clone(), node.clone());
    let tasks = agent.tasks.clone();
    tasks.spawn("container-events", async move {
        loop {
            match agent.runtime.container_events().await {
                Ok(mut events) => {
                    agent.workers.wake_all();
                    while let Some(event) = events.recv().await {
                        if event.event_type == cri::ContainerEventType::Stopped {
                            changes.wake_all();
                        }
                        match event.pod_sandbox_status {
                            Some(sandbox) => agent.workers.wake(&sandbox.metadata.uid),
                            None => agent.workers.wake_all(),
                        }
                    }
                }
                Err(error) => tracing::warn!(%error, "no container events"),
            }
            node.changed.notify_one();
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    });
}
