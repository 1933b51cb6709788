//! Authentication and authorization of requests to the kubelet.

use super::Server;
use http::{Method, Request, StatusCode, header};
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use serde_json::json;
use std::collections::HashMap;
use std::sync::Arc;
use tiphys_base::clock::Clock;
use tiphys_client::Client;
use tiphys_meta::Gvr;
use x509_parser::prelude::{FromDer, X509Certificate};

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) groups: Vec<String>,
}

/// The name and groups in a client certificate that TLS has verified.
pub(crate) fn user_of(der: &[u8]) -> Option<User> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let subject = certificate.subject();
    let text = |attribute: &x509_parser::x509::AttributeTypeAndValue<'_>| attribute.as_str().ok().map(str::to_owned);
    let name = subject.iter_common_name().next().and_then(text)?;
    Some(User { name, groups: subject.iter_organization().filter_map(text).collect() })
}

type Verdicts = HashMap<(User, String, String), (bool, Timestamp)>;

pub(crate) struct Auth {
    client: Client,
    clock: Arc<dyn Clock>,
    verdicts: Mutex<Verdicts>,
}

const REMEMBERED: usize = 1024;

impl Auth {
    pub(crate) fn new(client: Client, clock: Arc<dyn Clock>) -> Self {
        Auth { client, clock, verdicts: Mutex::default() }
    }

    async fn by_token(&self, token: &str) -> Option<User> {
        let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}});
        let gvr = Gvr::new("authentication.k8s.io", "v1", "tokenreviews");
        let answer = self.client.create_value(&gvr, "", &review).await.ok()?;
        let status = &answer["status"];
        if status["authenticated"] != true {
            return None;
        }
        let groups = status["user"]["groups"].as_array().into_iter().flatten().filter_map(|g| g.as_str().map(str::to_owned)).collect();
        Some(User { name: status["user"]["username"].as_str()?.to_owned(), groups })
    }

    /// Upstream keeps answers too: yes for five minutes, no for half of one.
    async fn may(&self, user: &User, verb: &str, subresources: &[&str], node: &str) -> bool {
        for subresource in subresources {
            let key = (user.clone(), verb.to_owned(), (*subresource).to_owned());
            let now = self.clock.now();
            let known = self.verdicts.lock().get(&key).filter(|(_, until)| *until > now).map(|(allowed, _)| *allowed);
            let allowed = match known {
                Some(allowed) => allowed,
                None => {
                    let allowed = self.review(user, verb, subresource, node).await;
                    let keep = SignedDuration::from_secs(if allowed { 300 } else { 30 });
                    let mut verdicts = self.verdicts.lock();
                    if verdicts.len() >= REMEMBERED {
                        verdicts.clear();
                    }
                    verdicts.insert(key, (allowed, now.checked_add(keep).unwrap_or(now)));
                    allowed
                }
            };
            if allowed {
                return true;
            }
        }
        false
    }

    async fn review(&self, user: &User, verb: &str, subresource: &str, node: &str) -> bool {
        let attributes = json!({"verb": verb, "version": "v1", "resource": "nodes", "subresource": subresource, "name": node});
        let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
            "spec": {"user": user.name, "groups": user.groups, "resourceAttributes": attributes}});
        let gvr = Gvr::new("authorization.k8s.io", "v1", "subjectaccessreviews");
        let answer = self.client.create_value(&gvr, "", &review).await;
        answer.is_ok_and(|a| a["status"]["allowed"] == true)
    }
}

/// The finer subresources first (KEP-2862), `proxy` last.
fn subresources(path: &str) -> Vec<&'static str> {
    let below = |prefix: &str| path == prefix || path.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/'));
    let fine = [("/healthz", "healthz"), ("/configz", "configz"), ("/pods", "pods"), ("/runningpods", "pods")];
    for (prefix, word) in [("/stats", "stats"), ("/metrics", "metrics"), ("/logs", "log")] {
        if below(prefix) {
            return vec![word];
        }
    }
    match fine.iter().find(|(prefix, _)| below(prefix)) {
        Some((_, word)) => vec![word, "proxy"],
        None => vec!["proxy"],
    }
}

fn verb(method: &Method) -> &'static str {
    match *method {
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "get",
    }
}

/// The refusal, or nothing.
pub(crate) async fn check<B>(server: &Server, request: &Request<B>, peer: Option<&User>) -> Result<(), (StatusCode, String)> {
    let bearer = request.headers().get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()).and_then(|v| v.strip_prefix("Bearer "));
    let user = match (peer, bearer) {
        (Some(peer), _) => peer.clone(),
        (None, Some(token)) => server.auth.by_token(token).await.ok_or((StatusCode::UNAUTHORIZED, "Unauthorized".to_owned()))?,
        (None, None) => return Err((StatusCode::UNAUTHORIZED, "Unauthorized".into())),
    };
    if user.groups.iter().any(|g| g == "system:masters") || user.name == "kube-apiserver-kubelet-client" || user.name == "system:apiserver"
    {
        return Ok(());
    }
    let verb = verb(request.method());
    let subresources = subresources(request.uri().path());
    if server.auth.may(&user, verb, &subresources, &server.agent.config.node_name).await {
        return Ok(());
    }
    let words = subresources.join(" ");
    Err((StatusCode::FORBIDDEN, format!("Forbidden (user={}, verb={verb}, resource=nodes, subresource(s)=[{words}])", user.name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subresources_of_paths() {
        for (path, expected) in [
            ("/stats/summary", vec!["stats"]),
            ("/metrics/cadvisor", vec!["metrics"]),
            ("/logs/x", vec!["log"]),
            ("/pods", vec!["pods", "proxy"]),
            ("/healthz", vec!["healthz", "proxy"]),
            ("/exec/a/b/c", vec!["proxy"]),
            ("/statsx", vec!["proxy"]),
        ] {
            assert_eq!(subresources(path), expected, "{path}");
        }
    }
}
