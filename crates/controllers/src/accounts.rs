//! As whom each controller speaks: a ServiceAccount of `kube-system` of its own, so that it may do what its role says and no more, and an audit log
//! tells them apart.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use tiphys_client::https::{Config, Https, Identity};
use tiphys_client::{Backend, Client, ClientError, Request, Response, WatchStream, gvr_of};
use tiphys_types::api::core::v1::ServiceAccount;
use tokio::sync::Mutex;
use tokio::time::Instant;

const NAMESPACE: &str = "kube-system";
/// Asked for; the server may give less.
const LIFETIME: Duration = Duration::from_secs(3600);

pub trait Accounts: Send + Sync {
    /// A client that speaks as this ServiceAccount of `kube-system`.
    fn client(&self, account: &'static str) -> Client;
}

impl<F: Fn(&'static str) -> Client + Send + Sync> Accounts for F {
    fn client(&self, account: &'static str) -> Client {
        self(account)
    }
}

/// Accounts of a process of its own: tokens from the API server, asked for under the process's identity and renewed in time. Accounts that do
/// not exist are made. All share two connections.
pub struct Tokens {
    root: Client,
    connections: Https,
}

impl Tokens {
    /// `config` is where `root` speaks to; whose it is does not matter, for a certificate would come before a token.
    pub fn new(root: Client, config: Config) -> Result<Self, ClientError> {
        Ok(Tokens { root, connections: Https::new(Config { identity: Identity::Anonymous, ..config })? })
    }
}

impl Accounts for Tokens {
    fn client(&self, account: &'static str) -> Client {
        let speaker = Speaker { account, root: self.root.clone(), connections: self.connections.clone(), held: Mutex::default() };
        Client::new(Arc::new(speaker))
    }
}

struct Speaker {
    account: &'static str,
    root: Client,
    connections: Https,
    held: Mutex<Option<Held>>,
}

struct Held {
    backend: Https,
    /// Renewed from here on.
    until: Instant,
}

impl Speaker {
    async fn backend(&self) -> Result<Https, ClientError> {
        let mut held = self.held.lock().await;
        if let Some(held) = held.as_ref().filter(|h| h.until > Instant::now()) {
            return Ok(held.backend.clone());
        }
        let (token, lifetime) = self.ask().await?;
        let fresh = held.insert(Held { backend: self.connections.with_token(token), until: Instant::now() + lifetime.mul_f64(0.8) });
        Ok(fresh.backend.clone())
    }

    async fn ask(&self) -> Result<(String, Duration), ClientError> {
        let request = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": LIFETIME.as_secs()},
        });
        let gvr = gvr_of::<ServiceAccount>();
        let answer = match self.root.create_subresource(&gvr, NAMESPACE, self.account, "token", &request).await {
            Err(error) if error.is_not_found() => {
                self.make_account().await?;
                self.root.create_subresource(&gvr, NAMESPACE, self.account, "token", &request).await?
            }
            other => other?,
        };
        let token = answer["status"]["token"].as_str().unwrap_or_default().to_owned();
        Ok((token, granted(&answer)))
    }

    async fn make_account(&self) -> Result<(), ClientError> {
        let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"namespace": NAMESPACE, "name": self.account}});
        match self.root.create_value(&gvr_of::<ServiceAccount>(), NAMESPACE, &account).await {
            Err(error) if !error.is_already_exists() => Err(error),
            _ => Ok(()),
        }
    }
}

fn granted(answer: &Value) -> Duration {
    answer["spec"]["expirationSeconds"].as_u64().map_or(LIFETIME, Duration::from_secs)
}

#[async_trait]
impl Backend for Speaker {
    async fn call(&self, request: Request) -> Result<Response, ClientError> {
        let first = self.backend().await?.call(request.clone()).await?;
        if first.status != 401 {
            return Ok(first);
        }
        // The account was made anew, or the server's key changed: the token is worth nothing any more.
        self.held.lock().await.take();
        self.backend().await?.call(request).await
    }

    async fn watch(&self, path: String) -> Result<WatchStream, ClientError> {
        self.backend().await?.watch(path).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_lives_as_long_as_the_server_says() {
        assert_eq!(granted(&json!({"spec": {"expirationSeconds": 600}})), Duration::from_secs(600));
        assert_eq!(granted(&json!({})), LIFETIME);
    }

    /// Each account is bound to a role of its own by the bootstrap policy, which `tiphys-apiserver` holds against upstream's.
    #[test]
    fn accounts_are_named_plainly() {
        for entry in crate::CONTROLLERS {
            assert!(!entry.account.contains(':') && (entry.account.is_empty() == (entry.name == "serviceaccount-token-controller")));
        }
    }
}
