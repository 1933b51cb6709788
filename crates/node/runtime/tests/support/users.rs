//! Pods with users of their own.

use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use tiphys_cri::*;

use crate::support::{Fixture, own_pid, plain, script, wait_stopped};

crate::tests![
    root_inside_is_nobody_outside,
    volumes_keep_their_owners,
    power_ends_at_the_pod,
    a_pod_with_users_shares_processes,
    start_failures_are_told
];

const FIRST: u32 = 2_000_000_000 / 65536 * 65536;

fn options() -> NamespaceOption {
    let maps = || vec![IdMapping { host_id: FIRST, container_id: 0, length: 65536 }];
    NamespaceOption { userns_options: Some(UserNamespace { mode: NamespaceMode::Pod, uids: maps(), gids: maps() }), ..own_pid() }
}

async fn sandbox(test: &Fixture, options: NamespaceOption) -> String {
    let mut config = test.sandbox_config();
    config.linux.sysctls.insert("net.ipv4.ip_unprivileged_port_start".into(), "80".into());
    config.linux.security_context.namespace_options = options;
    test.runtime.run_pod_sandbox(config, "").await.unwrap()
}

fn log(status: &ContainerStatus) -> String {
    plain(&std::fs::read_to_string(&status.log_path).unwrap())
}

async fn root_inside_is_nobody_outside(test: Fixture) {
    // As nodes do, so that volumes' mounts propagate.
    tiphys_sys::mount::bind(&test.place.dir, &test.place.dir, true).unwrap();
    tiphys_sys::mount::set_propagation(&test.place.dir, tiphys_sys::mount::MS_SHARED).unwrap();
    let sandbox = sandbox(&test, options()).await;
    let text = "id -u; stat -c %u /data/file; cat /proc/self/uid_map; touch /new && stat -c %u /new; hostname; \
                cat /proc/sys/net/ipv4/ip_unprivileged_port_start; echo x > /dev/null && echo y > /proc/self/fd/1; touch /dev/shm/a && echo $$";
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let first = FIRST.to_string();
    let status = test.finish(&sandbox, script(text)).await;
    assert_eq!(words(&log(&status)), ["0", "0", "0", &first, "65536", "0", "the-pod", "80", "y", "1"]);
    let new = test.place.dir.join("rt/containers").join(&status.id).join("upper/new");
    assert_eq!(std::fs::metadata(new).unwrap().uid(), FIRST);
    assert_eq!(std::fs::metadata(test.place.dir.join("layer/data/file")).unwrap().uid(), 0);
    let id = test.start(&sandbox, ContainerConfig { log_path: "second.log".into(), ..script("sleep 1000") }).await;
    let answer = test.exec(&id, "id -u; cat /proc/self/uid_map; ls /proc | grep -c '^1$'; echo z > /dev/stdout").await;
    assert_eq!(words(&String::from_utf8_lossy(&answer.stdout)), ["0", "0", &first, "65536", "1", "z"], "{answer:?}");
    test.runtime.stop_container(&id, Duration::ZERO).await.unwrap();
    assert_eq!(test.runtime.container_status(&id).await.unwrap().exit_code, 137);
    test.runtime.remove_pod_sandbox(&sandbox).await.unwrap();
    tiphys_sys::mount::detach(&test.place.dir).unwrap();
}

async fn volumes_keep_their_owners(test: Fixture) {
    let sandbox = sandbox(&test, options()).await;
    let volume = test.place.dir.join("volume");
    std::fs::create_dir_all(&volume).unwrap();
    std::fs::write(volume.join("file"), "secret").unwrap();
    std::fs::set_permissions(volume.join("file"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let mut config = script(
        "cat /vol/file; echo; stat -c %u /vol/file; echo mine > /vol/made; touch /ro/x 2>/dev/null || echo closed; echo out > /dev/stdout",
    );
    let mount = |inside: &str, readonly| Mount {
        container_path: inside.into(),
        host_path: volume.to_str().unwrap().into(),
        readonly,
        ..Mount::default()
    };
    config.mounts = vec![mount("/vol", false), mount("/ro", true)];
    let status = test.finish(&sandbox, config).await;
    assert!(log(&status).ends_with("closed\nout\n") && log(&status).contains("secret\n0\n"), "{}", log(&status));
    assert_eq!(std::fs::metadata(volume.join("made")).unwrap().uid(), 0, "on disk a volume's files are root's");
    let mut user = script("id -u; echo out > /dev/stdout; touch /vol/no 2>/dev/null || echo closed");
    user.linux.security_context.run_as_user = Some(1000);
    user.mounts = vec![mount("/vol", false)];
    user.log_path = "user.log".into();
    assert_eq!(log(&test.finish(&sandbox, user).await), "1000\nout\nclosed\n");
}

async fn power_ends_at_the_pod(test: Fixture) {
    let sandbox = sandbox(&test, options()).await;
    let mut config = script(
        "mount -t tmpfs none /tmp && echo mounted; ip link add type veth && echo links; \
         echo 1 > /proc/sys/vm/drop_caches && echo dropped; mknod /n b 8 0 && echo made; kill -0 -1; true",
    );
    config.linux.security_context.capabilities = Some(Capability { add_capabilities: vec!["ALL".into()], ..Capability::default() });
    let text = log(&test.finish(&sandbox, config).await);
    assert!(text.contains("mounted\nlinks\n"), "{text}");
    assert!(!text.contains("dropped") && !text.contains("made"), "{text}");
}

async fn a_pod_with_users_shares_processes(test: Fixture) {
    let sandbox = sandbox(&test, NamespaceOption { pid: NamespaceMode::Pod, ..options() }).await;
    let shared = |mut config: ContainerConfig| {
        config.linux.security_context.namespace_options.pid = NamespaceMode::Pod;
        config
    };
    let first = test.start(&sandbox, shared(script("sleep 1234"))).await;
    let mut second = shared(script("ps -o args | grep -c '[s]leep 1234'; echo $$"));
    second.log_path = "second.log".into();
    let text = log(&test.finish(&sandbox, second).await);
    let words: Vec<&str> = text.split_whitespace().collect();
    assert_eq!(words[0], "1", "{text}");
    assert_ne!(words[1], "1");
    let runtime = test.place.open().await;
    assert_eq!(runtime.pod_sandbox_status(&sandbox).await.unwrap().state, PodSandboxState::Ready, "its holder is known");
    drop(runtime);
    test.runtime.stop_container(&first, Duration::ZERO).await.unwrap();
}

async fn start_failures_are_told(test: Fixture) {
    let sandbox = sandbox(&test, options()).await;
    let mut events = test.runtime.container_events().await.unwrap();
    let config = ContainerConfig { command: vec!["no-such-program".into()], ..script("") };
    let id = test.create(&sandbox, config).await;
    let error = test.runtime.start_container(&id).await.unwrap_err().to_string();
    assert!(error.contains("exec: \"no-such-program\": executable file not found in $PATH"), "{error}");
    assert_eq!(wait_stopped(&test.runtime, &mut events, &id).await.reason, "StartError");
    let on_host = NamespaceOption { network: NamespaceMode::Node, ..options() };
    let mut config = test.sandbox_config();
    config.linux.security_context.namespace_options = on_host;
    assert!(test.runtime.run_pod_sandbox(config, "").await.is_err());
}
