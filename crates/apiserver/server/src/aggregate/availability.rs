//! Whether the server behind an APIService answers: its `Available` condition in upstream's words, and what it serves.
//!
//! A check follows every change of the APIService, of its Service and of the endpoints; one that answered is asked again every 30 s, as
//! upstream does, since nothing tells when a server elsewhere goes silent. One that did not answer is asked again sooner, by a growing interval.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use http::{Request, header};
use serde_json::{Value, json};
use tiphys_client::{Client, ClientError, Patch};
use tiphys_meta::object;
use tiphys_registry::{Change, Registry, Subscription, UserInfo};

use super::{Aggregator, Remote, proxy};
use crate::authorize::MASTERS;
use crate::body;
use crate::objects::{Objects, at, items, known, text};
use crate::streams::boxed;

const AGAIN: Duration = Duration::from_secs(30);
const SOONEST: Duration = Duration::from_millis(250);
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// Why an APIService is not available.
#[derive(Debug, PartialEq, Eq)]
struct Unavailable {
    reason: &'static str,
    message: String,
}

pub(crate) async fn run(aggregator: Arc<Aggregator>, registry: Arc<Registry>, client: Client) {
    loop {
        let Some(cached) = registry.cached(&known::API_SERVICES) else { return };
        let mut services = cached.subscribe();
        drop(services.initial());
        aggregator.refresh();
        while !aggregator.has_remotes() {
            if services.next().await.is_none() {
                break;
            }
            aggregator.refresh();
        }
        if aggregator.has_remotes() {
            watch_remotes(&aggregator, &registry, &client, &mut services).await;
        }
        // No remotes are left, the registry stops, or the subscription fell behind.
        tokio::time::sleep(SOONEST).await;
    }
}

/// As long as there are remotes: checks at each change that may matter, and from time to time.
async fn watch_remotes(aggregator: &Arc<Aggregator>, registry: &Registry, client: &Client, services: &mut Subscription) {
    let (Some(slices), Some(backends)) = (registry.cached(&known::ENDPOINT_SLICES), registry.cached(&known::SERVICES)) else { return };
    let (mut slices, mut backends) = (slices.subscribe(), backends.subscribe());
    drop((slices.initial(), backends.initial()));
    let mut pause = SOONEST;
    loop {
        let all_good = check_all(aggregator, client).await;
        pause = if all_good { SOONEST } else { (pause * 2).min(AGAIN) };
        let wait = tokio::time::sleep(if all_good { AGAIN } else { pause });
        tokio::pin!(wait);
        loop {
            let concerned = tokio::select! {
                () = &mut wait => true,
                changes = services.next() => {
                    let Some(changes) = changes else { return };
                    let unknown = aggregator.refresh();
                    if !aggregator.has_remotes() {
                        return;
                    }
                    unknown || changes.iter().any(|c| changed(c, is_unchecked))
                }
                changes = slices.next() => {
                    let Some(changes) = changes else { return };
                    changes.iter().any(|c| changed(c, |o| concerns(aggregator, o, slice_service(o))))
                }
                changes = backends.next() => {
                    let Some(changes) = changes else { return };
                    changes.iter().any(|c| changed(c, |o| concerns(aggregator, o, object::name(o))))
                }
            };
            if concerned {
                break;
            }
        }
    }
}

fn changed(change: &Change, is_ours: impl Fn(&Value) -> bool) -> bool {
    let (Change::Put(entry) | Change::Deleted(entry)) = change;
    is_ours(&entry.to_value())
}

/// An APIService that nobody has judged yet, or whose judgement was taken away.
fn is_unchecked(api_service: &Value) -> bool {
    at(api_service, &["spec", "service"]).is_some()
        && !items(api_service, &["status", "conditions"]).iter().any(|c| text(c, &["type"]) == "Available")
}

fn slice_service(slice: &Value) -> &str {
    object::labels(slice).find(|(k, _)| *k == "kubernetes.io/service-name").map_or("", |(_, v)| v)
}

fn concerns(aggregator: &Aggregator, changed: &Value, service: &str) -> bool {
    aggregator.remotes().iter().any(|r| r.service == service && r.namespace == object::namespace(changed))
}

/// Whether all answered.
async fn check_all(aggregator: &Arc<Aggregator>, client: &Client) -> bool {
    let remotes = aggregator.remotes();
    let checks = remotes.iter().map(|remote| async move {
        let verdict = check(aggregator, remote).await;
        if verdict.is_err() {
            remote.failed();
        }
        // Whoever sees the condition finds the resources in discovery.
        aggregator.publish();
        if let Err(error) = tell(aggregator.objects.as_ref(), client, &remote.name, &verdict).await {
            tracing::info!(api_service = remote.name, %error, "cannot write the condition of an APIService");
        }
        verdict.is_ok()
    });
    join_all(checks).await.into_iter().all(|good| good)
}

