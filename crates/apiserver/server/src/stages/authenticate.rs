//! Stage 2: who asks.

use std::sync::Arc;

use crate::authenticate::authenticated;
use crate::chain::{Call, Door, Origin};
use crate::errors::DoorError;

pub(crate) const NAME: &str = "authentication";

pub(crate) fn run(door: &Door, call: &mut Call) -> Result<(), DoorError> {
    let user = match &call.origin {
        Origin::InProcess(user) => authenticated(user.as_ref().clone()),
        Origin::Socket(peer) => {
            let peer = peer.clone();
            door.authentication.identify(&peer, &mut call.parts.headers, &call.info.path)?
        }
    };
    call.user = Arc::new(user);
    Ok(())
}
