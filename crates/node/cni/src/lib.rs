//! Links, addresses and routes of nodes and pods, by netlink; no program is executed.
//!
//! Pods are routed, not bridged: each has a veth pair whose host end carries a /32 route to the pod, and fixed neighbour entries on both ends.
//! So every packet of a pod passes the host's IP stack and its rules (no br_netfilter, no hairpin special case), and nobody waits for ARP.
//! Nodes of one cluster that share a machine meet on the cluster's own bridge, which has no uplink ([`node`]).
//!
//! Absent: external CNI plugins (their exec protocol comes with external runtimes), IPv6, bandwidth limits.

pub mod ipam;
pub mod node;
pub mod pod;
pub mod rtnl;
pub mod sysctl;

/// An IPv4 range such as `10.244.0.0/24`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cidr {
    pub address: std::net::Ipv4Addr,
    pub prefix: u8,
}

#[derive(Debug, thiserror::Error)]
pub enum NetError {
    #[error("{what}")]
    Kernel {
        what: String,
        #[source]
        source: std::io::Error,
    },
    #[error("{0}")]
    Invalid(String),
    #[error("no free address in {0}: every pod address of this node is taken")]
    Exhausted(Cidr),
}

impl NetError {
    pub(crate) fn kernel(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> NetError {
        let what = what.into();
        move |source| NetError::Kernel { what, source }
    }
}

impl Cidr {
    pub fn new(address: std::net::Ipv4Addr, prefix: u8) -> Cidr {
        let cidr = Cidr { address, prefix: prefix.min(32) };
        Cidr { address: std::net::Ipv4Addr::from(u32::from(address) & cidr.mask()), ..cidr }
    }

    fn mask(self) -> u32 {
        if self.prefix == 0 { 0 } else { u32::MAX << (32 - u32::from(self.prefix)) }
    }

    /// The `n`th address of the range, counted from its network address.
    pub fn nth(self, n: u32) -> Option<std::net::Ipv4Addr> {
        let address = u32::from(self.address).checked_add(n)?;
        (address & self.mask() == u32::from(self.address)).then(|| address.into())
    }

    /// How many addresses the range has.
    pub fn size(self) -> u64 {
        1 << (32 - u32::from(self.prefix))
    }

    pub fn contains(self, address: std::net::Ipv4Addr) -> bool {
        u32::from(address) & self.mask() == u32::from(self.address)
    }

    pub fn overlaps(self, other: Cidr) -> bool {
        self.contains(other.address) || other.contains(self.address)
    }

    /// The `n`th part of the range with the given prefix length.
    pub fn part(self, prefix: u8, n: u32) -> Option<Cidr> {
        let step = 1u32.checked_shl(32 - u32::from(prefix))?;
        Some(Cidr::new(self.nth(n.checked_mul(step)?)?, prefix))
    }
}

impl std::fmt::Display for Cidr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl std::str::FromStr for Cidr {
    type Err = NetError;

    fn from_str(text: &str) -> Result<Self, NetError> {
        let bad = || NetError::Invalid(format!("{text:?} is no IPv4 range; write it as 10.244.0.0/16"));
        let (address, prefix) = text.split_once('/').ok_or_else(bad)?;
        let prefix = prefix.parse().ok().filter(|p| *p <= 32).ok_or_else(bad)?;
        Ok(Cidr::new(address.parse().map_err(|_| bad())?, prefix))
    }
}

impl TryFrom<String> for Cidr {
    type Error = NetError;

    fn try_from(text: String) -> Result<Self, NetError> {
        text.parse()
    }
}

impl From<Cidr> for String {
    fn from(cidr: Cidr) -> String {
        cidr.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::Cidr;

    #[test]
    fn ranges_are_parsed_cut_and_compared() {
        let all: Cidr = "10.244.3.7/16".parse().expect("range");
        assert_eq!(all.to_string(), "10.244.0.0/16");
        assert_eq!(all.part(24, 2).map(|c| c.to_string()).as_deref(), Some("10.244.2.0/24"));
        assert_eq!(all.part(24, 256), None);
        assert!(all.overlaps("10.244.9.0/24".parse().expect("range")));
        assert!(!all.overlaps("10.245.0.0/16".parse().expect("range")));
        for bad in ["10.0.0.0", "10.0.0.0/33", "x/8"] {
            assert!(bad.parse::<Cidr>().is_err(), "{bad}");
        }
    }
}
