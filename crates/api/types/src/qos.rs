//! The quality-of-service class of a pod.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use tiphys_meta::Quantity;

use crate::api::core::v1::{Pod, ResourceRequirements};
use crate::apimachinery::pkg::api::resource::Quantity as TypedQuantity;
use crate::resources::{CPU, MEMORY};

pub const GUARANTEED: &str = "Guaranteed";
pub const BURSTABLE: &str = "Burstable";
pub const BEST_EFFORT: &str = "BestEffort";

/// The class in the status, or else the computed one.
pub fn class(pod: &Pod) -> &str {
    let known = pod.status.as_ref().and_then(|s| s.qos_class.as_deref()).filter(|c| !c.is_empty());
    known.unwrap_or_else(|| compute(pod))
}

/// The class of a typed pod.
pub fn compute(pod: &Pod) -> &'static str {
    let Some(spec) = &pod.spec else { return BEST_EFFORT };
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    class_of(spec.resources.as_ref().map(|own| Asks::typed(Some(own))), containers.map(|c| Asks::typed(c.resources.as_ref())))
}

/// The class of a pod with this spec.
pub fn of_spec(spec: &Value) -> &'static str {
    let list = |name: &str| spec.get(name).and_then(Value::as_array).into_iter().flatten();
    let own = spec.get("resources").filter(|own| !own.is_null());
    class_of(own.map(|own| Asks::tree(Some(own))), list("containers").chain(list("initContainers")).map(|c| Asks::tree(c.get("resources"))))
}

/// CPU and memory that a container asks for, and may use; zero is nothing.
#[derive(Clone, Copy)]
struct Asks {
    requests: [Quantity; 2],
    limits: [Quantity; 2],
    /// Something is limited, be it CPU, memory or another resource.
    limits_anything: bool,
}

const COUNTED: [&str; 2] = [CPU, MEMORY];

impl Asks {
    const NOTHING: Asks = Asks { requests: [Quantity::ZERO; 2], limits: [Quantity::ZERO; 2], limits_anything: false };

    fn typed(resources: Option<&ResourceRequirements>) -> Asks {
        let Some(resources) = resources else { return Asks::NOTHING };
        let amount = |list: Option<&BTreeMap<String, TypedQuantity>>, name| positive(list.and_then(|l| l.get(name)).map_or("", |q| &q.0));
        Asks {
            requests: COUNTED.map(|name| amount(resources.requests.as_ref(), name)),
            limits: COUNTED.map(|name| amount(resources.limits.as_ref(), name)),
            limits_anything: resources.limits.as_ref().is_some_and(|l| !l.is_empty()),
        }
    }

    fn tree(resources: Option<&Value>) -> Asks {
        let Some(resources) = resources else { return Asks::NOTHING };
        let list = |name: &str| resources.get(name).and_then(Value::as_object);
        let amount = |list: Option<&Map<String, Value>>, name| positive(list.and_then(|l| l.get(name)?.as_str()).unwrap_or(""));
        let (requests, limits) = (list("requests"), list("limits"));
        Asks {
            requests: COUNTED.map(|name| amount(requests, name)),
            limits: COUNTED.map(|name| amount(limits, name)),
            limits_anything: limits.is_some_and(|l| !l.is_empty()),
        }
    }

    fn add(&mut self, other: &Asks) {
        for at in 0..COUNTED.len() {
            self.requests[at] += other.requests[at];
            self.limits[at] += other.limits[at];
        }
    }

    fn limits_both(&self) -> bool {
        self.limits.iter().all(|amount| !amount.is_zero())
    }
}

/// What cannot be read, or is not more than nothing, counts for nothing.
fn positive(text: &str) -> Quantity {
    Quantity::parse(text).ok().filter(|amount| !amount.is_negative()).unwrap_or(Quantity::ZERO)
}

/// Guaranteed: every container limits CPU and memory, and requests what it limits. BestEffort: nobody asks for anything. What the pod asks for as a
/// whole stands for its containers (KEP-2837).
fn class_of(pod: Option<Asks>, containers: impl Iterator<Item = Asks>) -> &'static str {
    let mut sum = Asks::NOTHING;
    let mut all_limited = true;
    match pod {
        Some(own) => {
            all_limited = own.limits_both() || !own.limits_anything;
            sum.add(&own);
        }
        None => containers.for_each(|own| {
            all_limited &= own.limits_both();
            sum.add(&own);
        }),
    }
    if sum.requests.iter().chain(&sum.limits).all(Quantity::is_zero) {
        return BEST_EFFORT;
    }
    if all_limited && sum.requests == sum.limits { GUARANTEED } else { BURSTABLE }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

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
            assert_class(json!({"containers": containers}), class);
        }
        assert_class(json!({"containers": [{"name": "c"}], "resources": both}), GUARANTEED);
        assert_class(json!({"containers": [{"name": "c"}], "resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "1"}}}), BURSTABLE);
        assert_class(json!({"containers": [], "initContainers": [{"name": "c", "resources": both}]}), GUARANTEED);
        assert_class(json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "-1", "memory": "0"}}}]}), BEST_EFFORT);
    }

    fn assert_class(spec: Value, class: &str) {
        assert_eq!(of_spec(&spec), class, "{spec}");
        let pod: Pod = serde_json::from_value(json!({"spec": spec})).unwrap();
        assert_eq!(compute(&pod), class, "{pod:?}");
    }
}
