//! The harness, and a runtime with a busybox image for each test.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use tiphys_base::SystemClock;
use tiphys_cri::*;
use tiphys_runtime::{ContainerImage, ContainerImages, EmbeddedRuntime, ImageConfig, LoopbackOnly, RuntimeConfig, SupervisorCommand};

pub(crate) type Test = (&'static str, fn(Fixture) -> Pin<Box<dyn Future<Output = ()>>>);

/// Names a test function.
#[macro_export]
macro_rules! tests {
    ($($name:ident),* $(,)?) => {
        pub(crate) const TESTS: &[$crate::support::Test] =
            &[$((stringify!($name), |fixture| Box::pin($name(fixture)))),*];
    };
}

/// Runs the tests whose names contain one of the arguments, four at a time.
pub(crate) fn run(args: &[String], tests: &[Test]) {
    let words: Vec<&String> = args.iter().filter(|arg| !arg.starts_with("--")).collect();
    let chosen: Vec<Test> =
        tests.iter().filter(|(name, _)| words.is_empty() || words.iter().any(|word| name.contains(word.as_str()))).copied().collect();
    if args.iter().any(|arg| arg == "--list") {
        chosen.iter().for_each(|(name, _)| println!("{name}: test"));
        return;
    }
    println!("\nrunning {} tests", chosen.len());
    let (queue, failed) = (Mutex::new(chosen.clone()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some(test) = { queue.lock().unwrap().pop() } {
                    let passed = std::panic::catch_unwind(|| run_one(test)).is_ok();
                    println!("test {} ... {}", test.0, if passed { "ok" } else { "FAILED" });
                    if !passed {
                        failed.lock().unwrap().push(test.0);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    let verdict = if failed.is_empty() { "ok" } else { "FAILED" };
    let passed = chosen.len() - failed.len();
    println!(
        "\ntest result: {verdict}. {passed} passed; {} failed; 0 ignored; 0 measured; {} filtered out\n",
        failed.len(),
        tests.len() - chosen.len()
    );
    std::process::exit(i32::from(!failed.is_empty()));
}

fn run_one((name, test): Test) {
    let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let place = Place::new(name);
    // The test runs as a local future on this thread; what it spawns runs on the workers.
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        tokio.block_on(async {
            let runtime = place.open().await;
            let limit = Duration::from_secs(60);
            tokio::time::timeout(limit, test(Fixture { place: place.clone(), runtime })).await.expect("the test takes too long");
        });
    }));
    let left = tokio.block_on(place.clean_up());
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
    assert!(left.is_empty(), "{name} left behind: {left:#?}");
}

/// Where a test's runtime lives.
#[derive(Clone)]
pub(crate) struct Place {
    pub dir: PathBuf,
    pub name: String,
}

impl Place {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("tiphys-rt-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let place = Self { name: format!("tiphys-rt-{}-{name}", std::process::id()), dir };
        make_layer(&place.layer());
        place
    }

    pub(crate) fn at(dir: &Path) -> Self {
        Self { name: dir.file_name().unwrap().to_str().unwrap().to_owned(), dir: dir.to_owned() }
    }

    fn layer(&self) -> PathBuf {
        self.dir.join("layer")
    }

    pub(crate) async fn open(&self) -> EmbeddedRuntime {
        let program = std::env::current_exe().unwrap();
        EmbeddedRuntime::open(RuntimeConfig {
            root: self.dir.join("rt"),
            name: "test".into(),
            supervisor: Some(SupervisorCommand { program, arguments: vec!["supervisor".into()] }),
            network: Arc::new(LoopbackOnly),
            images: Arc::new(Busybox(self.layer())),
            clock: Arc::new(SystemClock),
        })
        .await
        .unwrap()
    }

    pub(crate) fn supervisor_pid(&self) -> i32 {
        std::fs::read_to_string(self.dir.join("rt/supervisor/supervisor.pid")).unwrap().parse().unwrap()
    }

    /// Removes everything through the CRI, then looks for what is left.
    async fn clean_up(&self) -> Vec<String> {
        let mut left = Vec::new();
        let runtime = self.open().await;
        for sandbox in runtime.list_pod_sandboxes(&PodSandboxFilter::default()).await.unwrap() {
            left.extend(runtime.remove_pod_sandbox(&sandbox.id).await.err().map(|error| error.to_string()));
        }
        let containers = runtime.list_containers(&ContainerFilter::default()).await.unwrap();
        left.extend(containers.iter().map(|container| format!("container {}", container.id)));
        for kind in ["sandboxes", "containers", "supervisor/exits"] {
            left.extend(
                std::fs::read_dir(self.dir.join("rt").join(kind)).unwrap().flatten().map(|entry| entry.path().display().to_string()),
            );
        }
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let own = format!("{}/", self.dir.display());
        let passing = format!("{own}rt/run ");
        left.extend(mounts.lines().filter(|line| line.contains(&own) && !line.contains(&passing)).map(|line| format!("mount {line}")));
        let supervisor = self.supervisor_pid();
        let children = std::fs::read_to_string(format!("/proc/{supervisor}/task/{supervisor}/children")).unwrap();
        left.extend((!children.trim().is_empty()).then(|| format!("processes {children}")));
        runtime.shut_down_supervisor().await.unwrap();
        left.extend(std::fs::read_dir(self.dir.join("rt/run")).unwrap().flatten().map(|entry| entry.path().display().to_string()));
        tiphys_sys::mount::detach(&self.dir.join("rt/run")).unwrap();
        for hierarchy in std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
            let group = hierarchy.path().join(&self.name);
            let below = std::fs::read_dir(&group).into_iter().flatten().flatten().filter(|entry| entry.path().is_dir());
            left.extend(below.map(|entry| format!("cgroup {}", entry.path().display())));
            std::fs::remove_dir(group).ok();
        }
        std::fs::remove_dir_all(&self.dir).ok();
        left
    }
}

fn make_layer(layer: &Path) {
    for folder in ["bin", "etc", "tmp", "root", "data"] {
        std::fs::create_dir_all(layer.join(folder)).unwrap();
    }
    std::fs::copy("/bin/busybox", layer.join("bin/busybox")).expect("busybox is needed: apt-get install busybox-static");
    let list = std::process::Command::new("/bin/busybox").arg("--list").output().unwrap();
    for applet in String::from_utf8(list.stdout).unwrap().lines().filter(|applet| *applet != "busybox") {
        std::os::unix::fs::symlink("busybox", layer.join("bin").join(applet)).ok();
    }
    std::fs::write(layer.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000:app:/home/app:/bin/sh\n").unwrap();
    std::fs::write(layer.join("etc/group"), "root:x:0:\napp:x:1000:\nextra:x:2000:app\n").unwrap();
    std::fs::write(layer.join("bin/plain"), "no program").unwrap();
    std::fs::write(layer.join("data/file"), "of the image").unwrap();
}

struct Busybox(PathBuf);

#[async_trait]
impl ContainerImages for Busybox {
    async fn acquire(&self, image: &ImageSpec, _: &str) -> Result<ContainerImage> {
        if image.image == "missing" {
            return Err(CriError::NotFound("no such image".into()));
        }
        let config = ImageConfig { env: vec!["PATH=/bin".into(), "FROM=image".into()], cmd: vec!["sh".into()], ..ImageConfig::default() };
        Ok(ContainerImage { id: "sha256:1".into(), reference: "busybox@sha256:2".into(), layers: vec![self.0.clone()], config })
    }

    async fn release(&self, _: &str) {}
}

/// A runtime of its own for one test.
pub(crate) struct Fixture {
    pub place: Place,
    pub runtime: EmbeddedRuntime,
}

/// What the kubelet asks for unless the pod shares its PID namespace (the CRI's own default is sharing).
pub(crate) fn own_pid() -> NamespaceOption {
    NamespaceOption { pid: NamespaceMode::Container, ..NamespaceOption::default() }
}

/// The configuration of a container that runs a script.
pub(crate) fn script(text: &str) -> ContainerConfig {
    let security_context = LinuxContainerSecurityContext { namespace_options: own_pid(), ..Default::default() };
    ContainerConfig {
        linux: LinuxContainerConfig { security_context, ..Default::default() },
        metadata: ContainerMetadata { name: "main".into(), attempt: 0 },
        command: ["sh", "-c", text].map(str::to_owned).to_vec(),
        log_path: "main.log".into(),
        ..ContainerConfig::default()
    }
}

impl Fixture {
    pub(crate) fn sandbox_config(&self) -> PodSandboxConfig {
        PodSandboxConfig {
            metadata: PodSandboxMetadata { name: "pod".into(), uid: "u1".into(), namespace: "ns".into(), attempt: 0 },
            hostname: "the-pod".into(),
            log_directory: self.place.dir.join("logs").to_str().unwrap().into(),
            linux: LinuxPodSandboxConfig {
                cgroup_parent: format!("/{}", self.place.name),
                security_context: LinuxSandboxSecurityContext { namespace_options: own_pid(), ..Default::default() },
                ..LinuxPodSandboxConfig::default()
            },
            ..PodSandboxConfig::default()
        }
    }

    pub(crate) async fn sandbox(&self) -> String {
        self.runtime.run_pod_sandbox(self.sandbox_config(), "").await.unwrap()
    }

    pub(crate) async fn create(&self, sandbox: &str, config: ContainerConfig) -> String {
        self.runtime.create_container(sandbox, config, &self.sandbox_config()).await.unwrap()
    }

    pub(crate) async fn start(&self, sandbox: &str, config: ContainerConfig) -> String {
        let id = self.create(sandbox, config).await;
        self.runtime.start_container(&id).await.unwrap();
        id
    }

    /// Runs a container to its end.
    pub(crate) async fn finish(&self, sandbox: &str, config: ContainerConfig) -> ContainerStatus {
        let mut events = self.runtime.container_events().await.unwrap();
        let id = self.start(sandbox, config).await;
        wait_stopped(&self.runtime, &mut events, &id).await
    }

    /// Runs a script in a sandbox of its own; its standard output and exit code.
    pub(crate) async fn output(&self, config: ContainerConfig) -> (String, i32) {
        let sandbox = self.sandbox().await;
        let status = self.finish(&sandbox, config).await;
        let text = plain(&std::fs::read_to_string(&status.log_path).unwrap());
        self.runtime.remove_pod_sandbox(&sandbox).await.unwrap();
        std::fs::remove_file(&status.log_path).ok();
        (text, status.exit_code)
    }

    pub(crate) async fn exec(&self, id: &str, text: &str) -> ExecSyncResponse {
        self.runtime.exec_sync(id, &["sh", "-c", text].map(str::to_owned), Duration::ZERO).await.unwrap()
    }
}

pub(crate) async fn wait_stopped(
    runtime: &EmbeddedRuntime,
    events: &mut tokio::sync::mpsc::Receiver<ContainerEvent>,
    id: &str,
) -> ContainerStatus {
    loop {
        let status = runtime.container_status(id).await.unwrap();
        if status.state == ContainerState::Exited {
            return status;
        }
        events.recv().await.unwrap();
    }
}

/// A log without times and tags.
pub(crate) fn plain(log: &str) -> String {
    log.lines().map(|line| format!("{}\n", line.splitn(4, ' ').nth(3).unwrap_or(""))).collect()
}
