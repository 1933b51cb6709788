//! For tests: a cluster of the fake API server and some controllers, and patience.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tiphys_testing::FakeApi;

use crate::{Config, Context};

pub(crate) struct Rig {
    pub(crate) api: FakeApi,
    pub(crate) context: Context,
}

impl Rig {
    /// Starts the controllers by their `start` functions.
    pub(crate) fn start(starts: &[fn(&Context)]) -> Rig {
        Rig::with(Config { clock: Paused::start(), ..Config::default() }, starts)
    }

    pub(crate) fn with(config: Config, starts: &[fn(&Context)]) -> Rig {
        let api = FakeApi::new();
        let client = api.client();
        let tasks = tiphys_base::tasks::Tasks::new();
        let informers = tiphys_client::Informers::with_tasks(client.clone(), tasks.clone());
        let discovery = crate::shared::discovery::Discovery::new(client.clone());
        discovery.follow(&informers);
        let context = Context { config, client, informers, tasks, discovery };
        for start in starts {
            start(&context);
        }
        Rig { api, context }
    }

    /// Until nothing is ready to run; then asserts that it stays so: whoever still writes fights with himself.
    pub(crate) async fn settles(&self) {
        settle().await;
        let quiet = self.api.revision();
        settle().await;
        assert_eq!(self.api.revision(), quiet, "still writing: {:?}", self.api.take_log());
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.context.tasks.stop();
    }
}

async fn settle() {
    // Time is paused: this returns when all tasks wait for something later.
    tokio::time::sleep(Duration::from_millis(300)).await;
}

/// A clock that goes with tokio's, from the first second of 2026.
pub(crate) struct Paused(tokio::time::Instant);

impl Paused {
    pub(crate) fn start() -> Arc<Self> {
        Arc::new(Paused(tokio::time::Instant::now()))
    }
}

impl tiphys_base::Clock for Paused {
    fn now(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH + Duration::from_secs(1_767_225_600) + self.0.elapsed()
    }
}
