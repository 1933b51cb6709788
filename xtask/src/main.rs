//! Development tasks: `cargo xtask TASK`.

fn main() -> anyhow::Result<()> {
    anyhow::bail!("cargo xtask TASK, where TASK is one of: facts, map, layers, bench, conformance, ci")
}
