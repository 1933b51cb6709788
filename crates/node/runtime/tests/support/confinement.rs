//! What a container may and may not do, and see.

use tiphys_cri::*;

use crate::support::{Fixture, script};

crate::tests![
    users_and_capabilities,
    seccomp,
    files,
    mounts,
    propagation,
    image_volumes,
    sysctls,
    namespaces,
    devices,
    privileged,
    exec_is_confined_alike
];

fn value(status: &str, key: &str) -> String {
    status.lines().find_map(|line| line.strip_prefix(key)).map(|rest| rest.trim().to_owned()).unwrap_or_default()
}

fn status_of(change: impl FnOnce(&mut LinuxContainerSecurityContext)) -> ContainerConfig {
    let mut config = script("cat /proc/self/status");
    change(&mut config.linux.security_context);
    config
}

async fn users_and_capabilities(test: Fixture) {
    let (root, _) = test.output(status_of(|_| {})).await;
    assert_eq!((value(&root, "CapEff:"), value(&root, "CapBnd:")), ("00000000a80425fb".into(), "00000000a80425fb".into()));
    assert_eq!((value(&root, "CapAmb:"), value(&root, "NoNewPrivs:")), ("0000000000000000".into(), "0".into()));
    let drop =
        |names: &[&str]| Some(Capability { drop_capabilities: names.iter().map(|name| (*name).into()).collect(), ..Capability::default() });
    let (none, _) = test.output(status_of(|security| security.capabilities = drop(&["ALL"]))).await;
    assert_eq!(value(&none, "CapBnd:"), "0000000000000000");
    let (user, _) = test
        .output(status_of(|security| {
            security.run_as_user = Some(1000);
            security.run_as_group = Some(3000);
            security.supplemental_groups = vec![4000];
            security.no_new_privs = true;
        }))
        .await;
    assert_eq!((value(&user, "CapEff:"), value(&user, "CapBnd:")), ("0000000000000000".into(), "00000000a80425fb".into()));
    assert_eq!((value(&user, "Uid:"), value(&user, "Gid:")), ("1000\t1000\t1000\t1000".into(), "3000\t3000\t3000\t3000".into()));
    assert_eq!((value(&user, "Groups:"), value(&user, "NoNewPrivs:")), ("2000 3000 4000".into(), "1".into()));
    let mut ambient = status_of(|security| security.run_as_user = Some(1000));
    let names = || vec!["NET_BIND_SERVICE".to_owned()];
    ambient.linux.security_context.capabilities =
        Some(Capability { add_capabilities: names(), add_ambient_capabilities: names(), drop_capabilities: vec!["ALL".into()] });
    assert_eq!(value(&test.output(ambient).await.0, "CapEff:"), "0000000000000400");
}

async fn seccomp(test: Fixture) {
    let with = |profile: Option<SecurityProfile>, text: &str| {
        let mut config = script(text);
        config.linux.security_context.seccomp = profile;
        config.linux.security_context.capabilities =
            Some(Capability { add_capabilities: vec!["SYS_TIME".into()], ..Capability::default() });
        config
    };
    let profile = |profile_type, localhost_ref: &str| Some(SecurityProfile { profile_type, localhost_ref: localhost_ref.into() });
    let default = profile(ProfileType::RuntimeDefault, "");
    let (text, code) =
        test.output(with(default, "grep Seccomp: /proc/self/status; unshare -U true 2>/dev/null && echo got through; true")).await;
    assert_eq!((text.as_str(), code), ("Seccomp:\t2\n", 0));
    let (text, _) = test
        .output(with(profile(ProfileType::Unconfined, ""), "grep Seccomp: /proc/self/status; unshare -U true && echo got through"))
        .await;
    assert_eq!(text, "Seccomp:\t0\ngot through\n");
    let file = test.place.dir.join("profile.json");
    let json = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":27}]}"#;
    std::fs::write(&file, json).unwrap();
    let local = profile(ProfileType::Localhost, file.to_str().unwrap());
    let (text, _) = test.output(with(local, "mkdir /tmp/x 2>&1; touch /tmp/y && echo made")).await;
    assert!(text.contains("File too large") && text.ends_with("made\n"), "{text}");
    let sandbox = test.sandbox().await;
    let broken = with(profile(ProfileType::Localhost, "/no/such/file"), "true");
    assert!(test.runtime.create_container(&sandbox, broken, &test.sandbox_config()).await.is_err());
}

