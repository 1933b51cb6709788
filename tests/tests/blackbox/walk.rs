//! The way of a user with kubectl through a cluster of three nodes, with images by their usual names, under every kubectl that is there:
//! the kit's (1.36), and 1.32 where `TIPHYS_KUBECTL_OLD` names one.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tiphys_tests::{Cluster, Registry, eventually, get, in_new_namespace, refused, run, tool};

const SOON: Duration = Duration::from_secs(60);

struct User<'a> {
    cluster: &'a Cluster,
    kubectl: &'a Path,
}

impl User<'_> {
    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(self.kubectl);
        command.args(words).env("KUBECONFIG", self.cluster.users_kubeconfig()).env("HOME", self.cluster.folder()).current_dir("/");
        command
    }

    fn k(&self, line: &str) -> Result<String> {
        run(&mut self.command(&line.split_whitespace().collect::<Vec<_>>()))
    }

    /// Runs the line; what it prints must hold every one of the words.
    fn says(&self, line: &str, words: &[&str]) -> Result<String> {
        let said = self.k(line)?;
        match words.iter().find(|w| !said.contains(**w)) {
            Some(missing) => bail!("kubectl {line} does not say {missing:?}:\n{said}"),
            None => Ok(said),
        }
    }

    fn soon(&self, line: &str, words: &[&str]) -> Result<String> {
        eventually(SOON, || self.says(line, words))
    }

    fn file(&self, name: &str, text: &str) -> Result<String> {
        let path = self.cluster.folder().join(name);
        std::fs::write(&path, text)?;
        Ok(path.display().to_string())
    }
}

fn deployments(u: &User) -> Result<()> {
    u.says("create deployment web --image=nginx --replicas=2", &["deployment.apps/web created"])?;
    u.says("rollout status deployment/web --timeout=90s", &["successfully rolled out"])?;
    u.says("scale deployment web --replicas=3", &["scaled"])?;
    u.says("rollout status deployment/web --timeout=90s", &["successfully rolled out"])?;
    u.says("set image deployment/web nginx=nginx:1.27", &["image updated"])?;
    u.says("rollout status deployment/web --timeout=90s", &["successfully rolled out"])?;
    u.says("rollout history deployment/web", &["REVISION", "1", "2"])?;
    u.says("rollout history deployment/web --revision=2", &["nginx:1.27"])?;
    u.says("rollout undo deployment/web", &["rolled back"])?;
    u.says("rollout status deployment/web --timeout=90s", &["successfully rolled out"])?;
    let image = u.k("get deployment web -o jsonpath={.spec.template.spec.containers[0].image}")?;
    ensure!(image == "nginx", "undo brings the first image back: {image}");
    u.says("rollout restart deployment/web", &["restarted"])?;
    u.says("rollout status deployment/web --timeout=90s", &["successfully rolled out"])?;
    Ok(())
}

/// ClusterIP and NodePort from the first node's host, and from a pod of every node.
fn services(u: &User) -> Result<()> {
    u.says("expose deployment web --port=80 --type=NodePort", &["service/web exposed"])?;
    let cluster_ip = u.k("get service web -o jsonpath={.spec.clusterIP}")?;
    let port = u.k("get service web -o jsonpath={.spec.ports[0].nodePort}")?;
    let nodes = u.k("get nodes -o jsonpath={.items[*].status.addresses[?(@.type==\"InternalIP\")].address}")?;
    ensure!(nodes.split_whitespace().count() == 3, "three nodes: {nodes}");
    let places: Vec<String> =
        std::iter::once(format!("{cluster_ip}:80")).chain(nodes.split_whitespace().map(|n| format!("{n}:{port}"))).collect();
    for place in &places {
        let page = eventually(SOON, || get(&format!("http://{place}/")))?;
        ensure!(page.to_lowercase().contains("nginx"), "{place}: {page}");
    }
    let askers = u.file("askers.yaml", ASKERS)?;
    u.says(&format!("apply -f {askers}"), &["daemonset.apps/asker created"])?;
    u.says("rollout status ds/asker --timeout=90s", &["successfully rolled out"])?;
    for pod in u.k("get pods -l app=asker -o name")?.split_whitespace() {
        for place in places.iter().map(String::as_str).chain(["web.default.svc.cluster.local:80"]) {
            let page = eventually(SOON, || u.k(&format!("exec {pod} -- wget -q -T 3 -O - http://{place}/")))?;
            ensure!(page.to_lowercase().contains("nginx"), "{pod} asks {place}: {page}");
        }
        // busybox asks every search domain and fails for those that do not know the name, so what it says is what counts.
        let asked = u.command(&["exec", pod, "--", "nslookup", "kubernetes"]).output()?;
        let answer = String::from_utf8_lossy(&asked.stdout).into_owned();
        ensure!(answer.contains("Name:\tkubernetes.default.svc.cluster.local\nAddress: 10."), "{answer}");
    }
    pods_reach_each_other(u)
}

