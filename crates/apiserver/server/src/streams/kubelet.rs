//! A node's kubelet: its address as the Node object tells it, and plain requests to it.

use http::{Request, Response, header};
use serde_json::Value;
use tiphys_meta::{ApiError, Reason};

use super::dial::{Dialer, Trust, boxed};
use crate::body::{self, Body};
use crate::chain::Door;
use crate::objects::{at, items, known, text};

const DEFAULT_PORT: u16 = 10250;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kubelet {
    pub host: String,
    pub port: u16,
}

impl Kubelet {
    pub(crate) fn of(door: &Door, node: &str) -> Result<Self, ApiError> {
        let object = door.objects.get(&known::NODES, "", node).ok_or_else(|| ApiError::not_found(&known::NODES, node))?;
        Self::read(&object, &door.streams.address_types)
    }

    fn read(node: &Value, address_types: &[String]) -> Result<Self, ApiError> {
        let addresses = items(node, &["status", "addresses"]);
        let preferred = address_types.iter().find_map(|wanted| addresses.iter().find(|a| text(a, &["type"]) == wanted));
        let host = preferred.map(|a| text(a, &["address"]).to_owned());
        let host = host.ok_or_else(|| ApiError::internal("no preferred addresses found; known addresses: []"))?;
        let port = at(node, &["status", "daemonEndpoints", "kubeletEndpoint", "Port"]).and_then(Value::as_u64);
        let port = port.and_then(|p| u16::try_from(p).ok()).filter(|p| *p != 0).unwrap_or(DEFAULT_PORT);
        Ok(Kubelet { host, port })
    }

    pub(super) fn authority(&self) -> String {
        if self.host.contains(':') { format!("[{}]:{}", self.host, self.port) } else { format!("{}:{}", self.host, self.port) }
    }

    pub(crate) async fn get(&self, dialer: &Dialer, path: &str, unchecked: bool) -> Result<Response<Body>, ApiError> {
        let request = Request::get(path).header(header::HOST, self.authority()).body(body::empty());
        let request = request.map_err(|e| ApiError::bad_request(e.to_string()))?;
        let trust = if unchecked { Trust::KubeletUnchecked } else { Trust::Kubelet };
        let response = dialer.send(&self.host, self.port, trust, request).await.map_err(|e| self.unreachable(path, &e))?;
        Ok(response.map(boxed))
    }

    /// In the words that Go's client has for it, which is what users search for.
    pub(super) fn unreachable(&self, path: &str, error: &dyn std::error::Error) -> ApiError {
        let message = format!("Get \"https://{}{path}\": {error}", self.authority());
        let mut error = ApiError::internal(&message);
        error.reason = Reason::InternalError;
        error.message = message;
        error
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn addresses_in_order_of_preference() {
        let node = json!({"status": {"addresses": [{"type": "Hostname", "address": "n"}, {"type": "InternalIP", "address": "10.1.2.3"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 10260}}}});
        let types = ["InternalIP".to_owned(), "Hostname".to_owned()];
        assert_eq!(Kubelet::read(&node, &types), Ok(Kubelet { host: "10.1.2.3".into(), port: 10260 }));
        assert_eq!(Kubelet::read(&node, &types[1..]).map(|k| k.host), Ok("n".into()));
        assert!(Kubelet::read(&json!({}), &types).is_err());
    }
}
