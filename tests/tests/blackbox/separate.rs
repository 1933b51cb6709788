//! A cluster of separate processes, each called by upstream's program name with upstream's flags; two controller managers, one of which leads;
//! then upstream's own controller manager and scheduler, unmodified, in the place of ours.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tiphys_tests::pki::Pki;
use tiphys_tests::{Registry, eventually, get, in_new_namespace, program, run, tool};

const NODE: &str = "172.31.5.1";
const SOON: Duration = Duration::from_secs(60);
/// A slow machine's patience with upstream's controllers.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);

/// The processes of a cluster as an administrator starts them one by one, with what kubeadm would make for them.
pub(super) struct Separate {
    folder: tempfile::TempDir,
    pki: Pki,
    running: Vec<(String, Child)>,
}

impl Separate {
    pub(super) fn new() -> Result<Separate> {
        run(Command::new("ip").args(["link", "add", "node0", "type", "veth", "peer", "name", "node0p"]))?;
        run(Command::new("ip").args(["addr", "add", &format!("{NODE}/24"), "dev", "node0"]))?;
        for link in ["node0", "node0p"] {
            run(Command::new("ip").args(["link", "set", link, "up"]))?;
        }
        let folder = tempfile::tempdir()?;
        let pki = Pki::make(&folder.path().join("pki"))?;
        let server = format!("https://{NODE}:6443");
        let service = "10.96.0.1".parse()?;
        pki.issue("apiserver", "kube-apiserver", "", &[NODE.parse()?, service])?;
        for (name, user, group) in [
            ("admin", "admin", "system:masters"),
            ("apiserver-kubelet", "kube-apiserver-kubelet-client", "system:masters"),
            // Its own role is small: the controllers act as service accounts.
            ("manager", "system:kube-controller-manager", ""),
            ("scheduler", "system:kube-scheduler", ""),
            ("kubelet", "system:node:alone", "system:nodes"),
            ("proxy", "system:kube-proxy", ""),
        ] {
            pki.issue(name, user, group, &[NODE.parse()?])?;
            pki.kubeconfig(name, &server)?;
        }
        let front = Pki::make(&folder.path().join("front"))?;
        front.issue("client", "front-proxy-client", "", &[])?;
        Ok(Separate { folder, pki, running: Vec::new() })
    }

    pub(super) fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    pub(super) fn pem(&self, name: &str) -> String {
        self.pki.path(name).display().to_string()
    }

    /// The program under one of its upstream names.
    fn ours(&self, name: &str) -> Result<PathBuf> {
        let bin = self.folder.path().join("bin");
        std::fs::create_dir_all(&bin)?;
        let link = bin.join(name);
        if !link.exists() {
            std::os::unix::fs::symlink(program()?, &link)?;
        }
        Ok(link)
    }

    pub(super) fn start(&mut self, name: &str, program: &Path, flags: &[&str]) -> Result<()> {
        let log = File::options().create(true).append(true).open(self.path(&format!("{name}.log")))?;
        let mut command = Command::new(program);
        command.args(flags).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
        self.running.push((name.to_owned(), child));
        Ok(())
    }

    pub(super) fn end(&mut self, name: &str, signal: &str) -> Result<()> {
        let at = self.running.iter().position(|(n, _)| n == name).with_context(|| format!("{name} does not run"))?;
        let (_, mut child) = self.running.remove(at);
        run(Command::new("kill").args([signal, &child.id().to_string()]))?;
        child.wait()?;
        Ok(())
    }

    pub(super) fn kubectl_command(&self, line: &str) -> Command {
        let mut command = Command::new(tool("kubectl"));
        command.args(line.split_whitespace()).env("KUBECONFIG", self.pem("admin.kubeconfig")).env("HOME", self.folder.path());
        command
    }

    pub(super) fn kubectl(&self, line: &str) -> Result<String> {
        run(&mut self.kubectl_command(line))
    }

    /// The command says this in the end.
    pub(super) fn says(&self, line: &str, want: &str) -> Result<()> {
        self.tells(line, |said| said == want).with_context(|| format!("wanted {want:?}"))
    }

