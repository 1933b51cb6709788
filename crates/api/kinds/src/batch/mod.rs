//! `batch`: work that ends.

mod cron_job;
mod job;
mod schedule;

use crate::resources::Entry;

pub(crate) const RESOURCES: &[Entry] = &[Entry::new("cronjobs", &cron_job::STRATEGY), Entry::new("jobs", &job::STRATEGY)];
