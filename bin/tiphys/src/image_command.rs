//! `tiphys image`: the machine's image store by hand.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::ArgMatches;
use tiphys_cli::cluster::{DEFAULT_DATA_DIR, DEFAULT_NAME, Layout};
use tiphys_cli::flags;
use tiphys_image::Image;

pub(crate) fn run(m: &ArgMatches) -> Result<()> {
    let (what, m) = m.subcommand().context("pull, load, ls, rm or save?")?;
    let layout = Layout::new(Path::new(flags::text(m, "data-dir").unwrap_or(DEFAULT_DATA_DIR)), DEFAULT_NAME)?;
    let mirrors = if what == "pull" { flags::mirrors(m)? } else { Vec::new() };
    let store = crate::images::open_store(&layout.images(), &mirrors, flags::text(m, "registry-hosts-dir").map(PathBuf::from))?;
    let name = || flags::text(m, "image").unwrap_or_default();
    let file = || flags::text(m, "file").unwrap_or_default();
    match what {
        "pull" => {
            let image = crate::commands::runtime()?.block_on(store.pull(name(), None))?;
            crate::commands::print(&line(&image))
        }
        "load" => {
            let archive = File::open(file()).with_context(|| format!("cannot open {}", file()))?;
            let images = store.load(archive)?;
            crate::commands::print(&images.iter().map(|i| line(i)).collect::<String>())
        }
        "ls" => list(&store.list()?, flags::text(m, "output") == Some("json")),
        "rm" => {
            if store.remove(name())?.is_none() {
                bail!("there is no image {:?} here; `tiphys image ls` lists those that are", name());
            }
            Ok(store.collect_garbage()?)
        }
        "save" => {
            let out = File::create(file()).with_context(|| format!("cannot make {}", file()))?;
            Ok(store.save(&[name()], out)?)
        }
        other => bail!("no such command: image {other}"),
    }
}

fn line(image: &Image) -> String {
    let name = image.repo_tags.first().or(image.repo_digests.first()).map_or("<none>", String::as_str);
    format!("{name}  {}  {} MiB\n", short(&image.id.to_string()), image.size >> 20)
}

fn short(id: &str) -> &str {
    id.get(..19).unwrap_or(id)
}

fn list(images: &[std::sync::Arc<Image>], as_json: bool) -> Result<()> {
    if as_json {
        return crate::commands::print(&(serde_json::to_string_pretty(&images.iter().map(|i| &**i).collect::<Vec<_>>())? + "\n"));
    }
    crate::commands::print(&images.iter().map(|i| line(i)).collect::<String>())
}
