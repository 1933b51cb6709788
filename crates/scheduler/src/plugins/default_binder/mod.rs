//! Binds through `pods/binding`.

use async_trait::async_trait;
use serde_json::json;
use tiphys_client::{Client, gvr_of};
use tiphys_types::api::core::v1::Pod;

use crate::framework::{Plugin, PodInfo, Point, Refusal};

pub struct DefaultBinder {
    client: Client,
}

impl DefaultBinder {
    pub fn new(client: Client) -> Self {
        DefaultBinder { client }
    }
}

#[async_trait]
impl Plugin for DefaultBinder {
    fn name(&self) -> &'static str {
        "DefaultBinder"
    }

    fn points(&self) -> &'static [Point] {
        &[Point::Bind]
    }

    async fn bind(&self, pod: &PodInfo, node: &str) -> Result<bool, Refusal> {
        let binding = json!({
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"namespace": pod.namespace(), "name": pod.name(), "uid": pod.uid()},
            "target": {"kind": "Node", "name": node},
        });
        let sent = self.client.create_subresource(&gvr_of::<Pod>(), pod.namespace(), pod.name(), "binding", &binding).await;
        sent.map(|_| true).map_err(|error| Refusal::error(self.name(), error.to_string()))
    }
}
