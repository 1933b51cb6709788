//! `pods/binding`: the scheduler's decision.

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::{Map, Value, json};
use tiphys_kinds::Subresource;
use tiphys_meta::{ApiError, ErrorList, Gvr, Path, object, time};
use tiphys_schema::{Facts, codec};

use super::success;
use crate::answer::Answer;
use crate::negotiate::{Format, body_format};
use crate::options::WriteOptions;
use crate::request::{RequestInfo, Verb};
use crate::verbs::Call;
use crate::verbs::update::{Change, How};

/// A binding is checked by itself; of the pod's rules only the immutability of its identity matters.
static BIND: Subresource = Subresource { name: "binding", prepare_update: |_, _, _| {}, validate_update: |_, _, _| {} };

struct Bind(Value);

#[async_trait]
impl Change for Bind {
    async fn wanted(&mut self, call: &mut Call<'_>, old: &Value) -> Result<Value, ApiError> {
        let binding = &self.0;
        let name = object::name(old);
        let conflict = |why: String| {
            let gvr = Gvr::new("", "v1", "pods/binding");
            Err(ApiError::conflict(&gvr, name, &why))
        };
        for (field, shown) in [("uid", "UID"), ("resourceVersion", "ResourceVersion")] {
            let (wanted, present) = (&binding["metadata"][field], &old["metadata"][field]);
            if let Some(text) = wanted.as_str().filter(|t| !t.is_empty() && Some(*t) != present.as_str()) {
                let present = present.as_str().unwrap_or("");
                return conflict(format!("Precondition failed: {shown} in precondition: {text}, {shown} in object meta: {present}"));
            }
        }
        if object::deletion_timestamp(old).is_some() {
            return conflict(format!("pod {name} is being deleted, cannot be assigned to a host"));
        }
        if let Some(node) = old["spec"]["nodeName"].as_str().filter(|n| !n.is_empty()) {
            return conflict(format!("pod {name} is already assigned to node \"{node}\""));
        }
        if old["spec"]["schedulingGates"].as_array().is_some_and(|g| !g.is_empty()) {
            return conflict(format!("pod {name} has non-empty .spec.schedulingGates"));
        }
        let now = time::format(call.registry.config.clock.now());
        Ok(bound(old, binding, &now))
    }

    fn is_admitted(&self) -> bool {
        true
    }
}

fn bound(old: &Value, binding: &Value, now: &str) -> Value {
    let mut pod = old.clone();
    for field in ["annotations", "labels"] {
        let Some(more) = binding["metadata"][field].as_object().filter(|m| !m.is_empty()) else { continue };
        let map = object::as_map(object::meta_mut(&mut pod).entry(field).or_insert(Value::Null));
        map.extend(more.iter().map(|(k, v)| (k.clone(), v.clone())));
    }
    let tree = object::as_map(&mut pod);
    object::as_map(tree.entry("spec").or_insert(Value::Null)).insert("nodeName".into(), binding["target"]["name"].clone());
    let status = object::as_map(tree.entry("status").or_insert(Value::Null));
    status.remove("nominatedNodeName");
    set_condition(status, &json!({"type": "PodScheduled", "status": "True"}), now);
    pod
}

/// `UpdatePodCondition`: the transition time moves only with the status.
pub(super) fn set_condition(status: &mut Map<String, Value>, condition: &Value, now: &str) {
    let conditions = status.entry("conditions").or_insert_with(|| json!([]));
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    let Some(list) = conditions.as_array_mut() else { return };
    let mut new = condition.clone();
    new["lastTransitionTime"] = json!(now);
    if new.get("lastProbeTime").is_none() {
        new["lastProbeTime"] = Value::Null;
    }
    match list.iter_mut().find(|c| c["type"] == condition["type"]) {
        Some(present) => {
            if present["status"] == condition["status"] {
                new["lastTransitionTime"] = present["lastTransitionTime"].clone();
            }
            *present = new;
        }
        None => list.push(new),
    }
}

pub(super) async fn create(call: &mut Call<'_>, body: Bytes) -> Result<Answer, ApiError> {
    let options = WriteOptions::parse(call.info, &call.query, "CreateOptions")?;
    let kind = Facts::builtin().kind_of("", "v1", "Binding").ok_or_else(|| ApiError::internal("no kind v1 Binding"))?;
    let mut binding = call.decode(&body, kind, options.validation)?;
    call.check_namespace(&mut binding)?;
    if object::name(&binding) != call.info.name {
        return Err(ApiError::bad_request("name in URL does not match name in Binding object"));
    }
    call.admit_sent(kind, &mut binding, options.dry_run).await?;
    check(&binding)?;
    let how = How { subresource: Some(&BIND), unconditional: true };
    call.change(&mut Bind(binding), how, &options).await?;
    success(call)
}

/// A POST to `bindings`, as schedulers of old made it, as one to the pod that it names.
pub(crate) fn by_the_old_path(info: &RequestInfo, body: &Bytes) -> Option<RequestInfo> {
    let old =
        info.gvr == Gvr::new("", "v1", "bindings") && info.verb == Verb::Create && info.name.is_empty() && info.subresource.is_empty();
    if !old {
        return None;
    }
    let binding = match body_format(&info.content_type).ok()? {
        Format::Json => codec::json::decode_raw(body).ok()?,
        Format::Yaml => codec::yaml::to_tree(body).ok()?,
        Format::Protobuf => codec::proto::decode(body).ok()?.1,
    };
    let (gvr, subresource) = (Gvr::new("", "v1", "pods"), "binding".to_owned());
    Some(RequestInfo { gvr, subresource, name: object::name(&binding).to_owned(), ..info.clone() })
}

fn check(binding: &Value) -> Result<(), ApiError> {
    let mut errors = ErrorList::new();
    let target = Path::new("target");
    let text = |f: &str| binding["target"][f].as_str().unwrap_or("");
    if !matches!(text("kind"), "" | "Node") {
        errors.not_supported(&target.child("kind"), text("kind"), &["Node", "<empty>"]);
    }
    if text("name").is_empty() {
        errors.required(&target.child("name"), "");
    }
    if errors.is_empty() { Ok(()) } else { Err(ApiError::new(tiphys_meta::Reason::Unknown, errors.message())) }
}
