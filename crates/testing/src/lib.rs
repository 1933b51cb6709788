//! Builders and fakes for tests: nothing here is shipped.

mod fake_api;

pub use fake_api::FakeApi;

use serde::de::DeserializeOwned;
use serde_json::Value;

/// A typed object from JSON as a test writes it. Panics where the JSON does not fit: a test should fail there.
pub fn object<K: DeserializeOwned>(json: Value) -> K {
    match serde_json::from_value(json) {
        Ok(object) => object,
        Err(error) => panic!("not the kind that the test wants: {error}"),
    }
}
