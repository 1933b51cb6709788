//! `kill -9` of any process of a cluster during 10,000 writes: no acknowledged write is lost, the cluster goes on, and containers whose
//! supervisor lives do not notice.
//!
//! `TIPHYS_KILL_ROUNDS` says how often (5), `TIPHYS_KILL_SEED` begins the dice.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tiphys_tests::https::{Connection, Door};
use tiphys_tests::{Cluster, eventually, in_new_namespace, run};

const WRITES: usize = 10_000;
const WRITERS: usize = 4;
/// Objects of each writer; each is written many times.
const OBJECTS: usize = 250;
const HEALED_WITHIN: Duration = Duration::from_secs(60);

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// xorshift64*: the same seed gives the same kills.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        usize::try_from(self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33).unwrap_or(0) % limit
    }
}

/// Writes objects one after the other and remembers the last content of each that was acknowledged.
struct Writer {
    door: Door,
    connection: Option<Connection>,
    number: usize,
    acknowledged: BTreeMap<String, usize>,
    next: usize,
    retries: usize,
}

impl Writer {
    fn write(&mut self) -> Result<()> {
        let value = self.next;
        self.next += 1;
        let name = format!("w{}-{}", self.number, value % OBJECTS);
        let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"value": value.to_string()}});
        let begun = Instant::now();
        loop {
            match self.put(&name, &body.to_string()) {
                Ok(()) => break,
                // Whether it was written is not known, so it is written again until that is.
                Err(error) if begun.elapsed() > HEALED_WITHIN => return Err(error.context("nobody takes writes any more")),
                Err(_) => {
                    self.connection = None;
                    self.retries += 1;
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
        }
        self.acknowledged.insert(name, value);
        Ok(())
    }

    fn put(&mut self, name: &str, body: &str) -> Result<()> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(self.door.connect()?),
        };
        const ALL: &str = "/api/v1/namespaces/writes/configmaps";
        let (status, text) = connection.ask("PUT", &format!("{ALL}/{name}"), body)?;
        let (status, text) = if status == 404 { connection.ask("POST", ALL, body)? } else { (status, text) };
        ensure!(matches!(status, 200 | 201), "{status}: {text}");
        Ok(())
    }
}

struct Killed {
    role: String,
    pid: i64,
    /// Of which node, for supervisors and node processes.
    node: String,
}

fn kill_one(cluster: &Cluster, dice: &mut Dice) -> Result<Killed> {
    let status = cluster.status()?;
    let all: Vec<&Value> = status["processes"].as_array().context("no processes")?.iter().collect();
    ensure!(all.len() >= 4, "two nodes are four processes: {all:?}");
    let one = all[dice.below(all.len())];
    let pid = one["pid"].as_i64().context("no pid")?;
    let words: Vec<&str> = one["command"].as_array().context("no command")?.iter().filter_map(Value::as_str).collect();
    let node = words.iter().position(|w| *w == "--node").and_then(|at| words.get(at + 1)).unwrap_or(&"1");
    run(Command::new("kill").args(["-9", &pid.to_string()]))?;
    Ok(Killed { role: one["role"].as_str().unwrap_or("").into(), pid, node: (*node).into() })
}

