//! The stable metrics of upstream's API server (`test/instrumentation/testdata/stable-metrics-list.yaml` of v1.36), by name and labels.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::StreamExt;
use serde_json::json;
use tiphys_meta::{EventType, Gvr};

use crate::cluster::Cluster;

const OF_REQUESTS: &[&str] = &["component", "group", "resource", "scope", "subresource", "verb", "version"];
const OF_FLOWS: &[&str] = &["flow_schema", "priority_level"];
const OF_POLICIES: &[&str] = &["enforcement_action", "error_type", "policy", "policy_binding"];

/// With the labels that every value has.
const STABLE: [(&str, &[&str], &[&str]); 24] = [
    ("apiserver_admission_controller_admission_duration_seconds", &["name", "operation", "rejected", "type"], &[]),
    ("apiserver_admission_step_admission_duration_seconds", &["operation", "rejected", "type"], &[]),
    ("apiserver_cel_compilation_duration_seconds", &[], &[]),
    ("apiserver_cel_evaluation_duration_seconds", &[], &[]),
    ("apiserver_current_inflight_requests", &["request_kind"], &[]),
    ("apiserver_flowcontrol_current_executing_requests", OF_FLOWS, &[]),
    ("apiserver_flowcontrol_current_executing_seats", OF_FLOWS, &[]),
    ("apiserver_flowcontrol_current_inqueue_requests", OF_FLOWS, &[]),
    ("apiserver_flowcontrol_dispatched_requests_total", OF_FLOWS, &[]),
    ("apiserver_flowcontrol_nominal_limit_seats", &["priority_level"], &[]),
    ("apiserver_flowcontrol_request_wait_duration_seconds", OF_FLOWS, &["execute"]),
    ("apiserver_longrunning_requests", OF_REQUESTS, &[]),
    ("apiserver_request_duration_seconds", OF_REQUESTS, &["dry_run"]),
    ("apiserver_request_total", OF_REQUESTS, &["code", "dry_run"]),
    ("apiserver_requested_deprecated_apis", &["group", "removed_release", "resource", "subresource", "version"], &[]),
    ("apiserver_response_sizes", OF_REQUESTS, &[]),
    ("apiserver_storage_events_received_total", &["group", "resource"], &[]),
    ("apiserver_storage_objects", &["resource"], &[]),
    ("apiserver_storage_size_bytes", &["storage_cluster_id"], &[]),
    ("apiserver_validating_admission_policy_check_duration_seconds", OF_POLICIES, &[]),
    ("apiserver_validating_admission_policy_check_total", OF_POLICIES, &[]),
    ("apiserver_watch_list_duration_seconds", &["group", "resource", "scope", "version"], &[]),
    ("kubernetes_healthcheck", &["name", "type"], &[]),
    ("kubernetes_healthchecks_total", &["name", "status", "type"], &[]),
];

/// Stable ones that have values only after something else has happened, or that are left out. This list only shrinks.
const ELSEWHERE: [(&str, &str); 12] = [
    ("apiserver_admission_webhook_admission_duration_seconds", "values come with the first webhook: looked for in the tests of webhooks"),
    ("apiserver_flowcontrol_rejected_requests_total", "values come with the first refusal: looked for in the tests of flow control"),
    ("apiserver_authentication_config_controller_automatic_reloads_total", "values come when the file has changed"),
    ("apiserver_authentication_config_controller_automatic_reload_last_timestamp_seconds", "values come when the file has changed"),
    ("apiserver_authorization_config_controller_automatic_reloads_total", "values come when the file has changed"),
    ("apiserver_authorization_config_controller_automatic_reload_last_timestamp_seconds", "values come when the file has changed"),
    ("apiserver_validation_declarative_validation_mismatch_total", "validation is written once, so it cannot differ from itself"),
    ("apiserver_validation_declarative_validation_panic_total", "as above"),
    ("kubernetes_feature_enabled", "there are no feature gates"),
    ("registered_metrics_total", "about the library that upstream measures with"),
    ("hidden_metrics_total", "as above"),
    ("disabled_metrics_total", "as above"),
];

#[tokio::test]
async fn stable_metrics_have_upstreams_names_and_labels() {
    let cluster = Cluster::start().await;
    let admin = cluster.running.loopback_client();
    let group = |resource: &'static str| Gvr::new("admissionregistration.k8s.io", "v1", resource);
    let rules = json!([{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}]);
    let spec = json!({"matchConstraints": {"resourceRules": rules}, "validations": [{"expression": "true"}]});
    let policy = json!({"metadata": {"name": "p"}, "spec": spec});
    admin.create_value(&group("validatingadmissionpolicies"), "", &policy).await.expect("a policy");
    let binding = json!({"metadata": {"name": "p"}, "spec": {"policyName": "p", "validationActions": ["Deny"]}});
    admin.create_value(&group("validatingadmissionpolicybindings"), "", &binding).await.expect("a binding");
    let config_map = json!({"metadata": {"name": "c"}});
    admin.create_value(&Gvr::new("", "v1", "configmaps"), "default", &config_map).await.expect("a config map");
    while admin.text("/readyz").await.is_err() {
        tokio::task::yield_now().await;
    }
    for path in ["/livez", "/healthz", "/api/v1/endpoints"] {
        admin.text(path).await.expect("an answer");
    }
    let options = "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut watch = admin.watch_path(format!("/api/v1/namespaces?{options}")).await.expect("a watch");
    while let Some(Ok((kind, _))) = watch.next().await {
        if kind == EventType::Bookmark {
            break;
        }
    }

    let mut text = String::new();
    for path in ["/metrics", "/metrics/slis"] {
        text.push_str(std::str::from_utf8(&admin.text(path).await.expect("metrics")).expect("text"));
    }
    let seen = labels_by_name(&text);
    for (name, labels, more) in STABLE {
        let want: BTreeSet<&str> = labels.iter().chain(more).copied().collect();
        let got = seen.get(name).unwrap_or_else(|| panic!("no {name}"));
        assert_eq!(*got, BTreeSet::from([want]), "{name}");
    }
    let stable: BTreeSet<&str> = STABLE.iter().map(|(name, ..)| *name).collect();
    for (name, why) in ELSEWHERE {
        assert!(!stable.contains(name) && !why.is_empty() && !seen.contains_key(name), "{name} has its place among the stable ones");
    }
    assert!(cluster.running.stop().await);
}

/// The sets of labels that a metric's values have. The parts of histograms count to the metric, and `le` to none.
fn labels_by_name(text: &str) -> BTreeMap<&str, BTreeSet<BTreeSet<&str>>> {
    let histograms: BTreeSet<&str> = text.lines().filter_map(|l| l.strip_prefix("# TYPE ")?.strip_suffix(" histogram")).collect();
    let mut seen: BTreeMap<&str, BTreeSet<BTreeSet<&str>>> = BTreeMap::new();
    for line in text.lines().filter(|l| !l.starts_with('#')) {
        let (whole, labels) = line.split_once('{').map_or_else(
            || (line.split(' ').next().unwrap_or(""), ""),
            |(name, rest)| (name, rest.rsplit_once('}').map_or("", |(labels, _)| labels)),
        );
        let part = ["_bucket", "_sum", "_count"].iter().find_map(|end| whole.strip_suffix(end)).filter(|n| histograms.contains(n));
        // A quoted value may hold a comma, but none of ours here holds one with a name and an equals sign behind it.
        let names = labels.split(',').filter_map(|l| l.split_once("=\"").map(|(n, _)| n)).filter(|n| *n != "le");
        seen.entry(part.unwrap_or(whole)).or_default().insert(names.collect());
    }
    seen
}
