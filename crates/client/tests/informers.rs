//! The client against the fake API server: what only shows when list, watch and writes meet.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tiphys_base::tasks::Tasks;
use tiphys_base::{FakeClock, SystemClock};
use tiphys_client::*;
use tiphys_meta::{ApiError, Gvr, Reason};
use tiphys_testing::{FakeApi, object};
use tiphys_types::api::core::v1::{ConfigMap, Event};
use tokio_util::sync::CancellationToken;

fn config_maps() -> Gvr {
    gvr_of::<ConfigMap>()
}

fn map(name: &str) -> serde_json::Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": "ns", "name": name}})
}

async fn next(subscription: &mut Subscription<ConfigMap>) -> String {
    let delta = tokio::time::timeout(Duration::from_secs(60), subscription.recv()).await.ok().flatten();
    match delta {
        Some(Delta::Added(o)) => format!("+{}", ObjectKey::of(&*o)),
        Some(Delta::Updated { new, .. }) => format!("~{}", ObjectKey::of(&*new)),
        Some(Delta::Deleted(o)) => format!("-{}", ObjectKey::of(&*o)),
        None => "nothing".into(),
    }
}

#[tokio::test(start_paused = true)]
async fn an_informer_follows_over_broken_watches_and_expired_revisions() {
    let api = FakeApi::new();
    api.insert(&config_maps(), map("a"));
    let informers = Informers::new(api.client());
    let informer = informers.of::<ConfigMap>();
    informer.synced().await;
    let mut told = informer.subscribe();
    assert_eq!(next(&mut told).await, "+ns/a");
    api.insert(&config_maps(), map("b"));
    assert_eq!(next(&mut told).await, "+ns/b");

    api.end_watches();
    api.insert(&config_maps(), map("c"));
    assert_eq!(next(&mut told).await, "+ns/c");

    let mut gone = ApiError::new(Reason::Expired, "too old resource version");
    gone.code = 410;
    api.fail("watch", "configmaps", 1, gone);
    api.end_watches();
    api.client().delete::<ConfigMap>("ns", "b", &DeleteOptions::default()).await.map_err(|e| e.to_string()).ok();
    assert_eq!(next(&mut told).await, "-ns/b");
    assert_eq!(informer.len(), 2);
    informers.stop();
}

#[tokio::test(start_paused = true)]
async fn the_executor_settles_once_the_cache_shows_its_write() {
    let api = FakeApi::new();
    let tasks = Tasks::new();
    let informers = Informers::with_tasks(api.client(), tasks.clone());
    let informer = informers.of::<ConfigMap>();
    informer.synced().await;
    let recorder = EventRecorder::new(api.client(), "test", "", SystemClock::shared(), &tasks);
    let executor = Executor::new(api.client(), recorder).reading(informer.clone());
    let made: ConfigMap = object(map("made"));
    let mut plan = Plan::default();
    plan.act(Action::create(&made));
    assert!(executor.execute(&"key", plan).await.is_ok());
    executor.settle(&"key").await;
    let seen = informer.get("ns", "made");
    assert!(seen.is_some());
    let mut plan = Plan::default();
    if let Some(seen) = seen {
        plan.act(Action::delete(&*seen));
    }
    assert!(executor.execute(&"key", plan).await.is_ok());
    executor.settle(&"key").await;
    assert!(informer.is_empty());
    tasks.stop();
}

#[tokio::test(start_paused = true)]
async fn a_burst_stops_at_the_first_wave_with_a_failure() {
    let api = FakeApi::new();
    let tasks = Tasks::new();
    let recorder = EventRecorder::new(api.client(), "test", "", SystemClock::shared(), &tasks);
    let executor = Executor::new(api.client(), recorder);
    api.fail("create", "configmaps", 100, ApiError::forbidden(&config_maps(), "x", "exceeded quota"));
    let mut plan = Plan::default();
    plan.burst((0..50).map(|n| Action::create(&object::<ConfigMap>(map(&format!("m{n}"))))).collect());
    let told = Arc::new(std::sync::Mutex::new(String::new()));
    let heard = Arc::clone(&told);
    plan.if_failed = Some(Box::new(move |error| {
        if let Ok(mut text) = heard.lock() {
            *text = error.to_string();
        }
        Vec::new()
    }));
    assert!(executor.execute(&"key", plan).await.is_err());
    assert_eq!(told.lock().map(|t| t.clone()).ok().as_deref(), Some("configmaps \"x\" is forbidden: exceeded quota"));
    assert_eq!(api.take_log(), Vec::<String>::new());
    tasks.stop();
}

#[tokio::test(start_paused = true)]
async fn events_that_repeat_raise_a_count() {
    let api = FakeApi::new();
    let tasks = Tasks::new();
    let clock = FakeClock::at(jiff::Timestamp::UNIX_EPOCH);
    let recorder = EventRecorder::new(api.client(), "test", "", clock, &tasks);
    let about: ConfigMap = object(api.insert(&config_maps(), map("a")));
    for _ in 0..3 {
        recorder.warning(&about, "Failed", "no luck");
    }
    recorder.normal(&about, "Made", "luck");
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
    let events: Vec<Event> = api.list(&gvr_of::<Event>()).into_iter().map(object).collect();
    let mut seen: Vec<_> = events.iter().map(|e| (e.reason.as_deref().unwrap_or(""), e.count)).collect();
    seen.sort_unstable();
    assert_eq!(seen, [("Failed", Some(3)), ("Made", Some(1))]);
    tasks.stop();
}

#[tokio::test(start_paused = true)]
async fn a_second_candidate_leads_only_after_the_lease_ran_out() {
    let api = FakeApi::new();
    let candidate = |name: &str| LeaderElection::new(api.client(), LeaderConfig::new("kube-system", "lock", name), SystemClock::shared());
    let (mut one, mut two) = (candidate("one"), candidate("two"));
    one.acquire().await;
    let started = tokio::time::Instant::now();
    two.acquire().await;
    assert!(started.elapsed() > Duration::from_secs(15));
    let stop = CancellationToken::new();
    stop.cancel();
    two.hold(&stop).await;
    let started = tokio::time::Instant::now();
    one.acquire().await;
    assert!(started.elapsed() < Duration::from_secs(1), "it was given up");
}
