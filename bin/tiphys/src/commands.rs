//! Which command does what.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command as Process, Stdio};

use anyhow::{Context, Result, bail};
use clap::{Arg, ArgAction, ArgMatches, Command};
use tiphys_base::logging;
use tiphys_cli::cluster::{Cluster, Layout};
use tiphys_cli::progress::{Form, Line};
use tiphys_cli::{Progress, delete, doctor, flags, processes, status};

use crate::VERSION;

/// The processes of a cluster: started by `up` and by each other, not by people.
pub(crate) fn processes() -> Vec<Command> {
    let value = |name: &'static str| Arg::new(name).long(name).required(true);
    let switch = |name: &'static str| Arg::new(name).long(name).action(ArgAction::SetTrue);
    let log = || Arg::new("log").long("log").default_value("info");
    vec![
        Command::new("run").hide(true).args([value("name"), value("data-dir"), switch("demo"), switch("wait"), log()]),
        Command::new("node").hide(true).args([value("name"), value("data-dir"), value("node"), log()]),
    ]
}

pub(crate) fn dispatch(matches: &ArgMatches) -> Result<()> {
    match matches.subcommand() {
        Some(("up", m)) => up(m),
        Some(("run", m)) => run_detached(m),
        Some(("node", m)) => crate::node_process::run(m),
        Some(("down", m)) => {
            let (layout, cluster) = flags::existing(m)?;
            delete::stop(&layout, &cluster, &remove_tables)
        }
        Some(("delete", m)) => delete::delete(&flags::layout(m)?, &remove_tables),
        Some(("status", m)) => show_status(m),
        Some(("kubeconfig", m)) => show_kubeconfig(m),
        Some(("doctor", m)) => examine(m),
        Some(("image", m)) => crate::image_command::run(m),
        _ => bail!("no such command; `tiphys --help` lists them"),
    }
}

/// The tables of one cluster in this network namespace; those of further nodes went with their namespaces.
fn remove_tables(cluster: &Cluster) -> Result<()> {
    for what in ["services", "hostports"] {
        tiphys_proxy::remove_table(&cluster.table(what))
            .with_context(|| format!("cannot remove the nftables table {}", cluster.table(what)))?;
    }
    Ok(())
}

fn preflight(layout: &Layout) -> Result<()> {
    let errors: Vec<_> = doctor::examine(&layout.data_dir, None).into_iter().filter(|f| f.level == doctor::Level::Error).collect();
    if errors.is_empty() { Ok(()) } else { bail!("this machine cannot run a cluster yet:\n{}", doctor::text(&errors).trim_end()) }
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

fn up(m: &ArgMatches) -> Result<()> {
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
    let cluster = Cluster::load_or_create(&layout, &wanted)?;
    let lock = lock(&layout)?;
    if let Some(busy) = port_in_use(&layout, &cluster) {
        bail!("{busy}");
    }
    let log = flags::text(m, "log").unwrap_or("info");
    if m.get_flag("detach") {
        drop(lock);
        return detach(&layout, m, log);
    }
    logging::init(log, logging::Format::Text);
    let progress = Progress::new(Form::Person);
    let options = crate::cluster::Options { demo: m.get_flag("demo"), wait: true, detached: false };
    let ran = runtime()?.block_on(crate::cluster::run(&layout, cluster, &options, &progress));
    drop(lock);
    let stopped = layout.load().and_then(|cluster| delete::stop(&layout, &cluster, &remove_tables));
    ran.and(stopped)
}

fn port_in_use(layout: &Layout, cluster: &Cluster) -> Option<String> {
    let findings = doctor::examine(&layout.data_dir, Some(cluster));
    let finding = findings.into_iter().find(|f| f.level == doctor::Level::Error)?;
    Some(format!("{}: {}; {}", finding.what, finding.detail, finding.cure))
}

/// The lock that says who runs the cluster; it goes with the process.
fn lock(layout: &Layout) -> Result<File> {
    let path = layout.lock();
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    if file.try_lock().is_err() {
        bail!("another process runs or starts the cluster {:?} ({} is locked)", layout.name, path.display());
    }
    Ok(file)
}

pub(crate) fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("tiphys").build().context("cannot start threads")
}

/// Starts `tiphys run` in a session of its own and relays its progress until it is ready.
fn detach(layout: &Layout, m: &ArgMatches, log: &str) -> Result<()> {
    let log_path = layout.log();
    let log_file =
        OpenOptions::new().create(true).append(true).open(&log_path).with_context(|| format!("cannot open {}", log_path.display()))?;
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let mut command = Process::new(program);
    command.arg("run").args(["--name", &layout.name, "--data-dir"]).arg(&layout.data_dir).args(["--log", log]);
    for switch in ["demo", "wait"] {
        if m.get_flag(switch) {
            command.arg(format!("--{switch}"));
        }
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log_file).current_dir("/").process_group(0);
    let mut child = command.spawn().context("cannot start the cluster's process")?;
    let output = child.stdout.take().context("no pipe from the cluster's process")?;
    for line in BufReader::new(output).lines() {
        match serde_json::from_str::<Line>(&line?) {
            Ok(Line::Failed { why }) => bail!("{why}"),
            Ok(ready @ Line::Ready { .. }) => {
                println!("{ready}");
                return Ok(());
            }
            Ok(step) => println!("{step}"),
            Err(_) => {}
        }
    }
    bail!("the cluster's process ended before it was ready; its log is {}", log_path.display())
}

fn run_detached(m: &ArgMatches) -> Result<()> {
    let (layout, cluster) = flags::existing(m)?;
    logging::init(flags::text(m, "log").unwrap_or("info"), logging::Format::Text);
    let _lock = lock(&layout)?;
    let progress = Progress::new(Form::Machine);
    let options = crate::cluster::Options { demo: m.get_flag("demo"), wait: m.get_flag("wait") || m.get_flag("demo"), detached: true };
    let ran = runtime()?.block_on(crate::cluster::run(&layout, cluster, &options, &progress));
    if let Err(error) = &ran {
        progress.failed(error);
    }
    ran
}

fn show_status(m: &ArgMatches) -> Result<()> {
    let (layout, cluster) = flags::existing(m)?;
    let status = status::gather(&layout, &cluster, VERSION)?;
    print(&if flags::text(m, "output") == Some("json") { serde_json::to_string_pretty(&status)? + "\n" } else { status::text(&status) })
}

fn show_kubeconfig(m: &ArgMatches) -> Result<()> {
    let (layout, _) = flags::existing(m)?;
    let path = layout.kubeconfig();
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("{} cannot be read; `tiphys up --name {}` writes it", path.display(), layout.name))?;
    print(&text)
}

fn examine(m: &ArgMatches) -> Result<()> {
    let layout = flags::layout(m)?;
    let findings = doctor::examine(&layout.data_dir, layout.load().ok().as_ref());
    print(&if flags::text(m, "output") == Some("json") {
        serde_json::to_string_pretty(&findings)? + "\n"
    } else {
        doctor::text(&findings)
    })?;
    let errors = findings.iter().filter(|f| f.level == doctor::Level::Error).count();
    if errors == 0 { Ok(()) } else { bail!("{errors} finding(s) keep a cluster from running") }
}

/// Writes to standard output; a reader that has gone away is no error.
pub(crate) fn print(text: &str) -> Result<()> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
