use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use tiphys_meta::{ApiError, EventType, Gvr};
use tokio::time::Instant;

use crate::decode::decode;
use crate::informer::Informer;
use crate::object::{Partial, Stored};
use crate::options::{ListOptions, Query};
use crate::{Client, ClientError, random};

const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(30);
/// A watch that held this long was healthy: the next trouble starts from the shortest delay.
const HEALTHY: Duration = Duration::from_secs(5);

/// Keeps an informer current: list once, then watch from the list's revision; again from the last revision seen when the watch ends; list again
/// when the server no longer holds that revision (410). Never returns.
pub(crate) struct Reflector<T: Stored> {
    pub(crate) client: Client,
    pub(crate) gvr: Gvr,
    pub(crate) options: ListOptions,
    pub(crate) informer: Informer<T>,
}

enum Next {
    List,
    Watch(String),
}

impl<T: Stored> Reflector<T> {
    pub(crate) async fn run(self) {
        let mut next = Next::List;
        let mut delay = FIRST_DELAY;
        loop {
            let started = Instant::now();
            let outcome = match &mut next {
                Next::List => self.list().await.map(Next::Watch),
                Next::Watch(revision) => self.watch(revision).await.map(|()| Next::Watch(std::mem::take(revision))),
            };
            match outcome {
                Ok(Next::Watch(revision)) if matches!(next, Next::List) || started.elapsed() > HEALTHY => {
                    delay = FIRST_DELAY;
                    next = Next::Watch(revision);
                    continue;
                }
                // A watch that ended early, though without an error (too slow a reader): a server that does so at once must not be hammered,
                // but the cache must not grow old either.
                Ok(again) => {
                    next = again;
                    delay = delay.min(Duration::from_secs(1));
                }
                Err(error) if error.is_expired() => next = Next::List,
                Err(error) => self.note(&error),
            }
            tokio::time::sleep(random::jitter(delay, 1.0)).await;
            delay = (delay * 2).min(LONGEST_DELAY);
        }
    }

    fn note(&self, error: &ClientError) {
        if self.informer.is_synced() {
            tracing::debug!(resource = %self.gvr, %error, "watch ended");
        } else {
            tracing::warn!(resource = %self.gvr, %error, "cannot list");
        }
    }

    async fn list(&self) -> Result<String, ClientError> {
        let mut list = self.client.list_as::<T>(&self.gvr, "", &self.options.clone().cached()).await?;
        list.items.iter_mut().for_each(T::trim);
        let revision = list.metadata.resource_version;
        self.informer.replace(list.items, revision.parse().unwrap_or(0));
        Ok(revision)
    }

    /// One object that cannot be read is left as it was; ending the watch for it would only bring it again, for ever.
    fn pass_over(&self, error: &ClientError, object: &Bytes, revision: &mut String) -> Result<(), ClientError> {
        let seen: Partial = decode(object)?;
        let name = seen.metadata.name.as_deref().unwrap_or("");
        tracing::error!(resource = %self.gvr, name, %error, "an object cannot be read and is passed over");
        if let Some(seen) = seen.metadata.resource_version {
            *revision = seen;
        }
        Ok(())
    }

    /// `revision` moves on with every event, so that it stands right when this returns or fails.
    async fn watch(&self, revision: &mut String) -> Result<(), ClientError> {
        let mut events = self.client.watch_path(self.watch_path(revision)).await?;
        while let Some(event) = events.next().await {
            let (kind, object) = event?;
            self.apply(kind, &object, revision)?;
        }
        Ok(())
    }

    fn watch_path(&self, revision: &str) -> String {
        let mut query = Query(self.options.query());
        query.add("watch", "1");
        query.add("allowWatchBookmarks", "true");
        query.add("resourceVersion", revision);
        // Spread between five and ten minutes, as client-go does, so that watches do not end together.
        query.add("timeoutSeconds", &(300 + random::below(300)).to_string());
        self.gvr.path("", "") + &query.0
    }

    fn apply(&self, kind: EventType, object: &Bytes, revision: &mut String) -> Result<(), ClientError> {
        match kind {
            EventType::Error => Err(ApiError::from_status(500, object).into()),
            EventType::Bookmark => {
                let seen: Partial = decode(object)?;
                if let Some(seen) = seen.metadata.resource_version {
                    self.informer.advance(seen.parse().unwrap_or(0));
                    *revision = seen;
                }
                Ok(())
            }
            EventType::Added | EventType::Modified | EventType::Deleted => {
                let mut object: T = match decode(object) {
                    Ok(object) => object,
                    Err(error) => return self.pass_over(&error, object, revision),
                };
                object.trim();
                if let Some(seen) = &object.meta().resource_version {
                    revision.clone_from(seen);
                }
                if kind == EventType::Deleted {
                    self.informer.remove(&object)
                } else {
                    self.informer.upsert(object)
                }
                Ok(())
            }
        }
    }
}
