//! `/version`: the Kubernetes version that is spoken, with our own build as its metadata.

use serde_json::{Value, json};

/// What clients compare; the part behind the plus says whose build it is (Semantic Versioning 2.0.0 §10).
pub const GIT_VERSION: &str = "v1.36.3+tiphys.1";

pub(crate) fn document() -> Value {
    json!({
        "major": "1",
        "minor": "36",
        "emulationMajor": "1",
        "emulationMinor": "36",
        "minCompatibilityMajor": "1",
        "minCompatibilityMinor": "35",
        "gitVersion": GIT_VERSION,
        "gitCommit": "",
        "gitTreeState": "",
        "buildDate": "",
        // Not Go: the field names the toolchain.
        "goVersion": concat!("rustc", env!("CARGO_PKG_RUST_VERSION")),
        "compiler": "rustc",
        "platform": tiphys_base::platform::platform(),
    })
}
