//! API aggregation: groups and versions that another server answers for (`apiregistration.k8s.io`, APIService).
//!
//! - `remote`: an APIService with a Service behind it, as requests need it.
//! - `proxy`: a request on its way there, with the user in headers and this server's certificate as the proof.
//! - `availability`: whether it answers, kept in the APIService's condition; what it serves, in the catalogue of discovery.
//! - `local`: the APIServices that stand for what this server answers itself.
//! - `openapi`: the documents of the other servers among ours.
//!
//! A Service is resolved to an endpoint here, so that nothing depends on the host's packet rules.

pub(crate) mod availability;
pub(crate) mod local;
pub(crate) mod openapi;
pub(crate) mod proxy;
mod remote;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arc_swap::ArcSwap;

use crate::documents::catalogue::{Catalogue, Extra, Source};
use crate::identity::Reloading;
use crate::objects::{Objects, known};
use crate::request_info::Info;
use crate::streams::Dialer;
pub(crate) use remote::Remote;

/// Group and version.
type Key = (String, String);

pub struct Aggregator {
    objects: Arc<dyn Objects>,
    dialer: Arc<Dialer>,
    /// What this server shows as the front proxy; without it other servers cannot believe the headers.
    identity: Option<Arc<Reloading>>,
    catalogue: Arc<Catalogue>,
    remotes: ArcSwap<HashMap<Key, Arc<Remote>>>,
    /// Set when the local APIServices are there.
    pub(crate) registered: Arc<AtomicBool>,
}

impl Aggregator {
    pub(crate) fn new(objects: Arc<dyn Objects>, dialer: Arc<Dialer>, identity: Option<Arc<Reloading>>, catalogue: Arc<Catalogue>) -> Self {
        Aggregator { objects, dialer, identity, catalogue, remotes: ArcSwap::default(), registered: Arc::default() }
    }

    /// Who answers for the path, if it is not this server.
    pub(crate) fn remote_for(&self, info: &Info) -> Option<Arc<Remote>> {
        let remotes = self.remotes.load();
        if remotes.is_empty() {
            return None;
        }
        let key = if info.is_resource { (info.group.clone(), info.version.clone()) } else { key_of(&info.path)? };
        remotes.get(&key).cloned()
    }

    pub(crate) fn has_remotes(&self) -> bool {
        !self.remotes.load().is_empty()
    }

    pub(crate) fn remotes(&self) -> Vec<Arc<Remote>> {
        self.remotes.load().values().cloned().collect()
    }

    /// Reads the APIServices anew; whether one of them leads to a server that was not known. What did not change keeps its connections' state
    /// and what was learned of it.
    pub(crate) fn refresh(&self) -> bool {
        let before = self.remotes.load_full();
        let (mut now, mut unknown) = (HashMap::new(), false);
        for object in self.objects.list(&known::API_SERVICES, "") {
            let Some(remote) = Remote::read(&object, self.identity.as_ref()) else { continue };
            let key = (remote.group.clone(), remote.version.clone());
            let kept = before.get(&key).filter(|old| old.same_place(&remote)).cloned();
            if let Some(old) = &kept {
                old.update(&object);
            }
            unknown |= kept.is_none();
            now.insert(key, kept.unwrap_or_else(|| Arc::new(remote)));
        }
        self.remotes.store(Arc::new(now));
        self.publish();
        unknown
    }

    /// Tells discovery what the other servers serve, as far as it is known.
    pub(crate) fn publish(&self) {
        let mut extras: Vec<Extra> = self.remotes().iter().map(|remote| remote.extra()).collect();
        extras.sort_by(|a, b| (&a.group, &a.version.version).cmp(&(&b.group, &b.version.version)));
        self.catalogue.set(Source::Remote, extras);
    }
}

/// `/apis/<group>/<version>` and `/api/<version>`, which are documents of whoever answers for them.
fn key_of(path: &str) -> Option<Key> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    match parts.as_slice() {
        ["apis", group, version] => Some(((*group).to_owned(), (*version).to_owned())),
        ["api", version] => Some((String::new(), (*version).to_owned())),
        _ => None,
    }
}
