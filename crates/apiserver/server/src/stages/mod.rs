//! The stages of the chain, one module each. `crate::chain` has their order.

pub(crate) mod audit;
pub(crate) mod authenticate;
pub(crate) mod authorize;
pub(crate) mod dispatch;
pub(crate) mod flow;
pub(crate) mod impersonate;
pub(crate) mod request_info;