    pub(super) fn tells(&self, line: &str, so: impl Fn(&str) -> bool) -> Result<()> {
        eventually(PATIENCE, || {
            let said = self.kubectl(line)?;
            ensure!(so(&said), "kubectl {line}: {said:?}");
            Ok(())
        })
    }

    pub(super) fn apply(&self, yaml: &str) -> Result<String> {
        std::fs::write(self.path("apply.yaml"), yaml)?;
        self.kubectl(&format!("apply -f {}", self.path("apply.yaml")))
    }

    /// With the flags that kubeadm writes, except that the store is not etcd.
    pub(super) fn start_apiserver(&mut self) -> Result<()> {
        let program = self.ours("kube-apiserver")?;
        let flags = [
            format!("--advertise-address={NODE}"),
            "--allow-privileged=true".into(),
            "--authorization-mode=Node,RBAC".into(),
            format!("--client-ca-file={}", self.pem("ca.crt")),
            format!("--data-dir={}", self.path("store")),
            "--enable-admission-plugins=NodeRestriction".into(),
            "--enable-bootstrap-token-auth=true".into(),
            format!("--kubelet-client-certificate={}", self.pem("apiserver-kubelet.crt")),
            format!("--kubelet-client-key={}", self.pem("apiserver-kubelet.key")),
            "--kubelet-preferred-address-types=InternalIP,ExternalIP,Hostname".into(),
            format!("--proxy-client-cert-file={}", self.path("front/client.crt")),
            format!("--proxy-client-key-file={}", self.path("front/client.key")),
            "--requestheader-allowed-names=front-proxy-client".into(),
            format!("--requestheader-client-ca-file={}", self.path("front/ca.crt")),
            "--requestheader-extra-headers-prefix=X-Remote-Extra-".into(),
            "--requestheader-group-headers=X-Remote-Group".into(),
            "--requestheader-username-headers=X-Remote-User".into(),
            "--secure-port=6443".into(),
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local".into(),
            format!("--service-account-key-file={}", self.pem("sa.pub")),
            format!("--service-account-signing-key-file={}", self.pem("sa.key")),
            "--service-cluster-ip-range=10.96.0.0/16".into(),
            format!("--tls-cert-file={}", self.pem("apiserver.crt")),
            format!("--tls-private-key-file={}", self.pem("apiserver.key")),
        ];
        self.start("apiserver", &program, &flags.each_ref().map(String::as_str))?;
        eventually(SOON, || self.kubectl("get --raw /readyz")).map(drop)
    }

    fn start_control_plane(&mut self) -> Result<()> {
        self.start_apiserver()?;
        for number in ["1", "2"] {
            let program = self.ours("kube-controller-manager")?;
            self.start_manager(&format!("manager-{number}"), &program, &[])?;
        }
        let (program, config) = (self.ours("kube-scheduler")?, self.pem("scheduler.kubeconfig"));
        self.start("scheduler", &program, &["--kubeconfig", &config, "--secure-port=0", "-v=2"])
    }

    /// Upstream's own, with the flags that kubeadm writes.
    pub(super) fn start_upstreams(&mut self) -> Result<()> {
        let (manager, scheduler) = (self.pem("manager.kubeconfig"), self.pem("scheduler.kubeconfig"));
        let flags = [
            "--allocate-node-cidrs=true".into(),
            format!("--authentication-kubeconfig={manager}"),
            format!("--authorization-kubeconfig={manager}"),
            "--bind-address=127.0.0.1".into(),
            format!("--client-ca-file={}", self.pem("ca.crt")),
            "--cluster-cidr=10.244.0.0/16".into(),
            "--cluster-name=kubernetes".into(),
            format!("--cluster-signing-cert-file={}", self.pem("ca.crt")),
            format!("--cluster-signing-key-file={}", self.pem("ca.key")),
            "--controllers=*,bootstrapsigner,tokencleaner".into(),
            format!("--kubeconfig={manager}"),
            "--leader-elect=true".into(),
            format!("--requestheader-client-ca-file={}", self.path("front/ca.crt")),
            format!("--root-ca-file={}", self.pem("ca.crt")),
            format!("--service-account-private-key-file={}", self.pem("sa.key")),
            "--service-cluster-ip-range=10.96.0.0/16".into(),
            "--use-service-account-credentials=true".into(),
        ];
        self.start("upstream-manager", &tool("kube-controller-manager"), &flags.each_ref().map(String::as_str))?;
        let flags = [
            format!("--authentication-kubeconfig={scheduler}"),
            format!("--authorization-kubeconfig={scheduler}"),
            "--bind-address=127.0.0.1".into(),
            format!("--kubeconfig={scheduler}"),
            "--leader-elect=true".into(),
        ];
        self.start("upstream-scheduler", &tool("kube-scheduler"), &flags.each_ref().map(String::as_str))
    }

