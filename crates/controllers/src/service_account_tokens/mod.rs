//! Secrets of the type `kubernetes.io/service-account-token` get a token of the ServiceAccount that their annotation names, and go with it.
//!
//! Watches those Secrets and ServiceAccounts; writes and deletes the Secrets. The token is asked for at the API server and bound to its Secret: it
//! is good for as long as the Secret is there, which is what upstream's unbound, endless tokens promise too, and no process but the API server
//! holds the key. Its claims are those of bound tokens, not of the old form.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::json;
use tiphys_client::{
    Client, ClientError, DeleteOptions, Delta, Index, Informer, ListOptions, ObjectKey, Reconcile, ReconcileError, WorkQueue, gvr_of,
};
use tiphys_types::ByteString;
use tiphys_types::api::core::v1::{Secret, ServiceAccount};

use crate::Context;
use crate::shared::watch;

const TYPE: &str = "kubernetes.io/service-account-token";
const NAME: &str = "kubernetes.io/service-account.name";
const UID: &str = "kubernetes.io/service-account.uid";
/// The longest that a TokenRequest may ask for.
const LIFETIME_SECONDS: u64 = 1 << 32;

pub(crate) fn start(context: &Context) {
    let secrets = context.informers.filtered::<Secret>(ListOptions::fields(format!("type={TYPE}")));
    let accounts = context.informers.of::<ServiceAccount>();
    let queue = WorkQueue::new();
    watch::own(&secrets, &queue);
    let of_account = secrets.index("service-account", |s: &Secret| account_of(s).map(|a| a.to_string()).into_iter().collect());
    let (again, theirs) = (queue.clone(), of_account);
    accounts.on_change(move |delta| {
        if !matches!(delta, Delta::Updated { .. }) {
            queue_all(&theirs, &ObjectKey::of(&**delta.object()), &again);
        }
        true
    });
    let filler = Filler {
        client: context.client.clone(),
        secrets: secrets.clone(),
        accounts: accounts.clone(),
        root_ca: context.config.root_ca.clone(),
    };
    context.run_live("serviceaccount-token-controller", 5, queue, Arc::new(filler), async move {
        secrets.synced().await;
        accounts.synced().await;
    });
}

fn queue_all(theirs: &Index<Secret>, account: &ObjectKey, queue: &WorkQueue<ObjectKey>) {
    theirs.get(&account.to_string()).iter().for_each(|secret| queue.add(ObjectKey::of(&**secret)));
}

fn annotation<'a>(secret: &'a Secret, name: &str) -> Option<&'a str> {
    secret.metadata.annotations.as_ref()?.get(name).map(String::as_str).filter(|v| !v.is_empty())
}

fn account_of(secret: &Secret) -> Option<ObjectKey> {
    Some(ObjectKey::new(secret.metadata.namespace.as_deref()?, annotation(secret, NAME)?))
}

struct Filler {
    client: Client,
    secrets: Informer<Secret>,
    accounts: Informer<ServiceAccount>,
    root_ca: Vec<u8>,
}

#[async_trait]
impl Reconcile for Filler {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Option<Duration>, ReconcileError> {
        let Some(secret) = self.secrets.by_key(key).filter(|s| s.metadata.deletion_timestamp.is_none()) else { return Ok(None) };
        let Some(account) = account_of(&secret) else { return Ok(None) };
        match self.account(&account, annotation(&secret, UID)).await? {
            Some(uid) => self.fill(&secret, &account, &uid).await?,
            None => self.remove(&secret).await?,
        }
        Ok(None)
    }
}

