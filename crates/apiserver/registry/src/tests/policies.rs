//! Admission policies: what they refuse, warn of and change.

use serde_json::{Value, json};
use tiphys_meta::{ApiError, Gvr};

use super::{Rig, core};
use crate::{AuditNotes, Connect, UserInfo, Verb};

fn gvr(resource: &'static str) -> Gvr {
    Gvr::new("admissionregistration.k8s.io", "v1", resource)
}

fn constraints() -> Value {
    json!({"resourceRules": [{"operations": ["CREATE", "UPDATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}]})
}

fn more_constraints(spec: &Value) -> Value {
    spec.get("matchConstraints").cloned().unwrap_or_else(constraints)
}

impl Rig {
    async fn validating(&self, name: &str, more: Value, binding: Value) {
        self.policy(["validatingadmissionpolicies", "validatingadmissionpolicybindings"], name, more, binding).await;
    }

    async fn mutating(&self, name: &str, mut more: Value) {
        more["reinvocationPolicy"] = more.get("reinvocationPolicy").cloned().unwrap_or(json!("Never"));
        self.policy(["mutatingadmissionpolicies", "mutatingadmissionpolicybindings"], name, more, json!({})).await;
    }

    async fn policy(&self, [policies, bindings]: [&'static str; 2], name: &str, more: Value, mut binding: Value) {
        let mut spec = more;
        spec["matchConstraints"] = more_constraints(&spec);
        let policy = json!({"metadata": {"name": name}, "spec": spec});
        self.post(&gvr(policies), "", policy).await.expect("a policy");
        binding["policyName"] = json!(name);
        self.post(&gvr(bindings), "", json!({"metadata": {"name": name}, "spec": binding})).await.expect("a binding");
    }

    async fn made(&self, name: &str, data: Value) -> Result<Value, ApiError> {
        self.post(&core("configmaps"), "default", json!({"metadata": {"name": name}, "data": data})).await
    }
}

#[tokio::test]
async fn a_policy_refuses_from_the_next_write_on() {
    let rig = Rig::new().await;
    rig.made("before", json!({"n": "1"})).await.expect("nobody minds");
    let spec = json!({
    "variables": [{"name": "n", "expression": "int(object.data.n)"}, {"name": "odd", "expression": "variables.n % 2 == 1"}],
    "validations": [
        {"expression": "variables.odd", "messageExpression": "'wants odd, got ' + string(variables.n)"},
        {"expression": "namespaceObject.metadata.name == 'default' && request.userInfo.username == 'admin'", "reason": "Forbidden"},
    ]});
    rig.validating("odd.example.com", spec, json!({"validationActions": ["Deny"]})).await;
    rig.made("three", json!({"n": "3"})).await.expect("odd");
    let error = rig.made("two", json!({"n": "2"})).await.expect_err("even");
    assert_eq!(
        error.message,
        "configmaps \"two\" is forbidden: ValidatingAdmissionPolicy 'odd.example.com' with binding 'odd.example.com' denied request: wants odd, got 2"
    );
    assert_eq!(error.code, 422);
    let error = rig.made("none", json!({})).await.expect_err("no n");
    assert!(error.message.ends_with("expression 'variables.odd' resulted in error: composited variable \"odd\" fails to evaluate: composited variable \"n\" fails to evaluate: no such key: data"), "{}", error.message);
    // As soon as the binding is gone, so is the policy's word.
    rig.delete(&gvr("validatingadmissionpolicybindings"), "", "odd.example.com").await.expect("gone");
    rig.made("four", json!({"n": "4"})).await.expect("nobody minds any more");
}

#[tokio::test]
async fn parameters_conditions_and_failure() {
    let rig = Rig::new().await;
    rig.made("limits", json!({"max": "2"})).await.expect("made");
    let spec = json!({
        "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
        "matchConditions": [{"name": "only-limited", "expression": "has(object.data) && 'n' in object.data"}],
        "validations": [{"expression": "int(object.data.n) <= int(params.data.max)", "message": "too much"}]});
    let binding = json!({"validationActions": ["Deny"], "paramRef": {"name": "limits", "parameterNotFoundAction": "Deny"}});
    rig.validating("max.example.com", spec, binding).await;
    rig.made("other", json!({"x": "3"})).await.expect("not concerned");
    rig.made("one", json!({"n": "1"})).await.expect("little enough");
    assert!(rig.made("three", json!({"n": "3"})).await.is_err_and(|e| e.message.ends_with("denied request: too much")));
    rig.merge(&core("configmaps"), "default", "limits", json!({"data": {"max": "5"}})).await.expect("more");
    rig.made("three", json!({"n": "3"})).await.expect("little enough now");
    // What policies say of errors.
    let broken = json!({"failurePolicy": "Ignore", "validations": [{"expression": "object.data.missing == 'x'"}]});
    rig.validating("broken.example.com", broken, json!({"validationActions": ["Deny"]})).await;
    rig.made("fine", json!({"n": "1"})).await.expect("errors are ignored");
}

#[tokio::test]
async fn policies_change_objects() {
    let rig = Rig::new().await;
    // By name: the first sees what the second does only when it is asked again.
    let count = "Object{metadata: Object.metadata{annotations: {'seen': string(has(object.data) && 'added' in object.data)}}}";
    let first = json!({"reinvocationPolicy": "IfNeeded", "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": count}}]});
    rig.mutating("a.example.com", first).await;
    let add = "[JSONPatch{op: 'add', path: '/data/' + jsonpatch.escapeKey('added'), value: request.operation}]";
    let second = json!({
        "matchConditions": [{"name": "has-data", "expression": "has(object.data)"}],
        "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": add}}]});
    rig.mutating("b.example.com", second).await;
    let made = rig.made("x", json!({"k": "v"})).await.expect("made");
    assert_eq!(made["data"], json!({"added": "CREATE", "k": "v"}));
    assert_eq!(made["metadata"]["annotations"]["seen"], "true");
    // A test that fails leaves the object as it is; anything else refuses.
    let test = "[JSONPatch{op: 'test', path: '/data/k', value: 'other'}, JSONPatch{op: 'remove', path: '/data/k'}]";
    rig.mutating("c.example.com", json!({"mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": test}}]})).await;
    let made = rig.made("y", json!({"k": "v"})).await.expect("made");
    assert_eq!(made["data"]["k"], "v");
    let wrong = "Object{metadata: Object.spec{labels: {'a': 'b'}}}";
    rig.mutating("d.example.com", json!({"mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": wrong}}]}))
        .await;
    let error = rig.made("z", json!({"k": "v"})).await.expect_err("a name that does not fit");
    assert!(
        error.message.starts_with(
            "policy 'd.example.com' with binding 'd.example.com' denied request: type mismatch: unexpected type name \"Object.spec\""
        ),
        "{}",
        error.message
    );
}

