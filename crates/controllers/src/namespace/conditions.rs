use std::collections::BTreeMap;

use jiff::Timestamp;
use tiphys_types::api::core::v1::NamespaceCondition;
use tiphys_types::metav1::Time;

use super::Found;

/// The five conditions of a namespace that is going, with upstream's types, reasons and messages.
pub(super) fn next(old: &[NamespaceCondition], found: &Found, now: Timestamp) -> Vec<NamespaceCondition> {
    let counted = |counts: &BTreeMap<String, usize>, join: &str| {
        let parts: Vec<String> = counts.iter().map(|(name, n)| format!("{name} {join} {n} resource instances")).collect();
        parts.join(", ")
    };
    let failed = |texts: &[String], first: &str| (!texts.is_empty()).then(|| format!("{first}: {}", texts.join(", ")));
    let rows = [
        (
            "NamespaceDeletionDiscoveryFailure",
            failed(&found.discovery, "Discovery failed for some groups, 1 failing"),
            "DiscoveryFailed",
            ("ResourcesDiscovered", "All resources successfully discovered"),
        ),
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            None,
            "GroupVersionParsingFailed",
            ("ParsedGroupVersions", "All legacy kube types successfully parsed"),
        ),
        (
            "NamespaceDeletionContentFailure",
            failed(&found.failures, "Failed to delete all resource types"),
            "ContentDeletionFailed",
            ("ContentDeleted", "All content successfully deleted, may be waiting on finalization"),
        ),
        (
            "NamespaceContentRemaining",
            (!found.remaining.is_empty()).then(|| format!("Some resources are remaining: {}", counted(&found.remaining, "has"))),
            "SomeResourcesRemain",
            ("ContentRemoved", "All content successfully removed"),
        ),
        (
            "NamespaceFinalizersRemaining",
            (!found.finalizers.is_empty())
                .then(|| format!("Some content in the namespace has finalizers remaining: {}", counted(&found.finalizers, "in"))),
            "SomeFinalizersRemain",
            ("ContentHasNoFinalizers", "All content-preserving finalizers finished"),
        ),
    ];
    let mut conditions: Vec<NamespaceCondition> = old.to_vec();
    for (kind, trouble, reason, (good_reason, good)) in rows {
        let (status, reason, message) = match trouble {
            Some(message) => ("True", reason, message),
            None => ("False", good_reason, good.to_owned()),
        };
        set(&mut conditions, kind, status, reason, message, now);
    }
    conditions
}

fn set(conditions: &mut Vec<NamespaceCondition>, kind: &str, status: &str, reason: &str, message: String, now: Timestamp) {
    let mut next = NamespaceCondition {
        type_: kind.into(),
        status: status.into(),
        reason: Some(reason.into()),
        message: Some(message),
        last_transition_time: Some(Time(now)),
    };
    match conditions.iter_mut().find(|c| c.type_ == kind) {
        Some(old) => {
            if old.status == next.status {
                next.last_transition_time = old.last_transition_time.clone();
            }
            *old = next;
        }
        None => conditions.push(next),
    }
}
