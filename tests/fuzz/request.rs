//! One request, as data: it can be printed and sent again.

use std::fmt;

use http::Method;

/// What is sent.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: Method,
    pub path: String,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
}

impl fmt::Display for Request {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN_MAX: usize = 4_000;
        write!(out, "{} {} {:?}", self.method, self.path, self.headers)?;
        let shown = &self.body[..self.body.len().min(SHOWN_MAX)];
        write!(out, "\n{}", String::from_utf8_lossy(shown))?;
        if shown.len() < self.body.len() { write!(out, "… ({} bytes)", self.body.len()) } else { Ok(()) }
    }
}
