//! `events.k8s.io`: the same objects as `v1` Events under newer field names, checked more strictly.

use crate::core::event;
use crate::resources::Entry;
use crate::strategy::Strategy;

static EVENT: Strategy = Strategy::new(true)
    .create_on_update()
    .checks(event::check_strict, event::immutable)
    .selectable(event::NAMES, event::selectable)
    .table(event::COLUMNS, event::cells);

pub(crate) const RESOURCES: &[Entry] = &[Entry::new("events", &EVENT)];
