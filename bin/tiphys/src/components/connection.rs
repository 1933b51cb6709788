//! How a component reaches the API server: `--kubeconfig`, `--master`, or the pod that it runs in.

use std::path::Path;

use anyhow::{Context, Result, bail};
use clap::{Arg, ArgMatches};
use tiphys_client::Client;
use tiphys_client::https::Config;

use super::args::{Idle, text, value};

pub(super) fn flags() -> [Arg; 2] {
    [value("kubeconfig", "how to reach the API server"), value("master", "address of the API server, instead of the kubeconfig's")]
}

/// Upstream limits how often a component asks; here the server's own limits do.
pub(super) static IDLE: [Idle; 3] = [
    Idle { name: "kube-api-qps", why: "requests are not slowed down by the client" },
    Idle { name: "kube-api-burst", why: "requests are not slowed down by the client" },
    Idle { name: "kube-api-content-type", why: "JSON is spoken" },
];

pub(super) fn config(m: &ArgMatches, component: &str) -> Result<Config> {
    let mut config = match (text(m, "kubeconfig"), text(m, "master")) {
        (Some(path), _) => Config::from_kubeconfig(Path::new(path), "").with_context(|| format!("--kubeconfig {path} cannot be used"))?,
        (None, Some(master)) => Config { server: master.to_owned(), ..Config::default() },
        (None, None) => match Config::in_cluster() {
            Ok(config) => config,
            Err(error) => bail!("--kubeconfig is needed: it says how to reach the API server ({error})"),
        },
    };
    if let Some(master) = text(m, "master") {
        master.clone_into(&mut config.server);
    }
    // Field managers are named after the client's program: upstream's name for it.
    config.user_agent = format!("kube-{component}/{}", crate::VERSION);
    Ok(config)
}

pub(super) fn client(m: &ArgMatches, component: &str) -> Result<Client> {
    Ok(Client::https(config(m, component)?)?)
}