async fn files(test: Fixture) {
    let mut config =
        script("cat /data/file; echo; echo changed > /data/file; cat /data/file; touch /new; echo 1 > /proc/sys/kernel/hostname; ls /");
    config.linux.security_context.readonly_paths = vec!["/proc/sys".into(), "/no/such/path".into()];
    let (text, _) = test.output(config).await;
    assert!(text.starts_with("of the image\nchanged\n") && text.contains("\nnew\n"), "{text}");
    assert_eq!(std::fs::read_to_string(test.place.dir.join("layer/data/file")).unwrap(), "of the image", "the layer is untouched");
    let mut config = script("touch /new 2>&1; touch /dev/shm/x && echo shm; touch /tmp/t 2>&1; echo 1 > /proc/sys/kernel/hostname");
    config.linux.security_context.readonly_rootfs = true;
    config.linux.security_context.readonly_paths = vec!["/proc/sys".into()];
    config.linux.security_context.masked_paths = vec!["/proc/timer_list".into(), "/proc/acpi".into(), "/sys/firmware".into()];
    let (text, code) = test.output(config).await;
    assert_eq!(text.matches("Read-only file system").count(), 3, "{text}");
    assert!(text.contains("shm\n") && code != 0, "{text}");
}

async fn mounts(test: Fixture) {
    let host = test.place.dir.join("volume");
    std::fs::create_dir_all(host.join("sub")).unwrap();
    std::fs::write(host.join("file"), "on the host\n").unwrap();
    let mount = |container: &str, host: std::path::PathBuf, readonly: bool| Mount {
        container_path: container.into(),
        host_path: host.to_str().unwrap().into(),
        readonly,
        ..Mount::default()
    };
    // A link of the image must not lead a mount outside.
    std::os::unix::fs::symlink("/../../../../../../tmp", test.place.dir.join("layer/escape")).unwrap();
    let mut config = script(
        "cat /rw/file /etc/one; echo more > /rw/sub/x; touch /ro/y 2>&1; ls /escape/inside; cat /etc/hosts; grep -c ' /rw ' /proc/self/mountinfo; ls /rw/made",
    );
    config.mounts = vec![
        mount("/etc/one", host.join("file"), false),
        mount("/ro", host.clone(), true),
        mount("/rw", host.clone(), false),
        mount("/escape/inside", host.join("sub"), false),
        mount("/rw/made", host.join("not/there/yet"), false),
        mount("/etc/hosts", host.join("file"), true),
    ];
    let (text, code) = test.output(config).await;
    assert_eq!(code, 0, "{text}");
    let expected = ["on the host", "on the host", "touch: /ro/y: Read-only file system", "x", "on the host", "1"];
    assert_eq!(text.lines().collect::<Vec<_>>(), expected);
    assert_eq!(std::fs::read_to_string(host.join("sub/x")).unwrap(), "more\n");
    assert!(host.join("not/there/yet").is_dir() && !std::path::Path::new("/tmp/inside").exists());
}

async fn propagation(test: Fixture) {
    use tiphys_sys::mount;
    let host = test.place.dir.join("shared");
    std::fs::create_dir_all(&host).unwrap();
    mount::mount("tmpfs", &host, "tmpfs", 0, "").unwrap();
    mount::set_propagation(&host, mount::MS_SHARED).unwrap();
    for name in ["early", "late", "from-inside"] {
        std::fs::create_dir(host.join(name)).unwrap();
    }
    mount::mount("tmpfs", &host.join("early"), "tmpfs", 0, "").unwrap();
    let sandbox = test.sandbox().await;
    let container = |propagation, privileged, recursive| {
        let mut config = script("sleep 1000");
        config.linux.security_context.privileged = privileged;
        let host_path = host.to_str().unwrap().to_owned();
        config.mounts = vec![Mount {
            container_path: "/m".into(),
            host_path,
            propagation,
            readonly: recursive,
            recursive_read_only: recursive,
            ..Mount::default()
        }];
        test.start(&sandbox, config)
    };
    let private = container(MountPropagation::Private, false, true).await;
    let slave = container(MountPropagation::HostToContainer, false, false).await;
    let both = container(MountPropagation::Bidirectional, true, false).await;
    mount::mount("tmpfs", &host.join("late"), "tmpfs", 0, "").unwrap();
    test.exec(&both, "mount -t tmpfs none /m/from-inside && touch /m/from-inside/x").await;
    assert!(host.join("from-inside/x").exists());
    for (id, seen) in [(&private, "early"), (&slave, "early late from-inside"), (&both, "early late from-inside")] {
        let answer = test.exec(id, "for n in early late from-inside; do grep -q \" /m/$n \" /proc/self/mountinfo && echo $n; done").await;
        assert_eq!(String::from_utf8(answer.stdout).unwrap().split_whitespace().collect::<Vec<_>>().join(" "), seen);
    }
    assert_ne!(test.exec(&private, "touch /m/early/x").await.exit_code, 0, "read-only all the way down");
    assert_eq!(test.exec(&slave, "touch /m/early/x").await.exit_code, 0);
    test.runtime.remove_pod_sandbox(&sandbox).await.unwrap();
    for name in ["early", "late", "from-inside", ""] {
        mount::detach(&host.join(name)).unwrap();
    }
    let unshared = test.place.dir.join("unshared");
    std::fs::create_dir_all(&unshared).unwrap();
    mount::mount("tmpfs", &unshared, "tmpfs", 0, "").unwrap();
    mount::set_propagation(&unshared, mount::MS_PRIVATE).unwrap();
    let mut config = script("true");
    let host_path = unshared.to_str().unwrap().to_owned();
    config.mounts =
        vec![Mount { container_path: "/m".into(), host_path, propagation: MountPropagation::Bidirectional, ..Mount::default() }];
    let sandbox = test.sandbox().await;
    let error = test.runtime.create_container(&sandbox, config, &test.sandbox_config()).await.unwrap_err().to_string();
    mount::detach(&unshared).unwrap();
    assert!(error.contains("is not a shared mount"), "{error}");
}

