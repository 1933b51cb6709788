//! Which controllers watch which kinds, read off their sources: a controller asks for its caches with `informers.of::<Kind>()` or is handed an
//! `Informer<Kind>`, names what it is there for with `watch::own(&cache, …)`, and what it owns with `watch::owned(&cache, …)`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result};

/// What one controller has to do with a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Tie {
    /// It keeps objects of the kind true.
    Keeps,
    /// It makes objects of the kind, and they are its objects' own.
    Owns,
    Watches,
}

/// By kind, as Rust calls its type: who.
pub(super) type Ties = BTreeMap<String, BTreeSet<(String, Tie)>>;

/// Parts of the program that watch too, by the folder of their sources.
const OTHERS: [(&str, &str); 4] = [
    ("scheduler", "crates/scheduler/src"),
    ("kubelet", "crates/node/kubelet/src"),
    ("proxy", "crates/net/proxy/src"),
    ("dns", "crates/net/dns/src"),
];

pub(super) fn read(root: &Path) -> Result<Ties> {
    let controllers = root.join("crates/controllers/src");
    let list = std::fs::read_to_string(controllers.join("lib.rs")).context("the list of controllers cannot be read")?;
    let mut ties = Ties::new();
    for (name, module) in listed(&list) {
        add(&mut ties, &name, &sources(&controllers.join(&module))?);
    }
    for (name, folder) in OTHERS {
        add(&mut ties, name, &sources(&root.join(folder))?);
    }
    Ok(ties)
}

/// `on("deployment-controller", deployment::start)`: the name and the folder. Where one folder has several, they share what it watches.
fn listed(list: &str) -> Vec<(String, String)> {
    let entry = |line: &str| {
        let (name, rest) = line.trim().strip_prefix("on(\"").or_else(|| line.trim().strip_prefix("off(\""))?.split_once('"')?;
        // Between them stands the name of its service account, where the table has one.
        let (module, _) = rest.rsplit_once("::")?;
        Some((name.to_owned(), module.rsplit([' ', ',']).next()?.to_owned()))
    };
    list.lines().filter_map(entry).collect()
}

/// All Rust text of a module (`NAME.rs` or a folder), its tests apart.
fn sources(path: &Path) -> Result<String> {
    let file = path.with_extension("rs");
    if file.is_file() {
        return Ok(without_tests(&std::fs::read_to_string(&file)?).to_owned());
    }
    let mut text = String::new();
    let mut entries: Vec<_> =
        std::fs::read_dir(path).with_context(|| format!("no sources in {}", path.display()))?.collect::<Result<_, _>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        if path.is_dir() && !path.ends_with("tests") {
            text.push_str(&sources(&path)?);
        } else if path.extension().is_some_and(|e| e == "rs") && !path.ends_with("tests.rs") {
            text.push_str(without_tests(&std::fs::read_to_string(&path)?));
        }
    }
    Ok(text)
}

fn without_tests(text: &str) -> &str {
    text.split("#[cfg(test)]").next().unwrap_or("")
}

fn add(ties: &mut Ties, who: &str, text: &str) {
    let variables = variables(text);
    for kind in kinds(text) {
        let named = |call: &str| variables.iter().any(|(name, k)| *k == kind && text.contains(&format!("watch::{call}(&{name},")));
        let tie = match () {
            () if named("own") => Tie::Keeps,
            () if named("owned") => Tie::Owns,
            () => Tie::Watches,
        };
        ties.entry(kind).or_default().insert((who.to_owned(), tie));
    }
}

/// Every `K` of `informers.of::<K>()` and `Informer<K>`; of generic code there is none.
fn kinds(text: &str) -> BTreeSet<String> {
    let named = ["informers.of::<", "Informer<"].into_iter().flat_map(|before| text.split(before).skip(1));
    let kinds = named.filter_map(|rest| rest.split_once('>')).map(|(kind, _)| last_part(kind).to_owned());
    kinds.filter(|kind| kind.len() > 1 && kind.chars().all(char::is_alphanumeric)).collect()
}

fn last_part(path: &str) -> &str {
    path.rsplit("::").next().unwrap_or(path)
}

/// `let (a, b) = (….of::<A>(), ….of::<B>());` and `let a = ….of::<A>();`: what each name holds.
fn variables(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for statement in text.split("let ").skip(1) {
        let statement = statement.split(';').next().unwrap_or("");
        let Some((pattern, value)) = statement.split_once('=') else { continue };
        let held: Vec<&str> =
            value.split("informers.of::<").skip(1).filter_map(|rest| rest.split_once('>')).map(|(kind, _)| last_part(kind)).collect();
        let names: Vec<&str> = pattern.trim().trim_matches(['(', ')']).split(',').map(str::trim).filter(|n| !n.is_empty()).collect();
        if names.len() == held.len() {
            found.extend(names.into_iter().zip(held).map(|(name, kind)| (name.to_owned(), kind.to_owned())));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_are_read_off_the_source() {
        let text = "let (sets, pods) =\n (context.informers.of::<ReplicaSet>(), context.informers.of::<Pod>());\n\
                    let nodes = context.informers.of::<Node>();\n watch::own(&sets, &queue); watch::owned(&pods, \"ReplicaSet\", &queue);";
        let mut ties = Ties::new();
        add(&mut ties, "r", text);
        let of = |kind: &str| ties[kind].iter().map(|(_, tie)| *tie).collect::<Vec<_>>();
        assert_eq!((of("ReplicaSet"), of("Pod"), of("Node")), (vec![Tie::Keeps], vec![Tie::Owns], vec![Tie::Watches]));
    }

    #[test]
    fn the_list_names_controllers_and_their_folders() {
        let list = "    on(\"job-controller\", job::start),\n    Entry {\n    off(\"x\", \"a\", y::start_z),\n";
        assert_eq!(listed(list), [("job-controller".into(), "job".into()), ("x".into(), "y".into())]);
    }
}