    fn start_manager(&mut self, name: &str, program: &Path, more: &[&str]) -> Result<()> {
        let (config, ca, ca_key) = (self.pem("manager.kubeconfig"), self.pem("ca.crt"), self.pem("ca.key"));
        let flags = [
            "--kubeconfig",
            &config,
            "--root-ca-file",
            &ca,
            "--cluster-signing-cert-file",
            &ca,
            "--cluster-signing-key-file",
            &ca_key,
            "--allocate-node-cidrs=true",
            "--cluster-cidr=10.244.0.0/16",
            "--secure-port=0",
            "--use-service-account-credentials",
            "--leader-elect-lease-duration=15s",
            "--leader-elect-renew-deadline=12s",
            "--leader-elect-retry-period=500ms",
        ];
        self.start(name, program, &flags.iter().chain(more).copied().collect::<Vec<_>>())
    }

    pub(super) fn start_node(&mut self) -> Result<()> {
        let (kubelet, proxy, dns) = (self.ours("kubelet")?, self.ours("kube-proxy")?, program()?);
        let (root, config, ca) = (self.path("kubelet"), self.pem("kubelet.kubeconfig"), self.pem("ca.crt"));
        let node_ip = format!("--node-ip={NODE}");
        let configuration = self.path("kubelet.yaml");
        std::fs::write(
            &configuration,
            format!(
                "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nclusterDNS: [10.96.0.10]\ncgroupRoot: /tiphys-separate\n\
                 podLogsDir: {}\nauthentication: {{x509: {{clientCAFile: {ca}}}}}\n\
                 evictionHard: {{nodefs.available: 1%, nodefs.inodesFree: 1%}}\nrotateCertificates: true\nserverTLSBootstrap: true\n",
                self.path("pod-logs")
            ),
        )?;
        self.start(
            "kubelet",
            &kubelet,
            &[
                "--kubeconfig",
                &config,
                "--config",
                &configuration,
                "--hostname-override=alone",
                &node_ip,
                "--root-dir",
                &root,
                "--registry-mirror",
                "docker.io=http://127.0.0.1:5000",
            ],
        )?;
        let config = self.pem("proxy.kubeconfig");
        let flags = ["--kubeconfig", &config, "--hostname-override=alone", "--cluster-cidr=10.244.0.0/16", "--proxy-mode=nftables"];
        self.start("proxy", &proxy, &flags)?;
        let admin = self.pem("admin.kubeconfig");
        self.start("dns", &dns, &["dns", "--kubeconfig", &admin, "--address", NODE, "--own-addresses=10.96.0.10"])
    }

    /// The end of every log, for a failure.
    pub(super) fn logs(&self) -> String {
        let names =
            ["apiserver", "manager-1", "manager-2", "scheduler", "kubelet", "proxy", "dns", "upstream-manager", "upstream-scheduler"];
        let end = |name: &str| {
            let text = std::fs::read_to_string(self.path(&format!("{name}.log"))).unwrap_or_default();
            let lines: Vec<&str> = text.lines().rev().take(12).collect();
            format!("--- {name}\n{}\n", lines.into_iter().rev().collect::<Vec<_>>().join("\n"))
        };
        names.iter().map(|name| end(name)).collect()
    }
}

impl Drop for Separate {
    fn drop(&mut self) {
        for (_, child) in self.running.iter_mut().rev() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let root = self.folder.path().join("kubelet");
        if let Ok(pid) = std::fs::read_to_string(root.join("runtime/supervisor/supervisor.pid")) {
            let _ = run(Command::new("kill").args(["-TERM", pid.trim()]));
            // It ends when its containers have.
            let _ = eventually(Duration::from_secs(10), || {
                ensure!(!Path::new(&format!("/proc/{}", pid.trim())).exists());
                Ok(())
            });
        }
        let _ = run(Command::new("umount").args(["-R", "-l"]).arg(&root));
        let _ = run(Command::new("find").args(["/sys/fs/cgroup", "-depth", "-type", "d", "-path", "*/tiphys-separate*", "-delete"]));
    }
}

