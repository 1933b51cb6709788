//! `batch`.

use crate::resources::Entry;
use crate::strategy::Strategy;

static CRON_JOB: Strategy = Strategy::new(true).spec_generation().status("{}").create_on_update().unconditional_update(false);
static JOB: Strategy = Strategy::new(true).spec_generation().status("{}").create_on_update().unconditional_update(false);

pub(crate) const RESOURCES: &[Entry] = &[Entry::new("cronjobs", &CRON_JOB), Entry::new("jobs", &JOB)];
