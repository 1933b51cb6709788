//! Who restarts whom: the first node's supervisor starts this process again when it ends, and this process the supervisor. So of the two
//! one is always there to start the other. Further nodes' processes are restarted by this one, and their supervisors by them.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use tiphys_base::tasks::Tasks;
use tiphys_cli::cluster::Layout;
use tiphys_runtime::{Keep, Registered, SupervisorCommand, ensure_supervisor, supervisor_dir};

/// Between tries to get a supervisor.
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(500);

/// How the supervisor of a node is started.
pub(crate) fn supervisor(layout: &Layout, number: u32) -> Result<SupervisorCommand> {
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let data_dir = layout.data_dir.display().to_string();
    Ok(SupervisorCommand {
        program,
        arguments: vec!["supervisor".into(), "--data-dir".into(), data_dir, "--node".into(), number.to_string()],
    })
}

/// The runtime's folder of a node.
pub(crate) fn runtime_root(layout: &Layout, number: u32) -> PathBuf {
    layout.node(number).join("runtime")
}

struct Pair {
    layout: Layout,
    command: SupervisorCommand,
    keep: Keep,
}

impl Pair {
    async fn register(&self) -> Result<Registered> {
        let folder = supervisor_dir(&runtime_root(&self.layout, 1));
        ensure_supervisor(&self.command, &folder, &self.layout.name).await.context("cannot start the first node's supervisor")?;
        Registered::with(&folder, self.keep.clone()).await.context("the first node's supervisor does not keep the cluster running")
    }
}

/// Returns when the supervisor knows this process; from then on either is started again by the other.
pub(crate) async fn start(layout: &Layout, log: &str, tasks: &Tasks) -> Result<()> {
    let pair = Pair { layout: layout.clone(), command: supervisor(layout, 1)?, keep: this_process(layout, log)? };
    let mut registered = pair.register().await?;
    tasks.spawn("supervisor", async move {
        loop {
            registered.until_gone().await;
            if !pair.layout.wanted().exists() {
                return;
            }
            tracing::warn!("the first node's supervisor has ended; it is started again");
            registered = loop {
                match pair.register().await {
                    Ok(registered) => break registered,
                    Err(error) => tracing::error!(error = format!("{error:#}"), "the supervisor cannot be started"),
                }
                tokio::time::sleep(TRY_AGAIN_AFTER).await;
            };
        }
    });
    Ok(())
}

/// This process as it is to be started again: without waiting for anything, for nobody waits for it.
fn this_process(layout: &Layout, log: &str) -> Result<Keep> {
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let words = ["run", "--name", &layout.name, "--data-dir"].map(str::to_owned);
    let last = [layout.data_dir.display().to_string(), "--log".to_owned(), log.to_owned()];
    Ok(Keep {
        pid: tiphys_sys::process::pid(),
        arguments: std::iter::once(program.display().to_string()).chain(words).chain(last).collect(),
        program,
        environment: std::env::vars().collect(),
        log: layout.log(),
        wanted: layout.wanted(),
    })
}
