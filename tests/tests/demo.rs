//! What a new user does first: one command, and an application answers; down, up again, and delete leaves nothing.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tiphys_tests::{program, run};

/// Runs the test on a thread in a new network namespace; what it starts is born there too.
fn in_new_namespace(test: impl FnOnce() -> Result<()> + Send + 'static) -> Result<()> {
    let inside = std::thread::spawn(|| {
        #[expect(deprecated, reason = "its unsafe successor differs only for FILES")]
        rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNET)?;
        test()
    });
    inside.join().map_err(|_| anyhow::anyhow!("the test panicked"))?
}

struct Cluster<'a> {
    name: &'a str,
    data_dir: &'a Path,
}

impl Cluster<'_> {
    fn command(&self, words: &[&str]) -> Result<Command> {
        let mut command = Command::new(program()?);
        command.args(words).args(["--name", self.name, "--data-dir"]).arg(self.data_dir);
        command.env("KUBECONFIG", self.data_dir.with_file_name("users-kubeconfig"));
        Ok(command)
    }

    fn tiphys(&self, words: &[&str]) -> Result<String> {
        run(&mut self.command(words)?)
    }
}

/// The body of `GET URL`.
fn get(url: &str) -> Result<String> {
    let place = url.trim_start_matches("http://").trim_end_matches('/');
    let mut stream = TcpStream::connect(place).with_context(|| format!("connecting to {place}"))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(format!("GET / HTTP/1.1\r\nHost: {place}\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
}

/// Links, mounts and control groups of this machine (the test's network namespace).
fn traces() -> Result<BTreeSet<String>> {
    let links = fs::read_to_string("/proc/thread-self/net/dev")?;
    let links = links.lines().skip(2).filter_map(|l| l.split(':').next()).map(|l| format!("link {}", l.trim()));
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let mounts = mounts.lines().filter_map(|l| l.split(' ').nth(1)).map(|m| format!("mount {m}"));
    let routes = fs::read_to_string("/proc/thread-self/net/route")?;
    let routes = routes.lines().skip(1).map(|r| format!("route {r}"));
    Ok(links.chain(mounts).chain(routes).chain(groups(Path::new("/sys/fs/cgroup"), 3)).collect())
}

fn groups(folder: &Path, depth: u32) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir()));
    let mut found = Vec::new();
    for entry in entries.map(|e| e.path()) {
        if entry.ends_with("tiphys") {
            found.push(format!("group {}", entry.display()));
        }
        if depth > 0 {
            found.extend(groups(&entry, depth - 1));
        }
    }
    found
}

#[test]
fn one_command_and_an_application_answers() -> Result<()> {
    in_new_namespace(|| {
        let folder = tempfile::tempdir()?;
        let cluster = Cluster { name: "blackbox", data_dir: &folder.path().join("data") };
        let before = traces()?;
        let lived = live(&cluster);
        let log = fs::read_to_string(cluster.data_dir.join("clusters/blackbox/tiphys.log")).unwrap_or_default();
        cluster.tiphys(&["delete"])?;
        lived.with_context(|| format!("the cluster's log:\n{log}"))?;
        ensure!(!cluster.data_dir.exists(), "delete leaves files");
        let left: Vec<_> = traces()?.difference(&before).cloned().collect();
        ensure!(left.is_empty(), "delete leaves {left:?}");
        cluster.tiphys(&["delete"])?; // twice is fine
        Ok(())
    })
}

fn live(cluster: &Cluster) -> Result<()> {
    let said = cluster.tiphys(&["up", "--detach", "--wait", "--demo"])?;
    ensure!(said.contains("DNS answers") && said.contains("in all"), "steps are shown: {said}");
    let status: serde_json::Value = serde_json::from_str(&cluster.tiphys(&["status", "-o", "json"])?)?;
    ensure!(status["running"] == true, "{status}");
    let url = said.lines().find_map(|l| l.split_whitespace().find(|w| w.starts_with("http://"))).context("no URL was printed")?.to_owned();
    ensure!(get(&url)?.contains("Hello, 世界"), "the demo answers");
    let again = cluster.command(&["up", "--detach"])?.output()?;
    let why = String::from_utf8_lossy(&again.stderr).into_owned();
    ensure!(!again.status.success() && why.contains("running already"), "a second up: {why}");
    ensure!(cluster.tiphys(&["kubeconfig"])?.contains("certificate-authority-data"), "a kubeconfig is printed");
    cluster.tiphys(&["down"])?;
    ensure!(get(&url).is_err(), "nobody answers after down");
    cluster.tiphys(&["up", "--detach", "--wait", "--demo"])?;
    ensure!(get(&url)?.contains("Hello, 世界"), "up goes on with what was there");
    Ok(())
}

#[test]
fn wrong_words_are_answered_with_what_to_do() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let cluster = Cluster { name: "nobody", data_dir: folder.path() };
    for (words, says) in [
        (&["status"][..], "tiphys up --name nobody"),
        (&["up", "--nodes", "0"], "1 to 100"),
        (&["up", "--config", "/nowhere.yaml"], "/nowhere.yaml"),
        (&["up", "--listen", "nonsense"], "ADDRESS:PORT"),
        (&["up", "--nodez", "2"], "--nodes"),
    ] {
        let output = cluster.command(words)?.output()?;
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(!output.status.success() && error.contains(says), "{words:?}: {error}");
    }
    Ok(())
}
