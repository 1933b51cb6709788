//! `tiphys up`: starts the cluster's process behind it, shows how far it comes, and, unless told to leave it there, stays in front until
//! Ctrl-C. The process itself is the same in both cases ([`crate::cluster`]).

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command as Process, Stdio};

use anyhow::{Context, Result, anyhow, bail};
use clap::ArgMatches;
use tiphys_cli::cluster::{Cluster, Layout};
use tiphys_cli::progress::Line;
use tiphys_cli::{delete, doctor, flags, kubeconfig, processes};
use tiphys_sys::poll::{EventFlags, Poll};
use tiphys_sys::watch::{Inotify, WatchFlags};
use tiphys_sys::{process, signal};

use crate::commands::{print, remove_tables};

pub(crate) fn run(m: &ArgMatches) -> Result<()> {
    let layout = flags::layout(m)?;
    spell_out(&layout)?;
    let wanted = flags::wanted(m)?;
    preflight(&layout)?;
    if let Some(running) = processes::of(&layout).iter().find(|p| p.role == "run") {
        bail!(
            "the cluster {:?} is running already (process {}); `tiphys status --name {0}` shows it, `tiphys down --name {0}` stops it",
            layout.name,
            running.pid
        );
    }
    let made = !layout.exists();
    let cluster = Cluster::load_or_create(&layout, &wanted)?;
    let starting = try_lock(&layout.starting(), &layout)?;
    if let Err(error) = check_port(&layout, &cluster) {
        // A cluster that never was leaves nothing.
        let undone = if made { delete::delete(&layout, &remove_tables) } else { Ok(()) };
        return Err(both(error, undone));
    }
    let front = start(&layout, m)?;
    drop(starting);
    match (m.get_flag("detach"), front.is_late) {
        (true, true) => bail!("the cluster goes on: `tiphys status --name {0}` shows it, `tiphys down --name {0}` stops it", layout.name),
        (true, false) => Ok(()),
        (false, _) => front.stay(),
    }
}

/// An error, and what went wrong when its traces were removed.
fn both(error: anyhow::Error, undone: Result<()>) -> anyhow::Error {
    match undone {
        Ok(()) => error,
        Err(also) => anyhow!("{error:#}; and then: {also:#}"),
    }
}

/// Every process of a cluster carries its name and folder in its command line, so that others find it: where they were left
/// to their defaults, the process becomes itself again with them spelt out.
fn spell_out(layout: &Layout) -> Result<()> {
    let given: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| given.iter().any(|a| a == flag || a.strip_prefix(flag).is_some_and(|rest| rest.starts_with('=')));
    if has("--name") && has("--data-dir") {
        return Ok(());
    }
    let mut command = Process::new(std::env::current_exe().context("cannot find this program's own file")?);
    command.args(&given);
    if !has("--name") {
        command.args(["--name", &layout.name]);
    }
    if !has("--data-dir") {
        command.arg("--data-dir").arg(&layout.data_dir);
    }
    Err(command.exec()).context("cannot start again with the cluster's name")
}

fn preflight(layout: &Layout) -> Result<()> {
    let errors: Vec<_> = doctor::examine(&layout.data_dir, None).into_iter().filter(|f| f.level == doctor::Level::Error).collect();
    if errors.is_empty() { Ok(()) } else { bail!("this machine cannot run a cluster yet:\n{}", doctor::text(&errors).trim_end()) }
}

fn check_port(layout: &Layout, cluster: &Cluster) -> Result<()> {
    let findings = doctor::examine(&layout.data_dir, Some(cluster));
    match findings.into_iter().find(|f| f.level == doctor::Level::Error) {
        Some(finding) => bail!("{}: {}; {}", finding.what, finding.detail, finding.cure),
        None => Ok(()),
    }
}

/// A lock that goes with the process.
pub(crate) fn try_lock(path: &Path, layout: &Layout) -> Result<File> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    if file.try_lock().is_err() {
        bail!("another process runs or starts the cluster {:?} ({} is locked)", layout.name, path.display());
    }
    Ok(file)
}

/// Starts the cluster's process and shows its progress until it is there. What had come up of one that fails is taken down again.
fn start(layout: &Layout, m: &ArgMatches) -> Result<Front> {
    signal::block(&[signal::SIGINT, signal::SIGTERM]).context("cannot take signals")?;
    let wanted = layout.wanted();
    std::fs::write(&wanted, b"").with_context(|| format!("cannot write {}", wanted.display()))?;
    let mut front = Front::new(layout)?;
    let shown = spawn(layout, m).and_then(|child| front.show(child));
    match shown {
        Ok(()) => Ok(front),
        Err(error) => {
            let stopped = front.stop();
            Err(both(error, stopped))
        }
    }
}

