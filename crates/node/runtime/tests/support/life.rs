//! Starting, ending, logs, limits.

use std::time::{Duration, Instant};

use tiphys_cri::*;

use crate::support::{Fixture, plain, script, wait_stopped};

crate::tests![
    exit_codes_and_logs,
    errors_of_starting,
    stopping,
    running_out_of_memory,
    limits_can_change,
    many_at_once,
    latency,
    events_tell_the_story,
    logs_can_be_moved_away,
    stop_and_remove_are_idempotent,
    commands_of_the_image,
];

async fn exit_codes_and_logs(test: Fixture) {
    let sandbox = test.sandbox().await;
    let status = test.finish(&sandbox, script("echo out; echo err >&2; printf tail; exit 3")).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (3, "Error"));
    assert!(status.created_at <= status.started_at && status.started_at <= status.finished_at);
    let log = std::fs::read_to_string(&status.log_path).unwrap();
    let mut lines: Vec<&str> = log.lines().map(|line| line.split_once(' ').unwrap().1).collect();
    lines.sort_unstable();
    assert_eq!(lines, ["stderr F err", "stdout F out", "stdout P tail"]);
    let time = log.split(' ').next().unwrap();
    assert!(time.len() == "2026-11-21T10:00:00.000000000Z".len() && time.ends_with('Z'), "{time}");
    let again = test.finish(&sandbox, script("true")).await;
    assert_eq!((again.exit_code, again.reason.as_str()), (0, "Completed"));
    let killed = test.finish(&sandbox, script("kill -9 $$")).await;
    // The first process of a PID namespace cannot be killed from inside it.
    assert_eq!(killed.exit_code, 0);
    let signalled = test.finish(&sandbox, script("sh -c 'kill -15 $$'; exit $?")).await;
    assert_eq!(signalled.exit_code, 143);
}

/// Not a limit but a figure: the machine is shared, so the least of many is what counts.
async fn latency(test: Fixture) {
    let mut all = [const { Vec::new() }; 4];
    for index in 0..40 {
        let start = Instant::now();
        let sandbox = test.sandbox().await;
        let at_sandbox = start.elapsed();
        let id = test.create(&sandbox, ContainerConfig { log_path: format!("{index}.log"), ..script("sleep 1000") }).await;
        let at_create = start.elapsed();
        test.runtime.start_container(&id).await.unwrap();
        let at_start = start.elapsed();
        test.runtime.exec_sync(&id, &["true".to_owned()], Duration::ZERO).await.unwrap();
        let at_exec = start.elapsed();
        for (list, value) in all.iter_mut().zip([at_sandbox, at_create - at_sandbox, at_start - at_create, at_exec - at_start]) {
            list.push(value);
        }
        test.runtime.remove_pod_sandbox(&sandbox).await.unwrap();
    }
    for (name, list) in ["sandbox", "create", "start", "exec"].iter().zip(&mut all) {
        list.sort();
        println!("{name}: least {:?}, median {:?}", list[0], list[list.len() / 2]);
    }
}

async fn errors_of_starting(test: Fixture) {
    let sandbox = test.sandbox().await;
    for (command, words) in [
        ("nope", "exec: \"nope\": executable file not found in $PATH"),
        ("/bin/nope", "exec: \"/bin/nope\": stat /bin/nope: no such file or directory"),
        ("/bin/plain", "exec: \"/bin/plain\": permission denied"),
    ] {
        let config = ContainerConfig { command: vec![command.into()], ..script("") };
        let id = test.create(&sandbox, config).await;
        let error = test.runtime.start_container(&id).await.unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
        let status = test.runtime.container_status(&id).await.unwrap();
        assert_eq!((status.state, status.exit_code, status.reason.as_str()), (ContainerState::Exited, 128, "StartError"));
        assert!(status.message.contains(words));
    }
    let missing = ContainerConfig { image: ImageSpec { image: "missing".into(), ..ImageSpec::default() }, ..script("true") };
    assert!(test.runtime.create_container(&sandbox, missing, &test.sandbox_config()).await.unwrap_err().is_not_found());
}

