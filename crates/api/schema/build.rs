//! Packs `facts/facts.txt` and the descriptions of `words/` for embedding: 300 KB of facts become 35.

use std::error::Error;
use std::io::Write;
use std::path::{Path, PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    for input in ["facts/facts.txt", "words", "build.rs"] {
        println!("cargo::rerun-if-changed={input}");
    }
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    let facts = std::fs::read("facts/facts.txt")?;
    let mut packed = u32::try_from(facts.len())?.to_le_bytes().to_vec();
    packed.extend(deflate(&facts)?);
    std::fs::write(out.join("facts.z"), packed)?;
    std::fs::write(out.join("words.z"), deflate(&words(Path::new("words"))?)?)?;
    Ok(())
}

fn deflate(bytes: &[u8]) -> Result<Vec<u8>, std::io::Error> {
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes)?;
    encoder.finish()
}

/// All files, each behind a line `= GROUP`.
fn words(folder: &Path) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Result<_, std::io::Error>>()?;
    files.sort();
    let mut all = Vec::new();
    for file in files {
        let group = file.file_stem().ok_or("a file has a name")?.to_string_lossy().into_owned();
        writeln!(all, "= {group}")?;
        all.extend(std::fs::read(&file)?);
    }
    Ok(all)
}
