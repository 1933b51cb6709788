//! The text of an expression, and errors that point into it in cel-go's words.

use std::fmt;

/// The text as characters: positions are counted in code points.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) chars: Vec<char>,
}

impl Source {
    pub(crate) fn new(text: &str) -> Source {
        Source { chars: text.chars().collect() }
    }

    /// Line (from 1) and column (from 0) of an offset.
    fn place(&self, offset: usize) -> (usize, usize) {
        let before = &self.chars[..offset.min(self.chars.len())];
        let line = before.iter().filter(|c| **c == '\n').count() + 1;
        let column = before.iter().rev().take_while(|c| **c != '\n').count();
        (line, column)
    }

    fn line(&self, number: usize) -> String {
        self.chars.split(|c| *c == '\n').nth(number - 1).unwrap_or_default().iter().collect()
    }

    pub(crate) fn issue(&self, offset: usize, message: impl Into<String>) -> Issue {
        let (line, column) = self.place(offset);
        Issue { line, column, message: message.into(), snippet: self.line(line) }
    }
}

/// Something wrong with an expression, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issue {
    pub line: usize,
    /// From 0; shown from 1.
    pub column: usize,
    pub message: String,
    snippet: String,
}

/// Snippets longer than this are not shown.
const MAX_SNIPPET: usize = 16384;

impl fmt::Display for Issue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ERROR: <input>:{}:{}: {}", self.line, self.column + 1, self.message)?;
        if self.snippet.len() > MAX_SNIPPET {
            return Ok(());
        }
        write!(f, "\n | {}\n | ", self.snippet.replace('\t', " "))?;
        let mut chars = self.snippet.chars();
        for c in chars.by_ref().take(self.column) {
            f.write_str(if c.is_ascii() { "." } else { "\u{ff0e}" })?;
        }
        f.write_str(if chars.next().is_none_or(|c| c.is_ascii()) { "^" } else { "\u{ff3e}" })
    }
}

/// All issues of an expression as one message, in the order of their places.
#[must_use]
pub fn display(issues: &[Issue]) -> String {
    let mut sorted: Vec<&Issue> = issues.iter().collect();
    sorted.sort_by_key(|i| (i.line, i.column));
    sorted.iter().map(|i| i.to_string()).collect::<Vec<_>>().join("\n")
}
