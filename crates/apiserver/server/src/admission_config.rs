//! `--admission-control-config-file`: an AdmissionConfiguration (`apiserver.config.k8s.io/v1`) with what plugins are told. Only PodSecurity is told anything
//! here; a configuration of another plugin is refused rather than passed over.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;
use tiphys_registry::PodSecuritySettings;
use tiphys_schema::codec::yaml;

#[derive(Debug, thiserror::Error)]
#[error("--admission-control-config-file {}: {why}", path.display())]
pub struct AdmissionConfigError {
    path: PathBuf,
    why: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    api_version: String,
    kind: String,
    #[serde(default)]
    plugins: Vec<Plugin>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Plugin {
    name: String,
    /// A file with the configuration; relative to the file that names it.
    #[serde(default)]
    path: String,
    configuration: Option<Value>,
}

pub(crate) fn read(path: &Path) -> Result<PodSecuritySettings, AdmissionConfigError> {
    let refused = |why: String| AdmissionConfigError { path: path.to_owned(), why };
    let file = File::deserialize(tree(path).map_err(refused)?).map_err(|e| refused(e.to_string()))?;
    if file.kind != "AdmissionConfiguration" || !file.api_version.starts_with("apiserver.config.k8s.io/") {
        return Err(refused(format!("{}, Kind={} is no AdmissionConfiguration", file.api_version, file.kind)));
    }
    let mut settings = PodSecuritySettings::default();
    for Plugin { name, path: beside, configuration } in file.plugins {
        let configuration = match configuration {
            Some(inline) => inline,
            None if beside.is_empty() => continue,
            None => tree(&path.parent().unwrap_or(Path::new(".")).join(beside)).map_err(refused)?,
        };
        if name != "PodSecurity" {
            return Err(refused(format!("{name} cannot be configured yet")));
        }
        settings = PodSecuritySettings::read(&configuration).map_err(refused)?;
    }
    Ok(settings)
}

fn tree(path: &Path) -> Result<Value, String> {
    let bytes = std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
    yaml::to_tree(&bytes).map_err(|e| format!("{}: {e}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("admission.yaml");
        let head = "apiVersion: apiserver.config.k8s.io/v1\nkind: AdmissionConfiguration\nplugins:\n";
        let read = |plugins: &str| {
            std::fs::write(&path, format!("{head}{plugins}")).expect("written");
            super::read(&path).map_err(|e| e.why)
        };
        let security =
            "apiVersion: pod-security.admission.config.k8s.io/v1\nkind: PodSecurityConfiguration\ndefaults: {enforce: baseline}\n";
        std::fs::write(folder.path().join("pods.yaml"), security).expect("written");
        let beside = read("- {name: PodSecurity, path: pods.yaml}\n").expect("good");
        assert_ne!(beside, PodSecuritySettings::default());
        let inline = "- name: PodSecurity\n  configuration:\n    apiVersion: pod-security.admission.config.k8s.io/v1\n    kind: PodSecurityConfiguration\n    \
                      defaults: {enforce: baseline}\n";
        assert_eq!(read(inline), Ok(beside));
        assert_eq!(read("- {name: PodSecurity}\n"), Ok(PodSecuritySettings::default()));
        assert_eq!(read("- {name: EventRateLimit, configuration: {}}\n"), Err("EventRateLimit cannot be configured yet".into()));
    }
}
