//! Which command does what.

use std::io::Write;

use anyhow::{Context, Result, bail};
use clap::{Arg, ArgAction, ArgMatches, Command};
use tiphys_base::logging;
use tiphys_cli::cluster::Cluster;
use tiphys_cli::progress::Form;
use tiphys_cli::{Progress, delete, doctor, flags, status};

use crate::VERSION;

/// The processes of a cluster: started by `up` and by each other, not by people.
pub(crate) fn processes() -> Vec<Command> {
    let value = |name: &'static str| Arg::new(name).long(name).required(true);
    let switch = |name: &'static str| Arg::new(name).long(name).action(ArgAction::SetTrue);
    let log = || Arg::new("log").long("log").default_value("info");
    vec![
        Command::new("run").hide(true).args([
            value("name"),
            value("data-dir"),
            switch("demo"),
            switch("wait"),
            switch("in-front"),
            flags::timeout_arg(),
            log(),
        ]),
        Command::new("node").hide(true).args([value("name"), value("data-dir"), value("node"), log()]),
    ]
}

pub(crate) fn dispatch(matches: &ArgMatches) -> Result<()> {
    match matches.subcommand() {
        Some(("up", m)) => crate::up::run(m),
        Some(("run", m)) => run_cluster(m),
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
pub(crate) fn remove_tables(cluster: &Cluster) -> Result<()> {
    for what in ["services", "hostports"] {
        tiphys_proxy::remove_table(&cluster.table(what))
            .with_context(|| format!("cannot remove the nftables table {}", cluster.table(what)))?;
    }
    Ok(())
}

pub(crate) fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("tiphys")
        .on_thread_start(tiphys_base::threads::started)
        .build()
        .context("cannot start threads")
}

/// `tiphys run`: the cluster's process. `up` starts it first, the first node's supervisor when it has died.
fn run_cluster(m: &ArgMatches) -> Result<()> {
    let (layout, cluster) = flags::existing(m)?;
    let log = flags::text(m, "log").unwrap_or("info").to_owned();
    logging::init(&log, logging::Format::Text);
    let _lock = crate::up::try_lock(&layout.lock(), &layout)?;
    if !layout.wanted().exists() {
        bail!("the cluster {:?} is not to run: `tiphys up --name {0}` starts it", layout.name);
    }
    let progress = Progress::new(Form::Machine);
    let options = crate::cluster::Options {
        demo: m.get_flag("demo"),
        wait: m.get_flag("wait") || m.get_flag("demo"),
        in_front: m.get_flag("in-front"),
        timeout: flags::timeout(m)?,
        log,
    };
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
