//! `autoscaling`.

use crate::resources::Entry;
use crate::strategy::Strategy;

static HPA_V1: Strategy = Strategy::new(true).status(r#"{"currentReplicas":0,"desiredReplicas":0}"#);
static HPA_V2: Strategy = Strategy::new(true).status(r#"{"currentMetrics":null,"desiredReplicas":0}"#);

pub(crate) const RESOURCES: &[Entry] =
    &[Entry::of("v1", "horizontalpodautoscalers", &HPA_V1), Entry::new("horizontalpodautoscalers", &HPA_V2)];
