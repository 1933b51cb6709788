//! The labels and annotations that the kubelet puts on what it makes in the runtime, so that it can find it again.

pub(crate) const POD_NAME: &str = "io.kubernetes.pod.name";
pub(crate) const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
pub(crate) const POD_UID: &str = "io.kubernetes.pod.uid";
pub(crate) const CONTAINER_NAME: &str = "io.kubernetes.container.name";
pub(crate) const CONTAINER_HASH: &str = "io.kubernetes.container.hash";
pub(crate) const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
pub(crate) const MESSAGE_PATH: &str = "io.kubernetes.container.terminationMessagePath";
pub(crate) const MESSAGE_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
pub(crate) const POD_GRACE: &str = "io.kubernetes.pod.terminationGracePeriod";
pub(crate) const DELETION_GRACE: &str = "io.kubernetes.pod.deletionGracePeriod";
pub(crate) const CONTAINER_PORTS: &str = "io.kubernetes.container.ports";

/// The scheme of container ids in pod statuses.
pub(crate) const RUNTIME: &str = "tiphys";
pub(crate) const COMPONENT: &str = "kubelet";
