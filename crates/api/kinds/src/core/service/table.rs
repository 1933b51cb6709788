use serde_json::Value;
use tiphys_meta::object;
use tiphys_types::jiff::Timestamp;

use crate::strategy::Column;
use crate::table::{AGE, NAME, age, column, labels, or_none, wide};
use crate::tree::{array, at, int, text};

pub(super) const COLUMNS: &[Column] =
    &[NAME, column("Type"), column("Cluster-IP"), column("External-IP"), column("Port(s)"), AGE, wide("Selector")];

pub(super) fn cells(o: &Value, now: Timestamp) -> Vec<Value> {
    let ip = array(o, "spec.clusterIPs").first().and_then(Value::as_str).unwrap_or("<none>");
    vec![
        object::name(o).into(),
        text(o, "spec.type").into(),
        ip.into(),
        external_ip(o).into(),
        or_none(ports(o)).into(),
        age(o, now),
        labels(at(o, "spec.selector")).into(),
    ]
}

fn external_ip(o: &Value) -> String {
    let given: Vec<&str> = array(o, "spec.externalIPs").iter().filter_map(Value::as_str).collect();
    match text(o, "spec.type") {
        "ClusterIP" | "NodePort" => or_none(given.join(",")),
        "LoadBalancer" => {
            let mut all = load_balancer(at(o, "status.loadBalancer"));
            all.extend(given.iter().map(|ip| (*ip).to_owned()));
            if all.is_empty() { "<pending>".into() } else { all.join(",") }
        }
        "ExternalName" => text(o, "spec.externalName").to_owned(),
        _ => "<unknown>".into(),
    }
}

/// Addresses of a load balancer's status, sorted, each once.
pub(crate) fn load_balancer(status: Option<&Value>) -> Vec<String> {
    let address = |i: &Value| match text(i, "ip") {
        "" => text(i, "hostname").to_owned(),
        ip => ip.to_owned(),
    };
    let mut all: Vec<String> =
        status.map(|s| array(s, "ingress")).unwrap_or_default().iter().map(address).filter(|a| !a.is_empty()).collect();
    all.sort_unstable();
    all.dedup();
    all
}

fn ports(o: &Value) -> String {
    let port = |p: &Value| match int(p, "nodePort") {
        0 => format!("{}/{}", int(p, "port"), text(p, "protocol")),
        node => format!("{}:{node}/{}", int(p, "port"), text(p, "protocol")),
    };
    array(o, "spec.ports").iter().map(port).collect::<Vec<_>>().join(",")
}
