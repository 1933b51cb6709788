//! Regular expressions as Go has them (RE2's syntax and words), over the `regex` crate.

use regex::{Regex, RegexBuilder};
use regex_syntax::ast::{self, Ast, ErrorKind, RepetitionKind, RepetitionRange};

/// Compiled programs larger than this are refused: patterns are the user's, and compiling takes four times as much.
const MAX_PROGRAM: usize = 4 << 20;
/// The same for patterns that come with the data, each of which is compiled when it is met.
const MAX_PROGRAM_MET: usize = 1 << 20;
const MAX_DEPTH: u32 = 100;
const MAX_REPEATED: u32 = 1000;

/// Compiles a pattern that is kept: of a schema, or a constant of an expression.
///
/// # Errors
/// Go's words, as far as this engine knows what is wrong.
pub fn compile(pattern: &str) -> Result<Regex, String> {
    compile_within(MAX_PROGRAM, pattern)
}

/// Compiles a pattern that comes with the data.
///
/// # Errors
/// As [`compile`].
pub fn compile_met(pattern: &str) -> Result<Regex, String> {
    compile_within(MAX_PROGRAM_MET, pattern)
}

fn compile_within(most: usize, pattern: &str) -> Result<Regex, String> {
    let translated = translate(pattern);
    if let Some(why) = parsed(&translated).ok().and_then(|ast| repeats_too_often(&ast, &translated).err()) {
        return Err(format!("error parsing regexp: {why}"));
    }
    let built = RegexBuilder::new(&translated).size_limit(most).nest_limit(MAX_DEPTH).build();
    built.map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => format!("error parsing regexp: expression too large: `{pattern}`"),
        _ => format!("error parsing regexp: {}", wrong(pattern, &translated)),
    })
}

fn parsed(translated: &str) -> Result<Ast, ast::Error> {
    ast::parse::ParserBuilder::new().nest_limit(MAX_DEPTH).build().parse(translated)
}

/// Go's limits of repetition: an operator stands behind what is no repetition itself, and what stands in the innermost braces is there
/// [`MAX_REPEATED`] times at most. Returns how many times that is.
fn repeats_too_often(ast: &Ast, text: &str) -> Result<u32, String> {
    let most = |all: &[Ast]| all.iter().try_fold(1, |most, one| Ok(repeats_too_often(one, text)?.max(most)));
    let shown = |why: &str, from: usize, to: usize| format!("{why}: `{}`", text.get(from..to).unwrap_or(text));
    match ast {
        Ast::Group(group) => repeats_too_often(&group.ast, text),
        Ast::Alternation(branches) => most(&branches.asts),
        Ast::Concat(parts) => most(&parts.asts),
        Ast::Repetition(repetition) => {
            let inner = repeats_too_often(&repetition.ast, text)?;
            let operator = repetition.op.span;
            if let Ast::Repetition(inner) = &*repetition.ast {
                return Err(shown("invalid nested repetition operator", inner.op.span.start.offset, operator.end.offset));
            }
            let RepetitionKind::Range(range) = &repetition.op.kind else { return Ok(inner) };
            let (bound, times) = match range {
                RepetitionRange::Exactly(n) | RepetitionRange::Bounded(_, n) if *n == 0 => (0, 1),
                RepetitionRange::Exactly(n) | RepetitionRange::Bounded(_, n) | RepetitionRange::AtLeast(n) => {
                    (*n, inner.saturating_mul((*n).max(1)))
                }
            };
            if bound > MAX_REPEATED || times > MAX_REPEATED {
                return Err(shown("invalid repeat count", operator.start.offset, operator.end.offset));
            }
            Ok(times)
        }
        _ => Ok(1),
    }
}

