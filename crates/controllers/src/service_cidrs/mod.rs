//! ServiceCIDRs are ready while they stand, and go only when no service's address is left without a range (KEP-1880).
//!
//! Watches ServiceCIDRs and IPAddresses; writes the finalizer `networking.k8s.io/service-cidr-finalizer` and the condition `Ready`.

use std::net::IpAddr;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use tiphys_client::{Action, Informer, ObjectKey, Plan, Planner, WorkQueue};
use tiphys_types::api::networking::v1::{IPAddress, ServiceCIDR, ServiceCIDRStatus};
use tiphys_types::metav1::{Condition, Time};

use crate::Context;
use crate::claim_protection::protect;

const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";
/// Allocators must have seen that the range is going before its last address may be taken for free.
const GRACE: SignedDuration = SignedDuration::from_secs(10);

pub(crate) fn start(context: &Context) {
    let (ranges, addresses) = (context.informers.of::<ServiceCIDR>(), context.informers.of::<IPAddress>());
    let queue = WorkQueue::new();
    // There are few, and one's going may hang on any other.
    let (all, again) = (ranges.clone(), queue.clone());
    ranges.on_change(move |delta| {
        again.add(ObjectKey::of(&**delta.object()));
        all.list().iter().filter(|r| r.metadata.deletion_timestamp.is_some()).for_each(|r| again.add(ObjectKey::of(&**r)));
        true
    });
    let (all, again) = (ranges.clone(), queue.clone());
    addresses.on_change(move |_| {
        all.list().iter().filter(|r| r.metadata.deletion_timestamp.is_some()).for_each(|r| again.add(ObjectKey::of(&**r)));
        true
    });
    let executor = context.executor("service-cidr-controller").reading(ranges.clone()).reading(addresses.clone());
    context.run("service-cidr-controller", 1, queue, Ranges { ranges, addresses }, executor);
}

struct Ranges {
    ranges: Informer<ServiceCIDR>,
    addresses: Informer<IPAddress>,
}

/// An address range: its first address and how many bits are fixed.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Prefix {
    first: IpAddr,
    bits: u8,
}

impl Prefix {
    fn parse(text: &str) -> Option<Prefix> {
        let (first, bits) = text.split_once('/')?;
        Some(Prefix { first: first.parse().ok()?, bits: bits.parse().ok()? })
    }

    fn holds(self, address: IpAddr) -> bool {
        match (self.first, address) {
            (IpAddr::V4(a), IpAddr::V4(b)) => u64::from(u32::from(a) ^ u32::from(b)) >> 32u8.saturating_sub(self.bits) == 0,
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                (u128::from(a) ^ u128::from(b)).checked_shr(u32::from(128u8.saturating_sub(self.bits))).unwrap_or(0) == 0
            }
            _ => false,
        }
    }

    fn covers(self, other: Prefix) -> bool {
        self.bits <= other.bits && self.holds(other.first)
    }
}

fn prefixes(range: &ServiceCIDR) -> impl Iterator<Item = Prefix> {
    range.spec.iter().flat_map(|s| s.cidrs.iter().flatten()).filter_map(|c| Prefix::parse(c))
}

/// Whether every address that is in use would still be in some range.
fn is_dispensable(range: &ServiceCIDR, others: &[Arc<ServiceCIDR>], addresses: &[Arc<IPAddress>]) -> bool {
    let others: Vec<Prefix> = others.iter().filter(|o| o.metadata.name != range.metadata.name).flat_map(|o| prefixes(o)).collect();
    if prefixes(range).all(|mine| others.iter().any(|o| o.covers(mine))) {
        return true;
    }
    let ours = |a: &&Arc<IPAddress>| {
        let manager = a.metadata.labels.as_ref().and_then(|l| l.get("ipaddress.kubernetes.io/managed-by"));
        manager.is_some_and(|m| m == "ipallocator.k8s.io")
    };
    let used = addresses.iter().filter(ours).filter_map(|a| a.metadata.name.as_deref()?.parse::<IpAddr>().ok());
    let mut held = used.filter(|a| prefixes(range).any(|p| p.holds(*a)));
    held.all(|a| others.iter().any(|o| o.holds(a)))
}

impl Planner for Ranges {
    type Key = ObjectKey;

