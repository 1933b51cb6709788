//! Parameters of a binding (`paramRef`): objects of the policy's `paramKind`, by name or by labels.

use std::sync::Arc;

use serde_json::Value;
use tiphys_meta::Gvk;

use super::Bound;
use crate::admission::tree::text;
use crate::conditions::selects;
use crate::registry::Registry;
use crate::resource::Resource;

/// The resource of a kind, and its version.
pub(super) fn resource_of(registry: &Registry, kind: &Gvk) -> Option<(Arc<Resource>, usize)> {
    registry.resources.all().into_iter().find_map(|r| r.served.iter().position(|s| s.gvk == *kind).map(|at| (r, at)))
}

/// The parameters to run a binding with: one `None` where it takes none, nothing where there are none and that is fine.
pub(super) fn collect(registry: &Registry, bound: &Bound, namespace: &str) -> Result<Vec<Option<Value>>, String> {
    let (Some(kind), Some(reference)) = (&bound.policy.param_kind, bound.binding["spec"].get("paramRef")) else { return Ok(vec![None]) };
    let (resource, version) = resource_of(registry, kind)
        .ok_or_else(|| format!("paramKind kind `&ParamKind{{APIVersion:{},Kind:{},}}` not known", kind.api_version(), kind.kind))?;
    let served = &resource.served[version];
    let given = text(reference, "namespace");
    if !given.is_empty() && !resource.namespaced {
        return Err("paramRef.namespace must not be provided for a cluster-scoped `paramKind`".into());
    }
    let namespace = if given.is_empty() { namespace } else { given };
    if resource.namespaced && namespace.is_empty() {
        return Err("cannot use namespaced paramRef in policy binding that matches cluster-scoped resources".into());
    }
    let served_form = |mut object: Value| {
        served.conversion.to_served(&mut object);
        object["apiVersion"] = Value::from(kind.api_version());
        object["kind"] = Value::from(kind.kind.to_string());
        Some(object)
    };
    let found: Vec<Option<Value>> = match text(reference, "name") {
        "" => {
            let prefix = resource.prefix_of(if resource.namespaced { namespace } else { "" });
            let (entries, _) = resource.cache.list(&prefix, &prefix);
            let objects = entries.iter().map(|e| e.to_value()).filter(|o| selects(reference.get("selector"), o));
            objects.map(served_form).collect()
        }
        name => {
            let entry = resource.cache.get(&resource.key(namespace, name));
            entry.into_iter().map(|e| served_form(e.to_value())).collect()
        }
    };
    if found.is_empty() && text(reference, "parameterNotFoundAction") == "Deny" {
        return Err("no params found for policy binding with `Deny` parameterNotFoundAction".into());
    }
    Ok(found)
}
