//! The core group.

use tiphys_meta::names;

use crate::resources::Entry;
use crate::strategy::Strategy;

static CONFIG_MAP: Strategy = Strategy::new(true);
static ENDPOINTS: Strategy = Strategy::new(true).create_on_update();
static EVENT: Strategy = Strategy::new(true).create_on_update();
static LIMIT_RANGE: Strategy = Strategy::new(true).create_on_update();
static NAMESPACE: Strategy = Strategy::new(false).name(names::name_is_dns_label).status(r#"{"phase":"Active"}"#);
static NODE: Strategy = Strategy::new(false);
static PVC: Strategy = Strategy::new(true).status(r#"{"phase":"Pending"}"#);
static PV: Strategy = Strategy::new(false).status(r#"{"phase":"Pending"}"#);
static POD: Strategy = Strategy::new(true).spec_generation().status(r#"{"phase":"Pending"}"#);
static POD_TEMPLATE: Strategy = Strategy::new(true);
static RC: Strategy = Strategy::new(true).spec_generation().status(r#"{"replicas":0}"#);
static QUOTA: Strategy = Strategy::new(true).status("{}").create_on_update();
static SECRET: Strategy = Strategy::new(true);
static SERVICE: Strategy = Strategy::new(true).name(names::name_is_dns1035_label).status(r#"{"loadBalancer":{}}"#).create_on_update();
static SERVICE_ACCOUNT: Strategy = Strategy::new(true);

pub(crate) const RESOURCES: &[Entry] = &[
    Entry::new("configmaps", &CONFIG_MAP),
    Entry::new("endpoints", &ENDPOINTS),
    Entry::new("events", &EVENT),
    Entry::new("limitranges", &LIMIT_RANGE),
    Entry::new("namespaces", &NAMESPACE),
    Entry::new("nodes", &NODE),
    Entry::new("persistentvolumeclaims", &PVC),
    Entry::new("persistentvolumes", &PV),
    Entry::new("pods", &POD),
    Entry::new("podtemplates", &POD_TEMPLATE),
    Entry::new("replicationcontrollers", &RC),
    Entry::new("resourcequotas", &QUOTA),
    Entry::new("secrets", &SECRET),
    Entry::new("serviceaccounts", &SERVICE_ACCOUNT),
    Entry::new("services", &SERVICE),
];
