//! Packs `facts/facts.txt` for embedding: 300 KB of text become 35.

use std::error::Error;
use std::io::Write;
use std::path::Path;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=facts/facts.txt");
    println!("cargo::rerun-if-changed=build.rs");
    let text = std::fs::read("facts/facts.txt")?;
    let mut packed = u32::try_from(text.len())?.to_le_bytes().to_vec();
    let mut encoder = flate2::write::DeflateEncoder::new(&mut packed, flate2::Compression::best());
    encoder.write_all(&text)?;
    encoder.finish()?;
    let out = std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?;
    std::fs::write(Path::new(&out).join("facts.z"), packed)?;
    Ok(())
}
