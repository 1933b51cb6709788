//! Flags as Go's programs take them.

use std::time::Duration;

use anyhow::{Context, Result};
use clap::builder::BoolishValueParser;
use clap::{Arg, ArgAction, ArgMatches, Command};

pub(super) fn value(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name("VALUE").help(help).action(ArgAction::Set)
}

pub(super) fn list(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name("A,B").help(help).action(ArgAction::Append).value_delimiter(',')
}

/// `--flag`, `--flag=true`, `--flag=false`.
pub(super) fn switch(name: &'static str, help: &'static str) -> Arg {
    value(name, help).num_args(0..=1).require_equals(true).default_missing_value("true").value_parser(BoolishValueParser::new())
}

pub(super) fn verbosity() -> Arg {
    Arg::new("v").short('v').long("v").value_name("LEVEL").help("verbosity of the log").value_parser(clap::value_parser!(u8))
}

/// A flag of upstream's whose purpose does not exist here. It may be given; that it does nothing is said in the log.
pub(super) struct Idle {
    pub(super) name: &'static str,
    pub(super) why: &'static str,
}

pub(super) fn idle(flags: &'static [Idle]) -> impl Iterator<Item = Arg> {
    flags.iter().map(|f| value(f.name, f.why).num_args(0..=1).default_missing_value("true").hide_short_help(true))
}

pub(super) fn warn_of_idle(m: &ArgMatches, flags: &[Idle]) {
    for flag in flags.iter().filter(|f| m.contains_id(f.name)) {
        tracing::warn!("--{} has no effect here: {}", flag.name, flag.why);
    }
}

/// The command line read; help and wrong usage end the program here, with clap's words and status.
pub(super) fn matches(command: Command, program: &'static str, args: Vec<String>) -> ArgMatches {
    command.try_get_matches_from(std::iter::once(program.to_owned()).chain(args)).unwrap_or_else(|error| error.exit())
}

pub(super) fn text<'a>(m: &'a ArgMatches, name: &str) -> Option<&'a str> {
    m.get_one::<String>(name).map(String::as_str)
}

pub(super) fn texts(m: &ArgMatches, name: &str) -> Vec<String> {
    m.get_many::<String>(name).into_iter().flatten().filter(|t| !t.is_empty()).cloned().collect()
}

pub(super) fn is_on(m: &ArgMatches, name: &str, default: bool) -> bool {
    m.get_one::<bool>(name).copied().unwrap_or(default)
}

pub(super) fn duration(m: &ArgMatches, name: &'static str, default: Duration) -> Result<Duration> {
    text(m, name).map_or(Ok(default), |t| Ok(tiphys_apiserver::flags::duration(name, t)?))
}

/// The bytes of the file that a flag names; none: empty.
pub(super) fn file(m: &ArgMatches, name: &'static str) -> Result<Vec<u8>> {
    text(m, name).map_or(Ok(Vec::new()), |path| std::fs::read(path).with_context(|| format!("--{name}: cannot read {path}")))
}
