//! Kinds and versions that were served once, as old tutorials write them, and what to write now.
//!
//! A request to one of their paths is answered with 404 as ever, so programs that probe for versions see what they expect; the message is for the
//! person who reads it. Discovery does not list them. Deliberately absent: translating them; and most alpha versions, which were never on by default.
//!
//! Source of the facts: the deprecated API migration guide, by the release that took each version away.

use tiphys_meta::{ApiError, Gvr, Reason};

/// One resource in versions of one group that went with one release.
struct Removed {
    group: &'static str,
    versions: &'static [&'static str],
    resource: &'static str,
    kind: &'static str,
    /// The release that serves it no more.
    since: &'static str,
    /// `apps/v1`; empty where nothing took its place.
    now: &'static str,
    /// What else must change, or what to use where nothing took its place.
    change: &'static str,
}

const SELECTOR: &str = "spec.selector is required and must match spec.template.metadata.labels";
const DAEMON_SET: &str = "spec.selector is required and must match spec.template.metadata.labels, spec.templateGeneration is gone, \
     and spec.updateStrategy.type is RollingUpdate unless it says OnDelete";
const DEPLOYMENT: &str = "spec.selector is required and must match spec.template.metadata.labels, spec.rollbackTo is gone, \
     and spec.progressDeadlineSeconds (600), spec.revisionHistoryLimit (10), maxSurge and maxUnavailable (25%) have other defaults";
const STATEFUL_SET: &str = "spec.selector is required and must match spec.template.metadata.labels, and spec.updateStrategy.type is RollingUpdate unless it says OnDelete";
const INGRESS: &str = "spec.backend is spec.defaultBackend, a backend's serviceName is service.name and its servicePort service.port.number or service.port.name, \
     and every path needs a pathType (Prefix, Exact or ImplementationSpecific)";
const POD_SECURITY: &str = "PodSecurityPolicy is gone; label namespaces for the PodSecurity admission plugin instead (pod-security.kubernetes.io/enforce: baseline)";
const WEBHOOKS: &str = "each webhook needs sideEffects (None or NoneOnDryRun) and admissionReviewVersions, names are unique, \
     and the defaults are failurePolicy Fail, matchPolicy Equivalent and timeoutSeconds 10";
const DEFINITION: &str = "spec.scope is required, spec.version is an item of spec.versions, spec.validation, spec.subresources and spec.additionalPrinterColumns \
     are fields of each version (schema, subresources, additionalPrinterColumns with jsonPath), every version needs a structural \
     schema.openAPIV3Schema, and spec.conversion.webhookClientConfig is spec.conversion.webhook.clientConfig";
const SIGNING_REQUEST: &str = "spec.signerName and spec.usages are required";
const SLICE: &str =
    "an endpoint's topology is gone: topology[\"kubernetes.io/hostname\"] is nodeName, topology[\"topology.kubernetes.io/zone\"] is zone";
const EVENT: &str =
    "involvedObject is regarding, message is note, and eventTime, reportingController, reportingInstance, action and reason are required";
const METRICS: &str = "a metric's target is an object: targetAverageUtilization is target.averageUtilization with target.type Utilization, \
     targetAverageValue is target.averageValue with target.type AverageValue";
const BUDGET: &str = "an empty spec.selector ({}) selects all pods of the namespace, where it selected none";
const SHARES: &str = "spec.limited.assuredConcurrencyShares is spec.limited.nominalConcurrencyShares";
const REVIEW: &str = "spec.group is spec.groups";

const fn gone(
    group: &'static str,
    versions: &'static [&'static str],
    resource: &'static str,
    kind: &'static str,
    since: &'static str,
    now: &'static str,
    change: &'static str,
) -> Removed {
    Removed { group, versions, resource, kind, since, now, change }
}

const OLD: &[&str] = &["v1beta1"];
const APPS: &[&str] = &["v1beta1", "v1beta2"];
const ADMISSION: &str = "admissionregistration.k8s.io";
const NETWORKING: &str = "networking.k8s.io";
const RBAC: &str = "rbac.authorization.k8s.io";
const STORAGE: &str = "storage.k8s.io";
const REVIEWS: &str = "authorization.k8s.io";
const FLOW: &str = "flowcontrol.apiserver.k8s.io";

