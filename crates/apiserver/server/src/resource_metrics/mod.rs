//! `metrics.k8s.io/v1beta1` (NodeMetrics, PodMetrics), as metrics-server serves it: for `kubectl top` and the HorizontalPodAutoscaler.
//!
//! - `summary`: what a kubelet's `/stats/summary` says, as far as it is needed.
//! - `figures`: from two summaries to amounts; pure.
//! - `ask`: a question to a kubelet, its answer kept for a while. Nothing runs while nobody asks.
//! - `objects`: the kinds, their table, and which of them a request selects.
//!
//! An APIService for the group that leads to a Service takes over: requests for it never come here (`aggregate`).
//!
//! Deliberately absent: watches, which metrics-server does not have either; custom and external metrics.

mod ask;
mod figures;
mod objects;
mod summary;

pub(crate) use ask::ResourceMetrics;
pub(crate) use objects::{Kind, serve};