async fn check(aggregator: &Aggregator, remote: &Remote) -> Result<(), Unavailable> {
    backend(aggregator.objects.as_ref(), remote)?;
    let url = format!("https://{}:{}{}", remote.server_name(), remote.port, remote.path());
    let failed = |message: String| Unavailable { reason: "FailedDiscoveryCheck", message };
    let asked = tokio::time::timeout(ANSWER_LIMIT, get(aggregator, remote, &remote.path())).await;
    let (code, said) = match asked {
        Ok(Ok(answer)) => answer,
        Ok(Err(why)) => return Err(failed(format!("failing or missing response from {url}: Get {url:?}: {why}"))),
        Err(_) => return Err(failed(format!("failing or missing response from {url}: Get {url:?}: context deadline exceeded"))),
    };
    if !(200..300).contains(&code) {
        return Err(failed(format!("failing or missing response from {url}: bad status from {url}: {code}")));
    }
    if let Ok(resources) = serde_json::from_slice(&said) {
        remote.learn(&resources);
    }
    remote.learn_openapi(openapi_hash(aggregator, remote).await);
    Ok(())
}

/// The hash that the server's index of OpenAPI v3 has for the group.
async fn openapi_hash(aggregator: &Aggregator, remote: &Remote) -> Option<String> {
    let (code, said) = tokio::time::timeout(ANSWER_LIMIT, get(aggregator, remote, "/openapi/v3")).await.ok()?.ok()?;
    let index: Value = serde_json::from_slice(&said).ok().filter(|_| code == 200)?;
    let path = remote.path();
    let url = text(index.get("paths")?.get(path.trim_start_matches('/'))?, &["serverRelativeURL"]);
    Some(url.split_once("hash=").map_or("", |(_, hash)| hash).to_owned())
}

/// A GET as the aggregator itself, which may see everything.
pub(super) async fn get(aggregator: &Aggregator, remote: &Remote, path: &str) -> Result<(u16, bytes::Bytes), String> {
    let request = Request::get(path)
        .header(header::HOST, remote.server_name())
        .header(header::ACCEPT, "application/json")
        .header(header::USER_AGENT, "tiphys-aggregator");
    let mut request = request.body(body::empty()).map_err(|e| e.to_string())?;
    proxy::set_user(request.headers_mut(), &UserInfo::new("system:kube-aggregator", &[MASTERS]));
    let response = aggregator.send(remote, request).await?;
    let code = response.status().as_u16();
    let said = body::collect_up_to(boxed(response.into_body()), 64 << 20).await.map_err(|e| e.to_string())?;
    Ok((code, said))
}

/// What the objects say before the server is asked.
fn backend(objects: &dyn Objects, remote: &Remote) -> Result<(), Unavailable> {
    let (name, namespace, port) = (&remote.service, &remote.namespace, remote.port);
    let no = |reason, message| Err(Unavailable { reason, message });
    let Some(service) = objects.get(&known::SERVICES, namespace, name) else {
        return no("ServiceNotFound", format!("service/{name} in {namespace:?} is not present"));
    };
    if text(&service, &["spec", "type"]) != "ClusterIP" {
        return Ok(());
    }
    let ports = items(&service, &["spec", "ports"]);
    let Some(found) = ports.iter().find(|p| p.get("port").and_then(Value::as_u64) == Some(port)) else {
        return no("ServicePortError", format!("service/{name} in {namespace:?} is not listening on port {port}"));
    };
    let slices = objects.list(&known::ENDPOINT_SLICES, namespace);
    let mut slices = slices.iter().filter(|slice| slice_service(slice) == name).peekable();
    if slices.peek().is_none() {
        return no("EndpointsNotFound", format!("cannot find endpointslices for service/{name} in {namespace:?}"));
    }
    let port_name = text(found, &["name"]);
    let serves = |slice: &Value| {
        let ready = items(slice, &["endpoints"]).iter().any(|e| at(e, &["conditions", "ready"]).and_then(Value::as_bool).unwrap_or(true));
        ready && items(slice, &["ports"]).iter().any(|p| text(p, &["name"]) == port_name && p.get("port").is_some())
    };
    if !slices.any(|slice| serves(slice)) {
        let message = format!("endpointslices for service/{name} in {namespace:?} have no addresses with port name {port_name:?}");
        return no("MissingEndpoints", message);
    }
    Ok(())
}

