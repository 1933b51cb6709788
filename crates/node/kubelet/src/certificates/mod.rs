//! The kubelet's own certificates, renewed while it runs.
//!
//! | certificate | whose | renewed by |
//! |---|---|---|
//! | client (`rotateCertificates`) | the cluster's CA | a CertificateSigningRequest of `kubernetes.io/kube-apiserver-client-kubelet` |
//! | serving (`serverTLSBootstrap`) | the cluster's CA | a request of `kubernetes.io/kubelet-serving`, which somebody has to approve |
//! | serving, given neither that nor files | its own | itself |
//!
//! Pairs that were asked for lie in the folder `pki` under upstream's names, so that a kubeconfig of kubeadm's finds them.
//! Each is replaced when 70 to 90 % of its time is over, so that nodes that began together do not ask together.
//!
//! Absent: bootstrap kubeconfigs (the first client certificate is the kubeconfig's).

mod plan;
mod requests;
mod store;
#[cfg(test)]
mod tests;

use crate::agent::Agent;
use crate::config::Config;
use jiff::Timestamp;
use requests::{RequestError, Requests};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use store::PairStore;
use tiphys_base::pki::{Authority, Identity, Names, PkiError, Subject, Use};
use tiphys_base::{Clock, Reloading, ReloadingError};
use tiphys_client::random;

const CLIENT: &str = "kubelet-client";
const SERVING: &str = "kubelet-server";
const YEAR: Duration = Duration::from_secs(365 * 86_400);
/// The machine may sleep and its clock be set: no wait is longer than this.
const LONGEST_WAIT: Duration = Duration::from_secs(86_400);
/// After failures: doubled from the first to the last.
const FIRST_RETRY: Duration = Duration::from_secs(2);
const LAST_RETRY: Duration = Duration::from_secs(32);