#[rustfmt::skip]
const REMOVED: &[Removed] = &[
    gone("extensions", OLD, "deployments", "Deployment", "v1.16", "apps/v1", DEPLOYMENT),
    gone("extensions", OLD, "daemonsets", "DaemonSet", "v1.16", "apps/v1", DAEMON_SET),
    gone("extensions", OLD, "replicasets", "ReplicaSet", "v1.16", "apps/v1", SELECTOR),
    gone("extensions", OLD, "networkpolicies", "NetworkPolicy", "v1.16", "networking.k8s.io/v1", ""),
    gone("extensions", OLD, "ingresses", "Ingress", "v1.22", "networking.k8s.io/v1", INGRESS),
    gone("extensions", OLD, "podsecuritypolicies", "PodSecurityPolicy", "v1.16", "", POD_SECURITY),
    gone("apps", APPS, "deployments", "Deployment", "v1.16", "apps/v1", DEPLOYMENT),
    gone("apps", APPS, "statefulsets", "StatefulSet", "v1.16", "apps/v1", STATEFUL_SET),
    gone("apps", &["v1beta2"], "daemonsets", "DaemonSet", "v1.16", "apps/v1", DAEMON_SET),
    gone("apps", APPS, "replicasets", "ReplicaSet", "v1.16", "apps/v1", SELECTOR),
    gone("apps", APPS, "controllerrevisions", "ControllerRevision", "v1.16", "apps/v1", ""),
    gone("auditregistration.k8s.io", &["v1alpha1"], "auditsinks", "AuditSink", "v1.19", "", "AuditSink is gone; use --audit-webhook-config-file instead"),
    gone("settings.k8s.io", &["v1alpha1"], "podpresets", "PodPreset", "v1.20", "", "PodPreset is gone; use a mutating admission webhook or a MutatingAdmissionPolicy instead"),
    gone("batch", &["v2alpha1"], "cronjobs", "CronJob", "v1.21", "batch/v1", ""),
    gone(NETWORKING, OLD, "ingresses", "Ingress", "v1.22", "networking.k8s.io/v1", INGRESS),
    gone(NETWORKING, OLD, "ingressclasses", "IngressClass", "v1.22", "networking.k8s.io/v1", ""),
    gone(RBAC, OLD, "roles", "Role", "v1.22", "rbac.authorization.k8s.io/v1", ""),
    gone(RBAC, OLD, "rolebindings", "RoleBinding", "v1.22", "rbac.authorization.k8s.io/v1", ""),
    gone(RBAC, OLD, "clusterroles", "ClusterRole", "v1.22", "rbac.authorization.k8s.io/v1", ""),
    gone(RBAC, OLD, "clusterrolebindings", "ClusterRoleBinding", "v1.22", "rbac.authorization.k8s.io/v1", ""),
    gone("scheduling.k8s.io", OLD, "priorityclasses", "PriorityClass", "v1.22", "scheduling.k8s.io/v1", ""),
    gone(STORAGE, OLD, "storageclasses", "StorageClass", "v1.22", "storage.k8s.io/v1", ""),
    gone(STORAGE, OLD, "volumeattachments", "VolumeAttachment", "v1.22", "storage.k8s.io/v1", ""),
    gone(STORAGE, OLD, "csidrivers", "CSIDriver", "v1.22", "storage.k8s.io/v1", ""),
    gone(STORAGE, OLD, "csinodes", "CSINode", "v1.22", "storage.k8s.io/v1", ""),
    gone(STORAGE, OLD, "csistoragecapacities", "CSIStorageCapacity", "v1.27", "storage.k8s.io/v1", ""),
    gone(ADMISSION, OLD, "mutatingwebhookconfigurations", "MutatingWebhookConfiguration", "v1.22", "admissionregistration.k8s.io/v1", WEBHOOKS),
    gone(ADMISSION, OLD, "validatingwebhookconfigurations", "ValidatingWebhookConfiguration", "v1.22", "admissionregistration.k8s.io/v1", WEBHOOKS),
    gone("apiextensions.k8s.io", OLD, "customresourcedefinitions", "CustomResourceDefinition", "v1.22", "apiextensions.k8s.io/v1", DEFINITION),
    gone("apiregistration.k8s.io", OLD, "apiservices", "APIService", "v1.22", "apiregistration.k8s.io/v1", ""),
    gone("authentication.k8s.io", OLD, "tokenreviews", "TokenReview", "v1.22", "authentication.k8s.io/v1", ""),
    gone(REVIEWS, OLD, "subjectaccessreviews", "SubjectAccessReview", "v1.22", "authorization.k8s.io/v1", REVIEW),
    gone(REVIEWS, OLD, "localsubjectaccessreviews", "LocalSubjectAccessReview", "v1.22", "authorization.k8s.io/v1", REVIEW),
    gone(REVIEWS, OLD, "selfsubjectaccessreviews", "SelfSubjectAccessReview", "v1.22", "authorization.k8s.io/v1", ""),
    gone(REVIEWS, OLD, "selfsubjectrulesreviews", "SelfSubjectRulesReview", "v1.22", "authorization.k8s.io/v1", ""),
    gone("certificates.k8s.io", OLD, "certificatesigningrequests", "CertificateSigningRequest", "v1.22", "certificates.k8s.io/v1", SIGNING_REQUEST),
    gone("coordination.k8s.io", OLD, "leases", "Lease", "v1.22", "coordination.k8s.io/v1", ""),
    gone("batch", OLD, "cronjobs", "CronJob", "v1.25", "batch/v1", ""),
    gone("discovery.k8s.io", OLD, "endpointslices", "EndpointSlice", "v1.25", "discovery.k8s.io/v1", SLICE),
    gone("events.k8s.io", OLD, "events", "Event", "v1.25", "events.k8s.io/v1", EVENT),
    gone("autoscaling", &["v2beta1"], "horizontalpodautoscalers", "HorizontalPodAutoscaler", "v1.25", "autoscaling/v2", METRICS),
    gone("autoscaling", &["v2beta2"], "horizontalpodautoscalers", "HorizontalPodAutoscaler", "v1.26", "autoscaling/v2", ""),
    gone("policy", OLD, "poddisruptionbudgets", "PodDisruptionBudget", "v1.25", "policy/v1", BUDGET),
    gone("policy", OLD, "podsecuritypolicies", "PodSecurityPolicy", "v1.25", "", POD_SECURITY),
    gone("node.k8s.io", OLD, "runtimeclasses", "RuntimeClass", "v1.25", "node.k8s.io/v1", ""),
    gone(FLOW, OLD, "flowschemas", "FlowSchema", "v1.26", "flowcontrol.apiserver.k8s.io/v1", ""),
    gone(FLOW, &["v1beta2"], "flowschemas", "FlowSchema", "v1.29", "flowcontrol.apiserver.k8s.io/v1", ""),
    gone(FLOW, &["v1beta3"], "flowschemas", "FlowSchema", "v1.32", "flowcontrol.apiserver.k8s.io/v1", ""),
    gone(FLOW, OLD, "prioritylevelconfigurations", "PriorityLevelConfiguration", "v1.26", "flowcontrol.apiserver.k8s.io/v1", SHARES),
    gone(FLOW, &["v1beta2"], "prioritylevelconfigurations", "PriorityLevelConfiguration", "v1.29", "flowcontrol.apiserver.k8s.io/v1", SHARES),
    gone(FLOW, &["v1beta3"], "prioritylevelconfigurations", "PriorityLevelConfiguration", "v1.32", "flowcontrol.apiserver.k8s.io/v1", ""),
];