    fn plan(&self, key: &ObjectKey, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(range) = self.ranges.by_key(key) else { return plan };
        let Some(deleted) = &range.metadata.deletion_timestamp else {
            protect(&*range, FINALIZER, true, &mut plan);
            if plan.is_empty() {
                say(&range, "True", "", "Kubernetes Service CIDR is ready", now, &mut plan);
            }
            return plan;
        };
        if !is_dispensable(&range, &self.ranges.list(), &self.addresses.list()) {
            let message = "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR";
            say(&range, "False", "Terminating", message, now, &mut plan);
            return plan;
        }
        let left = deleted.0.duration_since(now) + GRACE;
        if left.is_positive() {
            plan.again_after(left.unsigned_abs());
        } else {
            protect(&*range, FINALIZER, false, &mut plan);
        }
        plan
    }
}

fn say(range: &ServiceCIDR, status: &str, reason: &str, message: &str, now: Timestamp, plan: &mut Plan) {
    let mut conditions: Vec<Condition> = range.status.iter().flat_map(|s| s.conditions.iter().flatten()).cloned().collect();
    let old = conditions.iter().position(|c| c.type_ == "Ready").map(|at| conditions.remove(at));
    if old.as_ref().is_some_and(|c| c.status == status && c.reason == reason && c.message == message) {
        return;
    }
    conditions.push(Condition {
        type_: "Ready".into(),
        status: status.into(),
        reason: reason.into(),
        message: message.into(),
        last_transition_time: old.filter(|c| c.status == status).map_or(Time(now), |c| c.last_transition_time),
        observed_generation: None,
    });
    let next = ServiceCIDR { status: Some(ServiceCIDRStatus { conditions: Some(conditions) }), ..range.clone() };
    plan.act(Action::update_status(&next));
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use tiphys_client::gvr_of;
    use tiphys_testing::object;

    use super::*;
    use crate::shared::test::Rig;

    #[test]
    fn who_holds_what() {
        for (range, address, holds) in [
            ("10.0.0.0/24", "10.0.0.255", true),
            ("10.0.0.0/24", "10.0.1.0", false),
            ("0.0.0.0/0", "1.2.3.4", true),
            ("10.0.0.1/32", "10.0.0.1", true),
            ("fd00::/64", "fd00::1", true),
            ("fd00::/64", "fd00:0:0:1::1", false),
            ("::/0", "fd00::1", true),
            ("10.0.0.0/8", "fd00::1", false),
        ] {
            let held = Prefix::parse(range).zip(address.parse().ok()).map(|(p, a)| p.holds(a));
            assert_eq!(held, Some(holds), "{range} {address}");
        }
    }

    #[test]
    fn what_can_be_spared() {
        let range = |name: &str, cidr: &str| -> Arc<ServiceCIDR> {
            Arc::new(object(json!({"metadata": {"name": name}, "spec": {"cidrs": [cidr]}})))
        };
        let address = |ip: &str| -> Arc<IPAddress> {
            Arc::new(object(
                json!({"metadata": {"name": ip, "labels": {"ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io"}}, "spec": {}}),
            ))
        };
        let small = range("small", "10.0.0.0/24");
        for (others, used, spared) in [
            (vec![], vec![], true),
            (vec![], vec!["10.0.0.7"], false),
            (vec![], vec!["10.0.1.7"], true),
            (vec![range("big", "10.0.0.0/16")], vec!["10.0.0.7"], true),
            (vec![range("part", "10.0.0.0/28")], vec!["10.0.0.7"], true),
            (vec![range("part", "10.0.0.0/28")], vec!["10.0.0.7", "10.0.0.77"], false),
        ] {
            let mut all = others.clone();
            all.push(Arc::clone(&small));
            let addresses: Vec<_> = used.iter().map(|a| address(a)).collect();
            assert_eq!(is_dispensable(&small, &all, &addresses), spared, "{used:?} {}", others.len());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_range_gets_its_finalizer_and_is_ready() {
        let rig = Rig::start(&[start]);
        rig.api.insert(&gvr_of::<ServiceCIDR>(), json!({"metadata": {"name": "r"}, "spec": {"cidrs": ["10.0.0.0/24"]}}));
        rig.settles().await;
        let range = rig.api.get(&gvr_of::<ServiceCIDR>(), "", "r").unwrap_or(Value::Null);
        assert_eq!(range["metadata"]["finalizers"], json!([FINALIZER]));
        assert_eq!(
            (&range["status"]["conditions"][0]["type"], &range["status"]["conditions"][0]["status"]),
            (&json!("Ready"), &json!("True"))
        );
    }
}
