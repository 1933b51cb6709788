//! All requests of the suite, in order: what comes of the objects, what the scripts say, documents and decisions.
//!
//! The order is part of it: objects are made, changed and deleted on the way. Mutations are sent as dry runs, so they leave nothing behind.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::mutate::{changes, wrong};
use crate::step::Step;
use crate::{access, scripts};

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
const PARTIAL: &str = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io,application/json";
const PARTIAL_LIST: &str = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io,application/json";

const OBJECTS: &[&str] = &[
    include_str!("objects/core.yaml"),
    include_str!("objects/pods.yaml"),
    include_str!("objects/apps.yaml"),
    include_str!("objects/network.yaml"),
    include_str!("objects/policy.yaml"),
    include_str!("objects/storage.yaml"),
    include_str!("objects/extension.yaml"),
    include_str!("objects/resource.yaml"),
];

/// An object of the catalogue and where it lives.
struct Sample {
    object: Value,
    /// `apps/v1/deployments d/full`: how its requests are called.
    title: String,
    /// `/apis/apps/v1/namespaces/d/deployments`.
    collection: String,
    name: String,
}

pub(crate) fn all() -> Result<Vec<Step>> {
    let mut steps = prelude();
    steps.extend(access::bootstrap());
    for text in OBJECTS {
        let objects: Vec<Value> = yaml(text).with_context(|| format!("objects: {}", text.lines().next().unwrap_or("")))?;
        for object in objects {
            steps.extend(life(&sample(object)));
        }
    }
    steps.extend(scripts::all()?);
    steps.extend(access::decisions());
    unique(&mut steps);
    Ok(steps)
}

/// `y` and `n` are names here.
pub(crate) fn yaml(text: &str) -> Result<Vec<Value>, serde_saphyr::Error> {
    let mut options = serde_saphyr::Options::default();
    options.strict_booleans = true;
    serde_saphyr::from_str_with_options(text, options)
}

/// Two requests of one name are told apart by a number.
fn unique(steps: &mut [Step]) {
    let mut seen = BTreeSet::new();
    for step in steps {
        let (base, mut n) = (step.id.clone(), 2);
        while !seen.insert(step.id.clone()) {
            step.id = format!("{base} ({n})");
            n += 1;
        }
    }
}

/// What controllers would have made.
fn prelude() -> Vec<Step> {
    let post = |path: &str, body: Value| Step::new(format!("prelude {path}"), &format!("POST {path}")).body(body).quiet();
    let mut steps = vec![post("/api/v1/namespaces", json!({"metadata": {"name": "d", "labels": {"team": "a"}}}))];
    for ns in ["d", "default", "kube-system"] {
        steps.push(post(&format!("/api/v1/namespaces/{ns}/serviceaccounts"), json!({"metadata": {"name": "default"}})));
    }
    steps
}

fn sample(object: Value) -> Sample {
    let text = |v: &Value| v.as_str().unwrap_or("").to_owned();
    let (version, kind, name) = (text(&object["apiVersion"]), text(&object["kind"]), text(&object["metadata"]["name"]));
    let resource = plural(&kind);
    let root = if version.contains('/') { format!("/apis/{version}") } else { format!("/api/{version}") };
    let collection = match object["metadata"]["namespace"].as_str() {
        Some(ns) => format!("{root}/namespaces/{ns}/{resource}"),
        None => format!("{root}/{resource}"),
    };
    Sample { title: format!("{version}/{resource} {name}"), object, collection, name }
}

fn plural(kind: &str) -> String {
    let kind = kind.to_lowercase();
    match kind.strip_suffix('y') {
        _ if kind == "endpoints" => kind,
        Some(stem) => format!("{stem}ies"),
        None if kind.ends_with('s') => format!("{kind}es"),
        None => format!("{kind}s"),
    }
}

