//! Bringing the API's status of a pod to ours: one patch at a time, and only of what differs.

use super::{Worker, version_of};
use crate::pod::{patch, spec};
use jiff::SignedDuration;
use tiphys_client::{ClientError, Patch};
use tiphys_types::api::core::v1::Pod;

impl Worker {
    pub(super) fn pending_patch(&self) -> Option<serde_json::Value> {
        let target = if spec::is_static(&self.pod) { self.mirror.as_ref()? } else { &self.pod };
        patch::patch(spec::uid(target), &self.api, &self.status)
    }

    pub(super) fn publish(&mut self) {
        // A time that has come is forgotten, or the worker would wake for it again and again.
        let now = self.now();
        for time in [&mut self.write_after, &mut self.replacing] {
            *time = time.filter(|at| now < *at);
        }
        let early = self.write_after.is_some() || self.replacing.is_some();
        if self.write.is_some() || self.gone || self.deleted || early {
            return;
        }
        let Some(body) = self.pending_patch() else { return };
        let target = self.mirror.clone().filter(|_| spec::is_static(&self.pod)).unwrap_or_else(|| self.pod.clone());
        let client = self.agent.client.clone();
        let writing =
            async move { client.patch::<Pod>(spec::namespace(&target), spec::name(&target), "status", &Patch::Strategic(body)).await };
        self.write = Some(tokio::spawn(writing));
    }

    pub(super) fn was_written(&mut self, result: Result<Pod, ClientError>) {
        self.write_after = None;
        match result {
            Ok(pod) => {
                let unchanged = self.written == version_of(&pod);
                self.written = version_of(&pod);
                self.api = pod.status.unwrap_or_default();
                if unchanged && self.pending_patch().is_some() {
                    // The server takes what we say for what it has: saying it again would not help.
                    tracing::warn!(pod = spec::format(&self.pod), patch = ?self.pending_patch(), "a status patch changes nothing");
                    self.api = self.status.clone();
                }
            }
            // It is gone or another: nothing of ours to say any more.
            Err(error) if error.is_not_found() || error.is_conflict() => {
                tracing::debug!(pod = spec::format(&self.pod), %error, "status not written");
                self.api = self.status.clone();
            }
            Err(error) => {
                tracing::warn!(pod = spec::format(&self.pod), %error, "status not written, trying again");
                self.write_after = self.now().checked_add(SignedDuration::from_secs(1)).ok();
            }
        }
    }
}
