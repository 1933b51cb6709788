//! Finished Jobs that say how long they want to be kept (`ttlSecondsAfterFinished`) go after that time.
//!
//! Watches Jobs; deletes them with everything they own. The delete holds for the version that was seen only, so that a later change of mind counts.

use jiff::{SignedDuration, Timestamp};
use tiphys_client::{Action, DeleteOptions, Informer, ObjectKey, Plan, Planner, Propagation, WorkQueue};
use tiphys_types::api::batch::v1::Job;

use crate::Context;

pub(crate) fn start(context: &Context) {
    let jobs = context.informers.of::<Job>();
    let queue = WorkQueue::new();
    let again = queue.clone();
    jobs.on_change(move |delta| {
        if expiry(delta.object()).is_some() {
            again.add(ObjectKey::of(&**delta.object()));
        }
        true
    });
    let executor = context.executor("ttl-after-finished-controller").reading(jobs.clone());
    context.run("ttl-after-finished-controller", 5, queue, Finished { jobs }, executor);
}

struct Finished {
    jobs: Informer<Job>,
}

/// When the job may go; none while it runs, or if it may stay.
fn expiry(job: &Job) -> Option<Timestamp> {
    let ttl = job.spec.as_ref()?.ttl_seconds_after_finished?;
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    let end = conditions.iter().find(|c| matches!(c.type_.as_str(), "Complete" | "Failed") && c.status == "True")?;
    let ended = end.last_transition_time.as_ref()?.0;
    ended.checked_add(SignedDuration::from_secs(i64::from(ttl))).ok().filter(|_| job.metadata.deletion_timestamp.is_none())
}

impl Planner for Finished {
    type Key = ObjectKey;

    fn plan(&self, key: &ObjectKey, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(job) = self.jobs.by_key(key) else { return plan };
        let Some(expiry) = expiry(&job) else { return plan };
        let left = expiry.duration_since(now);
        if left.is_positive() {
            plan.again_after(left.unsigned_abs());
            return plan;
        }
        let mut options = DeleteOptions { propagation_policy: Some(Propagation::Foreground), ..DeleteOptions::default() };
        options.preconditions.resource_version.clone_from(&job.metadata.resource_version);
        plan.act(Action::delete_with(&*job, options));
        plan
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use tiphys_base::clock::FakeClock;
    use tiphys_client::gvr_of;

    use super::*;
    use crate::Config;
    use crate::shared::test::Rig;

    fn job(name: &str, ttl: Value, condition: &str) -> Value {
        json!({"metadata": {"namespace": "ns", "name": name}, "spec": {"ttlSecondsAfterFinished": ttl, "template": {}},
            "status": {"conditions": [{"type": condition, "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}})
    }

    #[tokio::test(start_paused = true)]
    async fn only_finished_jobs_whose_time_is_up_go() {
        let clock = FakeClock::at("2026-01-01T00:00:30Z".parse().unwrap_or(Timestamp::UNIX_EPOCH));
        let rig = Rig::with(Config { clock: clock.clone(), ..Config::default() }, &[start]);
        for (name, ttl, condition) in [
            ("now", json!(10), "Complete"),
            ("soon", json!(40), "Failed"),
            ("never", Value::Null, "Complete"),
            ("runs", json!(1), "Suspended"),
        ] {
            rig.api.insert(&gvr_of::<Job>(), job(name, ttl, condition));
        }
        rig.settles().await;
        let names = |rig: &Rig| rig.api.list(&gvr_of::<Job>()).iter().map(|j| j["metadata"]["name"].clone()).collect::<Vec<_>>();
        assert_eq!(names(&rig), ["never", "runs", "soon"]);
        clock.advance(std::time::Duration::from_secs(10));
        tokio::time::sleep(std::time::Duration::from_secs(10)).await;
        rig.settles().await;
        assert_eq!(names(&rig), ["never", "runs"]);
    }
}