fn spawn(layout: &Layout, m: &ArgMatches) -> Result<Child> {
    let log_path = layout.log();
    let log =
        OpenOptions::new().create(true).append(true).open(&log_path).with_context(|| format!("cannot open {}", log_path.display()))?;
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let mut command = Process::new(program);
    command.arg("run").args(["--name", &layout.name, "--data-dir"]).arg(&layout.data_dir);
    command.args(["--log", flags::text(m, "log").unwrap_or("info")]);
    let detach = m.get_flag("detach");
    if m.get_flag("demo") {
        command.arg("--demo");
    }
    if m.get_flag("wait") || !detach {
        command.arg("--wait");
    }
    if !detach {
        command.arg("--in-front");
    }
    command.args(["--timeout", &flags::timeout(m)?.as_secs().to_string()]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).current_dir("/").process_group(0);
    command.spawn().context("cannot start the cluster's process")
}

/// What `up` waits for.
const TOLD: u64 = 1;
const UNWANTED: u64 = 2;
const OUTPUT: u64 = 3;

struct Front {
    layout: Layout,
    signals: std::os::fd::OwnedFd,
    folder: Inotify,
    poll: Poll,
    /// Not everything was there in time.
    is_late: bool,
}

impl Front {
    fn new(layout: &Layout) -> Result<Front> {
        let what = || "cannot wait for the cluster";
        let signals = signal::signal_fd(&[signal::SIGINT, signal::SIGTERM]).with_context(what)?;
        let folder = Inotify::new().with_context(what)?;
        folder.add(&layout.cluster_dir(), WatchFlags::DELETE).with_context(what)?;
        let poll = Poll::new().with_context(what)?;
        poll.add(&signals, TOLD, EventFlags::IN).with_context(what)?;
        poll.add(&folder, UNWANTED, EventFlags::IN).with_context(what)?;
        Ok(Front { layout: layout.clone(), signals, folder, poll, is_late: false })
    }

    /// Prints the process's lines until the last.
    fn show(&mut self, mut child: Child) -> Result<()> {
        let mut output = child.stdout.take().context("no pipe from the cluster's process")?;
        process::set_nonblocking(output.as_fd(), true)?;
        self.poll.add(&output, OUTPUT, EventFlags::IN)?;
        let (mut text, mut open) = (Vec::new(), true);
        while open {
            for (key, _) in self.poll.wait(None)? {
                match key {
                    OUTPUT => open = take(&mut output, &mut text)?,
                    TOLD => bail!("interrupted; the cluster is stopped"),
                    _ if self.is_unwanted()? => bail!("the cluster was stopped by another command"),
                    _ => {}
                }
            }
            while let Some(end) = text.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = text.drain(..=end).collect();
                if self.tell(&line)? {
                    self.poll.remove(&output)?;
                    return Ok(());
                }
            }
        }
        let log = self.layout.log();
        bail!("the cluster's process ended before it was ready; its log is {}{}", log.display(), last_lines(&log))
    }

    /// Prints one line; true if it was the last.
    fn tell(&mut self, line: &[u8]) -> Result<bool> {
        let Ok(line) = serde_json::from_slice::<Line>(line) else { return Ok(false) };
        match line {
            Line::Failed { why } => bail!("{why}"),
            Line::Late { why } => {
                eprintln!("{}", Line::Late { why });
                self.is_late = true;
                Ok(false)
            }
            Line::Note { text } => {
                self.merge_kubeconfig();
                print(&(text + "\n"))?;
                Ok(false)
            }
            Line::Ready { .. } => print(&format!("{line}\n")).map(|()| true),
            Line::Step { .. } => print(&format!("{line}\n")).map(|()| false),
        }
    }

    /// A user's file that cannot be changed is no reason to have no cluster.
    fn merge_kubeconfig(&self) {
        let merge = |file: &Path| {
            kubeconfig::merge_from(file, &self.layout.kubeconfig())?;
            kubeconfig::remember(&self.layout, file)
        };
        let merged = kubeconfig::users_file().and_then(|file| merge(&file));
        if let Err(error) = merged {
            eprintln!("warning: {error:#}; use `kubectl --kubeconfig {}`", self.layout.kubeconfig().display());
        }
    }

    fn is_unwanted(&self) -> Result<bool> {
        self.folder.read()?;
        Ok(!self.layout.wanted().exists())
    }

    /// Until Ctrl-C, which stops the cluster, or until somebody else stops it.
    fn stay(mut self) -> Result<()> {
        loop {
            for (key, _) in self.poll.wait(None)? {
                if self.is_unwanted()? {
                    return print(&format!("the cluster {} was stopped by another command\n", self.layout.name));
                }
                if key == TOLD && signal::read_signal(self.signals.as_fd())?.is_some() {
                    return self.stop();
                }
            }
        }
    }

    fn stop(&self) -> Result<()> {
        delete::stop(&self.layout, &self.layout.load()?, &remove_tables)
    }
}

/// Reads what is there; false at the end.
fn take(output: &mut ChildStdout, text: &mut Vec<u8>) -> Result<bool> {
    let mut buffer = [0; 4096];
    loop {
        match output.read(&mut buffer) {
            Ok(0) => return Ok(false),
            Ok(count) => text.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// The end of a log, for an error that has no other words.
fn last_lines(path: &Path) -> String {
    const LINES: usize = 5;
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().rev().take(LINES).collect();
    lines.into_iter().rev().map(|line| format!("\n  {line}")).collect()
}
