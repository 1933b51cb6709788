//! Literals: numbers and strings with their escapes.

use crate::ast::Literal;
use crate::lexer::{Tok, Token};

pub(crate) fn read(token: &Token, negative: bool) -> Result<Literal, String> {
    let signed = |text: &str| if negative { format!("-{text}") } else { text.to_owned() };
    match token.kind {
        Tok::Int => {
            let value = match token.text.strip_prefix("0x") {
                Some(hex) => i64::from_str_radix(&signed(hex), 16),
                None => signed(&token.text).parse(),
            };
            value.map(Literal::Int).map_err(|_| "invalid int literal".into())
        }
        Tok::Uint => {
            let text = &token.text[..token.text.len() - 1];
            let value = match text.strip_prefix("0x") {
                Some(hex) => u64::from_str_radix(hex, 16),
                None => text.parse(),
            };
            value.map(Literal::Uint).map_err(|_| "invalid uint literal".into())
        }
        Tok::Float => {
            let value: Result<f64, _> = signed(&token.text).parse();
            value.ok().filter(|v| v.is_finite()).map(Literal::Double).ok_or_else(|| "invalid double literal".into())
        }
        Tok::Bytes => Ok(Literal::Bytes(unquote(&token.text[1..], true)?.into())),
        _ => {
            let bytes = unquote(&token.text, false)?;
            String::from_utf8(bytes).map(|text| Literal::Str(text.into())).map_err(|_| "unable to unescape string".into())
        }
    }
}

/// The content of a quoted string; in bytes, `\x` and octal escapes are single bytes.
fn unquote(text: &str, bytes: bool) -> Result<Vec<u8>, String> {
    let raw = text.starts_with(['r', 'R']);
    let text = if raw { &text[1..] } else { text };
    let quotes = if text.len() >= 6 && (text.starts_with("\"\"\"") || text.starts_with("'''")) { 3 } else { 1 };
    let inner = text.get(quotes..text.len() - quotes).ok_or("unable to unescape string")?;
    // Line ends in strings of several lines are one kind, as cel-go has it.
    let inner = inner.replace("\r\n", "\n").replace('\r', "\n");
    if raw || !inner.contains('\\') {
        return Ok(inner.into_bytes());
    }
    let mut out = Vec::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        if c == '\\' {
            escape(&mut chars, bytes, &mut out)?;
        } else {
            push(&mut out, c);
        }
    }
    Ok(out)
}

fn push(out: &mut Vec<u8>, c: char) {
    out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
}

fn escape(chars: &mut std::str::Chars<'_>, bytes: bool, out: &mut Vec<u8>) -> Result<(), String> {
    let c = chars.next().ok_or("unable to unescape string, found '\\' as last character")?;
    let simple = match c {
        'a' => '\u{7}',
        'b' => '\u{8}',
        'f' => '\u{c}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\u{b}',
        '\\' | '\'' | '"' | '`' | '?' => c,
        'x' | 'X' => return code(chars, 2, 16, 0, bytes, out),
        'u' if !bytes => return code(chars, 4, 16, 0, false, out),
        'U' if !bytes => return code(chars, 8, 16, 0, false, out),
        '0'..='3' => return code(chars, 2, 8, c as u32 - '0' as u32, bytes, out),
        _ => return Err("unable to unescape string".into()),
    };
    push(out, simple);
    Ok(())
}

fn code(chars: &mut std::str::Chars<'_>, digits: usize, radix: u32, first: u32, byte: bool, out: &mut Vec<u8>) -> Result<(), String> {
    let mut value = first;
    for _ in 0..digits {
        let digit = chars.next().and_then(|c| c.to_digit(radix)).ok_or("unable to unescape string")?;
        value = value.wrapping_mul(radix).wrapping_add(digit);
    }
    if byte {
        out.push(u8::try_from(value).map_err(|_| "unable to unescape string")?);
    } else {
        push(out, char::from_u32(value).ok_or("invalid unicode code point")?);
    }
    Ok(())
}