/// Everything that is asked of one object, from its first dry run to its end.
fn life(s: &Sample) -> Vec<Step> {
    let mut steps = creation(s);
    steps.extend(reading(s));
    steps.extend(changing(s));
    steps.extend(patching(s));
    steps.extend(subresources(s));
    steps.extend(deletion(s));
    steps
}

/// `more` follows the object's path.
fn step(s: &Sample, what: &str, method: &str, more: &str) -> Step {
    Step::new(format!("{what} {}", s.title), &format!("{method} {}/{}{more}", s.collection, s.name))
}

fn on_collection(s: &Sample, what: &str, method: &str, query: &str) -> Step {
    Step::new(format!("{what} {}", s.title), &format!("{method} {}{query}", s.collection))
}

fn creation(s: &Sample) -> Vec<Step> {
    let dry = |what: &str| on_collection(s, what, "POST", "?dryRun=All&fieldValidation=Strict");
    let mut steps = vec![dry("dry-create").body(s.object.clone())];
    for m in wrong(&s.object) {
        steps.push(dry(&format!("create {}:", m.name)).body(m.apply(&s.object)));
    }
    steps.push(on_collection(s, "create", "POST", "?fieldManager=maker").body(s.object.clone()).save("o"));
    steps.push(on_collection(s, "create again", "POST", "").body(s.object.clone()));
    steps
}

fn reading(s: &Sample) -> Vec<Step> {
    let by_name = format!("?fieldSelector=metadata.name%3D{}", s.name);
    vec![
        step(s, "get", "GET", ""),
        step(s, "get as Table", "GET", "").header("accept", TABLE),
        step(s, "get as PartialObjectMetadata", "GET", "").header("accept", PARTIAL),
        on_collection(s, "list", "GET", &by_name),
        on_collection(s, "list as Table", "GET", &by_name).header("accept", TABLE),
        on_collection(s, "list as PartialObjectMetadataList", "GET", &by_name).header("accept", PARTIAL_LIST),
        on_collection(s, "list by label", "GET", "?labelSelector=suite%3Dnone"),
        on_collection(s, "list by wrong field", "GET", "?fieldSelector=spec.none%3Dx"),
        step(s, "get missing", "GET", "-missing"),
    ]
}

fn changing(s: &Sample) -> Vec<Step> {
    let patch = |what: &str| step(s, what, "PATCH", "?dryRun=All&fieldManager=changer").content("json");
    let mut steps: Vec<Step> = changes(&s.object).iter().map(|m| patch(&format!("update {}:", m.name)).body(m.json_patch())).collect();
    let mut same = s.object.clone();
    same["metadata"]["resourceVersion"] = json!("${o.rv}");
    steps.push(step(s, "put", "PUT", "?dryRun=All").body(same.clone()));
    same["metadata"]["resourceVersion"] = json!("1");
    steps.push(step(s, "put stale", "PUT", "").body(same.clone()));
    same["metadata"]["resourceVersion"] = Value::Null;
    steps.push(step(s, "put without revision", "PUT", "?dryRun=All").body(same.clone()));
    same["metadata"]["name"] = json!("another");
    steps.push(step(s, "put under another name", "PUT", "").body(same.clone()));
    steps.push(step(s, "put missing", "PUT", "-missing?dryRun=All").body(s.object.clone()));
    same["metadata"]["uid"] = json!("00000000-0000-0000-0000-000000000001");
    same["metadata"]["name"] = json!(s.name);
    steps.push(step(s, "put with another uid", "PUT", "").body(same));
    steps
}

