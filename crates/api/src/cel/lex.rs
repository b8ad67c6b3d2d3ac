//! Text to tokens.
//!
//! Source: CEL language definition, "Syntax".

use std::sync::Arc;

use super::source::Finding;

/// Characters of an expression, at most; the reference implementation's limit.
pub(super) const EXPRESSION_CHARS_MAX: usize = 100_000;

/// One token.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    Ident(Arc<str>),
    Int(Arc<str>),
    Uint(u64),
    Double(f64),
    String(Arc<str>),
    Bytes(Arc<[u8]>),
    /// An operator or bracket.
    Mark(&'static str),
    End,
}

impl Token {
    /// How it is named in an error.
    pub fn shown(&self) -> String {
        match self {
            Token::Ident(text) | Token::Int(text) => text.to_string(),
            Token::Uint(number) => format!("{number}u"),
            Token::Double(number) => number.to_string(),
            Token::String(text) => format!("{text:?}"),
            Token::Bytes(_) => "bytes".to_owned(),
            Token::Mark(mark) => (*mark).to_owned(),
            Token::End => "<EOF>".to_owned(),
        }
    }
}

/// Longest first.
const MARKS: [&str; 25] = [
    "==", "!=", "<=", ">=", "&&", "||", "[", "]", "{", "}", "(", ")", ".", ",", "-", "!", "?", ":", "+", "*", "/", "%",
    "<", ">", "=",
];

/// The tokens of a text with their byte positions; the last is `End`.
pub(super) fn lex(text: &str) -> Result<Vec<(Token, u32)>, Finding> {
    let size = text.chars().count();
    if size > EXPRESSION_CHARS_MAX {
        let message = format!("expression code point size exceeds limit: size: {size}, limit {EXPRESSION_CHARS_MAX}");
        return Err(Finding::new(0, message));
    }
    let mut lexer = Lexer { text, at: 0 };
    let mut tokens = Vec::new();
    loop {
        lexer.skip_blank();
        let at = lexer.at as u32;
        let token = lexer.next()?;
        let last = token == Token::End;
        tokens.push((token, at));
        if last {
            return Ok(tokens);
        }
    }
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

impl Lexer<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn skip_blank(&mut self) {
        loop {
            let rest = self.rest();
            let blank = rest.len() - rest.trim_start_matches([' ', '\t', '\n', '\r', '\u{c}']).len();
            self.at += blank;
            if !self.rest().starts_with("//") {
                return;
            }
            self.at += self.rest().find('\n').unwrap_or(self.rest().len());
        }
    }

    fn next(&mut self) -> Result<Token, Finding> {
        let bytes = self.rest().as_bytes();
        let (first, second) = (bytes.first().copied(), bytes.get(1).copied());
        let Some(first) = first else { return Ok(Token::End) };
        let number = first.is_ascii_digit() || (first == b'.' && second.is_some_and(|next| next.is_ascii_digit()));
        if number {
            return self.number();
        }
        let prefix = bytes.iter().take(2).take_while(|byte| b"rRbB".contains(byte)).count();
        if bytes.get(prefix).is_some_and(|byte| matches!(byte, b'"' | b'\'')) {
            let kinds = &bytes[..prefix];
            let has = |kind: u8| kinds.iter().filter(|byte| byte.eq_ignore_ascii_case(&kind)).count();
            if has(b'r') < 2 && has(b'b') < 2 {
                let (raw, is_bytes) = (has(b'r') == 1, has(b'b') == 1);
                self.at += prefix;
                return self.quoted(raw, is_bytes);
            }
        }
        if first.is_ascii_alphabetic() || first == b'_' {
            let end = bytes.iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_').count();
            let word = self.rest()[..end].into();
            self.at += end;
            return Ok(Token::Ident(word));
        }
        match MARKS.into_iter().find(|mark| self.rest().starts_with(mark)) {
            Some(mark) => {
                self.at += mark.len();
                Ok(Token::Mark(mark))
            }
            None => {
                let shown: String = self.rest().chars().take(1).collect();
                Err(Finding::new(self.at as u32, format!("Syntax error: token recognition error at: '{shown}'")))
            }
        }
    }

    fn number(&mut self) -> Result<Token, Finding> {
        let start = self.at;
        let hex = self.rest().starts_with("0x") || self.rest().starts_with("0X");
        let mut double = false;
        if hex {
            self.at += 2;
            self.digits(|byte| byte.is_ascii_hexdigit());
        } else {
            self.digits(|byte| byte.is_ascii_digit());
            let bytes = self.rest().as_bytes();
            if bytes.first() == Some(&b'.') && bytes.get(1).is_some_and(|byte| byte.is_ascii_digit()) {
                double = true;
                self.at += 1;
                self.digits(|byte| byte.is_ascii_digit());
            }
            let bytes = self.rest().as_bytes();
            let sign = usize::from(matches!(bytes.get(1), Some(b'+' | b'-')));
            let exponent = matches!(bytes.first(), Some(b'e' | b'E'));
            if exponent && bytes.get(1 + sign).is_some_and(|byte| byte.is_ascii_digit()) {
                double = true;
                self.at += 1 + sign;
                self.digits(|byte| byte.is_ascii_digit());
            }
        }
        let digits = &self.text[start..self.at];
        if double {
            let number = digits.parse().map_err(|_| Finding::new(start as u32, "invalid double literal"))?;
            return Ok(Token::Double(number));
        }
        if self.rest().starts_with(['u', 'U']) {
            self.at += 1;
            let number = if hex { u64::from_str_radix(&digits[2..], 16) } else { digits.parse() };
            return number.map(Token::Uint).map_err(|_| Finding::new(start as u32, "invalid uint literal"));
        }
        Ok(Token::Int(digits.into()))
    }

    fn digits(&mut self, is_digit: fn(&u8) -> bool) {
        self.at += self.rest().as_bytes().iter().take_while(|byte| is_digit(byte)).count();
    }

    fn quoted(&mut self, raw: bool, is_bytes: bool) -> Result<Token, Finding> {
        let start = self.at as u32;
        let rest = self.rest();
        let quote = if rest.starts_with("\"\"\"") || rest.starts_with("'''") { &rest[..3] } else { &rest[..1] };
        let quote = quote.to_owned();
        self.at += quote.len();
        let mut out = Vec::new();
        loop {
            let rest = self.rest();
            if rest.starts_with(quote.as_str()) {
                self.at += quote.len();
                break;
            }
            let Some(next) = rest.chars().next() else {
                return Err(Finding::new(start, "Syntax error: string literal is not closed"));
            };
            if quote.len() == 1 && matches!(next, '\n' | '\r') {
                return Err(Finding::new(start, "Syntax error: string literal is not closed on its line"));
            }
            if next == '\\' && !raw {
                let (used, piece) = escape(rest, is_bytes).map_err(|why| Finding::new(self.at as u32, why))?;
                out.extend_from_slice(&piece);
                self.at += used;
            } else if next == '\\' && rest[1..].starts_with(['\'', '"']) {
                // in raw text a backslash keeps a quote from ending it, and both stay
                out.extend_from_slice(&rest.as_bytes()[..2]);
                self.at += 2;
            } else {
                out.extend_from_slice(next.encode_utf8(&mut [0; 4]).as_bytes());
                self.at += next.len_utf8();
            }
        }
        if is_bytes {
            return Ok(Token::Bytes(out.into()));
        }
        let text = String::from_utf8(out).map_err(|_| Finding::new(start, "invalid string literal"))?;
        Ok(Token::String(text.into()))
    }
}

