//! The command line of the clusters' commands.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::cluster::{Cluster, DEFAULT_DATA_DIR, DEFAULT_NAME, Layout, Part, Wanted};

fn name() -> Arg {
    Arg::new("name").long("name").value_name("NAME").default_value(DEFAULT_NAME).help("the cluster's name")
}

fn data_dir() -> Arg {
    Arg::new("data-dir").long("data-dir").value_name("DIR").default_value(DEFAULT_DATA_DIR).help("where clusters and images are kept")
}

fn switch(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
}

fn value(name: &'static str, form: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(form).help(help)
}

fn output() -> Arg {
    Arg::new("output")
        .long("output")
        .short('o')
        .value_name("FORM")
        .value_parser(["text", "json"])
        .default_value("text")
        .help("the form of the answer")
}

fn up() -> Command {
    Command::new("up").about("Make a cluster, or start it again").args([
        name(),
        data_dir(),
        value("nodes", "N", "how many nodes; all but the first live in network namespaces of their own")
            .value_parser(clap::value_parser!(u32)),
        value("config", "FILE", "a YAML file with the same settings"),
        value("listen", "ADDRESS:PORT", "where the API server listens (default: the first node's address, port 6443)"),
        value("pod-cidr", "RANGE", "the pods' addresses (default: a free one from 10.244.0.0/16 down)"),
        value("service-cidr", "RANGE", "the Services' addresses (default: a free one from 10.96.0.0/16 up)"),
        value("node-cidr", "RANGE", "the nodes' addresses (default: a free one from 10.89.0.0/24 up)"),
        value("node-port-range", "FROM-TO", "the ports of NodePort Services (default: 30000-32767)"),
        value("registry-mirror", "HOST=URL", "where images of a registry are pulled from instead; may be repeated")
            .action(ArgAction::Append),
        value("registry-hosts-dir", "DIR", "containerd's hosts folder (certs.d)"),
        value("without", "PARTS", "leave the controllers, the scheduler, or both (controllers,scheduler) to another program"),
        switch("detach", "leave the cluster running in the background"),
        switch("wait", "with --detach: return when the nodes are ready and DNS answers"),
        switch("demo", "start a small application on it"),
        timeout_arg(),
        value("log", "FILTER", "what to log, as in RUST_LOG (default: info)"),
    ])
}

/// Of `up`, and of the process that it starts.
pub fn timeout_arg() -> Arg {
    value("timeout", "SECONDS", "how long to wait before the reason is told (default: 120)").value_parser(clap::value_parser!(u64))
}

/// All commands of this crate; the program adds those of its components.
pub fn commands() -> Vec<Command> {
    vec![
        up(),
        Command::new("down").about("Stop a cluster; `up` goes on with everything that was there").args([name(), data_dir()]),
        Command::new("delete").about("Remove a cluster with everything of it").args([name(), data_dir()]),
        Command::new("status").about("Show what a cluster consists of").args([name(), data_dir(), output()]),
        Command::new("kubeconfig").about("Print a cluster's kubeconfig").args([name(), data_dir()]),
        Command::new("doctor").about("Examine this machine").args([name(), data_dir(), output()]),
        image(),
    ]
}

fn image() -> Command {
    let reference = || Arg::new("image").required(true).value_name("IMAGE").help("an image's name, as in a pod");
    Command::new("image")
        .about("Pull, load, list, remove and save images")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands([
            Command::new("pull").about("Pull an image from its registry").args([reference(), data_dir(), mirror(), hosts_dir()]),
            Command::new("load")
                .about("Load the images of an archive")
                .args([Arg::new("file").required(true).value_name("FILE").help("an OCI layout or docker archive, as tar"), data_dir()]),
            Command::new("ls").about("List the images").args([data_dir(), output()]),
            Command::new("rm").about("Remove an image").args([reference(), data_dir()]),
            Command::new("save").about("Write an image to an archive").args([
                reference(),
                Arg::new("file").required(true).value_name("FILE"),
                data_dir(),
            ]),
        ])
}

