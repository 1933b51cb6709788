//! Bootstrap tokens, with which nodes join: Secrets of `kube-system` named `bootstrap-token-ID`. Two controllers, off by default as upstream's.
//!
//! - `signer.rs` signs the ConfigMap `kube-public/cluster-info` with each token, so that who joins can trust it
//! - here: the cleaner, which removes tokens that have expired

mod signer;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use tiphys_client::{Action, Informer, ListOptions, ObjectKey, Plan, Planner, WorkQueue};
use tiphys_types::api::core::v1::Secret;

use crate::Context;
use crate::shared::watch;
pub(crate) use signer::start as start_signer;

const PREFIX: &str = "bootstrap-token-";
const TYPE: &str = "bootstrap.kubernetes.io/token";

pub(crate) fn start_cleaner(context: &Context) {
    let tokens = tokens(context);
    let queue = WorkQueue::new();
    watch::own(&tokens, &queue);
    let executor = context.executor("token-cleaner").reading(tokens.clone());
    context.run("token-cleaner-controller", 1, queue, Cleaner { tokens }, executor);
}

fn tokens(context: &Context) -> Informer<Secret> {
    context.informers.filtered(ListOptions::fields(format!("type={TYPE},metadata.namespace=kube-system")))
}

/// A token as its Secret says it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Token {
    id: String,
    secret: String,
    expires: Option<Timestamp>,
    signs: bool,
}

/// None where the Secret is no good token: then nothing is done with it, for it may be being written.
fn read(secret: &Secret) -> Option<Token> {
    let data = secret.data.as_ref()?;
    let field = |name: &str| data.get(name).and_then(|v| std::str::from_utf8(&v.0).ok());
    let id = field("token-id").filter(|id| id.len() == 6)?;
    let named = secret.metadata.name.as_deref()?.strip_prefix(PREFIX)?;
    let expires = match field("expiration") {
        Some(text) => Some(text.parse().ok()?),
        None => None,
    };
    (named == id).then_some(())?;
    Some(Token {
        id: id.to_owned(),
        secret: field("token-secret").filter(|s| s.len() == 16)?.to_owned(),
        expires,
        signs: field("usage-bootstrap-signing") == Some("true"),
    })
}

struct Cleaner {
    tokens: Informer<Secret>,
}

impl Planner for Cleaner {
    type Key = ObjectKey;

    fn plan(&self, key: &ObjectKey, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(secret) = self.tokens.by_key(key) else { return plan };
        let Some(expires) = read(&secret).and_then(|t| t.expires) else { return plan };
        match left(expires, now) {
            Some(left) => plan.again_after(left),
            None => plan.act(Action::delete(&*secret)),
        }
        plan
    }
}

/// None once it is over.
fn left(expires: Timestamp, now: Timestamp) -> Option<Duration> {
    let left = expires.duration_since(now);
    left.is_positive().then(|| left.unsigned_abs() + Duration::from_millis(10))
}

type Data = BTreeMap<String, String>;

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use tiphys_client::gvr_of;
    use tiphys_types::api::core::v1::ConfigMap;

    use super::*;
    use crate::shared::test::Rig;

    fn token(id: &str, expires: &str) -> Value {
        // Base64 of "abcdef" and so on: the fake holds what the API shows.
        use base64::Engine;
        let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
        json!({"metadata": {"namespace": "kube-system", "name": format!("bootstrap-token-{id}")}, "type": TYPE, "data": {
            "token-id": encode(id), "token-secret": encode("0123456789abcdef"), "usage-bootstrap-signing": encode("true"), "expiration": encode(expires)}})
    }

    #[tokio::test(start_paused = true)]
    async fn tokens_sign_until_they_expire() {
        let rig = Rig::start(&[start_cleaner, start_signer]);
        let info = json!({"metadata": {"namespace": "kube-public", "name": "cluster-info"}, "data": {"kubeconfig": "k", "jws-kubeconfig-oldold": "x"}});
        rig.api.insert(&gvr_of::<ConfigMap>(), info);
        rig.api.insert(&gvr_of::<Secret>(), token("abcdef", "2026-01-01T00:01:00Z"));
        rig.settles().await;
        let data = |rig: &Rig| rig.api.get(&gvr_of::<ConfigMap>(), "kube-public", "cluster-info").unwrap_or_default()["data"].clone();
        assert_eq!(data(&rig)["jws-kubeconfig-oldold"], Value::Null, "nobody's signature any more");
        let signature = data(&rig)["jws-kubeconfig-abcdef"].as_str().unwrap_or("").to_owned();
        let parts: Vec<&str> = signature.split('.').collect();
        assert_eq!((parts.len(), parts.get(1)), (3, Some(&"")), "{signature}");
        tokio::time::sleep(Duration::from_secs(61)).await;
        rig.settles().await;
        assert!(rig.api.list(&gvr_of::<Secret>()).is_empty());
        assert_eq!(data(&rig)["jws-kubeconfig-abcdef"], Value::Null);
    }
}
