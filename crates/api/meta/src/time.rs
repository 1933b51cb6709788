//! `metav1.Time` and `metav1.MicroTime` as text, by RFC 3339 in UTC.

use jiff::Timestamp;

/// `2006-01-02T15:04:05Z`: how `metav1.Time` prints (whole seconds).
pub fn format(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// `2006-01-02T15:04:05.000000Z`: how `metav1.MicroTime` prints.
pub fn format_micro(time: Timestamp) -> String {
    format!("{}.{:06}Z", time.strftime("%Y-%m-%dT%H:%M:%S"), time.subsec_nanosecond().unsigned_abs() / 1000)
}

pub fn parse(text: &str) -> Option<Timestamp> {
    text.parse().ok()
}

/// Whole seconds from `since` to `now`, as text in RFC 3339.
pub fn seconds_since(since: &str, now: Timestamp) -> Option<i64> {
    Some(now.as_second() - parse(since)?.as_second())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let time = parse("2024-02-29T12:00:01.123456789Z").unwrap();
        assert_eq!(format(time), "2024-02-29T12:00:01Z");
        assert_eq!(format_micro(time), "2024-02-29T12:00:01.123456Z");
        assert_eq!(parse("2024-02-29T14:00:00+02:00").map(format).as_deref(), Some("2024-02-29T12:00:00Z"));
        assert_eq!(parse("yesterday"), None);
    }
}
