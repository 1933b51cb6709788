//! Stage 5: a seat of the request's priority level, at once or after a fair wait. Streams take none, nor does what is exempt.

use crate::chain::{Call, Door};
use crate::errors::DoorError;
use crate::flow::Permit;

pub(crate) const NAME: &str = "flow control";

pub(crate) async fn run(door: &Door, call: &mut Call) -> Result<Option<Permit>, DoorError> {
    let objects = |info: &crate::request_info::Info| {
        let gvr = tiphys_meta::Gvr::new(info.group.clone(), info.version.clone(), info.resource.clone());
        door.registry.cached(&gvr).map_or(0, |cached| cached.len())
    };
    door.flow.enter(call, objects).await
}