fn wrong(pattern: &str, translated: &str) -> String {
    let Err(error) = parsed(translated) else {
        // It is put together rightly, and names a class of characters that there is not.
        let class = match regex_syntax::parse(translated) {
            Err(regex_syntax::Error::Translate(error)) => translated.get(error.span().start.offset..error.span().end.offset),
            _ => None,
        };
        return format!("invalid character class range: `{}`", class.unwrap_or(pattern));
    };
    let (from, to) = (error.span().start.offset, error.span().end.offset);
    let there = translated.get(from..to).unwrap_or(pattern);
    let (why, shown) = match error.kind() {
        ErrorKind::RepetitionMissing => {
            ("missing argument to repetition operator", translated.get(from..).and_then(|rest| rest.get(..1)).unwrap_or(there))
        }
        ErrorKind::GroupUnclosed => ("missing closing )", pattern),
        ErrorKind::GroupUnopened => ("unexpected )", pattern),
        ErrorKind::ClassUnclosed => ("missing closing ]", translated.get(from..).unwrap_or(there)),
        ErrorKind::ClassRangeInvalid | ErrorKind::ClassRangeLiteral => ("invalid character class range", there),
        ErrorKind::EscapeUnexpectedEof => ("trailing backslash at end of expression", ""),
        ErrorKind::EscapeUnrecognized
        | ErrorKind::EscapeHexEmpty
        | ErrorKind::EscapeHexInvalid
        | ErrorKind::EscapeHexInvalidDigit
        | ErrorKind::UnsupportedBackreference => ("invalid escape sequence", there),
        // A number that is none of 32 bits: it is shown with its braces.
        ErrorKind::DecimalInvalid => {
            let open = translated.get(..from).and_then(|before| before.rfind('{')).unwrap_or(from);
            let close = translated.get(to..).and_then(|rest| rest.find('}')).map_or(to, |at| to + at + 1);
            ("invalid repeat count", translated.get(open..close).unwrap_or(there))
        }
        ErrorKind::RepetitionCountInvalid => ("invalid repeat count", there),
        ErrorKind::NestLimitExceeded(_) => ("expression nests too deeply", pattern),
        ErrorKind::GroupNameDuplicate { .. } => ("duplicate capture group name", there),
        ErrorKind::GroupNameEmpty | ErrorKind::GroupNameInvalid | ErrorKind::GroupNameUnexpectedEof => ("invalid named capture", there),
        ErrorKind::UnsupportedLookAround => ("invalid or unsupported Perl syntax", there),
        _ => ("invalid syntax", pattern),
    };
    format!("{why}: `{shown}`")
}

/// Go's classes are of ASCII, brackets and braces may stand for themselves, and `\Q…\E` quotes.
fn translate(pattern: &str) -> String {
    let chars: Vec<char> = pattern.chars().collect();
    let (mut out, mut i, mut class) = (String::new(), 0, false);
    while i < chars.len() {
        let c = chars[i];
        match c {
            '\\' => {
                i += 1;
                escape(&chars, &mut i, class, &mut out);
            }
            '[' if !class => {
                class = true;
                out.push('[');
                if chars.get(i + 1) == Some(&'^') {
                    i += 1;
                    out.push('^');
                }
                if chars.get(i + 1) == Some(&']') {
                    i += 1;
                    out.push_str("\\]");
                }
            }
            '[' if chars.get(i + 1) == Some(&':') => match named_class(&chars, i) {
                Some(length) => {
                    out.extend(&chars[i..i + length]);
                    i += length - 1;
                }
                None => out.push_str("\\["),
            },
            '[' => out.push_str("\\["),
            ']' if class => {
                class = false;
                out.push(']');
            }
            '&' | '~' if class => out.extend(['\\', c]),
            '{' if !class && !repeats(&chars[i + 1..]) && !named(&chars[..i]) => out.push_str("\\{"),
            '}' if !class && !closes(&chars[..i]) => out.push_str("\\}"),
            c => out.push(c),
        }
        i += 1;
    }
    out
}

/// Longer than any repetition and any name of a class: looking further from every brace takes the square of the pattern's length (found by the fuzzer).
const FAR: usize = 64;

/// `[:alpha:]` and its kin.
fn named_class(chars: &[char], at: usize) -> Option<usize> {
    let end = chars[at + 2..].windows(2).take(FAR).position(|w| w == [':', ']'])?;
    chars[at + 2..at + 2 + end].iter().all(|c| c.is_ascii_lowercase() || *c == '^').then_some(end + 4)
}

fn escape(chars: &[char], i: &mut usize, class: bool, out: &mut String) {
    let (open, close) = if class { ("", "") } else { ("[", "]") };
    match chars.get(*i) {
        Some('d') => out.push_str(&format!("{open}0-9{close}")),
        Some('w') => out.push_str(&format!("{open}0-9A-Za-z_{close}")),
        Some('s') => out.push_str(&format!("{open}\\t\\n\\x0C\\r {close}")),
        Some('D') => out.push_str("[^0-9]"),
        Some('W') => out.push_str("[^0-9A-Za-z_]"),
        Some('S') => out.push_str("[^\\t\\n\\x0C\\r ]"),
        Some('b') if !class => out.push_str("(?-u:\\b)"),
        Some('B') if !class => out.push_str("(?-u:\\B)"),
        Some('Q') => {
            let rest = &chars[*i + 1..];
            let end = rest.windows(2).position(|w| w == ['\\', 'E']);
            let quoted: String = rest[..end.unwrap_or(rest.len())].iter().collect();
            out.push_str(&regex::escape(&quoted));
            // The end mark is taken too, where there is one.
            *i += end.map_or(rest.len(), |end| end + 2);
        }
        Some(c) => out.extend(['\\', *c]),
        None => out.push('\\'),
    }
}

/// Whether a repetition follows an opening brace: `3}`, `3,}`, `3,5}`.
fn repeats(rest: &[char]) -> bool {
    let Some(end) = rest.iter().take(FAR).position(|c| *c == '}') else { return false };
    let inner: String = rest[..end].iter().collect();
    let (low, high) = inner.split_once(',').unwrap_or((&inner, ""));
    !low.is_empty() && low.bytes().chain(high.bytes()).all(|b| b.is_ascii_digit())
}

