//! `resource.Quantity`: an exact decimal number with a suffix, printed in upstream's canonical form.
//!
//! Up to 38 digits are held (upstream: any number); what is larger saturates. Nothing smaller than a nano exists: it rounds up, away from zero.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::ops::{Add, AddAssign, Neg, Sub, SubAssign};

const NANO: i32 = -9;
/// Upstream counts on so many digits fitting 64 bits.
const FAST_DIGITS: i32 = 18;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    #[default]
    DecimalSi,
    BinarySi,
    DecimalExponent,
}

/// `value × 10^scale`, scale at least −9.
#[derive(Debug, Clone, Copy, Default)]
pub struct Quantity {
    value: i128,
    scale: i32,
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    #[error("unable to parse numeric part of quantity")]
    Numeric,
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

struct Scanned<'a> {
    negative: bool,
    whole: &'a str,
    fraction: &'a str,
    base: u32,
    exponent: i32,
    format: Format,
}

/// The text that upstream keeps for a quantity: the given one where it is canonical already, else the canonical one.
pub fn canonical(text: &str) -> Result<Cow<'_, str>, QuantityError> {
    let scanned = scan(text)?;
    if text == "0" || scanned.keeps_text() {
        return Ok(Cow::Borrowed(text));
    }
    Ok(Cow::Owned(scanned.quantity()?.to_string()))
}

fn scan(text: &str) -> Result<Scanned<'_>, QuantityError> {
    if text.is_empty() {
        return Err(QuantityError::Format);
    }
    let negative = text.starts_with('-');
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let digits = unsigned.trim_start_matches('0');
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    let (whole, mut rest) = digits.split_at(end);
    let mut fraction = "";
    if let Some(after) = rest.strip_prefix('.') {
        let end = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
        (fraction, rest) = after.split_at(end);
    }
    let (base, exponent, format) = suffix(rest)?;
    Ok(Scanned { negative, whole: if whole.is_empty() { "0" } else { whole }, fraction, base, exponent, format })
}

fn suffix(text: &str) -> Result<(u32, i32, Format), QuantityError> {
    let si = |exponent| Ok((10, exponent, Format::DecimalSi));
    let binary = |exponent| Ok((2, exponent, Format::BinarySi));
    match text {
        "" => si(0),
        "n" => si(-9),
        "u" => si(-6),
        "m" => si(-3),
        "k" => si(3),
        "M" => si(6),
        "G" => si(9),
        "T" => si(12),
        "P" => si(15),
        "E" => si(18),
        "Ki" => binary(10),
        "Mi" => binary(20),
        "Gi" => binary(30),
        "Ti" => binary(40),
        "Pi" => binary(50),
        "Ei" => binary(60),
        _ => exponent(text),
    }
}

fn exponent(text: &str) -> Result<(u32, i32, Format), QuantityError> {
    let letters = text.find(|c: char| !"eEinumkKMGTP".contains(c)).unwrap_or(text.len());
    let number = text[letters..].strip_prefix(['-', '+']).unwrap_or(&text[letters..]);
    if !number.bytes().all(|b| b.is_ascii_digit()) {
        return Err(QuantityError::Format);
    }
    if !matches!(&text[..letters], "e" | "E") {
        return Err(QuantityError::Suffix);
    }
    let exponent: i32 = text[1..].parse().map_err(|_| QuantityError::Suffix)?;
    Ok((10, exponent, Format::DecimalExponent))
}

impl Scanned<'_> {
    /// Upstream's fast path keeps the text where it looks canonical.
    fn keeps_text(&self) -> bool {
        let (whole, fraction) = (self.whole.len() as i32, self.fraction.len() as i32);
        let precision = match self.format {
            Format::BinarySi if self.fraction.is_empty() => 15 - whole - (self.exponent as f32 * 3.0 / 10.0) as i32 - 1,
            Format::BinarySi => -1,
            _ => FAST_DIGITS - (whole + fraction),
        };
        let scale = if self.format == Format::BinarySi { 0 } else { self.exponent } - fraction;
        if precision < 0 || scale < NANO {
            return false;
        }
        let shifted = [self.whole, self.fraction].concat();
        if self.format == Format::BinarySi {
            return shifted.parse::<i64>().is_ok_and(|v| v & 7 != 0);
        }
        scale % 3 == 0 && !shifted.ends_with("000") && !shifted.starts_with('0')
    }

    fn quantity(&self) -> Result<Quantity, QuantityError> {
        let mut digits = self.whole.bytes().chain(self.fraction.bytes());
        let all = digits.try_fold(0i128, |all, digit| all.checked_mul(10)?.checked_add(i128::from(digit.wrapping_sub(b'0'))));
        let mut value = all.unwrap_or(i128::MAX);
        let mut scale = -(self.fraction.len() as i32);
        let mut format = self.format;
        if self.base == 2 {
            value = value.saturating_mul(1i128 << self.exponent);
        } else {
            scale = scale.saturating_add(self.exponent);
        }
        let mut quantity = Quantity { value, scale: 0, format }.with_scale(scale);
        if self.base == 2 {
            let max = Quantity::from(i64::MAX);
            if quantity > max {
                quantity = max;
            }
            if quantity.value != 0 && quantity < Quantity::from(1) {
                format = Format::DecimalSi;
            }
        }
        quantity.format = format;
        Ok(if self.negative { -quantity } else { quantity })
    }
}

