//! Trees of the few objects that nearly every request asks for again: the service account that a pod runs as, limits, quotas. An entry keeps bytes, and to
//! parse the same ones for each pod that is made was a twentieth of that pod's cost.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::Value;

use crate::storage::Entry;

/// Beyond this many, it starts anew.
const MOST: usize = 64;

/// Parsed objects by key, each at one revision.
#[derive(Default)]
pub(crate) struct Trees(Mutex<HashMap<Bytes, (i64, Arc<Value>)>>);

impl Trees {
    pub(crate) fn of(&self, entry: &Entry) -> Arc<Value> {
        if let Some((revision, tree)) = self.0.lock().get(entry.key())
            && *revision == entry.revision()
        {
            return tree.clone();
        }
        let tree = Arc::new(entry.to_value());
        let mut kept = self.0.lock();
        if kept.len() >= MOST {
            kept.clear();
        }
        kept.insert(entry.key().clone(), (entry.revision(), tree.clone()));
        tree
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::tests::{Rig, core};

    #[tokio::test]
    async fn a_tree_is_of_the_revision_that_is_asked_for() {
        let rig = Rig::new().await;
        let gvr = core("serviceaccounts");
        let named = async |name: &str| {
            rig.registry.catch_up().await;
            rig.registry.cached(&gvr).and_then(|all| all.get("default", name)).expect("an account")
        };
        rig.post(&gvr, "default", json!({"metadata": {"name": "a"}})).await.expect("created");
        let first = named("a").await;
        let trees = Trees::default();
        assert!(Arc::ptr_eq(&trees.of(&first), &trees.of(&first)));
        let mut changed = first.to_value();
        changed["imagePullSecrets"] = json!([{"name": "s"}]);
        rig.put(&gvr, &changed).await.expect("written");
        assert_eq!(trees.of(&*named("a").await)["imagePullSecrets"], json!([{"name": "s"}]));
        assert_eq!(trees.of(&first).get("imagePullSecrets"), None);
        for i in 0..=MOST {
            let name = format!("n{i}");
            rig.post(&gvr, "default", json!({"metadata": {"name": name}})).await.expect("created");
            trees.of(&*named(&name).await);
        }
        assert!(trees.0.lock().len() <= MOST);
    }
}
