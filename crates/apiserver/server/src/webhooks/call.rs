//! One call of a webhook, for admission or for conversion: by HTTPS to an endpoint of its Service, or to the URL that its configuration names. The CA bundle vouches.

use std::time::Duration;

use http::{Request, header};
use serde_json::Value;

use super::hook::{Hook, url_of};
use crate::body::{self, MAX_REQUEST_BYTES};
use crate::objects::{Objects, text};
use crate::streams::{Dialer, boxed, endpoint_of_service};

/// The answer's body. Errors are told as Go's client tells them, since clients look for parts of them.
pub(crate) async fn post(objects: &dyn Objects, dialer: &Dialer, hook: &Hook, review: String) -> Result<Vec<u8>, String> {
    send(objects, dialer, &hook.client, hook.seconds, review).await.map_err(|why| format!("failed to call webhook: {why}"))
}

/// Sends a review to what `client` (a `clientConfig`) names.
pub(crate) async fn send(objects: &dyn Objects, dialer: &Dialer, client: &Value, seconds: u64, review: String) -> Result<Vec<u8>, String> {
    let url = url_of(client);
    let joint = if url.contains('?') { '&' } else { '?' };
    let url = format!("{url}{joint}timeout={seconds}s");
    let failed = |why: String| format!("Post {url:?}: {why}");
    let limit = Duration::from_secs(seconds);
    match tokio::time::timeout(limit, exchange(objects, dialer, client, &url, review)).await {
        Ok(Ok((200, said))) => Ok(said),
        Ok(Ok((code, said))) => Err(format!("the server answered {code}: {}", String::from_utf8_lossy(&said))),
        Ok(Err(why)) => Err(failed(why)),
        Err(_) => Err(failed("context deadline exceeded".into())),
    }
}

async fn exchange(objects: &dyn Objects, dialer: &Dialer, client: &Value, url: &str, review: String) -> Result<(u16, Vec<u8>), String> {
    let uri: http::Uri = url.parse().map_err(|e| format!("{e}"))?;
    let authority = uri.authority().ok_or("no host in the URL")?.clone();
    let path = uri.path_and_query().map_or("/", |p| p.as_str());
    let (host, port) = match client.get("service") {
        Some(service) => {
            let port = service["port"].as_u64().unwrap_or(443);
            endpoint_of_service(objects, text(service, &["namespace"]), text(service, &["name"]), port).map_err(|e| e.message)?
        }
        None => (authority.host().to_owned(), authority.port_u16().unwrap_or(443)),
    };
    let request = Request::post(path)
        .header(header::HOST, authority.as_str())
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::ACCEPT, "application/json")
        .header(header::USER_AGENT, "kube-apiserver-admission")
        .header(header::CONTENT_LENGTH, review.len())
        .body(body::full(review))
        .map_err(|e| e.to_string())?;
    let ca = ca_bundle(client)?;
    let response = dialer.send_verified(&host, port, authority.host(), &ca, request).await.map_err(|e| e.to_string())?;
    let code = response.status().as_u16();
    let said = body::collect(boxed(response.into_body())).await.map_err(|e| format!("{e} (at most {MAX_REQUEST_BYTES} bytes)"))?;
    Ok((code, said.to_vec()))
}

fn ca_bundle(client: &Value) -> Result<Vec<u8>, String> {
    let encoded = text(client, &["caBundle"]);
    tiphys_meta::base64::decode(encoded).map_err(|e| format!("caBundle: {e}"))
}
