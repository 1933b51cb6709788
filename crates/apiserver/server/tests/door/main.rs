//! The whole door on a registry in memory.

mod cluster;
mod requests;
mod webhooks;
