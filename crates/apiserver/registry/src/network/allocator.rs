//! The sets of taken addresses and ports. Random picks come from the upper part of a range first, so that addresses that people choose
//! (mostly low ones) stay free (KEP-3070, KEP-3668). Ranges are the configuration's and those of ServiceCIDR objects; an address is taken while a Service
//! holds it or an IPAddress object names it (KEP-1880).

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use serde_json::Value;
use tiphys_meta::object;

use super::{held_ips, held_ports};
use crate::chance;
use crate::config::{Cidr, RegistryConfig};

/// Random tries before a range is gone through in order.
const TRIES: usize = 16;

pub(crate) struct Allocator(Arc<Shared>);

struct Shared {
    configured: Vec<Cidr>,
    /// Ranges of ServiceCIDR objects, by their names.
    added: RwLock<BTreeMap<String, Vec<Cidr>>>,
    families: Vec<&'static str>,
    ports: (u16, u16),
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    ips: HashSet<IpAddr>,
    /// Addresses that have an IPAddress object.
    named: HashSet<IpAddr>,
    ports: HashSet<u16>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum AllocateError {
    #[error("range is full")]
    Full,
    #[error("provided IP is already allocated")]
    IpTaken,
    #[error("the provided IP ({0}) is not in the valid range. The range of valid IPs is {1}")]
    IpOutside(IpAddr, String),
    #[error("the provided network does not match the current range")]
    NoRange,
    #[error("provided port is already allocated")]
    PortTaken,
    #[error("provided port is not in the valid range. The range of valid ports is {0}-{1}")]
    PortOutside(u16, u16),
}

impl Allocator {
    pub(crate) fn new(config: &RegistryConfig) -> Allocator {
        let configured = config.service_cidrs.clone();
        let families = configured.iter().map(|c| if c.base.is_ipv6() { "IPv6" } else { "IPv4" }).collect();
        Allocator(Arc::new(Shared { configured, added: RwLock::default(), families, ports: config.node_ports, taken: Mutex::default() }))
    }

    /// The cluster's families, the default first.
    pub(crate) fn families(&self) -> &[&'static str] {
        &self.0.families
    }

    pub(crate) fn begin(&self) -> Reserved {
        Reserved { shared: self.0.clone(), ips: Vec::new(), ports: Vec::new() }
    }

    /// Takes what a stored Service holds.
    pub(crate) fn adopt(&self, service: &Value) {
        let mut taken = self.0.taken.lock();
        taken.ips.extend(held_ips(&service["spec"]));
        taken.ports.extend(held_ports(&service["spec"]));
    }

    /// A ServiceCIDR object is there: new addresses come from its ranges too, unless it is on its way out or not ready.
    pub(crate) fn add_range(&self, range: &Value) {
        let ready = |c: &Value| c["type"] == "Ready" && c["status"] == "False";
        let unusable = range["status"]["conditions"].as_array().is_some_and(|all| all.iter().any(ready));
        if unusable || object::deletion_timestamp(range).is_some() {
            return self.remove_range(object::name(range));
        }
        let texts = range["spec"]["cidrs"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let cidrs = texts.filter_map(Cidr::parse).filter(|c| !self.0.configured.contains(c)).collect();
        self.0.added.write().insert(object::name(range).to_owned(), cidrs);
    }

    pub(crate) fn remove_range(&self, name: &str) {
        self.0.added.write().remove(name);
    }

    /// An IPAddress object is there: nobody else gets the address.
    pub(crate) fn name_ip(&self, name: &str) {
        self.0.taken.lock().named.extend(name.parse::<IpAddr>());
    }

    pub(crate) fn unname_ip(&self, name: &str) {
        if let Ok(ip) = name.parse::<IpAddr>() {
            self.0.taken.lock().named.remove(&ip);
        }
    }

    pub(crate) fn release_all(&self, service: &Value) {
        let mut taken = self.0.taken.lock();
        held_ips(&service["spec"]).iter().for_each(|ip| {
            taken.ips.remove(ip);
        });
        held_ports(&service["spec"]).iter().for_each(|port| {
            taken.ports.remove(port);
        });
    }

    /// Releases what a Service no longer holds.
    pub(crate) fn release_dropped(&self, old: &Value, new: &Value) {
        let (ips, ports) = (held_ips(&new["spec"]), held_ports(&new["spec"]));
        let mut taken = self.0.taken.lock();
        held_ips(&old["spec"]).iter().filter(|ip| !ips.contains(ip)).for_each(|ip| {
            taken.ips.remove(ip);
        });
        held_ports(&old["spec"]).iter().filter(|port| !ports.contains(port)).for_each(|port| {
            taken.ports.remove(port);
        });
    }
}

impl Shared {
    /// Those of a family, the configured ones first.
    fn ranges(&self, v6: bool) -> Vec<Range> {
        let added = self.added.read();
        let all = self.configured.iter().chain(added.values().flatten());
        all.filter(|c| c.base.is_ipv6() == v6).map(Range::of).collect()
    }
}

/// What one write takes; given back when dropped, unless kept.
pub(crate) struct Reserved {
    shared: Arc<Shared>,
    ips: Vec<IpAddr>,
    ports: Vec<u16>,
}

impl Drop for Reserved {
    fn drop(&mut self) {
        let mut taken = self.shared.taken.lock();
        self.ips.iter().for_each(|ip| {
            taken.ips.remove(ip);
        });
        self.ports.iter().for_each(|port| {
            taken.ports.remove(port);
        });
    }
}

impl Reserved {
    pub(crate) fn keep(mut self) {
        self.ips.clear();
        self.ports.clear();
    }

