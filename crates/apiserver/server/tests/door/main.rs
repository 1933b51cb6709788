//! The whole door on a registry in memory.

mod abuse;
mod aggregation;
mod authorization;
mod certificates;
mod cluster;
mod itself;
mod metrics;
mod requests;
mod stable_metrics;
mod webhooks;
