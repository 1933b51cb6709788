//! ComponentStatus: how the parts of the control plane are, asked when somebody wants to know. Deprecated since v1.19, and in every old tutorial.
//!
//! Scheduler and controller manager are asked at the ports of this machine where upstream's listen, unless they are tasks of this process: those are as
//! well as the process that answers. The store is asked by the request itself, which has read from it before it comes here.
//!
//! Deliberately absent: a watch, which upstream does not have either.

use std::sync::Arc;
use std::time::Duration;

use http::Request;
use serde_json::{Value, json};
use tiphys_meta::{ApiError, Gvk, Gvr, object};
use tiphys_registry::{Answer, Computed, Presentation};

use crate::chain::{Call, Door};
use crate::errors::DoorError;
use crate::request_info::Info;
use crate::{body, streams};

const RESOURCE: &str = "componentstatuses";
const DEPRECATED: &str = "v1 ComponentStatus is deprecated in v1.19+";
/// Names and the ports of `/healthz` (cmd/kube-scheduler, cmd/kube-controller-manager).
const COMPONENTS: [(&str, u16); 2] = [("scheduler", 10259), ("controller-manager", 10257)];
const STORE: &str = "etcd-0";
const HERE: &str = "127.0.0.1";
const LIMIT: Duration = Duration::from_secs(5);
const LARGEST: usize = 64 << 10;

pub(crate) fn is_meant(info: &Info) -> bool {
    info.group.is_empty() && info.resource == RESOURCE && info.subresource.is_empty()
}

pub(crate) async fn serve(door: &Arc<Door>, call: &mut Call) -> Result<Answer, DoorError> {
    let info = call.info.clone();
    let computed = match info.verb.as_str() {
        "get" => Computed::One(one(door, &info.name).await?),
        "list" => Computed::Many(selected(door, &info).await?),
        _ => return Err(ApiError::method_not_allowed().into()),
    };
    let gvk = Gvk::new("", "v1", "ComponentStatus");
    let shown = Presentation { gvk: &gvk, columns: columns(), cells: &cells };
    let mut answer = shown.answer(computed, call.header(http::header::ACCEPT), info.query.get("includeObject").unwrap_or(""))?;
    if let Answer::Object(document) = &mut answer {
        document.warnings.push(DEPRECATED.to_owned());
    }
    Ok(answer)
}

async fn one(door: &Door, name: &str) -> Result<Value, ApiError> {
    if name == STORE {
        return Ok(told(STORE, Ok("ok".to_owned())));
    }
    match COMPONENTS.iter().find(|(component, _)| *component == name) {
        Some((component, port)) => Ok(told(component, health(door, *port).await)),
        None => Err(ApiError::not_found(&Gvr::new("", "v1", "componentstatus"), name)),
    }
}

async fn selected(door: &Door, info: &Info) -> Result<Vec<Value>, ApiError> {
    let (labels, fields) = info.selectors()?;
    let mut all = Vec::new();
    for (name, port) in COMPONENTS {
        all.push(told(name, health(door, port).await));
    }
    all.push(told(STORE, Ok("ok".to_owned())));
    all.retain(|one| labels.matches_object(one) && fields.matches(|field| (field == "metadata.name").then(|| object::name(one))));
    Ok(all)
}

/// What a component says of itself, or why it does not.
async fn health(door: &Door, port: u16) -> Result<String, String> {
    if door.components_within {
        return Ok("ok".to_owned());
    }
    let answer = tokio::time::timeout(LIMIT, asked(door, port)).await;
    answer
        .unwrap_or_else(|_| Err("context deadline exceeded".to_owned()))
        .map_err(|why| format!("Get \"https://{HERE}:{port}/healthz\": {why}"))
}

async fn asked(door: &Door, port: u16) -> Result<String, String> {
    let request = Request::get("/healthz").header(http::header::HOST, HERE).body(body::empty()).map_err(|e| e.to_string())?;
    let answer = door.streams.dialer.send_here(port, request).await.map_err(|e| e.to_string())?;
    let healthy = answer.status().is_success();
    let said = body::collect_up_to(streams::boxed(answer.into_body()), LARGEST).await.map_err(|e| e.to_string())?;
    let said = String::from_utf8_lossy(&said).into_owned();
    if healthy { Ok(said) } else { Err(said) }
}

fn told(name: &str, health: Result<String, String>) -> Value {
    let (status, message) = match health {
        Ok(message) => ("True", message),
        Err(message) => ("False", message),
    };
    json!({
        "metadata": {"name": name, "creationTimestamp": null},
        "conditions": [{"type": "Healthy", "status": status, "message": message}],
    })
}

fn columns() -> Value {
    let column = |name: &str, format: &str| json!({"name": name, "type": "string", "format": format, "description": "", "priority": 0});
    json!([column("Name", "name"), column("Status", ""), column("Message", ""), column("Error", "")])
}

fn cells(component: &Value) -> Vec<Value> {
    let condition = &component["conditions"][0];
    let status = if condition["status"] == "True" { "Healthy" } else { "Unhealthy" };
    vec![json!(object::name(component)), json!(status), condition["message"].clone(), json!(condition["error"].as_str().unwrap_or(""))]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows() {
        assert_eq!(cells(&told("scheduler", Ok("ok".into()))), [json!("scheduler"), json!("Healthy"), json!("ok"), json!("")]);
        assert_eq!(cells(&told("x", Err("no".into()))), [json!("x"), json!("Unhealthy"), json!("no"), json!("")]);
    }

    #[test]
    fn requests_that_are_meant() {
        let meant = |path: &str| is_meant(&Info::parse(&http::Method::GET, path, "").expect("a path"));
        assert!(meant("/api/v1/componentstatuses") && meant("/api/v1/componentstatuses/etcd-0"));
        assert!(!meant("/api/v1/nodes") && !meant("/apis/x.y/v1/componentstatuses"));
    }
}
