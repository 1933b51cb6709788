//! Timestamps and durations: RFC 3339, within the years 1 to 9999.
//!
//! The calendar is computed here because jiff's timestamps end a day before CEL's, on 9999-12-30.

use tiphys_meta::time::{civil_from_days, days_from_civil};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant {
    /// Since 1970 in UTC.
    pub seconds: i64,
    pub nanos: u32,
}

const MIN_SECONDS: i64 = -62_135_596_800;
const MAX_SECONDS: i64 = 253_402_300_799;
const NANOS: i128 = 1_000_000_000;

/// A civil date and time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Civil {
    pub(crate) year: i64,
    /// From 1.
    pub(crate) month: i64,
    /// From 1.
    pub(crate) day: i64,
    pub(crate) hour: i64,
    pub(crate) minute: i64,
    pub(crate) second: i64,
}

impl Instant {
    pub(crate) fn of_nanos(nanos: i128) -> Option<Instant> {
        let seconds = i64::try_from(nanos.div_euclid(NANOS)).ok()?;
        let nanos = u32::try_from(nanos.rem_euclid(NANOS)).ok()?;
        (MIN_SECONDS..=MAX_SECONDS).contains(&seconds).then_some(Instant { seconds, nanos })
    }

    pub(crate) fn total_nanos(self) -> i128 {
        i128::from(self.seconds) * NANOS + i128::from(self.nanos)
    }

    /// The civil time at this offset from UTC, in seconds.
    pub(crate) fn civil(self, offset: i64) -> Civil {
        let local = self.seconds + offset;
        let (year, month, day) = civil_from_days(local.div_euclid(86_400));
        let second = local.rem_euclid(86_400);
        Civil { year, month, day, hour: second / 3600, minute: second / 60 % 60, second: second % 60 }
    }

    pub(crate) fn day_of_week(self, offset: i64) -> i64 {
        ((self.seconds + offset).div_euclid(86_400) + 4).rem_euclid(7)
    }

    pub(crate) fn day_of_year(self, offset: i64) -> i64 {
        let days = (self.seconds + offset).div_euclid(86_400);
        days - days_from_civil(self.civil(offset).year, 1, 1)
    }

    pub(crate) fn format(self) -> String {
        let c = self.civil(0);
        let mut text = format!("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}", c.year, c.month, c.day, c.hour, c.minute, c.second);
        if self.nanos > 0 {
            text.push('.');
            text.push_str(format!("{:09}", self.nanos).trim_end_matches('0'));
        }
        text.push('Z');
        text
    }
}

fn month_length(year: i64, month: i64) -> i64 {
    let next = if month == 12 { days_from_civil(year + 1, 1, 1) } else { days_from_civil(year, month + 1, 1) };
    next - days_from_civil(year, month, 1)
}

fn digits(text: &str, from: usize, count: usize) -> Option<i64> {
    let part = text.get(from..from + count)?;
    part.bytes().all(|b| b.is_ascii_digit()).then(|| part.parse().ok())?
}

fn sign(text: &str, at: usize, wanted: &str) -> Option<()> {
    text.get(at..=at).filter(|s| wanted.contains(*s)).map(|_| ())
}

/// `2006-01-02`, as `format: date` has it.
pub(crate) fn parse_date(text: &str) -> Option<Instant> {
    (text.len() == 10).then(|| parse(&format!("{text}T00:00:00Z")))?
}

/// RFC 3339.
pub(crate) fn parse(text: &str) -> Option<Instant> {
    let (year, month, day) = (digits(text, 0, 4)?, digits(text, 5, 2)?, digits(text, 8, 2)?);
    sign(text, 4, "-")?;
    sign(text, 7, "-")?;
    sign(text, 10, "Tt")?;
    sign(text, 13, ":")?;
    sign(text, 16, ":")?;
    let (hour, minute, second) = (digits(text, 11, 2)?, digits(text, 14, 2)?, digits(text, 17, 2)?);
    let within = (1..=12).contains(&month) && (1..=month_length(year, month)).contains(&day) && hour < 24 && minute < 60 && second < 60;
    if !within {
        return None;
    }
    let rest = text.get(19..)?;
    let (nanos, rest) = fraction(rest)?;
    let seconds = days_from_civil(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset(rest)?;
    (MIN_SECONDS..=MAX_SECONDS).contains(&seconds).then_some(Instant { seconds, nanos })
}

fn fraction(text: &str) -> Option<(u32, &str)> {
    let Some(rest) = text.strip_prefix('.') else { return Some((0, text)) };
    let count = rest.bytes().take_while(u8::is_ascii_digit).count();
    if count == 0 {
        return None;
    }
    let nanos: String = rest[..count].chars().chain("000000000".chars()).take(9).collect();
    Some((nanos.parse().ok()?, &rest[count..]))
}

fn offset(text: &str) -> Option<i64> {
    if text == "Z" || text == "z" {
        return Some(0);
    }
    hours_minutes(text)
}

/// `+05:30`.
fn hours_minutes(text: &str) -> Option<i64> {
    let negative = match text.get(..1)? {
        "+" => false,
        "-" => true,
        _ => return None,
    };
    sign(text, 3, ":")?;
    let (hours, minutes) = (digits(text, 1, 2)?, digits(text, 4, 2)?);
    let seconds = hours * 3600 + minutes * 60;
    (text.len() == 6 && hours < 24 && minutes < 60).then_some(if negative { -seconds } else { seconds })
}

/// The offset of a time zone as functions take it: UTC and fixed offsets. Named zones are not known: no zone database is linked.
pub(crate) fn zone(text: &str) -> Option<i64> {
    match text {
        "" | "UTC" | "GMT" | "Etc/UTC" | "Etc/GMT" | "Zulu" => Some(0),
        _ if text.starts_with(['+', '-']) => hours_minutes(text),
        _ => hours_minutes(&format!("+{text}")),
    }
}

/// As protobuf's JSON and CEL print it: seconds, `3.5s`.
pub(crate) fn format_duration(nanos: i64) -> String {
    let (sign, nanos) = (if nanos < 0 { "-" } else { "" }, nanos.unsigned_abs());
    let (seconds, rest) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
    if rest == 0 {
        return format!("{sign}{seconds}s");
    }
    format!("{sign}{seconds}.{}s", format!("{rest:09}").trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants() {
        for (text, back) in [
            ("1970-01-01T00:00:00Z", "1970-01-01T00:00:00Z"),
            ("2024-02-29T23:59:59.500+02:00", "2024-02-29T21:59:59.5Z"),
            ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
            ("9999-12-31T23:59:59.999999999Z", "9999-12-31T23:59:59.999999999Z"),
        ] {
            assert_eq!(parse(text).map(Instant::format).as_deref(), Some(back));
        }
        for text in
            ["", "2023-02-29T00:00:00Z", "2023-01-01 00:00:00Z", "2023-01-01T24:00:00Z", "10000-01-01T00:00:00Z", "2023-01-01T00:00:00"]
        {
            assert_eq!(parse(text), None, "{text}");
        }
        let t = parse("2024-12-31T10:00:00Z").unwrap();
        assert_eq!((t.day_of_week(0), t.day_of_year(0)), (2, 365));
    }

    #[test]
    fn durations() {
        assert_eq!(format_duration(-1_500_000_000), "-1.5s");
    }
}
