//! The volumes that are files with contents from the API: configMap, secret, downwardAPI, projected. Pure.

use crate::env::{Sources, optional};
use crate::field;
use crate::pod::spec;
use crate::security;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use tiphys_types::api::core::v1::{
    ConfigMap, DownwardAPIVolumeFile, KeyToPath, Pod, Secret, ServiceAccountTokenProjection, Volume, VolumeProjection,
};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct File {
    pub(crate) data: Arc<[u8]>,
    pub(crate) mode: u32,
    pub(crate) user: Option<i64>,
}

pub(crate) type Files = BTreeMap<String, File>;

/// Values from elsewhere than ConfigMaps and Secrets.
#[derive(Debug, Clone, Default)]
pub(crate) struct Known {
    pub(crate) fields: field::Known,
    /// By audience and seconds.
    pub(crate) tokens: BTreeMap<(String, i64), Result<String, String>>,
}

pub(super) struct Written {
    pub(super) plugin: &'static str,
    pub(super) files: Files,
}

/// What must be read before a pod's volumes and environment can be made.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Need {
    pub(crate) config_maps: HashSet<String>,
    pub(crate) secrets: HashSet<String>,
    pub(crate) tokens: HashSet<(String, i64)>,
    /// Volume name and claim name.
    pub(crate) claims: HashSet<(String, String)>,
}

impl Need {
    pub(crate) fn of(pod: &Pod) -> Self {
        let mut need = Need::default();
        for volume in spec::spec(pod).volumes.iter().flatten() {
            need.config_maps.extend(volume.config_map.as_ref().map(|s| s.name.clone()));
            need.secrets.extend(volume.secret.as_ref().and_then(|s| s.secret_name.clone()));
            let claim = volume.persistent_volume_claim.as_ref().map(|c| c.claim_name.clone());
            let claim = claim.or_else(|| volume.ephemeral.as_ref().map(|_| format!("{}-{}", spec::name(pod), volume.name)));
            need.claims.extend(claim.map(|claim| (volume.name.clone(), claim)));
            for source in volume.projected.iter().flat_map(|p| p.sources.iter().flatten()) {
                need.config_maps.extend(source.config_map.as_ref().map(|s| s.name.clone()));
                need.secrets.extend(source.secret.as_ref().map(|s| s.name.clone()));
                need.tokens.extend(source.service_account_token.as_ref().map(token_key));
            }
        }
        let ephemeral = spec::ephemeral_containers(pod);
        for container in spec::init_containers(pod).iter().chain(spec::containers(pod)).chain(&ephemeral) {
            for from in container.env_from.iter().flatten() {
                need.config_maps.extend(from.config_map_ref.as_ref().map(|r| r.name.clone()));
                need.secrets.extend(from.secret_ref.as_ref().map(|r| r.name.clone()));
            }
            for source in container.env.iter().flatten().filter_map(|e| e.value_from.as_ref()) {
                need.config_maps.extend(source.config_map_key_ref.as_ref().map(|r| r.name.clone()));
                need.secrets.extend(source.secret_key_ref.as_ref().map(|r| r.name.clone()));
            }
        }
        for reference in spec::spec(pod).image_pull_secrets.iter().flatten() {
            need.secrets.insert(reference.name.clone());
        }
        need
    }
}

pub(crate) fn token_key(source: &ServiceAccountTokenProjection) -> (String, i64) {
    (source.audience.clone().unwrap_or_default(), source.expiration_seconds.unwrap_or(3600))
}

pub(super) fn is_payload(volume: &Volume) -> bool {
    volume.config_map.is_some() || volume.secret.is_some() || volume.downward_api.is_some() || volume.projected.is_some()
}

const DEFAULT_MODE: i32 = 0o644;

