//! The scheduler against the fake API server.

use std::time::Duration;

use serde_json::{Value, json};
use tiphys_client::{Informers, gvr_of};
use tiphys_meta::{ApiError, Gvr};
use tiphys_scheduler::{Config, Running, Scheduler};
use tiphys_testing::FakeApi;
use tiphys_types::api::core::v1::{Event, Node, Pod};
use tiphys_types::api::policy::v1::PodDisruptionBudget;

struct Cluster {
    api: FakeApi,
    _running: Running,
}

fn pods() -> Gvr {
    gvr_of::<Pod>()
}

fn node(name: &str, cpu: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, "zone": name}},
        "status": {"allocatable": {"cpu": cpu, "memory": "4Gi", "pods": "110"}},
    })
}

fn pod(name: &str, cpu: &str, more: Value) -> Value {
    let mut spec =
        json!({"schedulerName": "default-scheduler", "containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": cpu}}}]});
    if let (Some(spec), Value::Object(more)) = (spec.as_object_mut(), more) {
        spec.extend(more);
    }
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "ns", "name": name, "labels": {"app": "a"}}, "spec": spec, "status": {"phase": "Pending"}})
}

impl Cluster {
    fn start(nodes: &[Value]) -> Self {
        let api = FakeApi::new();
        for node in nodes {
            api.insert(&gvr_of::<Node>(), node.clone());
        }
        let informers = Informers::new(api.client());
        let running = Scheduler::start(Config::default(), api.client(), &informers);
        Cluster { api, _running: running }
    }

    fn add(&self, pod: Value) {
        self.api.insert(&pods(), pod);
    }

    fn field(&self, name: &str, pointer: &str) -> Value {
        self.api.get(&pods(), "ns", name).and_then(|p| p.pointer(pointer).cloned()).unwrap_or(Value::Null)
    }

    fn node_of(&self, name: &str) -> Value {
        self.field(name, "/spec/nodeName")
    }

    fn message(&self, name: &str) -> String {
        self.field(name, "/status/conditions/0/message").as_str().unwrap_or("").to_owned()
    }
}

/// Lets everything that is ready run; time stands unless nothing else can happen.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(200)).await;
}

#[tokio::test(start_paused = true)]
async fn pods_spread_by_free_room_and_the_full_cluster_says_why() {
    let cluster = Cluster::start(&[node("n1", "2"), node("n2", "2")]);
    for n in 0..4 {
        cluster.add(pod(&format!("p{n}"), "900m", json!({})));
    }
    settle().await;
    cluster.add(pod("late", "900m", json!({})));
    settle().await;
    let placed: Vec<Value> = (0..4).map(|n| cluster.node_of(&format!("p{n}"))).collect();
    assert_eq!(placed.iter().filter(|n| *n == "n1").count(), 2, "{placed:?}");
    let expected =
        "0/2 nodes are available: 2 Insufficient cpu. preemption: 0/2 nodes are available: 2 No preemption victims found for incoming pod.";
    assert_eq!(cluster.message("late"), expected);
    assert_eq!(cluster.field("late", "/status/conditions/0/reason"), "Unschedulable");
    let events = cluster.api.list(&gvr_of::<Event>());
    assert!(events.iter().any(|e| e["reason"] == "FailedScheduling" && e["message"] == expected));
    assert!(
        events.iter().any(|e| e["reason"] == "Scheduled"
            && e["message"] == format!("Successfully assigned ns/p0 to {}", placed[0].as_str().unwrap_or("")))
    );

    // Room that is given back is taken at once.
    let client = cluster.api.client();
    let gone = client.delete::<Pod>("ns", "p1", &Default::default()).await;
    assert!(gone.is_ok());
    settle().await;
    assert_eq!(cluster.node_of("late"), placed[1]);
}

