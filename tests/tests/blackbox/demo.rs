//! What a new user does first: one command, and an application answers; down, up again, and delete leaves nothing.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tiphys_tests::traces::Traces;
use tiphys_tests::{Cluster, eventually, get, in_new_namespace, refused, run};

fn url_in(said: &str) -> Result<String> {
    let words = said.lines().find_map(|l| l.split_whitespace().find(|w| w.starts_with("http://")));
    Ok(words.context("no URL was printed")?.to_owned())
}

#[test]
fn one_command_and_an_application_answers() -> Result<()> {
    in_new_namespace(|| {
        let cluster = Cluster::new("blackbox")?;
        let before = Traces::take("blackbox", cluster.folder())?;
        let lived = live(&cluster).with_context(|| format!("the cluster's log:\n{}", cluster.log_end()));
        cluster.tiphys(&["delete"])?;
        lived?;
        ensure!(!cluster.data_dir().exists(), "delete leaves files");
        Traces::take("blackbox", cluster.folder())?.same_as(&before)?;
        cluster.tiphys(&["delete"])?; // twice is fine
        Ok(())
    })
}

fn live(cluster: &Cluster) -> Result<()> {
    let said = cluster.tiphys(&["up", "--detach", "--wait", "--demo"])?;
    ensure!(said.contains("DNS answers") && said.contains("in all"), "steps are shown: {said}");
    ensure!(cluster.status()?["running"] == true, "it runs");
    let url = url_in(&said)?;
    ensure!(get(&url)?.contains("Hello, 世界"), "the demo answers");
    let why = refused(&mut cluster.command(&["up", "--detach"]))?;
    ensure!(why.contains("running already"), "a second up: {why}");
    ensure!(cluster.tiphys(&["kubeconfig"])?.contains("certificate-authority-data"), "a kubeconfig is printed");
    ensure!(cluster.k("config current-context")?.trim() == "tiphys-blackbox", "the user's kubeconfig names it");
    cluster.tiphys(&["down"])?;
    ensure!(get(&url).is_err(), "nobody answers after down");
    ensure!(cluster.status()?["processes"] == serde_json::json!([]), "nothing runs after down");
    cluster.tiphys(&["up", "--detach", "--wait", "--demo"])?;
    ensure!(get(&url)?.contains("Hello, 世界"), "up goes on with what was there");
    Ok(())
}

/// `up` in the foreground, when it has said that all is there.
fn in_front(cluster: &Cluster) -> Result<Child> {
    let mut front = cluster.command(&["up"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let lines = BufReader::new(front.stdout.take().context("no pipe")?).lines();
    let said: Vec<String> = lines.map_while(Result::ok).take_while(|line| !line.contains("in all")).collect();
    ensure!(said.iter().any(|line| line.contains("Ctrl-C")), "how to stop it is said: {said:?}");
    Ok(front)
}

#[test]
fn in_front_it_stays_until_it_is_interrupted() -> Result<()> {
    in_new_namespace(|| {
        let cluster = Cluster::new("front")?;
        let before = Traces::take("front", cluster.folder())?;
        let mut front = in_front(&cluster)?;
        // What is killed behind it comes back, and the front does not mind.
        let pid = cluster.status()?["processes"].as_array().and_then(|all| all.iter().find(|p| p["role"] == "run")?["pid"].as_i64());
        run(Command::new("kill").args(["-9", &pid.context("no process runs the cluster")?.to_string()]))?;
        eventually(Duration::from_secs(60), || cluster.k("get nodes"))?;
        run(Command::new("kill").args(["-INT", &front.id().to_string()]))?;
        ensure!(front.wait()?.success(), "Ctrl-C is a good end");
        ensure!(cluster.status()?["processes"] == serde_json::json!([]), "nothing runs after Ctrl-C");
        let mut front = in_front(&cluster)?;
        cluster.tiphys(&["delete"])?;
        ensure!(front.wait()?.success(), "the front ends when somebody else stops the cluster");
        Traces::take("front", cluster.folder())?.same_as(&before)
    })
}
