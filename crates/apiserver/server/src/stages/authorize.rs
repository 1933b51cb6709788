//! Stage 6: may they?

use crate::authorize::Attributes;
use crate::chain::{Call, Door};
use crate::errors::{DoorError, forbidden};

pub(crate) const NAME: &str = "authorization";

pub(crate) async fn run(door: &Door, call: &mut Call) -> Result<(), DoorError> {
    // These stand open to whoever got past authentication, so that a probe needs no role.
    if !call.info.is_resource && matches!(call.info.path.as_str(), "/healthz" | "/livez" | "/readyz") {
        return Ok(());
    }
    let question = Attributes::of(&call.info);
    let decision = door.authorization.judge(&call.user, &question).await;
    if let Some(draft) = &mut call.audit {
        let verdict = if decision.is_allowed() { "allow" } else { "forbid" };
        draft.annotations.push(("authorization.k8s.io/decision", verdict.to_owned()));
        draft.annotations.push(("authorization.k8s.io/reason", decision.reason().to_owned()));
    }
    if decision.is_allowed() { Ok(()) } else { Err(forbidden(&call.user, &question, decision.reason()).into()) }
}
