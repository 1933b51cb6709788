//! What a registry is told when it starts.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::Value;
use tiphys_base::tasks::Tasks;
use tiphys_base::{Clock, SystemClock};
use tiphys_meta::{ApiError, Gvr};

use crate::admission::{Operation, PodSecuritySettings};
use crate::request::{AuditNotes, UserInfo};
use crate::storage::encryption::Encryption;

#[derive(Clone)]
pub struct RegistryConfig {
    /// Ranges of ClusterIPs, at most one per family; the first is the default family. Its first address is that of the `kubernetes` Service.
    pub service_cidrs: Vec<Cidr>,
    /// First and last port for NodePorts.
    pub node_ports: (u16, u16),
    /// How long events live.
    pub event_ttl: Duration,
    /// The least time that a watch without `timeoutSeconds` lasts; the most is twice that.
    pub min_watch_timeout: Duration,
    /// How often history is compacted; each time what is older than one such interval goes.
    pub compaction_interval: Duration,
    /// History is compacted sooner when so many bytes of it have gathered.
    pub history_limit: usize,
    /// What objects take in memory in the form that clients read, beside what is stored of them; what was read last is kept.
    pub forms_limit: usize,
    /// Which resources are encrypted at rest, and how.
    pub encryption: Encryption,
    /// How pods are judged where namespaces do not say, and which are not.
    pub pod_security: PodSecuritySettings,
    pub clock: Arc<dyn Clock>,
    pub tasks: Tasks,
}

impl Default for RegistryConfig {
    fn default() -> Self {
        RegistryConfig {
            service_cidrs: vec![Cidr { base: IpAddr::from([10, 96, 0, 0]), bits: 16 }],
            node_ports: (30000, 32767),
            event_ttl: Duration::from_secs(3600),
            min_watch_timeout: Duration::from_secs(1800),
            compaction_interval: Duration::from_secs(300),
            history_limit: 64 << 20,
            forms_limit: 64 << 20,
            encryption: Encryption::default(),
            pod_security: PodSecuritySettings::default(),
            clock: SystemClock::shared(),
            tasks: Tasks::new(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    pub base: IpAddr,
    pub bits: u8,
}

impl Cidr {
    /// `10.96.0.0/16`; bits behind the prefix are cleared.
    pub fn parse(text: &str) -> Option<Cidr> {
        let (base, bits) = text.split_once('/')?;
        let base: IpAddr = base.parse().ok()?;
        let bits: u8 = bits.parse().ok()?;
        let base = match base {
            IpAddr::V4(v4) if bits <= 32 => {
                IpAddr::from((u32::from(v4) & u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0)).to_be_bytes())
            }
            IpAddr::V6(v6) if bits <= 128 => {
                IpAddr::from((u128::from(v6) & u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0)).to_be_bytes())
            }
            _ => return None,
        };
        Some(Cidr { base, bits })
    }
}

/// What admission asks of authorization (`Authorizer` upstream). Given with [`crate::Registry::set_authorizer`].
#[async_trait]
pub trait Authorizer: Send + Sync + 'static {
    async fn allowed(&self, user: &UserInfo, question: &Question<'_>) -> bool;

    /// The same without waiting, with the reason: for expressions.
    fn decide(&self, user: &UserInfo, question: &Question<'_>) -> (bool, String);

    /// Why the user may not, in the words of an answer; none: they may.
    fn refusal(&self, user: &UserInfo, question: &Question<'_>) -> Option<String>;

    /// Refuses a write that the user may ask for but that grants or touches more than is theirs: RBAC escalation, NodeRestriction.
    /// The last of the validating checks.
    fn check_write(&self, _user: &UserInfo, _write: &Write<'_>) -> Result<(), ApiError> {
        Ok(())
    }
}

/// Who calls admission webhooks. Given with [`crate::Registry::set_webhooks`].
#[async_trait]
pub trait Webhooks: Send + Sync + 'static {
    /// The object as the webhooks want it; none where they leave it as it is.
    async fn mutate(&self, write: &Write<'_>, about: &About<'_>) -> Result<Option<Value>, ApiError>;
    async fn validate(&self, write: &Write<'_>, about: &About<'_>) -> Result<(), ApiError>;
    /// Sends a ConversionReview to the webhook of a CustomResourceDefinition (`clientConfig`); what it answers, or why it did not.
    async fn convert(&self, client: &Value, review: &Value) -> Result<Value, String>;
}

/// The request that a write belongs to.
#[derive(Clone)]
pub struct About<'a> {
    pub user: &'a UserInfo,
    pub dry_run: bool,
    /// `CreateOptions` and its like.
    pub options: Value,
    /// What webhooks want the client to know.
    pub warnings: &'a Mutex<Vec<String>>,
    pub notes: &'a AuditNotes,
}

/// A write that is about to happen, in the stored version.
#[derive(Debug, Clone, Copy)]
pub struct Write<'a> {
    pub operation: Operation,
    pub gvr: &'a Gvr,
    /// In the version of the request.
    pub requested: &'a Gvr,
    pub subresource: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
    /// None for a deletion.
    pub object: Option<&'a Value>,
    /// None for a creation.
    pub old: Option<&'a Value>,
}

/// One access to a resource, as in a SubjectAccessReview.
#[derive(Debug, Clone, Copy, Default)]
pub struct Question<'a> {
    pub verb: &'a str,
    pub group: &'a str,
    pub version: &'a str,
    pub resource: &'a str,
    pub subresource: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
    /// Of a request that is about no resource; empty otherwise.
    pub path: &'a str,
}
