//! What goes wrong is answered with what, where, and what to do next.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tiphys_tests::{Cluster, in_new_namespace, refused, run};

#[test]
fn wrong_words_are_answered_with_what_to_do() -> Result<()> {
    let cluster = Cluster::new("nobody")?;
    let folder = cluster.folder().display().to_string();
    for (words, says) in [
        (&["status"][..], "tiphys up --name nobody"),
        (&["up", "--nodes", "0"], "1 to 100"),
        (&["up", "--config", "/nowhere.yaml"], "/nowhere.yaml"),
        (&["up", "--config", &folder], "cannot read the configuration file"),
        (&["up", "--listen", "nonsense"], "ADDRESS:PORT"),
        (&["up", "--nodez", "2"], "--nodes"),
        (&["up", "--registry-mirror", "docker.io"], "HOST=URL"),
        (&["up", "--pod-cidr", "10.0.0.0/40"], "--pod-cidr"),
        (&["up", "--node-port-range", "7"], "30000-32767"),
    ] {
        let said = refused(&mut cluster.command(words))?;
        ensure!(said.contains(says), "{words:?}: {said}");
        ensure!(!cluster.data_dir().exists(), "{words:?} leaves files");
    }
    Ok(())
}

#[test]
fn a_used_port_is_named() -> Result<()> {
    in_new_namespace(|| {
        let cluster = Cluster::new("port")?;
        let _taken = TcpListener::bind(("127.0.0.1", 7443))?;
        let said = refused(&mut cluster.command(&["up", "--detach", "--listen", "127.0.0.1:7443"]))?;
        ensure!(said.contains("127.0.0.1:7443 is in use") && said.contains("--listen"), "{said}");
        ensure!(!cluster.data_dir().exists(), "nothing is left of a cluster that never was");
        Ok(())
    })
}

#[test]
fn a_missing_capability_is_named() -> Result<()> {
    let cluster = Cluster::new("weak")?;
    let up = cluster.command(&["up", "--detach"]);
    let mut weak = Command::new("setpriv");
    weak.args(["--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin"]).arg(up.get_program()).args(up.get_args());
    let said = refused(&mut weak)?;
    ensure!(said.contains("CAP_SYS_ADMIN") && said.contains("--privileged"), "{said}");
    let mut nobody = Command::new("setpriv");
    nobody.args(["--reuid", "65534", "--clear-groups"]).arg(up.get_program()).args(up.get_args());
    let said = refused(&mut nobody)?;
    ensure!(said.contains("sudo"), "{said}");
    ensure!(!cluster.data_dir().exists(), "nothing is left");
    Ok(())
}

/// A small disk of the test's own.
struct Disk<'a>(&'a Path);

impl<'a> Disk<'a> {
    fn mount(at: &'a Path, size: &str) -> Result<Disk<'a>> {
        std::fs::create_dir_all(at)?;
        run(Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(at))?;
        Ok(Disk(at))
    }

    /// Leaves about so many MiB free.
    fn fill(&self, leave: u64) -> Result<()> {
        let free = rustix::fs::statvfs(self.0)?;
        let free = (free.f_bavail * free.f_frsize) >> 20;
        let ballast = free.saturating_sub(leave);
        run(Command::new("fallocate").args(["-l", &format!("{ballast}m")]).arg(self.0.join("ballast"))).map(drop)
    }
}

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        let _ = run(Command::new("umount").arg("-l").arg(self.0));
    }
}

#[test]
fn a_disk_that_is_too_small_is_named() -> Result<()> {
    in_new_namespace(|| {
        let cluster = Cluster::new("small")?;
        let data = cluster.data_dir();
        let _disk = Disk::mount(&data, "8m")?;
        let said = refused(&mut cluster.command(&["up", "--detach"]))?;
        ensure!(said.contains("MiB free for") && said.contains("--data-dir"), "{said}");
        Ok(())
    })
}

#[test]
fn a_disk_that_is_nearly_full_is_told_as_the_reason() -> Result<()> {
    in_new_namespace(|| {
        let cluster = Cluster::new("full")?;
        let data = cluster.data_dir();
        // The program's copy for the built-in image takes its size.
        let size = (std::fs::metadata(&cluster.program)?.len() >> 20) + 600;
        let disk = Disk::mount(&data, &format!("{size}m"))?;
        cluster.tiphys(&["up", "--detach", "--wait"])?;
        cluster.tiphys(&["down"])?;
        disk.fill(45)?;
        let said = refused(&mut cluster.command(&["up", "--detach", "--wait", "--demo", "--timeout", "8"]));
        let deleted = cluster.tiphys(&["delete"]);
        let said = said?;
        ensure!(said.contains("DiskPressure") && said.contains("10 %"), "the reason is told: {said}");
        deleted.context("delete works on a full disk")?;
        Ok(())
    })
}
#[test]
fn a_store_that_takes_no_writes_is_told() -> Result<()> {
    in_new_namespace(|| {
        let cluster = Cluster::new("sealed")?;
        let data = cluster.data_dir();
        let size = (std::fs::metadata(&cluster.program)?.len() >> 20) + 200;
        let disk = Disk::mount(&data, &format!("{size}m"))?;
        cluster.tiphys(&["up", "--detach", "--wait"])?;
        ensure!(cluster.status()?["problems"] == serde_json::json!([]), "a healthy cluster has no problems");
        disk.fill(0)?;
        // Small writes fit for a while into what a block has left.
        let text = "x".repeat(100_000);
        let full =
            (0..20).any(|n| cluster.kubectl(&["create", "configmap", &format!("big-{n}"), &format!("--from-literal=a={text}")]).is_err());
        let told = cluster.tiphys(&["status"]);
        let read = cluster.k("get nodes");
        let deleted = cluster.tiphys(&["delete"]);
        ensure!(full, "a full disk takes no writes");
        let told = told?;
        ensure!(told.contains("read-only") && told.contains("space"), "status tells it: {told}");
        read.context("reading goes on")?;
        deleted.context("delete works on a full disk").map(drop)
    })
}
