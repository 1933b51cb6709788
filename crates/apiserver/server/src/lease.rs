//! This server's Lease in `kube-system` (KEP-1965): who wants to know which API servers there are lists those with [`LABEL`]. It is renewed every ten
//! seconds, goes with the server, and those of servers that died an hour ago are cleaned away.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};
use tiphys_base::Clock;
use tiphys_base::platform::host_name;
use tiphys_client::{Client, ClientError, DeleteOptions, ListOptions, Patch};
use tiphys_meta::{names, object, time};
use tokio::sync::Mutex;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::objects::{known, text};
use crate::tokens::new_uuid;

const NAMESPACE: &str = "kube-system";
const LABEL: &str = "apiserver.kubernetes.io/identity";
const COMPONENT: &str = "kube-apiserver";
/// After this a server is taken for dead.
const DURATION_SECONDS: i64 = 3600;
const RENEWED_EVERY: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(2);
const CLEANED_EVERY: Duration = Duration::from_secs(3600);

pub(crate) struct Lease {
    client: Client,
    clock: Arc<dyn Clock>,
    /// Where other servers reach this one, as they tell each other (KEP-4020).
    address: String,
    host: String,
    name: String,
    holder: String,
    /// Nothing is renewed any more.
    over: Mutex<bool>,
}

impl Lease {
    pub(crate) fn new(client: Client, clock: Arc<dyn Clock>, address: &str) -> Self {
        let host = host_name();
        let name = name_of(&host);
        let holder = format!("{name}_{}", new_uuid());
        Lease { client, clock, address: address.to_owned(), host, name, holder, over: Mutex::default() }
    }

    pub(crate) async fn keep(self: Arc<Self>) {
        // One that is left of an earlier life speaks of a server that is gone.
        self.delete().await;
        let mut renewals = interval(RENEWED_EVERY);
        renewals.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut cleaned: Option<Instant> = None;
        loop {
            renewals.tick().await;
            if let Err(error) = self.renew().await {
                tracing::warn!(lease = self.name, %error, "cannot renew this server's Lease");
            }
            if cleaned.is_none_or(|at| at.elapsed() >= CLEANED_EVERY) {
                cleaned = Some(Instant::now());
                if let Err(error) = self.clean().await {
                    tracing::warn!(%error, "cannot clean Leases of dead API servers away");
                }
            }
        }
    }

    /// At the end: nobody is to look for this server any more. Waits a little and no longer, for the store may be what has failed.
    pub(crate) async fn give_up(&self) {
        let given_up = async {
            *self.over.lock().await = true;
            self.delete().await;
        };
        let _ = timeout(PATIENCE, given_up).await;
    }

    async fn delete(&self) {
        match self.client.delete_value(&known::LEASES, NAMESPACE, &self.name, &DeleteOptions::default()).await {
            Err(error) if !error.is_not_found() => tracing::warn!(lease = self.name, %error, "cannot delete this server's Lease"),
            _ => {}
        }
    }

    async fn renew(&self) -> Result<(), ClientError> {
        let over = self.over.lock().await;
        if *over {
            return Ok(());
        }
        let want = self.wanted();
        match self.client.patch_value(&known::LEASES, NAMESPACE, &self.name, "", &Patch::Merge(want.clone())).await {
            Err(error) if error.is_not_found() => self.client.create_value(&known::LEASES, NAMESPACE, &want).await.map(drop),
            result => result.map(drop),
        }
    }

