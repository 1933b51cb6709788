//! `continue` tokens, in upstream's form: where to go on, and at which revision.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use tiphys_meta::ApiError;

#[derive(Serialize, Deserialize)]
struct Token {
    #[serde(rename = "v", default)]
    version: String,
    #[serde(rename = "rv", default)]
    revision: i64,
    #[serde(default)]
    start: String,
}

const VERSION: &str = "meta.k8s.io/v1";

/// Where a list goes on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) start: Vec<u8>,
    /// Negative: whatever is newest (what an inconsistent token says).
    pub(crate) revision: i64,
}

/// The token for what follows `last`, which begins with `prefix`.
pub(crate) fn after(last: &[u8], prefix: &[u8], revision: i64) -> String {
    let rest = String::from_utf8_lossy(last.strip_prefix(prefix).unwrap_or(last));
    encode(&format!("{rest}\0"), revision)
}

/// The same position without a revision, for a client whose first page's revision is compacted.
pub(crate) fn inconsistent(position: &Position, prefix: &[u8]) -> String {
    encode(&String::from_utf8_lossy(position.start.strip_prefix(prefix).unwrap_or(&position.start)), -1)
}

fn encode(start: &str, revision: i64) -> String {
    let token = Token { version: VERSION.into(), revision, start: start.into() };
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(&token).unwrap_or_default())
}

pub(crate) fn decode(text: &str, prefix: &[u8]) -> Result<Position, ApiError> {
    let invalid = |why: String| ApiError::bad_request(format!("invalid continue token: {why}"));
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|e| invalid(format!("continue key is not valid: {e}")))?;
    let token: Token = serde_json::from_slice(&bytes).map_err(|e| invalid(format!("continue key is not valid: {e}")))?;
    if token.version != VERSION {
        return Err(invalid(format!("continue key is not valid: server does not recognize this encoded version {}", token.version)));
    }
    if token.revision == 0 {
        return Err(invalid("continue key is not valid: incorrect encoded start resourceVersion (version meta.k8s.io/v1)".into()));
    }
    if token.start.is_empty() {
        return Err(invalid("continue key is not valid: encoded start key empty (version meta.k8s.io/v1)".into()));
    }
    // A key that climbs or has empty steps was not made by us.
    let steps = token.start.trim_start_matches('/');
    if steps.split('/').any(|step| matches!(step, "" | "." | "..")) {
        return Err(invalid(format!("continue key is not valid: {}", token.start)));
    }
    Ok(Position { start: [prefix, steps.as_bytes()].concat(), revision: token.revision })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_comes_back() {
        let token = after(b"/registry/pods/ns/b", b"/registry/pods/", 7);
        let position = decode(&token, b"/registry/pods/").ok();
        assert_eq!(position, Some(Position { start: b"/registry/pods/ns/b\0".to_vec(), revision: 7 }));
        let again = position.map(|p| inconsistent(&p, b"/registry/pods/")).unwrap_or_default();
        assert_eq!(decode(&again, b"/registry/pods/").ok().map(|p| p.revision), Some(-1));
    }

    #[test]
    fn tokens_that_are_not_ours() {
        for token in ["!", "e30", &encode("../x", 5), &encode("", 5), &encode("a", 0)] {
            assert_eq!(decode(token, b"/registry/pods/").err().map(|e| e.code), Some(400), "{token}");
        }
    }
}
