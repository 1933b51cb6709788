//! `cargo xtask facts [--check]`: writes `crates/api/schema/facts/facts.txt` with the Go program in `xtask/facts`, or compares.
//!
//! Go and its module proxy are needed here only; the table is committed, and its first line holds a hash of the generator and its pinned modules, so
//! that a test can tell a stale table without Go.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};
use sha2::{Digest, Sha256};

/// Where the OpenAPI and discovery documents are, which no package of Go holds.
const KUBERNETES: &str = "k8s.io/kubernetes@v1.36.3";

pub(crate) fn run(args: &[String]) -> anyhow::Result<()> {
    let root = root()?;
    let table = table(&root);
    let fresh = generate(&root)?;
    match args {
        [] => std::fs::write(&table, fresh).with_context(|| format!("write {}", table.display())),
        [flag] if flag == "--check" => {
            let committed = std::fs::read_to_string(&table).with_context(|| format!("read {}", table.display()))?;
            ensure!(committed == fresh, "{} is stale: run `cargo xtask facts`", table.display());
            Ok(())
        }
        _ => bail!("cargo xtask facts [--check]"),
    }
}

fn root() -> anyhow::Result<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    Ok(here.parent().context("xtask is in the workspace")?.to_owned())
}

fn table(root: &Path) -> PathBuf {
    root.join("crates/api/schema/facts/facts.txt")
}

fn generate(root: &Path) -> anyhow::Result<String> {
    let sources = root.join("xtask/facts");
    let documents = module_dir(&sources)?;
    let output = Command::new("go").args(["run", "."]).arg(documents).current_dir(&sources).output().context("run go")?;
    ensure!(output.status.success(), "go run: {}", String::from_utf8_lossy(&output.stderr));
    let facts = String::from_utf8(output.stdout).context("facts are text")?;
    Ok(format!("# inputs {}\n{facts}", inputs(&sources)?))
}

/// A hash of everything that the table is made from.
fn inputs(sources: &Path) -> anyhow::Result<String> {
    let mut hash = Sha256::new();
    hash.update(KUBERNETES);
    for file in ["go.mod", "go.sum", "main.go", "openapi.go"] {
        hash.update(std::fs::read(sources.join(file)).with_context(|| format!("read {file}"))?);
    }
    Ok(hash.finalize().iter().map(|b| format!("{b:02x}")).collect())
}

fn module_dir(sources: &Path) -> anyhow::Result<String> {
    let output = Command::new("go").args(["mod", "download", "-json", KUBERNETES]).current_dir(sources).output().context("run go")?;
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).context("go mod download")?;
    let dir = answer["Dir"].as_str().with_context(|| format!("go mod download {KUBERNETES}: {}", answer["Error"]))?;
    Ok(dir.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn committed_facts_are_of_these_inputs() {
        let root = root().unwrap();
        let committed = std::fs::read_to_string(table(&root)).unwrap();
        let inputs = inputs(&root.join("xtask/facts")).unwrap();
        assert_eq!(committed.lines().next(), Some(format!("# inputs {inputs}").as_str()), "run `cargo xtask facts`");
    }

    /// The full comparison, where there is Go to make it with.
    #[test]
    fn committed_facts_are_fresh() {
        if Command::new("go").arg("version").output().is_ok() {
            run(&["--check".to_owned()]).unwrap();
        }
    }
}
