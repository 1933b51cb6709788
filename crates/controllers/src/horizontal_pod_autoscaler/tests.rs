use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tiphys_client::Verb;
use tiphys_meta::Gvr;
use tiphys_testing::object;
use tiphys_types::api::autoscaling::v2::HorizontalPodAutoscalerBehavior;
use tiphys_types::api::core::v1::Pod;

use super::calc::{Question, Samples, Target, Tolerance, propose};
use super::limits::{Bounds, History, limit};
use super::plan::{Observed, Scale, plan};
use super::read;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap_or(Timestamp::MAX)
}

fn pod(name: &str, phase: &str) -> Value {
    json!({"metadata": {"namespace": "ns", "name": name, "labels": {"app": "a"}},
        "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]},
        "status": {"phase": phase, "startTime": "2026-01-01T00:00:00Z",
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:01:00Z"}]}})
}

fn samples(values: &[(&str, &str)]) -> Samples {
    let item = |(name, cpu): &(&str, &str)| json!({"metadata": {"name": name}, "timestamp": "2026-12-01T00:00:00Z", "window": "15s", "containers": [{"name": "c", "usage": {"cpu": cpu}}]});
    read(&json!({"items": values.iter().map(item).collect::<Vec<_>>()}), "cpu", "")
}

#[test]
fn from_usage_to_replicas() {
    let run = [pod("a", "Running"), pod("b", "Running"), pod("c", "Running")];
    let young = [pod("a", "Running"), pod("b", "Running"), pod("c", "Pending")];
    let all = |cpu| [("a", cpu), ("b", cpu), ("c", cpu)];
    for (pods, used, target, want) in [
        (&run, samples(&all("500m")), Target::Utilization(50), Ok((3, 50))),
        (&run, samples(&all("540m")), Target::Utilization(50), Ok((3, 54))),
        (&run, samples(&all("900m")), Target::Utilization(50), Ok((6, 90))),
        (&run, samples(&all("100m")), Target::Utilization(50), Ok((1, 10))),
        (&run, samples(&all("900m")), Target::Average(300), Ok((9, -1))),
        // One of which nothing is known: it uses nothing where more would come, all where fewer would stay.
        (&run, samples(&all("900m")[..2]), Target::Utilization(50), Ok((4, 90))),
        (&run, samples(&all("100m")[..2]), Target::Utilization(50), Ok((3, 10))),
        (&young, samples(&all("900m")[..2]), Target::Utilization(50), Ok((4, 90))),
        (
            &run,
            Samples::new(),
            Target::Utilization(50),
            Err("did not receive metrics for targeted pods (pods might be unready)".to_owned()),
        ),
    ] {
        let pods: Vec<Pod> = pods.iter().map(|p| object(p.clone())).collect();
        let tolerance = Tolerance { up: 0.1, down: 0.1 };
        let question = Question { current: 3, target, resource: "cpu", container: "", tolerance, now: at(0) };
        let got = propose(&question, &pods.iter().collect::<Vec<_>>(), used.clone());
        assert_eq!(got.map(|p| (p.replicas, p.utilization.unwrap_or(-1))), want, "{used:?} {target:?}");
    }
}

#[test]
fn how_fast_it_may_change() {
    let bounds = |current| Bounds { min: 2, max: 20, current };
    for (proposed, current, want, reason) in [
        (3, 3, 3, None),
        (9, 3, 6, Some("ScaleUpLimit")),
        (30, 15, 20, Some("TooManyReplicas")),
        (4, 1, 4, None),
        (1, 2, 2, Some("TooFewReplicas")),
    ] {
        let got = limit(proposed, bounds(current), None, &mut History::default(), at(0));
        assert_eq!((got.replicas, got.limited.map(|l| l.0)), (want, reason), "{proposed} of {current}");
    }
    // Five minutes must pass before it is believed that fewer are enough.
    let mut history = History::default();
    history.begin(10, at(0));
    let got = limit(4, bounds(10), None, &mut history, at(200));
    assert_eq!((got.replicas, got.stabilized.map(|s| s.0)), (10, Some("ScaleDownStabilized")));
    assert_eq!(limit(4, bounds(10), None, &mut history, at(400)).replicas, 4);
}

#[test]
fn policies() {
    let behavior = |json: Value| -> HorizontalPodAutoscalerBehavior { object(json) };
    let up = |policies: Value, select: &str| {
        behavior(json!({"scaleUp": {"policies": policies, "selectPolicy": select, "stabilizationWindowSeconds": 0},
            "scaleDown": {"policies": policies, "selectPolicy": select, "stabilizationWindowSeconds": 0}}))
    };
    let both = json!([{"type": "Pods", "value": 4, "periodSeconds": 60}, {"type": "Percent", "value": 10, "periodSeconds": 60}]);
    let bounds = Bounds { min: 1, max: 100, current: 10 };
    for (select, proposed, want) in
        [("Max", 50, 14), ("Min", 50, 11), ("Disabled", 50, 10), ("Max", 2, 6), ("Min", 2, 9), ("Disabled", 2, 10), ("Max", 12, 12)]
    {
        let rules = up(both.clone(), select);
        assert_eq!(limit(proposed, bounds, Some(&rules), &mut History::default(), at(0)).replicas, want, "{select} {proposed}");
    }
    // What came in this minute counts against it.
    let mut history = History::default();
    history.changed(3, at(0));
    let rules = up(json!([{"type": "Pods", "value": 4, "periodSeconds": 60}]), "Max");
    assert_eq!(limit(50, bounds, Some(&rules), &mut history.clone(), at(30)).replicas, 11);
    assert_eq!(limit(50, bounds, Some(&rules), &mut history, at(90)).replicas, 14);
}

fn observed(scale: Result<i64, &str>, used: Result<Samples, &str>, status: Value) -> Observed {
    let autoscaler = json!({"metadata": {"namespace": "ns", "name": "h"}, "status": status, "spec": {
        "maxReplicas": 10, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"},
        "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}}]}});
    let scale = scale.map_err(str::to_owned).map(|n| Scale {
        gvr: Gvr::new("apps", "v1", "deployments"),
        object: json!({"metadata": {"namespace": "ns", "name": "d"}, "spec": {"replicas": n}, "status": {"selector": "app=a"}}),
    });
    let pods = ["a", "b"].map(|n| Arc::new(object(pod(n, "Running")))).into();
    Observed { autoscaler: Arc::new(object(autoscaler)), scale, samples: vec![used.map_err(str::to_owned)], pods }
}

#[test]
fn decisions() {
    let busy = samples(&[("a", "900m"), ("b", "900m")]);
    for (scale, used, want, condition) in [
        (Err("gone"), Err("none"), vec!["update horizontalpodautoscalers/status ns/h"], ("AbleToScale", "False", "FailedGetScale")),
        (Ok(0), Err("none"), vec!["update horizontalpodautoscalers/status ns/h"], ("ScalingActive", "False", "ScalingDisabled")),
        (Ok(2), Err("none"), vec!["update horizontalpodautoscalers/status ns/h"], ("ScalingActive", "False", "FailedGetResourceMetric")),
        (
            Ok(2),
            Ok(busy.clone()),
            vec!["update deployments/scale ns/d", "update horizontalpodautoscalers/status ns/h"],
            ("ScalingActive", "True", "ValidMetricFound"),
        ),
        (
            Ok(12),
            Err("none"),
            vec!["update deployments/scale ns/d", "update horizontalpodautoscalers/status ns/h"],
            ("AbleToScale", "True", "SucceededRescale"),
        ),
    ] {
        let plan = plan(&observed(scale, used, json!({"desiredReplicas": 0})), &mut History::default(), at(0));
        assert_eq!(plan.summary(), want);
        let status = plan.actions().last().and_then(|a| match &a.verb {
            Verb::Update { object, .. } => Some(object["status"].clone()),
            _ => None,
        });
        let conditions = status.clone().unwrap_or_default()["conditions"].as_array().cloned().unwrap_or_default();
        let found = conditions.iter().find(|c| c["type"] == condition.0);
        assert_eq!(found.map(|c| (&c["status"], &c["reason"])), Some((&json!(condition.1), &json!(condition.2))), "{conditions:?}");
        if condition.2 == "ValidMetricFound" {
            let status = status.unwrap_or_default();
            assert_eq!(
                (&status["desiredReplicas"], &status["currentMetrics"][0]["resource"]["current"]["averageUtilization"]),
                (&json!(4), &json!(90))
            );
        }
    }
}

#[test]
fn a_second_look_changes_nothing() {
    let idle = samples(&[("a", "500m"), ("b", "500m")]);
    let mut history = History::default();
    let first = plan(&observed(Ok(2), Ok(idle.clone()), json!({"desiredReplicas": 0})), &mut history, at(0));
    let status = first.actions().find_map(|a| match &a.verb {
        Verb::Update { object, .. } => Some(object["status"].clone()),
        _ => None,
    });
    let second = plan(&observed(Ok(2), Ok(idle), status.unwrap_or_default()), &mut history, at(0) + SignedDuration::from_secs(15));
    assert_eq!(second.summary(), Vec::<String>::new());
}
