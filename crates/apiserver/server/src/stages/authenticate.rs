//! Stage 2: who asks.

use crate::chain::{Call, Door, Origin};
use crate::errors::DoorError;

pub(crate) const NAME: &str = "authentication";

pub(crate) fn run(door: &Door, call: &mut Call) -> Result<(), DoorError> {
    call.user = match &call.origin {
        Origin::InProcess(user) => user.clone(),
        Origin::Socket(peer) => {
            let peer = peer.clone();
            door.authentication.identify(&peer, &mut call.parts.headers, &call.info.path)?
        }
    };
    Ok(())
}
