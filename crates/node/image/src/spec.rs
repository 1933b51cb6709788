//! The documents of an image: descriptors, manifests, indexes, configurations (OCI image spec; docker's schema 2 has the same shapes).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tiphys_base::platform::architecture;

use crate::digest::Digest;
use crate::error::{ImageError, Result};

pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub(crate) const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// A manifest or index bigger than this is refused (containerd's limit for what it keeps in memory).
pub(crate) const LARGEST_DOCUMENT: u64 = 8 << 20;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    #[serde(default)]
    pub(crate) size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) platform: Option<Platform>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) annotations: BTreeMap<String, String>,
}

impl Descriptor {
    pub(crate) fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        Descriptor { media_type: media_type.into(), digest, size, platform: None, annotations: BTreeMap::new() }
    }

    pub(crate) fn of(media_type: &str, bytes: &[u8]) -> Self {
        Self::new(media_type, Digest::of(bytes), bytes.len() as u64)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Platform {
    pub(crate) architecture: String,
    pub(crate) os: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) variant: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Manifest {
    pub(crate) schema_version: u32,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) media_type: String,
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Index {
    pub(crate) schema_version: u32,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) media_type: String,
    pub(crate) manifests: Vec<Descriptor>,
}

/// What a registry answers to the question for a reference.
#[derive(Debug)]
pub(crate) enum Document {
    Manifest(Manifest),
    Index(Index),
}

impl Document {
    /// The shape decides, not the media type, which some registries get wrong.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self> {
        let corrupt = |error: serde_json::Error| ImageError::Corrupt(format!("manifest makes no sense: {error}"));
        let tree: serde_json::Value = serde_json::from_slice(bytes).map_err(corrupt)?;
        if tree.get("manifests").is_some() {
            return Ok(Document::Index(serde_json::from_value(tree).map_err(corrupt)?));
        }
        if tree.get("schemaVersion").and_then(serde_json::Value::as_u64) == Some(1) {
            return Err(ImageError::Unsupported("docker schema 1 manifests are not supported".into()));
        }
        Ok(Document::Manifest(serde_json::from_value(tree).map_err(corrupt)?))
    }
}

/// The variant of an architecture that goes without saying.
fn variant(architecture: &str) -> &'static str {
    if architecture == "arm64" { "v8" } else { "" }
}

impl Index {
    /// The manifest for this machine. One without a platform will do when there is no better.
    pub(crate) fn for_this_machine(&self) -> Result<&Descriptor> {
        let arch = architecture();
        let variant = variant(arch);
        let fits = |platform: &Platform| {
            platform.os == "linux" && platform.architecture == arch && (platform.variant.is_empty() || platform.variant == variant)
        };
        let fitting = self.manifests.iter().find(|manifest| manifest.platform.as_ref().is_some_and(fits));
        let unnamed = || self.manifests.iter().find(|manifest| manifest.platform.is_none());
        let none = || ImageError::NotFound(format!("no match for platform in manifest: linux/{arch}: not found"));
        fitting.or_else(unnamed).ok_or_else(none)
    }
}

/// What an image says about how to run it. Absent and null lists are empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageConfig {
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub user: String,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub cmd: Vec<String>,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<String, serde_json::Value>,
    /// `80/tcp`.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub exposed_ports: BTreeMap<String, serde_json::Value>,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
}

fn nullable<'de, D: serde::Deserializer<'de>, T: Default + Deserialize<'de>>(deserializer: D) -> std::result::Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl ImageConfig {
    /// The user's number, or its name, as the CRI wants them: one of the two, the group left out (containerd, `getUserFromImage`).
    pub fn uid_or_name(&self) -> (Option<i64>, &str) {
        let user = self.user.split(':').next().unwrap_or_default();
        match user.parse::<i64>() {
            Ok(uid) => (Some(uid), ""),
            Err(_) => (None, user),
        }
    }
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct RootFs {
    #[serde(rename = "type", default)]
    pub(crate) kind: String,
    #[serde(default)]
    pub(crate) diff_ids: Vec<Digest>,
}

/// The configuration blob; its digest is the image's id.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct ConfigFile {
    #[serde(default)]
    pub(crate) architecture: String,
    #[serde(default)]
    pub(crate) os: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) created: Option<String>,
    #[serde(default, deserialize_with = "nullable")]
    pub(crate) config: ImageConfig,
    #[serde(default)]
    pub(crate) rootfs: RootFs,
}

impl ConfigFile {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self> {
        serde_json::from_slice(bytes).map_err(|error| ImageError::Corrupt(format!("image configuration makes no sense: {error}")))
    }

    pub(crate) fn for_this_machine(config: ImageConfig, diff_ids: Vec<Digest>) -> Self {
        let rootfs = RootFs { kind: "layers".into(), diff_ids };
        ConfigFile { architecture: architecture().into(), os: "linux".into(), created: None, config, rootfs }
    }
}

/// JSON of ours; plain data cannot fail to print.
pub(crate) fn to_json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nulls_are_empty() {
        let config =
            br#"{"architecture":"amd64","os":"linux","config":{"User":"65535:65535","Env":null,"Cmd":["sh"],"Volumes":{"/data":{}},
            "ExposedPorts":{"80/tcp":{}},"Labels":null,"Healthcheck":{"Test":["x"]}},"rootfs":{"type":"layers","diff_ids":[]}}"#;
        let config = ConfigFile::parse(config).expect("parses").config;
        assert_eq!((config.cmd.len(), config.env.len(), config.volumes.len(), config.exposed_ports.len()), (1, 0, 1, 1));
        assert_eq!(config.uid_or_name(), (Some(65535), ""));
        let named = ImageConfig { user: "nginx:www".into(), ..ImageConfig::default() };
        assert_eq!(named.uid_or_name(), (None, "nginx"));
        assert_eq!(ImageConfig::default().uid_or_name(), (None, ""));
    }

    #[test]
    fn an_index_is_searched_for_this_machine() {
        let entry = |digit: char, platform: &str| format!(r#"{{"digest":"sha256:{}","size":1{platform}}}"#, digit.to_string().repeat(64));
        let platform = |arch: &str, os: &str| format!(r#","platform":{{"architecture":"{arch}","os":"{os}"}}"#);
        let parse = |entries: &[String]| {
            let text = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, entries.join(","));
            match Document::parse(text.as_bytes()) {
                Ok(Document::Index(index)) => index,
                other => panic!("{other:?}"),
            }
        };
        let ours = architecture();
        let index =
            parse(&[entry('1', &platform("s390x", "linux")), entry('2', &platform(ours, "windows")), entry('3', &platform(ours, "linux"))]);
        assert!(index.for_this_machine().expect("found").digest.hex().starts_with('3'));
        let error = parse(&[entry('1', &platform("s390x", "linux"))]).for_this_machine().expect_err("no match");
        assert!(matches!(error, ImageError::NotFound(_)));
    }
}
