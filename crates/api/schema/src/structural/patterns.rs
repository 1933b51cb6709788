//! Regular expressions of schemas, compiled once: compiling one costs more than all the rest of validation.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use regex::Regex;

use crate::re2;

/// When there are so many, all are forgotten: what is in use is soon there again.
const MOST: usize = 512;

type Compiled = HashMap<String, Option<Arc<Regex>>>;

static COMPILED: LazyLock<Mutex<Compiled>> = LazyLock::new(Mutex::default);

/// Whether the text has what the pattern describes. What is no pattern fits nothing.
pub(super) fn fits(pattern: &str, text: &str) -> bool {
    compiled(pattern).is_some_and(|regex| regex.is_match(text))
}

fn compiled(pattern: &str) -> Option<Arc<Regex>> {
    let mut all = COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = all.get(pattern) {
        return known.clone();
    }
    if all.len() >= MOST {
        all.clear();
    }
    let regex = re2::compile(pattern).ok().map(Arc::new);
    all.insert(pattern.to_owned(), regex.clone());
    regex
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for _ in 0..2 {
            assert!(fits("^a+$", "aaa"));
            assert!(!fits("^a+$", "b"));
            assert!(!fits("(", "("));
            assert!(fits(r"^\d+$", "12") && !fits(r"^\d+$", "१"), "classes are of ASCII in Go");
        }
    }
}
