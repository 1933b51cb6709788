//! Services to nftables. [`services`] reads Services and EndpointSlices into what matters, [`rules`] turns that into a ruleset;
//! both are pure. [`Proxy`] follows the API server and hands the kernel the difference, one transaction a change.
//!
//! Absent: IPv6; upstream's own health endpoint on port 10256.

mod health;
mod hostport;
mod proxy;
mod rules;
mod services;
mod topology;

pub use hostport::{HostPort, ruleset as hostport_ruleset};
pub use proxy::{HostPorts, Proxy, ProxyError, remove_table};
pub use rules::ruleset;
pub use services::{Affinity, Endpoint, HealthCheck, NodeConfig, Place, Port, Protocol, Range, ServicePort, read, read_health};
