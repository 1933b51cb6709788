//! The JSON that clients read, with the places marked where a read differs from what is kept: the type, and `resourceVersion`.

use std::io::Write;

use bytes::Bytes;
use serde_json::Value;

/// An object's JSON: `{"kind":…,"apiVersion":…,"metadata":{…"resourceVersion":"…"…},…}`.
#[derive(Debug, Clone)]
pub(crate) struct Json {
    bytes: Bytes,
    /// Where what follows `kind` and `apiVersion` begins.
    body: u32,
    /// Where `metadata` ends.
    metadata_end: u32,
    /// The digits of `resourceVersion`.
    version: (u32, u32),
}

impl Json {
    /// Writes `tree` in one pass. `kind` and `apiVersion` of the tree are not looked at. `room`: how long it will be, if somebody can tell.
    pub(crate) fn write(api_version: &str, kind: &str, tree: &Value, revision: i64, room: usize) -> Json {
        let mut out = Vec::with_capacity(room.max(512));
        out.extend_from_slice(b"{\"kind\":");
        write_text(&mut out, kind);
        out.extend_from_slice(b",\"apiVersion\":");
        write_text(&mut out, api_version);
        out.push(b',');
        let body = out.len();
        out.extend_from_slice(b"\"metadata\":");
        let version = write_metadata(&mut out, tree.get("metadata"), revision);
        let metadata_end = at(out.len());
        for (key, value) in tree.as_object().into_iter().flatten() {
            if !matches!(key.as_str(), "kind" | "apiVersion" | "metadata") {
                out.push(b',');
                write_key(&mut out, key);
                write_value(&mut out, value);
            }
        }
        out.push(b'}');
        Json { bytes: out.into(), body: at(body), metadata_end, version }
    }

    pub(crate) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// In a buffer of exactly its length, for those who keep it.
    pub(crate) fn exact(mut self) -> Json {
        self.bytes = Bytes::copy_from_slice(&self.bytes);
        self
    }

    /// `apiVersion`, which has nothing in it that JSON would escape.
    pub(crate) fn api_version(&self) -> &str {
        let head = self.bytes.get(..self.body as usize).and_then(|head| std::str::from_utf8(head).ok()).unwrap_or_default();
        head.rsplit('"').nth(1).unwrap_or_default()
    }

    /// The object without its opening brace, kind and apiVersion: an item of a list is `{` and this.
    pub(crate) fn body(&self) -> &[u8] {
        self.bytes.get(self.body as usize..).unwrap_or_default()
    }

    /// `"metadata":{…}`.
    pub(crate) fn metadata(&self) -> &[u8] {
        self.bytes.get(self.body as usize..self.metadata_end as usize).unwrap_or_default()
    }

    /// The same object at another revision.
    pub(crate) fn at_revision(&self, revision: i64) -> Json {
        let (start, end) = (self.version.0 as usize, self.version.1 as usize);
        if revision == 0 {
            return self.without_revision(start, end);
        }
        let digits = revision.to_string();
        // Exactly as long as it will be: it is kept.
        let mut out = Vec::with_capacity(self.bytes.len() - (end - start) + digits.len());
        out.extend_from_slice(&self.bytes[..start]);
        out.extend_from_slice(digits.as_bytes());
        let version = (self.version.0, at(out.len()));
        out.extend_from_slice(&self.bytes[end..]);
        let metadata_end = (self.metadata_end + version.1) - self.version.1;
        Json { bytes: out.into(), body: self.body, metadata_end, version }
    }

    /// As a dry run shows what it would have made. It cannot be given a revision again.
    fn without_revision(&self, start: usize, end: usize) -> Json {
        const BEFORE: usize = "\"resourceVersion\":\"".len();
        let (mut start, mut end) = (start.saturating_sub(BEFORE), end + 1);
        if self.bytes.get(end) == Some(&b',') {
            end += 1;
        } else if start > 0 && self.bytes.get(start - 1) == Some(&b',') {
            start -= 1;
        }
        let bytes = [&self.bytes[..start], &self.bytes[end..]].concat();
        Json { bytes: bytes.into(), body: self.body, metadata_end: self.metadata_end - at(end - start), version: (at(start), at(start)) }
    }

