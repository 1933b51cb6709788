//! What a ResourceClaim says only by leave. Devices for administration are for namespaces with a label (KEP-5018). Of its status, the allocation is for
//! whoever binds claims, and what is told of a driver's devices is for that driver, on its own node or on any (KEP-4817).

use std::collections::BTreeSet;

use serde_json::Value;
use tiphys_meta::{ErrorList, Path, object};

use crate::config::Question;
use crate::request::UserInfo;
use crate::verbs::Call;

const GROUP: &str = "resource.k8s.io";
const ADMIN_LABEL: &str = "resource.kubernetes.io/admin-access";
/// What a token of a service account says of the node that its pod is on.
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";
const STATUS: Path<'static> = Path::new("status");

/// Faults of a new claim, or of a template for claims.
pub(crate) fn check_create(call: &Call<'_>, tree: &Value) -> ErrorList {
    let requests = match of(call) {
        Some("resourceclaims") => items(tree, "/spec/devices/requests"),
        Some("resourceclaimtemplates") => items(tree, "/spec/spec/devices/requests"),
        _ => &[],
    };
    let wants = |request: &Value| request.pointer("/exactly/adminAccess") == Some(&Value::Bool(true));
    let mut errors = ErrorList::new();
    if let Some(i) = requests.iter().position(wants) {
        let path = Path::new("spec");
        let path = path.child("devices.requests");
        check_admin(call, &path.index(i).child("adminAccess"), &mut errors);
    }
    errors
}

/// Faults of a claim's new status.
pub(crate) fn check_status(call: &Call<'_>, new: &Value, old: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    if of(call) != Some("resourceclaims") {
        return errors;
    }
    let admin = |claim| {
        let granted = |result: &Value| result.get("adminAccess") == Some(&Value::Bool(true));
        items(claim, "/status/allocation/devices/results").iter().position(granted)
    };
    if let (Some(i), None) = (admin(new), admin(old)) {
        let path = STATUS.child("allocation.devices.results");
        check_admin(call, &path.index(i).child("adminAccess"), &mut errors);
    }
    check_binding(call, new, old, &mut errors);
    if new.pointer("/status/allocation").is_some() {
        check_drivers(call, new, old, &mut errors);
    }
    errors
}

/// The resource that the call is about, where it is one of these.
fn of<'c>(call: &'c Call<'_>) -> Option<&'c str> {
    (call.resource.gvr.group == GROUP).then_some(&*call.resource.gvr.resource)
}

fn items<'v>(tree: &'v Value, pointer: &str) -> &'v [Value] {
    tree.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn check_admin(call: &Call<'_>, path: &Path<'_>, errors: &mut ErrorList) {
    let namespace = call.registry.get_value(&crate::admission::namespaces(), "", &call.info.namespace);
    let labelled = namespace.is_some_and(|namespace| object::labels(&namespace).any(|label| label == (ADMIN_LABEL, "true")));
    if !labelled {
        errors.forbidden(path, format!("admin access to devices requires the `{ADMIN_LABEL}: true` label on the containing namespace"));
    }
}

fn check_binding(call: &Call<'_>, new: &Value, old: &Value, errors: &mut ErrorList) {
    let changed = ["/status/allocation", "/status/reservedFor"].iter().any(|field| new.pointer(field) != old.pointer(field));
    let verb = call.info.verb.as_str();
    if let Some(why) = changed.then(|| refusal(call, verb, "binding", "", "")).flatten() {
        let needed = format!(
            r#"changing status.allocation or status.reservedFor requires resource="resourceclaims/binding", verb="{verb}" permission"#
        );
        errors.forbidden(&STATUS.child("allocation"), format!("{needed}: {why}"));
    }
}

fn check_drivers(call: &Call<'_>, new: &Value, old: &Value, errors: &mut ErrorList) {
    let verb = call.info.verb.as_str();
    let anywhere = format!("arbitrary-node:{verb}");
    let here = format!("associated-node:{verb}");
    let verbs = if is_on_the_node(&call.info.user, new) { vec![here, anywhere] } else { vec![anywhere] };
    for driver in changed_drivers(new, old) {
        // Any of the verbs will do; the first refusal is told.
        let ask = |verb: &String| refusal(call, verb, "driver", &call.info.namespace, driver);
        let refusals: Vec<Option<String>> = verbs.iter().map(ask).collect();
        if let (Some(Some(why)), true) = (refusals.first(), refusals.iter().all(Option::is_some)) {
            let needed =
                format!(r#"changing status.devices requires resource="resourceclaims/driver", verb="[{}]" permission"#, verbs.join(" "));
            errors.forbidden(&STATUS.child("devices"), format!("{needed}: {why}"));
        }
    }
}

/// Why the user may not; none: they may. Without an authorizer everybody may, as everywhere here.
fn refusal(call: &Call<'_>, verb: &str, subresource: &str, namespace: &str, name: &str) -> Option<String> {
    let authorizer = call.registry.authorizer()?;
    let gvr = &call.served.gvr;
    let question =
        Question { verb, group: &gvr.group, version: &gvr.version, resource: &gvr.resource, subresource, namespace, name, path: "" };
    authorizer.refusal(&call.info.user, &question)
}

/// Drivers of whose devices something else is told than before.
fn changed_drivers<'v>(new: &'v Value, old: &'v Value) -> BTreeSet<&'v str> {
    let [new, old] = [new, old].map(|claim| items(claim, "/status/devices"));
    let told = new.iter().filter(|device| !old.contains(device));
    let gone = old.iter().filter(|device| !new.contains(device));
    told.chain(gone).filter_map(|device| device.get("driver")?.as_str()).collect()
}

/// A service account whose pod is on the one node that the claim is allocated on.
fn is_on_the_node(user: &UserInfo, claim: &Value) -> bool {
    let [term] = items(claim, "/status/allocation/nodeSelector/nodeSelectorTerms") else { return false };
    let ([field], []) = (items(term, "/matchFields"), items(term, "/matchExpressions")) else { return false };
    let ([node], Some([own])) = (items(field, "/values"), user.extra.get(NODE_NAME).map(Vec::as_slice)) else { return false };
    let by_name =
        field.get("key").is_some_and(|key| key == "metadata.name") && field.get("operator").is_some_and(|operator| operator == "In");
    by_name && user.name.starts_with("system:serviceaccount:") && node == own
}