async fn image_volumes(test: Fixture) {
    let mut config = script("cat /image/data/file; echo; ls /sub; touch /image/x 2>&1");
    let image = Some(ImageSpec { image: "any".into(), ..ImageSpec::default() });
    let mount =
        |path: &str, sub: &str| Mount { container_path: path.into(), image: image.clone(), image_sub_path: sub.into(), ..Mount::default() };
    config.mounts = vec![mount("/image", ""), mount("/sub", "data")];
    assert_eq!(test.output(config).await.0, "of the image\nfile\ntouch: /image/x: Read-only file system\n");
    let sandbox = test.sandbox().await;
    let missing = ContainerConfig { mounts: vec![mount("/sub", "nowhere")], ..script("true") };
    assert!(test.runtime.create_container(&sandbox, missing, &test.sandbox_config()).await.is_err());
}

async fn sysctls(test: Fixture) {
    let mut config = test.sandbox_config();
    let wanted = [("kernel.shm_rmid_forced", "1"), ("net.ipv4.ip_local_port_range", "20000\t30000"), ("kernel.msgmax", "9000")];
    config.linux.sysctls = wanted.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let sandbox = test.runtime.run_pod_sandbox(config.clone(), "").await.unwrap();
    let id = test.start(&sandbox, script("sleep 1000")).await;
    let seen = test.exec(&id, "sysctl -n kernel.shm_rmid_forced net.ipv4.ip_local_port_range kernel.msgmax").await;
    assert_eq!(String::from_utf8(seen.stdout).unwrap(), "1\n20000\t30000\n9000\n");
    config.linux.sysctls = Map::from([("kernel.no_such_thing".to_owned(), "1".to_owned())]);
    let error = test.runtime.run_pod_sandbox(config, "").await.unwrap_err().to_string();
    assert!(error.contains("kernel.no_such_thing"), "{error}");
    assert_eq!(test.runtime.list_pod_sandboxes(&PodSandboxFilter::default()).await.unwrap().len(), 1);
}

