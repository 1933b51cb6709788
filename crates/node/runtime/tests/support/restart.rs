//! Killing the node process, and the supervisor, while containers run.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use tiphys_cri::*;

use crate::support::{Fixture, Place, script, wait_stopped};

crate::tests![containers_outlive_the_node_process, a_lost_supervisor_is_replaced, the_supervisor_is_small];

/// Another node process: takes over the runtime of a place, starts a container, says its id, and waits to be killed.
pub(crate) fn node(args: &[String]) {
    let place = Place::at(Path::new(&args[0]));
    let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    tokio.block_on(async {
        let test = Fixture { runtime: place.open().await, place };
        let sandbox = test.sandbox().await;
        let id = test.start(&sandbox, script("echo before; while ! test -e /vol/go; do sleep 0.02; done; echo after; exit 21")).await;
        let mounted = |mut config: ContainerConfig| {
            let host_path = test.place.dir.to_str().unwrap().to_owned();
            config.mounts = vec![Mount { container_path: "/vol".into(), host_path, ..Mount::default() }];
            config
        };
        let waiting = test
            .start(
                &sandbox,
                mounted(ContainerConfig {
                    log_path: "w.log".into(),
                    ..script("echo before; while ! test -e /vol/go; do sleep 0.02; done; echo after; exit 21")
                }),
            )
            .await;
        println!("{id} {waiting}");
        std::future::pending::<()>().await;
    });
}

async fn containers_outlive_the_node_process(test: Fixture) {
    let mut child = Command::new(std::env::current_exe().unwrap()).arg("node").arg(&test.place.dir).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let (stays, ends) = line.trim().split_once(' ').unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    // One ends while no node process is there that knows it.
    std::fs::write(test.place.dir.join("go"), "").unwrap();
    let runtime = test.place.open().await;
    let mut events = runtime.container_events().await.unwrap();
    let status = wait_stopped(&runtime, &mut events, ends).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (21, "Error"));
    let log = std::fs::read_to_string(&status.log_path).unwrap();
    assert!(log.contains(" F before\n") && log.contains(" F after\n"), "{log}");
    let running = runtime.container_status(stays).await.unwrap();
    assert_eq!(running.state, ContainerState::Running);
    let answer = runtime.exec_sync(stays, &["echo".to_owned(), "here".to_owned()], Duration::ZERO).await.unwrap();
    assert_eq!(answer.stdout, b"here\n");
    runtime.stop_container(stays, Duration::ZERO).await.unwrap();
    assert_eq!(runtime.container_status(stays).await.unwrap().exit_code, 137);
}

async fn a_lost_supervisor_is_replaced(test: Fixture) {
    let sandbox = test.sandbox().await;
    let id = test.start(&sandbox, script("sleep 1000")).await;
    let mut events = test.runtime.container_events().await.unwrap();
    let old = test.place.supervisor_pid();
    tiphys_sys::process::kill(old, tiphys_sys::signal::SIGKILL).unwrap();
    let status = wait_stopped(&test.runtime, &mut events, &id).await;
    assert_eq!(status.exit_code, 255);
    assert_ne!(test.place.supervisor_pid(), old);
    // The pod's namespaces are pinned by mounts, so the pod itself is still there.
    assert_eq!(test.finish(&sandbox, script("exit 12")).await.exit_code, 12);
}

async fn the_supervisor_is_small(test: Fixture) {
    let sandbox = test.sandbox().await;
    for _ in 0..5 {
        test.start(&sandbox, script("sleep 1000")).await;
    }
    let pid = test.place.supervisor_pid();
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let kib = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.split_whitespace().next()?.parse::<u64>().ok()).unwrap();
    let anonymous = kib("Anonymous:");
    println!("supervisor: PSS {} KiB, anonymous {anonymous} KiB", kib("Pss:"));
    assert!(anonymous < 4096);
    assert_eq!(std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().count(), 1);
}
