//! Stage 3: whoever keeps an audit log hears of the request here, and of its answer at the end. No sink writes one yet.

use crate::chain::{Call, Door};

pub(crate) const NAME: &str = "audit";

pub trait Sink: Send + Sync + 'static {
    fn received(&self, call: &Call);
    fn answered(&self, call: &Call, code: u16);
}

/// Keeps nothing, as upstream does without `--audit-policy-file`.
pub(crate) struct NoAudit;

impl Sink for NoAudit {
    fn received(&self, _call: &Call) {}
    fn answered(&self, _call: &Call, _code: u16) {}
}

pub(crate) fn received(door: &Door, call: &Call) {
    door.audit.received(call);
}

pub(crate) fn answered(door: &Door, call: &Call, code: u16) {
    door.audit.answered(call, code);
}