const ASKERS: &str = "
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: asker}
spec:
  selector: {matchLabels: {app: asker}}
  template:
    metadata: {labels: {app: asker}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: c, image: busybox, command: [sh, -c, 'echo ready; httpd -f -p 8080 -h /etc & sleep 100000']}]
";

fn pods_reach_each_other(u: &User) -> Result<()> {
    let pods = u.k("get pods -l app=asker -o jsonpath={range.items[*]}{.metadata.name}={.status.podIP},{end}")?;
    let pods: Vec<(&str, &str)> = pods.split(',').filter_map(|p| p.split_once('=')).collect();
    ensure!(pods.len() == 3, "{pods:?}");
    for (from, _) in &pods {
        for (_, address) in &pods {
            u.says(&format!("exec {from} -- wget -q -T 3 -O - http://{address}:8080/hostname"), &["asker"])?;
        }
    }
    Ok(())
}

fn looking(u: &User) -> Result<()> {
    u.says("get pods -o wide", &["NODE", "Running", "10."])?;
    u.says("get pods -A", &["NAMESPACE", "default"])?;
    u.says("get deployment web -o yaml", &["kind: Deployment", "replicas: 3"])?;
    u.says("get deployment web -o json", &["\"kind\": \"Deployment\""])?;
    u.says("get all", &["pod/", "service/web", "deployment.apps/web", "replicaset.apps/"])?;
    u.says("get pods -l app=web", &["web-"])?;
    u.says("get pods --field-selector=status.phase=Running", &["web-"])?;
    u.says("get pods --sort-by=.metadata.name --show-labels", &["app=web"])?;
    u.says("describe deployment web", &["StrategyType", "NewReplicaSet", "Events"])?;
    u.says("describe pod -l app=web", &["Node:", "Container ID", "Conditions", "Scheduled"])?;
    u.says("describe node", &["Capacity", "Allocatable", "Non-terminated Pods"])?;
    u.says("describe service web", &["Endpoints", "NodePort"])?;
    u.says("explain deployment.spec.strategy", &["FIELDS", "rollingUpdate"])?;
    u.says("explain pod.spec.containers --recursive", &["livenessProbe"])?;
    u.says("api-resources", &["deployments", "deploy", "cronjobs", "networkpolicies"])?;
    u.says("api-resources --namespaced=false -o name", &["nodes", "clusterroles.rbac.authorization.k8s.io"])?;
    u.says("api-versions", &["apps/v1", "batch/v1"])?;
    u.says("cluster-info", &["is running at"])?;
    u.says("version", &["Server Version: v1.36"])?;
    u.says("events", &["Scheduled"])?;
    u.says("get events --sort-by=.lastTimestamp", &["Pulled"])?;
    u.says("auth can-i create pods", &["yes"])?;
    u.says("auth whoami", &["kubernetes-admin"])?;
    Ok(())
}

/// `kubectl top`, and an autoscaler that acts on the same figures.
fn usage(u: &User) -> Result<()> {
    let file = u.file("busy.yaml", BUSY)?;
    u.says(&format!("apply -f {file}"), &["deployment.apps/busy created", "horizontalpodautoscaler.autoscaling/busy created"])?;
    u.says("rollout status deployment/busy --timeout=90s", &["successfully rolled out"])?;
    let nodes = u.says("top nodes", &["CPU(cores)", "MEMORY(bytes)"])?;
    ensure!(nodes.lines().count() == 4 && !nodes.contains("<unknown>"), "three nodes: {nodes}");
    let pods = u.soon("top pods -l app=busy", &["CPU(cores)", "busy-"])?;
    ensure!(!pods.contains("web-"), "only those of the selector: {pods}");
    u.says("top pods --containers", &["POD", "busy-", "burner"])?;
    u.says("top pods -A", &["NAMESPACE", "default", "web-"])?;
    u.says("get nodes.metrics.k8s.io", &["NAME", "CPU", "MEMORY", "WINDOW"])?;
    u.says("get pods.metrics.k8s.io -l app=busy -o yaml", &["kind: PodMetrics", "name: burner", "memory: "])?;
    u.soon("get hpa busy -o jsonpath={.status.currentMetrics[0].resource.current.averageUtilization}/{.status.desiredReplicas}", &["/2"])?;
    u.soon("get deployment busy -o jsonpath={.spec.replicas}", &["2"])?;
    u.says("describe hpa busy", &["ScalingActive", "ValidMetricFound", "SuccessfulRescale"])?;
    u.k("delete hpa/busy deployment/busy").map(drop)
}

