//! Cron schedules: five fields, `@daily` and its like, or `@every 1h30m`, in a time zone.
//!
//! Times are walked as instants, so a time that a change to summer time leaves out is left out, and one that comes twice in autumn counts twice.

use jiff::tz::{TimeZone, TimeZoneDatabase};
use jiff::{SignedDuration, Timestamp, ToSpan, Zoned};

const MONTHS: &[&str] = &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
/// A schedule that does not come round in as many years never does (31 February).
const YEARS: i16 = 5;

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Schedule {
    rule: Rule,
    zone: TimeZone,
}

#[derive(Debug, Clone, PartialEq)]
enum Rule {
    Every(SignedDuration),
    Fields { minute: Field, hour: Field, day: Field, month: Field, weekday: Field },
}

/// Allowed values as bits.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Field {
    bits: u64,
    /// `*` or `?` was among its parts: then it does not restrict days.
    star: bool,
}

impl Field {
    fn has(self, value: i8) -> bool {
        self.bits & (1 << value) != 0
    }
}

/// From the bundled database, so that no file of the machine decides.
pub(super) fn zone(name: &str) -> Result<TimeZone, String> {
    match name {
        "" | "UTC" => Ok(TimeZone::UTC),
        _ => TimeZoneDatabase::bundled().get(name).map_err(|_| format!("unknown time zone {name}")),
    }
}

impl Schedule {
    /// A zone inside the text (`TZ=…`) outweighs the one given.
    pub(super) fn parse(text: &str, time_zone: &str) -> Result<Schedule, String> {
        let (zone_name, spec) = match text.strip_prefix("TZ=").or_else(|| text.strip_prefix("CRON_TZ=")) {
            Some(rest) => rest.split_once(' ').ok_or_else(|| format!("provided bad location {rest}"))?,
            None => (time_zone, text),
        };
        let zone = zone(zone_name).map_err(|e| format!("provided bad location {zone_name}: {e}"))?;
        let spec = spec.trim();
        let rule = if spec.starts_with('@') { descriptor(spec)? } else { fields(spec)? };
        Ok(Schedule { rule, zone })
    }

    /// The first time after `after`; none if there is none.
    pub(super) fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let Rule::Fields { minute, hour, day, month, weekday } = &self.rule else { return self.next_beat(after) };
        let whole = after.as_second().div_euclid(60).checked_add(1)?.checked_mul(60)?;
        let mut at = Timestamp::from_second(whole).ok()?.to_zoned(self.zone.clone());
        let limit = at.year() + YEARS;
        while at.year() <= limit {
            at = if !month.has(at.month()) {
                at.date().first_of_month().checked_add(1.month()).ok()?.to_zoned(self.zone.clone()).ok()?
            } else if !matches_day(*day, *weekday, &at) {
                at.date().tomorrow().ok()?.to_zoned(self.zone.clone()).ok()?
            } else if !hour.has(at.hour()) {
                at.checked_add(SignedDuration::from_mins(60 - i64::from(at.minute()))).ok()?
            } else if !minute.has(at.minute()) {
                at.checked_add(SignedDuration::from_mins(1)).ok()?
            } else {
                return Some(at.timestamp());
            };
        }
        None
    }

    fn next_beat(&self, after: Timestamp) -> Option<Timestamp> {
        let Rule::Every(period) = &self.rule else { return None };
        Timestamp::from_second(after.as_second()).ok()?.checked_add(*period).ok()
    }
}

/// If both fields are restricted, either is enough.
fn matches_day(day: Field, weekday: Field, at: &Zoned) -> bool {
    let (by_day, by_weekday) = (day.has(at.day()), weekday.has(at.weekday().to_sunday_zero_offset()));
    if day.star || weekday.star { by_day && by_weekday } else { by_day || by_weekday }
}

fn descriptor(text: &str) -> Result<Rule, String> {
    match text {
        "@yearly" | "@annually" => fields("0 0 1 1 *"),
        "@monthly" => fields("0 0 1 * *"),
        "@weekly" => fields("0 0 * * 0"),
        "@daily" | "@midnight" => fields("0 0 * * *"),
        "@hourly" => fields("0 * * * *"),
        _ => {
            let period = text.strip_prefix("@every ").ok_or_else(|| format!("unrecognized descriptor: {text}"))?;
            let nanos = tiphys_meta::duration::parse(period).ok_or_else(|| format!("failed to parse duration {text}"))?;
            Ok(Rule::Every(SignedDuration::from_secs((nanos / 1_000_000_000).max(1))))
        }
    }
}

