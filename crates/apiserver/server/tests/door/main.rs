//! The whole door on a registry in memory.

mod cluster;
mod life_of_a_request;
mod requests;
