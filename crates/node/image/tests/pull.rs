//! Pulling, from a registry of the test's own.

mod common;

use std::path::Path;
use std::process::{Command, Stdio};

use base64::Engine as _;
use common::*;
use tiphys_image::*;

fn layers() -> Vec<Vec<u8>> {
    vec![
        layer(&[("etc/", b""), ("etc/hostname", b"base"), ("gone", b"x")]),
        layer(&[("etc/hostname", b"top"), (".wh.gone", b""), ("big", &noise(300_000))]),
    ]
}

const CONFIG: &str = r#"{"Cmd":["sh"],"User":"65535:65535","Env":["A=b"]}"#;

struct Setup {
    dir: tempfile::TempDir,
    registry: Registry,
    address: String,
}

impl Setup {
    async fn new() -> Self {
        let registry = Registry::default();
        registry.add("library/app", "latest", &layers(), CONFIG);
        let address = registry.start().await;
        Setup { dir: tempfile::tempdir().expect("a folder"), registry, address }
    }

    fn store(&self) -> std::sync::Arc<ImageStore> {
        store(self.dir.path(), &self.address, false)
    }
}

fn files_in(folder: &Path) -> usize {
    std::fs::read_dir(folder).expect("a folder").count()
}

#[tokio::test]
async fn a_pulled_image_is_found_by_all_its_names() {
    let setup = Setup::new().await;
    let store = setup.store();
    let image = store.pull("app", None).await.expect("pulled");
    assert_eq!((image.config.cmd.as_slice(), image.config.uid_or_name()), (&["sh".to_owned()][..], (Some(65535), "")));
    assert_eq!(image.repo_tags.iter().collect::<Vec<_>>(), ["docker.io/library/app:latest"]);
    let digested = format!("app@{}", image.manifest);
    for name in ["app", "docker.io/library/app:latest", &digested, &image.id.to_string(), &image.id.hex()[..12]] {
        assert_eq!(store.find(name).expect("readable").map(|found| found.id.clone()).as_ref(), Some(&image.id), "{name}");
    }
    assert!(store.find("app:other").expect("readable").is_none());
    let asked = setup.registry.asked("/blobs/");
    store.pull(&digested, None).await.expect("pulled again");
    assert_eq!(setup.registry.asked("/blobs/"), asked, "everything was here");
    assert!(setup.registry.asked("ns=docker.io") > 0, "a mirror is told whose image is meant");
}

#[tokio::test]
async fn a_container_keeps_the_layers_that_it_claims() {
    let setup = Setup::new().await;
    let store = setup.store();
    let image = store.pull("app", None).await.expect("pulled");
    let claimed = store.claim("c1", "app", "node").expect("claimed");
    assert_eq!((claimed.image.id.clone(), claimed.layers.len()), (image.id.clone(), 2));
    assert_eq!(std::fs::read_to_string(claimed.layers[0].join("etc/hostname")).expect("a file"), "top");
    assert_eq!(store.claim("c1", &image.id.to_string(), "node").expect("claimed again"), claimed);
    let claims = store.claims().expect("readable");
    assert_eq!((claims.len(), claims[0].0.as_str(), claims[0].1.owner.as_str()), (1, "c1", "node"));
    assert_eq!(store.unused().expect("readable").len(), 0, "the image is in use");
    store.remove("app").expect("removed");
    assert!(claimed.layers.iter().all(|layer| layer.is_dir()), "a container keeps its layers");
    store.release("c1").expect("let go");
    store.release("c1").expect("nothing to let go");
    store.collect_garbage().expect("collected");
    assert!(claimed.layers.iter().all(|layer| !layer.exists()));
    assert_eq!(store.usage().expect("counted"), Usage { bytes: 0, inodes: 0 });
    assert!(store.claim("../x", &image.id.to_string(), "").is_err());
}

