//! Query strings as ordered pairs. Keys may repeat (`command=a&command=b`), so this is no map.

use percent_encoding::percent_decode_str;

/// The pairs of a query string, decoded the way HTML forms are (plus is a blank).
pub fn pairs(query: &str) -> Vec<(String, String)> {
    query.split('&').filter(|part| !part.is_empty()).map(pair).collect()
}

fn pair(part: &str) -> (String, String) {
    let (key, value) = part.split_once('=').unwrap_or((part, ""));
    (decode(key), decode(value))
}

fn decode(text: &str) -> String {
    let blanks = text.replace('+', " ");
    percent_decode_str(&blanks).decode_utf8_lossy().into_owned()
}

/// The first value of a key.
pub fn first<'a>(pairs: &'a [(String, String)], key: &str) -> Option<&'a str> {
    pairs.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
}

/// All values of a key, in order.
pub fn all<'a>(pairs: &'a [(String, String)], key: &str) -> Vec<&'a str> {
    pairs.iter().filter(|(k, _)| k == key).map(|(_, v)| v.as_str()).collect()
}

/// Go's `strconv.ParseBool` on a query value, and false when absent or odd.
pub fn truthy(pairs: &[(String, String)], key: &str) -> bool {
    matches!(first(pairs, key), Some("1" | "t" | "T" | "true" | "TRUE" | "True"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_repeat_and_values_are_decoded() {
        let got = pairs("command=sh&command=-c&command=echo+a%26b&stdin=true&empty=");
        assert_eq!(all(&got, "command"), ["sh", "-c", "echo a&b"]);
        assert!(truthy(&got, "stdin"));
        assert!(!truthy(&got, "tty"));
        assert_eq!(first(&got, "empty"), Some(""));
    }
}