async fn namespaces(test: Fixture) {
    let sandbox = test.sandbox().await;
    let ids = |id: String| {
        let test = &test;
        async move {
            let text =
                String::from_utf8(test.exec(&id, "cd /proc/self/ns; for n in net ipc uts pid mnt; do readlink $n; done").await.stdout)
                    .unwrap();
            text.lines().map(str::to_owned).collect::<Vec<_>>()
        }
    };
    let one = ids(test.start(&sandbox, script("sleep 1000")).await).await;
    let two = ids(test.start(&sandbox, script("sleep 1000")).await).await;
    assert_eq!(one[..3], two[..3], "network, IPC and UTS are the pod's");
    assert!(one[3] != two[3] && one[4] != two[4], "PID and mounts are the container's");
    let host: Vec<String> = ["net", "ipc", "uts"]
        .iter()
        .map(|kind| std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap().display().to_string())
        .collect();
    assert!(one.iter().zip(&host).all(|(inside, outside)| inside != outside));

    let mut config = test.sandbox_config();
    let mut options =
        NamespaceOption { network: NamespaceMode::Node, ipc: NamespaceMode::Node, pid: NamespaceMode::Node, ..NamespaceOption::default() };
    config.linux.security_context.namespace_options = options.clone();
    let on_host = test.runtime.run_pod_sandbox(config, "").await.unwrap();
    let mut container = script("sleep 1000");
    container.linux.security_context.namespace_options = options.clone();
    let shared = ids(test.start(&on_host, container).await).await;
    assert_eq!(shared[..3], host[..]);
    assert!(test.runtime.pod_sandbox_status(&on_host).await.unwrap().ips.is_empty());

    options = NamespaceOption { pid: NamespaceMode::Pod, ..NamespaceOption::default() };
    let mut config = test.sandbox_config();
    config.linux.security_context.namespace_options = options.clone();
    let together = test.runtime.run_pod_sandbox(config, "").await.unwrap();
    let container = |options: &NamespaceOption, text: &str| {
        let mut config = script(text);
        config.linux.security_context.namespace_options = options.clone();
        config
    };
    let first = test.start(&together, container(&options, "sleep 12345 & sleep 1000")).await;
    let second = test.start(&together, container(&options, "sleep 1000")).await;
    let seen = String::from_utf8(test.exec(&second, "ps").await.stdout).unwrap();
    assert!(seen.contains("sleep 12345"), "{seen}");
    test.runtime.stop_container(&first, std::time::Duration::ZERO).await.unwrap();
    let seen = String::from_utf8(test.exec(&second, "ps").await.stdout).unwrap();
    assert!(!seen.contains("sleep 12345"), "what it left behind is killed: {seen}");

    let target = test.start(&sandbox, script("sleep 777")).await;
    options = NamespaceOption { pid: NamespaceMode::Target, target_id: target, ..NamespaceOption::default() };
    let debugger = test.start(&sandbox, container(&options, "sleep 1000")).await;
    let seen = String::from_utf8(test.exec(&debugger, "ps").await.stdout).unwrap();
    assert!(seen.contains("sleep 777"), "{seen}");
}

async fn devices(test: Fixture) {
    let text = "for d in null zero full random urandom tty; do test -c /dev/$d || echo missing $d; done; ls /dev/pts /dev/shm; readlink /dev/stdout; \
                mknod /tmp/kmsg c 1 11 && head -c 1 /tmp/kmsg 2>/dev/null && echo kmsg; echo > /dev/null && echo fine";
    // Nothing of the supervisor's is open in a container; 3 is the folder that ls reads.
    assert_eq!(test.output(script("exec ls /proc/self/fd")).await.0, "0\n1\n2\n3\n");
    let (text, code) = test.output(script(text)).await;
    assert_eq!(code, 0);
    assert!(
        text.ends_with("/proc/self/fd/1\nfine\n") && text.contains("ptmx") && !text.contains("missing") && !text.contains("kmsg"),
        "{text}"
    );
    let mut config = script("test -c /dev/mine && head -c 1 /dev/mine | wc -c");
    config.devices = vec![Device { container_path: "/dev/mine".into(), host_path: "/dev/zero".into(), permissions: "r".into() }];
    assert_eq!(test.output(config).await.0, "1\n");
}

async fn privileged(test: Fixture) {
    let mut config = script(
        "grep CapEff /proc/self/status; test -e /dev/kmsg && echo kmsg; mount -t tmpfs none /tmp && echo mounted; touch /sys/fs/cgroup/pids/x 2>&1",
    );
    config.linux.security_context.privileged = true;
    let (text, _) = test.output(config).await;
    assert!(text.contains("000001fffeffffff") && text.contains("kmsg\nmounted\n") && !text.contains("Read-only"), "{text}");
}

async fn exec_is_confined_alike(test: Fixture) {
    let sandbox = test.sandbox().await;
    let mut config = script("sleep 1000");
    let security = &mut config.linux.security_context;
    security.run_as_user = Some(1000);
    security.no_new_privs = true;
    security.seccomp = Some(SecurityProfile::default());
    config.linux.resources = Some(LinuxContainerResources { oom_score_adj: 900, ..Default::default() });
    let id = test.start(&sandbox, config).await;
    let text = String::from_utf8(test.exec(&id, "cat /proc/self/status /proc/self/oom_score_adj /proc/self/cgroup").await.stdout).unwrap();
    let expected = [
        ("Uid:", "1000\t1000\t1000\t1000"),
        ("Seccomp:", "2"),
        ("NoNewPrivs:", "1"),
        ("CapEff:", "0000000000000000"),
        ("Groups:", "1000 2000"),
    ];
    for (key, wanted) in expected {
        assert_eq!(value(&text, key), wanted, "{key}");
    }
    assert!(text.contains("\n900\n"));
    assert!(text.lines().filter(|line| line.contains("memory") || line.contains("pids")).all(|line| line.ends_with(&id)), "{text}");
}