impl Filler {
    /// The account's uid, if it is there and the one that was meant. The cache may be late; only the API server can say that it is not.
    async fn account(&self, key: &ObjectKey, meant: Option<&str>) -> Result<Option<String>, ClientError> {
        let cached = self.accounts.by_key(key).and_then(|a| a.metadata.uid.clone());
        if cached.as_deref().is_some_and(|uid| meant.is_none_or(|m| m == uid)) {
            return Ok(cached);
        }
        match self.client.get::<ServiceAccount>(&key.namespace, &key.name).await {
            Ok(account) => Ok(account.metadata.uid.filter(|uid| meant.is_none_or(|m| m == uid))),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn fill(&self, secret: &Secret, account: &ObjectKey, uid: &str) -> Result<(), ClientError> {
        let mut next = secret.clone();
        next.metadata.annotations.get_or_insert_default().insert(UID.into(), uid.to_owned());
        let data: &mut BTreeMap<String, ByteString> = next.data.get_or_insert_default();
        data.insert("namespace".into(), ByteString(account.namespace.as_bytes().to_vec()));
        if !self.root_ca.is_empty() {
            data.insert("ca.crt".into(), ByteString(self.root_ca.clone()));
        }
        if data.get("token").is_none_or(|t| t.0.is_empty()) {
            data.insert("token".into(), ByteString(self.token(secret, account).await?.into_bytes()));
        }
        if next == *secret {
            return Ok(());
        }
        self.client.update(&next).await.map(|_| ())
    }

    async fn token(&self, secret: &Secret, account: &ObjectKey) -> Result<String, ClientError> {
        let bound = json!({"kind": "Secret", "apiVersion": "v1", "name": secret.metadata.name, "uid": secret.metadata.uid});
        let request = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
            "spec": {"expirationSeconds": LIFETIME_SECONDS, "boundObjectRef": bound},
        });
        let gvr = gvr_of::<ServiceAccount>();
        let answer = self.client.create_subresource(&gvr, &account.namespace, &account.name, "token", &request).await?;
        Ok(answer["status"]["token"].as_str().unwrap_or_default().to_owned())
    }

    async fn remove(&self, secret: &Secret) -> Result<(), ClientError> {
        let meta = &secret.metadata;
        let (namespace, name) = (meta.namespace.as_deref().unwrap_or(""), meta.name.as_deref().unwrap_or(""));
        let options = DeleteOptions::default().only_uid(meta.uid.as_deref().unwrap_or(""));
        match self.client.delete::<Secret>(namespace, name, &options).await {
            Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::shared::test::Rig;

    #[tokio::test(start_paused = true)]
    async fn a_secret_goes_with_its_account() {
        let rig = Rig::start(&[start]);
        let secret = |name: &str, more: Value| {
            let mut annotations = json!({NAME: "robot"});
            if let (Some(all), Value::Object(more)) = (annotations.as_object_mut(), more) {
                all.extend(more);
            }
            json!({"metadata": {"namespace": "ns", "name": name, "annotations": annotations}, "type": TYPE, "data": {"token": "dA=="}})
        };
        rig.api.insert(&gvr_of::<ServiceAccount>(), json!({"metadata": {"namespace": "ns", "name": "robot"}}));
        rig.api.insert(&gvr_of::<Secret>(), secret("good", json!({})));
        rig.api.insert(&gvr_of::<Secret>(), secret("of-another", json!({UID: "long-gone"})));
        rig.settles().await;
        let names = |rig: &Rig| rig.api.list(&gvr_of::<Secret>()).iter().map(|s| s["metadata"]["name"].clone()).collect::<Vec<_>>();
        assert_eq!(names(&rig), ["good"]);
        let good = rig.api.get(&gvr_of::<Secret>(), "ns", "good").unwrap_or_default();
        let account = rig.api.get(&gvr_of::<ServiceAccount>(), "ns", "robot").unwrap_or_default();
        assert_eq!(good["metadata"]["annotations"][UID], account["metadata"]["uid"]);
        assert_eq!((&good["data"]["token"], &good["data"]["namespace"]), (&json!("dA=="), &json!("bnM=")), "a token that is there stays");
        assert!(rig.api.client().delete::<ServiceAccount>("ns", "robot", &Default::default()).await.is_ok());
        rig.settles().await;
        assert!(names(&rig).is_empty());
    }
}
