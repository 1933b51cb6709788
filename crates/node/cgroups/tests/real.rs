//! Against the kernel this runs on, in a group of its own that is gone afterwards. Needs root, as everything on a node does.

use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tiphys_cgroups::{Access, Cgroup, DeviceKind, DeviceRule, Hierarchy, Limits, Version};

struct Own(Cgroup);

impl Own {
    fn new(name: &str) -> Self {
        let hierarchy = Arc::new(Hierarchy::detect().unwrap());
        let group = Cgroup::new(hierarchy, &format!("/tiphys-test-{name}-{}", std::process::id()));
        group.create().unwrap();
        Self(group)
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        self.0.kill_all().ok();
        self.0.remove().unwrap();
        assert!(self.0.folders().iter().all(|folder| !folder.exists()));
    }
}

/// A shell that waits for a line before it runs the script, so that it can be put into a group first.
fn shell(script: &str) -> Child {
    let full = format!("read _; {script}");
    Command::new("/bin/sh").args(["-c", &full]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn release(child: &mut Child) {
    use std::io::Write;
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
}

#[test]
fn limits_are_what_the_files_say() {
    let own = Own::new("limits");
    let limits = Limits {
        cpu_shares: Some(512),
        cpu_quota: Some(50_000),
        cpu_period: Some(100_000),
        memory: Some(64 << 20),
        pids: Some(33),
        devices: Some(vec![DeviceRule::char(1, 3)]),
        ..Limits::default()
    };
    own.0.apply(&limits).unwrap();
    let hierarchy = Hierarchy::detect().unwrap();
    let read =
        |controller: &str, file: &str| std::fs::read_to_string(own.0.folder(controller).unwrap().join(file)).unwrap().trim().to_owned();
    if hierarchy.version() == Version::V1 {
        assert_eq!(read("cpu", "cpu.shares"), "512");
        assert_eq!(read("cpu", "cpu.cfs_quota_us"), "50000");
        assert_eq!(read("memory", "memory.limit_in_bytes"), (64 << 20).to_string());
        assert_eq!(read("devices", "devices.list"), "c 1:3 rwm");
    } else {
        assert_eq!(read("cpu", "cpu.max"), "50000 100000");
        assert_eq!(read("memory", "memory.max"), (64 << 20).to_string());
    }
    assert_eq!(read("pids", "pids.max"), "33");
    assert_eq!(own.0.stats().memory_limit, Some(64 << 20));
    own.0.apply(&Limits { cpu_quota: Some(-1), memory: Some(-1), ..Limits::default() }).unwrap();
    assert_eq!(own.0.stats().memory_limit, None);
}

#[test]
fn killing_takes_everything_and_subgroups_go_too() {
    let own = Own::new("kill");
    let below = own.0.child("below");
    below.create().unwrap();
    let mut child = shell("sleep 1000 & sleep 1000 & wait");
    below.add_process(child.id() as i32).unwrap();
    release(&mut child);
    assert!(!own.0.wait_empty(Duration::from_millis(20)));
    assert_eq!(own.0.children(), ["below"]);
    own.0.kill_all().unwrap();
    child.wait().unwrap();
    assert!(own.0.wait_empty(Duration::from_secs(5)));
}

#[test]
fn running_out_of_memory_is_told() {
    let own = Own::new("oom");
    own.0.apply(&Limits { memory: Some(8 << 20), memory_swap: Some(8 << 20), ..Limits::default() }).unwrap();
    let watch = own.0.watch_oom().unwrap();
    let mut child = shell("exec tail /dev/zero");
    own.0.add_process(child.id() as i32).unwrap();
    release(&mut child);
    child.wait().unwrap();
    assert!(own.0.oom_kills() > 0);
    let mut poll = tiphys_sys::poll::Poll::new().unwrap();
    poll.add(watch.as_fd(), 1, tiphys_sys::poll::EventFlags::IN).unwrap();
    assert_eq!(poll.wait(Some(Duration::from_secs(5))).unwrap().len(), 1);
    watch.clear();
    assert!(poll.wait(Some(Duration::ZERO)).unwrap().is_empty());
}

#[test]
fn devices_are_denied() {
    let own = Own::new("devices");
    let null_only = DeviceRule { kind: DeviceKind::Char, major: Some(1), minor: Some(3), access: Access::ALL };
    own.0.apply(&Limits { devices: Some(vec![null_only]), ..Limits::default() }).unwrap();
    let mut child = shell("echo > /dev/null && ! head -c 1 /dev/zero");
    own.0.add_process(child.id() as i32).unwrap();
    release(&mut child);
    assert!(child.wait().unwrap().success());
}

/// Version 2's device filter works in the empty hierarchy beside version 1 too.
#[test]
fn the_device_program_is_accepted_and_obeyed() {
    let own = Own::new("bpf");
    let Some(root) = Hierarchy::detect().unwrap().unified().map(std::path::Path::to_owned) else { return };
    let folder = root.join(own.0.path().trim_start_matches('/'));
    tiphys_cgroups::install_device_filter(&folder, &[DeviceRule::char(1, 3)]).unwrap();
    let mut child = shell("echo > /dev/null && ! head -c 1 /dev/zero");
    own.0.add_process(child.id() as i32).unwrap();
    release(&mut child);
    assert!(child.wait().unwrap().success());
}
