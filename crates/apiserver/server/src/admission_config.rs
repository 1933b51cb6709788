//! `--admission-control-config-file`: an AdmissionConfiguration (`apiserver.config.k8s.io/v1`) with what plugins are told. Only PodSecurity is told anything
//! here; a configuration of another plugin is refused rather than passed over.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;
use tiphys_registry::PodSecuritySettings;
use tiphys_schema::codec::yaml;

use crate::config_file::{self, ConfigFileError};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
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

pub(crate) fn read(path: &Path) -> Result<PodSecuritySettings, ConfigFileError> {
    config_file::read("admission-control-config-file", path, |bytes| parse(bytes, path.parent().unwrap_or(Path::new("."))))
}

fn parse(bytes: &[u8], folder: &Path) -> Result<PodSecuritySettings, String> {
    let file: File = config_file::object(bytes, config_file::APISERVER, "AdmissionConfiguration")?;
    let mut settings = PodSecuritySettings::default();
    for Plugin { name, path, configuration } in file.plugins {
        let configuration = match configuration {
            Some(inline) => inline,
            None if path.is_empty() => continue,
            None => tree(&folder.join(path))?,
        };
        if name != "PodSecurity" {
            return Err(format!("{name} cannot be configured yet"));
        }
        settings = PodSecuritySettings::read(&configuration)?;
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
