//! `tiphys apiserver`.

use anyhow::Result;
use tiphys_apiserver::Server;
use tiphys_apiserver::flags::{self, FlagError};

pub(super) fn run(program: &'static str, args: Vec<String>) -> Result<()> {
    let parsed = match flags::parse(program, args) {
        Err(FlagError::Usage(error)) => error.exit(),
        other => other?,
    };
    super::serve(parsed.verbosity, |tasks| async move {
        let server = Server::start(parsed.config).await?;
        tracing::info!(address = %server.address(), "serving");
        let stop = tasks.token();
        tasks.spawn_draining("API server", async move {
            stop.cancelled().await;
            server.stop().await;
        });
        std::future::pending().await
    })
}