/// A file that a kill has torn, and the folder that older stores kept.
#[tokio::test]
async fn claims_of_other_times() {
    let setup = Setup::new().await;
    let store = setup.store();
    let image = store.pull("app", None).await.expect("pulled");
    let layers = store.claim("now", "app", "").expect("claimed").layers;
    let containers = store.root().join("containers");
    std::fs::create_dir(containers.join("old")).expect("made");
    std::fs::rename(containers.join("now"), containers.join("old/rootfs.json")).expect("moved");
    std::fs::write(containers.join("torn"), "{").expect("written");
    store.remove(&image.id.to_string()).expect("removed");
    store.collect_garbage().expect("collected");
    assert!(layers.iter().all(|layer| layer.is_dir()) && !containers.join("torn").exists());
    store.release("old").expect("let go");
    store.collect_garbage().expect("collected");
    assert!(layers.iter().all(|layer| !layer.exists()) && !containers.join("old").exists());
}

#[tokio::test]
async fn a_cut_download_goes_on_where_it_stopped() {
    let setup = Setup::new().await;
    {
        let mut state = setup.registry.0.lock();
        (state.cuts, state.cut_after) = (2, 100_000);
    }
    let store = setup.store();
    let image = store.pull("app", None).await.expect("pulled");
    let big = image.layers[1].digest.to_string();
    assert_eq!(setup.registry.asked(&big), 3);
    assert_eq!(std::fs::read(store.claim("c", "app", "").expect("claimed").layers[0].join("big")).expect("a file"), noise(300_000));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_pulls_fetch_once() {
    let setup = Setup::new().await;
    let (first, second) = (setup.store(), setup.store());
    let pulls = (0..8).map(|at| {
        let store = if at % 2 == 0 { first.clone() } else { second.clone() };
        tokio::spawn(async move { store.pull("app", None).await })
    });
    for pull in pulls.collect::<Vec<_>>() {
        pull.await.expect("runs").expect("pulled");
    }
    let image = first.find("app").expect("readable").expect("here");
    for blob in image.layers.iter().map(|layer| &layer.digest).chain([&image.id]) {
        assert_eq!(setup.registry.asked(&blob.to_string()), 1, "{blob}");
    }
    assert_eq!(first.list().expect("readable").len(), 1);
    assert_eq!(files_in(&first.root().join("tmp")), 0);
}

async fn refusal(store: &std::sync::Arc<ImageStore>, name: &str, credentials: Option<&Credentials>) -> ImageError {
    store.pull(name, credentials).await.expect_err("refused")
}

#[tokio::test]
async fn errors_say_what_kubelets_users_know() {
    let setup = Setup::new().await;
    let store = setup.store();
    let error = refusal(&store, "app:other", None).await;
    assert!(matches!(&error, ImageError::NotFound(_)), "{error}");
    let expected = "failed to pull and unpack image \"docker.io/library/app:other\": failed to resolve reference \
        \"docker.io/library/app:other\": docker.io/library/app:other: not found";
    assert_eq!(error.to_string(), expected);
    let error = refusal(&store, "Wrong Name", None).await;
    assert!(matches!(&error, ImageError::InvalidReference(text) if text.contains("invalid reference format")), "{error}");
    setup.registry.0.lock().wanted = Some(("Basic x".into(), "Basic realm=\"r\"".into()));
    let error = refusal(&store, "app", None).await;
    assert!(matches!(&error, ImageError::Unauthorized(text) if text.contains("unauthorized: authentication required")), "{error}");
    let error = refusal(&store, "127.0.0.1:1/app", None).await;
    assert!(matches!(&error, ImageError::Unavailable(text) if text.contains("connection refused")), "{error}");
}

fn user() -> Credentials {
    Credentials { username: "me".into(), password: "secret".into(), ..Credentials::default() }
}

fn basic() -> String {
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode("me:secret"))
}