fn rules(operation: &str, group: &str, version: &str, resource: &str) -> Value {
    json!({"resourceRules": [{"operations": [operation], "apiGroups": [group], "apiVersions": [version], "resources": [resource]}]})
}

async fn exec(rig: &Rig, user: &str, options: &mut Value) -> Result<(Vec<String>, std::collections::BTreeMap<String, String>), ApiError> {
    let (user, notes, gvr) = (UserInfo::new(user, &[]), AuditNotes::kept(false), core("pods"));
    let connect = Connect { gvr: &gvr, subresource: "exec", namespace: "default", name: "p", user: &user, notes: &notes };
    let warnings = rig.registry.admit_connect(&connect, options).await?;
    Ok((warnings, notes.all()))
}

#[tokio::test]
async fn connections_are_judged_and_changed() {
    let rig = Rig::new().await;
    let spec = json!({"matchConstraints": rules("CONNECT", "", "v1", "pods/exec"), "validations": [
        {"expression": "request.kind.kind == 'PodExecOptions' && object.command[0] != 'sh' && object.container == 'main'", "message": "no shells"}]});
    rig.validating("shells.example.com", spec, json!({"validationActions": ["Deny"]})).await;
    let main = "Object{container: has(object.container) ? object.container : 'main'}";
    let spec = json!({"matchConstraints": rules("CONNECT", "", "v1", "pods/exec"),
        "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": main}}]});
    rig.mutating("main.example.com", spec).await;
    let options = |command: &str| json!({"apiVersion": "v1", "kind": "PodExecOptions", "command": [command], "stdin": true});
    let mut asked = options("ls");
    exec(&rig, "ann", &mut asked).await.expect("no shell");
    assert_eq!(asked, json!({"apiVersion": "v1", "kind": "PodExecOptions", "command": ["ls"], "container": "main", "stdin": true}));
    let error = exec(&rig, "ann", &mut options("sh")).await.expect_err("a shell");
    assert_eq!(
        error.message,
        "pods \"p\" is forbidden: ValidatingAdmissionPolicy 'shells.example.com' with binding 'shells.example.com' denied request: no shells"
    );
}

#[tokio::test]
async fn the_audit_log_hears_of_policies() {
    let rig = Rig::new().await;
    let spec = json!({"validations": [{"expression": "true"}, {"expression": "object.data.n == '1'", "message": "not one"}],
        "auditAnnotations": [{"key": "n", "valueExpression": "' got ' + object.data.n"}, {"key": "none", "valueExpression": "null"}]});
    rig.validating("one.example.com", spec, json!({"validationActions": ["Audit", "Warn"]})).await;
    let mut ask = rig.ask(Verb::Create, &core("configmaps"), "default", "");
    let notes = AuditNotes::kept(false);
    ask.info.notes = notes.clone();
    let (_, _, warnings) = ask.document(json!({"metadata": {"name": "x"}, "data": {"n": "2"}}).to_string()).await.expect("not denied");
    assert_eq!(warnings, ["Validation failed for ValidatingAdmissionPolicy 'one.example.com' with binding 'one.example.com': not one"]);
    let failure = "[{\"message\":\"not one\",\"policy\":\"one.example.com\",\"binding\":\"one.example.com\",\"expressionIndex\":1,\"validationActions\":[\"Audit\",\"Warn\"]}]";
    let want = [("one.example.com/n", "got 2"), ("validation.policy.admission.k8s.io/validation_failure", failure)];
    let heard = notes.all();
    assert_eq!(heard.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect::<Vec<_>>(), want);
}