async fn stopping(test: Fixture) {
    let sandbox = test.sandbox().await;
    let polite = test.start(&sandbox, script("trap 'exit 7' TERM; echo ready; while :; do sleep 0.01; done")).await;
    let deaf = test.start(&sandbox, script("trap '' TERM; sleep 1000 & wait; sleep 1000")).await;
    let other = test
        .start(
            &sandbox,
            ContainerConfig { stop_signal: "SIGUSR1".into(), ..script("trap 'exit 9' USR1; echo ready; while :; do sleep 0.01; done") },
        )
        .await;
    for id in [&polite, &other] {
        while test.exec(id, "grep SigCgt /proc/1/status").await.stdout.ends_with(b"0000000000000000\n") {}
    }
    let start = Instant::now();
    test.runtime.stop_container(&polite, Duration::from_secs(30)).await.unwrap();
    test.runtime.stop_container(&other, Duration::from_secs(30)).await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(10));
    test.runtime.stop_container(&deaf, Duration::from_millis(100)).await.unwrap();
    for (id, code) in [(polite, 7), (deaf, 137), (other, 9)] {
        assert_eq!(test.runtime.container_status(&id).await.unwrap().exit_code, code);
    }
}

async fn running_out_of_memory(test: Fixture) {
    let sandbox = test.sandbox().await;
    let mut config = ContainerConfig { command: ["tail", "/dev/zero"].map(str::to_owned).to_vec(), ..script("") };
    config.linux.resources = Some(LinuxContainerResources { memory_limit_in_bytes: 16 << 20, ..Default::default() });
    let status = test.finish(&sandbox, config).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (137, "OOMKilled"));
}

async fn limits_can_change(test: Fixture) {
    let sandbox = test.sandbox().await;
    let mut config = script("sleep 1000");
    let resources = LinuxContainerResources {
        memory_limit_in_bytes: 64 << 20,
        cpu_quota: 50_000,
        cpu_period: 100_000,
        cpu_shares: 102,
        ..Default::default()
    };
    config.linux.resources = Some(resources);
    let id = test.start(&sandbox, config).await;
    // Read inside, where in-place resize is looked at.
    let inside =
        "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes cpu/cpu.cfs_quota_us cpu/cpu.shares 2>/dev/null || cat memory.max cpu.max";
    let before = String::from_utf8(test.exec(&id, inside).await.stdout).unwrap();
    assert!(before.contains("67108864") && before.contains("50000"), "{before}");
    let change = LinuxContainerResources { memory_limit_in_bytes: 96 << 20, cpu_quota: 70_000, cpu_period: 100_000, ..Default::default() };
    test.runtime.update_container_resources(&id, &change).await.unwrap();
    let after = String::from_utf8(test.exec(&id, inside).await.stdout).unwrap();
    assert!(after.contains("100663296") && after.contains("70000"), "{after}");
    let shown = test.runtime.container_status(&id).await.unwrap().resources.unwrap();
    assert_eq!((shown.memory_limit_in_bytes, shown.cpu_shares), (96 << 20, 102));
    let stats = test.runtime.container_stats(&id).await.unwrap();
    assert!(stats.memory.usage_bytes > 0 && stats.cpu.usage_core_nano_seconds > 0 && stats.memory.available_bytes.is_some());
    let pod = test.runtime.pod_sandbox_stats(&sandbox).await.unwrap();
    assert_eq!(pod.containers.len(), 1);
}

async fn many_at_once(test: Fixture) {
    let one = |index: usize| {
        let test = &test;
        async move {
            let start = Instant::now();
            let sandbox = test.sandbox().await;
            let at_sandbox = start.elapsed();
            let id = test
                .create(&sandbox, ContainerConfig { log_path: format!("{index}.log"), ..script(&format!("echo {index}; exit {index}")) })
                .await;
            let at_create = start.elapsed();
            test.runtime.start_container(&id).await.unwrap();
            (id, at_sandbox, at_create - at_sandbox, start.elapsed() - at_create)
        }
    };
    let mut events = test.runtime.container_events().await.unwrap();
    let mut ids = Vec::new();
    for index in 0..5 {
        let (id, sandbox, create, start) = one(index).await;
        println!("alone: sandbox {sandbox:?}, create {create:?}, start {start:?}");
        ids.push(id);
    }
    let start = Instant::now();
    let together = futures(5..25, one).await;
    println!("20 pods at once: {:?}", start.elapsed());
    ids.extend(together.into_iter().map(|(id, ..)| id));
    for (index, id) in ids.iter().enumerate() {
        let status = wait_stopped(&test.runtime, &mut events, id).await;
        assert_eq!(status.exit_code, index as i32);
        assert_eq!(plain(&std::fs::read_to_string(status.log_path).unwrap()), format!("{index}\n"));
    }
}

