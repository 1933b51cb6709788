//! The cluster's DNS: Services and endpoints to answers, by the Kubernetes DNS specification 1.1.0; everything else is asked of the machine's own
//! name servers. Answers are read from the shared informers when they are asked for: there is no zone to keep.
//!
//! Absent: IPv6 addresses, DNSSEC, a cache for forwarded answers, stub domains.

mod answer;
mod forward;
mod server;
mod zone;

pub use answer::{Answer, Zone, answer};
pub use server::{Config, DnsError, start};
pub use zone::ClusterZone;
