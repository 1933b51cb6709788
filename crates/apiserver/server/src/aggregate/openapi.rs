//! The OpenAPI documents of other servers: version 3 by its index and by group, version 2 merged into ours.
//!
//! Absent: a document of version 3 for servers that only have version 2 (older than v1.24).

use serde_json::{Map, Value, json};

use super::{Aggregator, Remote, availability};

impl Aggregator {
    /// The entries that other servers add to the index of version 3.
    pub(crate) fn openapi_index(&self) -> Vec<(String, Value)> {
        let entry = |remote: &Remote| {
            let hash = remote.openapi()?;
            let path = remote.path().trim_start_matches('/').to_owned();
            let url = if hash.is_empty() { format!("/openapi/v3/{path}") } else { format!("/openapi/v3/{path}?hash={hash}") };
            Some((path, json!({"serverRelativeURL": url})))
        };
        self.remotes().iter().filter(|r| r.is_available()).filter_map(|r| entry(r)).collect()
    }

    /// The document of version 3 of a path such as `apis/apps/v1`, if another server has it.
    pub(crate) async fn openapi_v3(&self, path: &str) -> Option<Result<bytes::Bytes, String>> {
        let remotes = self.remotes();
        let remote = remotes.iter().find(|r| r.is_available() && r.path().trim_start_matches('/') == path)?;
        Some(match availability::get(self, remote, &format!("/openapi/v3/{path}")).await {
            Ok((200, said)) => Ok(said),
            Ok((code, _)) => Err(format!("{} answered {code}", remote.name)),
            Err(why) => Err(why),
        })
    }

    /// Paths and definitions of version 2 that other servers add. Definitions of the same name are the same type by convention; ours stay.
    pub(crate) async fn openapi_v2(&self) -> (Map<String, Value>, Map<String, Value>) {
        let (mut paths, mut definitions) = (Map::new(), Map::new());
        for remote in self.remotes().iter().filter(|r| r.is_available()) {
            let Ok((200, said)) = availability::get(self, remote, "/openapi/v2").await else { continue };
            let Ok(Value::Object(mut document)) = serde_json::from_slice(&said) else { continue };
            if let Some(Value::Object(theirs)) = document.remove("paths") {
                let own = format!("{}/", remote.path());
                paths.extend(theirs.into_iter().filter(|(path, _)| path.starts_with(&own)));
            }
            if let Some(Value::Object(theirs)) = document.remove("definitions") {
                definitions.extend(theirs);
            }
        }
        (paths, definitions)
    }
}