fn fields(text: &str) -> Result<Rule, String> {
    let all: Vec<&str> = text.split_whitespace().collect();
    let [minute, hour, day, month, weekday] = all[..] else {
        return Err(format!("expected exactly 5 fields, found {}: [{}]", all.len(), all.join(" ")));
    };
    Ok(Rule::Fields {
        minute: field(minute, 0, 59, &[])?,
        hour: field(hour, 0, 23, &[])?,
        day: field(day, 1, 31, &[])?,
        month: field(month, 1, 12, MONTHS)?,
        weekday: field(weekday, 0, 6, DAYS)?,
    })
}

fn field(text: &str, low: u32, high: u32, names: &[&str]) -> Result<Field, String> {
    let mut sum = Field { bits: 0, star: false };
    for part in text.split(',').filter(|p| !p.is_empty()) {
        let (range, step) = part.split_once('/').map_or((part, None), |(range, step)| (range, Some(step)));
        let step = match step {
            Some(step) => {
                step.parse::<u32>().ok().filter(|s| *s > 0).ok_or_else(|| format!("step of range should be a positive number: {part}"))?
            }
            None => 1,
        };
        let (first, last) = match range {
            "*" | "?" => {
                sum.star |= step == 1;
                (low, high)
            }
            _ => bounds(range, part.contains('/'), low, high, names)?,
        };
        if first < low || last > high || first > last {
            return Err(format!("range {first}-{last} is not within {low}-{high}: {part}"));
        }
        (first..=last).step_by(step as usize).for_each(|n| sum.bits |= 1 << n);
    }
    Ok(sum)
}

/// `3/5` means: from 3 to the end by fives.
fn bounds(range: &str, has_step: bool, low: u32, high: u32, names: &[&str]) -> Result<(u32, u32), String> {
    let number = |text: &str| -> Result<u32, String> {
        let named = names.iter().position(|n| n.eq_ignore_ascii_case(text)).and_then(|i| u32::try_from(i).ok());
        named.map(|i| i + low).or_else(|| text.parse().ok()).ok_or_else(|| format!("failed to parse int from {text}"))
    };
    match range.split_once('-') {
        Some((first, last)) => Ok((number(first)?, number(last)?)),
        None => number(range).map(|n| (n, if has_step { high } else { n })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    #[test]
    fn next_times() {
        for (spec, zone, from, next) in [
            ("*/15 * * * *", "", "2026-07-09T14:45:00Z", "2026-07-09T15:00:00Z"),
            ("*/1 * * * ?", "", "2026-07-09T14:45:30Z", "2026-07-09T14:46:00Z"),
            ("20-35/15 * * * *", "", "2026-07-09T14:45:00Z", "2026-07-09T15:20:00Z"),
            ("5/20 * * * *", "", "2026-07-09T14:26:00Z", "2026-07-09T14:45:00Z"),
            ("0 0 29 feb ?", "", "2026-03-01T00:00:00Z", "2028-02-29T00:00:00Z"),
            ("0 0 1,15 * fri", "", "2026-07-15T00:00:00Z", "2026-07-17T00:00:00Z"),
            ("0 0 * * Mon-Fri", "", "2026-07-17T00:00:00Z", "2026-07-20T00:00:00Z"),
            ("@weekly", "", "2026-07-17T00:00:00Z", "2026-07-19T00:00:00Z"),
            ("@yearly", "", "2026-07-17T00:00:00Z", "2027-01-01T00:00:00Z"),
            ("@every 90s", "", "2026-07-17T00:00:10Z", "2026-07-17T00:01:40Z"),
            ("0 9 * * *", "Europe/Berlin", "2026-07-09T00:00:00Z", "2026-07-09T07:00:00Z"),
            ("TZ=America/New_York 0 9 * * *", "Europe/Berlin", "2026-07-09T00:00:00Z", "2026-07-09T13:00:00Z"),
            // 29 March has no half past two in Berlin; 25 October has two.
            ("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", "2026-03-30T00:30:00Z"),
            ("30 2 * * *", "Europe/Berlin", "2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z"),
        ] {
            let schedule = Schedule::parse(spec, zone).unwrap_or_else(|e| panic!("{spec}: {e}"));
            assert_eq!(schedule.next(at(from)), Some(at(next)), "{spec} from {from}");
        }
        let never = Schedule::parse("59 23 31 2 *", "").map(|s| s.next(at("2026-01-01T00:00:00Z")));
        assert_eq!(never, Ok(None));
    }

    #[test]
    fn what_is_no_schedule() {
        for text in
            ["", "* * * *", "60 * * * *", "* * 0 * *", "*/0 * * * *", "5-1 * * * *", "@never", "@every x", "TZ=Nowhere/At_All * * * * *"]
        {
            assert!(Schedule::parse(text, "").is_err(), "{text}");
        }
    }
}
