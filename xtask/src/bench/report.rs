//! The table of figures, for the terminal and as Markdown.

use std::fmt::Write as _;
use std::process::Command;

use anyhow::{Context, Result};

use super::tools::Tools;
use super::{Options, PARTS};

/// What a figure is held against.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Bar {
    None,
    /// Not more than this.
    AtMost(f64),
    /// Not more than this share of upstream's.
    Share(f64),
    /// At least so many times upstream's.
    Times(f64),
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Figure {
    pub(super) name: String,
    pub(super) unit: &'static str,
    pub(super) ours: Option<f64>,
    pub(super) upstream: Option<f64>,
    pub(super) bar: Bar,
}

impl Figure {
    fn ratio(&self) -> Option<f64> {
        Some(self.ours? / self.upstream.filter(|u| *u > 0.0)?)
    }

    fn bar(&self) -> String {
        match self.bar {
            Bar::None => String::new(),
            Bar::AtMost(limit) => format!("≤ {} {}", number(limit), self.unit),
            Bar::Share(share) => format!("≤ 1/{}", number((1.0 / share).round())),
            Bar::Times(times) => format!("≥ {}×", number(times)),
        }
    }

    fn verdict(&self) -> &'static str {
        let met = match self.bar {
            Bar::None => None,
            Bar::AtMost(limit) => self.ours.map(|ours| ours <= limit),
            Bar::Share(share) => self.ratio().map(|ratio| ratio <= share),
            Bar::Times(times) => self.ratio().map(|ratio| ratio >= times),
        };
        met.map_or("", |met| if met { "met" } else { "missed" })
    }

    fn cells(&self) -> [String; 6] {
        let value = |v: Option<f64>| v.map_or("–".to_owned(), |v| format!("{} {}", number(v), self.unit));
        let ratio = match self.ratio() {
            Some(ratio) if ratio > 0.0 && ratio < 1.0 => format!("1/{}", number(1.0 / ratio)),
            Some(ratio) => format!("{}×", number(ratio)),
            None => String::new(),
        };
        [self.name.clone(), value(self.ours), value(self.upstream), ratio, self.bar(), self.verdict().to_owned()]
    }
}

/// Three digits that mean something.
fn number(value: f64) -> String {
    let digits = match value.abs() {
        v if v >= 100.0 || v.fract() == 0.0 => 0,
        v if v >= 10.0 => 1,
        _ => 2,
    };
    format!("{value:.digits$}")
}

#[derive(Default)]
pub(super) struct Report {
    pub(super) figures: Vec<Figure>,
    pub(super) notes: Vec<String>,
}

const HEAD: [&str; 6] = ["figure", "ours", "upstream", "ours to upstream", "bar", ""];

impl Report {
    pub(super) fn add(&mut self, name: impl Into<String>, unit: &'static str, ours: Option<f64>, upstream: Option<f64>, bar: Bar) {
        if ours.is_some() || upstream.is_some() {
            self.figures.push(Figure { name: name.into(), unit, ours, upstream, bar });
        }
    }

    pub(super) fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    pub(super) fn print(&self) {
        println!("\n{}", self.table(false));
        self.notes.iter().for_each(|note| println!("{note}"));
    }

    fn table(&self, markdown: bool) -> String {
        let rows: Vec<[String; 6]> = std::iter::once(HEAD.map(str::to_owned)).chain(self.figures.iter().map(Figure::cells)).collect();
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..HEAD.len()).map(width).collect();
        let mut out = String::new();
        for (i, row) in rows.iter().enumerate() {
            let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
            let line = if markdown { format!("| {} |", cells.join(" | ")) } else { cells.join("  ").trim_end().to_owned() };
            let _ = writeln!(out, "{line}");
            if markdown && i == 0 {
                let _ = writeln!(out, "|{}", " --- |".repeat(HEAD.len()));
            }
        }
        out
    }

    /// Writes the Markdown file, if there is something to write and it is wanted.
    pub(super) fn save(&self, options: &Options, tools: &Tools) -> Result<()> {
        if self.figures.is_empty() || options.out.as_deref() == Some("-") {
            return Ok(());
        }
        let date = said("date", &["-u", "+%Y-%m-%d"]);
        let path = match &options.out {
            Some(path) => path.into(),
            None => tools.root.join("docs/bench").join(format!("{date}-{}.md", part_names(options))),
        };
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let mut text = format!("# Figures of {date}\n\n");
        let _ = writeln!(text, "Machine: {}.  ", machine());
        let commit = said("git", &["-C", &tools.root.display().to_string(), "rev-parse", "--short", "HEAD"]);
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let _ =
            writeln!(text, "Ours: commit {commit}. Upstream: {}. Load average at the end: {}.  ", upstream_versions(tools), load.trim());
        let _ = writeln!(text, "Made by `cargo xtask bench {}`.\n", std::env::args().skip(2).collect::<Vec<_>>().join(" "));
        text.push_str(&self.table(true));
        for note in &self.notes {
            let _ = writeln!(text, "\n{note}");
        }
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        println!("written: {}", path.display());
        Ok(())
    }
}

fn part_names(options: &Options) -> String {
    if options.parts.len() == PARTS.len() {
        return "all".into();
    }
    let names: Vec<&str> = PARTS.iter().filter(|(_, part)| options.has(*part)).map(|(name, _)| *name).collect();
    names.join("-")
}

/// What a command prints, or nothing.
fn said(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    output.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()).unwrap_or_default()
}

fn machine() -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        cpu.lines().find_map(|l| l.strip_prefix("model name")?.split_once(':')).map_or("unknown", |(_, name)| name.trim()).to_owned();
    let cores = cpu.lines().filter(|l| l.starts_with("processor")).count();
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib: u64 = memory.lines().find_map(|l| l.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse().ok()).unwrap_or(0);
    format!("{cores} × {model}, {} GiB, Linux {}", kib >> 20, said("uname", &["-r"]))
}

fn upstream_versions(tools: &Tools) -> String {
    let server = said(&tools.upstream("kube-apiserver").display().to_string(), &["--version"]);
    let etcd = said(&tools.upstream("etcd").display().to_string(), &["--version"]);
    format!("{server}, {}", etcd.lines().next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(ours: f64, upstream: f64, bar: Bar) -> [String; 6] {
        Figure { name: "x".into(), unit: "us", ours: Some(ours), upstream: Some(upstream), bar }.cells()
    }

    #[test]
    fn bars_and_verdicts() {
        assert_eq!(figure(90.0, 1300.0, Bar::Share(0.1))[1..], ["90 us", "1300 us", "1/14.4", "≤ 1/10", "met"]);
        assert_eq!(figure(200.0, 1300.0, Bar::Share(0.1))[5], "missed");
        assert_eq!(figure(6000.0, 1200.0, Bar::Times(5.0))[3..], ["5×", "≥ 5×", "met"]);
        assert_eq!(figure(90.0, 0.0, Bar::AtMost(80.0))[3..], ["", "≤ 80 us", "missed"]);
    }

    #[test]
    fn numbers_have_three_digits() {
        for (value, text) in [(1.0, "1"), (0.25, "0.25"), (12.34, "12.3"), (1234.5, "1234"), (80.0, "80")] {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn tables_line_up() {
        let mut report = Report::default();
        report.add("a", "ms", Some(1.0), None, Bar::None);
        report.add("nothing measured", "ms", None, None, Bar::None);
        assert_eq!(report.table(true).lines().count(), 3);
        assert!(report.table(false).lines().nth(1).is_some_and(|line| line.starts_with("a       1 ms")));
    }
}
