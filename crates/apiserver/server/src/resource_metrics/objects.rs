//! NodeMetrics and PodMetrics: which of them a request selects, how they look, and metrics-server's table of them.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use serde_json::{Map, Value, json};
use tiphys_meta::{ApiError, Gvk, Gvr, Quantity, duration, object, quantity, time};
use tiphys_registry::{Answer, Computed, Presentation};

use super::figures::{Amounts, Figures};
use crate::chain::{Call, Door};
use crate::errors::DoorError;
use crate::objects::{known, text};
use crate::request_info::Info;

const GROUP: &str = "metrics.k8s.io";
const VERSION: &str = "v1beta1";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Nodes,
    Pods,
}

impl Kind {
    pub(crate) fn of(info: &Info) -> Option<Self> {
        if info.group != GROUP || info.version != VERSION || !info.subresource.is_empty() {
            return None;
        }
        match info.resource.as_str() {
            "nodes" => Some(Kind::Nodes),
            "pods" => Some(Kind::Pods),
            _ => None,
        }
    }

    /// The objects whose use is told.
    fn subject(self) -> &'static Gvr {
        if self == Kind::Nodes { &known::NODES } else { &known::PODS }
    }

    fn gvk(self) -> Gvk {
        Gvk::new(GROUP, VERSION, if self == Kind::Nodes { "NodeMetrics" } else { "PodMetrics" })
    }

    /// What errors call the resource, in metrics-server's words.
    fn spoken(self) -> Gvr {
        Gvr::new(GROUP, VERSION, if self == Kind::Nodes { "nodemetrics" } else { "podmetrics" })
    }
}

pub(crate) async fn serve(door: &Arc<Door>, call: &mut Call, kind: Kind) -> Result<Answer, DoorError> {
    let info = call.info.clone();
    let computed = match info.verb.as_str() {
        "get" => Computed::One(one(door, &info, kind).await?),
        "list" => Computed::Many(metrics(door, selected(door, &info, kind)?, kind).await),
        _ => return Err(ApiError::method_not_allowed().into()),
    };
    let shown = Presentation { gvk: &kind.gvk(), columns: columns(), cells: &cells };
    Ok(shown.answer(computed, call.header(http::header::ACCEPT), info.query.get("includeObject").unwrap_or(""))?)
}

async fn one(door: &Door, info: &Info, kind: Kind) -> Result<Value, ApiError> {
    let subject = door.objects.get(kind.subject(), &info.namespace, &info.name);
    let subject = subject.ok_or_else(|| ApiError::not_found(kind.subject(), &info.name))?;
    let full_name = if kind == Kind::Nodes { info.name.clone() } else { format!("{}/{}", info.namespace, info.name) };
    metrics(door, vec![subject], kind).await.pop().ok_or_else(|| ApiError::not_found(&kind.spoken(), &full_name))
}

fn selected(door: &Door, info: &Info, kind: Kind) -> Result<Vec<Arc<Value>>, ApiError> {
    let (labels, fields) = info.selectors()?;
    let mut all = door.objects.list(kind.subject(), &info.namespace);
    all.retain(|subject| labels.matches_object(subject) && fields.matches(|field| field_of(subject, field)));
    Ok(all)
}

fn field_of<'v>(subject: &'v Value, field: &str) -> Option<&'v str> {
    match field {
        "metadata.name" => Some(object::name(subject)),
        "metadata.namespace" => Some(object::namespace(subject)),
        _ => None,
    }
}

async fn metrics(door: &Door, subjects: Vec<Arc<Value>>, kind: Kind) -> Vec<Value> {
    let node_of = |subject: &Value| match kind {
        Kind::Nodes => object::name(subject).to_owned(),
        Kind::Pods => text(subject, &["spec", "nodeName"]).to_owned(),
    };
    let nodes: BTreeSet<String> = subjects.iter().map(|s| node_of(s)).filter(|node| !node.is_empty()).collect();
    let figures = door.resource_metrics.of_nodes(door, nodes).await;
    let created = time::format(door.clock.now());
    subjects.iter().filter_map(|subject| told(subject, &figures, &node_of(subject), kind, &created)).collect()
}

fn told(subject: &Value, figures: &HashMap<String, Arc<Figures>>, node: &str, kind: Kind, created: &str) -> Option<Value> {
    let figures = figures.get(node)?;
    match kind {
        Kind::Nodes => {
            let amounts = figures.node?;
            let mut told = begun(subject, created, &amounts);
            told["usage"] = usage(&amounts);
            Some(told)
        }
        Kind::Pods => {
            let containers = figures.pod(object::namespace(subject), object::name(subject))?;
            let oldest = containers.iter().map(|(_, amounts)| amounts).min_by_key(|amounts| amounts.at)?;
            let mut told = begun(subject, created, oldest);
            told["containers"] = containers.iter().map(|(name, amounts)| json!({"name": name, "usage": usage(amounts)})).collect();
            Some(told)
        }
    }
}

