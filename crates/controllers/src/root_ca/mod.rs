//! Every namespace has the ConfigMap `kube-root-ca.crt`: with it pods check whom they talk to when they talk to the API server.
//!
//! Watches Namespaces and ConfigMaps of that name; writes ConfigMaps. Does nothing where no root certificate is configured.

use std::collections::BTreeMap;

use jiff::Timestamp;
use tiphys_client::{Action, Informer, ListOptions, Plan, Planner, WorkQueue};
use tiphys_types::api::core::v1::{ConfigMap, Namespace};
use tiphys_types::metav1::ObjectMeta;

use crate::Context;
use crate::shared::namespaces;

const NAME: &str = "kube-root-ca.crt";
const ABOUT: &str = "kubernetes.io/description";
const DESCRIPTION: &str = "The certificate authority that signs the API server's serving certificate, for clients inside the cluster.";

pub(crate) fn start(context: &Context) {
    if context.config.root_ca.is_empty() {
        return;
    }
    let spaces = context.informers.of::<Namespace>();
    // Only this name: other ConfigMaps need not be held for it.
    let maps = context.informers.filtered::<ConfigMap>(ListOptions::fields(format!("metadata.name={NAME}")));
    let queue = WorkQueue::new();
    namespaces::each(&spaces, &queue);
    namespaces::of_named(&maps, NAME, &queue);
    let data: BTreeMap<String, String> = [("ca.crt".to_owned(), String::from_utf8_lossy(&context.config.root_ca).into_owned())].into();
    let executor = context.executor("root-ca-cert-publisher").reading(spaces.clone()).reading(maps.clone());
    context.run("root-ca-certificate-publisher-controller", 1, queue, Publisher { spaces, maps, data }, executor);
}

struct Publisher {
    spaces: Informer<Namespace>,
    maps: Informer<ConfigMap>,
    data: BTreeMap<String, String>,
}

impl Planner for Publisher {
    type Key = String;

    fn plan(&self, namespace: &String, _: Timestamp) -> Plan {
        let mut plan = Plan::default();
        if !namespaces::is_active(&self.spaces, namespace) {
            return plan;
        }
        match self.maps.get(namespace, NAME) {
            Some(map) if map.data.as_ref() == Some(&self.data) => {}
            Some(map) => {
                plan.act(Action::update(&ConfigMap { data: Some(self.data.clone()), binary_data: None, ..ConfigMap::clone(&map) }))
            }
            None => {
                let metadata = ObjectMeta {
                    name: Some(NAME.into()),
                    namespace: Some(namespace.clone()),
                    annotations: Some([(ABOUT.to_owned(), DESCRIPTION.to_owned())].into()),
                    ..Default::default()
                };
                plan.act(Action::create(&ConfigMap { metadata, data: Some(self.data.clone()), ..Default::default() }).or_settled());
            }
        }
        plan
    }
}
