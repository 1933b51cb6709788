//! Development tasks: `cargo xtask TASK`.

mod ci;
mod conformance;
mod facts;
mod layers;

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.split_first() {
        Some((task, rest)) if task == "facts" => facts::run(rest),
        Some((task, _)) if task == "layers" => layers::run(),
        Some((task, _)) if task == "ci" => ci::run(),
        Some((task, rest)) if task == "conformance" => conformance::run(rest),
        _ => anyhow::bail!("cargo xtask TASK, where TASK is one of: ci, conformance, facts, layers"),
    }
}