    fn wanted(&self) -> Value {
        let mut labels = json!({LABEL: COMPONENT});
        if names::label_value(&self.host).is_empty() {
            labels["kubernetes.io/hostname"] = json!(self.host);
        }
        json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {
                "name": self.name, "namespace": NAMESPACE, "labels": labels,
                "annotations": {"kubernetes.io/peer-advertise-address": self.address},
            },
            "spec": {"holderIdentity": self.holder, "leaseDurationSeconds": DURATION_SECONDS, "renewTime": time::format_micro(self.clock.now())},
        })
    }

    async fn clean(&self) -> Result<(), ClientError> {
        let of_servers = ListOptions::labels(format!("{LABEL}={COMPONENT}"));
        let leases = self.client.list_value(&known::LEASES, NAMESPACE, &of_servers).await?;
        for lease in crate::objects::items(&leases, &["items"]).iter().filter(|lease| expired(lease, self.clock.now())) {
            let options = DeleteOptions::default().only_version(object::resource_version(lease));
            match self.client.delete_value(&known::LEASES, NAMESPACE, object::name(lease), &options).await {
                // Its server lives, or another one was first.
                Err(error) if !error.is_not_found() && !error.is_conflict() => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

/// The same for every life of the server on a machine, another one on every machine.
fn name_of(host: &str) -> String {
    let mut hashed = Vec::new();
    for part in [host, COMPONENT] {
        hashed.extend(u16::try_from(part.len()).unwrap_or(u16::MAX).to_be_bytes());
        hashed.extend(part.as_bytes());
    }
    let hash = digest(&SHA256, &hashed);
    format!("apiserver-{}", base32(hash.as_ref().get(..16).unwrap_or_default()))
}

/// RFC 4648 §6 in lower case and without padding.
fn base32(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let bit = |i: usize| bytes.get(i / 8).map_or(0, |byte| byte >> (7 - i % 8) & 1);
    let digit = |i: usize| (i..i + 5).fold(0_u8, |digit, i| digit << 1 | bit(i));
    (0..bytes.len() * 8).step_by(5).map(|i| char::from(DIGITS[usize::from(digit(i))])).collect()
}

/// A Lease that says not when and how long is none.
fn expired(lease: &Value, now: Timestamp) -> bool {
    let renewed = time::parse(text(lease, &["spec", "renewTime"]));
    let seconds = lease.pointer("/spec/leaseDurationSeconds").and_then(Value::as_i64);
    renewed.zip(seconds).is_none_or(|(at, seconds)| now.as_second() > at.as_second().saturating_add(seconds))
}

#[cfg(test)]
mod tests {
    use tiphys_base::FakeClock;
    use tiphys_testing::FakeApi;

    use super::*;

    #[test]
    fn names_are_upstreams() {
        // What upstream's server calls itself on a machine of that name.
        assert_eq!(name_of("kind-control-plane"), "apiserver-c7uylvfxlbqccnk6myfkwetzze");
        assert_eq!(base32(b"foobar"), "mzxw6ytboi");
        assert_eq!(base32(b""), "");
    }

    #[tokio::test]
    async fn it_is_there_as_long_as_its_server_is() {
        let (api, clock) = (FakeApi::new(), FakeClock::at(time::parse("2026-11-22T12:00:00Z").expect("a time")));
        let lease = Lease::new(api.client(), clock.clone(), "10.0.0.1:6443");
        let there = |name: &str| api.get(&known::LEASES, NAMESPACE, name);
        let renewed = || there(&lease.name).map(|o| text(&o, &["spec", "renewTime"]).to_owned());
        lease.renew().await.expect("made");
        assert_eq!(renewed().as_deref(), Some("2026-11-22T12:00:00.000000Z"));
        for (name, component, at) in [
            ("dead", COMPONENT, "2026-11-22T09:00:00.000000Z"),
            ("alive", COMPONENT, "2026-11-22T11:59:00.000000Z"),
            ("another's", "sample", "2026-11-22T09:00:00.000000Z"),
        ] {
            let metadata = json!({"name": name, "namespace": NAMESPACE, "labels": {LABEL: component}});
            api.insert(&known::LEASES, json!({"metadata": metadata, "spec": {"renewTime": at, "leaseDurationSeconds": 3600}}));
        }
        clock.advance(RENEWED_EVERY);
        lease.renew().await.expect("renewed");
        lease.clean().await.expect("cleaned");
        assert_eq!(renewed().as_deref(), Some("2026-11-22T12:00:10.000000Z"));
        assert_eq!(["dead", "alive", "another's"].map(|name| there(name).is_some()), [false, true, true]);
        lease.give_up().await;
        lease.renew().await.expect("it is over");
        assert_eq!(renewed(), None);
    }

    #[test]
    fn leases_of_the_dead_expire() {
        let lease = |renewed: &str| json!({"spec": {"renewTime": renewed, "leaseDurationSeconds": 3600}});
        let now = time::parse("2026-11-22T12:00:00Z").expect("a time");
        for (lease, want) in [
            (lease("2026-11-22T11:59:50.000000Z"), false),
            (lease("2026-11-22T11:00:00.000000Z"), false),
            (lease("2026-11-22T10:59:59.000000Z"), true),
            (lease(""), true),
            (json!({"spec": {"renewTime": "2026-11-22T11:59:50.000000Z"}}), true),
        ] {
            assert_eq!(expired(&lease, now), want, "{lease}");
        }
    }
}
