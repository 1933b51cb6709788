//! The parts that need a whole cluster of one node: ours, then the kit's upstream one.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::parse;
use super::process;
use super::report::{Bar, Report};
use super::tools::{Tools, text_of};
use super::{Options, Part};

const NAME: &str = "bench";
/// What a cluster does after its start is not what it does when nobody uses it.
const SETTLING: Duration = Duration::from_secs(20);

/// What one cluster came to.
#[derive(Default)]
struct Measured {
    ready_ms: Option<f64>,
    demo_ms: Option<f64>,
    idle: Option<Idle>,
    /// podbench's lines.
    pods: Vec<(String, f64)>,
}

struct Idle {
    mib: f64,
    cpu_percent: f64,
    processes: usize,
}

pub(super) fn measure(options: &Options, tools: &Tools, folder: &Path, report: &mut Report) -> Result<()> {
    let ours = Ours::prepare(options, folder)?.measure(options, tools, report)?;
    let upstream = if options.upstream { upstream(options, tools, report)? } else { Measured::default() };
    report.add("up, cold: node Ready", "ms", ours.ready_ms, upstream.ready_ms, Bar::AtMost(2000.0));
    report.add("up, cold: demo answers", "ms", ours.demo_ms, None, Bar::AtMost(4000.0));
    let idle = |value: fn(&Idle) -> f64| (ours.idle.as_ref().map(value), upstream.idle.as_ref().map(value));
    let (mine, theirs) = idle(|i| i.mib);
    report.add("idle, one node: PSS of all processes", "MiB", mine, theirs, Bar::AtMost(80.0));
    let (mine, theirs) = idle(|i| i.cpu_percent);
    report.add("idle, one node: CPU of a core", "%", mine, theirs, Bar::AtMost(1.0));
    let (mine, theirs) = idle(|i| i.processes as f64);
    report.add("idle, one node: processes", "", mine, theirs, Bar::None);
    let mut names: Vec<&String> = ours.pods.iter().map(|(name, _)| name).collect();
    names.dedup();
    for name in names {
        let of = |lines: &[(String, f64)]| lines.iter().find(|(n, _)| n == name).map(|(_, ms)| *ms);
        let bar = match name.as_str() {
            "one by one: create to Running" => Bar::AtMost(150.0),
            "at once: all Ready after" => Bar::AtMost(3000.0),
            "exec /bin/true" => Bar::AtMost(30.0),
            _ => Bar::None,
        };
        report.add(format!("pods, {name}"), "ms", of(&ours.pods), of(&upstream.pods), bar);
    }
    Ok(())
}

/// A cluster of ours in a folder of its own, from a copy of the program: so its pages are shared with nobody else.
struct Ours {
    program: PathBuf,
    folder: PathBuf,
}

impl Drop for Ours {
    fn drop(&mut self) {
        let _ = self.tiphys("delete").status();
    }
}

impl Ours {
    fn prepare(options: &Options, folder: &Path) -> Result<Ours> {
        std::fs::create_dir_all(folder.join("home"))?;
        let program = folder.join("tiphys-bench");
        let built = options.program.as_ref().context("a cluster needs --program")?;
        std::fs::copy(built, &program).with_context(|| format!("cannot copy {}", built.display()))?;
        Ok(Ours { program, folder: folder.to_owned() })
    }

    fn tiphys(&self, command: &str) -> Command {
        let mut tiphys = Command::new(&self.program);
        tiphys.arg(command).args(["--name", NAME, "--data-dir"]).arg(self.folder.join("data"));
        tiphys.env("HOME", self.folder.join("home")).env("KUBECONFIG", self.kubeconfig());
        tiphys
    }

    fn kubeconfig(&self) -> PathBuf {
        self.folder.join("kubeconfig")
    }

    /// Starts it and gives back its steps, each with the time since the start.
    fn up(&self, more: &[&str]) -> Result<Vec<(f64, String)>> {
        let mirror = format!("http://127.0.0.1:{}", std::env::var("KIT_REGISTRY_PORT").unwrap_or_else(|_| "5000".into()));
        let mut command = self.tiphys("up");
        command.args(["--detach", "--wait"]).args(more);
        for host in ["docker.io", "registry.k8s.io"] {
            command.arg("--registry-mirror").arg(format!("{host}={mirror}"));
        }
        let text = text_of(&mut command)?;
        print!("{text}");
        let mut since = 0.0;
        let steps = text.lines().filter_map(parse::step);
        Ok(steps
            .map(|(ms, what)| {
                since += ms;
                (since, what)
            })
            .collect())
    }

