//! Pairs of certificate and key, each in one file named after its time; a symbolic link `NAME-current.pem` names the one in use.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use tiphys_base::files::write_atomic;
use tiphys_base::pki::Identity;

pub(super) struct PairStore {
    folder: PathBuf,
    name: &'static str,
}

impl PairStore {
    pub(super) fn new(folder: &Path, name: &'static str) -> Self {
        PairStore { folder: folder.to_owned(), name }
    }

    pub(super) fn current_path(&self) -> PathBuf {
        self.folder.join(format!("{}-current.pem", self.name))
    }

    /// Certificates and key stand in one text, as each reader picks its blocks.
    pub(super) fn current(&self) -> Option<Identity> {
        let text = fs::read_to_string(self.current_path()).ok()?;
        Some(Identity { cert_pem: text.clone(), key_pem: text })
    }

    /// Writes the pair under the name of a moment, then has the link name it. Whoever reads meanwhile sees one pair whole.
    pub(super) fn replace(&self, pair: &Identity, moment: &str) -> io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        let file = format!("{}-{moment}.pem", self.name);
        let text = format!("{}\n{}", pair.cert_pem.trim_end(), pair.key_pem);
        write_atomic(&self.folder.join(&file), text.as_bytes(), 0o600)?;
        let link = self.folder.join(format!("{}-updated.pem", self.name));
        match fs::remove_file(&link) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        std::os::unix::fs::symlink(&file, &link)?;
        fs::rename(&link, self.current_path())
    }
}