/// Uses what it may, which is twice what it asks for.
const BUSY: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: busy}
spec:
  selector: {matchLabels: {app: busy}}
  template:
    metadata: {labels: {app: busy}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: burner
        image: busybox
        command: [sh, -c, 'while true; do true; done']
        resources: {requests: {cpu: 50m}, limits: {cpu: 100m}}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: busy}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: busy}
  minReplicas: 1
  maxReplicas: 2
  metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 50}}}]
";

fn watching(u: &User) -> Result<()> {
    let mut child = u.command(&["get", "configmaps", "-w", "-o", "name"]).stdout(Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(child.stdout.take().context("no pipe")?).lines();
    u.says("create configmap seen --from-literal=a=b", &["created"])?;
    let found = lines.by_ref().any(|line| line.is_ok_and(|l| l == "configmap/seen"));
    child.kill()?;
    child.wait()?;
    ensure!(found, "a watch shows what is made");
    Ok(())
}

fn changing(u: &User) -> Result<()> {
    let text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: applied}\ndata: {colour: red}\n";
    let file = u.file("applied.yaml", text)?;
    u.says(&format!("apply -f {file}"), &["configmap/applied created"])?;
    u.says(&format!("apply -f {file}"), &["unchanged"])?;
    u.says(&format!("diff -f {file}"), &[])?;
    let file = u.file("applied.yaml", &text.replace("red", "green"))?;
    let differs = refused(&mut u.command(&["diff", "-f", &file]))?;
    ensure!(differs.contains("+  colour: green") && differs.contains("-  colour: red"), "{differs}");
    u.says(&format!("apply -f {file}"), &["configured"])?;
    u.says(&format!("apply --server-side --force-conflicts -f {file}"), &["serverside-applied"])?;
    let edited = run(u.command(&["edit", "configmap", "applied"]).env("KUBE_EDITOR", "sed -i s/green/blue/"))?;
    ensure!(edited.contains("edited"), "{edited}");
    u.says("get configmap applied -o jsonpath={.data.colour}", &["blue"])?;
    u.says("label configmap applied tier=front", &["labeled"])?;
    u.says("get configmaps -l tier=front -o name", &["configmap/applied"])?;
    u.says("label configmap applied tier-", &["unlabeled"])?;
    u.says("annotate configmap applied note=here", &["annotated"])?;
    u.says("patch configmap applied -p {\"data\":{\"size\":\"big\"}}", &["patched"])?;
    u.says("get configmap applied -o jsonpath={.data.size}", &["big"])?;
    let wrong = u.file("wrong.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: wrong}\ndat: {a: b}\n")?;
    let said = refused(&mut u.command(&["apply", "-f", &wrong]))?;
    ensure!(said.contains("unknown field \"dat\""), "{said}");
    u.says("delete configmap applied seen", &["deleted"]).map(drop)
}

fn inside(u: &User) -> Result<()> {
    let file = u.file("box.yaml", BOX)?;
    u.says(&format!("apply -f {file}"), &["pod/box created"])?;
    u.says("wait --for=condition=Ready pod/box --timeout=90s", &["condition met"])?;
    u.says("exec box -- cat /etc/hostname", &["box"])?;
    let mut with_input = u.command(&["exec", "-i", "box", "--", "cat"]);
    let mut child = with_input.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    child.stdin.take().context("no pipe")?.write_all(b"to and fro\n")?;
    ensure!(child.wait_with_output()?.stdout == b"to and fro\n", "exec -i gives back what it gets");
    let code = u.command(&["exec", "box", "--", "sh", "-c", "exit 7"]).output()?.status.code();
    ensure!(code == Some(7), "exec carries the exit code: {code:?}");
    on_a_terminal(u)?;
    u.says("logs box", &["first words"])?;
    follow(u)?;
    let local = u.file("there.txt", "carried\n")?;
    u.k(&format!("cp {local} box:/tmp/there.txt"))?;
    let back = u.cluster.folder().join("back.txt").display().to_string();
    u.k(&format!("cp box:/tmp/there.txt {back}"))?;
    ensure!(std::fs::read_to_string(&back)? == "carried\n", "cp brings back what it took");
    previous(u)?;
    attach(u)?;
    u.k("delete pod box --grace-period=1").map(drop)
}

