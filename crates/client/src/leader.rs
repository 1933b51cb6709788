use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tiphys_base::Clock;
use tiphys_types::api::coordination::v1::{Lease, LeaseSpec};
use tiphys_types::metav1::{MicroTime, ObjectMeta};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{Client, ClientError, random};

/// Client-go's names and defaults.
#[derive(Debug, Clone)]
pub struct LeaderConfig {
    pub namespace: String,
    pub name: String,
    /// Unique among the candidates.
    pub identity: String,
    pub lease_duration: Duration,
    pub renew_deadline: Duration,
    pub retry_period: Duration,
}

impl LeaderConfig {
    pub fn new(namespace: &str, name: &str, identity: &str) -> Self {
        LeaderConfig {
            namespace: namespace.into(),
            name: name.into(),
            identity: identity.into(),
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
        }
    }
}

/// One leader among several candidates, by a Lease.
///
/// The other's clock is never read: a lease counts as expired when it has not changed for its duration on our own monotonic clock.
pub struct LeaderElection {
    client: Client,
    config: LeaderConfig,
    clock: Arc<dyn Clock>,
    /// What was seen of the other's lease, and when.
    seen: Option<(LeaseSpec, Instant)>,
}

impl LeaderElection {
    pub fn new(client: Client, config: LeaderConfig, clock: Arc<dyn Clock>) -> Self {
        LeaderElection { client, config, clock, seen: None }
    }

    /// Waits until this candidate leads.
    pub async fn acquire(&mut self) {
        loop {
            match self.try_once().await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => tracing::debug!(lease = self.config.name, %error, "cannot get the lease"),
            }
            tokio::time::sleep(random::jitter(self.config.retry_period, 1.2)).await;
        }
    }

    /// Renews until it cannot (returns) or `stop` (gives the lease up, then returns).
    pub async fn hold(&mut self, stop: &CancellationToken) {
        let mut renewed = Instant::now();
        loop {
            tokio::select! {
                () = stop.cancelled() => return self.release().await,
                () = tokio::time::sleep(self.config.retry_period) => {}
            }
            match tokio::time::timeout(self.config.renew_deadline, self.try_once()).await {
                Ok(Ok(true)) => renewed = Instant::now(),
                Ok(Ok(false)) => return,
                Ok(Err(error)) => tracing::debug!(lease = self.config.name, %error, "cannot renew the lease"),
                Err(_) => {}
            }
            if renewed.elapsed() > self.config.renew_deadline {
                return;
            }
        }
    }

    async fn try_once(&mut self) -> Result<bool, ClientError> {
        let now = self.clock.now();
        let lease = match self.client.get::<Lease>(&self.config.namespace, &self.config.name).await {
            Ok(lease) => lease,
            Err(error) if error.is_not_found() => return self.create(now).await,
            Err(error) => return Err(error),
        };
        let spec = lease.spec.clone().unwrap_or_default();
        if !self.may_take(&spec) {
            return Ok(false);
        }
        let renewed = Lease { spec: Some(self.claim(&spec, now)), ..lease };
        match self.client.update(&renewed).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_conflict() => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn may_take(&mut self, spec: &LeaseSpec) -> bool {
        let holder = spec.holder_identity.as_deref().unwrap_or("");
        if holder.is_empty() || holder == self.config.identity {
            return true;
        }
        match &self.seen {
            Some((seen, at)) if seen == spec => {
                at.elapsed() > Duration::from_secs(u64::try_from(spec.lease_duration_seconds.unwrap_or(0)).unwrap_or(0))
            }
            _ => {
                self.seen = Some((spec.clone(), Instant::now()));
                false
            }
        }
    }

    fn claim(&self, old: &LeaseSpec, now: Timestamp) -> LeaseSpec {
        let ours = old.holder_identity.as_deref() == Some(&self.config.identity);
        LeaseSpec {
            holder_identity: Some(self.config.identity.clone()),
            lease_duration_seconds: Some(self.config.lease_duration.as_secs() as i32),
            acquire_time: if ours { old.acquire_time.clone() } else { Some(MicroTime(now)) },
            renew_time: Some(MicroTime(now)),
            lease_transitions: Some(old.lease_transitions.unwrap_or(0) + i32::from(!ours)),
            ..old.clone()
        }
    }

    async fn create(&self, now: Timestamp) -> Result<bool, ClientError> {
        let metadata =
            ObjectMeta { name: Some(self.config.name.clone()), namespace: Some(self.config.namespace.clone()), ..Default::default() };
        let first = LeaseSpec { lease_transitions: Some(-1), ..Default::default() };
        match self.client.create(&Lease { metadata, spec: Some(self.claim(&first, now)) }).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_already_exists() => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn release(&self) {
        let released = async {
            let mut lease: Lease = self.client.get(&self.config.namespace, &self.config.name).await?;
            let Some(spec) = lease.spec.as_mut().filter(|s| s.holder_identity.as_deref() == Some(&self.config.identity)) else {
                return Ok(lease);
            };
            spec.holder_identity = Some(String::new());
            spec.lease_duration_seconds = Some(1);
            self.client.update(&lease).await
        };
        if let Err(error) = released.await {
            tracing::debug!(lease = self.config.name, %error, "lease not given up");
        }
    }
}
