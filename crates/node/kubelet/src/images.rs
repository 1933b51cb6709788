//! Images: pull policy, pulls with back-off, the words of events and statuses.

use crate::backoff::Backoff;
use crate::events::Events;
use crate::keyring;
use crate::pod::spec;
use crate::pod::status::StartFailure;
use crate::security::ImageUser;
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use tiphys_base::clock::Clock;
use tiphys_cri as cri;
use tiphys_types::api::core::v1::{Container, Pod, Secret};

/// An image that is here.
#[derive(Debug, Clone)]
pub(crate) struct Present {
    pub(crate) reference: String,
    pub(crate) user: ImageUser,
}

pub(crate) struct Images {
    pub(crate) service: Arc<dyn cri::ImageService>,
    clock: Arc<dyn Clock>,
    pulls: Mutex<Backoff>,
    /// The last pull error by pod and image.
    errors: Mutex<HashMap<String, String>>,
    /// When an image was last used by a start here, for the collector.
    used: Mutex<HashMap<String, Timestamp>>,
}

impl Images {
    pub(crate) fn new(service: Arc<dyn cri::ImageService>, clock: Arc<dyn Clock>) -> Self {
        Images { service, clock, pulls: Mutex::new(Backoff::new(10, 300)), errors: Mutex::default(), used: Mutex::default() }
    }

    pub(crate) fn last_used(&self, id: &str) -> Option<Timestamp> {
        self.used.lock().get(id).copied()
    }

    /// The error has the time of the next try with it, where there is one.
    pub(crate) async fn ensure(
        &self,
        pod: &Pod,
        container: &Container,
        secrets: &[Arc<Secret>],
        sandbox: &cri::PodSandboxConfig,
        events: &Events,
    ) -> Result<Present, (StartFailure, Option<Timestamp>)> {
        let image = container.image.as_deref().unwrap_or_default();
        let fail = |reason: &str, message: String| (StartFailure { reason: reason.into(), message }, None);
        let asked = cri::ImageSpec {
            image: with_tag(image).ok_or_else(|| {
                let message =
                    format!("Failed to apply default image tag {image:?}: couldn't parse image name {image:?}: invalid reference format");
                events.warning(pod, Some(&container.name), "InspectFailed", &message);
                fail("InvalidImageName", message)
            })?,
            user_specified_image: image.into(),
            ..cri::ImageSpec::default()
        };
        let present = self.service.image_status(&asked).await.map_err(|e| {
            let message = format!("Failed to inspect image {image:?}: {e}");
            events.warning(pod, Some(&container.name), "InspectFailed", &message);
            fail("ImageInspectError", message)
        })?;
        let policy = container.image_pull_policy.as_deref().unwrap_or("IfNotPresent");
        match present {
            Some(found) if policy != "Always" => {
                events.normal(pod, Some(&container.name), "Pulled", &format!("Container image {image:?} already present on machine"));
                Ok(self.note(found, None))
            }
            None if policy == "Never" => {
                let message = format!("Container image {image:?} is not present with pull policy of Never");
                events.warning(pod, Some(&container.name), "ErrImageNeverPull", &message);
                Err(fail("ErrImageNeverPull", message))
            }
            _ => self.pull(pod, container, &asked, secrets, sandbox, events).await,
        }
    }

