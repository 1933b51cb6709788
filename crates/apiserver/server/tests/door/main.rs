//! The whole door on a registry in memory.

mod abuse;
mod aggregation;
mod certificates;
mod cluster;
mod metrics;
mod requests;
mod webhooks;