    /// The same object under another version of its API that differs in nothing else.
    pub(crate) fn with_type(&self, api_version: &str, kind: &str) -> Bytes {
        let mut out = Vec::with_capacity(self.bytes.len() + 16);
        out.extend_from_slice(b"{\"kind\":");
        write_text(&mut out, kind);
        out.extend_from_slice(b",\"apiVersion\":");
        write_text(&mut out, api_version);
        out.push(b',');
        out.extend_from_slice(self.body());
        out.into()
    }
}

/// Objects above 4 GiB cannot occur: requests are limited to 3 MiB.
fn at(position: usize) -> u32 {
    u32::try_from(position).unwrap_or(u32::MAX)
}

fn write_metadata(out: &mut Vec<u8>, metadata: Option<&Value>, revision: i64) -> (u32, u32) {
    out.push(b'{');
    let mut version = None;
    let mut first = true;
    for (key, value) in metadata.and_then(Value::as_object).into_iter().flatten() {
        if version.is_none() && key.as_str() >= "resourceVersion" {
            version = Some(write_version(out, &mut first, revision));
        }
        if key != "resourceVersion" {
            separate(out, &mut first);
            write_key(out, key);
            write_value(out, value);
        }
    }
    let version = version.unwrap_or_else(|| write_version(out, &mut first, revision));
    out.push(b'}');
    version
}

fn write_version(out: &mut Vec<u8>, first: &mut bool, revision: i64) -> (u32, u32) {
    separate(out, first);
    out.extend_from_slice(b"\"resourceVersion\":\"");
    let start = at(out.len());
    write_number(out, revision);
    let end = at(out.len());
    out.push(b'"');
    (start, end)
}

fn separate(out: &mut Vec<u8>, first: &mut bool) {
    if !*first {
        out.push(b',');
    }
    *first = false;
}

fn write_key(out: &mut Vec<u8>, key: &str) {
    write_text(out, key);
    out.push(b':');
}

fn write_text(out: &mut Vec<u8>, text: &str) {
    // Writing to a Vec cannot fail.
    let _ = serde_json::to_writer(out, text);
}

fn write_number(out: &mut Vec<u8>, number: i64) {
    // Writing to a Vec cannot fail.
    let _ = write!(out, "{number}");
}

fn write_value(out: &mut Vec<u8>, value: &Value) {
    // Writing a tree to a Vec cannot fail: its keys are strings.
    let _ = serde_json::to_writer(out, value);
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tiphys_meta::object;

    use super::*;

    fn parsed(bytes: &[u8]) -> Value {
        serde_json::from_slice(bytes).unwrap_or_default()
    }

    #[test]
    fn the_revision_stands_wherever_its_neighbours_are() {
        for metadata in [json!({}), json!({"name": "a"}), json!({"uid": "u"}), json!({"name": "a", "resourceVersion": "7", "uid": "u"})] {
            let tree = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"a": "b"}});
            let json = Json::write("v1", "ConfigMap", &tree, 42, 0);
            let mut want = tree.clone();
            want["metadata"]["resourceVersion"] = json!("42");
            assert_eq!(parsed(json.bytes()), want);
            want["metadata"]["resourceVersion"] = json!("12345");
            let later = json.at_revision(12345);
            assert_eq!(parsed(later.bytes()), want);
            want["metadata"]["resourceVersion"] = json!("9");
            assert_eq!(parsed(later.at_revision(9).bytes()), want);
            object::as_map(&mut want["metadata"]).remove("resourceVersion");
            let dry = later.at_revision(0);
            assert_eq!(parsed(dry.bytes()), want);
            assert_eq!(parsed(&[b"{", dry.metadata(), b"}"].concat()), json!({"metadata": want["metadata"]}));
        }
    }

    #[test]
    fn an_item_is_the_object_without_its_type() {
        let json = Json::write("apps/v1", "Deployment", &json!({"metadata": {"name": "a"}, "aFirst": 1}), 3, 0);
        let item = [b"{", json.body()].concat();
        assert_eq!(parsed(&item), json!({"metadata": {"name": "a", "resourceVersion": "3"}, "aFirst": 1}));
        assert_eq!(
            parsed(&[b"{", json.at_revision(1000).metadata(), b"}"].concat()),
            json!({"metadata": {"name": "a", "resourceVersion": "1000"}})
        );
        assert_eq!(parsed(&json.with_type("apps/v1beta1", "Deployment"))["apiVersion"], "apps/v1beta1");
        assert_eq!(json.api_version(), "apps/v1");
    }
}
