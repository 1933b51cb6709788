//! Go's words and forms: quoted strings, times by RFC 3339 as `time.Parse` reads them, and what `encoding/json` says about bad input.

use tiphys_meta::time::{self, days_from_civil};

pub(crate) fn quote(text: &str) -> String {
    tiphys_meta::field::go_quote(text)
}

/// Seconds since 1970 and nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Instant {
    pub(crate) seconds: i64,
    pub(crate) nanos: u32,
}

/// Go's zero time, 0001-01-01T00:00:00Z, which prints as `null`.
const ZERO_SECONDS: i64 = -62_135_596_800;

impl Instant {
    pub(crate) fn is_zero(self) -> bool {
        self.seconds == ZERO_SECONDS && self.nanos == 0
    }

    /// `2006-01-02T15:04:05Z`.
    pub(crate) fn text(self) -> String {
        time::text(self.seconds)
    }

    /// `2006-01-02T15:04:05.000000Z`.
    pub(crate) fn text_micro(self) -> String {
        time::text_micro(self.seconds, self.nanos / 1000)
    }
}

/// `time.Parse(time.RFC3339, text)`.
pub(crate) fn parse_time(text: &str) -> Result<Instant, String> {
    TimeParser { text, rest: text, layout: "2006-01-02T15:04:05Z07:00" }.run(false)
}

/// `time.Parse("2006-01-02T15:04:05.000000Z07:00", text)`: six digits, no more and no less.
pub(crate) fn parse_micro_time(text: &str) -> Result<Instant, String> {
    TimeParser { text, rest: text, layout: "2006-01-02T15:04:05.000000Z07:00" }.run(true)
}

struct TimeParser<'a> {
    text: &'a str,
    rest: &'a str,
    layout: &'static str,
}

