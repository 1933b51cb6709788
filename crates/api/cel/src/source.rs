//! The text of an expression, and errors that point into it in cel-go's words.

use std::fmt;
use std::sync::Arc;

/// The text as characters: positions are counted in code points.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) chars: Vec<char>,
    /// Each line with the offset of its first character. Lines are shared by all the errors in them, of which there may be many.
    lines: Vec<(usize, Arc<str>)>,
}

impl Source {
    pub(crate) fn new(text: &str) -> Source {
        let mut start = 0;
        let line = |line: &str| {
            let begins = start;
            start += line.chars().count() + 1;
            (begins, line.into())
        };
        Source { chars: text.chars().collect(), lines: text.split('\n').map(line).collect() }
    }

    pub(crate) fn issue(&self, offset: usize, message: impl Into<String>) -> Issue {
        let offset = offset.min(self.chars.len());
        let number = self.lines.partition_point(|(begins, _)| *begins <= offset);
        let (begins, line) = self.lines.get(number.saturating_sub(1)).cloned().unwrap_or_default();
        Issue { line: number, column: offset - begins, message: message.into(), snippet: line }
    }
}

/// Something wrong with an expression, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issue {
    pub line: usize,
    /// From 0; shown from 1.
    pub column: usize,
    pub message: String,
    snippet: Arc<str>,
}

/// Snippets longer than this are not shown.
const MAX_SNIPPET: usize = 16384;

impl fmt::Display for Issue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The end of nothing is no column.
        let column = if self.line == 1 && self.snippet.is_empty() { 0 } else { self.column + 1 };
        write!(f, "ERROR: <input>:{}:{column}: {}", self.line, self.message)?;
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

/// Of more issues than these it is only told how many there are.
pub(crate) const MAX_SHOWN: usize = 100;

/// All issues of an expression as one message, in the order of their places.
#[must_use]
pub fn display(issues: &[Issue]) -> String {
    let mut sorted: Vec<&Issue> = issues.iter().take(MAX_SHOWN).collect();
    sorted.sort_by_key(|i| (i.line, i.column));
    let mut lines: Vec<String> = sorted.iter().map(|i| i.to_string()).collect();
    if issues.len() > MAX_SHOWN {
        lines.push(format!("{} more errors were truncated", issues.len() - MAX_SHOWN));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        let source = Source::new("ab\nçd\n\nx");
        let at = |offset: usize| {
            let issue = source.issue(offset, "m");
            (issue.line, issue.column, issue.snippet.to_string())
        };
        for (offset, want) in [
            (0, (1, 0, "ab")),
            (2, (1, 2, "ab")),
            (3, (2, 0, "çd")),
            (4, (2, 1, "çd")),
            (6, (3, 0, "")),
            (7, (4, 0, "x")),
            (99, (4, 1, "x")),
        ] {
            assert_eq!(at(offset), (want.0, want.1, want.2.to_owned()), "{offset}");
        }
        assert_eq!(Source::new("").issue(0, "m").to_string(), "ERROR: <input>:1:0: m\n | \n | ^");
    }

    /// Found by the fuzzer: 12 KB of control characters made 150 MB of errors.
    #[test]
    fn many_errors_are_counted() {
        let source = Source::new(&"?".repeat(1000));
        let issues: Vec<Issue> = (0..1000).map(|i| source.issue(i, "m")).collect();
        let text = display(&issues);
        assert!(text.ends_with("\n900 more errors were truncated") && text.matches("ERROR").count() == 100, "{text}");
    }
}
