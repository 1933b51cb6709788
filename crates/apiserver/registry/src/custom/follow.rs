//! Definitions take effect in the order of the store's events: before the caches show a definition, its resource is there or gone, so that who has
//! seen it established can use it at once. A change of what a definition says makes a new resource: its objects are read from the store at that
//! revision, and watches of the old one end, as upstream's do.

use std::sync::Arc;

use tiphys_store::{Engine, Event as StoreEvent, EventKind, KeyValue, RangeRequest, StoreError};

use super::{Definition, Extensions};
use crate::resource::{Resource, Resources};
use crate::storage::{Entry, keys};

pub(crate) const PREFIX: &[u8] = b"/registry/apiextensions.k8s.io/customresourcedefinitions/";

/// The resources of the definitions that are stored.
pub(crate) fn load(resources: &Resources, stored: Vec<KeyValue>) {
    let definition = |kv: &KeyValue| Definition::of(&entry_of(resources, kv)?.to_value());
    let all =
        stored.iter().filter_map(definition).map(|d| Arc::new(Resource::custom(Arc::new(d), &resources.encryption, &resources.forms)));
    let mut all: Vec<Arc<Resource>> = all.collect();
    all.sort_by(|a, b| (&a.gvr.group, &a.gvr.resource).cmp(&(&b.gvr.group, &b.gvr.resource)));
    resources.set_extensions(Extensions::new(all));
}

fn entry_of(resources: &Resources, kv: &KeyValue) -> Option<Entry> {
    let definitions = resources.of_key(&kv.key)?;
    Some(Entry::new(definitions.shape.clone(), kv.key.clone(), kv.value.clone(), kv.mod_revision))
}

/// Takes in what happened to a definition.
pub(crate) async fn changed(engine: &dyn Engine, resources: &Resources, event: &StoreEvent) -> Result<(), StoreError> {
    let name = keys::split(&event.kv.key).1;
    let newer = match event.kind {
        EventKind::Put => entry_of(resources, &event.kv).and_then(|entry| Definition::of(&entry.to_value())),
        EventKind::Delete => None,
    };
    let extensions = resources.extensions();
    let present = extensions.of_definition(name);
    let Some(newer) = newer else {
        if let Some(resource) = present {
            resources.set_extensions(extensions.with(name, None));
            resource.cache.end_watches();
        }
        return Ok(());
    };
    if let Some((resource, definition)) = present.and_then(|r| Some((r, r.definition()?)))
        && definition.says_the_same(&newer)
    {
        if definition.take_state(&newer) {
            resources.set_extensions(extensions.with(name, Some(resource.clone())));
        }
        return Ok(());
    }
    let resource = Arc::new(Resource::custom(Arc::new(newer), &resources.encryption, &resources.forms));
    fill(engine, &resource, event.kv.mod_revision).await?;
    resources.set_extensions(extensions.with(name, Some(resource)));
    if let Some(old) = present {
        old.cache.end_watches();
    }
    Ok(())
}

/// What the store holds of a resource at a revision.
async fn fill(engine: &dyn Engine, resource: &Resource, revision: i64) -> Result<(), StoreError> {
    let range = keys::everything_under(resource.prefix());
    let request = RangeRequest { range, limit: 0, revision, keys_only: false, count_only: false };
    let stored = engine.range(request).await?.kvs;
    let entry = |kv: KeyValue| Arc::new(Entry::new(resource.shape.clone(), kv.key, kv.value, kv.mod_revision));
    resource.cache.load(stored.into_iter().map(entry).collect(), revision);
    Ok(())
}
