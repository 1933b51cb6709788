//! Whether a text is a cron schedule: five fields, or `@daily` and its like, or `@every 1h`. The controller computes times; this says yes or no.

use tiphys_meta::duration;

const MONTHS: &[&str] = &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// What is wrong with it.
pub(super) fn check(schedule: &str) -> Result<(), String> {
    let spec = match schedule.strip_prefix("TZ=").or_else(|| schedule.strip_prefix("CRON_TZ=")) {
        Some(rest) => rest.split_once(' ').map(|(_, spec)| spec.trim()).ok_or("provided bad location")?,
        None => schedule,
    };
    if spec.is_empty() {
        return Err("empty spec string".into());
    }
    if let Some(descriptor) = spec.strip_prefix('@') {
        return check_descriptor(descriptor);
    }
    let fields: Vec<&str> = spec.split_whitespace().collect();
    let [minute, hour, day, month, weekday] = fields[..] else {
        return Err(format!("expected exactly 5 fields, found {}: [{}]", fields.len(), fields.join(" ")));
    };
    check_field(minute, 0, 59, &[])?;
    check_field(hour, 0, 23, &[])?;
    check_field(day, 1, 31, &[])?;
    check_field(month, 1, 12, MONTHS)?;
    check_field(weekday, 0, 6, DAYS)
}

fn check_descriptor(descriptor: &str) -> Result<(), String> {
    match descriptor {
        "yearly" | "annually" | "monthly" | "weekly" | "daily" | "midnight" | "hourly" => Ok(()),
        other => match other.strip_prefix("every ").map(duration::parse) {
            Some(Some(_)) => Ok(()),
            Some(None) => Err(format!("failed to parse duration @{other}")),
            None => Err(format!("unrecognized descriptor: @{other}")),
        },
    }
}

fn check_field(field: &str, low: u32, high: u32, names: &[&str]) -> Result<(), String> {
    field.split(',').filter(|part| !part.is_empty()).try_for_each(|part| check_range(part, low, high, names))
}

fn check_range(part: &str, low: u32, high: u32, names: &[&str]) -> Result<(), String> {
    let (range, step) = part.split_once('/').map_or((part, None), |(range, step)| (range, Some(step)));
    let number = |text: &str| -> Result<u32, String> {
        let named = names.iter().position(|n| n.eq_ignore_ascii_case(text)).and_then(|i| u32::try_from(i).ok());
        match named {
            Some(i) => Ok(i + low),
            None => text.parse().map_err(|_| format!("failed to parse int from {text}: strconv.Atoi: parsing \"{text}\": invalid syntax")),
        }
    };
    let (start, end) = match range {
        "*" | "?" => (low, high),
        _ => match range.split_once('-') {
            Some((start, end)) => (number(start)?, number(end)?),
            None => {
                let start = number(range)?;
                (start, if step.is_some() { high } else { start })
            }
        },
    };
    if start < low {
        return Err(format!("beginning of range ({start}) below minimum ({low}): {part}"));
    }
    if end > high {
        return Err(format!("end of range ({end}) above maximum ({high}): {part}"));
    }
    if start > end {
        return Err(format!("beginning of range ({start}) beyond end of range ({end}): {part}"));
    }
    match step.map(str::parse::<u32>) {
        Some(Ok(0)) => Err(format!("step of range should be a positive number: {part}")),
        Some(Err(_)) => Err(format!("failed to parse int from {}", step.unwrap_or(""))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn schedules() {
        for good in ["* * * * *", "*/5 0-6 1,15 jan-mar mon", "? 1 ? * ?", "@daily", "@every 1h30m", "0 0 31 2 *", "TZ=UTC 0 0 * * *"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "* * * *",
            "60 * * * *",
            "* 24 * * *",
            "* * 0 * *",
            "* * * 13 *",
            "* * * * 7",
            "*/0 * * * *",
            "5-1 * * * *",
            "@never",
            "x * * * *",
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
