//! Black box tests: HTTP and argv only. They know nothing of the crates. The program that they run is named by `TIPHYS_BIN`
//! (`cargo xtask ci` builds it and sets that), the conformance kit with kubectl and images by `TIPHYS_KIT`. They need root, and
//! each works in a network namespace of its own that has no way out.

pub mod https;
pub mod pki;
pub mod traces;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// The program under test.
pub fn program() -> Result<PathBuf> {
    let path =
        std::env::var_os("TIPHYS_BIN").context("TIPHYS_BIN names no program: run `cargo xtask ci`, or build it and set TIPHYS_BIN")?;
    Ok(PathBuf::from(path))
}

/// The conformance kit: beside the checkout unless `TIPHYS_KIT` says otherwise.
pub fn kit() -> Result<PathBuf> {
    let path = std::env::var_os("TIPHYS_KIT").map_or(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/kit"), PathBuf::from);
    ensure!(path.join("registry.sh").exists(), "{} is no conformance kit; set TIPHYS_KIT", path.display());
    Ok(path)
}

/// A program of the kit.
pub fn tool(name: &str) -> PathBuf {
    std::env::var_os("KIT_BIN").map_or(PathBuf::from("/opt/k8s-kit/bin"), PathBuf::from).join(name)
}

/// Runs a command to its end and gives what it printed; a failure carries both outputs.
pub fn run(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(text);
    }
    bail!("{command:?}: {}\n{text}\n{}", output.status, String::from_utf8_lossy(&output.stderr))
}

/// Runs a command that must fail and gives what it said.
pub fn refused(command: &mut Command) -> Result<String> {
    let Output { status, stdout, stderr } = command.output().with_context(|| format!("cannot run {command:?}"))?;
    let said = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    if status.success() { bail!("{command:?} succeeded:\n{said}") } else { Ok(said) }
}

/// Runs the test on a thread in a new network namespace with a loopback; what it starts is born there too.
pub fn in_new_namespace(test: impl FnOnce() -> Result<()> + Send + 'static) -> Result<()> {
    let inside = std::thread::spawn(|| {
        #[expect(deprecated, reason = "its unsafe successor differs only for FILES")]
        rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNET)?;
        run(Command::new("ip").args(["link", "set", "lo", "up"]))?;
        test()
    });
    inside.join().map_err(|_| anyhow::anyhow!("the test panicked"))?
}

/// The kit's registry in this thread's namespace, on port 5000 of every address; it ends with this.
pub struct Registry {
    run: tempfile::TempDir,
}

impl Registry {
    pub fn start() -> Result<Registry> {
        let registry = Registry { run: tempfile::tempdir()? };
        // Its script waits less than a disk may take that writes out what a build has left.
        for _ in 0..3 {
            let mut command = registry.command("start")?;
            // Its server keeps the outputs open, so nobody must wait for their end.
            let status = command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).status()?;
            if status.success() {
                return Ok(registry);
            }
            let _ = registry.command("stop")?.output();
        }
        anyhow::bail!("the kit's registry does not start")
    }

    fn command(&self, what: &str) -> Result<Command> {
        let mut command = Command::new(kit()?.join("registry.sh"));
        command.arg(what).env("KIT_REGISTRY_RUN", self.run.path().join("registry")).env("KIT_REGISTRY_ADDR", "0.0.0.0");
        Ok(command)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        if let Ok(mut command) = self.command("stop") {
            let _ = command.output();
        }
    }
}

/// What makes images come from the kit's registry.
pub const MIRRORS: [&str; 4] =
    ["--registry-mirror", "docker.io=http://127.0.0.1:5000", "--registry-mirror", "registry.k8s.io=http://127.0.0.1:5000"];

/// A cluster that is deleted with this, in a folder of its own.
pub struct Cluster {
    pub name: String,
    folder: tempfile::TempDir,
    pub program: PathBuf,
}

impl Cluster {
    pub fn new(name: &str) -> Result<Cluster> {
        Ok(Cluster { name: name.into(), folder: tempfile::tempdir()?, program: program()? })
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The cluster's own folder.
    pub fn cluster_dir(&self) -> PathBuf {
        self.data_dir().join("clusters").join(&self.name)
    }

    pub fn users_kubeconfig(&self) -> PathBuf {
        self.folder.path().join("kubeconfig")
    }

    /// `tiphys WORDS --name … --data-dir …`.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(words).args(["--name", &self.name, "--data-dir"]).arg(self.data_dir());
        command.env("KUBECONFIG", self.users_kubeconfig()).env("HOME", self.folder.path());
        command
    }

    pub fn tiphys(&self, words: &[&str]) -> Result<String> {
        run(&mut self.command(words))
    }

    /// Up in the background and ready, with images from the kit's registry.
    pub fn up(&self, more: &[&str]) -> Result<String> {
        let words: Vec<&str> = ["up", "--detach", "--wait"].iter().chain(&MIRRORS).chain(more).copied().collect();
        self.tiphys(&words).with_context(|| format!("the log:\n{}", self.log_end()))
    }

    /// kubectl with the user's kubeconfig, as `up` has written it.
    pub fn kubectl_command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(std::env::var_os("TIPHYS_KUBECTL").map_or(tool("kubectl"), PathBuf::from));
        command.args(words).env("KUBECONFIG", self.users_kubeconfig()).env("HOME", self.folder.path());
        command
    }

    pub fn kubectl(&self, words: &[&str]) -> Result<String> {
        run(&mut self.kubectl_command(words))
    }

    /// The same with words in one string, for those that have no spaces inside.
    pub fn k(&self, line: &str) -> Result<String> {
        self.kubectl(&line.split_whitespace().collect::<Vec<_>>())
    }

    pub fn json(&self, line: &str) -> Result<Value> {
        Ok(serde_json::from_str(&self.k(&format!("{line} -o json"))?)?)
    }

    /// `tiphys image ls` of the cluster's data directory.
    pub fn tiphys_images(&self) -> Result<String> {
        run(Command::new(&self.program).args(["image", "ls", "--data-dir"]).arg(self.data_dir()))
    }

    pub fn status(&self) -> Result<Value> {
        Ok(serde_json::from_str(&self.tiphys(&["status", "-o", "json"])?)?)
    }

    pub fn apply(&self, yaml: &str) -> Result<String> {
        let path = self.folder.path().join("apply.yaml");
        std::fs::write(&path, yaml)?;
        self.kubectl(&["apply", "-f", &path.display().to_string()])
    }

    /// The last lines of the cluster's log.
    pub fn log_end(&self) -> String {
        let text = std::fs::read_to_string(self.cluster_dir().join("tiphys.log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().rev().take(60).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.data_dir().exists() {
            let _ = self.command(&["delete"]).output();
        }
    }
}

/// The body of `GET URL`.
pub fn get(url: &str) -> Result<String> {
    let rest = url.trim_start_matches("http://");
    let (place, path) = rest.split_once('/').unwrap_or((rest, ""));
    let mut stream =
        TcpStream::connect_timeout(&place.parse()?, Duration::from_secs(5)).with_context(|| format!("connecting to {place}"))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(format!("GET /{path} HTTP/1.1\r\nHost: {place}\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
}

/// Tries until it is so, at most `limit`; the last refusal is the error.
pub fn eventually<T>(limit: Duration, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let begun = Instant::now();
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if begun.elapsed() >= limit => return Err(error.context(format!("not within {limit:?}"))),
            // What is tried is a program or a port of another process, which tells nobody when it is there.
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}
