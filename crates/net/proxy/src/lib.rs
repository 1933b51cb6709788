//! Services to nftables. [`services`] reads Services and EndpointSlices into what matters, [`rules`] turns that into a ruleset;
//! both are pure. [`Proxy`] follows the API server and hands the kernel the difference, one transaction a change.
//!
//! Absent: IPv6, topology hints and traffic distribution, health check node ports, UDP conntrack cleanup for node ports.

mod hostport;
mod proxy;
mod rules;
mod services;

pub use hostport::{HostPort, ruleset as hostport_ruleset};
pub use proxy::{HostPorts, Proxy, ProxyError, remove_table};
pub use rules::ruleset;
pub use services::{Affinity, Endpoint, NodeConfig, Port, Protocol, Range, ServicePort, read};
