//! What `encoding/json` says about text that is no JSON. Asked only when something is wrong already; decoding itself is serde_json's.

/// The error of Go's scanner, or `None` where the text is JSON.
pub(crate) fn error(text: &[u8]) -> Option<String> {
    let mut scanner = Scanner { text, at: 0 };
    scanner.document().err()
}

struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
}

type Step = Result<(), String>;

/// Deeper than Go goes, too.
const MAX_DEPTH: usize = 10_000;

impl Scanner<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    /// The character here does not belong. Where the text ends, Go tries a space first, which only literals and numbers mind.
    fn bad<T>(&self, context: &str) -> Result<T, String> {
        match self.peek() {
            Some(c) => Err(format!("invalid character {} {context}", quoted(c))),
            None => Err("unexpected end of JSON input".into()),
        }
    }

    fn bad_even_at_end<T>(&self, context: &str) -> Result<T, String> {
        Err(format!("invalid character {} {context}", quoted(self.peek().unwrap_or(b' '))))
    }

    fn document(&mut self) -> Step {
        self.value()?;
        self.space();
        if self.peek().is_some() { self.bad("after top-level value") } else { Ok(()) }
    }

    /// A value with all that is in it. What is open is kept in a list: nesting is the sender's, and a stack has an end.
    fn value(&mut self) -> Step {
        let mut open = Vec::new();
        loop {
            if open.len() > MAX_DEPTH {
                return Err("exceeded max depth".into());
            }
            self.space();
            match self.peek() {
                Some(bracket @ (b'{' | b'[')) => {
                    if self.opened(bracket)? {
                        open.push(bracket);
                        continue;
                    }
                }
                Some(b'"') => self.string()?,
                Some(b'-' | b'0'..=b'9') => self.number()?,
                Some(b't') => self.literal("true")?,
                Some(b'f') => self.literal("false")?,
                Some(b'n') => self.literal("null")?,
                _ => return self.bad("looking for beginning of value"),
            }
            if self.ended(&mut open)? {
                return Ok(());
            }
        }
    }

    /// Whether something is in what opens here; of an object the first key is read.
    fn opened(&mut self, bracket: u8) -> Result<bool, String> {
        self.at += 1;
        self.space();
        if self.peek() == Some(closing(bracket)) {
            self.at += 1;
            return Ok(false);
        }
        if bracket == b'{' {
            self.key()?;
        }
        Ok(true)
    }

    /// Behind a value: everything that closes, up to the next value. Whether there is none.
    fn ended(&mut self, open: &mut Vec<u8>) -> Result<bool, String> {
        while let Some(&bracket) = open.last() {
            self.space();
            match self.peek() {
                Some(b',') => {
                    self.at += 1;
                    if bracket == b'{' {
                        self.key()?;
                    }
                    return Ok(false);
                }
                Some(c) if c == closing(bracket) => {
                    self.at += 1;
                    open.pop();
                }
                _ if bracket == b'{' => return self.bad("after object key:value pair"),
                _ => return self.bad("after array element"),
            }
        }
        Ok(true)
    }

    fn key(&mut self) -> Step {
        self.space();
        if self.peek() != Some(b'"') {
            return self.bad("looking for beginning of object key string");
        }
        self.string()?;
        self.space();
        if self.peek() != Some(b':') {
            return self.bad("after object key");
        }
        self.at += 1;
        Ok(())
    }

    fn string(&mut self) -> Step {
        self.at += 1;
        loop {
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => self.escape()?,
                Some(0..0x20) => return self.bad("in string literal"),
                Some(_) => self.at += 1,
                None => return self.bad("in string literal"),
            }
        }
        self.at += 1;
        Ok(())
    }

    fn escape(&mut self) -> Step {
        self.at += 1;
        match self.peek() {
            Some(b'b' | b'f' | b'n' | b'r' | b't' | b'\\' | b'/' | b'"') => self.at += 1,
            Some(b'u') => {
                self.at += 1;
                for _ in 0..4 {
                    if !self.peek().is_some_and(|c| c.is_ascii_hexdigit()) {
                        return self.bad_even_at_end("in \\u hexadecimal character escape");
                    }
                    self.at += 1;
                }
            }
            _ => return self.bad_even_at_end("in string escape code"),
        }
        Ok(())
    }

    fn digits(&mut self) {
        while self.peek().is_some_and(|c| c.is_ascii_digit()) {
            self.at += 1;
        }
    }

    fn number(&mut self) -> Step {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.peek() {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.digits(),
            _ => return self.bad_even_at_end("in numeric literal"),
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            if !self.peek().is_some_and(|c| c.is_ascii_digit()) {
                return self.bad_even_at_end("after decimal point in numeric literal");
            }
            self.digits();
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            if !self.peek().is_some_and(|c| c.is_ascii_digit()) {
                return self.bad_even_at_end("in exponent of numeric literal");
            }
            self.digits();
        }
        Ok(())
    }

    fn literal(&mut self, word: &str) -> Step {
        for wanted in word.bytes() {
            if self.peek() != Some(wanted) {
                return self.bad_even_at_end(&format!("in literal {word} (expecting {})", quoted(wanted)));
            }
            self.at += 1;
        }
        Ok(())
    }
}

