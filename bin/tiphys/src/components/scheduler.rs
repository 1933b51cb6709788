//! `tiphys scheduler`.

use anyhow::Result;
use clap::Command;
use tiphys_client::Informers;
use tiphys_scheduler::{Config, Scheduler};

use super::args;
use super::{connection, health, leader};

const NAME: &str = "kube-scheduler";
const PORT: u16 = 10259;

fn command(program: &'static str) -> Command {
    let idle = [&connection::IDLE[..], &leader::IDLE, &health::IDLE].into_iter().flat_map(args::idle);
    let command = Command::new(program).about("The Kubernetes scheduler").args(connection::flags()).args(leader::flags());
    command.args(health::flags()).arg(args::verbosity()).args(idle)
}

pub(super) fn run(program: &'static str, arguments: Vec<String>) -> Result<()> {
    let m = args::matches(command(program), program, arguments);
    super::serve(m.get_one("v").copied().unwrap_or(0), |tasks| async move {
        for idle in [&connection::IDLE[..], &leader::IDLE, &health::IDLE] {
            args::warn_of_idle(&m, idle);
        }
        let client = connection::client(&m, "scheduler")?;
        health::start(&m, NAME, PORT, &tasks).await?;
        leader::elect(&m, NAME, client.clone(), &tasks, || {
            let informers = Informers::with_tasks(client.clone(), tasks.child());
            let scheduler = Scheduler::start(Config::default(), client, &informers);
            let stop = tasks.token();
            tasks.spawn_draining("scheduler", async move {
                stop.cancelled().await;
                scheduler.stop().await;
            });
        })
        .await
    })
}
