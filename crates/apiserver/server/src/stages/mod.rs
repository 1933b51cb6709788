//! The stages of the chain, one module each. `crate::chain` has their order.

pub mod audit;
pub mod authenticate;
pub mod authorize;
pub mod dispatch;
pub mod flow;
pub mod impersonate;
pub mod request_info;