#[tokio::test(start_paused = true)]
async fn each_filter_speaks_upstreams_words() {
    let mut tainted = node("n1", "2");
    tainted["spec"] = json!({"taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]});
    let mut cordoned = node("n2", "2");
    cordoned["spec"] = json!({"unschedulable": true});
    let cluster = Cluster::start(&[tainted, cordoned, node("n3", "1")]);
    cluster.add(pod("big", "1500m", json!({})));
    cluster.add(pod("choosy", "1m", json!({"nodeSelector": {"disk": "ssd"}})));
    let by_name = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
        {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n3"]}]}]}}});
    cluster.add(pod("daemon", "2", json!({"affinity": by_name})));
    cluster.add(pod("gated", "1m", json!({"schedulingGates": [{"name": "wait"}]})));
    cluster.add(pod("claims", "1m", json!({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]})));
    settle().await;
    let not_helpful = "preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling.";
    let table = [
        ("big", "1 Insufficient cpu, 1 node(s) had untolerated taint(s), 1 node(s) were unschedulable."),
        (
            "choosy",
            "1 node(s) didn't match Pod's node affinity/selector, 1 node(s) had untolerated taint(s), 1 node(s) were unschedulable.",
        ),
        ("daemon", "1 Insufficient cpu, 2 node(s) didn't satisfy plugin(s) [NodeAffinity]."),
        ("claims", "persistentvolumeclaim \"data\" not found."),
    ];
    for (name, words) in table {
        assert_eq!(cluster.message(name), format!("0/3 nodes are available: {words} {not_helpful}"), "{name}");
    }
    assert_eq!(cluster.node_of("gated"), Value::Null);
    cluster.api.change(&pods(), "ns", "gated", |p| p["spec"]["schedulingGates"] = json!([]));
    settle().await;
    assert_eq!(cluster.node_of("gated"), "n3");
}

#[tokio::test(start_paused = true)]
async fn affinity_spread_and_ports_choose_nodes() {
    let cluster = Cluster::start(&[node("n1", "8"), node("n2", "8")]);
    let anti = json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"labelSelector": {"matchLabels": {"app": "a"}}, "topologyKey": "kubernetes.io/hostname"}]}});
    cluster.add(pod("one", "1m", json!({"affinity": anti})));
    settle().await;
    cluster.add(pod("two", "1m", json!({"affinity": anti})));
    settle().await;
    cluster.add(pod("three", "1m", json!({"affinity": anti})));
    settle().await;
    assert_ne!(cluster.node_of("one"), cluster.node_of("two"));
    assert!(
        cluster.message("three").starts_with("0/2 nodes are available: 2 node(s) didn't match pod anti-affinity rules."),
        "{}",
        cluster.message("three")
    );

    let cluster = Cluster::start(&[node("n1", "8"), node("n2", "8")]);
    let port = |name: &str| {
        let mut p = pod(name, "1m", json!({}));
        p["spec"]["containers"][0]["ports"] = json!([{"containerPort": 80, "hostPort": 8080}]);
        p
    };
    for name in ["x", "y", "z"] {
        cluster.add(port(name));
        settle().await;
    }
    assert_ne!(cluster.node_of("x"), cluster.node_of("y"));
    assert!(cluster.message("z").contains("2 node(s) didn't have free ports for the requested pod ports"));

    let cluster = Cluster::start(&[node("n1", "8"), node("n2", "8")]);
    let spread = json!({"topologySpreadConstraints": [
        {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"app": "a"}}}]});
    for n in 0..6 {
        cluster.add(pod(&format!("s{n}"), "1m", spread.clone()));
    }
    settle().await;
    assert_eq!((0..6).filter(|n| cluster.node_of(&format!("s{n}")) == "n1").count(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_higher_priority_preempts_the_unprotected() {
    let cluster = Cluster::start(&[node("n1", "2")]);
    cluster.add(pod("guarded", "1", json!({"priority": 1})));
    settle().await;
    let mut free = pod("free", "1", json!({"priority": 1}));
    free["metadata"]["labels"] = json!({"app": "b"});
    cluster.add(free);
    settle().await;
    cluster.api.insert(&gvr_of::<PodDisruptionBudget>(), json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"namespace": "ns", "name": "b"},
        "spec": {"selector": {"matchLabels": {"app": "a"}}}, "status": {"disruptionsAllowed": 0, "currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1}}));
    settle().await;
    cluster.api.take_log();
    cluster.add(pod("vip", "1", json!({"priority": 100})));
    settle().await;
    assert_eq!(cluster.node_of("vip"), "n1");
    assert!(cluster.api.get(&pods(), "ns", "free").is_none(), "the victim");
    assert_eq!(cluster.node_of("guarded"), "n1");
    assert_eq!(cluster.field("vip", "/status/nominatedNodeName"), "n1");
    let log = cluster.api.take_log();
    assert!(log.iter().any(|l| l == "patch pods/status ns/free"), "its condition says why: {log:?}");

    cluster.add(pod("never", "1", json!({"priority": 200, "preemptionPolicy": "Never"})));
    settle().await;
    assert!(cluster.message("never").ends_with("preemption: not eligible due to preemptionPolicy=Never."));
}

#[tokio::test(start_paused = true)]
async fn a_failed_binding_is_tried_again() {
    let cluster = Cluster::start(&[node("n1", "2")]);
    cluster.api.fail("create", "pods", 1, ApiError::internal("etcd sleeps"));
    cluster.add(pod("p", "2", json!({})));
    settle().await;
    assert_eq!(cluster.field("p", "/status/conditions/0/reason"), "SchedulerError");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(cluster.node_of("p"), "n1");
}

#[tokio::test(start_paused = true)]
async fn volumes_choose_nodes() {
    use tiphys_types::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
    use tiphys_types::api::storage::v1::CSINode;
    let zoned = |name: &str, zone: &str| {
        let mut node = node(name, "8");
        node["metadata"]["labels"]["topology.kubernetes.io/zone"] = json!(zone);
        node
    };
    let cluster = Cluster::start(&[zoned("n1", "a"), zoned("n2", "b")]);
    let limits = json!({"metadata": {"name": "n2"}, "spec": {"drivers": [{"name": "d", "nodeID": "n2", "allocatable": {"count": 2}}]}});
    cluster.api.insert(&gvr_of::<CSINode>(), limits);
    let claim = |name: &str, mode: &str| {
        cluster.api.insert(
            &gvr_of::<PersistentVolume>(),
            json!({
            "metadata": {"name": format!("pv-{name}"), "labels": {"topology.kubernetes.io/zone": "b__c"}},
            "spec": {"csi": {"driver": "d", "volumeHandle": name}}, "status": {"phase": "Bound"}}),
        );
        cluster.api.insert(
            &gvr_of::<PersistentVolumeClaim>(),
            json!({
            "metadata": {"namespace": "ns", "name": name, "annotations": {"pv.kubernetes.io/bind-completed": "yes"}},
            "spec": {"volumeName": format!("pv-{name}"), "accessModes": [mode]}, "status": {"phase": "Bound"}}),
        );
    };
    let user = |name: &str, claim: &str| {
        let volumes = json!({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": claim}}]});
        cluster.add(pod(name, "1m", volumes));
    };
    claim("alone", "ReadWriteOncePod");
    claim("shared", "ReadWriteOnce");
    claim("third", "ReadWriteOnce");
    settle().await;
    user("first", "alone");
    settle().await;
    user("second", "alone");
    user("third", "shared");
    settle().await;
    user("fourth", "shared");
    settle().await;
    user("fifth", "third");
    settle().await;
    assert_eq!([cluster.node_of("first"), cluster.node_of("third"), cluster.node_of("fourth")], ["n2", "n2", "n2"], "the volumes' zone");
    let taken = "node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod";
    assert!(cluster.message("second").contains(taken), "{}", cluster.message("second"));
    let full = "1 node(s) exceed max volume count, 1 node(s) had no available volume zone.";
    assert!(cluster.message("fifth").contains(full), "{}", cluster.message("fifth"));
    let client = cluster.api.client();
    assert!(client.delete::<Pod>("ns", "first", &Default::default()).await.is_ok());
    settle().await;
    assert_eq!(cluster.node_of("second"), "n2", "free again");
}

/// Pods that a Service selects are spread, though nobody asks for it and one node has most room (upstream's default constraints).
#[tokio::test(start_paused = true)]
async fn companions_are_spread_by_default() {
    let cluster = Cluster::start(&[node("n1", "800"), node("n2", "80"), node("n3", "80")]);
    let service = json!({"metadata": {"namespace": "ns", "name": "s"}, "spec": {"selector": {"app": "a"}}});
    cluster.api.insert(&gvr_of::<tiphys_types::api::core::v1::Service>(), service);
    settle().await;
    for n in 0..6 {
        cluster.add(pod(&format!("p{n}"), "1", json!({})));
        settle().await;
    }
    let mut placed: Vec<String> = (0..6).map(|n| cluster.node_of(&format!("p{n}")).to_string()).collect();
    placed.sort();
    assert_eq!(placed.iter().filter(|n| **n == placed[0]).count(), 2, "{placed:?}");
}