/// One pod on each node that must not notice.
const STEADY: &str = "
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: steady}
spec:
  selector: {matchLabels: {app: steady}}
  template:
    metadata: {labels: {app: steady}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - {name: c, image: IMAGE, imagePullPolicy: Never, args: [demo]}
";

/// Node → container id and restarts of the steady pods.
fn steady(cluster: &Cluster) -> Result<BTreeMap<String, (String, i64)>> {
    let pods = cluster.json("get pods -l app=steady")?;
    let one = |pod: &Value| {
        let container = &pod["status"]["containerStatuses"][0];
        let node = pod["spec"]["nodeName"].as_str()?.rsplit('-').next()?.to_owned();
        let running = container["state"]["running"].is_object();
        running.then_some((node, (container["containerID"].as_str()?.to_owned(), container["restartCount"].as_i64()?)))
    };
    let all: BTreeMap<_, _> = pods["items"].as_array().into_iter().flatten().filter_map(one).collect();
    ensure!(all.len() == 2, "a steady pod runs on each node: {pods}");
    Ok(all)
}

fn check_contents(cluster: &Cluster, writers: &[Writer]) -> Result<usize> {
    let listed = cluster.json("get configmaps -n writes")?;
    let items = listed["items"].as_array().context("no items")?;
    let there: BTreeMap<&str, &str> =
        items.iter().filter_map(|i| Some((i["metadata"]["name"].as_str()?, i["data"]["value"].as_str()?))).collect();
    let mut count = 0;
    for (name, value) in writers.iter().flat_map(|w| &w.acknowledged) {
        let found = there.get(name.as_str());
        ensure!(found == Some(&value.to_string().as_str()), "{name} was acknowledged with {value} and holds {found:?}");
        count += 1;
    }
    Ok(count)
}

fn round(cluster: &Cluster, writers: &mut [Writer], image: &str, dice: &mut Dice) -> Result<String> {
    let before = steady(cluster)?;
    let done = AtomicUsize::new(0);
    let kill_at = dice.below(WRITES);
    let begun = Instant::now();
    let killed = std::thread::scope(|scope| {
        let working: Vec<_> = writers
            .iter_mut()
            .map(|writer| {
                let done = &done;
                scope.spawn(move || {
                    for _ in 0..WRITES / WRITERS {
                        writer.write()?;
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok::<_, anyhow::Error>(())
                })
            })
            .collect();
        while done.load(Ordering::Relaxed) < kill_at && !working.iter().all(|w| w.is_finished()) {
            std::thread::sleep(Duration::from_millis(1));
        }
        let killed = kill_one(cluster, dice);
        for one in working {
            one.join().map_err(|_| anyhow::anyhow!("a writer panicked"))??;
        }
        killed
    })?;
    let wrote = begun.elapsed();
    let checked = check_contents(cluster, writers)?;
    goes_on(cluster, image)?;
    let after = eventually(HEALED_WITHIN, || steady(cluster))?;
    for (node, was) in before.iter().filter(|(node, _)| killed.role != "supervisor" || **node != killed.node) {
        ensure!(after.get(node) == Some(was), "a container of node {node} noticed the end of a {} process: {was:?} {after:?}", killed.role);
    }
    if killed.role == "supervisor" {
        renew(cluster, &killed.node)?;
    }
    Ok(format!(
        "{} {} of node {} killed after {kill_at} writes; {checked} objects hold what was acknowledged; {wrote:.1?}",
        killed.role, killed.pid, killed.node
    ))
}

/// Another pod for the one that ended with its supervisor: each end of a container doubles the kubelet's wait before it starts it again, and what is
/// tested here is not patience.
fn renew(cluster: &Cluster, node: &str) -> Result<()> {
    let pods = cluster.json("get pods -l app=steady")?;
    let here = |pod: &&Value| pod["spec"]["nodeName"].as_str().is_some_and(|name| name.rsplit('-').next() == Some(node));
    let pod = pods["items"].as_array().into_iter().flatten().find(here).context("no steady pod on the node")?;
    let name = pod["metadata"]["name"].as_str().context("no name")?;
    cluster.k(&format!("delete pod {name} --grace-period=1"))?;
    eventually(HEALED_WITHIN, || steady(cluster)).map(drop)
}

/// All four processes are there, the nodes are ready, and a new pod runs.
fn goes_on(cluster: &Cluster, image: &str) -> Result<()> {
    eventually(HEALED_WITHIN, || {
        let processes = cluster.status()?["processes"].as_array().map_or(0, Vec::len);
        ensure!(processes == 4, "{processes} processes");
        Ok(())
    })?;
    eventually(HEALED_WITHIN, || cluster.k("wait --for=condition=Ready node --all --timeout=30s"))?;
    let run = format!("run fresh --image={image} --image-pull-policy=Never --restart=Never -- demo");
    eventually(HEALED_WITHIN, || cluster.k(&run))?;
    cluster.k("wait --for=condition=Ready pod/fresh --timeout=60s")?;
    cluster.k("delete pod fresh --grace-period=1")?;
    Ok(())
}

fn writers(cluster: &Cluster) -> Result<Vec<Writer>> {
    let status = cluster.status()?;
    let server = status["apiServer"].as_str().context("no address")?;
    let pki = Path::new(status["caCertificate"].as_str().context("no CA")?).parent().context("no folder")?.to_owned();
    let door = Door::admin(server, &pki)?;
    let one = |number| Writer { door: door.clone(), connection: None, number, acknowledged: BTreeMap::new(), next: 0, retries: 0 };
    Ok((0..WRITERS).map(one).collect())
}

#[test]
fn any_process_may_be_killed_during_writes() -> Result<()> {
    in_new_namespace(|| {
        let rounds = setting("TIPHYS_KILL_ROUNDS", 5);
        let mut dice = Dice(u64::try_from(setting("TIPHYS_KILL_SEED", 7))? | 1);
        let cluster = Cluster::new("kill")?;
        cluster.up(&["--nodes", "2"])?;
        cluster.k("create namespace writes")?;
        let listed = cluster.tiphys_images()?;
        let image =
            listed.lines().find_map(|l| l.split_whitespace().find(|w| w.contains("tiphys"))).context("no built-in image")?.to_owned();
        cluster.apply(&STEADY.replace("IMAGE", &image))?;
        cluster.k("rollout status ds/steady --timeout=60s")?;
        let mut writers = writers(&cluster)?;
        for number in 1..=rounds {
            let told = round(&cluster, &mut writers, &image, &mut dice);
            match told {
                Ok(told) => println!("round {number}: {told}"),
                Err(error) => bail!("round {number}: {error:#}\nthe log:\n{}", cluster.log_end()),
            }
        }
        let retries: usize = writers.iter().map(|w| w.retries).sum();
        println!("{rounds} kills, {} writes, {retries} tries again", rounds * WRITES);
        Ok(())
    })
}

/// Whoever starts a process may have blocked signals, and a child inherits that.
#[test]
fn a_node_process_ends_when_it_is_asked_to() -> Result<()> {
    in_new_namespace(|| {
        let cluster = Cluster::new("asked")?;
        cluster.tiphys(&["up", "--detach", "--wait", "--nodes", "2"])?;
        let pid = |role: &str| -> Result<i64> {
            let status = cluster.status()?;
            let found = status["processes"].as_array().into_iter().flatten().find(|p| p["role"] == role).and_then(|p| p["pid"].as_i64());
            found.with_context(|| format!("no {role}: {status}"))
        };
        let node = pid("node")?;
        run(Command::new("kill").args(["-TERM", &node.to_string()]))?;
        eventually(HEALED_WITHIN, || {
            let now = pid("node")?;
            ensure!(now != node, "it goes on");
            Ok(())
        })
    })
}
