//! The two API servers, started with the same flags, in this network namespace; they end with their guards.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::json;

use crate::http::Connection;
use crate::step::Step;

const TOKEN: &str = "differential";
const READY_WITHIN: Duration = Duration::from_secs(120);

/// A server and what it needs; all end when this is dropped.
pub(crate) struct Server {
    children: Vec<Child>,
    address: String,
    folder: PathBuf,
    /// Upstream's controller manager, which fills in the roles that aggregate others.
    controllers: Option<PathBuf>,
}

impl Drop for Server {
    fn drop(&mut self) {
        for child in &mut self.children {
            child.kill().ok();
            child.wait().ok();
        }
        std::fs::remove_dir_all(&self.folder).ok();
    }
}

impl Server {
    /// `words` begin the command line: the program and, for `tiphys`, its command.
    pub(crate) fn ours(words: &[String]) -> Result<Server> {
        let folder = folder("ours")?;
        let data = folder.join("data");
        let storage = ["--data-dir".to_owned(), data.display().to_string()];
        Server::start(folder, words, 16444, &storage, vec![])
    }

    /// `bin` holds etcd and kube-apiserver.
    pub(crate) fn upstream(bin: &Path) -> Result<Server> {
        let folder = folder("upstream")?;
        let data = folder.join("etcd");
        let (clients, peers) = ("http://127.0.0.1:23790", "http://127.0.0.1:23791");
        let etcd = Command::new(bin.join("etcd"))
            .arg("--data-dir")
            .arg(&data)
            .args(["--log-level", "error", "--unsafe-no-fsync", "--listen-client-urls", clients, "--advertise-client-urls", clients])
            .args(["--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers, "--initial-cluster"])
            .arg(format!("default={peers}"))
            .stdout(Stdio::null())
            .stderr(log(&folder, "etcd.log")?)
            .spawn()
            .context("cannot start etcd")?;
        let program = bin.join("kube-apiserver").display().to_string();
        let mut server = Server::start(folder, &[program], 16443, &["--etcd-servers".into(), clients.into()], vec![etcd])?;
        server.controllers = Some(bin.join("kube-controller-manager"));
        Ok(server)
    }

    fn start(folder: PathBuf, words: &[String], port: u16, storage: &[String], mut children: Vec<Child>) -> Result<Server> {
        let key = folder.join("sa.key");
        let made = Command::new("openssl").args(["genrsa", "-out"]).arg(&key).arg("2048").stderr(Stdio::null()).status();
        if !made.context("cannot run openssl")?.success() {
            bail!("openssl genrsa failed");
        }
        let tokens = folder.join("tokens.csv");
        std::fs::write(&tokens, format!("{TOKEN},admin,admin,system:masters\n"))?;
        let (program, rest) = words.split_first().context("no program")?;
        let mut command = Command::new(program);
        command.args(rest).args(storage).args(["--bind-address", "127.0.0.1", "--secure-port", &port.to_string(), "--cert-dir"]);
        command.arg(folder.join("certs")).arg("--service-account-key-file").arg(&key).arg("--service-account-signing-key-file").arg(&key);
        command.args([
            "--service-account-issuer",
            "https://kubernetes.default.svc",
            "--authorization-mode",
            "Node,RBAC",
            "--token-auth-file",
        ]);
        command.arg(&tokens).args([
            "--service-cluster-ip-range",
            "10.96.0.0/16",
            "--allow-privileged=true",
            "--advertise-address",
            "10.0.0.1",
        ]);
        command.stdout(log(&folder, "out.log")?).stderr(log(&folder, "err.log")?);
        children.push(command.spawn().with_context(|| format!("cannot start {program}"))?);
        Ok(Server { children, address: format!("127.0.0.1:{port}"), folder, controllers: None })
    }

    /// One controller alone: what a server writes by itself is to be compared, not what a cluster makes of it.
    fn start_controllers(&mut self) -> Result<()> {
        let Some(program) = self.controllers.take() else { return Ok(()) };
        let config = self.folder.join("kubeconfig");
        let text = json!({"apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": format!("https://{}", self.address), "insecure-skip-tls-verify": true}}],
            "users": [{"name": "c", "user": {"token": TOKEN}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}]});
        std::fs::write(&config, text.to_string())?;
        let mut command = Command::new(&program);
        command.arg("--kubeconfig").arg(&config).args(["--leader-elect=false", "--secure-port=0"]);
        command.arg("--controllers=clusterrole-aggregation-controller");
        command.stdout(Stdio::null()).stderr(log(&self.folder, "controllers.log")?);
        self.children.push(command.spawn().with_context(|| format!("cannot start {}", program.display()))?);
        Ok(())
    }

    pub(crate) async fn ready(&mut self) -> Result<Connection> {
        let mut connection = Connection::new(&self.address, TOKEN)?;
        let probe = Step::new("ready", "GET /readyz");
        let begun = Instant::now();
        loop {
            if connection.send(&probe).await.is_ok_and(|a| a.code == 200) {
                self.start_controllers()?;
                if settled(&mut connection).await {
                    return Ok(connection);
                }
            }
            let ended = self.children.iter_mut().any(|c| c.try_wait().is_ok_and(|status| status.is_some()));
            if ended || begun.elapsed() > READY_WITHIN {
                let log = std::fs::read_to_string(self.folder.join("err.log")).unwrap_or_default();
                bail!("{} did not become ready:\n{}", self.address, log.lines().rev().take(20).collect::<Vec<_>>().join("\n"));
            }
            // Neither server says when it listens; readiness can only be asked for.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Whether everything that a server writes behind its own start is there: gathered roles, and what flow schemas are found to refer to.
async fn settled(connection: &mut Connection) -> bool {
    let list = |path: &str| Step::new("settled", &format!("GET {path}"));
    let roles = connection.send(&list("/apis/rbac.authorization.k8s.io/v1/clusterroles/admin")).await;
    let gathered = roles.is_ok_and(|a| a.body["rules"].as_array().is_some_and(|rules| rules.len() > 10));
    let schemas = connection.send(&list("/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas")).await;
    let items = schemas.map(|a| a.body["items"].as_array().cloned().unwrap_or_default()).unwrap_or_default();
    gathered && !items.is_empty() && items.iter().all(|schema| schema["status"]["conditions"].is_array())
}

fn folder(name: &str) -> Result<PathBuf> {
    let folder = std::env::temp_dir().join(format!("tiphys-differential-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}

fn log(folder: &Path, name: &str) -> Result<std::fs::File> {
    std::fs::File::create(folder.join(name)).with_context(|| format!("cannot make {name} in {}", folder.display()))
}