/// The bytes that an escape at the start of `rest` stands for, and its length.
fn escape(rest: &str, is_bytes: bool) -> Result<(usize, Vec<u8>), String> {
    let kind = rest.as_bytes().get(1).copied().unwrap_or_default();
    let plain = |byte: u8| Ok((2, vec![byte]));
    let wrong = || Err(format!("invalid escape sequence: {}", rest.chars().take(2).collect::<String>()));
    let (skipped, digits, radix) = match kind {
        b'a' => return plain(7),
        b'b' => return plain(8),
        b'f' => return plain(12),
        b'n' => return plain(b'\n'),
        b'r' => return plain(b'\r'),
        b't' => return plain(b'\t'),
        b'v' => return plain(11),
        b'\\' | b'?' | b'"' | b'\'' | b'`' => return plain(kind),
        b'x' | b'X' => (2, 2, 16),
        b'u' if !is_bytes => (2, 4, 16),
        b'U' if !is_bytes => (2, 8, 16),
        b'0'..=b'3' => (1, 3, 8),
        _ => return wrong(),
    };
    let number = rest.get(skipped..skipped + digits).and_then(|text| u32::from_str_radix(text, radix).ok());
    let Some(number) = number else { return wrong() };
    let used = skipped + digits;
    match (is_bytes, u8::try_from(number), char::from_u32(number)) {
        (true, Ok(byte), _) => Ok((used, vec![byte])),
        (false, _, Some(char)) => Ok((used, char.to_string().into_bytes())),
        _ => wrong(),
    }
}