/// The answer to a request for something that is served no more.
pub(crate) fn advice(gvr: &Gvr) -> Option<ApiError> {
    let removed = REMOVED.iter().find(|r| r.group == gvr.group && r.resource == gvr.resource && r.versions.contains(&&*gvr.version))?;
    Some(ApiError::new(Reason::NotFound, removed.message(&gvr.api_version())))
}

impl Removed {
    /// It begins as the message of every unknown resource does.
    fn message(&self, api_version: &str) -> String {
        let Removed { kind, since, now, change, .. } = self;
        let head = format!("the server could not find the requested resource: {kind} of {api_version} is not served since {since}");
        match (now.is_empty(), change.is_empty()) {
            (true, _) => format!("{head}; {change}"),
            (false, true) => format!("{head}; write apiVersion: {now}"),
            (false, false) => format!("{head}; write apiVersion: {now}, and mind that {change}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use tiphys_schema::Facts;

    use super::*;

    #[test]
    fn what_is_named_is_served_and_what_is_removed_is_not() {
        let mut seen = BTreeSet::new();
        for removed in REMOVED {
            for version in removed.versions {
                let gvr = Gvr::new(removed.group, *version, removed.resource);
                assert!(Facts::builtin().resource(&gvr).is_none(), "{gvr:?} is served");
                assert!(seen.insert((removed.group, *version, removed.resource)), "{gvr:?} stands there twice");
            }
            if removed.now.is_empty() {
                assert!(!removed.change.is_empty(), "{}: and now?", removed.kind);
                continue;
            }
            let (group, version) = removed.now.split_once('/').expect("no core kind was ever moved out of a group");
            let now = Facts::builtin().resource(&Gvr::new(group, version, removed.resource));
            assert_eq!(now.map(|r| &*r.kind.kind), Some(removed.kind), "{} {}", removed.now, removed.resource);
        }
    }

    #[test]
    fn the_message_says_what_to_write() {
        let message = |group, version, resource| advice(&Gvr::new(group, version, resource)).map(|e| (e.code, e.message));
        let (code, text) = message("extensions", "v1beta1", "ingresses").expect("known");
        assert_eq!(code, 404);
        for part in ["networking.k8s.io/v1", "service.name", "pathType", "v1.22"] {
            assert!(text.contains(part), "{text}");
        }
        let (_, text) = message("apps", "v1beta2", "deployments").expect("known");
        assert!(text.contains("apiVersion: apps/v1") && text.contains("spec.selector is required"), "{text}");
        let (_, text) = message("policy", "v1beta1", "podsecuritypolicies").expect("known");
        assert!(text.contains("pod-security.kubernetes.io/enforce"), "{text}");
        assert_eq!(message("apps", "v1", "deployments"), None);
        assert_eq!(message("apps", "v1beta1", "gnomes"), None);
    }
}