/// None: a volume of another kind.
pub(super) fn make(pod: &Pod, volume: &Volume, sources: &Sources, known: &Known) -> Result<Option<Written>, String> {
    let mut maker = Maker { pod, sources, known, files: Files::new() };
    let plugin = if let Some(source) = &volume.config_map {
        maker.config_map(&source.name, source.items.as_deref(), source.optional, source.default_mode.unwrap_or(DEFAULT_MODE))?;
        "configmap"
    } else if let Some(source) = &volume.secret {
        let name = source.secret_name.as_deref().unwrap_or_default();
        maker.secret(name, source.items.as_deref(), source.optional, source.default_mode.unwrap_or(DEFAULT_MODE))?;
        "secret"
    } else if let Some(source) = &volume.downward_api {
        maker.downward(source.items.as_deref().unwrap_or_default(), source.default_mode.unwrap_or(DEFAULT_MODE))?;
        "downward-api"
    } else if let Some(source) = &volume.projected {
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        for one in source.sources.iter().flatten() {
            maker.projection(one, mode)?;
        }
        "projected"
    } else {
        return Ok(None);
    };
    Ok(Some(Written { plugin, files: maker.files }))
}

struct Maker<'a> {
    pod: &'a Pod,
    sources: &'a Sources,
    known: &'a Known,
    files: Files,
}

impl Maker<'_> {
    fn put(&mut self, path: &str, data: &[u8], mode: i32) {
        self.files.insert(path.to_owned(), File { data: data.into(), mode: mode as u32 & 0o7777, user: None });
    }

    fn config_map(&mut self, name: &str, items: Option<&[KeyToPath]>, is_optional: Option<bool>, mode: i32) -> Result<(), String> {
        let map = optional(self.sources.config_map(name), is_optional)?.unwrap_or_default();
        self.keys(&config_map_data(&map), items, is_optional, mode, "configmap references non-existent config")
    }

    fn secret(&mut self, name: &str, items: Option<&[KeyToPath]>, is_optional: Option<bool>, mode: i32) -> Result<(), String> {
        let secret: Arc<Secret> = optional(self.sources.secret(name), is_optional)?.unwrap_or_default();
        let data = secret.data.iter().flatten().map(|(k, v)| (k.as_str(), v.0.as_slice())).collect();
        self.keys(&data, items, is_optional, mode, "references non-existent secret")
    }

    fn keys(
        &mut self,
        data: &BTreeMap<&str, &[u8]>,
        items: Option<&[KeyToPath]>,
        is_optional: Option<bool>,
        mode: i32,
        missing: &str,
    ) -> Result<(), String> {
        let Some(items) = items.filter(|i| !i.is_empty()) else {
            data.iter().for_each(|(key, value)| self.put(key, value, mode));
            return Ok(());
        };
        for item in items {
            match data.get(item.key.as_str()) {
                Some(value) => self.put(&item.path, value, item.mode.unwrap_or(mode)),
                None if is_optional == Some(true) => {}
                None => return Err(format!("{missing} key: {}", item.key)),
            }
        }
        Ok(())
    }

    fn downward(&mut self, items: &[DownwardAPIVolumeFile], mode: i32) -> Result<(), String> {
        for item in items {
            let value = if let Some(selector) = &item.field_ref {
                field::metadata(&selector.field_path, self.pod)?
            } else if let Some(selector) = &item.resource_field_ref {
                field::resource(selector, self.pod, None, &self.known.fields)?
            } else {
                continue;
            };
            self.put(&item.path, value.as_bytes(), item.mode.unwrap_or(mode));
        }
        Ok(())
    }

    fn projection(&mut self, source: &VolumeProjection, mode: i32) -> Result<(), String> {
        if let Some(map) = &source.config_map {
            self.config_map(&map.name, map.items.as_deref(), map.optional, mode)?;
        }
        if let Some(secret) = &source.secret {
            self.secret(&secret.name, secret.items.as_deref(), secret.optional, mode)?;
        }
        if let Some(downward) = &source.downward_api {
            self.downward(downward.items.as_deref().unwrap_or_default(), mode)?;
        }
        if let Some(token) = &source.service_account_token {
            self.token(token, mode)?;
        }
        if source.cluster_trust_bundle.is_some() || source.pod_certificate.is_some() {
            return Err("projected cluster trust bundles and pod certificates are not supported by this node".into());
        }
        Ok(())
    }

    /// The one user of all containers owns it; with that or an fsGroup (whose group gets to read it later) nobody else may read it.
    fn token(&mut self, source: &ServiceAccountTokenProjection, mode: i32) -> Result<(), String> {
        let token = self.known.tokens.get(&token_key(source)).cloned();
        let text = token.unwrap_or_else(|| Err("the token has not been fetched".into()))?;
        let user = security::common_user(self.pod);
        let mode = if user.is_some() || security::fs_group(self.pod).is_some() { 0o600 } else { mode };
        let file = File { data: text.into_bytes().into(), mode: mode as u32 & 0o7777, user };
        self.files.insert(source.path.clone(), file);
        Ok(())
    }
}

