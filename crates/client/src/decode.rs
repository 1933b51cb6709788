//! JSON to typed objects, as Go reads it: null is the same as absent, also where the typed view has no option, such as a
//! condition's `lastTransitionTime` that its writer left out. One such object must not end everybody's watch.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::ClientError;

pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ClientError> {
    let error = match serde_json::from_slice(bytes) {
        Ok(object) => return Ok(object),
        Err(error) => error,
    };
    let Ok(tree) = serde_json::from_slice::<Value>(bytes) else { return Err(ClientError::Decode(error.to_string())) };
    T::deserialize(without_nulls(tree)).map_err(|e| ClientError::Decode(e.to_string()))
}

/// Go's zero time, which it prints as null.
const NO_TIME: &str = "0001-01-01T00:00:00Z";

fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let condition = map.contains_key("type") && map.contains_key("status");
            let mut map: Map<String, Value> = map.into_iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k, without_nulls(v))).collect();
            if condition {
                map.entry("lastTransitionTime").or_insert_with(|| NO_TIME.into());
            }
            Value::Object(map)
        }
        Value::Array(list) => list.into_iter().map(without_nulls).collect(),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::decode;
    use tiphys_types::api::core::v1::Service;

    #[test]
    fn a_null_time_reads_as_no_time() {
        let text = br#"{"metadata": {"name": "s"}, "status": {"conditions": [
            {"type": "Set", "status": "True", "reason": "E2E", "message": "m", "lastTransitionTime": null}]}}"#;
        let service: Service = decode(text).expect("Go reads it too");
        assert_eq!(service.status.and_then(|s| s.conditions).map(|c| c.len()), Some(1));
        assert!(decode::<Service>(b"{").is_err());
        assert!(decode::<Service>(br#"{"spec": 5}"#).is_err());
    }
}
