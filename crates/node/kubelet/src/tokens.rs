//! Service account tokens for projected volumes, by TokenRequest, bound to the pod (KEP-1205). Kept until they are due.

use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use serde_json::json;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tiphys_base::clock::Clock;
use tiphys_client::Client;
use tiphys_meta::Gvr;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct TokenKey {
    pub(crate) namespace: String,
    pub(crate) service_account: String,
    pub(crate) pod: String,
    pub(crate) uid: String,
    pub(crate) audience: String,
    pub(crate) seconds: i64,
}

#[derive(Debug, Clone)]
pub(crate) struct Token {
    pub(crate) text: String,
    /// When to ask for the next.
    pub(crate) renew: Timestamp,
    expires: Timestamp,
}

pub(crate) struct Tokens {
    client: Client,
    clock: Arc<dyn Clock>,
    known: Mutex<HashMap<TokenKey, Token>>,
}

const PATIENCE: Duration = Duration::from_millis(300);

impl Tokens {
    pub(crate) fn new(client: Client, clock: Arc<dyn Clock>) -> Self {
        Tokens { client, clock, known: Mutex::default() }
    }

    pub(crate) async fn get(&self, key: &TokenKey) -> Result<Token, String> {
        let now = self.clock.now();
        let known = self.known.lock().get(key).cloned();
        if let Some(token) = known.as_ref().filter(|t| t.renew > now) {
            return Ok(token.clone());
        }
        match (self.request(key, now).await, known) {
            (Ok(token), _) => {
                self.known.lock().insert(key.clone(), token.clone());
                Ok(token)
            }
            // An old token that still holds is better than none.
            (Err(_), Some(old)) if old.expires > now => {
                Ok(Token { renew: now.saturating_add(SignedDuration::from_secs(10)).unwrap_or(old.expires), ..old })
            }
            (Err(error), _) => Err(format!("failed to fetch token: {error}")),
        }
    }

    async fn request(&self, key: &TokenKey, now: Timestamp) -> Result<Token, String> {
        let mut spec = json!({
            "expirationSeconds": key.seconds,
            "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": key.pod, "uid": key.uid},
            "audiences": [],
        });
        if !key.audience.is_empty() {
            spec["audiences"] = json!([key.audience]);
        }
        let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec});
        let gvr = Gvr::new("", "v1", "serviceaccounts");
        let mut wait = Duration::from_millis(20);
        let answer = loop {
            let answer = self.client.create_subresource(&gvr, &key.namespace, &key.service_account, "token", &body).await;
            match answer {
                // The API server may hear a moment after us that this node has the pod.
                Err(error) if error.is_forbidden() && wait < PATIENCE => {
                    tokio::time::sleep(wait).await;
                    wait *= 2;
                }
                other => break other.map_err(|e| e.to_string())?,
            }
        };
        let text = answer["status"]["token"].as_str().ok_or("the answer has no token")?.to_owned();
        let expires = answer["status"]["expirationTimestamp"].as_str().and_then(tiphys_meta::time::parse).unwrap_or(now);
        Ok(Token { text, renew: renew_at(now, expires, key), expires })
    }

    pub(crate) fn forget(&self, uid: &str) {
        self.known.lock().retain(|key, _| key.uid != uid);
    }
}

/// At four fifths of its life, and at latest after a day; pods need not be renewed all at once, so a little earlier by uid.
fn renew_at(now: Timestamp, expires: Timestamp, key: &TokenKey) -> Timestamp {
    const DAY: i64 = 86_400;
    let life = (expires.as_second() - now.as_second()).max(0);
    let jitter = (crate::resources::fnv(key.uid.as_bytes()) % 10) as i64;
    let wait = (life * 4 / 5).min(DAY) - jitter;
    now.checked_add(SignedDuration::from_secs(wait.max(1))).unwrap_or(expires)
}
