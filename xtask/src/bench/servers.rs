//! Control planes without nodes: ours and upstream's, with the same flags, on loopback.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};

use super::Options;
use super::tools::{Tools, run, text_of};

const PORT: u16 = 17443;
/// Where the kit's `upstream.sh` listens.
pub(super) const UPSTREAM_URL: &str = "https://127.0.0.1:16443";

/// An API server (and perhaps a scheduler), either way.
pub(super) struct Plane {
    pub(super) name: &'static str,
    pub(super) kubeconfig: PathBuf,
    /// The server's processes, as apibench wants them.
    pub(super) pids: String,
    children: Vec<Child>,
    upstream: Option<(PathBuf, PathBuf)>,
}

impl Drop for Plane {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
        if let Some((script, folder)) = &self.upstream {
            let _ = Command::new(script).arg("down").arg(folder).status();
        }
    }
}

/// Our server's files in a folder of its own.
pub(super) struct Ours<'a> {
    options: &'a Options,
    folder: PathBuf,
}

impl<'a> Ours<'a> {
    pub(super) fn prepare(options: &'a Options, folder: &Path) -> Result<Ours<'a>> {
        std::fs::create_dir_all(folder)?;
        let ours = Ours { options, folder: folder.to_owned() };
        text_of(Command::new("openssl").args(["genrsa", "-out"]).arg(ours.folder.join("sa.key")).arg("2048"))?;
        std::fs::write(ours.folder.join("tokens.csv"), "bench-token,admin,admin,system:masters\n")?;
        let config = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: ours\n\
             clusters: [{{name: c, cluster: {{server: \"https://127.0.0.1:{PORT}\", insecure-skip-tls-verify: true}}}}]\n\
             users: [{{name: u, user: {{token: bench-token}}}}]\ncontexts: [{{name: ours, context: {{cluster: c, user: u}}}}]\n"
        );
        std::fs::write(ours.kubeconfig(), config)?;
        Ok(ours)
    }

    fn kubeconfig(&self) -> PathBuf {
        self.folder.join("kubeconfig")
    }

    /// The command line of our API server.
    fn server(&self) -> Result<Command> {
        let mut command = match (&self.options.server, &self.options.program) {
            (Some(server), _) => Command::new(server),
            (None, Some(program)) => {
                let mut command = Command::new(program);
                command.arg("apiserver");
                command
            }
            (None, None) => bail!("no program: say --program or --server"),
        };
        let path = |name: &str| self.folder.join(name).into_os_string();
        command.args(["--bind-address", "127.0.0.1", "--secure-port", &PORT.to_string(), "--authorization-mode", "Node,RBAC"]);
        command.args(["--service-account-issuer", "https://kubernetes.default.svc", "--service-cluster-ip-range", "10.96.0.0/16"]);
        command.arg("--data-dir").arg(path("store")).arg("--cert-dir").arg(path("certs"));
        command.arg("--service-account-signing-key-file").arg(path("sa.key")).arg("--service-account-key-file").arg(path("sa.key"));
        command.arg("--token-auth-file").arg(path("tokens.csv"));
        command.stdout(Stdio::null()).stderr(File::create(self.folder.join("apiserver.log"))?);
        Ok(command)
    }

    /// Starts it, and tells how many milliseconds it took to be ready.
    pub(super) fn start(&self, tools: &Tools) -> Result<(Plane, f64)> {
        // The probe runs first, so that what is measured is the server alone.
        let probe = Command::new(tools.tool("probe")).arg(format!("https://127.0.0.1:{PORT}/readyz")).stdout(Stdio::piped()).spawn()?;
        let started = std::time::Instant::now();
        let child = self.server()?.spawn().context("cannot start our API server")?;
        let plane =
            Plane { name: "ours", kubeconfig: self.kubeconfig(), pids: child.id().to_string(), children: vec![child], upstream: None };
        let answered = probe.wait_with_output()?;
        let ms = started.elapsed().as_secs_f64() * 1e3;
        if !answered.status.success() {
            bail!(
                "our API server did not become ready: {}",
                std::fs::read_to_string(self.folder.join("apiserver.log")).unwrap_or_default()
            );
        }
        Ok((plane, ms))
    }

    /// Our scheduler beside it.
    pub(super) fn add_scheduler(&self, plane: &mut Plane) -> Result<()> {
        let program = self.options.program.as_ref().context("a scheduler needs --program")?;
        let mut command = Command::new(program);
        command.arg("scheduler").arg("--kubeconfig").arg(self.kubeconfig()).args(["--leader-elect=false", "--secure-port", "0"]);
        command.stdout(Stdio::null()).stderr(File::create(self.folder.join("scheduler.log"))?);
        plane.children.push(command.spawn().context("cannot start our scheduler")?);
        Ok(())
    }
}

/// Upstream's API server wants an address that is not loopback to advertise. A pair of links that nobody listens to goes nowhere.
fn give_address() {
    for args in [
        "link add bench0 type veth peer name bench1",
        "addr add 192.0.2.1/24 dev bench0",
        "link set bench0 up",
        "link set bench1 up",
        "route add default via 192.0.2.2",
    ] {
        // Where they are there already, this fails, and that is well.
        let _ = Command::new("ip").args(args.split(' ')).stderr(Stdio::null()).status();
    }
}

impl Plane {
    /// The scheduler's process.
    pub(super) fn scheduler(&self) -> Option<u32> {
        if let Some((_, folder)) = &self.upstream {
            let all = std::fs::read_to_string(folder.join("all.pids")).ok()?;
            return all.split_whitespace().nth(2)?.parse().ok();
        }
        self.children.get(1).map(Child::id)
    }

    /// What the kubeconfig has under a name: `server`, `token`.
    pub(super) fn field(&self, name: &str) -> Result<String> {
        let text = std::fs::read_to_string(&self.kubeconfig)?;
        let value = text.split_once(&format!("{name}: ")).and_then(|(_, rest)| rest.split(['}', ',', '\n']).next());
        Ok(value.with_context(|| format!("{} has no {name}", self.kubeconfig.display()))?.trim_matches('"').to_owned())
    }

    /// Gives the load tool's pods the same form on both sides: the kit's upstream server runs without the ServiceAccount plugin, ours always
    /// has it, and a pod with a token's volume is a third larger.
    pub(super) fn prepare(&self, tools: &Tools) -> Result<()> {
        const OBJECTS: &str = r#"{"apiVersion": "v1", "kind": "List", "items": [
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "apibench"}},
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": "apibench"}, "automountServiceAccountToken": false}]}"#;
        let file = self.kubeconfig.with_file_name("objects.json");
        std::fs::write(&file, OBJECTS)?;
        text_of(Command::new(tools.upstream("kubectl")).arg("--kubeconfig").arg(&self.kubeconfig).arg("apply").arg("-f").arg(&file))
            .map(drop)
    }

    /// Takes away the events of an earlier watch test: the load tool's watchers begin with what is there, and would time events of a minute ago.
    pub(super) fn forget_events(&self, tools: &Tools) -> Result<()> {
        let mut command = Command::new(tools.upstream("kubectl"));
        command.arg("--kubeconfig").arg(&self.kubeconfig).args(["-n", "apibench", "delete", "configmaps", "-l", "bench=watch"]);
        text_of(&mut command).map(drop)
    }

    /// Upstream's etcd, API server and scheduler by the kit.
    pub(super) fn upstream(tools: &Tools, folder: &Path) -> Result<Plane> {
        let script = tools.kit.join("upstream.sh");
        give_address();
        let up = run(Command::new(&script).arg("up").arg(folder).stdout(Stdio::null()));
        // On a busy machine its half minute may not do; then the scheduler is missing, which most parts can do without.
        let pids = std::fs::read_to_string(folder.join("pids")).map(|pids| pids.trim().to_owned());
        let pids = if up.is_ok() { pids? } else { pids.map_err(|_| up.err().unwrap_or_else(|| anyhow::anyhow!("no upstream")))? };
        run(Command::new(tools.tool("probe")).arg(format!("{UPSTREAM_URL}/readyz")))?;
        let kubeconfig = folder.join("kubeconfig");
        Ok(Plane { name: "upstream", kubeconfig, pids, children: Vec::new(), upstream: Some((script, folder.to_owned())) })
    }
}