impl TimeParser<'_> {
    fn run(mut self, micro: bool) -> Result<Instant, String> {
        let year = self.number(4, "2006")?;
        self.literal("-")?;
        let month = self.ranged(2, "01", 1..=12, "month")?;
        self.literal("-")?;
        let day = self.ranged(2, "02", 1..=31, "day")?;
        self.literal("T")?;
        // Of all numbers this one may have a single digit.
        let one = self.rest.as_bytes().get(1).is_none_or(|b| !b.is_ascii_digit());
        let hour = self.ranged(if one { 1 } else { 2 }, "15", 0..=23, "hour")?;
        self.literal(":")?;
        let minute = self.ranged(2, "04", 0..=59, "minute")?;
        self.literal(":")?;
        let second = self.ranged(2, "05", 0..=59, "second")?;
        let nanos = self.fraction(micro)?;
        let offset = self.zone()?;
        if !self.rest.is_empty() {
            return Err(format!("parsing time {}: extra text: {}", quote(self.text), quote(self.rest)));
        }
        if day > days_in(year, month) {
            return Err(format!("parsing time {}: day out of range", quote(self.text)));
        }
        let days = days_from_civil(year, month, day);
        Ok(Instant { seconds: days * 86_400 + hour * 3600 + minute * 60 + second - offset, nanos })
    }

    fn bad(&self, rest: &str, element: &str) -> String {
        format!("parsing time {} as {}: cannot parse {} as {}", quote(self.text), quote(self.layout), quote(rest), quote(element))
    }

    fn number(&mut self, digits: usize, element: &str) -> Result<i64, String> {
        match self.rest.get(..digits) {
            Some(n) if n.bytes().all(|b| b.is_ascii_digit()) => {
                self.rest = &self.rest[digits..];
                Ok(n.bytes().fold(0, |n, b| n * 10 + i64::from(b - b'0')))
            }
            _ => Err(self.bad(self.rest, element)),
        }
    }

    fn ranged(&mut self, digits: usize, element: &str, range: std::ops::RangeInclusive<i64>, what: &str) -> Result<i64, String> {
        let n = self.number(digits, element)?;
        if range.contains(&n) { Ok(n) } else { Err(format!("parsing time {}: {what} out of range", quote(self.text))) }
    }

    fn literal(&mut self, literal: &str) -> Result<(), String> {
        self.rest = self.rest.strip_prefix(literal).ok_or_else(|| self.bad(self.rest, literal))?;
        Ok(())
    }

    /// Go reads a fraction after the seconds even where the layout has none.
    fn fraction(&mut self, micro: bool) -> Result<u32, String> {
        let Some(after) = self.rest.strip_prefix(['.', ',']) else {
            return if micro { Err(self.bad(self.rest, ".000000")) } else { Ok(0) };
        };
        let digits = after.bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 || (micro && digits < 6) {
            return if micro { Err(self.bad(self.rest, ".000000")) } else { Err(self.bad(self.rest, "Z07:00")) };
        }
        let taken = if micro { 6 } else { digits };
        let nanos = after.bytes().take(taken.min(9)).fold(0, |n, b| n * 10 + u32::from(b - b'0'));
        self.rest = &after[taken..];
        Ok(nanos * 10_u32.pow(9 - taken.min(9) as u32))
    }

    /// Seconds east of UTC.
    fn zone(&mut self) -> Result<i64, String> {
        if let Some(rest) = self.rest.strip_prefix('Z') {
            self.rest = rest;
            return Ok(0);
        }
        let zone = self.rest;
        let digits = |s: &str| s.parse::<i64>().ok().filter(|_| s.bytes().all(|b| b.is_ascii_digit()));
        let parsed = (|| {
            let sign = match zone.as_bytes().first()? {
                b'+' => 1,
                b'-' => -1,
                _ => return None,
            };
            let (hours, minutes) = (digits(zone.get(1..3)?)?, digits(zone.get(4..6)?)?);
            (zone.get(3..4) == Some(":") && hours <= 24 && minutes < 60).then_some(sign * (hours * 3600 + minutes * 60))
        })();
        let offset = parsed.ok_or_else(|| self.bad(zone, "Z07:00"))?;
        self.rest = &zone[6..];
        Ok(offset)
    }
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// What `encoding/json` says about input that serde_json refuses.
pub(crate) fn syntax_error(error: &serde_json::Error, input: &[u8]) -> String {
    super::syntax::error(input).unwrap_or_else(|| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_printed_as_go_does() {
        let read = |text: &str| parse_time(text).map(Instant::text);
        for (text, printed) in [
            ("2024-02-29T12:00:01Z", "2024-02-29T12:00:01Z"),
            ("2024-02-29T12:00:01.999Z", "2024-02-29T12:00:01Z"),
            ("2024-03-01T01:30:00+02:00", "2024-02-29T23:30:00Z"),
            ("1969-12-31T23:59:59Z", "1969-12-31T23:59:59Z"),
            ("2006-01-02T3:04:05Z", "2006-01-02T03:04:05Z"),
            ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
        ] {
            assert_eq!(read(text).as_deref(), Ok(printed), "{text}");
        }
        assert!(parse_time("0001-01-01T00:00:00Z").is_ok_and(Instant::is_zero));
        assert_eq!(read("x").unwrap_err(), r#"parsing time "x" as "2006-01-02T15:04:05Z07:00": cannot parse "x" as "2006""#);
        assert_eq!(read("2023-02-29T00:00:00Z").unwrap_err(), r#"parsing time "2023-02-29T00:00:00Z": day out of range"#);
        for (text, rest, element) in [
            ("2023-01-01 00:00:00Z", " 00:00:00Z", "T"),
            ("2006-01-02T:04:05Z", ":04:05Z", "15"),
            ("2006-01-02T123:04:05Z", "3:04:05Z", ":"),
            ("2006-01-02T1", "", ":"),
            ("2006-01-02T3:4:05Z", "4:05Z", "04"),
        ] {
            let words = format!(r#"parsing time "{text}" as "2006-01-02T15:04:05Z07:00": cannot parse "{rest}" as "{element}""#);
            assert_eq!(read(text).unwrap_err(), words);
        }
    }

    #[test]
    fn micro_times_want_six_digits() {
        assert_eq!(parse_micro_time("2010-01-01T01:01:01.000010Z").map(Instant::text_micro).as_deref(), Ok("2010-01-01T01:01:01.000010Z"));
        assert_eq!(
            parse_micro_time("2010-01-01T01:01:01Z").unwrap_err(),
            r#"parsing time "2010-01-01T01:01:01Z" as "2006-01-02T15:04:05.000000Z07:00": cannot parse "Z" as ".000000""#
        );
    }
}