/// Whether braces hold a name, or a number: `\p{Lu}`, `\x{10FFFF}`.
fn named(before: &[char]) -> bool {
    matches!(before, [.., '\\', 'p' | 'P' | 'x'])
}

/// Whether a closing brace ends a repetition or a class of Unicode.
fn closes(before: &[char]) -> bool {
    let before = &before[before.len().saturating_sub(FAR)..];
    let Some(open) = before.iter().rposition(|c| *c == '{') else { return false };
    let inner = &before[open + 1..];
    named(&before[..open]) || (inner.first().is_some_and(char::is_ascii_digit) && inner.iter().all(|c| c.is_ascii_digit() || *c == ','))
}

#[cfg(test)]
mod tests {
    use super::compile;

    #[test]
    fn as_in_go() {
        let cases = [
            (r"^\d+$", "१", false),
            (r"^\w+$", "é", false),
            (r"^[\w-]+$", "a-b", true),
            (r"^[[a]+$", "[a", true),
            (r"^a{x}$", "a{x}", true),
            (r"^a{2}$", "aa", true),
            (r"^[[:alpha:]]+$", "ab", true),
            (r"^\Qa.b\E$", "a.b", true),
            (r"^\Qa.\E\Q{b\E{2}$", "a.{bb", true),
            (r"^\p{Lu}$", "Ä", true),
            (r"(?i)^ä$", "Ä", true),
            (r"^[]a]+$", "]a", true),
            ("^(a*)*$", "aa", true),
            ("^a{2}?$", "aa", true),
            ("^(a{10}){100}$", "a", false),
            ("^(a{500}){1,2}$", "a", false),
            ("^((a{0}){900}b)$", "b", true),
        ];
        for (pattern, text, matches) in cases {
            assert_eq!(compile(pattern).map(|r| r.is_match(text)), Ok(matches), "{pattern}");
        }
        let met = super::compile_met(r"^\p{L}{1,63}$").map(drop);
        assert_eq!(met, Err(r"error parsing regexp: expression too large: `^\p{L}{1,63}$`".to_owned()));
        for large in [r"^.{1,1000}$", r"^[^ ]{1,1000}$", r"^\p{L}{1,63}$"] {
            assert!(compile(large).is_ok(), "{large}");
        }
    }

    #[test]
    fn errors_are_gos() {
        let cases = [
            ("+", "missing argument to repetition operator: `+`"),
            ("a|*", "missing argument to repetition operator: `*`"),
            ("a(b", "missing closing ): `a(b`"),
            ("a)b", "unexpected ): `a)b`"),
            ("a[b", "missing closing ]: `[b`"),
            (r"^\p{Foo}$", r"invalid character class range: `\p{Foo}`"),
            ("[b-a]", "invalid character class range: `b-a`"),
            (r"a\y", r"invalid escape sequence: `\y`"),
            (r"a\", "trailing backslash at end of expression: ``"),
            ("a{2,1}", "invalid repeat count: `{2,1}`"),
            ("(a{1000}){1000}", "invalid repeat count: `{1000}`"),
            ("a{1001,}", "invalid repeat count: `{1001,}`"),
            ("a{5,99999999999}", "invalid repeat count: `{5,99999999999}`"),
            ("(a{2000}){0}", "invalid repeat count: `{2000}`"),
            ("(a{11}){100}", "invalid repeat count: `{100}`"),
            ("((a{2,}){50}){11}", "invalid repeat count: `{11}`"),
            ("(a{300}|b{400}){3}", "invalid repeat count: `{3}`"),
            ("((a{600}){1,}){2}", "invalid repeat count: `{2}`"),
            ("a**", "invalid nested repetition operator: `**`"),
            ("a*??", "invalid nested repetition operator: `*??`"),
            ("a{2}?*", "invalid nested repetition operator: `{2}?*`"),
            ("(x{500}){0,1}{3}", "invalid nested repetition operator: `{0,1}{3}`"),
            (r"(\pL{500}){2}", r"expression too large: `(\pL{500}){2}`"),
        ];
        for (pattern, why) in cases {
            assert_eq!(compile(pattern).map(drop), Err(format!("error parsing regexp: {why}")), "{pattern}");
        }
    }

    /// Sixteen thousand braces took 170 ms, and more the square of it.
    #[test]
    fn braces_are_read_in_one_pass() {
        let braces = "{".repeat(100_000);
        assert_eq!(super::translate(&braces), "\\{".repeat(100_000));
        assert_eq!(super::translate(&"}".repeat(100_000)), "\\}".repeat(100_000));
        assert_eq!(super::translate(&r"\Q\E".repeat(100_000)), "");
    }
}