const BOX: &str = "
apiVersion: v1
kind: Pod
metadata: {name: box}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: busybox
    stdin: true
    command: [sh, -c, 'echo first words; trap \"exit 0\" TERM; while read line; do echo got $line; done; sleep 100000']
";

/// `script` gives kubectl a terminal, as a user has.
fn on_a_terminal(u: &User) -> Result<()> {
    let line = format!("{} exec -it box -- sh -c 'tty; stty size'", u.kubectl.display());
    let mut command = Command::new("script");
    command.args(["-qec", &line, "/dev/null"]).env("KUBECONFIG", u.cluster.users_kubeconfig()).env("HOME", u.cluster.folder());
    let said = run(command.stdin(Stdio::null()))?;
    ensure!(said.contains("/dev/pts/"), "a terminal inside: {said}");
    Ok(())
}

fn follow(u: &User) -> Result<()> {
    let mut child = u.command(&["logs", "-f", "box"]).stdout(Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(child.stdout.take().context("no pipe")?).lines();
    ensure!(lines.next().transpose()?.as_deref() == Some("first words"), "logs -f begins with what was said");
    let mut attached = u.command(&["attach", "-i", "box"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    attached.stdin.as_mut().context("no pipe")?.write_all(b"a line\n")?;
    let heard = lines.next().transpose()?;
    for child in [&mut attached, &mut child] {
        child.kill()?;
        child.wait()?;
    }
    ensure!(heard.as_deref() == Some("got a line"), "logs -f follows what attach -i sends: {heard:?}");
    Ok(())
}

fn previous(u: &User) -> Result<()> {
    run(&mut u.command(&["run", "again", "--image=busybox", "--", "sh", "-c", "echo once more; exit 1"]))?;
    u.soon("logs again --previous", &["once more"])?;
    u.soon("get pod again", &["CrashLoopBackOff"])?;
    u.k("delete pod again --grace-period=1").map(drop)
}

fn attach(u: &User) -> Result<()> {
    let words = ["run", "talk", "--image=busybox", "--restart=Never", "--rm", "-i", "--", "sh", "-c", "read line; echo heard $line"];
    let mut child = u.command(&words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    child.stdin.take().context("no pipe")?.write_all(b"you\n")?;
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(said.contains("heard you"), "run -i --rm: {said}{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn port_forward(u: &User) -> Result<()> {
    let mut child = u.command(&["port-forward", "service/web", ":80"]).stdout(Stdio::piped()).spawn()?;
    let mut line = String::new();
    // Kept until the end: kubectl goes on writing to it.
    let mut output = BufReader::new(child.stdout.take().context("no pipe")?);
    output.read_line(&mut line)?;
    let port = line.split_whitespace().find_map(|w| w.strip_prefix("127.0.0.1:")).map(str::to_owned);
    let page = port.with_context(|| line.clone()).and_then(|port| get(&format!("http://127.0.0.1:{port}/")));
    child.kill()?;
    child.wait()?;
    ensure!(page?.to_lowercase().contains("nginx"), "the forwarded port answers");
    Ok(())
}

fn nodes(u: &User) -> Result<()> {
    let node = u.k("get nodes -o jsonpath={.items[2].metadata.name}")?;
    u.says("get nodes", &["Ready", "v1.36"])?;
    u.says(&format!("taint node {node} away=yes:NoSchedule"), &["tainted"])?;
    u.says(&format!("taint node {node} away-"), &["untainted"])?;
    u.says(&format!("cordon {node}"), &["cordoned"])?;
    u.says("get nodes", &["SchedulingDisabled"])?;
    u.says(&format!("drain {node} --ignore-daemonsets --delete-emptydir-data --force --timeout=90s"), &["drained"])?;
    let left = u.k(&format!("get pods -l app=web --field-selector=spec.nodeName={node} -o name"))?;
    ensure!(left.trim().is_empty(), "a drained node has no pods: {left}");
    u.says(&format!("uncordon {node}"), &["uncordoned"])?;
    u.says("rollout status deployment/web --timeout=90s", &["successfully rolled out"]).map(drop)
}

/// Programs that people run, by the names that they use.
fn images(u: &User) -> Result<()> {
    u.k("run hello --image=cloudnatived/demo:hello --port=8888")?;
    u.k("run redis --image=redis --port=6379")?;
    u.k("run agn --image=registry.k8s.io/e2e-test-images/agnhost:2.55 -- netexec --http-port=8080")?;
    u.says("wait --for=condition=Ready pod/hello pod/redis pod/agn --timeout=120s", &["condition met"])?;
    let address = u.k("get pod hello -o jsonpath={.status.podIP}")?;
    ensure!(eventually(SOON, || get(&format!("http://{address}:8888/")))?.contains("Hello, 世界"), "the demo answers");
    u.soon("exec redis -- redis-cli ping", &["PONG"])?;
    let address = u.k("get pod agn -o jsonpath={.status.podIP}")?;
    ensure!(eventually(SOON, || get(&format!("http://{address}:8080/hostname")))?.contains("agn"), "agnhost answers");
    u.k("delete pod hello redis agn --grace-period=1").map(drop)
}

fn cleaning_up(u: &User) -> Result<()> {
    u.k("delete service web")?;
    u.k("delete deployment web")?;
    u.k("delete ds asker")?;
    u.says("wait --for=delete pod --all --timeout=90s", &[]).map(drop)
}

type Part = (&'static str, fn(&User) -> Result<()>);

const PARTS: [Part; 11] = [
    ("deployments", deployments),
    ("services", services),
    ("looking", looking),
    ("usage", usage),
    ("watching", watching),
    ("changing", changing),
    ("inside", inside),
    ("port-forward", port_forward),
    ("nodes", nodes),
    ("images", images),
    ("cleaning up", cleaning_up),
];

fn walk(cluster: &Cluster, kubectl: &Path) -> Result<()> {
    let user = User { cluster, kubectl };
    let version = user.k("version --client")?;
    // TIPHYS_WALK=nodes,images walks only these parts.
    let only = std::env::var("TIPHYS_WALK").unwrap_or_default();
    for (name, part) in PARTS.iter().filter(|(name, _)| only.is_empty() || only.split(',').any(|o| o == *name)) {
        part(&user).with_context(|| format!("{name} with {}", version.lines().next().unwrap_or("")))?;
    }
    Ok(())
}

#[test]
fn the_way_of_a_user_with_kubectl() -> Result<()> {
    in_new_namespace(|| {
        let _registry = Registry::start()?;
        let cluster = Cluster::new("walk")?;
        cluster.up(&["--nodes", "3"])?;
        let walked = walk(&cluster, &tool("kubectl")).and_then(|()| match std::env::var_os("TIPHYS_KUBECTL_OLD") {
            Some(old) => walk(&cluster, Path::new(&old)),
            None => {
                println!("without kubectl 1.32: TIPHYS_KUBECTL_OLD names none");
                Ok(())
            }
        });
        walked.with_context(|| format!("the cluster's log:\n{}", cluster.log_end()))
    })
}

#[test]
fn two_clusters_at_once() -> Result<()> {
    in_new_namespace(|| {
        let (one, two) = (Cluster::new("one")?, Cluster::new("two")?);
        let urls = [&one, &two].map(|cluster| {
            let said = cluster.tiphys(&["up", "--detach", "--wait", "--demo"])?;
            let url = said.lines().find_map(|l| l.split_whitespace().find(|w| w.starts_with("http://"))).context("no URL")?.to_owned();
            Ok::<_, anyhow::Error>(url)
        });
        let urls = urls.into_iter().collect::<Result<Vec<_>>>()?;
        ensure!(urls[0] != urls[1], "each has its own: {urls:?}");
        one.tiphys(&["delete"])?;
        ensure!(get(&urls[0]).is_err(), "the deleted one does not answer");
        ensure!(get(&urls[1])?.contains("Hello, 世界"), "the other one goes on");
        two.tiphys(&["delete"])?;
        Ok(())
    })
}
