use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tiphys_client::{Action, DeleteOptions, Note, Plan, reference_to};
use tiphys_types::api::batch::v1::{CronJob, CronJobStatus, Job};
use tiphys_types::api::core::v1::ObjectReference;
use tiphys_types::metav1::{ObjectMeta, Time};
use tiphys_types::owners::{controller_reference, is_controlled_by};

use super::schedule::{Schedule, zone};
use crate::shared::pod::about;

pub(super) const SCHEDULED_AT: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
/// Clocks differ a little: waking up too early would be for nothing.
const PADDING: Duration = Duration::from_millis(100);
/// Missing more starts than this is told: a clock may be wrong.
const MANY: i64 = 100;

pub(super) struct Observed {
    pub(super) cron: Arc<CronJob>,
    /// Jobs whose controller has this name.
    pub(super) jobs: Vec<Arc<Job>>,
}

struct View<'a> {
    cron: &'a CronJob,
    me: ObjectReference,
    status: CronJobStatus,
    active: Vec<ObjectReference>,
    now: Timestamp,
}

pub(super) fn plan(observed: &Observed, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let cron = &*observed.cron;
    let status = cron.status.clone().unwrap_or_default();
    let active = status.active.clone().unwrap_or_default();
    let mut view = View { cron, me: about(cron), status, active, now };
    view.clean_up(&observed.jobs, &mut plan);
    view.take_stock(&observed.jobs, &mut plan);
    if cron.metadata.deletion_timestamp.is_none() {
        view.start_what_is_due(&observed.jobs, &mut plan);
    }
    let status = CronJobStatus { active: Some(view.active).filter(|a| !a.is_empty()), ..view.status };
    // An absent status and an empty one are the same.
    let old = CronJob { status: Some(cron.status.clone().unwrap_or_default()), ..cron.clone() };
    plan.update_status_if_changed(&old, &CronJob { status: Some(status), ..cron.clone() });
    plan
}

/// The type of the condition that says so.
fn finished(job: &Job) -> Option<&'static str> {
    let has = |kind: &str| job.status.iter().flat_map(|s| s.conditions.iter().flatten()).any(|c| c.type_ == kind && c.status == "True");
    ["Complete", "Failed"].into_iter().find(|kind| has(kind))
}

/// One minute, one name: a job cannot be made twice for the same time.
pub(super) fn job_name(cron: &CronJob, at: Timestamp) -> String {
    format!("{}-{}", cron.metadata.name.as_deref().unwrap_or(""), at.as_second().div_euclid(60))
}

fn uid(job: &Job) -> Option<&str> {
    job.metadata.uid.as_deref()
}

fn name(job: &Job) -> &str {
    job.metadata.name.as_deref().unwrap_or("")
}

