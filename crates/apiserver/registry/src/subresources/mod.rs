//! Subresources. Those that are the object itself in another light (`status`, `resize`, `approval`, …) go through the update loop with the
//! kind's own rules for them; the others are here, one file each.
//!
//! Deliberately absent: what needs a connection (`log`, `exec`, `attach`, `portforward`, `proxy`) and tokens, which are the server's.

pub(crate) mod binding;
mod eviction;

use bytes::Bytes;
use serde_json::json;
use tiphys_meta::{ApiError, Gvk};

use crate::answer::Answer;
use crate::request::Verb;
use crate::verbs::Call;
use crate::verbs::update::How;

pub(crate) async fn handle(call: &mut Call<'_>, body: Bytes) -> Result<Answer, ApiError> {
    match (call.info.subresource.as_str(), call.info.verb) {
        ("scale", _) => call.scale(body).await,
        ("binding", Verb::Create) => binding::create(call, body).await,
        ("eviction", Verb::Create) => eviction::create(call, body).await,
        (name, verb) => {
            let subresource = call.subresource(name).ok_or_else(ApiError::method_not_allowed)?;
            let how = How { subresource: Some(subresource), unconditional: call.resource.strategy.allow_unconditional_update };
            match verb {
                Verb::Get => call.get().await,
                Verb::Update => call.replace(body, how).await,
                Verb::Patch => call.patch_object(body, How { unconditional: true, ..how }).await,
                _ => Err(ApiError::method_not_allowed()),
            }
        }
    }
}

/// `Status` of a success without an object.
fn success(call: &mut Call<'_>) -> Result<Answer, ApiError> {
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    call.answer_tree(201, &Gvk::new("", "v1", "Status"), &status)
}