fn closing(bracket: u8) -> u8 {
    if bracket == b'{' { b'}' } else { b']' }
}

/// A byte as Go quotes it, which takes it for a character.
fn quoted(byte: u8) -> String {
    match byte {
        b'\'' => r"'\''".into(),
        b'"' => "'\"'".into(),
        b'\\' => r"'\\'".into(),
        0x07 => r"'\a'".into(),
        0x08 => r"'\b'".into(),
        0x0c => r"'\f'".into(),
        b'\n' => r"'\n'".into(),
        b'\r' => r"'\r'".into(),
        b'\t' => r"'\t'".into(),
        0x0b => r"'\v'".into(),
        0x00..0x20 | 0x7f => format!("'\\x{byte:02x}'"),
        0x80..=0xa0 | 0xad => format!("'\\u{byte:04x}'"),
        _ => format!("'{}'", char::from(byte)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_gos() {
        let cases = [
            ("", "unexpected end of JSON input"),
            ("{", "unexpected end of JSON input"),
            ("{\"a\"}", "invalid character '}' after object key"),
            ("{\"a\":1 \"b\"}", "invalid character '\"' after object key:value pair"),
            ("[1 2]", "invalid character '2' after array element"),
            ("[1,]", "invalid character ']' looking for beginning of value"),
            ("{a:1}", "invalid character 'a' looking for beginning of object key string"),
            ("{\"a\":1,}", "invalid character '}' looking for beginning of object key string"),
            ("tru", "invalid character ' ' in literal true (expecting 'e')"),
            ("nul1", "invalid character '1' in literal null (expecting 'l')"),
            ("1.x", "invalid character 'x' after decimal point in numeric literal"),
            ("-", "invalid character ' ' in numeric literal"),
            ("01", "invalid character '1' after top-level value"),
            ("\"\n\"", "invalid character '\\n' in string literal"),
            ("\"\\x\"", "invalid character 'x' in string escape code"),
            ("{} {}", "invalid character '{' after top-level value"),
            ("{\"a\":[{},[1}", "invalid character '}' after array element"),
            ("[[],{\"a\":{}},", "unexpected end of JSON input"),
        ];
        for (text, words) in cases {
            assert_eq!(error(text.as_bytes()).as_deref(), Some(words), "{text}");
        }
        assert_eq!(error("[".repeat(1_000_000).as_bytes()).as_deref(), Some("exceeded max depth"));
        assert_eq!(error("{\"a\":".repeat(1_000_000).as_bytes()).as_deref(), Some("exceeded max depth"));
        assert_eq!(error(format!("{}{}", "[".repeat(10_000), "]".repeat(10_000)).as_bytes()), None);
        assert_eq!(error(b" {\"a\": [{}, [], 1.5e-3, true, null, \"\\u00e9\"]} "), None);
    }
}