    pub(crate) fn ip(&mut self, ip: IpAddr) -> Result<(), AllocateError> {
        let ranges = self.shared.ranges(ip.is_ipv6());
        let range = ranges.iter().find(|r| r.contains(ip)).ok_or(AllocateError::NoRange)?;
        if range.offset(ip).is_none_or(|o| o == 0 || o > range.usable) {
            return Err(AllocateError::IpOutside(ip, range.text()));
        }
        let mut taken = self.shared.taken.lock();
        if taken.named.contains(&ip) || !taken.ips.insert(ip) {
            return Err(AllocateError::IpTaken);
        }
        self.ips.push(ip);
        Ok(())
    }

    pub(crate) fn next_ip(&mut self, v6: bool) -> Result<IpAddr, AllocateError> {
        let ranges = self.shared.ranges(v6);
        let mut taken = self.shared.taken.lock();
        let found = ranges.iter().find_map(|range| range.pick(|ip| !taken.ips.contains(&ip) && !taken.named.contains(&ip)));
        let ip = found.ok_or(AllocateError::Full)?;
        taken.ips.insert(ip);
        drop(taken);
        self.ips.push(ip);
        Ok(ip)
    }

    pub(crate) fn port(&mut self, port: u16) -> Result<(), AllocateError> {
        let (low, high) = self.shared.ports;
        if !(low..=high).contains(&port) {
            return Err(AllocateError::PortOutside(low, high));
        }
        if !self.shared.taken.lock().ports.insert(port) {
            return Err(AllocateError::PortTaken);
        }
        self.ports.push(port);
        Ok(())
    }

    pub(crate) fn next_port(&mut self) -> Result<u16, AllocateError> {
        let (low, high) = self.shared.ports;
        let size = u64::from(high.saturating_sub(low)) + 1;
        let split = low.saturating_add(u16::try_from((size / 32).clamp(16, 128).min(size / 2)).unwrap_or(0));
        let mut taken = self.shared.taken.lock();
        let random = || split + u16::try_from(chance::number() % (u64::from(high.saturating_sub(split)) + 1)).unwrap_or(0);
        let picks = std::iter::repeat_with(random).take(TRIES);
        let found = picks.chain(split..=high).chain(low..split).find(|port| !taken.ports.contains(port));
        let port = found.ok_or(AllocateError::Full)?;
        taken.ports.insert(port);
        drop(taken);
        self.ports.push(port);
        Ok(port)
    }
}

/// The addresses of a range by their distance from its base.
struct Range {
    cidr: Cidr,
    /// The greatest distance that may be given out. The base itself and, for IPv4, the broadcast address may not.
    usable: u64,
}

impl Range {
    fn of(cidr: &Cidr) -> Range {
        let (width, spare) = if cidr.base.is_ipv6() { (128, 1) } else { (32, 2) };
        let bits = u32::from(width - cidr.bits.min(width));
        // Upstream too uses at most 2^62 addresses of a range.
        let size = 1u64 << bits.min(62);
        Range { cidr: *cidr, usable: size.saturating_sub(spare) }
    }

    /// How many low addresses are left to people.
    fn reserved(&self) -> u64 {
        if self.usable <= 16 { 0 } else { (self.usable / 16).clamp(16, 256) }
    }

    /// A free address, random ones of the upper part first.
    fn pick(&self, free: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
        let low = self.reserved();
        let random = || low + 1 + chance::number() % (self.usable - low).max(1);
        let picks = std::iter::repeat_with(random).take(TRIES).filter(|o| *o <= self.usable);
        picks.chain(low + 1..=self.usable).chain(1..=low).map(|o| self.at(o)).find(|ip| free(*ip))
    }

    fn contains(&self, ip: IpAddr) -> bool {
        self.offset(ip).is_some_and(|o| o <= self.usable.saturating_add(1))
    }

    fn at(&self, offset: u64) -> IpAddr {
        match self.cidr.base {
            IpAddr::V4(base) => IpAddr::V4((u32::from(base) | u32::try_from(offset).unwrap_or(u32::MAX)).into()),
            IpAddr::V6(base) => IpAddr::V6((u128::from(base) | u128::from(offset)).into()),
        }
    }

    fn offset(&self, ip: IpAddr) -> Option<u64> {
        match (self.cidr.base, ip) {
            (IpAddr::V4(base), IpAddr::V4(ip)) => u32::from(ip).checked_sub(u32::from(base)).map(u64::from),
            (IpAddr::V6(base), IpAddr::V6(ip)) => u128::from(ip).checked_sub(u128::from(base)).and_then(|o| u64::try_from(o).ok()),
            _ => None,
        }
    }

    fn text(&self) -> String {
        format!("{}/{}", self.cidr.base, self.cidr.bits)
    }
}
