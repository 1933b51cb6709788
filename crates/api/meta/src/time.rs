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

/// Days since 1970-01-01 of a day in the proleptic Gregorian calendar, counted in eras of 400 years.
pub fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// Year, month and day of a day counted from 1970-01-01; for years that `jiff` has no room for too.
pub fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let month = (shifted + 2) % 12 + 1;
    (year_of_era + era * 400 + i64::from(month <= 2), month, day_of_year - (153 * shifted + 2) / 5 + 1)
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
