//! Pod addresses of one node: a file for each address in use, named by it and holding the sandbox's id, so that they survive restarts.
//! Addresses are handed out in turn, so that one that was just released is not used again at once.

use std::fs;
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::{Cidr, NetError};

pub struct Ipam {
    range: Cidr,
    folder: PathBuf,
    last: Mutex<u32>,
}

impl Ipam {
    pub fn open(range: Cidr, folder: &Path) -> Result<Ipam, NetError> {
        fs::create_dir_all(folder).map_err(NetError::kernel(format!("making the address folder {}", folder.display())))?;
        Ok(Ipam { range, folder: folder.to_owned(), last: Mutex::new(1) })
    }

    pub fn range(&self) -> Cidr {
        self.range
    }

    /// A free address, kept for `owner` until released. The range's network, first (the node's own) and broadcast addresses are never given.
    pub fn allocate(&self, owner: &str) -> Result<Ipv4Addr, NetError> {
        let mut last = self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let size = u32::try_from(self.range.size()).unwrap_or(u32::MAX);
        for _ in 0..size {
            *last = if *last + 2 >= size { 2 } else { *last + 1 };
            let Some(address) = self.range.nth(*last) else { continue };
            match fs::OpenOptions::new().write(true).create_new(true).open(self.folder.join(address.to_string())) {
                Ok(mut file) => {
                    file.write_all(owner.as_bytes()).map_err(NetError::kernel(format!("recording the address {address}")))?;
                    return Ok(address);
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(NetError::kernel(format!("recording the address {address}"))(error)),
            }
        }
        Err(NetError::Exhausted(self.range))
    }

    /// The addresses that `owner` has.
    pub fn of(&self, owner: &str) -> Vec<Ipv4Addr> {
        self.all().into_iter().filter(|(_, holder)| holder == owner).map(|(address, _)| address).collect()
    }

    /// Frees every address of `owner`; frees none is fine.
    pub fn release(&self, owner: &str) {
        for (address, holder) in self.all() {
            if holder == owner {
                let _ = fs::remove_file(self.folder.join(address.to_string()));
            }
        }
    }

    /// Frees the addresses of owners that are no more.
    pub fn keep_only(&self, owners: &std::collections::HashSet<String>) {
        for (address, holder) in self.all() {
            if !owners.contains(&holder) {
                let _ = fs::remove_file(self.folder.join(address.to_string()));
            }
        }
    }

    fn all(&self) -> Vec<(Ipv4Addr, String)> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| {
                let address = entry.file_name().to_str()?.parse().ok()?;
                Some((address, fs::read_to_string(entry.path()).ok()?))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_unique_kept_and_freed() {
        let folder = tempfile::tempdir().expect("folder");
        let range: Cidr = "10.1.0.0/29".parse().expect("range");
        let ipam = Ipam::open(range, folder.path()).expect("opens");
        let given: Vec<String> = (0..5).map(|i| ipam.allocate(&format!("pod{i}")).expect("free").to_string()).collect();
        assert_eq!(given, ["10.1.0.2", "10.1.0.3", "10.1.0.4", "10.1.0.5", "10.1.0.6"]);
        assert!(matches!(ipam.allocate("one more"), Err(NetError::Exhausted(_))));
        let again = Ipam::open(range, folder.path()).expect("opens");
        assert!(again.allocate("after a restart").is_err());
        again.release("pod3");
        assert_eq!(again.allocate("new").expect("freed").to_string(), "10.1.0.5");
        again.keep_only(&["new".to_owned()].into());
        assert_eq!(again.allocate("next").expect("freed").to_string(), "10.1.0.6");
    }
}
