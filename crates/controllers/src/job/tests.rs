use std::time::Duration;

use serde_json::{Value, json};
use tiphys_client::gvr_of;
use tiphys_types::api::batch::v1::Job;
use tiphys_types::api::core::v1::{Event, Pod};

use crate::shared::test::Rig;

fn job(more: Value) -> Value {
    let mut spec = json!({"parallelism": 2, "completions": 3, "backoffLimit": 2, "selector": {"matchLabels": {"job": "j"}},
        "template": {"metadata": {"labels": {"job": "j"}}, "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}});
    if let (Some(spec), Value::Object(more)) = (spec.as_object_mut(), more) {
        spec.extend(more);
    }
    json!({"metadata": {"namespace": "ns", "name": "j"}, "spec": spec, "status": {}})
}

fn start(more: Value) -> Rig {
    let rig = Rig::start(&[super::start]);
    rig.api.insert(&gvr_of::<Job>(), job(more));
    rig
}

fn unfinished(rig: &Rig) -> Vec<Value> {
    rig.api.list(&gvr_of::<Pod>()).into_iter().filter(|p| !matches!(p["status"]["phase"].as_str(), Some("Succeeded" | "Failed"))).collect()
}

fn end(rig: &Rig, pod: &Value, phase: &str) {
    rig.api.change(&gvr_of::<Pod>(), "ns", pod["metadata"]["name"].as_str().unwrap_or(""), |p| {
        p["status"] = json!({"phase": phase, "containerStatuses": [{"name": "c", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"terminated": {"exitCode": if phase == "Failed" { 42 } else { 0 }}}}]});
    });
}

fn status(rig: &Rig) -> Value {
    rig.api.get(&gvr_of::<Job>(), "ns", "j").unwrap_or_default()["status"].clone()
}

fn reason(rig: &Rig, kind: &str) -> String {
    let status = status(rig);
    let found = status["conditions"].as_array().into_iter().flatten().find(|c| c["type"] == kind && c["status"] == "True").cloned();
    found.map_or_else(String::new, |c| c["reason"].as_str().unwrap_or("").to_owned())
}

/// Time that back-offs need goes by.
async fn wait(rig: &Rig) {
    tokio::time::sleep(Duration::from_secs(700)).await;
    rig.settles().await;
}

#[tokio::test(start_paused = true)]
async fn runs_until_enough_have_succeeded() {
    let rig = start(json!({}));
    rig.settles().await;
    assert_eq!(unfinished(&rig).len(), 2);
    assert_eq!(unfinished(&rig)[0]["metadata"]["finalizers"], json!(["batch.kubernetes.io/job-tracking"]));
    assert_eq!(status(&rig)["active"], 2);
    for expected in [2, 1, 0] {
        end(&rig, &unfinished(&rig)[0], "Succeeded");
        rig.settles().await;
        assert_eq!(unfinished(&rig).len(), expected);
    }
    let status = status(&rig);
    assert_eq!((&status["succeeded"], &status["uncountedTerminatedPods"]), (&json!(3), &json!({})));
    assert_eq!(reason(&rig, "Complete"), "CompletionsReached");
    assert!(status["completionTime"].is_string());
    assert!(rig.api.list(&gvr_of::<Pod>()).iter().all(|p| p["metadata"]["finalizers"].as_array().is_none_or(Vec::is_empty)));
    assert!(rig.api.list(&gvr_of::<Event>()).iter().any(|e| e["reason"] == "Completed"));
}

#[tokio::test(start_paused = true)]
async fn gives_up_after_the_limit() {
    let rig = start(json!({"parallelism": 1}));
    rig.settles().await;
    for _ in 0..3 {
        end(&rig, &unfinished(&rig)[0], "Failed");
        wait(&rig).await;
    }
    assert_eq!(reason(&rig, "Failed"), "BackoffLimitExceeded");
    assert_eq!(status(&rig)["failed"], 3);
    assert!(unfinished(&rig).is_empty());
}

#[tokio::test(start_paused = true)]
async fn indexed_with_a_limit_for_each_index() {
    let rig = start(
        json!({"completionMode": "Indexed", "completions": 3, "parallelism": 3, "backoffLimit": i32::MAX, "backoffLimitPerIndex": 1}),
    );
    rig.settles().await;
    let index = |p: &Value| p["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"].as_str().unwrap_or("").to_owned();
    let of = |rig: &Rig, wanted: &str| unfinished(rig).into_iter().find(|p| index(p) == wanted).unwrap_or_default();
    assert_eq!(of(&rig, "1")["spec"]["hostname"], "j-1");
    end(&rig, &of(&rig, "0"), "Succeeded");
    end(&rig, &of(&rig, "2"), "Succeeded");
    end(&rig, &of(&rig, "1"), "Failed");
    wait(&rig).await;
    assert_eq!(status(&rig)["completedIndexes"], "0,2");
    assert_eq!(of(&rig, "1")["metadata"]["annotations"]["batch.kubernetes.io/job-index-failure-count"], "1");
    end(&rig, &of(&rig, "1"), "Failed");
    wait(&rig).await;
    assert_eq!((reason(&rig, "Failed"), &status(&rig)["failedIndexes"]), ("FailedIndexes".to_owned(), &json!("1")));
}

#[tokio::test(start_paused = true)]
async fn policies_end_a_job_early() {
    let rig = start(json!({"podFailurePolicy": {"rules": [{"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}}]}}));
    rig.settles().await;
    let pods = unfinished(&rig);
    end(&rig, &pods[0], "Failed");
    rig.settles().await;
    // The other one is being deleted; its finalizer holds it until it has ended.
    for pod in unfinished(&rig) {
        end(&rig, &pod, "Failed");
    }
    rig.settles().await;
    assert_eq!(reason(&rig, "Failed"), "PodFailurePolicy");

    let rig = start(
        json!({"completionMode": "Indexed", "completions": 3, "parallelism": 3, "successPolicy": {"rules": [{"succeededIndexes": "0"}]}}),
    );
    rig.settles().await;
    let first = unfinished(&rig)
        .into_iter()
        .find(|p| p["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"] == "0")
        .unwrap_or_default();
    end(&rig, &first, "Succeeded");
    wait(&rig).await;
    assert_eq!(reason(&rig, "Complete"), "SuccessPolicy");
}

#[tokio::test(start_paused = true)]
async fn suspended_and_resumed() {
    let rig = start(json!({"suspend": true}));
    rig.settles().await;
    assert!(unfinished(&rig).is_empty());
    assert_eq!(reason(&rig, "Suspended"), "JobSuspended");
    rig.api.change(&gvr_of::<Job>(), "ns", "j", |j| j["spec"]["suspend"] = json!(false));
    rig.settles().await;
    assert_eq!(unfinished(&rig).len(), 2);
    assert_eq!(reason(&rig, "Suspended"), "");
}
