//! The quality-of-service class of a pod.

use crate::api::core::v1::Pod;
use crate::resources::{self, CPU, MEMORY, ResourceList};

pub const GUARANTEED: &str = "Guaranteed";
pub const BURSTABLE: &str = "Burstable";
pub const BEST_EFFORT: &str = "BestEffort";

/// The class in the status, or else the computed one.
pub fn class(pod: &Pod) -> &str {
    let known = pod.status.as_ref().and_then(|s| s.qos_class.as_deref()).filter(|c| !c.is_empty());
    known.unwrap_or_else(|| compute(pod))
}

/// Guaranteed: every container limits CPU and memory, and requests what it limits. BestEffort: nobody asks for anything.
pub fn compute(pod: &Pod) -> &'static str {
    let Some(spec) = &pod.spec else { return BEST_EFFORT };
    let (mut requests, mut limits, mut all_limited) = (ResourceList::new(), ResourceList::new(), true);
    let mut count = |r: Option<&crate::api::core::v1::ResourceRequirements>, always: bool| {
        resources::add(&mut requests, &compute_only(r.and_then(|r| r.requests.as_ref())));
        let own = compute_only(r.and_then(|r| r.limits.as_ref()));
        if own.len() < 2 && (always || r.and_then(|r| r.limits.as_ref()).is_some_and(|l| !l.is_empty())) {
            all_limited = false;
        }
        resources::add(&mut limits, &own);
    };
    if spec.resources.is_some() {
        count(spec.resources.as_ref(), false);
    } else {
        for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
            count(container.resources.as_ref(), true);
        }
    }
    if requests.is_empty() && limits.is_empty() {
        return BEST_EFFORT;
    }
    let equal = requests.iter().all(|(name, amount)| limits.get(name) == Some(amount)) && requests.len() == limits.len();
    if all_limited && equal { GUARANTEED } else { BURSTABLE }
}

/// CPU and memory, where more than nothing.
fn compute_only(typed: Option<&std::collections::BTreeMap<String, crate::apimachinery::pkg::api::resource::Quantity>>) -> ResourceList {
    let mut list = resources::list(typed);
    list.retain(|name, amount| (name == CPU || name == MEMORY) && !amount.is_zero() && !amount.is_negative());
    list
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn classes() {
        let both = json!({"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "1000m", "memory": "1Gi"}});
        let limits_only_cpu = json!({"requests": {"cpu": "1"}, "limits": {"cpu": "1"}});
        let storage = json!({"requests": {"ephemeral-storage": "1Gi"}});
        let unequal = json!({"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "2", "memory": "1Gi"}});
        for (containers, class) in [
            (vec![Value::Null], BEST_EFFORT),
            (vec![storage], BEST_EFFORT),
            (vec![both.clone()], GUARANTEED),
            (vec![both.clone(), both.clone()], GUARANTEED),
            (vec![both.clone(), Value::Null], BURSTABLE),
            (vec![limits_only_cpu], BURSTABLE),
            (vec![unequal], BURSTABLE),
        ] {
            let containers: Vec<Value> = containers.into_iter().map(|r| json!({"name": "c", "resources": r})).collect();
            let pod: Pod = serde_json::from_value(json!({"spec": {"containers": containers}})).unwrap();
            assert_eq!(compute(&pod), class, "{pod:?}");
        }
        let pod: Pod = serde_json::from_value(json!({"spec": {"containers": [{"name": "c"}], "resources": both}})).unwrap();
        assert_eq!(compute(&pod), GUARANTEED);
    }
}
