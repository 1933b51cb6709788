//! ClusterRoles with an `aggregationRule` have the rules of all ClusterRoles that it selects (`admin`, `edit` and `view` grow that way).
//!
//! Watches and writes ClusterRoles. Rules stand in the order of the roles' names, each once.

use jiff::Timestamp;
use serde_json::json;
use tiphys_client::{Action, Informer, Patch, Plan, Planner, WorkQueue};
use tiphys_types::api::rbac::v1::{ClusterRole, PolicyRule};
use tiphys_types::selector;

use crate::Context;

pub(crate) fn start(context: &Context) {
    let roles = context.informers.of::<ClusterRole>();
    let queue = WorkQueue::new();
    let (all, again) = (roles.clone(), queue.clone());
    roles.on_change(move |delta| {
        again.add(delta.object().metadata.name.clone().unwrap_or_default());
        // Any role may be part of any aggregate.
        for role in all.list().iter().filter(|r| r.aggregation_rule.is_some()) {
            again.add(role.metadata.name.clone().unwrap_or_default());
        }
        true
    });
    let executor = context.executor("clusterrole-aggregation-controller").reading(roles.clone());
    context.run("clusterrole-aggregation-controller", 1, queue, Aggregator { roles }, executor);
}

struct Aggregator {
    roles: Informer<ClusterRole>,
}

impl Planner for Aggregator {
    type Key = String;

    fn plan(&self, name: &String, _: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(role) = self.roles.get("", name) else { return plan };
        let Some(rule) = &role.aggregation_rule else { return plan };
        let selectors: Vec<_> = rule.cluster_role_selectors.iter().flatten().filter_map(|s| selector::from_typed(Some(s)).ok()).collect();
        let mut rules: Vec<PolicyRule> = Vec::new();
        for part in self.roles.list() {
            let chosen = part.metadata.name != role.metadata.name && selectors.iter().any(|s| s.matches_map(part.metadata.labels.as_ref()));
            for rule in part.rules.iter().flatten().filter(|_| chosen) {
                if !rules.contains(rule) {
                    rules.push(rule.clone());
                }
            }
        }
        if role.rules.as_deref().unwrap_or_default() != rules {
            let patch = json!({"metadata": {"resourceVersion": role.metadata.resource_version}, "rules": rules});
            plan.act(Action::patch(&*role, "", Patch::Merge(patch)).or_settled());
        }
        plan
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tiphys_client::gvr_of;
    use tiphys_types::api::rbac::v1::ClusterRole;

    use crate::shared::test::Rig;

    #[tokio::test(start_paused = true)]
    async fn an_aggregate_follows_its_parts() {
        let rig = Rig::start(&[super::start]);
        let part = |name: &str, verb: &str| json!({"metadata": {"name": name, "labels": {"to": "view"}}, "rules": [{"verbs": [verb], "resources": ["pods"], "apiGroups": [""]}]});
        rig.api.insert(
            &gvr_of::<ClusterRole>(),
            json!({"metadata": {"name": "view"}, "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"to": "view"}}]}}),
        );
        rig.api.insert(&gvr_of::<ClusterRole>(), part("a", "get"));
        rig.api.insert(&gvr_of::<ClusterRole>(), part("b", "list"));
        rig.settles().await;
        let rules = rig.api.get(&gvr_of::<ClusterRole>(), "", "view").unwrap_or_default()["rules"].clone();
        assert_eq!(
            rules.as_array().map(|r| r.iter().map(|r| r["verbs"][0].clone()).collect::<Vec<_>>()),
            Some(vec![json!("get"), json!("list")])
        );
    }
}
