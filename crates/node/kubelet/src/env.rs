//! The environment of a container: services, envFrom, env with references and sources. Pure; the objects come by [`Sources`].

use crate::expand::expand;
use crate::field::{self, Known};
use crate::pod::spec;
use std::collections::BTreeMap;
use std::sync::Arc;
use tiphys_types::api::core::v1::{ConfigMap, Container, EnvVarSource, Pod, Secret, Service};

/// An object could not be had: `NotFound` counts less where the reference is optional.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Missing {
    NotFound(String),
    Other(String),
}

impl Missing {
    pub(crate) fn text(self) -> String {
        match self {
            Missing::NotFound(text) | Missing::Other(text) => text,
        }
    }
}

/// The objects that a pod refers to, read beforehand.
#[derive(Default)]
pub(crate) struct Sources {
    pub(crate) config_maps: BTreeMap<String, Result<Arc<ConfigMap>, Missing>>,
    pub(crate) secrets: BTreeMap<String, Result<Arc<Secret>, Missing>>,
}

fn unread(kind: &str, name: &str) -> Missing {
    Missing::Other(format!("object {kind} {name:?} not registered"))
}

impl Sources {
    pub(crate) fn config_map(&self, name: &str) -> Result<Arc<ConfigMap>, Missing> {
        self.config_maps.get(name).cloned().unwrap_or_else(|| Err(unread("configmap", name)))
    }

    pub(crate) fn secret(&self, name: &str) -> Result<Arc<Secret>, Missing> {
        self.secrets.get(name).cloned().unwrap_or_else(|| Err(unread("secret", name)))
    }
}

/// `Ok(None)`: not there, and optional.
pub(crate) fn optional<T>(found: Result<T, Missing>, optional: Option<bool>) -> Result<Option<T>, String> {
    match found {
        Ok(value) => Ok(Some(value)),
        Err(Missing::NotFound(_)) if optional == Some(true) => Ok(None),
        Err(missing) => Err(missing.text()),
    }
}

type Variables = BTreeMap<String, String>;

/// The whole environment. Ordered by name, so that the same pod gets the same container.
pub(crate) fn environment(
    pod: &Pod,
    container: &Container,
    services: &[Arc<Service>],
    sources: &Sources,
    known: &Known,
) -> Result<Vec<(String, String)>, String> {
    let of_services = service_variables(pod, services);
    let mut variables = Variables::new();
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        if let Some(reference) = &from.config_map_ref {
            if let Some(map) = optional(sources.config_map(&reference.name), reference.optional)? {
                variables.extend(map.data.iter().flatten().map(|(k, v)| (format!("{prefix}{k}"), v.clone())));
            }
        } else if let Some(reference) = &from.secret_ref
            && let Some(secret) = optional(sources.secret(&reference.name), reference.optional)?
        {
            let data = secret.data.iter().flatten();
            variables.extend(data.map(|(k, v)| (format!("{prefix}{k}"), String::from_utf8_lossy(&v.0).into_owned())));
        }
    }
    for variable in container.env.iter().flatten() {
        let plain = variable.value.as_deref().filter(|v| !v.is_empty());
        let value = match (plain, &variable.value_from) {
            (Some(text), _) => expand(text, &|name| variables.get(name).or_else(|| of_services.get(name)).cloned()),
            (None, Some(source)) => match sourced(source, pod, container, sources, known)? {
                Some(value) => value,
                None => continue,
            },
            (None, None) => String::new(),
        };
        variables.insert(variable.name.clone(), value);
    }
    for (name, value) in of_services {
        variables.entry(name).or_insert(value);
    }
    Ok(variables.into_iter().collect())
}

fn sourced(source: &EnvVarSource, pod: &Pod, container: &Container, sources: &Sources, known: &Known) -> Result<Option<String>, String> {
    let namespace = spec::namespace(pod);
    if let Some(selector) = &source.field_ref {
        return field::field(selector, pod, known).map(Some);
    }
    if let Some(selector) = &source.resource_field_ref {
        return field::resource(selector, pod, Some(container), known).map(Some);
    }
    if let Some(key) = &source.config_map_key_ref {
        let Some(map) = optional(sources.config_map(&key.name), key.optional)? else { return Ok(None) };
        return match map.data.as_ref().and_then(|d| d.get(&key.key)) {
            Some(value) => Ok(Some(value.clone())),
            None if key.optional == Some(true) => Ok(None),
            None => Err(format!("couldn't find key {} in ConfigMap {namespace}/{}", key.key, key.name)),
        };
    }
    if let Some(key) = &source.secret_key_ref {
        let Some(secret) = optional(sources.secret(&key.name), key.optional)? else { return Ok(None) };
        return match secret.data.as_ref().and_then(|d| d.get(&key.key)) {
            Some(value) => Ok(Some(String::from_utf8_lossy(&value.0).into_owned())),
            None if key.optional == Some(true) => Ok(None),
            None => Err(format!("couldn't find key {} in Secret {namespace}/{}", key.key, key.name)),
        };
    }
    Ok(None)
}

