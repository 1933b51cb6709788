//! `events.k8s.io`: the same objects as `v1` Events under newer field names, checked more strictly.

use crate::core::event;
use crate::resources::Entry;
use crate::strategy::Strategy;

static EVENT: Strategy = Strategy::new(true)
    .create_on_update()
    .check_created(event::check_strict_new)
    .checks(event::check_strict, event::check_strict_update)
    .selectable(event::NAMES, event::selectable)
    .table(event::COLUMNS, event::cells);

pub(crate) const RESOURCES: &[Entry] = &[Entry::new("events", &EVENT)];
