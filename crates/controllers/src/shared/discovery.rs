//! What the API server serves, for controllers that work on every kind.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tiphys_client::{Client, ClientError, Informer, Informers, Kube, Request};
use tiphys_meta::Gvr;
use tiphys_types::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use tiphys_types::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use tokio::sync::Mutex;
use tokio::time::Instant;

#[derive(Debug, Clone)]
pub(crate) struct Served {
    pub(crate) gvr: Gvr,
    pub(crate) kind: String,
    pub(crate) namespaced: bool,
    pub(crate) verbs: Vec<String>,
}

impl Served {
    pub(crate) fn can(&self, verb: &str) -> bool {
        self.verbs.iter().any(|v| v == verb)
    }
}

/// Everything that was found, in all versions, the preferred version of each group first; and the group versions that did not answer.
#[derive(Debug, Default)]
pub(crate) struct Catalogue {
    pub(crate) all: Vec<Served>,
    pub(crate) failed: Vec<(String, String)>,
}

impl Catalogue {
    /// Each resource once, in its preferred version, that has all these verbs.
    pub(crate) fn preferred<'a>(&'a self, verbs: &'a [&str]) -> impl Iterator<Item = &'a Served> {
        let mut seen = HashSet::new();
        self.all.iter().filter(move |s| verbs.iter().all(|v| s.can(v)) && seen.insert((s.gvr.group.as_ref(), s.gvr.resource.as_ref())))
    }

    pub(crate) fn kind(&self, api_version: &str, kind: &str) -> Option<&Served> {
        self.all.iter().find(|s| s.kind == kind && s.gvr.api_version() == api_version)
    }
}

#[derive(Clone)]
pub(crate) struct Discovery {
    client: Client,
    last: Arc<Mutex<Option<(Instant, Arc<Catalogue>)>>>,
    /// When a definition or an aggregated API last changed.
    changed: Arc<parking_lot::Mutex<Option<Instant>>>,
}

const FRESH: Duration = Duration::from_secs(30);
/// What is served follows a definition's change within this time.
const UNSETTLED: Duration = Duration::from_secs(1);
const FRESH_WHILE_UNSETTLED: Duration = Duration::from_millis(100);

#[derive(Deserialize)]
struct GroupList {
    #[serde(default)]
    groups: Vec<Group>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Group {
    versions: Vec<Version>,
    preferred_version: Option<Version>,
}

#[derive(Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
struct Version {
    group_version: String,
}

#[derive(Deserialize)]
struct ResourceList {
    #[serde(default)]
    resources: Vec<Resource>,
}

#[derive(Deserialize)]
struct Resource {
    name: String,
    namespaced: bool,
    kind: String,
    #[serde(default)]
    verbs: Vec<String>,
}

impl Discovery {
    pub(crate) fn new(client: Client) -> Self {
        Discovery { client, last: Arc::default(), changed: Arc::default() }
    }

    /// Takes note of what changes the kinds that are served.
    pub(crate) fn follow(&self, informers: &Informers) {
        self.note_changes(&informers.of::<CustomResourceDefinition>());
        self.note_changes(&informers.of::<APIService>());
    }

    fn note_changes<K: Kube>(&self, informer: &Informer<K>) {
        let changed = Arc::clone(&self.changed);
        informer.on_change(move |_| {
            *changed.lock() = Some(Instant::now());
            true
        });
    }

    fn is_fresh(&self, read: Instant) -> bool {
        let settled = self.changed.lock().is_none_or(|changed| read > changed + UNSETTLED);
        read.elapsed() < if settled { FRESH } else { FRESH_WHILE_UNSETTLED }
    }

    /// At most half a minute old, and not older than the last change of what is served.
    pub(crate) async fn catalogue(&self) -> Result<Arc<Catalogue>, ClientError> {
        let mut last = self.last.lock().await;
        if let Some((_, catalogue)) = last.as_ref().filter(|(at, _)| self.is_fresh(*at)) {
            return Ok(Arc::clone(catalogue));
        }
        let catalogue = Arc::new(self.read().await?);
        *last = Some((Instant::now(), Arc::clone(&catalogue)));
        Ok(catalogue)
    }

    pub(crate) async fn forget(&self) {
        *self.last.lock().await = None;
    }

    async fn read(&self) -> Result<Catalogue, ClientError> {
        let mut catalogue = Catalogue::default();
        self.read_version("v1", &mut catalogue).await;
        let groups: GroupList = self.get("/apis").await?;
        for group in groups.groups {
            let mut versions = group.versions;
            versions.sort_by_key(|v| Some(v) != group.preferred_version.as_ref());
            for version in versions {
                self.read_version(&version.group_version, &mut catalogue).await;
            }
        }
        Ok(catalogue)
    }

    async fn read_version(&self, group_version: &str, into: &mut Catalogue) {
        let path = if group_version.contains('/') { format!("/apis/{group_version}") } else { format!("/api/{group_version}") };
        match self.get::<ResourceList>(&path).await {
            Ok(list) => {
                let (group, version) = group_version.split_once('/').unwrap_or(("", group_version));
                let whole = list.resources.into_iter().filter(|r| !r.name.contains('/'));
                into.all.extend(whole.map(|r| Served {
                    gvr: Gvr::new(group.to_owned(), version.to_owned(), r.name),
                    kind: r.kind,
                    namespaced: r.namespaced,
                    verbs: r.verbs,
                }));
            }
            Err(error) => into.failed.push((group_version.to_owned(), error.to_string())),
        }
    }

    async fn get<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let response = self.client.raw(Request::get(path)).await?;
        serde_json::from_slice(&response.body).map_err(|e| ClientError::Decode(e.to_string()))
    }
}
