//! Prefers nodes that have the pod's images, weighed by size and by how many nodes have them, so that one node is not heated.

use std::collections::HashMap;
use std::sync::Arc;

use crate::framework::plugin::MAX_SCORE;
use crate::framework::{CycleState, NodeInfo, Plugin, PodInfo, Point, Snapshot};

pub struct ImageLocality;

const MIB: i64 = 1 << 20;
const LEAST: i64 = 23 * MIB;
const MOST_PER_CONTAINER: i64 = 1000 * MIB;

/// Of each image of the pod: the share of nodes that have it.
struct Spread(HashMap<String, f64>);

fn images(pod: &PodInfo) -> impl Iterator<Item = String> {
    let spec = pod.spec();
    let containers = spec.into_iter().flat_map(|s| s.containers.iter().chain(s.init_containers.iter().flatten()));
    let volumes = spec.into_iter().flat_map(|s| s.volumes.iter().flatten()).filter_map(|v| v.image.as_ref()?.reference.as_deref());
    containers.filter_map(|c| c.image.as_deref()).chain(volumes).map(with_tag)
}

fn with_tag(image: &str) -> String {
    let name = image.rsplit_once('/').map_or(image, |(_, name)| name);
    if name.contains(':') { image.to_owned() } else { format!("{image}:latest") }
}

impl Plugin for ImageLocality {
    fn name(&self) -> &'static str {
        "ImageLocality"
    }

    fn points(&self) -> &'static [Point] {
        &[Point::Score]
    }

    fn pre_score(&self, state: &mut CycleState, pod: &PodInfo, snapshot: &Snapshot, _: &[Arc<NodeInfo>]) -> bool {
        let total = snapshot.nodes.len().max(1) as f64;
        let share = |image: &str| snapshot.nodes.iter().filter(|n| n.images.contains_key(image)).count() as f64 / total;
        let spread: HashMap<String, f64> = images(pod).map(|i| (share(&i), i)).filter(|(s, _)| *s > 0.0).map(|(s, i)| (i, s)).collect();
        let any = !spread.is_empty();
        state.put(Spread(spread));
        any
    }

    fn score(&self, state: &CycleState, pod: &PodInfo, node: &NodeInfo) -> i64 {
        let Some(Spread(spread)) = state.get::<Spread>() else { return 0 };
        let worth = |image: String| Some((*node.images.get(&image)? as f64 * spread.get(&image)?) as i64);
        let sum: i64 = images(pod).filter_map(worth).sum();
        let containers = pod.spec().map_or(1, |s| s.containers.len() + s.init_containers.as_ref().map_or(0, Vec::len)).max(1);
        let most = MOST_PER_CONTAINER * containers as i64;
        MAX_SCORE * (sum.clamp(LEAST, most) - LEAST) / (most - LEAST)
    }
}