fn patching(s: &Sample) -> Vec<Step> {
    let labels = |value: &str| json!({"metadata": {"labels": {"suite": value}}});
    let applied = |label: &str| {
        let mut meta = json!({"name": s.name, "labels": {"suite": label}});
        if let Some(ns) = s.object["metadata"].get("namespace") {
            meta["namespace"] = ns.clone();
        }
        json!({"apiVersion": s.object["apiVersion"], "kind": s.object["kind"], "metadata": meta})
    };
    vec![
        step(s, "merge patch", "PATCH", "?fieldManager=m").content("merge").body(labels("a")),
        step(s, "merge patch again", "PATCH", "?fieldManager=m").content("merge").body(labels("a")),
        step(s, "strategic patch", "PATCH", "?fieldManager=m").content("strategic").body(labels("b")),
        step(s, "json patch that fails", "PATCH", "")
            .content("json")
            .body(json!([{"op": "test", "path": "/metadata/name", "value": "no"}])),
        step(s, "apply conflict", "PATCH", "?fieldManager=applier").content("apply").body(applied("c")),
        step(s, "apply forced", "PATCH", "?fieldManager=applier&force=true").content("apply").body(applied("c")),
        step(s, "apply without manager", "PATCH", "").content("apply").body(applied("c")),
        step(s, "whole object applied", "PATCH", "?fieldManager=whole&force=true&dryRun=All").content("apply").body(s.object.clone()),
        step(s, "get after patches", "GET", ""),
        on_collection(s, "list by new label", "GET", "?labelSelector=suite%3Dc&limit=5"),
    ]
}

fn subresources(s: &Sample) -> Vec<Step> {
    let status = json!({"metadata": {"annotations": {"suite": "status"}}, "spec": {"unknown": 1}, "status": {}});
    vec![
        step(s, "get status", "GET", "/status"),
        step(s, "patch status", "PATCH", "/status?fieldManager=s").content("merge").body(status),
        step(s, "get scale", "GET", "/scale"),
        step(s, "patch scale", "PATCH", "/scale?fieldManager=s").content("merge").body(json!({"spec": {"replicas": 4}})),
        step(s, "patch scale wrongly", "PATCH", "/scale?fieldManager=s").content("merge").body(json!({"spec": {"replicas": -4}})),
        step(s, "get no subresource", "GET", "/nothing"),
    ]
}

fn deletion(s: &Sample) -> Vec<Step> {
    let options = |more: Value| {
        let mut options = json!({"apiVersion": "v1", "kind": "DeleteOptions"});
        more.as_object().into_iter().flatten().for_each(|(k, v)| options[k] = v.clone());
        options
    };
    vec![
        step(s, "delete another uid", "DELETE", "")
            .body(options(json!({"preconditions": {"uid": "00000000-0000-0000-0000-000000000001"}}))),
        step(s, "delete stale", "DELETE", "").body(options(json!({"preconditions": {"resourceVersion": "1"}}))),
        step(s, "delete wrongly", "DELETE", "").body(options(json!({"propagationPolicy": "Sideways"}))),
        step(s, "dry-delete", "DELETE", "?dryRun=All&propagationPolicy=Foreground"),
        on_collection(s, "dry-delete collection", "DELETE", "?dryRun=All&labelSelector=suite%3Dc"),
        step(s, "delete", "DELETE", "").body(options(json!({"gracePeriodSeconds": 0, "propagationPolicy": "Background"}))),
        step(s, "get deleted", "GET", ""),
        step(s, "delete deleted", "DELETE", ""),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_suite_is_large_and_well_formed() {
        let steps = all().expect("the suite reads");
        let compared = steps.iter().filter(|s| !s.quiet).count();
        assert!(compared >= 1000, "{compared} requests");
        let ids: BTreeSet<&str> = steps.iter().map(|s| s.id.as_str()).collect();
        assert_eq!(ids.len(), steps.len());
        assert!(steps.iter().all(|s| s.path.starts_with('/')), "{:?}", steps.iter().find(|s| !s.path.starts_with('/')));
    }

    #[test]
    fn plurals_are_as_in_the_api() {
        for (kind, resource) in [
            ("Pod", "pods"),
            ("Ingress", "ingresses"),
            ("NetworkPolicy", "networkpolicies"),
            ("Endpoints", "endpoints"),
            ("APIService", "apiservices"),
        ] {
            assert_eq!(plural(kind), resource);
        }
    }
}
