//! Where in an expression something is wrong, and how that is shown.
//!
//! Source: the reference implementation's form, which people and tools look for:
//!
//! ```text
//! ERROR: <input>:1:5: undefined field 'x'
//!  | self.x
//!  | ....^
//! ```

use std::fmt;

/// Errors reported of one expression: enough to mend it, bounded against hostile input.
pub(super) const ERRORS_MAX: usize = 32;
/// Characters of a line that are shown.
const LINE_CHARS_MAX: usize = 2_000;

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompileError {
    /// What is wrong.
    pub message: String,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// The line it is on.
    pub shown: String,
}

/// Why an expression is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompileErrors {
    /// In the order of the text; at least one.
    pub errors: Vec<CompileError>,
}

impl fmt::Display for CompileError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "ERROR: <input>:{}:{}: {}", self.line, self.column, self.message)?;
        if self.column > LINE_CHARS_MAX {
            return Ok(());
        }
        let shown: String = self.shown.chars().take(LINE_CHARS_MAX).collect();
        write!(out, "\n | {shown}\n | {}^", ".".repeat(self.column - 1))
    }
}

impl fmt::Display for CompileErrors {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, error) in self.errors.iter().enumerate() {
            if at > 0 {
                out.write_str("\n")?;
            }
            write!(out, "{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for CompileErrors {}

/// A finding at a byte of the text.
#[derive(Debug, Clone)]
pub(super) struct Finding {
    pub at: u32,
    pub message: String,
}

impl Finding {
    pub fn new(at: u32, message: impl Into<String>) -> Finding {
        Finding { at, message: message.into() }
    }
}

/// Findings with their lines and columns.
pub(super) fn locate(text: &str, mut findings: Vec<Finding>) -> CompileErrors {
    findings.sort_by_key(|finding| finding.at);
    findings.truncate(ERRORS_MAX);
    let errors = findings.into_iter().map(|finding| {
        let at = (finding.at as usize).min(text.len());
        let start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
        let end = text[at..].find('\n').map_or(text.len(), |newline| at + newline);
        CompileError {
            message: finding.message,
            line: text[..at].matches('\n').count() + 1,
            column: text[start..at].chars().count() + 1,
            shown: text[start..end].chars().take(LINE_CHARS_MAX).collect(),
        }
    });
    CompileErrors { errors: errors.collect() }
}