    async fn pull(
        &self,
        pod: &Pod,
        container: &Container,
        asked: &cri::ImageSpec,
        secrets: &[Arc<Secret>],
        sandbox: &cri::PodSandboxConfig,
        events: &Events,
    ) -> Result<Present, (StartFailure, Option<Timestamp>)> {
        let image = container.image.as_deref().unwrap_or_default();
        let key = format!("{}_{image}", spec::uid(pod));
        let started = self.clock.now();
        let waiting = {
            let pulls = self.pulls.lock();
            pulls.until(&key, pulls.last(&key).unwrap_or(started), started)
        };
        if let Some(until) = waiting {
            let mut message = format!("Back-off pulling image {image:?}");
            events.normal(pod, Some(&container.name), "BackOff", &message);
            if let Some(error) = self.errors.lock().get(&key) {
                message = format!("{message}: {error}");
            }
            return Err((StartFailure { reason: "ImagePullBackOff".into(), message }, Some(until)));
        }
        events.normal(pod, Some(&container.name), "Pulling", &format!("Pulling image {image:?}"));
        match self.try_credentials(asked, secrets, sandbox).await {
            Ok(()) => {
                let found = self.service.image_status(asked).await.ok().flatten().unwrap_or_default();
                let took = seconds(self.clock.now().duration_since(started));
                let message =
                    format!("Successfully pulled image {image:?} in {took} ({took} including waiting). Image size: {} bytes.", found.size);
                events.normal(pod, Some(&container.name), "Pulled", &message);
                self.errors.lock().remove(&key);
                self.pulls.lock().forget(&key);
                Ok(self.note(found, Some(asked.image.clone())))
            }
            Err(error) => {
                let now = self.clock.now();
                events.warning(pod, Some(&container.name), "Failed", &format!("Failed to pull image {image:?}: {error}"));
                let mut pulls = self.pulls.lock();
                pulls.next(&key, now, now);
                let again = pulls.until(&key, now, now);
                let message = error.to_string();
                self.errors.lock().insert(key, format!("ErrImagePull: {message}"));
                Err((StartFailure { reason: "ErrImagePull".into(), message }, again))
            }
        }
    }

    async fn try_credentials(&self, asked: &cri::ImageSpec, secrets: &[Arc<Secret>], sandbox: &cri::PodSandboxConfig) -> cri::Result<()> {
        let credentials = keyring::lookup(secrets.iter().map(|s| &**s), &asked.image);
        let mut last = None;
        for auth in &credentials {
            match self.service.pull_image(asked, Some(auth), Some(sandbox)).await {
                Ok(_) => return Ok(()),
                Err(error) => last = Some(error),
            }
        }
        match last {
            Some(error) => Err(error),
            None => self.service.pull_image(asked, None, Some(sandbox)).await.map(drop),
        }
    }

    fn note(&self, image: cri::Image, asked: Option<String>) -> Present {
        let reference = if image.id.is_empty() { asked.unwrap_or_default() } else { image.id.clone() };
        self.used.lock().insert(reference.clone(), self.clock.now());
        Present { reference, user: ImageUser { uid: image.uid, name: image.username } }
    }

    /// Forgets a pod's failures.
    pub(crate) fn forget(&self, uid: &str) {
        let prefix = format!("{uid}_");
        self.errors.lock().retain(|key, _| !key.starts_with(&prefix));
        self.pulls.lock().forget_prefix(&prefix);
    }
}

fn seconds(duration: SignedDuration) -> String {
    let millis = duration.as_millis();
    if millis < 1000 { format!("{millis}ms") } else { format!("{}.{:03}s", millis / 1000, millis % 1000) }
}

/// The name with `:latest` where it has neither tag nor digest; None when it is no image name.
pub(crate) fn with_tag(image: &str) -> Option<String> {
    let (name, digest) = image.split_once('@').map_or((image, None), |(n, d)| (n, Some(d)));
    let last = name.rsplit('/').next()?;
    let (repository, tag) = last.split_once(':').map_or((last, None), |(r, t)| (r, Some(t)));
    let lower = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b));
    let path_ok = name.rsplit_once('/').is_none_or(|(path, _)| {
        let mut parts = path.split('/');
        let host = parts.next().unwrap_or_default();
        !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_:[]".contains(&b)) && parts.all(lower)
    });
    let tag_ok = tag.is_none_or(|t| !t.is_empty() && t.len() <= 128 && t.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)));
    let digest_ok = digest
        .is_none_or(|d| d.split_once(':').is_some_and(|(a, h)| !a.is_empty() && h.len() >= 32 && h.bytes().all(|b| b.is_ascii_hexdigit())));
    if !lower(repository) || !path_ok || !tag_ok || !digest_ok {
        return None;
    }
    Some(if tag.is_none() && digest.is_none() { format!("{image}:latest") } else { image.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (image, expected) in [
            ("nginx", Some("nginx:latest")),
            ("localhost:5000/a/b:v1", Some("localhost:5000/a/b:v1")),
            ("registry.k8s.io/pause", Some("registry.k8s.io/pause:latest")),
            ("", None),
            ("INVALID", None),
            ("a:b:c", None),
            ("http://x/y", None),
        ] {
            assert_eq!(with_tag(image).as_deref(), expected, "{image}");
        }
    }
}
