//! Kubelets that die and come back: everything that was there is taken up again, and what happened meanwhile is seen.

use super::*;

impl World {
    /// The kubelet dies and, after some seconds, another one starts on the same node.
    async fn again(self, away: u64) -> Self {
        assert!(self.kubelet.stop().await);
        drop(self.tasks);
        tokio::time::sleep(Duration::from_secs(away)).await;
        self.runtime.trace.add("* another kubelet");
        World::on(self.folder, self.api, self.runtime, self.clock).await
    }

    fn ready_since(&self) -> Value {
        let ready = condition(&self.status(), "Ready");
        assert_eq!(ready["status"], "True", "{:#}", self.status());
        ready["lastTransitionTime"].clone()
    }
}

fn probe() -> Value {
    json!({"exec": {"command": ["x"]}, "periodSeconds": 10, "timeoutSeconds": 1, "successThreshold": 1, "failureThreshold": 3})
}

#[tokio::test(start_paused = true)]
async fn all_containers_are_adopted_and_stay_ready() {
    let world = World::start().await;
    world.runtime.script("init", [Act::Exit(Duration::from_secs(1), 0)]);
    world.pod(json!({
        "initContainers": [{"name": "init", "image": "a"}, {"name": "side", "image": "a", "restartPolicy": "Always", "startupProbe": probe()}],
        "containers": [{"name": "c", "image": "a", "readinessProbe": probe(), "startupProbe": probe(), "livenessProbe": probe()}]}));
    world.until("ready", |s| condition(s, "Ready")["status"] == "True").await;
    let (since, before) = (world.ready_since(), world.trace());
    // One probe fails right after; that is not enough to be unready, and certainly not for a restart.
    world.runtime.exec_codes("c", [1]);
    let world = world.again(20).await;
    for _ in 0..60 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(world.ready_since(), since, "ready all the time");
    }
    assert_eq!(world.status()["containerStatuses"][0]["restartCount"], 0);
    let after = world.trace();
    assert_eq!(after.lines().count(), before.lines().count() + 1, "nothing was started or stopped:\n{after}");
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_goes_on_failing_counts_after_a_restart() {
    let world = World::start().await;
    world.pod(json!({"containers": [{"name": "c", "image": "a", "readinessProbe": probe()}]}));
    world.until("ready", |s| condition(s, "Ready")["status"] == "True").await;
    world.runtime.exec_codes("c", [1; 10]);
    let world = world.again(1).await;
    world.until("unready", |s| condition(s, "Ready")["status"] == "False").await;
}

#[tokio::test(start_paused = true)]
async fn what_ended_meanwhile_is_seen() {
    let world = World::start().await;
    world.runtime.script("c", [Act::Exit(Duration::from_secs(5), 3)]);
    world.pod(json!({"restartPolicy": "Never", "containers": [{"name": "c", "image": "a"}]}));
    world.until_phase("Running").await;
    let world = world.again(30).await;
    let status = world.until_phase("Failed").await;
    assert_eq!(status["containerStatuses"][0]["state"]["terminated"]["exitCode"], 3);
    expect(
        &world,
        &[
            "0 sandbox of p made, attempt 0",
            "0 c started, run 0",
            "0 * Running",
            "5 c ended with 3",
            "30 * another kubelet",
            "30 sandbox of p stopped",
            "30 * Failed",
        ],
    );
}

#[tokio::test(start_paused = true)]
async fn a_pod_deleted_meanwhile_is_stopped() {
    let world = World::start().await;
    world.pod(json!({"containers": [{"name": "c", "image": "a"}]}));
    world.until_phase("Running").await;
    let away = world.api.clone();
    let deleting = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(2)).await;
        mark_deleted(&away, 7);
    });
    let world = world.again(5).await;
    assert!(deleting.await.is_ok());
    world.until_deleted().await;
    expect(
        &world,
        &[
            "0 sandbox of p made, attempt 0",
            "0 c started, run 0",
            "0 * Running",
            "5 * another kubelet",
            "5 c told to stop within 7 s",
            "5 c ended with 143",
            "5 sandbox of p stopped",
            "5 * deleted from the API",
        ],
    );
}

#[tokio::test(start_paused = true)]
async fn a_pod_half_stopped_is_stopped_to_the_end() {
    let world = World::start().await;
    world.runtime.script("c", [Act::Stubborn]);
    world.pod(json!({"containers": [{"name": "c", "image": "a"}]}));
    world.until_phase("Running").await;
    world.delete(20);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let world = world.again(2).await;
    world.until_deleted().await;
    let trace = world.trace();
    assert_eq!(trace.matches("c started").count(), 1, "{trace}");
    assert!(trace.contains("c ended with 137") && trace.contains("sandbox of p stopped"), "{trace}");
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_the_api_forgot_meanwhile_is_swept_up() {
    let world = World::start().await;
    world.pod(json!({"containers": [{"name": "c", "image": "a"}], "volumes": [{"name": "v", "emptyDir": {}}]}));
    world.until_phase("Running").await;
    let pods_folder = world.folder.path().join("root/pods");
    assert_eq!(std::fs::read_dir(&pods_folder).expect("a folder").count(), 1);
    let away = world.api.clone();
    let forgetting = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(1)).await;
        mark_deleted(&away, 0);
        away.change(&pods(), "default", "p", |pod| pod["metadata"]["finalizers"] = json!([]));
    });
    let world = world.again(5).await;
    assert!(forgetting.await.is_ok());
    tokio::time::sleep(Duration::from_secs(30)).await;
    let trace = world.trace();
    assert!(trace.contains("c ended with") && trace.contains("sandbox of p stopped"), "{trace}");
    assert_eq!(std::fs::read_dir(&pods_folder).expect("a folder").count(), 0, "its folder is gone");
}