impl View<'_> {
    fn delete(&mut self, job: &Job, plan: &mut Plan) {
        let done = Note::normal(&self.me, "SuccessfulDelete", format!("Deleted job {}", name(job)));
        let failed = Note::warning(&self.me, "FailedDelete", "Deleted job: {error}");
        plan.act(Action::delete_with(job, DeleteOptions::background()).say_when_done(done).say_when_failed(failed));
        self.forget(uid(job));
    }

    fn forget(&mut self, uid: Option<&str>) {
        self.active.retain(|a| a.uid.as_deref() != uid);
    }

    fn is_active(&self, job: &Job) -> bool {
        self.active.iter().any(|a| a.uid == job.metadata.uid)
    }

    /// The oldest finished jobs beyond the limits go.
    fn clean_up(&mut self, jobs: &[Arc<Job>], plan: &mut Plan) {
        let limits = [("Complete", self.cron.spec.successful_jobs_history_limit), ("Failed", self.cron.spec.failed_jobs_history_limit)];
        for (kind, limit) in limits {
            let Some(limit) = limit else { continue };
            let mut mine: Vec<&Arc<Job>> =
                jobs.iter().filter(|j| finished(j) == Some(kind) && j.metadata.deletion_timestamp.is_none()).collect();
            let started = |j: &Job| j.status.as_ref().and_then(|s| s.start_time.as_ref()).map(|t| t.0);
            mine.sort_by_key(|j| (started(j).is_none(), started(j), name(j).to_owned()));
            let surplus = mine.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
            mine.into_iter().take(surplus).for_each(|j| self.delete(j, plan));
        }
    }

    /// Which jobs run, which have ended, which are gone.
    fn take_stock(&mut self, jobs: &[Arc<Job>], plan: &mut Plan) {
        for job in jobs.iter().filter(|j| is_controlled_by(&j.metadata, &self.cron.metadata)) {
            match finished(job) {
                None if !self.is_active(job) && job.metadata.deletion_timestamp.is_none() => self.take_in(job, plan),
                None => {}
                Some(kind) => {
                    if self.is_active(job) {
                        self.forget(uid(job));
                        plan.note(Note::normal(
                            &self.me,
                            "SawCompletedJob",
                            format!("Saw completed job: {}, condition: {kind}", name(job)),
                        ));
                    }
                    if kind == "Complete" {
                        self.note_success(job);
                    }
                }
            }
        }
        let gone: Vec<ObjectReference> = self.active.iter().filter(|a| !jobs.iter().any(|j| j.metadata.uid == a.uid)).cloned().collect();
        for reference in gone {
            let text = format!("Active job went missing: {}", reference.name.as_deref().unwrap_or(""));
            plan.note(Note::normal(&self.me, "MissingJob", text));
            self.forget(reference.uid.as_deref());
        }
    }

    /// The job that was made last, now that its uid is known; or one that nobody here remembers.
    fn take_in(&mut self, job: &Job, plan: &mut Plan) {
        let last = self.status.last_schedule_time.as_ref().map(|t| job_name(self.cron, t.0));
        if last.as_deref() != Some(name(job)) {
            let text = format!("Saw a job that the controller did not create or forgot: {}", name(job));
            plan.note(Note::warning(&self.me, "UnexpectedJob", text));
        }
        self.active.push(reference_to(job));
    }

    fn note_success(&mut self, job: &Job) {
        let Some(ended) = job.status.as_ref().and_then(|s| s.completion_time.clone()) else { return };
        if self.status.last_successful_time.as_ref().is_none_or(|last| last.0 < ended.0) {
            self.status.last_successful_time = Some(ended);
        }
    }

    fn start_what_is_due(&mut self, jobs: &[Arc<Job>], plan: &mut Plan) {
        let spec = &self.cron.spec;
        let time_zone = spec.time_zone.as_deref().unwrap_or("");
        if let Err(error) = zone(time_zone) {
            plan.note(Note::warning(&self.me, "UnknownTimeZone", format!("invalid timeZone: {time_zone:?}: {error}")));
            return;
        }
        if spec.suspend == Some(true) {
            return;
        }
        if spec.schedule.contains("TZ") {
            let text = format!(
                "CRON_TZ or TZ used in schedule {:?} is not officially supported, see https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details",
                spec.schedule
            );
            plan.note(Note::warning(&self.me, "UnsupportedSchedule", text));
        }
        let schedule = match Schedule::parse(&spec.schedule, time_zone) {
            Ok(schedule) => schedule,
            Err(error) => {
                let text = format!("unparseable schedule: {:?} : {error}", spec.schedule);
                plan.note(Note::warning(&self.me, "UnparseableSchedule", text));
                return;
            }
        };
        let recent = most_recent(self.cron, &schedule, self.now, true);
        if let Err(error) = &recent {
            plan.note(Note::warning(&self.me, "InvalidSchedule", format!("invalid schedule: {} : {error}", spec.schedule)));
            return;
        }
        if let Ok(Recent { at: Some(at), missed, .. }) = recent {
            if missed > MANY {
                let text = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
                plan.note(Note::warning(&self.me, "TooManyMissedTimes", text));
            }
            self.start(at, jobs, plan);
        }
        if let Some(next) = wake_up(self.cron, &self.status, &schedule, self.now) {
            plan.again_after(next);
        }
    }

    fn start(&mut self, at: Timestamp, jobs: &[Arc<Job>], plan: &mut Plan) {
        let spec = &self.cron.spec;
        if spec.starting_deadline_seconds.is_some_and(|d| at + SignedDuration::from_secs(d) < self.now) {
            let shown = at.strftime("%a, %d %b %Y %H:%M:%S +0000");
            plan.note(Note::warning(&self.me, "MissSchedule", format!("Missed scheduled time to start a job: {shown}")));
            return;
        }
        let new_name = job_name(self.cron, at);
        let known = self.active.iter().any(|a| a.name.as_ref() == Some(&new_name));
        if known || self.status.last_schedule_time.as_ref().is_some_and(|t| t.0 == at) {
            return;
        }
        match spec.concurrency_policy.as_deref() {
            Some("Forbid") if !self.active.is_empty() => {
                let text = "Not starting job because prior execution is running and concurrency policy is Forbid";
                plan.note(Note::normal(&self.me, "JobAlreadyActive", text));
                return;
            }
            Some("Replace") => {
                let running: Vec<&Arc<Job>> = jobs.iter().filter(|j| self.is_active(j)).collect();
                running.into_iter().for_each(|j| self.delete(j, plan));
            }
            _ => {}
        }
        match jobs.iter().find(|j| name(j) == new_name) {
            // Made before, and then the status could not be written. A stranger's job of that name is left to him.
            Some(job) if !is_controlled_by(&job.metadata, &self.cron.metadata) => return,
            Some(_) => {}
            None => {
                let done = Note::normal(&self.me, "SuccessfulCreate", "Created job {name}");
                let failed = Note::warning(&self.me, "FailedCreate", "Error creating job: {error}");
                plan.act(Action::create(&job_of(self.cron, at)).or_settled().say_when_done(done).say_when_failed(failed));
            }
        }
        self.status.last_schedule_time = Some(Time(at));
    }
}

