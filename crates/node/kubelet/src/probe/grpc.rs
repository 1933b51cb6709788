//! gRPC health checks (grpc.health.v1) spoken by hand: one unary call is a few bytes.

use super::http::connect;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::time::Duration;

/// Ok: serving. The error says what it is instead.
pub(crate) async fn check(address: &str, service: &str, timeout: Duration) -> Result<(), String> {
    match tokio::time::timeout(timeout, check_now(address, service)).await {
        Ok(result) => result,
        Err(_) => Err(format!("timeout: health rpc did not complete within {}s", timeout.as_secs())),
    }
}

async fn check_now(address: &str, service: &str) -> Result<(), String> {
    let io = connect(address).await.map_err(|e| format!("error: failed to connect service {address:?}: {e}"))?;
    let failed = |e: hyper::Error| format!("error: health rpc probe failed: {e}");
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(io)).await.map_err(failed)?;
    let driver = tokio::spawn(connection);
    let request = http::Request::post(format!("http://{address}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", "kube-probe/1.36")
        .body(Full::new(Bytes::from(message(service))))
        .map_err(|e| e.to_string())?;
    let response = sender.send_request(request).await.map_err(failed)?;
    let head = response.headers().clone();
    let body = response.into_body().collect().await.map_err(failed)?;
    let status_of = |h: &http::HeaderMap| h.get("grpc-status").and_then(|v| v.to_str().ok()).map(str::to_owned);
    let code = body.trailers().and_then(status_of).or_else(|| status_of(&head)).unwrap_or_else(|| "0".into());
    driver.abort();
    match code.as_str() {
        "0" => verdict(&body.to_bytes()),
        "12" => Err("error: this server does not implement the grpc health protocol (grpc.health.v1.Health)".into()),
        "4" => Err("timeout: health rpc did not complete in time".into()),
        code => Err(format!("error: health rpc probe failed: rpc error: code = {code}")),
    }
}

/// The five-byte frame head and HealthCheckRequest{service = 1}.
fn message(service: &str) -> Vec<u8> {
    let mut body = Vec::new();
    if !service.is_empty() {
        body.push(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            body.push(length as u8 | 0x80);
            length >>= 7;
        }
        body.push(length as u8);
        body.extend_from_slice(service.as_bytes());
    }
    let mut out = vec![0];
    out.extend_from_slice(&(body.len() as u32).to_be_bytes());
    out.extend_from_slice(&body);
    out
}

/// HealthCheckResponse{status = 1}.
fn verdict(framed: &[u8]) -> Result<(), String> {
    let status = match framed.get(5..) {
        Some([0x08, status, ..]) => *status,
        _ => 0,
    };
    let word = match status {
        1 => return Ok(()),
        0 => "UNKNOWN",
        2 => "NOT_SERVING",
        _ => "SERVICE_UNKNOWN",
    };
    Err(format!("service unhealthy (responded with {word:?})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes() {
        assert_eq!(message(""), [0, 0, 0, 0, 0]);
        assert_eq!(message("ab"), [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        assert_eq!(verdict(&[0, 0, 0, 0, 2, 8, 1]), Ok(()));
        assert_eq!(verdict(&[0, 0, 0, 0, 2, 8, 2]), Err("service unhealthy (responded with \"NOT_SERVING\")".into()));
        assert!(verdict(&[0, 0, 0, 0, 0]).is_err());
    }
}
