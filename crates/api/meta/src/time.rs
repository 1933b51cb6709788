//! `metav1.Time` and `metav1.MicroTime` as text, by RFC 3339 in UTC.

use std::fmt::Write as _;

use jiff::Timestamp;

/// `2006-01-02T15:04:05Z`: how `metav1.Time` prints (whole seconds).
pub fn format(time: Timestamp) -> String {
    text(whole_seconds(time))
}

/// `2006-01-02T15:04:05.000000Z`: how `metav1.MicroTime` prints.
pub fn format_micro(time: Timestamp) -> String {
    text_micro(whole_seconds(time), micros(time))
}

/// The second that a time lies in; before 1970, too, it is the one that began before it.
fn whole_seconds(time: Timestamp) -> i64 {
    time.as_second() - i64::from(time.subsec_nanosecond() < 0)
}

fn micros(time: Timestamp) -> u32 {
    u32::try_from(time.subsec_nanosecond().rem_euclid(1_000_000_000) / 1000).unwrap_or_default()
}

/// `2006-01-02T15:04:05Z`, of seconds since 1970.
pub fn text(seconds: i64) -> String {
    let mut out = String::with_capacity(20);
    push_seconds(&mut out, seconds);
    out.push('Z');
    out
}

/// `2006-01-02T15:04:05.000000Z`, of seconds since 1970 and microseconds.
pub fn text_micro(seconds: i64, micros: u32) -> String {
    let mut out = String::with_capacity(27);
    push_micro(&mut out, seconds, micros);
    out
}

/// Appends what [`format_micro`] answers.
pub fn push_time(out: &mut String, time: Timestamp) {
    push_micro(out, whole_seconds(time), micros(time));
}

fn push_micro(out: &mut String, seconds: i64, micros: u32) {
    push_seconds(out, seconds);
    out.push('.');
    for two in [micros / 10_000, micros / 100 % 100, micros % 100] {
        push_two(out, i64::from(two));
    }
    out.push('Z');
}

/// Digit by digit: each object has some, and each line of the audit log two.
fn push_seconds(out: &mut String, seconds: i64) {
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil_from_days(days);
    if (0..=9999).contains(&year) {
        push_two(out, year / 100);
        push_two(out, year % 100);
    } else {
        let _ = write!(out, "{year:04}");
    }
    for (before, number) in [('-', month), ('-', day), ('T', second / 3600), (':', second / 60 % 60), (':', second % 60)] {
        out.push(before);
        push_two(out, number);
    }
}

fn push_two(out: &mut String, number: i64) {
    for digit in [number / 10, number % 10] {
        out.push(char::from(b'0' + u8::try_from(digit).unwrap_or_default()));
    }
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
        for text in
            ["1969-12-31T23:59:59.000001Z", "1900-02-28T00:00:00.999999Z", "0001-01-01T00:00:00.000000Z", "9999-12-30T21:59:59.100000Z"]
        {
            let time = parse(text).unwrap();
            assert_eq!(format_micro(time), text);
            assert_eq!(format(time), format!("{}Z", &text[..19]));
        }
        assert_eq!(super::text(253_402_300_800), "10000-01-01T00:00:00Z");
    }
}
