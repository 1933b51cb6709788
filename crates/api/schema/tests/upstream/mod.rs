//! Where Go keeps a published module.

use std::path::PathBuf;
use std::process::Command;

/// The folder of `module@version` in the Go module cache, downloaded if it is not there.
pub(crate) fn module(module: &str) -> PathBuf {
    let output = Command::new("go").args(["mod", "download", "-json", module]).current_dir(std::env::temp_dir()).output();
    let output = output.unwrap_or_else(|e| panic!("this test reads {module} from the Go module cache and needs the `go` command: {e}"));
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    match answer["Dir"].as_str() {
        Some(dir) => dir.into(),
        None => panic!("`go mod download {module}`: {}{}", answer["Error"], String::from_utf8_lossy(&output.stderr)),
    }
}