#[derive(Debug, thiserror::Error)]
pub(crate) enum RotationError {
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error(transparent)]
    Pki(#[from] PkiError),
    #[error("cannot keep the new certificate")]
    Keep(#[from] io::Error),
    #[error("the new certificate cannot be used")]
    Use(#[from] ReloadingError),
}

/// The files of the client certificate that a kubelet with `rotateCertificates` shows, and whether it is to be renewed at once: they begin
/// as a copy of `first`, which is the kubeconfig's, and follow it no more.
pub fn client_files(config: &Config, first: &Identity) -> io::Result<(PathBuf, bool)> {
    let store = PairStore::new(&config.cert_dir, CLIENT);
    let known = store.current().is_some();
    if !known {
        store.replace(first, "first")?;
    }
    Ok((store.current_path(), !known))
}

/// Who makes the next certificate.
enum Signer {
    Own,
    Requests(Requests),
}

/// One certificate, and when it is to be replaced.
struct Rotation {
    subject: Subject,
    names: Names,
    signer: Signer,
    store: Option<PairStore>,
    /// Who shows it, unless files are looked at.
    shown: Option<Arc<Reloading>>,
    due: Timestamp,
}

impl Rotation {
    /// Renews it if that is due; tells when it is due next.
    async fn step(&mut self, now: Timestamp) -> Result<Timestamp, RotationError> {
        if now >= self.due {
            let fresh = match &self.signer {
                Signer::Own => own(&self.subject, &self.names, now)?,
                Signer::Requests(requests) => requests.issue(&self.subject, &self.names).await?,
            };
            if let Some(store) = &self.store {
                store.replace(&fresh, &now.strftime("%Y-%m-%d-%H-%M-%S").to_string())?;
            }
            if let Some(shown) = &self.shown {
                shown.replace(&fresh)?;
            }
            self.due = plan::deadline(&fresh.cert_pem, plan::chance())?;
            tracing::info!(subject = %self.subject.common_name, due = %self.due, "the certificate is renewed");
        }
        Ok(self.due)
    }

    async fn run(mut self, clock: Arc<dyn Clock>) {
        let mut retry = FIRST_RETRY;
        loop {
            let wait = match self.step(clock.now()).await {
                Ok(due) => {
                    retry = FIRST_RETRY;
                    due.duration_since(clock.now()).try_into().unwrap_or(Duration::ZERO).min(LONGEST_WAIT)
                }
                Err(error) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::warn!(subject = %self.subject.common_name, error, "the certificate is not renewed");
                    let wait = random::jitter(retry, 0.1);
                    retry = (retry * 2).min(LAST_RETRY);
                    wait
                }
            };
            tokio::time::sleep(wait).await;
        }
    }
}

/// A serving certificate of a CA that nobody knows, as upstream's kubelet makes one when it is given none.
fn own(subject: &Subject, names: &Names, now: Timestamp) -> Result<Identity, PkiError> {
    let name = names.dns.first().map_or("kubelet", String::as_str);
    let authority = Authority::generate(&format!("{name}-ca"), now, YEAR)?;
    authority
        .issue(&Subject { organizations: Vec::new(), common_name: name.to_owned() }, names, Use::Server, now, YEAR)
        .inspect(|_| tracing::debug!(subject = %subject.common_name, "a serving certificate of its own"))
}

fn subject(config: &Config) -> Subject {
    Subject { common_name: format!("system:node:{}", config.node_name), organizations: vec!["system:nodes".into()] }
}

fn serving_names(config: &Config) -> Names {
    Names { dns: vec![config.node_name.clone()], ips: config.node_ips.clone() }
}

/// What the server shows. Until a request is approved it is a certificate of the kubelet's own.
pub(crate) fn serving(agent: &Arc<Agent>) -> Result<Arc<Reloading>, RotationError> {
    let config = &agent.config;
    if let Some((cert, key)) = config.serving.clone().filter(|_| !config.rotate_serving) {
        return Ok(Reloading::of_files(cert, key, agent.clock.clone())?);
    }
    let now = agent.clock.now();
    let (subject, names) = (subject(config), serving_names(config));
    let store = config.rotate_serving.then(|| PairStore::new(&config.cert_dir, SERVING));
    let known = store.as_ref().and_then(PairStore::current).filter(|pair| plan::is_alive(&pair.cert_pem, now));
    let fits = known.as_ref().is_some_and(|pair| plan::covers(&pair.cert_pem, &subject, &names));
    let first = match known {
        Some(pair) => pair,
        None => own(&subject, &names, now)?,
    };
    let (signer, due) = match store {
        Some(_) if !fits => (serving_requests(agent), now),
        Some(_) => (serving_requests(agent), plan::deadline(&first.cert_pem, plan::chance())?),
        None => (Signer::Own, plan::deadline(&first.cert_pem, plan::chance())?),
    };
    let shown = Reloading::new(Vec::new(), move || Ok(first.clone()), agent.clock.clone())?;
    let rotation = Rotation { subject, names, signer, store, shown: Some(shown.clone()), due };
    agent.tasks.spawn("serving-certificate", rotation.run(agent.clock.clone()));
    Ok(shown)
}

fn serving_requests(agent: &Agent) -> Signer {
    let (client, tasks) = (agent.client.clone(), agent.tasks.clone());
    Signer::Requests(Requests { client, tasks, signer: "kubernetes.io/kubelet-serving", usage: "server auth" })
}

/// Keeps the client certificate of `rotateCertificates` fresh. The client looks at its files.
pub(crate) fn rotate_client(agent: &Arc<Agent>) -> Result<(), RotationError> {
    let config = &agent.config;
    let store = PairStore::new(&config.cert_dir, CLIENT);
    let Some(current) = store.current().filter(|_| config.rotate_client) else { return Ok(()) };
    let now = agent.clock.now();
    let (subject, names) = (subject(config), Names::default());
    let at_once = config.renew_client_at_once || !plan::covers(&current.cert_pem, &subject, &names);
    let due = if at_once { now } else { plan::deadline(&current.cert_pem, plan::chance())? };
    let (client, tasks) = (agent.client.clone(), agent.tasks.clone());
    let requests = Requests { client, tasks, signer: "kubernetes.io/kube-apiserver-client-kubelet", usage: "client auth" };
    let rotation = Rotation { subject, names, signer: Signer::Requests(requests), store: Some(store), shown: None, due };
    agent.tasks.spawn("client-certificate", rotation.run(agent.clock.clone()));
    Ok(())
}
