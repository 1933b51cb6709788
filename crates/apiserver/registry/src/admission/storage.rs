//! DefaultStorageClass, StorageObjectInUseProtection and PersistentVolumeClaimResize.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};
use tiphys_meta::{ApiError, Gvr, Quantity, object};

use super::tree::{list_mut, spec};
use super::{Attributes, Operation, Plugin};
use crate::registry::Registry;

pub(super) struct DefaultStorageClass;

const IS_DEFAULT: [&str; 2] = ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];

#[async_trait]
impl Plugin for DefaultStorageClass {
    fn name(&self) -> &'static str {
        "DefaultStorageClass"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.operation == Operation::Create && attributes.is_whole("", "persistentvolumeclaims")
    }

    /// Of several default classes the newest counts, then the first by name.
    async fn admit(&self, registry: &Arc<Registry>, _: &Attributes<'_>, claim: &mut Value, _: Option<&Value>) -> Result<(), ApiError> {
        let annotated = object::annotations(claim).any(|(k, _)| k == "volume.beta.kubernetes.io/storage-class");
        if annotated || claim["spec"].get("storageClassName").is_some() {
            return Ok(());
        }
        let all = registry.cached(&Gvr::new("storage.k8s.io", "v1", "storageclasses")).map(|c| c.list("")).unwrap_or_default();
        let classes = all.iter().map(|e| e.to_value());
        let defaults = classes.filter(|c| object::annotations(c).any(|(k, v)| IS_DEFAULT.contains(&k) && v == "true"));
        let made = |c: &Value| c["metadata"]["creationTimestamp"].as_str().unwrap_or("").to_owned();
        let newest = defaults.max_by(|a, b| made(a).cmp(&made(b)).then_with(|| object::name(b).cmp(object::name(a))));
        if let Some(class) = newest {
            spec(claim).insert("storageClassName".into(), json!(object::name(&class)));
        }
        Ok(())
    }
}

pub(super) struct StorageObjectInUseProtection;

#[async_trait]
impl Plugin for StorageObjectInUseProtection {
    fn name(&self) -> &'static str {
        "StorageObjectInUseProtection"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.operation == Operation::Create && finalizer(attributes).is_some()
    }

    async fn admit(&self, _: &Arc<Registry>, attributes: &Attributes<'_>, object: &mut Value, _: Option<&Value>) -> Result<(), ApiError> {
        let Some(name) = finalizer(attributes) else { return Ok(()) };
        let finalizers = list_mut(object::meta_mut(object), "finalizers");
        if !finalizers.iter().any(|f| f == name) {
            finalizers.push(json!(name));
        }
        Ok(())
    }
}

fn finalizer(attributes: &Attributes<'_>) -> Option<&'static str> {
    if attributes.is_whole("", "persistentvolumes") {
        return Some("kubernetes.io/pv-protection");
    }
    if attributes.is_whole("storage.k8s.io", "volumeattributesclasses") {
        return Some("kubernetes.io/vac-protection");
    }
    attributes.is_whole("", "persistentvolumeclaims").then_some("kubernetes.io/pvc-protection")
}

pub(super) struct PersistentVolumeClaimResize;

#[async_trait]
impl Plugin for PersistentVolumeClaimResize {
    fn name(&self) -> &'static str {
        "PersistentVolumeClaimResize"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.operation == Operation::Update && attributes.is_whole("", "persistentvolumeclaims")
    }

    async fn validate(
        &self,
        registry: &Arc<Registry>,
        attributes: &Attributes<'_>,
        new: Option<&Value>,
        old: Option<&Value>,
    ) -> Result<(), ApiError> {
        let size = |c: &Value| c["spec"]["resources"]["requests"]["storage"].as_str().and_then(|t| Quantity::parse(t).ok());
        let (Some(new), Some(old)) = (new, old) else { return Ok(()) };
        if size(new) <= size(old) {
            return Ok(());
        }
        if old["status"]["phase"] != "Bound" {
            return Err(attributes.forbidden("Only bound persistent volume claims can be expanded"));
        }
        let class = |c: &Value| c["spec"]["storageClassName"].as_str().unwrap_or("").to_owned();
        let gvr = Gvr::new("storage.k8s.io", "v1", "storageclasses");
        let may = class(new) == class(old) && registry.get_value(&gvr, "", &class(new)).is_some_and(|c| c["allowVolumeExpansion"] == true);
        let why = "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize";
        if may { Ok(()) } else { Err(attributes.forbidden(why)) }
    }
}