/// All futures at once on this task.
async fn futures<T, F: Future<Output = T>>(range: std::ops::Range<usize>, make: impl Fn(usize) -> F) -> Vec<T> {
    let mut open: Vec<_> = range.map(|index| (Box::pin(make(index)), None)).collect();
    std::future::poll_fn(|context| {
        for (future, done) in open.iter_mut().filter(|(_, done)| done.is_none()) {
            if let std::task::Poll::Ready(value) = future.as_mut().poll(context) {
                *done = Some(value);
            }
        }
        if open.iter().all(|(_, done)| done.is_some()) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    open.into_iter().filter_map(|(_, done)| done).collect()
}

async fn events_tell_the_story(test: Fixture) {
    let mut events = test.runtime.container_events().await.unwrap();
    let sandbox = test.sandbox().await;
    let status = test.finish(&sandbox, script("exit 4")).await;
    test.runtime.remove_pod_sandbox(&sandbox).await.unwrap();
    let mut story = Vec::new();
    while let Ok(event) = events.try_recv() {
        let who = if event.container_id == sandbox { "pod" } else { "container" };
        if (who, event.event_type) == ("container", ContainerEventType::Stopped) {
            assert_eq!(event.containers_statuses[0].exit_code, 4);
        }
        assert_eq!(event.pod_sandbox_status.unwrap().id, sandbox);
        story.push((who, event.event_type));
    }
    use ContainerEventType::{Created, Deleted, Started, Stopped};
    let expected = [
        ("pod", Created),
        ("pod", Started),
        ("container", Created),
        ("container", Started),
        ("container", Stopped),
        ("pod", Stopped),
        ("container", Deleted),
        ("pod", Deleted),
    ];
    assert_eq!(story.iter().filter(|one| expected.contains(one)).count(), story.len());
    assert_eq!(story.len(), expected.len(), "{story:?} {}", status.id);
}

async fn logs_can_be_moved_away(test: Fixture) {
    let sandbox = test.sandbox().await;
    let id = test.start(&sandbox, ContainerConfig { stdin: true, ..script("echo ready; while read line; do echo $line; done") }).await;
    let path = test.runtime.container_status(&id).await.unwrap().log_path;
    let attach = AttachRequest { container_id: id.clone(), stdin: true, stdout: true, ..AttachRequest::default() };
    let Stream::Direct(mut stdio) = test.runtime.attach(attach).await.unwrap() else { panic!("not direct") };
    let (mut stdin, mut stdout) = (stdio.stdin.take().unwrap(), stdio.stdout.take().unwrap());
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut say = async |text: &str| {
        stdin.write_all(format!("{text}\n").as_bytes()).await.unwrap();
        let mut seen = String::new();
        while !seen.contains(text) {
            let mut buffer = [0; 64];
            let count = stdout.read(&mut buffer).await.unwrap();
            seen.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
        }
    };
    say("one").await;
    let moved = format!("{path}.1");
    std::fs::rename(&path, &moved).unwrap();
    say("two").await;
    test.runtime.reopen_container_log(&id).await.unwrap();
    say("three").await;
    assert_eq!(plain(&std::fs::read_to_string(moved).unwrap()), "ready\none\ntwo\n");
    assert_eq!(plain(&std::fs::read_to_string(path).unwrap()), "three\n");
}

async fn stop_and_remove_are_idempotent(test: Fixture) {
    let sandbox = test.sandbox().await;
    let id = test.start(&sandbox, script("sleep 1000")).await;
    let never_started = test.create(&sandbox, script("true")).await;
    for _ in 0..2 {
        test.runtime.stop_container(&id, Duration::ZERO).await.unwrap();
        test.runtime.remove_container(&id).await.unwrap();
        test.runtime.remove_container(&never_started).await.unwrap();
        test.runtime.stop_pod_sandbox(&sandbox).await.unwrap();
    }
    assert!(test.runtime.container_status(&id).await.unwrap_err().is_not_found());
    let status = test.runtime.pod_sandbox_status(&sandbox).await.unwrap();
    assert_eq!(status.state, PodSandboxState::NotReady);
    let refused = test.runtime.create_container(&sandbox, script("true"), &test.sandbox_config()).await;
    assert!(matches!(refused, Err(CriError::FailedPrecondition(_))));
    for _ in 0..2 {
        test.runtime.remove_pod_sandbox(&sandbox).await.unwrap();
    }
}

async fn commands_of_the_image(test: Fixture) {
    // The image's own command is a shell, which ends at once without input.
    let config = ContainerConfig { command: vec![], ..script("") };
    assert_eq!(test.output(config).await, (String::new(), 0));
    let config = ContainerConfig {
        envs: vec![KeyValue { key: "MINE".into(), value: "x y".into() }],
        working_dir: "/made/for/me".into(),
        ..script("echo $FROM $MINE $HOSTNAME $HOME $PWD; hostname; cat /etc/hostname; id -u; echo $$")
    };
    let expected = "image x y the-pod /root /made/for/me\nthe-pod\nthe-pod\n0\n1\n";
    assert_eq!(test.output(config).await, (expected.to_owned(), 0));
}