fn begun(subject: &Value, created: &str, amounts: &Amounts) -> Value {
    let mut metadata = Map::new();
    for field in ["name", "namespace", "labels"] {
        metadata.extend(subject["metadata"].get(field).map(|value| (field.to_owned(), value.clone())));
    }
    metadata.insert("creationTimestamp".into(), json!(created));
    let window = i64::try_from(amounts.window.as_nanos()).unwrap_or(i64::MAX);
    json!({"metadata": metadata, "timestamp": time::format(amounts.at), "window": duration::go_string(window)})
}

fn usage(amounts: &Amounts) -> Value {
    let bytes = Quantity::new(i64::try_from(amounts.bytes).unwrap_or(i64::MAX), quantity::Format::BinarySi);
    json!({"cpu": cpu(amounts.nanocores), "memory": bytes.to_string()})
}

fn cpu(nanocores: u64) -> String {
    Quantity::parse(&format!("{nanocores}n")).map_or_else(|_| String::from("0"), |q| q.to_string())
}

fn columns() -> Value {
    json!([
        {"name": "Name", "type": "string", "format": "name", "description": "Name of the resource", "priority": 0},
        {"name": "cpu", "type": "string", "format": "quantity", "description": "", "priority": 0},
        {"name": "memory", "type": "string", "format": "quantity", "description": "", "priority": 0},
        {"name": "Window", "type": "string", "format": "duration", "description": "", "priority": 0},
    ])
}

/// A pod's cells are the sums over its containers.
fn cells(metrics: &Value) -> Vec<Value> {
    let uses: Vec<&Value> = match metrics.get("containers").and_then(Value::as_array) {
        Some(containers) => containers.iter().map(|c| &c["usage"]).collect(),
        None => vec![&metrics["usage"]],
    };
    let sum = |resource: &str| {
        let amounts = uses.iter().filter_map(|usage| Quantity::parse(usage[resource].as_str()?).ok());
        amounts.reduce(|a, b| a + b).unwrap_or(Quantity::ZERO).to_string()
    };
    vec![json!(object::name(metrics)), json!(sum("cpu")), json!(sum("memory")), metrics["window"].clone()]
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    fn amounts(nanocores: u64, bytes: u64) -> Amounts {
        Amounts { at: "2026-01-01T00:00:10.5Z".parse().expect("time"), window: SignedDuration::from_millis(10_500), nanocores, bytes }
    }

    #[test]
    fn amounts_as_metrics_server_writes_them() {
        for (nanocores, bytes, want) in [
            (0, 0, json!({"cpu": "0", "memory": "0"})),
            (1_234_567, 15_532 * 1024, json!({"cpu": "1234567n", "memory": "15532Ki"})),
            (2_500_000_000, 3 << 30, json!({"cpu": "2500m", "memory": "3Gi"})),
        ] {
            assert_eq!(usage(&amounts(nanocores, bytes)), want);
        }
    }

    #[test]
    fn an_object_and_its_row() {
        let pod = json!({"metadata": {"name": "p", "namespace": "d", "labels": {"app": "x"}, "uid": "u"}, "spec": {}});
        let mut metrics = begun(&pod, "2026-01-01T00:00:11Z", &amounts(1, 1));
        assert_eq!(
            metrics["metadata"],
            json!({"name": "p", "namespace": "d", "labels": {"app": "x"}, "creationTimestamp": "2026-01-01T00:00:11Z"})
        );
        assert_eq!((&metrics["timestamp"], &metrics["window"]), (&json!("2026-01-01T00:00:10Z"), &json!("10.5s")));
        metrics["containers"] =
            json!([{"name": "a", "usage": usage(&amounts(500_000_000, 1 << 20))}, {"name": "b", "usage": usage(&amounts(1, 1 << 20))}]);
        assert_eq!(cells(&metrics), [json!("p"), json!("500000001n"), json!("2Mi"), json!("10.5s")]);
    }

    #[test]
    fn requests_that_are_meant() {
        let kind = |path: &str| Kind::of(&Info::parse(&http::Method::GET, path, "").expect("a path"));
        assert_eq!(kind("/apis/metrics.k8s.io/v1beta1/nodes/a"), Some(Kind::Nodes));
        assert_eq!(kind("/apis/metrics.k8s.io/v1beta1/namespaces/d/pods"), Some(Kind::Pods));
        assert_eq!(kind("/apis/metrics.k8s.io/v1beta1/namespaces/d/pods/p/log"), None);
        assert_eq!(kind("/api/v1/pods"), None);
    }
}
