//! Every namespace has a ServiceAccount named `default`.
//!
//! Watches Namespaces and ServiceAccounts; writes ServiceAccounts. A namespace that is going gets none.

use jiff::Timestamp;
use tiphys_client::{Action, Informer, Plan, Planner, WorkQueue};
use tiphys_types::api::core::v1::{Namespace, ServiceAccount};
use tiphys_types::metav1::ObjectMeta;

use crate::Context;
use crate::shared::namespaces;

pub(crate) fn start(context: &Context) {
    let (spaces, accounts) = (context.informers.of::<Namespace>(), context.informers.of::<ServiceAccount>());
    let queue = WorkQueue::new();
    namespaces::each(&spaces, &queue);
    namespaces::of_named(&accounts, "default", &queue);
    let executor = context.executor("serviceaccount-controller").reading(spaces.clone()).reading(accounts.clone());
    context.run("serviceaccount-controller", 1, queue, Accounts { spaces, accounts }, executor);
}

struct Accounts {
    spaces: Informer<Namespace>,
    accounts: Informer<ServiceAccount>,
}

impl Planner for Accounts {
    type Key = String;

    fn plan(&self, namespace: &String, _: Timestamp) -> Plan {
        let mut plan = Plan::default();
        if namespaces::is_active(&self.spaces, namespace) && self.accounts.get(namespace, "default").is_none() {
            let metadata = ObjectMeta { name: Some("default".into()), namespace: Some(namespace.clone()), ..Default::default() };
            plan.act(Action::create(&ServiceAccount { metadata, ..Default::default() }).or_settled());
        }
        plan
    }
}
