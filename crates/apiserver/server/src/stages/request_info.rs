//! Stage 1: what is asked for, off method, path and query.

use crate::chain::Call;
use crate::errors::DoorError;
use crate::request_info::Info;

pub(crate) const NAME: &str = "request info";

pub(crate) fn run(call: &mut Call) -> Result<(), DoorError> {
    let parts = &call.parts;
    call.info = Info::parse(&parts.method, parts.uri.path(), parts.uri.query().unwrap_or(""))?;
    if !call.info.is_long_running() {
        call.timeout = call.info.timeout()?;
    }
    Ok(())
}