impl Quantity {
    pub const ZERO: Quantity = Quantity { value: 0, scale: 0, format: Format::DecimalSi };

    pub fn parse(text: &str) -> Result<Quantity, QuantityError> {
        scan(text)?.quantity()
    }

    pub fn new(value: i64, format: Format) -> Quantity {
        Quantity { value: value.into(), scale: 0, format }
    }

    pub fn from_milli(milli: i64) -> Quantity {
        Quantity { value: milli.into(), scale: -3, format: Format::DecimalSi }
    }

    pub fn format(&self) -> Format {
        self.format
    }

    pub fn is_zero(&self) -> bool {
        self.value == 0
    }

    pub fn is_negative(&self) -> bool {
        self.value < 0
    }

    /// Whole units, rounded away from zero.
    pub fn value(&self) -> i64 {
        self.scaled(0)
    }

    /// Thousandths, rounded away from zero.
    pub fn milli(&self) -> i64 {
        self.scaled(-3)
    }

    /// In units of `10^scale`, rounded away from zero, saturated.
    pub fn scaled(&self, scale: i32) -> i64 {
        let value = rescale(self.value, self.scale, scale);
        i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
    }

    /// A whole number without remainder.
    pub fn is_integer(&self) -> bool {
        self.scale >= 0 || power(-self.scale).is_some_and(|p| self.value % p == 0)
    }

    pub fn as_f64(&self) -> f64 {
        self.value as f64 * 10f64.powi(self.scale)
    }

    /// The number in thousandths exactly (no finer than a milli).
    pub fn is_milli(&self) -> bool {
        self.scale >= -3 || power(-3 - self.scale).is_some_and(|p| self.value % p == 0)
    }

    fn with_scale(mut self, scale: i32) -> Quantity {
        if scale < NANO {
            self.value = rescale(self.value, scale, NANO);
            self.scale = NANO;
        } else {
            self.scale = scale;
        }
        self
    }

    /// Both numbers in the finer of the two scales.
    fn aligned(self, other: Quantity) -> (i128, i128, i32) {
        let scale = self.scale.min(other.scale);
        (rescale(self.value, self.scale, scale), rescale(other.value, other.scale, scale), scale)
    }

    fn combine(self, other: Quantity, op: fn(i128, i128) -> i128) -> Quantity {
        let (a, b, scale) = self.aligned(other);
        let format = if self.is_zero() { other.format } else { self.format };
        Quantity { value: op(a, b), scale, format }
    }

    /// Mantissa and exponent: the exponent a multiple of three, the mantissa whole and as short as may be.
    fn canonical_decimal(&self) -> (i128, i32) {
        let (mut value, mut exponent) = (self.value, self.scale);
        while value % 10 == 0 {
            value /= 10;
            exponent += 1;
        }
        let down = exponent.rem_euclid(3);
        (value.saturating_mul(power(down).unwrap_or(1)).max(LEAST), exponent - down)
    }

    fn fmt_decimal(&self, f: &mut fmt::Formatter<'_>, format: Format) -> fmt::Result {
        let (value, exponent) = self.canonical_decimal();
        if format == Format::DecimalExponent {
            return if exponent == 0 { write!(f, "{value}") } else { write!(f, "{value}e{exponent}") };
        }
        let suffix = match exponent {
            -9 => "n",
            -6 => "u",
            -3 => "m",
            3 => "k",
            6 => "M",
            9 => "G",
            12 => "T",
            15 => "P",
            18 => "E",
            _ => "",
        };
        write!(f, "{value}{suffix}")
    }
}

/// As far below zero as the largest is above: what is shown can be read again (found by the fuzzer).
const LEAST: i128 = -i128::MAX;

fn power(exponent: i32) -> Option<i128> {
    10i128.checked_pow(u32::try_from(exponent).ok()?)
}