#[tokio::test]
async fn registries_are_answered_when_they_ask_who() {
    let setup = Setup::new().await;
    let store = setup.store();
    setup.registry.0.lock().wanted = Some((basic(), "Basic realm=\"r\"".into()));
    store.pull("app", Some(&user())).await.expect("pulled with a password");
    let elsewhere = Credentials { server_address: "quay.io".into(), ..user() };
    assert!(matches!(refusal(&store, "app", Some(&elsewhere)).await, ImageError::Unauthorized(_)));
    {
        let mut state = setup.registry.0.lock();
        let challenge = format!("Bearer realm=\"http://{}/token\",service=\"s\"", setup.address);
        state.wanted = Some(("Bearer abc".into(), challenge));
        state.other.insert("/token".into(), (basic(), r#"{"token":"abc"}"#.into()));
    }
    store.pull("app", Some(&user())).await.expect("pulled with a token");
    assert_eq!(setup.registry.asked("/token?service=s&scope=repository%3Alibrary%2Fapp%3Apull"), 1, "one token for the whole pull");
    let error = refusal(&store, "app", None).await;
    assert!(matches!(&error, ImageError::Unauthorized(text) if text.contains("failed to fetch anonymous token")), "{error}");
    let token = Credentials { registry_token: "abc".into(), ..Credentials::default() };
    store.pull("app", Some(&token)).await.expect("pulled with the token itself");
}

/// Blobs often come from elsewhere; the password does not go there.
#[tokio::test]
async fn redirects_are_followed_without_credentials() {
    let setup = Setup::new().await;
    let elsewhere = Registry::default();
    elsewhere.add("library/app", "latest", &layers(), CONFIG);
    let address = elsewhere.start().await;
    {
        let mut state = setup.registry.0.lock();
        state.wanted = Some((basic(), "Basic realm=\"r\"".into()));
        state.redirect_blobs = Some(format!("http://{address}"));
    }
    elsewhere.0.lock().wanted = Some((String::new(), "Basic realm=\"r\"".into()));
    setup.store().pull("app", Some(&user())).await.expect("pulled");
    assert!(elsewhere.asked("/blobs/") >= 3);
}

#[tokio::test]
async fn an_index_leads_to_this_machines_image() {
    let setup = Setup::new().await;
    let digests = setup.registry.add("library/multi", "amd64", &layers(), CONFIG);
    let entry = |digest: &Digest, arch: &str| {
        format!(r#"{{"mediaType":"x","digest":"{digest}","size":1,"platform":{{"architecture":"{arch}","os":"linux"}}}}"#)
    };
    let (ours, other) = if cfg!(target_arch = "x86_64") { ("amd64", "arm64") } else { ("arm64", "amd64") };
    let index = |entries: &[String]| format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, entries.join(","));
    let wrong = Digest::of(b"not there");
    let top = setup.registry.manifest("library/multi", "latest", index(&[entry(&wrong, other), entry(&digests[3], ours)]).as_bytes());
    setup.registry.manifest("library/multi", "foreign", index(&[entry(&wrong, other)]).as_bytes());
    let store = setup.store();
    let image = store.pull("multi", None).await.expect("pulled");
    assert_eq!(image.manifest, digests[3]);
    assert!(image.repo_digests.contains(&format!("docker.io/library/multi@{top}")), "the index's digest is the one that users see");
    let error = refusal(&store, "multi:foreign", None).await.to_string();
    assert!(error.contains("no match for platform in manifest"), "{error}");
}

#[tokio::test]
async fn wrong_bytes_are_refused() {
    let setup = Setup::new().await;
    let digests = setup.registry.add("library/bad", "latest", &layers(), CONFIG);
    setup.registry.0.lock().content.insert(format!("library/bad/blobs/{}", digests[2]), gzip(b"something else").into());
    let store = setup.store();
    let error = refusal(&store, "bad", None).await;
    assert!(matches!(&error, ImageError::Corrupt(text) if text.contains("unexpected digest")), "{error}");
    assert!(store.list().expect("readable").is_empty());
    let lie = layer(&[("a", b"b")]);
    let digests = setup.registry.add("library/lie", "latest", std::slice::from_ref(&lie), CONFIG);
    let text = String::from_utf8(setup.registry.0.lock().content[&format!("library/lie/blobs/{}", digests[0])].to_vec()).expect("text");
    let config = text.replace(&Digest::of(&lie).to_string(), &Digest::of(b"other").to_string());
    let manifest =
        format!(r#"{{"schemaVersion":2,"config":{},"layers":[{}]}}"#, descriptor("c", config.as_bytes()), descriptor("l", &gzip(&lie)));
    setup.registry.manifest("library/lie", "latest", manifest.as_bytes());
    setup.registry.0.lock().content.insert(format!("library/lie/blobs/{}", Digest::of(config.as_bytes())), config.into());
    let error = refusal(&store, "lie", None).await.to_string();
    assert!(error.contains("wrong diff id calculated on extraction"), "{error}");
}

#[tokio::test]
async fn a_tag_moves_to_the_newer_image() {
    let setup = Setup::new().await;
    let store = setup.store();
    let old = store.pull("app", None).await.expect("pulled");
    setup.registry.add("library/app", "latest", &layers()[..1], CONFIG);
    let new = store.pull("app", None).await.expect("pulled");
    assert_ne!(old.id, new.id);
    let old = store.find(&old.id.to_string()).expect("readable").expect("still here");
    assert!(old.repo_tags.is_empty() && !old.repo_digests.is_empty());
    store.tag(&old.id.to_string(), "mine:1").expect("tagged");
    store.pin("mine:1", true).expect("pinned");
    assert_eq!(store.unused().expect("readable").len(), 1);
    assert!(store.remove("app").expect("removed").is_some());
    assert!(store.remove("app").expect("fine").is_none());
    let claimed = store.claim("c", "mine:1", "").expect("its layers are all here");
    assert_eq!(claimed.layers.len(), 2);
}

/// The child's part of the next test.
#[tokio::test]
async fn child_that_pulls_until_killed() {
    let (Ok(dir), Ok(address)) = (std::env::var("TIPHYS_IMAGE_DIR"), std::env::var("TIPHYS_IMAGE_REGISTRY")) else { return };
    // The registry never finishes; the parent kills us.
    let _ = store(Path::new(&dir), &address, false).pull("app", None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pull_survives_kill_9() {
    let setup = Setup::new().await;
    setup.registry.0.lock().stall_above = Some(100_000);
    let big = setup.registry.add("library/app", "latest", &layers(), CONFIG).swap_remove(2);
    let mut child = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "child_that_pulls_until_killed"])
        .env("TIPHYS_IMAGE_DIR", setup.dir.path())
        .env("TIPHYS_IMAGE_REGISTRY", &setup.address)
        .stdout(Stdio::null())
        .spawn()
        .expect("a child");
    let partial = setup.dir.path().join("store/ingest").join(big.hex());
    let mut ticks = tokio::time::interval(std::time::Duration::from_millis(5));
    for tick in 0.. {
        ticks.tick().await;
        assert!(child.try_wait().expect("a state").is_none() && tick < 4000, "the child gets half of the layer");
        if std::fs::metadata(&partial).is_ok_and(|found| found.len() > 100_000) {
            break;
        }
    }
    child.kill().expect("killed");
    child.wait().expect("reaped");
    setup.registry.0.lock().stall_above = None;
    let asked = setup.registry.0.lock().requests.len();
    let store = setup.store();
    store.pull("app", None).await.expect("pulled");
    assert!(setup.registry.0.lock().requests.len() > asked);
    let claimed = store.claim("c", "app", "").expect("claimed");
    assert_eq!(std::fs::read(claimed.layers[0].join("big")).expect("a file"), noise(300_000));
    assert_eq!(files_in(&store.root().join("ingest")), 0);
}
