//! Whole lives of pods as text: the kubelet with a scripted runtime and a fake API server.

mod restart;

use crate::fake::{Act, Api, FakeRuntime, Shared, TestClock};
use crate::{Config, Kubelet, Running};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tiphys_base::tasks::Tasks;
use tiphys_meta::Gvr;
use tiphys_testing::FakeApi;

struct World {
    api: FakeApi,
    runtime: Arc<FakeRuntime>,
    kubelet: Running,
    folder: tempfile::TempDir,
    tasks: Tasks,
    clock: Arc<TestClock>,
}

fn mark_deleted(api: &FakeApi, grace: i64) {
    api.change(&pods(), "default", "p", |pod| {
        pod["metadata"]["deletionTimestamp"] = json!("2027-01-15T08:00:00Z");
        pod["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
    });
}

fn pods() -> Gvr {
    Gvr::new("", "v1", "pods")
}

impl World {
    async fn start() -> Self {
        let clock = TestClock::new();
        let runtime = FakeRuntime::new(clock.clone());
        World::with(FakeApi::new(), runtime, clock).await
    }

    async fn with(api: FakeApi, runtime: Arc<FakeRuntime>, clock: Arc<TestClock>) -> Self {
        World::on(tempfile::tempdir().expect("a folder"), api, runtime, clock).await
    }

    async fn on(folder: tempfile::TempDir, api: FakeApi, runtime: Arc<FakeRuntime>, clock: Arc<TestClock>) -> Self {
        let mut config = Config::new("n1", folder.path().join("root"));
        config.pod_logs_dir = folder.path().join("logs");
        config.listen = ([127, 0, 0, 1], 0).into();
        config.cgroups_per_qos = false;
        config.memory_backed_secrets = false;
        config.eviction_memory_available = 0;
        config.eviction_disk_percent = 0;
        config.eviction_inodes_percent = 0;
        let tasks = Tasks::new();
        let (services, images) = (Arc::new(Shared(runtime.clone())), Arc::new(Shared(runtime.clone())));
        let kubelet = Kubelet::start(config, Api::client(&api), services, images, clock.clone(), &tasks).await.expect("a kubelet");
        World { api, runtime, kubelet, folder, tasks, clock }
    }

    fn pod(&self, spec: Value) {
        let mut spec = spec;
        spec["nodeName"] = json!("n1");
        if spec["terminationGracePeriodSeconds"].is_null() {
            spec["terminationGracePeriodSeconds"] = json!(30);
        }
        let metadata = json!({"name": "p", "namespace": "default", "finalizers": ["test/keep"]});
        self.api.insert(&pods(), json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}));
    }

    fn delete(&self, grace: i64) {
        mark_deleted(&self.api, grace);
    }

    fn status(&self) -> Value {
        self.api.get(&pods(), "default", "p").map(|p| p["status"].clone()).unwrap_or_default()
    }

    /// Waits, in the time of the test, until the status is as wanted.
    async fn until(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        for _ in 0..20_000 {
            let status = self.status();
            if wanted(&status) {
                self.runtime.trace.add(format_args!("* {what}"));
                return status;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("never {what}: {:#}\n{}", self.status(), self.runtime.trace.text());
    }

    async fn until_phase(&self, phase: &str) -> Value {
        self.until(phase, |s| s["phase"] == phase).await
    }

    async fn until_deleted(&self) {
        for _ in 0..20_000 {
            if self.api.take_log().iter().any(|l| l == "delete pods default/p") {
                return self.runtime.trace.add("* deleted from the API");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("never deleted: {:#}\n{}", self.status(), self.runtime.trace.text());
    }

    /// Lets go of the pod in the API, as its owner of the finalizer would.
    fn release(&self) {
        self.api.change(&pods(), "default", "p", |pod| pod["metadata"]["finalizers"] = json!([]));
    }

    fn trace(&self) -> String {
        self.runtime.trace.text()
    }
}

fn expect(world: &World, lines: &[&str]) {
    let got: Vec<String> = world.trace().lines().map(|l| l.trim_start().to_owned()).collect();
    assert_eq!(got, lines, "\n{}", world.trace());
}

fn condition(status: &Value, kind: &str) -> Value {
    status["conditions"].as_array().and_then(|l| l.iter().find(|c| c["type"] == kind)).cloned().unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn a_plain_pod_runs_and_is_deleted() {
    let world = World::start().await;
    world.runtime.script("c", [Act::Stubborn]);
    world.pod(json!({"containers": [{"name": "c", "image": "nginx"}]}));
    let status = world.until("ready", |s| condition(s, "Ready")["status"] == "True").await;
    assert_eq!(status["phase"], "Running");
    assert_eq!(status["podIP"], "10.0.0.1");
    assert_eq!(status["qosClass"], "BestEffort");
    let container = &status["containerStatuses"][0];
    assert_eq!((&container["containerID"], &container["imageID"]), (&json!("tiphys://c2"), &json!("nginx@sha256:1")));
    assert_eq!((&container["started"], &container["ready"], &container["restartCount"]), (&json!(true), &json!(true), &json!(0)));
    for kind in ["PodReadyToStartContainers", "Initialized", "ContainersReady", "PodScheduled"] {
        assert_eq!(condition(&status, kind)["status"], "True", "{kind}");
    }
    world.delete(5);
    world.until_deleted().await;
    let last = world.status();
    assert_eq!(last["phase"], "Failed", "a container that was killed counts as failed");
    assert_eq!(last["containerStatuses"][0]["state"]["terminated"]["exitCode"], 137);
    world.release();
    expect(
        &world,
        &[
            "0 sandbox of p made, attempt 0",
            "0 c started, run 0",
            "0 * ready",
            "0 c told to stop within 5 s",
            "5 c ended with 137",
            "5 sandbox of p stopped",
            "5 * deleted from the API",
        ],
    );
    assert!(world.kubelet.stop().await);
}

#[tokio::test(start_paused = true)]
async fn a_shorter_grace_period_is_heard_while_it_stops() {
    let world = World::start().await;
    world.runtime.script("c", [Act::Stubborn]);
    world.pod(json!({"containers": [{"name": "c", "image": "nginx"}]}));
    world.until_phase("Running").await;
    world.delete(30);
    tokio::time::sleep(Duration::from_secs(3)).await;
    world.delete(5);
    world.until_deleted().await;
    expect(
        &world,
        &[
            "0 sandbox of p made, attempt 0",
            "0 c started, run 0",
            "0 * Running",
            "0 c told to stop within 30 s",
            "3 c told to stop within 2 s",
            "5 c ended with 137",
            "5 sandbox of p stopped",
            "5 * deleted from the API",
        ],
    );
}

#[tokio::test(start_paused = true)]
async fn a_failing_container_backs_off() {
    let world = World::start().await;
    world.runtime.script("c", [Act::Exit(Duration::from_secs(1), 1); 4]);
    world.pod(json!({"containers": [{"name": "c", "image": "nginx"}]}));
    let crash = |s: &Value| s["containerStatuses"][0]["state"]["waiting"]["reason"] == "CrashLoopBackOff";
    let status = world.until("CrashLoopBackOff", crash).await;
    let message = status["containerStatuses"][0]["state"]["waiting"]["message"].as_str().unwrap_or_default().to_owned();
    assert!(message.starts_with("back-off 10s restarting failed container=c pod=p_default(uid-"), "{message}");
    assert_eq!(status["containerStatuses"][0]["lastState"]["terminated"]["exitCode"], 1);
    assert_eq!(status["phase"], "Running");
    assert_eq!(condition(&status, "Ready")["message"], "containers with unready status: [c]");
    let status = world.until("its fifth run", |s| s["containerStatuses"][0]["restartCount"] == 4).await;
    assert!(status["containerStatuses"][0]["state"]["running"].is_object());
    expect(
        &world,
        &[
            "0 sandbox of p made, attempt 0",
            "0 c started, run 0",
            "1 c ended with 1",
            "1 c started, run 1",
            "2 c ended with 1",
            "2 * CrashLoopBackOff",
            "12 c started, run 2",
            "13 c ended with 1",
            "33 c started, run 3",
            "34 c ended with 1",
            "74 c started, run 4",
            "74 * its fifth run",
        ],
    );
}

#[tokio::test(start_paused = true)]
async fn init_containers_run_one_after_another_and_sidecars_end_last() {
    let world = World::start().await;
    world.runtime.script("i1", [Act::Exit(Duration::from_secs(1), 1), Act::Exit(Duration::from_secs(1), 0)]);
    world.runtime.script("i2", [Act::Exit(Duration::from_secs(1), 0)]);
    world.runtime.script("main", [Act::Exit(Duration::from_secs(3), 0)]);
    world.pod(json!({"restartPolicy": "OnFailure",
        "initContainers": [{"name": "i1", "image": "a"}, {"name": "side", "image": "a", "restartPolicy": "Always"}, {"name": "i2", "image": "a"}],
        "containers": [{"name": "main", "image": "a"}]}));
    let status = world.until("initializing", |s| condition(s, "Initialized")["status"] == "False").await;
    assert_eq!(condition(&status, "Initialized")["message"], "containers with incomplete status: [i1 side i2]");
    assert_eq!(status["containerStatuses"][0]["state"]["waiting"]["reason"], "PodInitializing");
    let done = world.until_phase("Succeeded").await;
    assert_eq!(done["initContainerStatuses"][0]["restartCount"], 1);
    assert_eq!(condition(&done, "Ready")["reason"], "PodCompleted");
    world.until("its sidecar ended", |s| s["initContainerStatuses"][1]["state"]["terminated"].is_object()).await;
    expect(
        &world,
        &[
            "0 sandbox of p made, attempt 0",
            "0 i1 started, run 0",
            "0 * initializing",
            "1 i1 ended with 1",
            "1 i1 started, run 1",
            "2 i1 ended with 0",
            "2 side started, run 0",
            "2 i2 started, run 0",
            "3 i2 ended with 0",
            "3 main started, run 0",
            "6 main ended with 0",
            "6 side told to stop within 30 s",
            "6 side ended with 143",
            "6 sandbox of p stopped",
            "6 * Succeeded",
            "6 * its sidecar ended",
        ],
    );
}

#[tokio::test(start_paused = true)]
async fn probes_decide() {
    let world = World::start().await;
    world.runtime.exec_codes("c", [1, 1, 0]);
    world.pod(json!({"containers": [{"name": "c", "image": "nginx",
        "readinessProbe": {"exec": {"command": ["x"]}, "periodSeconds": 2, "timeoutSeconds": 1, "successThreshold": 1, "failureThreshold": 3}}]}));
    let status = world.until_phase("Running").await;
    assert_eq!(status["containerStatuses"][0]["ready"], false);
    world.until("ready", |s| s["containerStatuses"][0]["ready"] == true).await;
    expect(&world, &["0 sandbox of p made, attempt 0", "0 c started, run 0", "0 * Running", "4 * ready"]);
}

#[tokio::test(start_paused = true)]
async fn a_liveness_failure_restarts() {
    let world = World::start().await;
    world.runtime.exec_codes("c", [0, 1, 1]);
    world.pod(json!({"containers": [{"name": "c", "image": "nginx", "livenessProbe":
        {"exec": {"command": ["x"]}, "periodSeconds": 5, "timeoutSeconds": 1, "successThreshold": 1, "failureThreshold": 2, "terminationGracePeriodSeconds": 3}}]}));
    world.until("restarted", |s| s["containerStatuses"][0]["restartCount"] == 1).await;
    expect(
        &world,
        &[
            "0 sandbox of p made, attempt 0",
            "0 c started, run 0",
            "10 c told to stop within 3 s",
            "10 c ended with 143",
            "10 c started, run 1",
            "10 * restarted",
        ],
    );
}

#[tokio::test(start_paused = true)]
async fn an_image_that_cannot_be_pulled() {
    let world = World::start().await;
    world.runtime.image_is_missing("gone");
    world.pod(json!({"containers": [{"name": "c", "image": "gone"}]}));
    let reason = |wanted: &'static str| move |s: &Value| s["containerStatuses"][0]["state"]["waiting"]["reason"] == wanted;
    let status = world.until("ErrImagePull", reason("ErrImagePull")).await;
    assert_eq!(status["containerStatuses"][0]["state"]["waiting"]["message"], "no such image");
    assert_eq!(status["phase"], "Pending");
    tokio::time::sleep(Duration::from_secs(11)).await;
    world.delete(0);
    world.until_deleted().await;
    expect(
        &world,
        &[
            "0 sandbox of p made, attempt 0",
            "0 pull of gone:latest",
            "0 * ErrImagePull",
            "10 pull of gone:latest",
            "11 sandbox of p stopped",
            "11 * deleted from the API",
        ],
    );
}

#[tokio::test(start_paused = true)]
async fn a_missing_config_map_is_waited_for() {
    let world = World::start().await;
    world.pod(json!({"containers": [{"name": "c", "image": "a", "envFrom": [{"configMapRef": {"name": "cm"}}]}]}));
    let reason = |s: &Value| s["containerStatuses"][0]["state"]["waiting"]["reason"] == "CreateContainerConfigError";
    let status = world.until("CreateContainerConfigError", reason).await;
    assert_eq!(status["containerStatuses"][0]["state"]["waiting"]["message"], "configmap \"cm\" not found");
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "cm", "namespace": "default"}, "data": {"a": "b"}});
    world.api.insert(&Gvr::new("", "v1", "configmaps"), map);
    world.until_phase("Running").await;
    expect(&world, &["0 sandbox of p made, attempt 0", "0 * CreateContainerConfigError", "0 c started, run 0", "0 * Running"]);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_ends_a_pod() {
    let world = World::start().await;
    world.pod(json!({"activeDeadlineSeconds": 7, "containers": [{"name": "c", "image": "a"}]}));
    let status = world.until_phase("Failed").await;
    assert_eq!(status["reason"], "DeadlineExceeded");
    assert_eq!(status["message"], "Pod was active on the node longer than the specified deadline");
}

#[tokio::test(start_paused = true)]
async fn a_resize_changes_limits_in_place() {
    let world = World::start().await;
    let container = |cpu: &str| json!([{"name": "c", "image": "a", "resources": {"requests": {"cpu": cpu, "memory": "64Mi"}, "limits": {"memory": "64Mi"}}}]);
    world.pod(json!({"containers": container("100m")}));
    world.until_phase("Running").await;
    world.api.change(&pods(), "default", "p", |pod| {
        pod["spec"]["containers"] = container("200m");
        pod["metadata"]["generation"] = json!(2);
    });
    let resized = |s: &Value| s["observedGeneration"] == 2 && s["containerStatuses"][0]["resources"]["requests"]["cpu"] == "200m";
    let status = world.until("resized", resized).await;
    assert_eq!(status["containerStatuses"][0]["restartCount"], 0);
    world.until("settled", |s| condition(s, "PodResizeInProgress").is_null()).await;
    expect(
        &world,
        &[
            "0 sandbox of p made, attempt 0",
            "0 c started, run 0",
            "0 * Running",
            "0 c resized to 204 shares, 67108864 bytes",
            "0 * resized",
            "0 * settled",
        ],
    );
}
