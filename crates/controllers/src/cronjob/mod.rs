//! CronJobs start Jobs at the times of a schedule.
//!
//! Watches CronJobs and Jobs; owns the jobs; writes jobs and its own status. A job's name comes from its time, so that none is made twice. A plan
//! makes the job and remembers its time; the next one, which sees the job, lists it as active.

mod plan;
mod schedule;

use std::sync::Arc;

use jiff::Timestamp;
use tiphys_client::{Delta, Informer, ObjectKey, Plan, Planner, WorkQueue, controller_of};
use tiphys_types::api::batch::v1::{CronJob, Job};

use crate::Context;
use crate::shared::watch;
use plan::Observed;
use schedule::Schedule;

pub(crate) fn start(context: &Context) {
    let (crons, jobs) = (context.informers.of::<CronJob>(), context.informers.of::<Job>());
    let queue = WorkQueue::new();
    let (again, clock) = (queue.clone(), Arc::clone(&context.config.clock));
    crons.on_change(move |delta| {
        let key = ObjectKey::of(&**delta.object());
        match delta {
            // A new schedule is not for times that are past.
            Delta::Updated { old, new } if is_rescheduled(old, new) => {
                let now = clock.now();
                match parsed(new).ok().and_then(|s| plan::until_next(&s, now, now)) {
                    Some(delay) => again.add_after(key, delay),
                    None => again.add(key),
                }
            }
            _ => again.add(key),
        }
        true
    });
    watch::owned(&jobs, "CronJob", &queue);
    let executor = context.executor("cronjob-controller").reading(crons.clone()).reading(jobs.clone());
    context.run("cronjob-controller", 5, queue, Crons { crons, jobs }, executor);
}

fn is_rescheduled(old: &CronJob, new: &CronJob) -> bool {
    old.spec.schedule != new.spec.schedule || old.spec.time_zone != new.spec.time_zone
}

fn parsed(cron: &CronJob) -> Result<Schedule, String> {
    Schedule::parse(&cron.spec.schedule, cron.spec.time_zone.as_deref().unwrap_or(""))
}

struct Crons {
    crons: Informer<CronJob>,
    jobs: Informer<Job>,
}

impl Planner for Crons {
    type Key = ObjectKey;

    fn plan(&self, key: &ObjectKey, now: Timestamp) -> Plan {
        let Some(cron) = self.crons.by_key(key) else { return Plan::default() };
        let mine = |job: &Arc<Job>| controller_of(&job.metadata).is_some_and(|o| o.kind == "CronJob" && *o.name == *key.name);
        let jobs = self.jobs.list_namespace(&key.namespace).into_iter().filter(mine).collect();
        plan::plan(&Observed { cron, jobs }, now)
    }
}

#[cfg(test)]
mod tests;
