//! Which crate may depend on which: `docs/layers.toml` against `cargo metadata`.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
struct Layers {
    layers: BTreeMap<String, Layer>,
}

#[derive(Deserialize)]
struct Layer {
    may: BTreeSet<String>,
    why: String,
}

pub(crate) fn run() -> Result<()> {
    let wrong = violations()?;
    if wrong.is_empty() {
        println!("all arrows point the way docs/layers.toml says");
        return Ok(());
    }
    bail!("{}", wrong.join("\n"))
}

/// Each forbidden dependency, with the reason that the layers file gives.
fn violations() -> Result<Vec<String>> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("no workspace above xtask")?;
    let text = std::fs::read_to_string(root.join("docs/layers.toml")).context("docs/layers.toml cannot be read")?;
    let layers: Layers = toml::from_str(&text).context("docs/layers.toml is malformed")?;
    let output = Command::new(env!("CARGO")).args(["metadata", "--format-version=1", "--no-deps"]).current_dir(root).output()?;
    Ok(check(&layers.layers, &serde_json::from_slice(&output.stdout).context("cargo metadata gave no JSON")?))
}

fn check(layers: &BTreeMap<String, Layer>, metadata: &Value) -> Vec<String> {
    let packages = metadata["packages"].as_array().map(Vec::as_slice).unwrap_or_default();
    let names: BTreeSet<&str> = packages.iter().filter_map(|p| p["name"].as_str()).collect();
    let mut wrong: Vec<String> =
        layers.keys().filter(|l| !names.contains(l.as_str())).map(|l| format!("{l} stands in docs/layers.toml but is no crate")).collect();
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        let Some(layer) = layers.get(name) else {
            wrong.push(format!("{name} has no entry in docs/layers.toml: say what it may depend on, and why"));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let to = dependency["name"].as_str().unwrap_or_default();
            // Tests may build a whole world; what ships may not.
            let ships = dependency["kind"].as_str() != Some("dev");
            if ships && names.contains(to) && !layer.may.contains(to) && !layer.may.contains("*") {
                wrong.push(format!("{name} must not depend on {to}: {}", layer.why));
            }
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workspace_keeps_its_layers() {
        assert_eq!(violations().expect("readable"), Vec::<String>::new());
    }

    #[test]
    fn a_forbidden_arrow_is_answered_with_its_reason() {
        let layer = |may: &[&str], why: &str| Layer { may: may.iter().map(|m| (*m).to_owned()).collect(), why: why.into() };
        let layers = BTreeMap::from([("a".to_owned(), layer(&[], "a stands alone")), ("b".to_owned(), layer(&["a"], "b is above a"))]);
        let package = |name: &str, on: &str| serde_json::json!({"name": name, "dependencies": [{"name": on, "kind": null}]});
        let good = serde_json::json!({"packages": [package("a", "serde"), package("b", "a")]});
        assert!(check(&layers, &good).is_empty());
        let bad = serde_json::json!({"packages": [package("a", "b"), package("b", "a")]});
        assert_eq!(check(&layers, &bad), ["a must not depend on b: a stands alone"]);
    }
}
