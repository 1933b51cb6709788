//! Asking kubelets. An answer is good for ten seconds, and a node is asked once at a time however many want to know. Where an answer does not
//! give every rate (the first one; a container that nobody has asked about), the kubelet is asked again a second later.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::figures::Figures;
use super::summary::Summary;
use crate::body;
use crate::chain::Door;
use crate::objects::known;
use crate::streams::Kubelet;

const GOOD_FOR: Duration = Duration::from_secs(10);
/// How long a rate is measured where there is no earlier reading.
const MEASURE: Duration = Duration::from_secs(1);
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
const LARGEST: usize = 64 << 20;
/// So many kubelets are asked at once.
const AT_ONCE: usize = 16;

/// The last answers of kubelets, by node.
#[derive(Default)]
pub(crate) struct ResourceMetrics(Mutex<HashMap<String, Arc<Slot>>>);

type Slot = tokio::sync::Mutex<Option<Kept>>;

struct Kept {
    asked: Instant,
    /// Nothing where the kubelet did not answer.
    last: Option<(Summary, Arc<Figures>)>,
}

impl ResourceMetrics {
    /// What is known of the nodes; those that do not answer are missing.
    pub(super) async fn of_nodes(&self, door: &Door, nodes: impl IntoIterator<Item = String>) -> HashMap<String, Arc<Figures>> {
        self.0.lock().retain(|node, _| door.objects.revision(&known::NODES, "", node).is_some());
        let asked = stream::iter(nodes).map(|node| async move { (self.of_node(door, &node).await, node) }).buffer_unordered(AT_ONCE);
        asked.filter_map(|(figures, node)| async move { Some((node, figures?)) }).collect().await
    }

    async fn of_node(&self, door: &Door, node: &str) -> Option<Arc<Figures>> {
        let slot = self.0.lock().entry(node.to_owned()).or_default().clone();
        let mut slot = slot.lock().await;
        if slot.as_ref().is_none_or(|kept| kept.asked.elapsed() >= GOOD_FOR) {
            let earlier = slot.take().and_then(|kept| kept.last).map(|(summary, _)| summary);
            let asked = read(door, node, earlier).await;
            if let Err(why) = &asked {
                tracing::info!(node, why, "no metrics of a node");
            }
            *slot = Some(Kept { asked: Instant::now(), last: asked.ok() });
        }
        slot.as_ref()?.last.as_ref().map(|(_, figures)| figures.clone())
    }
}

async fn read(door: &Door, node: &str, earlier: Option<Summary>) -> Result<(Summary, Arc<Figures>), String> {
    let mut earlier = earlier;
    let mut now = summary(door, node).await?;
    if !Figures::are_complete(earlier.as_ref(), &now) {
        tokio::time::sleep(MEASURE).await;
        earlier = Some(std::mem::replace(&mut now, summary(door, node).await?));
    }
    let figures = Arc::new(Figures::between(earlier.as_ref(), &now));
    Ok((now, figures))
}

async fn summary(door: &Door, node: &str) -> Result<Summary, String> {
    let asked = async {
        let kubelet = Kubelet::of(door, node).map_err(|e| e.message)?;
        let response = kubelet.get(&door.streams.dialer, "/stats/summary", false).await.map_err(|e| e.message)?;
        let code = response.status();
        let said = body::collect_up_to(response.into_body(), LARGEST).await.map_err(|e| e.to_string())?;
        if !code.is_success() {
            return Err(format!("the kubelet answered {code}: {}", String::from_utf8_lossy(&said).trim_end()));
        }
        serde_json::from_slice(&said).map_err(|e| format!("/stats/summary: {e}"))
    };
    tokio::time::timeout(ANSWER_LIMIT, asked).await.unwrap_or_else(|_| Err("the kubelet does not answer".to_owned()))
}
