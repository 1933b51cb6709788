//! Stage 3: whoever keeps an audit log hears of the request here, and of its answer at the end ([`crate::audit`]).

use crate::chain::{Call, Door};

pub(crate) const NAME: &str = "audit";

pub(crate) fn received(door: &Door, call: &mut Call) {
    door.audit.received(call);
}
