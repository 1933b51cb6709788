//! `cargo xtask map KIND`: everything that has to do with a kind: its routes, where it is kept, who watches it, who looks at writes of it.
//! `cargo xtask map --write` writes that of every kind to `docs/kinds/`, and a test holds the two together.
//!
//! Routes and verbs come from the facts table, keys and plugins from the registry, controllers from their sources.
//! Absent: kinds that custom resource definitions bring, and kinds that are only asked and never kept (reviews).

mod watches;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use tiphys_schema::{Facts, ResourceFacts};

use crate::ci;
use watches::{Tie, Ties};

pub(crate) fn run(args: &[String]) -> Result<()> {
    let root = ci::root()?;
    match args {
        [flag] if flag == "--write" => write(&root),
        [name] => {
            let ties = watches::read(&root)?;
            let found: Vec<String> =
                resources().iter().filter(|(_, versions)| is(versions, name)).map(|(_, v)| describe(v, &ties)).collect();
            if found.is_empty() {
                bail!("no kind is called {name:?}; kind, plural, singular and short names are known");
            }
            print!("{}", found.join("\n"));
            Ok(())
        }
        _ => bail!("cargo xtask map KIND, or cargo xtask map --write"),
    }
}

type Versions = Vec<&'static ResourceFacts>;

/// All resources that keep objects, with the versions that are served, the stored one first.
fn resources() -> BTreeMap<String, Versions> {
    let mut all: BTreeMap<String, Versions> = BTreeMap::new();
    for resource in
        Facts::builtin().resources().filter(|r| r.verbs.contains(&"get") && r.verbs.contains(&"list") && r.gvr.group != "metrics.k8s.io")
    {
        all.entry(resource.gvr.group_resource().to_string()).or_default().push(resource);
    }
    all
}

fn is(versions: &Versions, name: &str) -> bool {
    let name = name.to_lowercase();
    versions.iter().any(|r| {
        r.kind.kind.to_lowercase() == name
            || *r.gvr.resource == *name
            || r.singular == name
            || r.short_names.contains(&name.as_str())
            || r.gvr.group_resource().to_string() == name
    })
}

fn describe(versions: &Versions, ties: &Ties) -> String {
    let Some(home) = versions.first() else { return String::new() };
    let mut out = format!(
        "{} ({})",
        home.kind.kind,
        std::iter::once(&*home.gvr.resource).chain(home.short_names.iter().copied()).collect::<Vec<_>>().join(", ")
    );
    let scope = if home.namespaced { "namespaced" } else { "cluster-scoped" };
    let group = if home.gvr.group.is_empty() { "core" } else { &home.gvr.group };
    let _ = writeln!(out, ", {scope}, group {group}\n\nroutes");
    versions.iter().for_each(|version| routes(&mut out, version));
    let about = tiphys_registry::describe(&home.gvr);
    if let Some(about) = &about {
        let place = if home.namespaced { "NAMESPACE/NAME" } else { "NAME" };
        let _ = writeln!(out, "\nkeys\n  {}{place}", about.prefix);
    }
    let _ = writeln!(out, "\nwatched by");
    let watchers = ties.get(&*home.kind.kind);
    for (who, tie) in watchers.into_iter().flatten() {
        let note = match tie {
            Tie::Keeps => ", whose subject it is",
            Tie::Owns => ", which owns it",
            Tie::Watches => "",
        };
        let _ = writeln!(out, "  {who}{note}");
    }
    if watchers.is_none() {
        out.push_str("  nobody by name\n");
    }
    out.push_str("\nadmission\n");
    for (plugin, writes) in about.iter().flat_map(|about| &about.plugins) {
        let _ = writeln!(out, "  {plugin}: {}", writes.join(", "));
    }
    out
}

fn routes(out: &mut String, resource: &ResourceFacts) {
    let group = if resource.gvr.group.is_empty() { "/api".to_owned() } else { format!("/apis/{}", resource.gvr.group) };
    let base = format!("{group}/{}", resource.gvr.version);
    let name = &resource.gvr.resource;
    let here = if resource.namespaced { format!("{base}/namespaces/NAMESPACE/{name}") } else { format!("{base}/{name}") };
    let mut line = |path: &str, wanted: &[&str], verbs: &[&str]| {
        let verbs: Vec<&str> = verbs.iter().copied().filter(|v| wanted.contains(v)).collect();
        if !verbs.is_empty() {
            let _ = writeln!(out, "  {path}  {}", verbs.join(" "));
        }
    };
    if resource.namespaced {
        line(&format!("{base}/{name}"), &["list", "watch"], &resource.verbs);
    }
    line(&here, &["create", "deletecollection", "list", "watch"], &resource.verbs);
    line(&format!("{here}/NAME"), &["delete", "get", "patch", "update"], &resource.verbs);
    for subresource in &resource.subresources {
        line(&format!("{here}/NAME/{}", subresource.name), &subresource.verbs, &subresource.verbs);
    }
}

fn pages(root: &Path) -> Result<BTreeMap<PathBuf, String>> {
    let ties = watches::read(root)?;
    let folder = root.join("docs/kinds");
    Ok(resources().into_iter().map(|(name, versions)| (folder.join(format!("{name}.txt")), describe(&versions, &ties))).collect())
}

fn write(root: &Path) -> Result<()> {
    let folder = root.join("docs/kinds");
    std::fs::remove_dir_all(&folder).ok();
    std::fs::create_dir_all(&folder)?;
    for (path, text) in pages(root)? {
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docs_kinds_is_fresh() {
        let root = ci::root().expect("a workspace");
        let pages = pages(&root).expect("sources");
        assert!(pages.len() > 50, "{} kinds", pages.len());
        let stale = |(path, text): &(&PathBuf, &String)| std::fs::read_to_string(path).ok().as_ref() != Some(text);
        let stale: Vec<_> = pages.iter().filter(stale).map(|(path, _)| path.display().to_string()).collect();
        assert_eq!(stale, Vec::<String>::new(), "run `cargo xtask map --write`");
        let there = std::fs::read_dir(root.join("docs/kinds")).expect("docs/kinds").count();
        assert_eq!(there, pages.len(), "a page is of no kind that there is: run `cargo xtask map --write`");
    }

    #[test]
    fn kinds_go_by_all_their_names() {
        let all = resources();
        for name in ["Deployment", "deployments", "deploy", "deployment", "deployments.apps"] {
            let found: Vec<&String> = all.iter().filter(|(_, versions)| is(versions, name)).map(|(n, _)| n).collect();
            assert_eq!(found, ["deployments.apps"], "{name}");
        }
    }

    #[test]
    fn a_deployment_is_described() {
        let ties = watches::read(&ci::root().expect("a workspace")).expect("sources");
        let text = describe(&resources()["deployments.apps"], &ties);
        for line in [
            "  /apis/apps/v1/namespaces/NAMESPACE/deployments/NAME/scale  get patch update",
            "  /registry/deployments/NAMESPACE/NAME",
            "  deployment-controller, whose subject it is",
            "  NamespaceLifecycle: create",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
    }
}