fn config_map_data(map: &ConfigMap) -> BTreeMap<&str, &[u8]> {
    let text = map.data.iter().flatten().map(|(k, v)| (k.as_str(), v.as_bytes()));
    let binary = map.binary_data.iter().flatten().map(|(k, v)| (k.as_str(), v.0.as_slice()));
    text.chain(binary).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::Missing;
    use serde_json::{Value, json};

    fn run(volume: Value) -> Result<Vec<(String, String, u32)>, String> {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n", "labels": {"a": "b"}},
            "spec": {"containers": [{"name": "c", "resources": {"limits": {"cpu": "2"}}}]}}))
        .expect("a pod");
        let volume: Volume = serde_json::from_value(volume).expect("a volume");
        let mut sources = Sources::default();
        let map: ConfigMap = serde_json::from_value(json!({"data": {"k": "v"}, "binaryData": {"bin": "AAE="}})).expect("a map");
        sources.config_maps.insert("cm".into(), Ok(Arc::new(map)));
        let secret: Secret = serde_json::from_value(json!({"data": {"pw": "aGk="}})).expect("a secret");
        sources.secrets.insert("s".into(), Ok(Arc::new(secret)));
        sources.secrets.insert("gone".into(), Err(Missing::NotFound("secret \"gone\" not found".into())));
        let known = Known { tokens: BTreeMap::from([((String::new(), 3607), Ok("jwt".into()))]), ..Known::default() };
        let written = make(&pod, &volume, &sources, &known)?.ok_or("another kind")?;
        Ok(written.files.into_iter().map(|(path, f)| (path, String::from_utf8_lossy(&f.data).into_owned(), f.mode)).collect())
    }

    fn file(path: &str, data: &str, mode: u32) -> (String, String, u32) {
        (path.into(), data.into(), mode)
    }

    #[test]
    fn all_keys_or_the_items() {
        let all = run(json!({"name": "v", "configMap": {"name": "cm", "defaultMode": 256}}));
        assert_eq!(all, Ok(vec![file("bin", "\0\u{1}", 0o400), file("k", "v", 0o400)]));
        let items = run(json!({"name": "v", "secret": {"secretName": "s", "items": [{"key": "pw", "path": "x/y", "mode": 511}]}}));
        assert_eq!(items, Ok(vec![file("x/y", "hi", 0o777)]));
    }

    #[test]
    fn the_service_account_volume() {
        let got = run(json!({"name": "v", "projected": {"sources": [
            {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
            {"configMap": {"name": "cm", "items": [{"key": "k", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}},
                {"path": "cpu", "resourceFieldRef": {"containerName": "c", "resource": "limits.cpu"}}]}}]}}));
        assert_eq!(
            got,
            Ok(vec![file("ca.crt", "v", 0o644), file("cpu", "2", 0o644), file("namespace", "n", 0o644), file("token", "jwt", 0o644)])
        );
    }

    #[test]
    fn what_is_missing_matters_unless_optional() {
        assert_eq!(run(json!({"name": "v", "secret": {"secretName": "gone"}})), Err("secret \"gone\" not found".into()));
        assert_eq!(run(json!({"name": "v", "secret": {"secretName": "gone", "optional": true}})), Ok(vec![]));
        let key = json!({"name": "v", "configMap": {"name": "cm", "items": [{"key": "no", "path": "p"}]}});
        assert_eq!(run(key), Err("configmap references non-existent config key: no".into()));
    }
}
