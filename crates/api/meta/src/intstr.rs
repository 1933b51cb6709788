//! `IntOrString`, and its scaling against a total (`maxSurge: 25%`).

use std::fmt;

use serde_json::Value;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum IntOrString {
    Int(i32),
    String(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Round {
    Up,
    Down,
}

impl IntOrString {
    pub fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::String(s) => Some(IntOrString::String(s.clone())),
            Value::Number(n) => n.as_i64().and_then(|n| i32::try_from(n).ok()).map(IntOrString::Int),
            _ => None,
        }
    }

    /// A percentage of `total`, or the number itself; `None` where the text is no percentage.
    pub fn scaled(&self, total: i32, round: Round) -> Option<i32> {
        match self {
            IntOrString::Int(n) => Some(*n),
            IntOrString::String(s) => {
                let percent: i64 = s.strip_suffix('%')?.parse().ok()?;
                let product = percent * i64::from(total);
                let whole = product.div_euclid(100);
                let up = i64::from(round == Round::Up && product.rem_euclid(100) != 0);
                i32::try_from(whole + up).ok()
            }
        }
    }
}

impl fmt::Display for IntOrString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IntOrString::Int(n) => n.fmt(f),
            IntOrString::String(s) => f.write_str(s),
        }
    }
}

impl From<&IntOrString> for Value {
    fn from(value: &IntOrString) -> Value {
        match value {
            IntOrString::Int(n) => (*n).into(),
            IntOrString::String(s) => s.as_str().into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_round_as_told() {
        let p = |s: &str| IntOrString::String(s.into());
        assert_eq!(p("25%").scaled(10, Round::Up), Some(3));
        assert_eq!(p("25%").scaled(10, Round::Down), Some(2));
        assert_eq!(p("0%").scaled(10, Round::Up), Some(0));
        assert_eq!(p("100%").scaled(7, Round::Up), Some(7));
        assert_eq!(p("x").scaled(7, Round::Up), None);
        assert_eq!(IntOrString::Int(4).scaled(7, Round::Up), Some(4));
    }
}
