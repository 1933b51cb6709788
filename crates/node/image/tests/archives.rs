//! Archives, and the built-in image.

mod common;

use std::fs::File;
use std::io::Cursor;
use std::path::Path;
use std::process::Command;

use common::*;
use tiphys_image::*;

const KIT: &str = "/var/cache/k8s-kit/tar";

fn open(dir: &Path, keep_blobs: bool) -> std::sync::Arc<ImageStore> {
    ImageStore::open(Options { keep_blobs, ..Options::new(dir) }).expect("opens")
}

#[test]
fn the_kits_archives_load() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path(), false);
    for (archive, name, command) in [("busybox.tar", "busybox", "sh"), ("pause.tar", "registry.k8s.io/pause:3.10", "/pause")] {
        // The kit is not on every machine.
        let Ok(file) = File::open(Path::new(KIT).join(archive)) else { continue };
        let images = store.load(file).expect("loaded");
        assert_eq!(images.len(), 1, "one image with many names");
        let image = store.find(name).expect("readable").expect("here");
        assert!(image.config.cmd.iter().chain(&image.config.entrypoint).any(|word| word == command), "{:?}", image.config);
        assert!(image.repo_tags.len() > 5 && !image.repo_digests.is_empty());
        let claimed = store.claim(archive, name, "").expect("claimed");
        assert!(std::fs::read_dir(&claimed.layers[0]).expect("a layer").count() > 0);
    }
    assert_eq!(std::fs::read_dir(store.root().join("tmp")).expect("a folder").count(), 0);
}

#[tokio::test]
async fn what_is_saved_loads_elsewhere() {
    let registry = Registry::default();
    registry.add("library/app", "v1", &[layer(&[("a", b"1")]), layer(&[("b", b"2")])], r#"{"Cmd":["x"]}"#);
    let address = registry.start().await;
    let (first, second) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let store = store(first.path(), &address, true);
    let image = store.pull("app:v1", None).await.expect("pulled");
    let mut archive = Vec::new();
    store.save(&["app:v1"], &mut archive).expect("saved");
    let other = open(second.path(), true);
    let loaded = other.load(Cursor::new(gzip(&archive))).expect("loaded").remove(0);
    assert_eq!((&loaded.id, &loaded.repo_tags, &loaded.layers), (&image.id, &image.repo_tags, &image.layers));
    let mut again = Vec::new();
    other.save(&["app:v1"], &mut again).expect("saved");
    assert!(archive == again, "the same images make the same archive");
    let forgetful = open(&second.path().join("forgetful"), false);
    forgetful.load(Cursor::new(archive)).expect("loaded");
    // Without the archives that came, the layers are packed again.
    let mut packed = Vec::new();
    forgetful.save(&["app:v1"], &mut packed).expect("saved");
    let third = open(&second.path().join("third"), false);
    let loaded = third.load(Cursor::new(packed)).expect("loaded").remove(0);
    assert_eq!((&loaded.config.cmd, loaded.layers.len()), (&image.config.cmd, image.layers.len()));
}

/// The form of `docker save` before it wrote OCI layouts too.
#[test]
fn old_docker_archives_load() {
    let content = layer(&[("a", b"1")]);
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","config":{{}},"rootfs":{{"type":"layers","diff_ids":["{}"]}}}}"#,
        Digest::of(&content)
    );
    let manifest = r#"[{"Config":"c.json","RepoTags":["old:1","quay.io/x/old:2"],"Layers":["1/layer.tar"]}]"#;
    let archive = layer(&[("1/layer.tar", &content), ("c.json", config.as_bytes()), ("manifest.json", manifest.as_bytes())]);
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path(), false);
    let image = store.load(Cursor::new(archive)).expect("loaded").remove(0);
    assert_eq!(image.repo_tags.iter().collect::<Vec<_>>(), ["docker.io/library/old:1", "quay.io/x/old:2"]);
    assert_eq!(image.id, Digest::of(config.as_bytes()));
    for wrong in [layer(&[("x", b"y")]), layer(&[("manifest.json", manifest.as_bytes())]), b"nonsense".to_vec()] {
        assert!(matches!(store.load(Cursor::new(wrong)), Err(ImageError::Corrupt(_))));
    }
}

/// The program in the built-in image runs in there, whether static or not.
#[test]
fn the_builtin_image_runs() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path(), false);
    let builtin = Builtin::of_this_program("tiphys.io/tiphys:0.1.0").expect("this program");
    let image = store.register_builtin(&builtin).expect("registered");
    assert!(image.pinned && store.unused().expect("readable").is_empty());
    assert_eq!(image.config.entrypoint, ["/tiphys"]);
    let again = store.register_builtin(&builtin).expect("registered again");
    assert_eq!(image, again);
    let root = store.claim("c", "tiphys.io/tiphys:0.1.0", "").expect("claimed").layers.remove(0);
    let output = Command::new("chroot").arg(&root).args(["/tiphys", "--list"]).output().expect("chroot runs");
    let listed = String::from_utf8_lossy(&output.stdout);
    assert!(listed.contains("the_builtin_image_runs"), "{output:?}");
}
