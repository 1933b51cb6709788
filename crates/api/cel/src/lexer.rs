//! Tokens of CEL (the grammar of cel-spec, as cel-go's ANTLR lexer reads it).

use crate::source::{MAX_SHOWN, Source};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tok {
    Ident,
    EscapedIdent,
    Int,
    Uint,
    Float,
    Str,
    Bytes,
    /// Operators, brackets and the words `in`, `true`, `false`, `null`: known by their text.
    Sign,
    Eof,
}

#[derive(Debug, Clone)]
pub(crate) struct Token {
    pub(crate) kind: Tok,
    pub(crate) text: String,
    pub(crate) offset: usize,
}

impl Token {
    pub(crate) fn is(&self, sign: &str) -> bool {
        self.kind == Tok::Sign && self.text == sign
    }

    /// As syntax errors show it.
    pub(crate) fn shown(&self) -> String {
        if self.kind == Tok::Eof { "<EOF>".into() } else { self.text.replace('\n', "\\n").replace('\r', "\\r").replace('\t', "\\t") }
    }
}

/// The tokens with an end mark, and what could not be read: offsets with messages.
pub(crate) fn tokens(source: &Source) -> (Vec<Token>, Vec<(usize, String)>) {
    let mut lexer = Lexer { chars: &source.chars, at: 0, tokens: Vec::new(), errors: Vec::new() };
    while lexer.at < lexer.chars.len() {
        lexer.next();
    }
    lexer.tokens.push(Token { kind: Tok::Eof, text: String::new(), offset: lexer.at });
    (lexer.tokens, lexer.errors)
}

struct Lexer<'s> {
    chars: &'s [char],
    at: usize,
    tokens: Vec<Token>,
    errors: Vec<(usize, String)>,
}

const SIGNS: [&str; 24] =
    ["==", "!=", "<=", ">=", "&&", "||", "<", ">", "[", "]", "{", "}", "(", ")", ".", ",", "-", "!", "?", ":", "+", "*", "/", "%"];

impl Lexer<'_> {
    fn peek(&self, ahead: usize) -> char {
        self.chars.get(self.at + ahead).copied().unwrap_or('\0')
    }

    fn count(&self, from: usize, test: impl Fn(char) -> bool) -> usize {
        self.chars[(self.at + from).min(self.chars.len())..].iter().take_while(|c| test(**c)).count()
    }

    fn push(&mut self, kind: Tok, length: usize) {
        let text = self.chars[self.at..self.at + length].iter().collect();
        self.tokens.push(Token { kind, text, offset: self.at });
        self.at += length;
    }

    fn next(&mut self) {
        let c = self.peek(0);
        match c {
            ' ' | '\t' | '\r' | '\n' | '\u{c}' => self.at += 1,
            '/' if self.peek(1) == '/' => self.at += self.count(0, |c| c != '\n'),
            '0'..='9' => self.number(),
            '.' if self.peek(1).is_ascii_digit() => self.number(),
            '"' | '\'' => self.string(0, false),
            'a'..='z' | 'A'..='Z' | '_' => self.word(),
            '`' => self.escaped(),
            _ => self.sign(c),
        }
    }

    fn sign(&mut self, c: char) {
        let found = SIGNS.iter().find(|s| s.chars().enumerate().all(|(i, c)| self.peek(i) == c));
        match found {
            Some(sign) => self.push(Tok::Sign, sign.len()),
            None => self.error(1, c.to_string()),
        }
    }

    fn error(&mut self, length: usize, shown: String) {
        let shown = shown.replace('\n', "\\n").replace('\t', "\\t").replace('\r', "\\r");
        if self.errors.len() <= MAX_SHOWN {
            self.errors.push((self.at, format!("Syntax error: token recognition error at: '{shown}'")));
        }
        self.at += length;
    }

    fn escaped(&mut self) {
        let inner = self.count(1, |c| c.is_ascii_alphanumeric() || "_.-/ ".contains(c));
        if inner > 0 && self.peek(inner + 1) == '`' { self.push(Tok::EscapedIdent, inner + 2) } else { self.error(1, "`".into()) }
    }

    fn word(&mut self) {
        // Prefixes of strings: r, b, br, rb is no prefix.
        let lower = |ahead: usize| self.peek(ahead).to_ascii_lowercase();
        let quote = |c: char| c == '"' || c == '\'';
        match (lower(0), lower(1)) {
            ('r', q) if quote(q) => return self.string(1, true),
            ('b', q) if quote(q) => return self.string(1, false),
            ('b', 'r') if quote(self.peek(2)) => return self.string(2, true),
            _ => {}
        }
        let length = self.count(0, |c| c.is_ascii_alphanumeric() || c == '_');
        let text: String = self.chars[self.at..self.at + length].iter().collect();
        let sign = matches!(text.as_str(), "in" | "true" | "false" | "null");
        self.push(if sign { Tok::Sign } else { Tok::Ident }, length);
    }

    fn number(&mut self) {
        let digit = |c: char| c.is_ascii_digit();
        if self.peek(0) == '0' && self.peek(1) == 'x' {
            let hex = self.count(2, |c| c.is_ascii_hexdigit());
            if hex > 0 {
                let unsigned = matches!(self.peek(2 + hex), 'u' | 'U');
                return self.push(if unsigned { Tok::Uint } else { Tok::Int }, 2 + hex + usize::from(unsigned));
            }
        }
        let whole = self.count(0, digit);
        let mut length = whole;
        let mut float = false;
        if self.peek(length) == '.' && self.peek(length + 1).is_ascii_digit() {
            float = true;
            length += 1 + self.count(length + 1, digit);
        }
        if matches!(self.peek(length), 'e' | 'E') {
            let sign = usize::from(matches!(self.peek(length + 1), '+' | '-'));
            let exponent = self.count(length + 1 + sign, digit);
            if exponent > 0 {
                float = true;
                length += 1 + sign + exponent;
            }
        }
        match (float, self.peek(length)) {
            (true, _) => self.push(Tok::Float, length),
            (false, 'u' | 'U') => self.push(Tok::Uint, length + 1),
            (false, _) => self.push(Tok::Int, length),
        }
    }

    /// A string that begins after `prefix` letters. Escapes are read later; here only its end is found.
    fn string(&mut self, prefix: usize, raw: bool) {
        let bytes = matches!(self.peek(0), 'b' | 'B');
        let quote = self.peek(prefix);
        let triple = self.peek(prefix + 1) == quote && self.peek(prefix + 2) == quote;
        let mut i = prefix + if triple { 3 } else { 1 };
        loop {
            let Some(c) = self.chars.get(self.at + i).copied() else { break self.unterminated(i) };
            if c == '\\' && !raw {
                i += 2;
            } else if c == quote && !triple {
                break self.push(if bytes { Tok::Bytes } else { Tok::Str }, i + 1);
            } else if c == quote && self.peek(i + 1) == quote && self.peek(i + 2) == quote {
                break self.push(if bytes { Tok::Bytes } else { Tok::Str }, i + 3);
            } else if !triple && (c == '\n' || c == '\r') {
                break self.unterminated(i);
            } else {
                i += 1;
            }
        }
    }

    fn unterminated(&mut self, length: usize) {
        let length = length.min(self.chars.len() - self.at);
        let shown = self.chars[self.at..self.at + length].iter().collect();
        self.error(length.max(1), shown);
    }
}
