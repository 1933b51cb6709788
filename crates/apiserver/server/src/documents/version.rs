//! `/version`: the Kubernetes version that is spoken, with our own build as its metadata.

use serde_json::{Value, json};

/// What clients compare; the part behind the plus says whose build it is (Semantic Versioning 2.0.0 §10).
pub const GIT_VERSION: &str = "v1.36.3+tiphys.1";

/// The version of Kubernetes alone, and the one whose behaviour is shown.
pub(super) const BINARY: &str = "1.36.3";
pub(super) const EMULATED: &str = "1.36";
/// Not Go: the fields name the toolchain.
pub(super) const TOOLCHAIN: &str = concat!("rustc", env!("CARGO_PKG_RUST_VERSION"));

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
        "goVersion": TOOLCHAIN,
        "compiler": "rustc",
        "platform": tiphys_base::platform::platform(),
    })
}