    fn measure(&self, options: &Options, tools: &Tools, report: &mut Report) -> Result<Measured> {
        let mut measured = Measured::default();
        if options.has(Part::Up) {
            let steps = self.up(&["--demo"])?;
            measured.ready_ms = steps.iter().find(|(_, what)| what.contains("ready")).map(|(ms, _)| *ms);
            measured.demo_ms = steps.iter().find(|(_, what)| what.contains("demo")).map(|(ms, _)| *ms);
            text_of(&mut self.tiphys("delete"))?;
        }
        if options.has(Part::Idle) || options.has(Part::Pods) {
            self.up(&[])?;
        }
        if options.has(Part::Idle) {
            let idle = look(options, || process::running(&self.program), report, "ours");
            measured.idle = Some(idle);
        }
        if options.has(Part::Pods) {
            measured.pods = podbench(tools, &self.kubeconfig(), &[])?;
        }
        Ok(measured)
    }
}

/// Memory and CPU of a cluster while nothing is asked of it.
fn look(options: &Options, processes: impl Fn() -> BTreeSet<u32>, report: &mut Report, whose: &str) -> Idle {
    std::thread::sleep(SETTLING);
    let all = processes();
    let used = |pids: &BTreeSet<u32>| pids.iter().map(|pid| process::cpu_ns(*pid)).sum::<u64>();
    let before = used(&all);
    let started = std::time::Instant::now();
    std::thread::sleep(Duration::from_secs(options.idle_seconds));
    let spent = used(&all).saturating_sub(before);
    let cpu_percent = spent as f64 / started.elapsed().as_nanos() as f64 * 100.0;
    let mut sizes: Vec<(u64, u32)> = all.iter().map(|pid| (process::pss_kib(*pid), *pid)).collect();
    sizes.sort_unstable_by(|a, b| b.cmp(a));
    let parts: Vec<String> = sizes.iter().map(|(kib, pid)| format!("{:.1} {}", *kib as f64 / 1024.0, short(*pid))).collect();
    report.note(format!("Idle, {whose}, MiB a process: {}.", parts.join("; ")));
    Idle { mib: sizes.iter().map(|(kib, _)| *kib as f64).sum::<f64>() / 1024.0, cpu_percent, processes: all.len() }
}

/// What a process is, in a word or two.
fn short(pid: u32) -> String {
    let line = process::command_line(pid);
    let mut words = line.split_whitespace();
    let program = words.next().and_then(|p| p.rsplit('/').next()).unwrap_or("?").to_owned();
    match words.next().filter(|word| !word.starts_with('-')) {
        Some(word) => format!("{program} {word}"),
        None => program,
    }
}

fn podbench(tools: &Tools, kubeconfig: &Path, inside: &[&str]) -> Result<Vec<(String, f64)>> {
    let mut command = Command::new("timeout");
    command.arg("900").args(inside).arg(tools.tool("podbench")).arg("-kubeconfig").arg(kubeconfig);
    let text = text_of(command.args(["-seq", "20", "-batch", "50", "-exec", "20"]))?;
    print!("{text}");
    Ok(text.lines().filter_map(parse::podbench).collect())
}

fn upstream(options: &Options, tools: &Tools, report: &mut Report) -> Result<Measured> {
    let folder = PathBuf::from(std::env::var("KIT_UP").unwrap_or_else(|_| "/var/lib/k8s-kit-up".into()));
    let measured = measure_upstream(options, tools, &folder, report);
    let _ = upstream_cluster(tools, &folder).args(["down", "--wipe"]).status();
    measured
}

/// The script, with a registry of its own: that of our namespace goes on.
fn upstream_cluster(tools: &Tools, folder: &Path) -> Command {
    let mut script = Command::new(tools.kit.join("upstream-cluster.sh"));
    script.env("KIT_UP", folder).env("KIT_REGISTRY_RUN", folder.with_extension("registry"));
    script
}

fn measure_upstream(options: &Options, tools: &Tools, folder: &Path, report: &mut Report) -> Result<Measured> {
    const INSIDE: [&str; 2] = ["nsenter", "--net=/run/netns/kup"];
    let text = text_of(upstream_cluster(tools, folder).args(["up", "nftables", "1"]))?;
    print!("{text}");
    let mut measured = Measured { ready_ms: ready(&text), ..Measured::default() };
    let of_cluster = || {
        let mut all = process::in_namespace("kup");
        // The kit's registry is no part of the cluster.
        all.retain(|pid| !process::command_line(*pid).contains("kit.py"));
        all
    };
    if options.has(Part::Idle) {
        measured.idle = Some(look(options, of_cluster, report, "upstream"));
    }
    if options.has(Part::Pods) {
        measured.pods = podbench(tools, &folder.join("conf/admin.kubeconfig"), &INSIDE)?;
    }
    Ok(measured)
}

fn ready(text: &str) -> Option<f64> {
    text.lines().filter_map(parse::stamp).find(|(_, what)| what == "node Ready").map(|(ms, _)| ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upstream_says_when_its_node_is_ready() {
        let text = "   3.10 s  apiserver ready\n   8.20 s  node Ready\n  13.00 s  CoreDNS available\nsomething else";
        assert_eq!(ready(text), Some(8200.0));
    }
}
