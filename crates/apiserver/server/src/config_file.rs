//! Files that flags name and that say more than flags can: YAML or JSON of one kind.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_json::Value;
use tiphys_schema::codec::yaml;

/// Which file, named by which flag, and what is wrong with it.
#[derive(Debug, thiserror::Error)]
#[error("--{flag} {}: {why}", path.display())]
pub struct ConfigFileError {
    flag: &'static str,
    path: PathBuf,
    pub(crate) why: String,
}

/// The group of what configures the API server itself.
pub(crate) const APISERVER: &str = "apiserver.config.k8s.io";

/// What a file says; `parse` says what is wrong with its content.
pub(crate) fn read<T>(flag: &'static str, path: &Path, parse: impl FnOnce(&[u8]) -> Result<T, String>) -> Result<T, ConfigFileError> {
    let refused = |why| ConfigFileError { flag, path: path.to_owned(), why };
    let bytes = std::fs::read(path).map_err(|e| refused(e.to_string()))?;
    parse(&bytes).map_err(refused)
}

/// A configuration: all of its fields but `apiVersion` and `kind`, which must name it in one of the versions that upstream had of such files.
pub(crate) fn object<T: DeserializeOwned>(bytes: &[u8], group: &str, kind: &str) -> Result<T, String> {
    let mut tree = yaml::to_tree(bytes).map_err(|e| e.to_string())?;
    let mut taken = |field: &str| match tree.as_object_mut().and_then(|fields| fields.remove(field)) {
        Some(Value::String(text)) => text,
        _ => String::new(),
    };
    let (version, given) = (taken("apiVersion"), taken("kind"));
    if given != kind || !["v1", "v1beta1", "v1alpha1"].iter().any(|v| version == format!("{group}/{v}")) {
        return Err(format!("{version:?}, Kind={given:?} is no {kind} of {group}/v1"));
    }
    T::deserialize(tree).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_told_with_the_file_and_its_flag() {
        let told = |content: &str| {
            let file = tempfile::NamedTempFile::new().expect("a file");
            std::fs::write(file.path(), content).expect("written");
            let error =
                read("some-config", file.path(), |bytes| object::<Value>(bytes, "a.example", "SomeConfiguration")).expect_err("refused");
            error.to_string().replace(&file.path().display().to_string(), "FILE")
        };
        assert_eq!(told("kind: Config"), "--some-config FILE: \"\", Kind=\"Config\" is no SomeConfiguration of a.example/v1");
        assert!(told("apiVersion: a.example/v2\nkind: SomeConfiguration\n").contains("a.example/v2"));
        assert!(told("a: [").starts_with("--some-config FILE: "));
        let nowhere = read("some-config", Path::new("/nowhere/at/all"), |_| Ok(())).expect_err("refused");
        assert_eq!(nowhere.to_string(), "--some-config /nowhere/at/all: No such file or directory (os error 2)");
        let fields: Value = object(b"apiVersion: a.example/v1beta1\nkind: Some\nx: 1\n", "a.example", "Some").expect("good");
        assert_eq!(fields, serde_json::json!({"x": 1}));
    }
}
