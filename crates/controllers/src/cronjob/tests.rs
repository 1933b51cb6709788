use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};
use tiphys_base::clock::FakeClock;
use tiphys_client::{Verb, gvr_of};
use tiphys_testing::object;
use tiphys_types::api::batch::v1::{CronJob, Job};

use super::plan::{Observed, plan};
use crate::Config;
use crate::shared::test::Rig;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
}

fn cron(spec: Value, status: Value) -> Value {
    let mut spec = spec;
    spec["jobTemplate"] = json!({"metadata": {"labels": {"l": "1"}}, "spec": {"template": {}}});
    json!({"metadata": {"namespace": "ns", "name": "c", "uid": "cu", "creationTimestamp": "2026-01-01T00:00:10Z"}, "spec": spec, "status": status})
}

fn job(name: &str, condition: &str) -> Value {
    let conditions = if condition.is_empty() { json!([]) } else { json!([{"type": condition, "status": "True"}]) };
    json!({"metadata": {"namespace": "ns", "name": name, "uid": name, "ownerReferences": [
        {"apiVersion": "batch/v1", "kind": "CronJob", "name": "c", "uid": "cu", "controller": true}]},
        "status": {"conditions": conditions, "completionTime": "2026-01-01T00:01:30Z"}})
}

/// The actions, the events' reasons and the status that is written.
fn run(cron: &Value, jobs: &[Value], now: &str) -> (Vec<String>, Vec<&'static str>, Value) {
    let jobs = jobs.iter().map(|j| Arc::new(object(j.clone()))).collect();
    let plan = plan(&Observed { cron: Arc::new(object(cron.clone())), jobs }, at(now));
    let status = plan.actions().find_map(|a| match &a.verb {
        Verb::Update { object, .. } => Some(object["status"].clone()),
        _ => None,
    });
    (plan.summary(), plan.notes.iter().map(|n| n.reason).collect(), status.unwrap_or_default())
}

#[test]
fn when_jobs_start() {
    let running =
        json!({"active": [{"kind": "Job", "namespace": "ns", "name": "old", "uid": "old"}], "lastScheduleTime": "2026-01-01T00:00:30Z"});
    let minutely = |extra: Value| {
        let mut spec = json!({"schedule": "* * * * *"});
        spec.as_object_mut().into_iter().for_each(|s| s.extend(extra.as_object().cloned().unwrap_or_default()));
        spec
    };
    let new = "create jobs ns/c-29453761";
    let write = "update cronjobs/status ns/c";
    for (spec, status, jobs, now, want, events) in [
        (minutely(json!({})), json!({}), vec![], "2026-01-01T00:00:59Z", vec![], vec![]),
        (minutely(json!({})), json!({}), vec![], "2026-01-01T00:01:00Z", vec![new, write], vec![]),
        (minutely(json!({"suspend": true})), json!({}), vec![], "2026-01-01T00:01:00Z", vec![], vec![]),
        (minutely(json!({"timeZone": "Nowhere/No"})), json!({}), vec![], "2026-01-01T00:01:00Z", vec![], vec!["UnknownTimeZone"]),
        (json!({"schedule": "60 * * * *"}), json!({}), vec![], "2026-01-01T00:01:00Z", vec![], vec!["UnparseableSchedule"]),
        (json!({"schedule": "0 0 31 2 *"}), json!({}), vec![], "2026-01-01T00:01:00Z", vec![], vec!["InvalidSchedule"]),
        (minutely(json!({"startingDeadlineSeconds": 10})), json!({}), vec![], "2026-01-01T00:01:30Z", vec![], vec![]),
        (minutely(json!({})), running.clone(), vec![job("old", "")], "2026-01-01T00:01:00Z", vec![new, write], vec![]),
        (
            minutely(json!({"concurrencyPolicy": "Forbid"})),
            running.clone(),
            vec![job("old", "")],
            "2026-01-01T00:01:00Z",
            vec![],
            vec!["JobAlreadyActive"],
        ),
        (
            minutely(json!({"concurrencyPolicy": "Replace"})),
            running.clone(),
            vec![job("old", "")],
            "2026-01-01T00:01:00Z",
            vec!["delete jobs ns/old", new, write],
            vec![],
        ),
        (
            minutely(json!({"concurrencyPolicy": "Forbid"})),
            running.clone(),
            vec![job("old", "Complete")],
            "2026-01-01T00:01:00Z",
            vec![new, write],
            vec!["SawCompletedJob"],
        ),
        (minutely(json!({"concurrencyPolicy": "Forbid"})), running, vec![], "2026-01-01T00:01:00Z", vec![new, write], vec!["MissingJob"]),
        (minutely(json!({})), json!({"lastScheduleTime": "2026-01-01T00:01:00Z"}), vec![], "2026-01-01T00:01:40Z", vec![], vec![]),
    ] {
        let cron = cron(spec, status);
        let (did, said, _) = run(&cron, &jobs, now);
        assert_eq!((did, said), (want.into_iter().map(str::to_owned).collect(), events), "{cron} {jobs:?}");
    }
}

#[test]
fn many_missed_starts_make_one_job() {
    let (did, said, status) = run(&cron(json!({"schedule": "* * * * *"}), json!({})), &[], "2026-01-02T00:00:30Z");
    assert_eq!((did.len(), said, &status["lastScheduleTime"]), (2, vec!["TooManyMissedTimes"], &json!("2026-01-02T00:00:00Z")));
}

#[test]
fn finished_jobs_beyond_the_limits_go() {
    let spec = json!({"schedule": "@yearly", "successfulJobsHistoryLimit": 1, "failedJobsHistoryLimit": 0});
    let jobs = [job("a", "Complete"), job("b", "Complete"), job("c", "Failed")];
    let (did, _, status) = run(&cron(spec, json!({})), &jobs, "2026-01-01T00:02:00Z");
    assert_eq!(did, ["delete jobs ns/a", "delete jobs ns/c", "update cronjobs/status ns/c"]);
    assert_eq!(status["lastSuccessfulTime"], "2026-01-01T00:01:30Z");
}

#[tokio::test(start_paused = true)]
async fn a_started_job_is_active_and_has_its_time() {
    let clock = FakeClock::at(at("2026-01-01T00:01:05Z"));
    let rig = Rig::with(Config { clock, ..Config::default() }, &[super::start]);
    let mut cron = cron(json!({"schedule": "* * * * *", "timeZone": "Europe/Berlin"}), json!({}));
    cron["metadata"].as_object_mut().map(|m| m.remove("uid"));
    rig.api.insert(&gvr_of::<CronJob>(), cron);
    rig.api.change(&gvr_of::<CronJob>(), "ns", "c", |c| c["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:10Z"));
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    let jobs = rig.api.list(&gvr_of::<Job>());
    assert_eq!(jobs.len(), 1);
    assert_eq!(jobs[0]["metadata"]["annotations"][super::plan::SCHEDULED_AT], "2026-01-01T01:01:00+01:00");
    let status = rig.api.get(&gvr_of::<CronJob>(), "ns", "c").map_or(Value::Null, |c| c["status"].clone());
    assert_eq!((&status["active"][0]["name"], &status["lastScheduleTime"]), (&json!("c-29453761"), &json!("2026-01-01T00:01:00Z")));
    rig.settles().await;
}
