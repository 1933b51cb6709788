//! Service: one name and address for a set of pods.
//!
//! The registry allocates cluster IPs and node ports after `prepare_*` and before validation is told about them; what a client leaves out
//! of an update is filled in from the old object here, so that sending the same manifest twice works.

mod strategy;
mod table;
pub(crate) mod validation;

pub(crate) use validation::{check_protocol, port_number_or_name};
pub(crate) mod lb {
    pub(crate) use super::table::load_balancer;
}

use serde_json::{Value, json};
use tiphys_meta::names;

use crate::fields::selectable;
use crate::strategy::{Strategy, Subresource, keep_all_but_status};
use crate::tree::{array_mut, at, child, int, present, set_absent, set_default, text};

pub(crate) static STRATEGY: Strategy = Strategy::new(true)
    // RelaxedServiceNameValidation (KEP-5311): a DNS label, not only a RFC 1035 one.
    .name(names::name_is_dns_label)
    .status(r#"{"loadBalancer":{}}"#)
    .create_on_update()
    .defaults(defaults)
    .on_create(strategy::on_create)
    .on_update(strategy::on_update)
    .subresources(&[Subresource { name: "status", prepare_update: keep_all_but_status, validate_update: validation::status }])
    .checks(validation::check, validation::check_update)
    .warnings_by(strategy::warnings)
    .selectable(select::NAMES, select::of)
    .table(table::COLUMNS, table::cells);

mod select {
    super::selectable!("metadata.name" = "", "metadata.namespace" = "", "spec.clusterIP" = "", "spec.type" = "");
}

fn defaults(o: &mut Value) {
    let spec = child(o, "spec");
    set_default(spec, "sessionAffinity", "None");
    match text(spec, "sessionAffinity") {
        "None" => crate::tree::remove(spec, "sessionAffinityConfig"),
        "ClientIP" if at(spec, "sessionAffinityConfig.clientIP.timeoutSeconds").is_none() => {
            spec["sessionAffinityConfig"] = json!({"clientIP": {"timeoutSeconds": 10800}});
        }
        _ => {}
    }
    set_default(spec, "type", "ClusterIP");
    for port in array_mut(spec, "ports") {
        set_default(port, "protocol", "TCP");
        let unset = port.get("targetPort").is_none_or(|t| t.is_null() || t == 0 || t == "");
        if unset {
            let number = int(port, "port");
            port["targetPort"] = json!(number);
        }
    }
    if validation::externally_accessible(spec) {
        set_default(spec, "externalTrafficPolicy", "Cluster");
    }
    let kind = text(spec, "type").to_owned();
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer" | "ClusterIP") {
        set_absent(spec, "internalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        set_absent(spec, "allocateLoadBalancerNodePorts", true);
        let Some(balancer) = present(o, "status").and_then(|s| present(s, "loadBalancer")) else { return };
        for ingress in array_mut(balancer, "ingress") {
            if !text(ingress, "ip").is_empty() {
                set_absent(ingress, "ipMode", "VIP");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_by_type() {
        let mut service = json!({"spec": {"ports": [{"port": 80}], "type": "LoadBalancer", "sessionAffinity": "ClientIP"}});
        defaults(&mut service);
        let once = service.clone();
        defaults(&mut service);
        assert_eq!(once, service);
        assert_eq!(
            service,
            json!({"spec": {"ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}], "type": "LoadBalancer",
                "allocateLoadBalancerNodePorts": true, "externalTrafficPolicy": "Cluster", "internalTrafficPolicy": "Cluster",
                "sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 10800}}}})
        );
    }

    #[test]
    fn resubmitting_a_manifest_keeps_what_was_allocated() {
        let old = json!({"spec": {"type": "NodePort", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"],
            "ports": [{"name": "a", "port": 80, "nodePort": 30000}]}});
        let mut new = json!({"spec": {"type": "NodePort", "ports": [{"name": "a", "port": 81}]}});
        strategy::prepare(&mut new, &old);
        assert_eq!(new["spec"]["clusterIPs"], json!(["10.0.0.1"]));
        assert_eq!(new["spec"]["ports"][0]["nodePort"], 30000);
    }

    #[test]
    fn leaving_a_type_releases_what_it_needed() {
        let old = json!({"spec": {"type": "NodePort", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"], "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack", "externalTrafficPolicy": "Cluster", "ports": [{"port": 80, "nodePort": 30000}]}});
        let mut new = old.clone();
        new["spec"]["type"] = json!("ExternalName");
        new["spec"]["externalName"] = json!("a.example");
        strategy::prepare(&mut new, &old);
        assert_eq!(new["spec"], json!({"type": "ExternalName", "externalName": "a.example", "ports": [{"port": 80}]}));
        let mut cluster = old.clone();
        cluster["spec"]["type"] = json!("ClusterIP");
        strategy::prepare(&mut cluster, &old);
        assert_eq!(cluster["spec"]["ports"], json!([{"port": 80}]));
        assert_eq!(cluster["spec"]["clusterIP"], "10.0.0.1");
    }
}
