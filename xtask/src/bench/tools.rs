//! Where the load tools, the kit and upstream's programs are, and how they are built.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, bail};

use super::{Options, Part};
use crate::ci;

pub(super) struct Tools {
    pub(super) root: PathBuf,
    pub(super) shared: PathBuf,
    pub(super) kit: PathBuf,
    /// Outside of the checkout, so that a second run has nothing to build.
    cache: PathBuf,
}

impl Tools {
    pub(super) fn locate() -> Result<Tools> {
        let root = ci::root()?;
        let shared = root.join("../shared");
        let kit = shared.join("kit");
        if !kit.join("in-namespace.sh").exists() {
            bail!("{} is missing: measurements need the kit and the load tools", shared.display());
        }
        let (shared, kit) = (shared.canonicalize()?, kit.canonicalize()?);
        Ok(Tools { root, shared, kit, cache: PathBuf::from("/var/cache/tiphys/bench") })
    }

    pub(super) fn tool(&self, name: &str) -> PathBuf {
        self.cache.join(name)
    }

    pub(super) fn upstream(&self, name: &str) -> PathBuf {
        Path::new(&std::env::var("KIT_BIN").unwrap_or_else(|_| "/opt/k8s-kit/bin".into())).join(name)
    }

    /// Builds the load tools that are not there yet.
    pub(super) fn build(&self) -> Result<()> {
        std::fs::create_dir_all(&self.cache).with_context(|| format!("cannot make {}", self.cache.display()))?;
        for (name, sources) in [
            ("apibench", self.shared.join("bench/apibench")),
            ("podbench", self.shared.join("bench/podbench")),
            ("probe", self.root.join("xtask/bench/probe")),
            ("strain", self.root.join("xtask/bench/strain")),
        ] {
            let (built, written) = (modified(&self.tool(name)), modified(&sources.join("main.go")));
            if built.is_some() && built >= written {
                continue;
            }
            println!("$ go build {}", sources.display());
            run(Command::new("go").args(["build", "-o"]).arg(self.tool(name)).arg(".").current_dir(&sources))?;
        }
        Ok(())
    }

    /// What `upstream-cluster.sh` would fetch by itself, were it not for the namespace without a way out that it is run in.
    fn packages_of_upstream(&self) -> Result<()> {
        const PACKAGES: &str = "iproute2 util-linux nftables iptables conntrack socat openssl bc";
        let script = format!(". {}/env.sh && apt_need {PACKAGES}", self.kit.display());
        run(Command::new("bash").arg("-c").arg(script))
    }

    pub(super) fn install_upstream(&self, options: &Options) -> Result<()> {
        let mut wanted = vec!["kubectl"];
        if options.upstream {
            wanted.extend(["etcd", "kube-apiserver", "kube-scheduler", "kube-controller-manager"]);
            if options.needs_cluster() {
                wanted.push("upstream");
                self.packages_of_upstream()?;
            }
        }
        if options.has(Part::Pods) || options.has(Part::Idle) {
            run(Command::new(self.kit.join("images.sh")).args(["pause", "busybox"]))
                .or_else(|_| run(&mut Command::new(self.kit.join("images.sh"))))?;
        }
        run(Command::new(self.kit.join("install.sh")).args(wanted))
    }
}

fn modified(path: &Path) -> Option<std::time::SystemTime> {
    std::fs::metadata(path).ok()?.modified().ok()
}

/// Runs a command with its output going through.
pub(super) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot run {}", command.get_program().display()))?;
    if status.success() { Ok(()) } else { bail!("{} failed", command.get_program().display()) }
}

/// Runs a command and gives back what it prints.
pub(super) fn text_of(command: &mut Command) -> Result<String> {
    let Output { status, stdout, stderr } = command.output().with_context(|| format!("cannot run {}", command.get_program().display()))?;
    let stdout = String::from_utf8_lossy(&stdout).into_owned();
    if !status.success() {
        bail!("{} failed: {}{}", command.get_program().display(), stdout, String::from_utf8_lossy(&stderr));
    }
    Ok(stdout)
}
