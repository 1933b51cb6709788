//! Events about pods, their containers and the node.

use crate::pod::spec;
use tiphys_client::{EventRecorder, RecordedType};
use tiphys_types::api::core::v1::{ObjectReference, Pod};

#[derive(Clone)]
pub(crate) struct Events {
    recorder: EventRecorder,
    node: ObjectReference,
}

impl Events {
    pub(crate) fn new(recorder: EventRecorder, node_name: &str) -> Self {
        // Upstream names the node by its name in the uid too, long before the Node object has one.
        let node = ObjectReference {
            kind: Some("Node".into()),
            name: Some(node_name.into()),
            uid: Some(node_name.into()),
            ..ObjectReference::default()
        };
        Events { recorder, node }
    }

    pub(crate) fn normal(&self, pod: &Pod, container: Option<&str>, reason: &str, message: &str) {
        self.recorder.record(reference(pod, container), RecordedType::Normal, reason, message);
    }

    pub(crate) fn warning(&self, pod: &Pod, container: Option<&str>, reason: &str, message: &str) {
        self.recorder.record(reference(pod, container), RecordedType::Warning, reason, message);
    }

    pub(crate) fn node(&self, warning: bool, reason: &str, message: &str) {
        let kind = if warning { RecordedType::Warning } else { RecordedType::Normal };
        self.recorder.record(self.node.clone(), kind, reason, message);
    }
}

fn reference(pod: &Pod, container: Option<&str>) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Pod".into()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        resource_version: pod.metadata.resource_version.clone(),
        field_path: container.map(|c| spec::field_path(pod, c)),
    }
}
