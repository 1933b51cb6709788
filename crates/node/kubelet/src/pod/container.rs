//! The configuration of one container. Pure but for the paths, which others have prepared.

use super::spec;
use crate::expand::expand;
use crate::security::{self, ImageUser};
use crate::{names, resources};
use std::collections::BTreeMap;
use tiphys_cri as cri;
use tiphys_types::api::core::v1::{Container, Pod};

/// What was found out before: environment, mounts, the image.
pub(crate) struct Prepared {
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) mounts: Vec<cri::Mount>,
    pub(crate) devices: Vec<cri::Device>,
    pub(crate) image_ref: String,
    pub(crate) image_user: ImageUser,
    pub(crate) restart_count: i32,
    pub(crate) memory_capacity: i64,
    pub(crate) seccomp_folder: String,
    /// The container whose processes an ephemeral container joins.
    pub(crate) target_id: Option<String>,
}

pub(crate) fn config(pod: &Pod, container: &Container, prepared: Prepared) -> Result<cri::ContainerConfig, String> {
    let mut security = security::container(pod, container, &prepared.image_user, &prepared.seccomp_folder)?;
    if let Some(target) = &prepared.target_id {
        security.namespace_options.pid = cri::NamespaceMode::Target;
        security.namespace_options.target_id = target.clone();
    }
    let known: BTreeMap<&str, &str> = prepared.environment.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let lookup = |name: &str| known.get(name).map(|v| (*v).to_owned());
    let expanded = |list: Option<&Vec<String>>| list.into_iter().flatten().map(|text| expand(text, &lookup)).collect::<Vec<_>>();
    Ok(cri::ContainerConfig {
        metadata: cri::ContainerMetadata { name: container.name.clone(), attempt: prepared.restart_count as u32 },
        image: cri::ImageSpec {
            image: prepared.image_ref,
            user_specified_image: container.image.clone().unwrap_or_default(),
            ..cri::ImageSpec::default()
        },
        command: expanded(container.command.as_ref()),
        args: expanded(container.args.as_ref()),
        working_dir: container.working_dir.clone().unwrap_or_default(),
        envs: prepared.environment.iter().map(|(k, v)| cri::KeyValue { key: k.clone(), value: v.clone() }).collect(),
        mounts: prepared.mounts,
        devices: prepared.devices,
        labels: labels(pod, container),
        annotations: annotations(pod, container, prepared.restart_count),
        log_path: format!("{}/{}.log", container.name, prepared.restart_count),
        stdin: container.stdin == Some(true),
        stdin_once: container.stdin_once == Some(true),
        tty: container.tty == Some(true),
        linux: cri::LinuxContainerConfig {
            resources: Some(resources::of_container(pod, container, prepared.memory_capacity)),
            security_context: security,
        },
        stop_signal: container.lifecycle.as_ref().and_then(|l| l.stop_signal.clone()).unwrap_or_default(),
    })
}

fn labels(pod: &Pod, container: &Container) -> cri::Map {
    cri::Map::from([
        (names::POD_NAME.into(), spec::name(pod).into()),
        (names::POD_NAMESPACE.into(), spec::namespace(pod).into()),
        (names::POD_UID.into(), spec::uid(pod).into()),
        (names::CONTAINER_NAME.into(), container.name.clone()),
    ])
}

fn annotations(pod: &Pod, container: &Container, restart_count: i32) -> cri::Map {
    let mut notes = cri::Map::from([
        (names::CONTAINER_HASH.into(), resources::container_hash(container)),
        (names::RESTART_COUNT.into(), restart_count.to_string()),
        (names::MESSAGE_PATH.into(), container.termination_message_path.clone().unwrap_or_default()),
        (names::MESSAGE_POLICY.into(), container.termination_message_policy.clone().unwrap_or_default()),
    ]);
    if let Some(grace) = spec::spec(pod).termination_grace_period_seconds {
        notes.insert(names::POD_GRACE.into(), grace.to_string());
    }
    if let Some(grace) = pod.metadata.deletion_grace_period_seconds {
        notes.insert(names::DELETION_GRACE.into(), grace.to_string());
    }
    if let Some(ports) = container.ports.as_ref().filter(|p| !p.is_empty())
        && let Ok(text) = serde_json::to_string(ports)
    {
        notes.insert(names::CONTAINER_PORTS.into(), text);
    }
    notes
}
