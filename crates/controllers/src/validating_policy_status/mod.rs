//! Type checking of ValidatingAdmissionPolicies: the warnings in their status (KEP-3488).
//!
//! Watches policies and CustomResourceDefinitions (whose schemas are types); writes the status of policies. A policy is checked once for each
//! generation; a definition that comes later does not have it checked again, as upstream.

mod observe;
mod plan;

use jiff::Timestamp;
use tiphys_client::{Informer, ObjectKey, Plan, Planner, WorkQueue};
use tiphys_types::api::admissionregistration::v1::ValidatingAdmissionPolicy;
use tiphys_types::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;

use crate::Context;
use crate::shared::watch;

const NAME: &str = "validatingadmissionpolicy-status-controller";

pub(crate) fn start(context: &Context) {
    let policies = context.informers.of::<ValidatingAdmissionPolicy>();
    let definitions = context.informers.of::<CustomResourceDefinition>();
    let queue = WorkQueue::new();
    watch::own(&policies, &queue);
    let executor = context.executor(NAME).reading(policies.clone()).reading(definitions.clone());
    context.run(NAME, 1, queue, Status { policies, definitions }, executor);
}

struct Status {
    policies: Informer<ValidatingAdmissionPolicy>,
    definitions: Informer<CustomResourceDefinition>,
}

impl Planner for Status {
    type Key = ObjectKey;

    fn plan(&self, key: &ObjectKey, _: Timestamp) -> Plan {
        observe::observe(self, key).map_or_else(Plan::default, |observed| plan::plan(&observed))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tiphys_client::gvr_of;
    use tiphys_types::api::admissionregistration::v1::ValidatingAdmissionPolicy;

    use crate::shared::test::Rig;

    #[tokio::test(start_paused = true)]
    async fn what_is_confused_is_told_in_the_status() {
        let rig = Rig::start(&[super::start]);
        let gvr = gvr_of::<ValidatingAdmissionPolicy>();
        let rule = json!({"operations": ["CREATE"], "apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments"]});
        let policy = |name: &str, expression: &str| {
            json!({"metadata": {"name": name, "generation": 3}, "spec": {"validations": [{"expression": expression}],
                "matchConstraints": {"resourceRules": [rule]}}})
        };
        rig.api.insert(&gvr, policy("wrong", "object.spec.replicas > '1'"));
        rig.api.insert(&gvr, policy("right", "object.spec.replicas > 1"));
        rig.settles().await;
        let status = |name: &str| rig.api.get(&gvr, "", name).expect("there")["status"].clone();
        assert_eq!(status("wrong")["observedGeneration"], 3);
        assert_eq!(status("wrong")["typeChecking"]["expressionWarnings"][0]["fieldRef"], "spec.validations[0].expression");
        assert_eq!(status("right"), json!({"observedGeneration": 3, "typeChecking": {}}));
    }
}