/// From one scale to another; rounds away from zero, saturates.
fn rescale(value: i128, from: i32, to: i32) -> i128 {
    if value == 0 || from == to {
        return value;
    }
    if from > to {
        let end = if value < 0 { LEAST } else { i128::MAX };
        return power(from.saturating_sub(to)).and_then(|p| value.checked_mul(p)).unwrap_or(end);
    }
    match power(to.saturating_sub(from)) {
        Some(p) => value / p + (value % p).signum(),
        None => value.signum(),
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_zero() {
            return f.write_str("0");
        }
        let small = *self > Quantity::from(-1024) && *self < Quantity::from(1024);
        match self.format {
            Format::BinarySi if small || !self.is_integer() => self.fmt_decimal(f, Format::DecimalSi),
            Format::BinarySi => {
                let mut value = rescale(self.value, self.scale, 0);
                let mut suffixes = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"].into_iter();
                let mut suffix = suffixes.next().unwrap_or("");
                while value % 1024 == 0 {
                    let Some(next) = suffixes.next() else { break };
                    suffix = next;
                    value /= 1024;
                }
                write!(f, "{value}{suffix}")
            }
            format => self.fmt_decimal(f, format),
        }
    }
}

impl std::str::FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Quantity::parse(text)
    }
}

impl From<i64> for Quantity {
    fn from(value: i64) -> Self {
        Quantity::new(value, Format::DecimalSi)
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        let (a, b, _) = self.aligned(*other);
        a.cmp(&b)
    }
}

impl Add for Quantity {
    type Output = Quantity;

    fn add(self, other: Quantity) -> Quantity {
        self.combine(other, i128::saturating_add)
    }
}

impl Sub for Quantity {
    type Output = Quantity;

    fn sub(self, other: Quantity) -> Quantity {
        self.combine(other, i128::saturating_sub)
    }
}

impl Neg for Quantity {
    type Output = Quantity;

    fn neg(self) -> Quantity {
        Quantity { value: self.value.saturating_neg(), ..self }
    }
}

impl AddAssign for Quantity {
    fn add_assign(&mut self, other: Quantity) {
        *self = *self + other;
    }
}

impl SubAssign for Quantity {
    fn sub_assign(&mut self, other: Quantity) {
        *self = *self - other;
    }
}

impl std::iter::Sum for Quantity {
    fn sum<I: Iterator<Item = Quantity>>(iter: I) -> Quantity {
        iter.fold(Quantity::ZERO, Add::add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_upstreams() {
        let cases = [
            ("0", "0"),
            ("00", "0"),
            ("0Mi", "0"),
            ("100m", "100m"),
            ("1000m", "1"),
            ("0.5", "500m"),
            ("1.5", "1500m"),
            ("0.1Gi", "107374182400m"),
            ("1.5Gi", "1536Mi"),
            ("1024Mi", "1Gi"),
            ("100Mi", "100Mi"),
            ("1Ki", "1Ki"),
            ("1000", "1k"),
            ("1500", "1500"),
            ("12e6", "12e6"),
            ("1E3", "1E3"),
            ("10e3", "10e3"),
            ("1e4", "10e3"),
            ("0.0000000001", "1n"),
            ("-0.5", "-500m"),
            ("1234567890123456789012", "1234567890123456789012"),
            ("0.5Mi", "512Ki"),
            ("500", "500"),
            ("1100Ki", "1100Ki"),
            ("1.500", "1.500"),
            ("2k", "2k"),
            ("2000k", "2M"),
        ];
        for (text, printed) in cases {
            assert_eq!(canonical(text).as_deref(), Ok(printed), "{text}");
        }
        for bad in ["", "x", "1x", "1 Gi", "1Gib", "--1", "1e", "1e3k"] {
            assert!(canonical(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_saturates_is_shown_as_what_it_is() {
        for text in [
            "-1999999999999999999999999999999999992E2",
            "-9220.00000000000000000000013372036854775E6808",
            "-22222222222222222222222222222222222222222222",
        ] {
            let shown = Quantity::parse(text).expect("a number").to_string();
            assert_eq!(Quantity::parse(&shown).map(|q| q.to_string()), Ok(shown), "{text}");
        }
    }

    #[test]
    fn arithmetic_and_order() {
        let q = |s: &str| Quantity::parse(s).unwrap();
        assert_eq!((q("100m") + q("900m")).to_string(), "1");
        assert_eq!((q("1Gi") - q("512Mi")).to_string(), "512Mi");
        assert_eq!((Quantity::ZERO + q("64Mi")).to_string(), "64Mi");
        assert!(q("1Gi") > q("1G"));
        assert_eq!(q("1"), q("1000m"));
        assert_eq!(q("1001m").value(), 2);
        assert_eq!(q("-1001m").value(), -2);
        assert_eq!(q("1.5").milli(), 1500);
        assert_eq!(q("1n").milli(), 1);
        assert!(q("1e30") > q("9E"));
        assert_eq!([q("1"), q("250m")].into_iter().sum::<Quantity>().to_string(), "1250m");
    }
}