fn mirror() -> Arg {
    value("registry-mirror", "HOST=URL", "where images of a registry are pulled from instead; may be repeated").action(ArgAction::Append)
}

fn hosts_dir() -> Arg {
    value("registry-hosts-dir", "DIR", "containerd's hosts folder (certs.d)")
}

pub fn text<'a>(matches: &'a ArgMatches, name: &str) -> Option<&'a str> {
    matches.try_get_one::<String>(name).ok().flatten().map(String::as_str)
}

pub fn timeout(matches: &ArgMatches) -> Result<Duration> {
    const DEFAULT: u64 = 120;
    Ok(Duration::from_secs(matches.get_one::<u64>("timeout").copied().unwrap_or(DEFAULT)))
}

pub fn layout(matches: &ArgMatches) -> Result<Layout> {
    Layout::new(Path::new(text(matches, "data-dir").unwrap_or(DEFAULT_DATA_DIR)), text(matches, "name").unwrap_or(DEFAULT_NAME))
}

pub fn wanted(matches: &ArgMatches) -> Result<Wanted> {
    let own = |name: &str| text(matches, name).map(str::to_owned);
    let listen =
        text(matches, "listen").map(|l| l.parse().with_context(|| format!("--listen {l:?} is no ADDRESS:PORT, such as 127.0.0.1:6443")));
    let flags = Wanted {
        nodes: matches.get_one::<u32>("nodes").copied(),
        listen: listen.transpose()?,
        pod_cidr: own("pod-cidr"),
        service_cidr: own("service-cidr"),
        node_cidr: own("node-cidr"),
        node_port_range: own("node-port-range"),
        registry_mirrors: mirrors(matches)?,
        registry_hosts_dir: text(matches, "registry-hosts-dir").map(PathBuf::from),
        without: text(matches, "without").map(parts).transpose()?,
    };
    match text(matches, "config") {
        Some(file) => Ok(flags.over(Wanted::from_file(Path::new(file))?)),
        None => Ok(flags),
    }
}

/// None of them, for an empty text: a part that was left out is taken back.
fn parts(text: &str) -> Result<Vec<Part>> {
    text.split(',').map(str::trim).filter(|t| !t.is_empty()).map(str::parse).collect::<Result<_>>().context("--without")
}

/// The values of `--registry-mirror`, each checked to be `HOST=URL`.
pub fn mirrors(matches: &ArgMatches) -> Result<Vec<String>> {
    let all: Vec<String> = matches.get_many::<String>("registry-mirror").into_iter().flatten().cloned().collect();
    for one in &all {
        let good =
            one.split_once('=').is_some_and(|(host, url)| !host.is_empty() && (url.starts_with("http://") || url.starts_with("https://")));
        anyhow::ensure!(good, "--registry-mirror {one:?} is no HOST=URL, such as docker.io=http://127.0.0.1:5000");
    }
    Ok(all)
}

/// The cluster that the flags name, as it is on disk.
pub fn existing(matches: &ArgMatches) -> Result<(Layout, Cluster)> {
    let layout = layout(matches)?;
    let cluster = layout.load()?;
    Ok((layout, cluster))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Wanted> {
        wanted(&up().try_get_matches_from(args)?)
    }

    #[test]
    fn wrong_values_are_named() {
        assert_eq!(parse(&["up", "--nodes", "3"]).expect("good").nodes, Some(3));
        for (args, says) in [
            (&["up", "--listen", "6443"][..], "--listen"),
            (&["up", "--registry-mirror", "docker.io"], "HOST=URL"),
            (&["up", "--nodes", "many"], "many"),
            (&["up", "--nodez", "2"], "--nodes"),
            (&["up", "--config", "/nowhere"], "/nowhere"),
        ] {
            let error = parse(args).expect_err("refused");
            assert!(format!("{error:#}").contains(says), "{args:?}: {error:#}");
        }
    }
}