fn job_of(cron: &CronJob, at: Timestamp) -> Job {
    let template = cron.spec.job_template.clone();
    let from = template.metadata.unwrap_or_default();
    let mut annotations = from.annotations.unwrap_or_default();
    annotations.insert(SCHEDULED_AT.into(), shown_in(at, cron.spec.time_zone.as_deref().unwrap_or("")));
    let metadata = ObjectMeta {
        name: Some(job_name(cron, at)),
        namespace: cron.metadata.namespace.clone(),
        labels: from.labels,
        annotations: Some(annotations),
        owner_references: Some(vec![controller_reference::<CronJob>(&cron.metadata)]),
        ..Default::default()
    };
    Job { metadata, spec: template.spec, status: None }
}

fn shown_in(at: Timestamp, time_zone: &str) -> String {
    let local = at.to_zoned(zone(time_zone).unwrap_or(jiff::tz::TimeZone::UTC));
    let offset = if local.offset().is_zero() { "Z".to_owned() } else { local.strftime("%:z").to_string() };
    format!("{}{offset}", local.strftime("%Y-%m-%dT%H:%M:%S"))
}

struct Recent {
    /// From when on starts are looked for.
    since: Timestamp,
    /// The last start that should have been by now.
    at: Option<Timestamp>,
    /// How many starts were missed, roughly; zero where at most one is due.
    missed: i64,
}

fn most_recent(cron: &CronJob, schedule: &Schedule, now: Timestamp, with_deadline: bool) -> Result<Recent, &'static str> {
    let last = cron.status.as_ref().and_then(|s| s.last_schedule_time.as_ref());
    let mut since = last.or(cron.metadata.creation_timestamp.as_ref()).map_or(now, |t| t.0);
    if let Some(deadline) = cron.spec.starting_deadline_seconds.filter(|_| with_deadline) {
        since = since.max(now - SignedDuration::from_secs(deadline));
    }
    let never = "time difference between two schedules is less than 1 second";
    let first = schedule.next(since).ok_or(never)?;
    if now < first {
        return Ok(Recent { since, at: None, missed: 0 });
    }
    let second = schedule.next(first).ok_or(never)?;
    if now < second {
        return Ok(Recent { since, at: Some(first), missed: 0 });
    }
    let period = (second.as_second() - first.as_second()).max(1);
    let missed = now.duration_since(first).as_secs() / period + 1;
    // Jump near to now by whole periods (which keeps `@every` in step), two short of it for schedules that are uneven, and walk the rest.
    let near = first + SignedDuration::from_secs((missed - 2) * period);
    let mut at = None;
    let mut next = schedule.next(near);
    while let Some(time) = next.filter(|t| *t <= now) {
        at = Some(time);
        next = schedule.next(time);
    }
    Ok(Recent { since, at, missed })
}

/// How long until the next start.
fn wake_up(cron: &CronJob, status: &CronJobStatus, schedule: &Schedule, now: Timestamp) -> Option<Duration> {
    let cron = CronJob { status: Some(status.clone()), ..cron.clone() };
    let from = match most_recent(&cron, schedule, now, false) {
        Ok(Recent { at: Some(at), .. }) => at,
        Ok(Recent { since, missed: 0, .. }) => since,
        _ => now,
    };
    until_next(schedule, from, now)
}

/// Never in the past: what is due is looked at now.
pub(super) fn until_next(schedule: &Schedule, from: Timestamp, now: Timestamp) -> Option<Duration> {
    let next = schedule.next(from)?;
    let left = next.duration_since(now);
    Some(if left.is_negative() { PADDING } else { left.unsigned_abs() + PADDING })
}
