//! Priority: the number behind a pod's PriorityClass, and at most one class that is the default.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};
use tiphys_meta::{ApiError, Gvr};

use super::tree::{spec, text};
use super::{Attributes, Operation, Plugin};
use crate::registry::Registry;

pub(super) struct Priority;

/// The classes that are always there, before anybody has written them (KEP-268).
const SYSTEM: [(&str, i64); 2] = [("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)];

fn classes() -> Gvr {
    Gvr::new("scheduling.k8s.io", "v1", "priorityclasses")
}

#[async_trait]
impl Plugin for Priority {
    fn name(&self) -> &'static str {
        "Priority"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        let class = attributes.is_whole("scheduling.k8s.io", "priorityclasses");
        class || attributes.operation != Operation::Delete && attributes.is_whole("", "pods")
    }

    async fn admit(
        &self,
        registry: &Arc<Registry>,
        attributes: &Attributes<'_>,
        pod: &mut Value,
        old: Option<&Value>,
    ) -> Result<(), ApiError> {
        if !attributes.is("", "pods") {
            return Ok(());
        }
        if let Some(old) = old {
            for field in ["priority", "preemptionPolicy"] {
                if let Some(value) = old["spec"].get(field)
                    && pod["spec"].get(field).is_none()
                {
                    spec(pod).insert(field.into(), value.clone());
                }
            }
            return Ok(());
        }
        let class = class_of(registry, attributes, text(&pod["spec"], "priorityClassName"))?;
        set(attributes, pod, &class)
    }

    async fn validate(
        &self,
        registry: &Arc<Registry>,
        attributes: &Attributes<'_>,
        class: Option<&Value>,
        _: Option<&Value>,
    ) -> Result<(), ApiError> {
        if attributes.operation == Operation::Delete {
            let system = SYSTEM.iter().any(|(name, _)| *name == attributes.name);
            return if system { Err(attributes.forbidden("this is a system priority class and cannot be deleted")) } else { Ok(()) };
        }
        let is_default = class.is_some_and(|c| c["globalDefault"] == true);
        if attributes.is("", "pods") || !is_default {
            return Ok(());
        }
        match default_class(registry) {
            Some(other) if attributes.operation == Operation::Create || other.name != attributes.name => {
                Err(attributes.forbidden(&format!("PriorityClass {} is already marked as default. Only one default can exist", other.name)))
            }
            _ => Ok(()),
        }
    }
}

struct Class {
    name: String,
    value: i64,
    preemption: String,
}

impl Class {
    fn of(tree: &Value) -> Class {
        let preemption = text(tree, "preemptionPolicy").to_owned();
        Class { name: tiphys_meta::object::name(tree).to_owned(), value: tree["value"].as_i64().unwrap_or(0), preemption }
    }
}

/// Of several defaults, which only a race makes, the lowest counts.
fn default_class(registry: &Registry) -> Option<Class> {
    let all = registry.cached(&classes())?.list("");
    // Few classes are, and every pod asks: a class that does not say the word is not parsed.
    let may_be = all.iter().filter(|e| memchr::memmem::find(e.json(), b"\"globalDefault\":true").is_some());
    may_be.map(|e| e.to_value()).filter(|c| c["globalDefault"] == true).map(|c| Class::of(&c)).min_by_key(|c| c.value)
}

fn class_of(registry: &Registry, attributes: &Attributes<'_>, name: &str) -> Result<Class, ApiError> {
    if name.is_empty() {
        let none = || Class { name: String::new(), value: 0, preemption: "PreemptLowerPriority".into() };
        return Ok(default_class(registry).unwrap_or_else(none));
    }
    if let Some(tree) = registry.get_value(&classes(), "", name) {
        return Ok(Class::of(&tree));
    }
    let system = SYSTEM.iter().find(|(known, _)| *known == name);
    let system = system.map(|(_, value)| Class { name: name.to_owned(), value: *value, preemption: "PreemptLowerPriority".into() });
    system.ok_or_else(|| attributes.forbidden(&format!("no PriorityClass with name {name} was found")))
}

fn set(attributes: &Attributes<'_>, pod: &mut Value, class: &Class) -> Result<(), ApiError> {
    let computed = "priority admission controller computed";
    let given = &pod["spec"];
    if let Some(priority) = given.get("priority").and_then(Value::as_i64).filter(|p| *p != class.value) {
        let why = format!(
            "the integer value of priority ({priority}) must not be provided in pod spec; {computed} {} from the given PriorityClass name",
            class.value
        );
        return Err(attributes.forbidden(&why));
    }
    let given = given.get("preemptionPolicy").and_then(Value::as_str);
    if let Some(policy) = given.filter(|policy| !class.preemption.is_empty() && *policy != class.preemption) {
        let why = format!(
            "the string value of PreemptionPolicy ({policy}) must not be provided in pod spec; {computed} {} from the given PriorityClass name",
            class.preemption
        );
        return Err(attributes.forbidden(&why));
    }
    let spec = spec(pod);
    if !class.name.is_empty() {
        spec.insert("priorityClassName".into(), json!(class.name));
    }
    spec.insert("priority".into(), json!(class.value));
    if !class.preemption.is_empty() {
        spec.insert("preemptionPolicy".into(), json!(class.preemption));
    }
    Ok(())
}
