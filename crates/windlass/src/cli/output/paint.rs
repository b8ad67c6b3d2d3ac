//! Colours, where a person looks: only on a terminal, and not where NO_COLOR is set.

use std::io::IsTerminal;

/// Whether what is printed is coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Paint(bool);

const BOLD: &str = "\u{1b}[1m";
const RED: &str = "\u{1b}[31m";
const GREEN: &str = "\u{1b}[32m";
const YELLOW: &str = "\u{1b}[33m";
const PLAIN: &str = "\u{1b}[0m";

impl Paint {
    /// As standard output and the environment ask for.
    pub fn of_stdout() -> Paint {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        Paint(std::io::stdout().is_terminal() && !refused && !dumb)
    }

    /// Never.
    #[cfg(test)]
    pub fn none() -> Paint {
        Paint(false)
    }

    /// A column's title.
    pub fn title(self, text: &str) -> String {
        self.wrap(BOLD, text)
    }

    /// A cell of a table: words that say how something is get the colour of that.
    pub fn cell(self, text: &str) -> String {
        match colour_of(text) {
            Some(colour) => self.wrap(colour, text),
            None => text.to_owned(),
        }
    }

    fn wrap(self, colour: &str, text: &str) -> String {
        if self.0 && !text.is_empty() { format!("{colour}{text}{PLAIN}") } else { text.to_owned() }
    }
}

fn colour_of(text: &str) -> Option<&'static str> {
    const WELL: &[&str] = &["Running", "Ready", "Active", "Bound", "Complete", "Completed", "Succeeded", "Available"];
    const WAITING: &[&str] =
        &["Pending", "ContainerCreating", "Terminating", "PodInitializing", "Warning", "Suspended"];
    const ILL: &[&str] =
        &["Error", "Failed", "CrashLoopBackOff", "OOMKilled", "Evicted", "Unknown", "NotReady", "Lost"];
    let word = text.split(',').next().unwrap_or(text);
    if WELL.contains(&word) {
        Some(GREEN)
    } else if WAITING.contains(&word) || word.starts_with("Init:") {
        Some(YELLOW)
    } else if ILL.contains(&word) || word.starts_with("Err") || word.ends_with("BackOff") || word.ends_with("Error") {
        Some(RED)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::{GREEN, Paint, RED, colour_of};

    #[test]
    fn words_that_say_how_something_is_have_colours() {
        assert_eq!(colour_of("Running"), Some(GREEN));
        assert_eq!(colour_of("Ready,SchedulingDisabled"), Some(GREEN));
        assert_eq!(colour_of("ImagePullBackOff"), Some(RED));
        assert_eq!(colour_of("my-pod"), None);
    }

    #[test]
    fn nothing_is_coloured_unless_asked() {
        assert_eq!(Paint(false).cell("Running"), "Running");
        assert_eq!(Paint(true).cell("Running"), "\u{1b}[32mRunning\u{1b}[0m");
    }
}
