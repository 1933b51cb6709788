//! Kubeconfig files: the cluster's own, and the user's, into which it is merged without touching anything else.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};
use tiphys_base::pki::Identity;
use tiphys_meta::base64;
use tiphys_yaml::Unbounded;

use crate::cluster::{Cluster, Layout};
use crate::pki::ClusterPki;

/// The name of the cluster, its user and its context in kubeconfig files.
pub fn context_name(cluster: &str) -> String {
    format!("tiphys-{cluster}")
}

/// A kubeconfig of one cluster with an embedded client certificate.
pub fn build(cluster: &Cluster, server: &str, ca_pem: &str, user: &Identity) -> Value {
    let name = context_name(&cluster.name);
    let [ca, cert, key] = [ca_pem, &user.cert_pem, &user.key_pem].map(|pem| base64::encode(pem.as_bytes()));
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": {"server": server, "certificate-authority-data": ca}}],
        "users": [{"name": name, "user": {"client-certificate-data": cert, "client-key-data": key}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "current-context": name,
    })
}

/// The administrator's, for the cluster's own commands.
pub fn write_own(layout: &Layout, cluster: &Cluster, pki: &ClusterPki) -> Result<()> {
    let config = build(cluster, &cluster.api_url(), pki.ca.cert_pem(), &pki.admin);
    let path = layout.kubeconfig();
    tiphys_base::files::write_atomic(&path, tiphys_yaml::print(&config).as_bytes(), 0o600)
        .with_context(|| format!("cannot write {}", path.display()))
}

/// The user's own file: the first of `$KUBECONFIG`, else `~/.kube/config`.
pub fn users_file() -> Result<PathBuf> {
    if let Some(list) = std::env::var_os("KUBECONFIG").filter(|l| !l.is_empty())
        && let Some(first) = std::env::split_paths(&list).find(|p| !p.as_os_str().is_empty())
    {
        return Ok(first);
    }
    let home = std::env::var_os("HOME")
        .filter(|h| !h.is_empty())
        .context("neither KUBECONFIG nor HOME is set; name a file with KUBECONFIG=FILE")?;
    Ok(Path::new(&home).join(".kube/config"))
}

fn read(path: &Path) -> Result<Value> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    if text.trim().is_empty() {
        return Ok(json!({"apiVersion": "v1", "kind": "Config", "preferences": {}}));
    }
    let config = tiphys_yaml::read(&text, &Unbounded)
        .map(|document| document.tree)
        .with_context(|| format!("{} is no YAML; it is left as it is", path.display()))?;
    if !config.is_object() {
        bail!("{} is no kubeconfig; it is left as it is", path.display());
    }
    Ok(config)
}

/// The right to change a kubeconfig, as kubectl takes it: by making `FILE.lock`.
struct Turn(PathBuf);

