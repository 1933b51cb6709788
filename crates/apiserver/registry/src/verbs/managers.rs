//! Who owns the replicas of a workload, told in terms of its Scale and back, for applying to `scale`. Upstream: `managedfields.ScaleHandler`.

use serde_json::{Value, json};
use tiphys_meta::object;

const SCALE: &str = "autoscaling/v1";

/// Gives the Scale the managers of its workload that own the replicas.
pub(super) fn lend(managers: &Value, scale: &mut Value, path: &[&str]) {
    let owners = entries(managers).filter(|entry| owns(entry, path)).map(|entry| {
        let mut entry = entry.clone();
        entry["apiVersion"] = json!(SCALE);
        entry["fieldsV1"] = fields(&["spec", "replicas"]);
        entry
    });
    let owners: Vec<Value> = owners.collect();
    if !owners.is_empty() {
        object::meta_mut(scale).insert("managedFields".into(), Value::Array(owners));
    }
}

/// Takes over from the Scale who owns the replicas now; what else managers own of the workload stays as it is.
pub(super) fn give_back(of_scale: &Value, workload: &mut Value, path: &[&str]) {
    let api_version = workload["apiVersion"].clone();
    let mut owners: Vec<&Value> = entries(of_scale).filter(|entry| owns(entry, &["spec", "replicas"])).collect();
    let mut kept = Vec::new();
    for entry in entries(&workload["metadata"]["managedFields"]) {
        let mut entry = entry.clone();
        if owns(&entry, path) {
            match owners.iter().position(|owner| same_manager(owner, &entry)) {
                Some(place) => entry["time"] = owners.remove(place)["time"].clone(),
                None => disown(&mut entry["fieldsV1"], path),
            }
        } else if let Some(place) = owners.iter().position(|owner| same_manager(owner, &entry)) {
            own(&mut entry["fieldsV1"], path);
            entry["time"] = owners.remove(place)["time"].clone();
        }
        if entry["fieldsV1"].as_object().is_some_and(|fields| !fields.is_empty()) {
            kept.push(entry);
        }
    }
    kept.extend(owners.into_iter().map(|owner| {
        let mut owner = owner.clone();
        owner["apiVersion"] = api_version.clone();
        owner["fieldsV1"] = fields(path);
        owner
    }));
    object::meta_mut(workload).insert("managedFields".into(), Value::Array(kept));
}

fn entries(managers: &Value) -> impl Iterator<Item = &Value> {
    managers.as_array().into_iter().flatten()
}

/// Of a Scale and of its workload: who, how, and through which subresource.
fn same_manager(a: &Value, b: &Value) -> bool {
    ["manager", "operation", "subresource"].iter().all(|field| a.get(field) == b.get(field))
}

fn owns(entry: &Value, path: &[&str]) -> bool {
    path.iter().try_fold(&entry["fieldsV1"], |fields, step| fields.get(format!("f:{step}"))).is_some()
}

/// The set of one field, as FieldsV1 has it.
fn fields(path: &[&str]) -> Value {
    path.iter().rev().fold(json!({}), |below, step| json!({ format!("f:{step}"): below }))
}

fn own(fields: &mut Value, path: &[&str]) {
    let mut place = fields;
    for step in path {
        place = object::as_map(place).entry(format!("f:{step}")).or_insert_with(|| json!({}));
    }
}

/// Takes a field out, and what is empty without it.
fn disown(fields: &mut Value, path: &[&str]) {
    let Some((first, rest)) = path.split_first() else { return };
    let (key, Some(map)) = (format!("f:{first}"), fields.as_object_mut()) else { return };
    if !rest.is_empty()
        && let Some(below) = map.get_mut(&key)
    {
        disown(below, rest);
    }
    if rest.is_empty() || map.get(&key).and_then(Value::as_object).is_some_and(serde_json::Map::is_empty) {
        map.remove(&key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: [&str; 2] = ["spec", "replicas"];

    fn entry(manager: &str, subresource: Option<&str>, fields: Value) -> Value {
        let mut entry = json!({"manager": manager, "operation": "Apply", "apiVersion": "apps/v1", "time": "then", "fieldsType": "FieldsV1", "fieldsV1": fields});
        if let Some(subresource) = subresource {
            entry["subresource"] = json!(subresource);
        }
        entry
    }

    #[test]
    fn owners_come_and_go() {
        let both = json!({"f:spec": {"f:replicas": {}, "f:template": {}}});
        let managers = json!([entry("ann", None, both), entry("bob", None, json!({"f:spec": {"f:paused": {}}}))]);
        let mut workload = json!({"apiVersion": "apps/v1", "metadata": {"managedFields": managers}});
        let mut scale = json!({"metadata": {}});
        lend(&workload["metadata"]["managedFields"], &mut scale, &PATH);
        let lent = &mut scale["metadata"]["managedFields"];
        assert_eq!((lent.as_array().map(Vec::len), &lent[0]["apiVersion"], &lent[0]["fieldsV1"]), (Some(1), &json!(SCALE), &fields(&PATH)));
        // Somebody takes the replicas over through the subresource.
        let mut taken = entry("cat", Some("scale"), fields(&PATH));
        taken["apiVersion"] = json!(SCALE);
        give_back(&json!([taken]), &mut workload, &PATH);
        let managers = &workload["metadata"]["managedFields"];
        let told: Vec<(&Value, &Value)> = entries(managers).map(|e| (&e["manager"], &e["fieldsV1"])).collect();
        let (ann, bob, cat) = (json!({"f:spec": {"f:template": {}}}), json!({"f:spec": {"f:paused": {}}}), fields(&PATH));
        assert_eq!(told, [(&json!("ann"), &ann), (&json!("bob"), &bob), (&json!("cat"), &cat)]);
        assert_eq!((&managers[2]["apiVersion"], &managers[2]["subresource"]), (&json!("apps/v1"), &json!("scale")));
    }
}
