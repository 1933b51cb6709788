//! Development tasks: `cargo xtask TASK`.

mod bench;
mod ci;
mod conformance;
mod differential;
mod facts;
mod fuzz;
mod layers;
mod map;

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.split_first() {
        Some((task, rest)) if task == "facts" => facts::run(rest),
        Some((task, _)) if task == "layers" => layers::run(),
        Some((task, _)) if task == "ci" => ci::run(),
        Some((task, rest)) if task == "conformance" => conformance::run(rest),
        Some((task, rest)) if task == "differential" => differential::run(rest),
        Some((task, rest)) if task == "fuzz" => fuzz::run(rest),
        Some((task, rest)) if task == "map" => map::run(rest),
        Some((task, rest)) if task == "bench" => bench::run(rest),
        // The second half of it, in a network namespace of its own.
        Some((task, rest)) if task == "bench-inside" => bench::run_inside(rest),
        _ => anyhow::bail!("cargo xtask TASK, where TASK is one of: bench, ci, conformance, differential, facts, fuzz, layers, map"),
    }
}