const DNS: &str = "
apiVersion: v1
kind: Service
metadata: {name: kube-dns, namespace: kube-system}
spec:
  clusterIP: 10.96.0.10
  ports: [{name: dns, port: 53, protocol: UDP}, {name: dns-tcp, port: 53, protocol: TCP}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: kube-dns-1, namespace: kube-system, labels: {kubernetes.io/service-name: kube-dns}}
addressType: IPv4
endpoints: [{addresses: [172.31.5.1], conditions: {ready: true}}]
ports: [{name: dns, port: 53, protocol: UDP}, {name: dns-tcp, port: 53, protocol: TCP}]
";

fn leader(it: &Separate) -> Result<String> {
    let holder = it.kubectl("get lease kube-controller-manager -n kube-system -o jsonpath={.spec.holderIdentity}")?;
    ensure!(!holder.is_empty(), "nobody leads");
    Ok(holder)
}

fn works(it: &mut Separate) -> Result<()> {
    it.start_control_plane()?;
    it.start_node()?;
    eventually(SOON, || it.kubectl("wait --for=condition=Ready node/alone --timeout=5s"))?;
    it.apply(DNS)?;
    it.kubectl("create deployment web --image=nginx --replicas=2")?;
    it.kubectl("rollout status deployment/web --timeout=60s")?;
    it.kubectl("expose deployment web --port=80")?;
    let address = it.kubectl("get service web -o jsonpath={.spec.clusterIP}")?;
    let page = eventually(SOON, || get(&format!("http://{address}:80/")))?;
    ensure!(page.to_lowercase().contains("nginx"), "the Service answers: {page}");
    it.kubectl("run asker --image=busybox --restart=Never -- sleep 600")?;
    it.kubectl("wait --for=condition=Ready pod/asker --timeout=60s")?;
    let answer = eventually(SOON, || it.kubectl("exec asker -- nslookup kubernetes.default.svc.cluster.local"))?;
    ensure!(answer.contains("10.96.0.1"), "{answer}");
    Ok(())
}

fn another_leads(it: &mut Separate) -> Result<()> {
    let before = leader(it)?;
    // Which of the two leads is not told by the Lease; the one whose log says so.
    let leads = |name: &str| std::fs::read_to_string(it.path(&format!("{name}.log"))).unwrap_or_default().contains("leading");
    let (leading, other) = if leads("manager-1") { ("manager-1", "manager-2") } else { ("manager-2", "manager-1") };
    ensure!(leads(leading) && !leads(other), "exactly one leads");
    it.end(leading, "-KILL")?;
    it.kubectl("scale deployment web --replicas=3")?;
    it.kubectl("rollout status deployment/web --timeout=60s")?;
    ensure!(leader(it)? != before, "another leads");
    it.end(other, "-TERM")?;
    it.end("scheduler", "-TERM")
}

fn upstreams_work_too(it: &mut Separate) -> Result<()> {
    let (sa, config) = (it.pem("sa.key"), it.pem("scheduler.kubeconfig"));
    it.start_manager("upstream-manager", &tool("kube-controller-manager"), &["--service-account-private-key-file", &sa])?;
    it.start("upstream-scheduler", &tool("kube-scheduler"), &["--kubeconfig", &config, "--secure-port=0"])?;
    it.kubectl("create deployment theirs --image=nginx --replicas=2")?;
    it.kubectl("rollout status deployment/theirs --timeout=120s")?;
    it.kubectl("delete deployment web")?;
    it.kubectl("wait --for=delete pod -l app=web --timeout=120s")?;
    Ok(())
}

#[test]
fn a_cluster_of_separate_processes() -> Result<()> {
    in_new_namespace(|| {
        let _registry = Registry::start()?;
        let mut it = Separate::new()?;
        let walked = works(&mut it).and_then(|()| another_leads(&mut it)).and_then(|()| upstreams_work_too(&mut it));
        walked.with_context(|| it.logs())
    })
}
