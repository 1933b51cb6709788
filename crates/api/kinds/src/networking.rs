//! `networking.k8s.io`.

use crate::resources::Entry;
use crate::strategy::Strategy;

static INGRESS: Strategy = Strategy::new(true).spec_generation().status(r#"{"loadBalancer":{}}"#);
static INGRESS_CLASS: Strategy = Strategy::new(false).spec_generation();
static NETWORK_POLICY: Strategy = Strategy::new(true).spec_generation();
static IP_ADDRESS: Strategy = Strategy::new(false);
static SERVICE_CIDR: Strategy = Strategy::new(false).status("{}");

pub(crate) const RESOURCES: &[Entry] = &[
    Entry::new("ingressclasses", &INGRESS_CLASS),
    Entry::new("ingresses", &INGRESS),
    Entry::new("ipaddresses", &IP_ADDRESS),
    Entry::new("networkpolicies", &NETWORK_POLICY),
    Entry::new("servicecidrs", &SERVICE_CIDR),
];