/// Writes the condition where it says something else by now.
async fn tell(objects: &dyn Objects, client: &Client, name: &str, verdict: &Result<(), Unavailable>) -> Result<(), ClientError> {
    let (status, reason, message) = match verdict {
        Ok(()) => ("True", "Passed", "all checks passed"),
        Err(why) => ("False", why.reason, why.message.as_str()),
    };
    set_available(objects, client, name, (status, reason, message)).await
}

/// Status, reason and message of the `Available` condition.
pub(super) async fn set_available(objects: &dyn Objects, client: &Client, name: &str, said: (&str, &str, &str)) -> Result<(), ClientError> {
    for _ in 0..5 {
        let Some(object) = objects.get(&known::API_SERVICES, "", name) else { return Ok(()) };
        let Some(conditions) = with_condition(&object, said) else { return Ok(()) };
        let version = object::resource_version(&object);
        let patch = Patch::Merge(json!({"metadata": {"resourceVersion": version}, "status": {"conditions": conditions}}));
        match client.patch_value(&known::API_SERVICES, "", name, "status", &patch).await {
            Err(error) if error.is_conflict() => tokio::task::yield_now().await,
            Err(error) if error.is_not_found() => return Ok(()),
            other => return other.map(|_| ()),
        }
    }
    Ok(())
}

/// The conditions with this one among them; none if it is there already.
fn with_condition(object: &Value, (status, reason, message): (&str, &str, &str)) -> Option<Vec<Value>> {
    let mut conditions = items(object, &["status", "conditions"]).to_vec();
    let found = conditions.iter_mut().find(|c| text(c, &["type"]) == "Available");
    let now = || json!(tiphys_meta::time::format(tiphys_base::Clock::now(&tiphys_base::SystemClock)));
    match found {
        Some(there) => {
            if (text(there, &["status"]), text(there, &["reason"]), text(there, &["message"])) == (status, reason, message) {
                return None;
            }
            if text(there, &["status"]) != status {
                there["lastTransitionTime"] = now();
            }
            (there["status"], there["reason"], there["message"]) = (json!(status), json!(reason), json!(message));
        }
        None => conditions
            .push(json!({"type": "Available", "status": status, "reason": reason, "message": message, "lastTransitionTime": now()})),
    }
    Some(conditions)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::fake::FakeObjects;

    #[test]
    fn what_the_objects_say() {
        let objects = FakeObjects::default();
        let spec =
            json!({"group": "x", "version": "v1", "insecureSkipTLSVerify": true, "service": {"namespace": "n", "name": "s", "port": 7443}});
        let remote = Remote::read(&json!({"metadata": {"name": "v1.x"}, "spec": spec}), None).expect("a remote");
        let reason = || backend(&objects, &remote).err().map(|u| (u.reason, u.message));
        assert_eq!(reason(), Some(("ServiceNotFound", "service/s in \"n\" is not present".into())));
        let mut service = json!({"metadata": {"name": "s", "namespace": "n"}, "spec": {"type": "ClusterIP", "ports": [{"port": 80}]}});
        objects.put(&known::SERVICES, service.clone());
        assert_eq!(reason(), Some(("ServicePortError", "service/s in \"n\" is not listening on port 7443".into())));
        service["spec"]["ports"] = json!([{"port": 7443}]);
        objects.put(&known::SERVICES, service);
        assert_eq!(reason(), Some(("EndpointsNotFound", "cannot find endpointslices for service/s in \"n\"".into())));
        let slice = |ready: bool| {
            json!({"metadata": {"name": "s-1", "namespace": "n", "labels": {"kubernetes.io/service-name": "s"}},
                "ports": [{"name": "", "port": 443}], "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": ready}}]})
        };
        objects.put(&known::ENDPOINT_SLICES, slice(false));
        assert_eq!(
            reason(),
            Some(("MissingEndpoints", "endpointslices for service/s in \"n\" have no addresses with port name \"\"".into()))
        );
        objects.put(&known::ENDPOINT_SLICES, slice(true));
        assert_eq!(reason(), None);
    }

    #[test]
    fn conditions_change_once() {
        let said = ("True", "Passed", "all checks passed");
        let mut object = json!({"status": {"conditions": [{"type": "Other", "status": "True"}]}});
        let conditions = with_condition(&object, said).expect("a change");
        assert_eq!((conditions.len(), text(&conditions[1], &["message"])), (2, "all checks passed"));
        object["status"]["conditions"] = json!(conditions);
        assert_eq!(with_condition(&object, said), None);
        let down = with_condition(&object, ("False", "MissingEndpoints", "x")).expect("a change");
        assert_eq!((down.len(), text(&down[1], &["status"])), (2, "False"));
    }
}
