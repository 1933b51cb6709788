//! `matchPolicy: Equivalent`: rules that name one version of a resource hear of writes in all others, in the version that they name.

use serde_json::{Value, json};
use tiphys_meta::Gvr;

use super::hook::{self, Hook, Subject};
use super::{Told, Webhooks, review};

/// A request as a webhook for another version hears of it.
pub(super) struct Heard {
    gvr: Gvr,
    object: Option<Value>,
    old: Option<Value>,
}

impl Webhooks {
    /// The version in which the hook hears of the request, if its rules name one.
    pub(super) fn home(&self, hook: &Hook, told: &Told<'_>) -> Option<Gvr> {
        let named = |gvr: &Gvr| {
            let namespaced = !told.namespace.is_empty();
            hook.rules_match(&Subject { operation: told.operation, gvr, subresource: told.subresource, namespaced })
        };
        if named(told.requested) {
            return Some(told.requested.clone());
        }
        let others = self.registry.upgrade().filter(|_| hook.equivalent).map(|r| r.equivalents(told.requested)).unwrap_or_default();
        others.into_iter().find(named)
    }

    /// The request in the hook's version; none where that is the request's own.
    pub(super) async fn heard(&self, hook: &Hook, told: &Told<'_>, object: Option<&Value>) -> Result<Option<Heard>, String> {
        let Some(gvr) = self.home(hook, told).filter(|home| home != told.gvr) else { return Ok(None) };
        let both: Vec<Value> = object.into_iter().chain(told.old).cloned().collect();
        let mut converted = self.converted(&gvr, both).await?.into_iter();
        let object = object.and_then(|_| converted.next());
        Ok(Some(Heard { gvr, object, old: converted.next() }))
    }

    /// What a webhook's patch, which is meant for its version, makes of an object.
    pub(super) async fn patched(&self, hook: &Hook, told: &Told<'_>, object: &Value, patch: &[u8]) -> Result<Value, String> {
        let Some(heard) = self.heard(hook, told, Some(object)).await? else { return hook::apply(object, patch) };
        let patched = hook::apply(heard.object.as_ref().unwrap_or(object), patch)?;
        self.converted(told.gvr, vec![patched]).await?.pop().ok_or_else(|| "an object was lost in conversion".into())
    }

    async fn converted(&self, to: &Gvr, objects: Vec<Value>) -> Result<Vec<Value>, String> {
        let registry = self.registry.upgrade().ok_or("the server is stopping")?;
        registry.converted(to, objects).await.map_err(|e| e.message)
    }
}

impl Heard {
    /// The review: in this version, with what was asked for originally beside it.
    pub(super) fn review(&self, told: &Told<'_>, uid: &str) -> Value {
        let mut review = review(told, self.object.as_ref(), uid);
        let request = &mut review["request"];
        let kind = tiphys_registry::requested_kind(&told.kind, told.gvr, &self.gvr);
        let Gvr { group, version, resource } = &self.gvr;
        request["resource"] = json!({"group": group, "version": version, "resource": resource});
        request["kind"] = json!({"group": kind.group, "version": kind.version, "kind": kind.kind});
        request["oldObject"] = self.old.clone().unwrap_or_default();
        review
    }
}
