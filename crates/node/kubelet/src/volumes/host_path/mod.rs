//! hostPath: a path of the node, checked or made as its type says.

use super::Mounted;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use tiphys_types::api::core::v1::HostPathVolumeSource;

pub(super) fn set_up(source: &HostPathVolumeSource) -> Result<Mounted, String> {
    let path = Path::new(&source.path);
    let kind = source.type_.as_deref().unwrap_or_default();
    let failed = |e: std::io::Error| format!("hostPath {}: {e}", path.display());
    let meta = std::fs::metadata(path).ok();
    let wanted = |what: &str, ok: bool| {
        if ok { Ok(()) } else { Err(format!("hostPath type check failed: {} is not {what}", path.display())) }
    };
    let is = |f: &dyn Fn(&std::fs::Metadata) -> bool| meta.as_ref().is_some_and(f);
    match kind {
        "" => {}
        "DirectoryOrCreate" => {
            if meta.is_none() {
                std::fs::create_dir_all(path).map_err(failed)?;
                std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).map_err(failed)?;
            }
            wanted("a directory", path.is_dir())?;
        }
        "FileOrCreate" => {
            if meta.is_none() {
                std::fs::File::create_new(path).map_err(failed)?;
                std::fs::set_permissions(path, PermissionsExt::from_mode(0o644)).map_err(failed)?;
            }
            wanted("a file", path.is_file())?;
        }
        "Directory" => wanted("a directory", is(&|m| m.is_dir()))?,
        "File" => wanted("a file", is(&|m| m.is_file()))?,
        "Socket" => wanted("a socket file", is(&|m| m.file_type().is_socket()))?,
        "CharDevice" => wanted("a character device", is(&|m| m.file_type().is_char_device()))?,
        "BlockDevice" => wanted("a block device", is(&|m| m.file_type().is_block_device()))?,
        other => return Err(format!("{other} is an invalid volume type")),
    }
    Ok(Mounted::at(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(path: &Path, kind: &str) -> Result<Mounted, String> {
        set_up(&HostPathVolumeSource { path: path.to_string_lossy().into_owned(), type_: Some(kind.into()) })
    }

    #[test]
    fn types() {
        let folder = tempfile::tempdir().expect("a folder");
        let (dir, file) = (folder.path().join("d"), folder.path().join("f"));
        assert!(run(&dir, "Directory").is_err());
        assert!(run(&dir, "DirectoryOrCreate").is_ok() && dir.is_dir());
        assert!(run(&file, "FileOrCreate").is_ok() && file.is_file());
        assert!(run(&file, "Directory").is_err() && run(&dir, "File").is_err() && run(&file, "Socket").is_err());
        assert!(run(&folder.path().join("none"), "").is_ok(), "an unchecked path is the runtime's matter");
    }
}