impl Turn {
    fn take(path: &Path) -> Result<Turn> {
        const TRIES: u32 = 40;
        const MOMENT: Duration = Duration::from_millis(50);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        let mut name = path.as_os_str().to_owned();
        name.push(".lock");
        let lock = PathBuf::from(name);
        for _ in 0..TRIES {
            match fs::OpenOptions::new().write(true).create_new(true).open(&lock) {
                Ok(_) => return Ok(Turn(lock)),
                // Its maker tells nobody when it is done.
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => std::thread::sleep(MOMENT),
                Err(error) => return Err(error).with_context(|| format!("cannot make {}", lock.display())),
            }
        }
        bail!("another program changes {} ({} is there); if none does, remove that file", path.display(), lock.display())
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn write(path: &Path, config: &Value) -> Result<()> {
    // A link stays a link: what it points at is replaced.
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    if let Some(folder) = target.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    tiphys_base::files::write_atomic(&target, tiphys_yaml::print(config).as_bytes(), 0o600)
        .with_context(|| format!("cannot write {}", target.display()))
}

/// The same with what another file holds.
pub fn merge_from(path: &Path, own: &Path) -> Result<()> {
    merge_into(path, &read(own)?)
}

/// Adds or replaces the entries of `own` in the user's file and makes its context the current one.
pub fn merge_into(path: &Path, own: &Value) -> Result<()> {
    let _turn = Turn::take(path)?;
    let mut config = read(path)?;
    merge(&mut config, own);
    write(path, &config)
}

/// Notes that a file holds a copy of the cluster's entries, which is then renewed with them.
pub fn remember(layout: &Layout, file: &Path) -> Result<()> {
    let file = std::path::absolute(file).with_context(|| format!("cannot find {}", file.display()))?;
    let mut known = remembered(layout);
    if known.contains(&file) {
        return Ok(());
    }
    known.push(file);
    let path = layout.kubeconfig_copies();
    let text = serde_json::to_string(&known).context("a kubeconfig's name is no text")?;
    tiphys_base::files::write_atomic(&path, text.as_bytes(), 0o600).with_context(|| format!("cannot write {}", path.display()))
}

/// The files that were noted; none, if the note cannot be read.
pub fn remembered(layout: &Layout) -> Vec<PathBuf> {
    fs::read_to_string(layout.kubeconfig_copies()).ok().and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
}

/// Replaces the entries of `own` that a user's file has. What the user has taken out or renamed does not come back, and the current context stays.
pub fn refresh(path: &Path, own: &Value) -> Result<()> {
    if !path.exists() {
        return Ok(());
    }
    let _turn = Turn::take(path)?;
    let before = read(path)?;
    let mut config = before.clone();
    for list in LISTS {
        for entry in own.get(list).and_then(Value::as_array).into_iter().flatten() {
            let theirs = config.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten();
            theirs.filter(|e| e.get("name") == entry.get("name")).for_each(|e| renew_entry(list, e, entry));
        }
    }
    if config == before { Ok(()) } else { write(path, &config) }
}

/// Of a context the user may have set the namespace.
fn renew_entry(list: &str, theirs: &mut Value, own: &Value) {
    if list != "contexts" {
        *theirs = own.clone();
    }
}

/// Refreshes every copy that was noted; tells which could not be.
pub fn refresh_copies(layout: &Layout) -> Vec<(PathBuf, anyhow::Error)> {
    let own = match read(&layout.kubeconfig()) {
        Ok(own) => own,
        Err(error) => return vec![(layout.kubeconfig(), error)],
    };
    remembered(layout).into_iter().filter_map(|path| refresh(&path, &own).err().map(|error| (path, error))).collect()
}

/// Takes the cluster's entries out of the user's file. A file or entry that is not there is fine.
pub fn remove_from(path: &Path, cluster: &str) -> Result<()> {
    if !path.exists() {
        return Ok(());
    }
    let _turn = Turn::take(path)?;
    let mut config = read(path)?;
    if remove(&mut config, &context_name(cluster)) { write(path, &config) } else { Ok(()) }
}

const LISTS: [&str; 3] = ["clusters", "users", "contexts"];

fn merge(config: &mut Value, own: &Value) {
    let Some(map) = config.as_object_mut() else { return };
    for list in LISTS {
        for entry in own.get(list).and_then(Value::as_array).into_iter().flatten() {
            put(map, list, entry);
        }
    }
    if let Some(current) = own.get("current-context") {
        map.insert("current-context".into(), current.clone());
    }
}

fn put(config: &mut Map<String, Value>, list: &str, entry: &Value) {
    let slot = config.entry(list).or_insert(Value::Null);
    if !slot.is_array() {
        *slot = json!([]);
    }
    let Some(entries) = slot.as_array_mut() else { return };
    match entries.iter_mut().find(|e| e.get("name") == entry.get("name")) {
        Some(old) => *old = entry.clone(),
        None => entries.push(entry.clone()),
    }
}

fn remove(config: &mut Value, name: &str) -> bool {
    let Some(map) = config.as_object_mut() else { return false };
    let mut changed = false;
    for list in LISTS {
        if let Some(entries) = map.get_mut(list).and_then(Value::as_array_mut) {
            let before = entries.len();
            entries.retain(|e| e.get("name").and_then(Value::as_str) != Some(name));
            changed |= entries.len() != before;
        }
    }
    if map.get("current-context").and_then(Value::as_str) == Some(name) {
        map.insert("current-context".into(), json!(""));
        changed = true;
    }
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> Value {
        json!({"clusters": [{"name": "tiphys-a", "cluster": {"server": "https://x"}}], "users": [{"name": "tiphys-a", "user": {}}],
               "contexts": [{"name": "tiphys-a", "context": {}}], "current-context": "tiphys-a"})
    }

    #[test]
    fn others_entries_survive_merging_and_removing() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("config");
        fs::write(
            &path,
            "apiVersion: v1\nkind: Config\nclusters:\n- name: work\n  cluster: {server: 'https://w'}\nusers: null\ncurrent-context: work\n",
        )
        .expect("written");
        merge_into(&path, &own()).expect("merged");
        merge_into(&path, &own()).expect("twice is fine");
        let merged = read(&path).expect("YAML");
        let names: Vec<&str> = merged["clusters"].as_array().expect("list").iter().filter_map(|c| c["name"].as_str()).collect();
        assert_eq!(names, ["work", "tiphys-a"]);
        assert_eq!(merged["current-context"], "tiphys-a");
        remove_from(&path, "a").expect("removed");
        let left = read(&path).expect("YAML");
        assert_eq!(left["clusters"].as_array().expect("list").len(), 1);
        assert_eq!(left["current-context"], "");
    }

    #[test]
    fn a_copy_is_renewed_as_far_as_it_is_there() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("config");
        merge_into(&path, &own()).expect("merged");
        let mut theirs = read(&path).expect("YAML");
        theirs["contexts"][0]["context"]["namespace"] = json!("mine");
        theirs["current-context"] = json!("work");
        theirs.as_object_mut().expect("object").remove("clusters");
        write(&path, &theirs).expect("written");
        let mut renewed = own();
        renewed["users"][0]["user"] = json!({"client-certificate-data": "new"});
        refresh(&path, &renewed).expect("refreshed");
        let now = read(&path).expect("YAML");
        assert_eq!(now["users"][0]["user"]["client-certificate-data"], "new");
        assert_eq!((&now["contexts"][0]["context"]["namespace"], &now["current-context"]), (&json!("mine"), &json!("work")));
        assert!(now.get("clusters").is_none(), "what was taken out stays out");
        refresh(&folder.path().join("none"), &renewed).expect("a file that is gone stays gone");
        assert!(!folder.path().join("none").exists());
    }

    #[test]
    fn a_file_that_is_no_kubeconfig_is_left_alone() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("config");
        fs::write(&path, "just text").expect("written");
        assert!(merge_into(&path, &own()).is_err());
        assert_eq!(fs::read_to_string(&path).expect("there"), "just text");
    }
}
