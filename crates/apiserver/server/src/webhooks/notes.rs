//! What the audit log hears of mutating webhooks, in upstream's shape.

use serde::Serialize;
use serde_json::value::RawValue;

use super::hook::Hook;

#[derive(Serialize)]
struct Mutation<'a> {
    configuration: &'a str,
    webhook: &'a str,
    mutated: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Patch<'a> {
    configuration: &'a str,
    webhook: &'a str,
    patch: Option<&'a RawValue>,
    patch_type: &'static str,
}

pub(super) fn mutation(hook: &Hook, mutated: bool) -> String {
    said(&Mutation { configuration: &hook.configuration, webhook: &hook.name, mutated })
}

pub(super) fn patch(hook: &Hook, patch: &[u8]) -> String {
    let patch = serde_json::from_slice(patch).ok();
    said(&Patch { configuration: &hook.configuration, webhook: &hook.name, patch, patch_type: "JSONPatch" })
}

fn said(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}
