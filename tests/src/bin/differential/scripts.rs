//! Scripts: what the catalogue of objects cannot show, written down request by request in `scripts/*.yaml`.
//!
//! A step is `{do: "POST /api/v1/…", id?, body?, type?, accept?, headers?, save?, events?, quiet?}`; `as: USER` impersonates.

use anyhow::{Context, Result};
use serde_json::Value;

use crate::step::Step;
use crate::suite::yaml;

const SCRIPTS: &[(&str, &str)] = &[
    ("verbs", include_str!("scripts/verbs.yaml")),
    ("lists", include_str!("scripts/lists.yaml")),
    ("watches", include_str!("scripts/watches.yaml")),
    ("apply", include_str!("scripts/apply.yaml")),
    ("admission", include_str!("scripts/admission.yaml")),
    ("kinds", include_str!("scripts/kinds.yaml")),
    ("options", include_str!("scripts/options.yaml")),
    ("revisions", include_str!("scripts/revisions.yaml")),
    ("yaml", include_str!("scripts/yaml.yaml")),
    ("devices", include_str!("scripts/devices.yaml")),
];

pub(crate) fn all() -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    for (name, text) in SCRIPTS {
        let script: Vec<Value> = yaml(text).with_context(|| format!("scripts/{name}.yaml"))?;
        for (i, step) in script.iter().enumerate() {
            steps.push(read(name, i, step).with_context(|| format!("scripts/{name}.yaml, step {i}: {step}"))?);
        }
    }
    Ok(steps)
}

fn read(script: &str, i: usize, from: &Value) -> Result<Step> {
    let call = from["do"].as_str().context("no do")?;
    let id = from["id"].as_str().map_or_else(|| format!("{script} {i:03} {call}"), |id| format!("{script} {id}"));
    let mut step = Step::new(id, call).body(from["body"].clone());
    if let Some(kind) = from["type"].as_str() {
        step = step.content(kind);
    }
    for (key, header) in [("accept", "accept"), ("as", "impersonate-user")] {
        if let Some(value) = from[key].as_str() {
            step = step.header(header, value);
        }
    }
    for (name, value) in from["headers"].as_object().into_iter().flatten() {
        step = step.header(name, value.as_str().context("headers are text")?);
    }
    step.save = from["save"].as_str().map(str::to_owned);
    step.events = from["events"].as_u64().and_then(|n| n.try_into().ok()).unwrap_or(0);
    step.quiet = from["quiet"] == true;
    Ok(step)
}
