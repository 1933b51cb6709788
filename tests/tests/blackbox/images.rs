//! `tiphys image`: from a mirror that a flag or containerd's hosts folder names, out to an archive and in again; the built-in image too.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tiphys_tests::{Cluster, Registry, in_new_namespace, program, refused, run};

struct Store<'a>(&'a Path);

impl Store<'_> {
    fn command(&self, words: &[&str]) -> Result<Command> {
        let mut command = Command::new(program()?);
        command.arg("image").args(words).arg("--data-dir").arg(self.0);
        Ok(command)
    }

    fn image(&self, words: &[&str]) -> Result<String> {
        run(&mut self.command(words)?)
    }
}

#[test]
fn images_come_from_mirrors_and_go_to_archives() -> Result<()> {
    in_new_namespace(|| {
        let _registry = Registry::start()?;
        let folder = tempfile::tempdir()?;
        let at = |name: &str| folder.path().join(name);
        let (one, two) = (at("one"), at("two"));
        let (one, two) = (Store(&one), Store(&two));
        let pulled = one.image(&["pull", "busybox", "--registry-mirror", "docker.io=http://127.0.0.1:5000"])?;
        ensure!(pulled.contains("docker.io/library/busybox:latest"), "{pulled}");
        let hosts = at("hosts");
        std::fs::create_dir_all(hosts.join("registry.k8s.io"))?;
        let toml = "server = \"https://registry.k8s.io\"\n[host.\"http://127.0.0.1:5000\"]\n  capabilities = [\"pull\", \"resolve\"]\n";
        std::fs::write(hosts.join("registry.k8s.io/hosts.toml"), toml)?;
        one.image(&["pull", "registry.k8s.io/pause:3.10", "--registry-hosts-dir", &hosts.display().to_string()])?;
        let archive = at("busybox.tar").display().to_string();
        one.image(&["save", "busybox", &archive])?;
        let loaded = two.image(&["load", &archive])?;
        ensure!(loaded.contains("docker.io/library/busybox:latest"), "{loaded}");
        one.image(&["rm", "busybox"])?;
        ensure!(!one.image(&["ls"])?.contains("busybox"), "rm removes");
        let said = refused(&mut one.command(&["rm", "busybox"])?)?;
        ensure!(said.contains("tiphys image ls"), "{said}");
        let said = refused(&mut one.command(&["pull", "nowhere.test/x", "--registry-mirror", "nowhere.test=http://127.0.0.1:1"])?)?;
        ensure!(said.contains("nowhere.test/v2/x/manifests"), "what was asked is named: {said}");
        Ok(())
    })
}

#[test]
fn the_built_in_image_is_saved_too() -> Result<()> {
    in_new_namespace(|| {
        let one = Cluster::new("save")?;
        one.up(&[])?;
        let listed = one.tiphys_images()?;
        let name =
            listed.lines().find_map(|l| l.split_whitespace().find(|w| w.contains("tiphys"))).context("no built-in image")?.to_owned();
        let archive = one.folder().join("own.tar").display().to_string();
        Store(&one.data_dir()).image(&["save", &name, &archive])?;
        let two = one.folder().join("two");
        let loaded = Store(&two).image(&["load", &archive])?;
        ensure!(loaded.contains(&name), "{loaded}");
        let about: serde_json::Value = serde_json::from_str(&Store(&two).image(&["ls", "-o", "json"])?)?;
        ensure!(about.to_string().contains("\"/tiphys\""), "it still knows what to run: {about}");
        let size = std::fs::metadata(&archive)?.len();
        ensure!(size > std::fs::metadata(program()?)?.len(), "the program is in it: {size}");
        Ok(())
    })
}