/// Docker-link variables of the namespace's services, and always of the `kubernetes` service.
fn service_variables(pod: &Pod, services: &[Arc<Service>]) -> Variables {
    let links = spec::spec(pod).enable_service_links != Some(false);
    let mut chosen: BTreeMap<&str, &Service> = BTreeMap::new();
    for service in services {
        let ip = service.spec.as_ref().and_then(|s| s.cluster_ip.as_deref()).unwrap_or_default();
        if ip.is_empty() || ip == "None" {
            continue;
        }
        let (namespace, name) = (service.metadata.namespace.as_deref(), service.metadata.name.as_deref().unwrap_or_default());
        if namespace == Some("default") && name == "kubernetes" {
            chosen.entry(name).or_insert(service);
        } else if links && namespace == Some(spec::namespace(pod)) {
            chosen.insert(name, service);
        }
    }
    chosen.values().flat_map(|service| variables_of(service)).collect()
}

fn variables_of(service: &Service) -> Vec<(String, String)> {
    let prefix = upper(service.metadata.name.as_deref().unwrap_or_default());
    let Some(spec) = &service.spec else { return Vec::new() };
    let ip = spec.cluster_ip.as_deref().unwrap_or_default();
    let ports = spec.ports.as_deref().unwrap_or_default();
    let mut out = vec![(format!("{prefix}_SERVICE_HOST"), ip.to_owned())];
    let Some(first) = ports.first() else { return out };
    out.push((format!("{prefix}_SERVICE_PORT"), first.port.to_string()));
    for port in ports {
        if let Some(name) = port.name.as_deref().filter(|n| !n.is_empty()) {
            out.push((format!("{prefix}_SERVICE_PORT_{}", upper(name)), port.port.to_string()));
        }
    }
    let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
    for (index, port) in ports.iter().enumerate() {
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let url = format!("{}://{host}:{}", protocol.to_lowercase(), port.port);
        if index == 0 {
            out.push((format!("{prefix}_PORT"), url.clone()));
        }
        let port_prefix = format!("{prefix}_PORT_{}_{}", port.port, protocol.to_uppercase());
        out.push((port_prefix.clone(), url));
        out.push((format!("{port_prefix}_PROTO"), protocol.to_lowercase()));
        out.push((format!("{port_prefix}_PORT"), port.port.to_string()));
        out.push((format!("{port_prefix}_ADDR"), ip.to_owned()));
    }
    out
}

fn upper(name: &str) -> String {
    name.to_uppercase().replace(['-', '.'], "_")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn run(container: Value, sources: &Sources) -> Result<BTreeMap<String, String>, String> {
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n"}, "spec": {"containers": [container]}})).expect("pod");
        let service: Service = serde_json::from_value(json!({"metadata": {"name": "my-svc", "namespace": "n"},
            "spec": {"clusterIP": "10.0.0.9", "ports": [{"name": "web", "port": 80, "protocol": "TCP"}]}}))
        .expect("service");
        let known = Known::default();
        environment(&pod, &spec::containers(&pod)[0], &[Arc::new(service)], sources, &known).map(|v| v.into_iter().collect())
    }

    fn sources() -> Sources {
        let map: ConfigMap = serde_json::from_value(json!({"data": {"k": "v", "other": "o"}})).expect("map");
        let mut sources = Sources::default();
        sources.config_maps.insert("cm".into(), Ok(Arc::new(map)));
        sources.config_maps.insert("gone".into(), Err(Missing::NotFound("configmap \"gone\" not found".into())));
        sources
    }

    #[test]
    fn sources_references_and_services() {
        let got = run(
            json!({"name": "c", "envFrom": [{"prefix": "P_", "configMapRef": {"name": "cm"}}, {"configMapRef": {"name": "gone", "optional": true}}],
                "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "$(A)-$(P_k)-$(MY_SVC_SERVICE_HOST)-$(NO)"},
                    {"name": "K", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "k"}}},
                    {"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                    {"name": "SKIPPED", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "x", "optional": true}}}]}),
            &sources(),
        )
        .expect("an environment");
        for (name, value) in [("A", "1"), ("B", "1-v-10.0.0.9-$(NO)"), ("K", "v"), ("N", "p"), ("P_other", "o")] {
            assert_eq!(got[name], value, "{name}");
        }
        assert_eq!(got["MY_SVC_PORT_80_TCP"], "tcp://10.0.0.9:80");
        assert_eq!(got["MY_SVC_SERVICE_PORT_WEB"], "80");
        assert!(!got.contains_key("SKIPPED"));
    }

    #[test]
    fn errors_are_upstreams() {
        let key = json!({"name": "c", "env": [{"name": "K", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "x"}}}]});
        assert_eq!(run(key, &sources()), Err("couldn't find key x in ConfigMap n/cm".into()));
        let gone = json!({"name": "c", "envFrom": [{"configMapRef": {"name": "gone"}}]});
        assert_eq!(run(gone, &sources()), Err("configmap \"gone\" not found".into()));
    }
}
