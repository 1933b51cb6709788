//! Writes the files of a volume so that readers see all of one version or all of another: files go into a new folder, and the
//! link `..data` is moved to it. The names that users see are links through `..data`.

use super::ownership;
use super::payload::File;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

const DATA: &str = "..data";
const DATA_NEXT: &str = "..data_tmp";

/// Brings `folder` to `files`; does nothing when they are there already.
pub(crate) fn write(folder: &Path, files: &BTreeMap<String, File>, group: Option<i64>) -> io::Result<()> {
    for path in files.keys() {
        check(path)?;
    }
    std::fs::create_dir_all(folder)?;
    std::fs::set_permissions(folder, PermissionsExt::from_mode(0o777))?;
    ownership::folder(folder, group, true)?;
    let current = std::fs::read_link(folder.join(DATA)).ok();
    if let Some(current) = &current
        && is_same(&folder.join(current), files)
    {
        return links(folder, files);
    }
    let fresh = new_folder(folder)?;
    for (path, file) in files {
        write_one(&fresh, path, file)?;
    }
    ownership::tree(&fresh, group, true, files)?;
    let name = fresh.file_name().ok_or_else(|| io::Error::other("a folder without a name"))?;
    let _ = std::fs::remove_file(folder.join(DATA_NEXT));
    symlink(name, folder.join(DATA_NEXT))?;
    std::fs::rename(folder.join(DATA_NEXT), folder.join(DATA))?;
    links(folder, files)?;
    sweep(folder, name)
}

/// Relative, within the folder, and not in the way of our own names.
fn check(path: &str) -> io::Result<()> {
    let bad = |why: &str| Err(io::Error::new(io::ErrorKind::InvalidInput, format!("invalid path: {why}: {path}")));
    if path.is_empty() || path.len() > 4096 {
        return bad("must not be empty or over 4096 characters");
    }
    if path.starts_with("..") {
        return bad("must not start with '..'");
    }
    if !Path::new(path).components().all(|c| matches!(c, Component::Normal(_))) {
        return bad("must be relative, without '..'");
    }
    Ok(())
}

fn new_folder(folder: &Path) -> io::Result<PathBuf> {
    let nanos = tiphys_sys::time::realtime_nanos();
    let stamp = jiff::Timestamp::from_nanosecond(i128::from(nanos)).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    let fresh = folder.join(format!("..{}.{}", stamp.strftime("%Y_%m_%d_%H_%M_%S"), nanos % 1_000_000_000));
    std::fs::create_dir(&fresh)?;
    // As upstream: any user of the pod may read; the files' own modes decide.
    std::fs::set_permissions(&fresh, PermissionsExt::from_mode(0o755))?;
    Ok(fresh)
}

fn write_one(fresh: &Path, path: &str, file: &File) -> io::Result<()> {
    let target = fresh.join(path);
    if let Some(parent) = target.parent() {
        std::fs::create_dir_all(parent)?;
    }
    std::fs::write(&target, &file.data)?;
    std::fs::set_permissions(&target, PermissionsExt::from_mode(file.mode))?;
    if let Some(user) = file.user {
        std::os::unix::fs::chown(&target, Some(user as u32), None)?;
    }
    Ok(())
}

fn is_same(current: &Path, files: &BTreeMap<String, File>) -> bool {
    let mut there = BTreeSet::new();
    collect(current, current, &mut there);
    there.len() == files.len()
        && files.iter().all(|(path, file)| there.contains(path) && std::fs::read(current.join(path)).is_ok_and(|data| data == *file.data))
}

fn collect(root: &Path, folder: &Path, into: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(root, &path, into);
        } else if let Ok(relative) = path.strip_prefix(root) {
            into.insert(relative.to_string_lossy().into_owned());
        }
    }
}

/// The first part of each path is what users see.
fn links(folder: &Path, files: &BTreeMap<String, File>) -> io::Result<()> {
    let wanted: BTreeSet<&str> = files.keys().filter_map(|p| p.split('/').next()).collect();
    for name in &wanted {
        let link = folder.join(name);
        if std::fs::symlink_metadata(&link).is_err() {
            symlink(Path::new(DATA).join(name), &link)?;
        }
    }
    for entry in std::fs::read_dir(folder)?.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if !name.starts_with("..") && !wanted.contains(&*name) {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Removes former versions.
fn sweep(folder: &Path, keep: &std::ffi::OsStr) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)?.flatten() {
        let name = entry.file_name();
        if name != keep && name.to_string_lossy().starts_with("..") && entry.file_type()?.is_dir() {
            std::fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(list: &[(&str, &str)]) -> BTreeMap<String, File> {
        let file = |data: &str| File { data: data.as_bytes().to_vec().into(), mode: 0o640, user: None };
        list.iter().map(|(path, data)| ((*path).to_owned(), file(data))).collect()
    }

    fn listing(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            std::fs::read_dir(folder).expect("a folder").flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
        names.retain(|n| !n.starts_with("..2"));
        names.sort();
        names
    }

    #[test]
    fn versions_replace_each_other_whole() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = folder.path();
        write(at, &files(&[("a", "1"), ("deep/b", "2")]), None).expect("written");
        assert_eq!(std::fs::read_to_string(at.join("deep/b")).expect("read"), "2");
        assert_eq!(listing(at), ["..data", "a", "deep"]);
        let first = std::fs::read_link(at.join(DATA)).expect("a link");
        write(at, &files(&[("a", "1"), ("deep/b", "2")]), None).expect("the same again");
        assert_eq!(std::fs::read_link(at.join(DATA)).expect("a link"), first);
        write(at, &files(&[("c", "3")]), None).expect("written");
        assert_eq!(listing(at), ["..data", "c"]);
        assert!(!at.join(first).exists(), "the old version is gone");
        assert_eq!(std::fs::metadata(at.join("c")).expect("there").permissions().mode() & 0o777, 0o640);
        write(at, &files(&[]), None).expect("empty");
        assert_eq!(listing(at), ["..data"]);
    }

    #[test]
    fn paths_stay_inside() {
        let folder = tempfile::tempdir().expect("a folder");
        for path in ["../x", "/x", "a/../../x", "..x", ""] {
            assert!(write(folder.path(), &files(&[(path, "1")]), None).is_err(), "{path}");
        }
    }
}
