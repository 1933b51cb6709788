//! Durations as Go prints and reads them (`1h2m3s`), and as kubectl prints ages.

/// An age of about two or three significant figures: `5s`, `3m20s`, `4h`, `2d3h`, `1y20d`.
pub fn human(seconds: i64) -> String {
    let minutes = seconds / 60;
    let hours = seconds / 3600;
    let days = hours / 24;
    let two = |big: i64, unit: &str, small: i64, small_unit: &str| {
        if small == 0 { format!("{big}{unit}") } else { format!("{big}{unit}{small}{small_unit}") }
    };
    match seconds {
        ..=-2 => "<invalid>".into(),
        -1 => "0s".into(),
        0..120 => format!("{seconds}s"),
        _ if minutes < 10 => two(minutes, "m", seconds % 60, "s"),
        _ if minutes < 180 => format!("{minutes}m"),
        _ if hours < 8 => two(hours, "h", minutes % 60, "m"),
        _ if hours < 48 => format!("{hours}h"),
        _ if hours < 24 * 8 => two(days, "d", hours % 24, "h"),
        _ if hours < 24 * 365 * 2 => format!("{days}d"),
        _ if hours < 24 * 365 * 8 => two(days / 365, "y", days % 365, "d"),
        _ => format!("{}y", days / 365),
    }
}

/// Reads Go's form (`300ms`, `-1.5h`, `2h45m`) into nanoseconds.
pub fn parse(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (value, after) = rest.split_at(number);
        let unit_end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, next) = after.split_at(unit_end);
        total = total.checked_add(part(value, unit)?)?;
        rest = next;
    }
    if negative { 0_i64.checked_sub_unsigned(total) } else { i64::try_from(total).ok() }
}

/// `1.5` and `h`, in nanoseconds.
fn part(value: &str, unit: &str) -> Option<u64> {
    let scale: u64 = match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    };
    let (whole, fraction) = value.split_once('.').unwrap_or((value, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let whole = if whole.is_empty() { 0 } else { whole.parse::<u64>().ok()?.checked_mul(scale)? };
    // More digits than these say nothing of nanoseconds.
    let fraction = &fraction[..fraction.len().min(18)];
    let numerator: u64 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
    let nanos = numerator as f64 * (scale as f64 / 10_f64.powi(fraction.len() as i32));
    whole.checked_add(nanos as u64)
}

/// Prints nanoseconds in Go's form.
pub fn go_string(nanos: i64) -> String {
    if nanos == 0 {
        return "0s".into();
    }
    let sign = if nanos < 0 { "-" } else { "" };
    let abs = nanos.unsigned_abs();
    let fraction = |value: u64, scale: u64| {
        let rest = value % scale;
        if rest == 0 {
            return format!("{}", value / scale);
        }
        let width = scale.ilog10() as usize;
        format!("{}.{}", value / scale, format!("{rest:0width$}").trim_end_matches('0'))
    };
    match abs {
        0..1_000 => format!("{sign}{abs}ns"),
        1_000..1_000_000 => format!("{sign}{}µs", fraction(abs, 1_000)),
        1_000_000..1_000_000_000 => format!("{sign}{}ms", fraction(abs, 1_000_000)),
        _ => {
            let minutes = abs / 60_000_000_000;
            let seconds = fraction(abs % 60_000_000_000, 1_000_000_000);
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{sign}{seconds}s"),
                (0, m) => format!("{sign}{m}m{seconds}s"),
                (h, m) => format!("{sign}{h}h{m}m{seconds}s"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_kubectls() {
        let cases = [
            (-2, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (121, "2m1s"),
            (600, "10m"),
            (3 * 3600, "3h"),
            (3 * 3600 + 60, "3h1m"),
            (8 * 3600 + 60, "8h"),
            (48 * 3600, "2d"),
            (49 * 3600, "2d1h"),
            (8 * 24 * 3600, "8d"),
            (729 * 24 * 3600, "729d"),
            (731 * 24 * 3600, "2y1d"),
            (8 * 365 * 24 * 3600 + 86400, "8y"),
        ];
        for (seconds, text) in cases {
            assert_eq!(human(seconds), text, "{seconds}");
        }
    }

    #[test]
    fn go_durations_round_trip() {
        for text in ["1h0m0s", "1m30s", "1.5s", "300ms", "15µs", "-2m0s", "0s", "7ns"] {
            assert_eq!(go_string(parse(text).unwrap()), text);
        }
        assert_eq!(parse("2h45m"), Some(9_900_000_000_000));
        assert_eq!(parse("1.5h"), Some(5_400_000_000_000));
        assert_eq!(parse("-.5s"), Some(-500_000_000));
        assert_eq!(parse("1.s"), Some(1_000_000_000));
        assert_eq!(parse("0.100000000000000000000000000001s"), Some(100_000_000));
        assert_eq!(parse("-9223372036854775808ns"), Some(i64::MIN));
        // The last of them overflowed 128 bits (found by the fuzzer).
        let large = ["9223372036854775808ns", "2562048h", "2562047h48m", "1h3202620262026202620262026202620260m"];
        for bad in ["", "1", "h", "1x", "-", ".s", "1.5.5h", "."].into_iter().chain(large) {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
