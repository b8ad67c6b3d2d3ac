//! How a session ended, as the client is told on its error channel.
//!
//! Source: API reference, meta/v1 Status; the remote command protocol v4 (reason `NonZeroExitCode`, cause `ExitCode`).

use serde_json::json;

/// How a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// The command is over, with this exit code.
    Exited(i32),
    /// What was attached to is over; its exit code is in the pod's status.
    Over,
    /// It could not be carried out, and why.
    Failed(String),
}

/// In which words the error channel speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wording {
    /// A `Status` as JSON (v4 and later).
    Status,
    /// A sentence, or nothing when all is well (before v4).
    Sentence,
}

impl Ending {
    /// What is written to the error channel; empty when there is nothing to say.
    pub fn text(&self, wording: Wording) -> String {
        match (wording, self) {
            (Wording::Status, ending) => ending.status().to_string(),
            (Wording::Sentence, Ending::Exited(0) | Ending::Over) => String::new(),
            (Wording::Sentence, Ending::Exited(code)) => format!("command terminated with exit code {code}"),
            (Wording::Sentence, Ending::Failed(why)) => why.clone(),
        }
    }

    fn status(&self) -> serde_json::Value {
        match self {
            Ending::Exited(0) | Ending::Over => json!({"metadata": {}, "status": "Success"}),
            Ending::Exited(code) => json!({
                "metadata": {},
                "status": "Failure",
                "message": format!("command terminated with non-zero exit code: exit status {code}"),
                "reason": "NonZeroExitCode",
                "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
            }),
            Ending::Failed(why) => json!({
                "metadata": {},
                "status": "Failure",
                "message": format!("Internal error occurred: {why}"),
                "reason": "InternalError",
                "details": {"causes": [{"message": why}]},
                "code": 500,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Ending, Wording};

    #[test]
    fn an_exit_code_is_a_cause_of_the_status() {
        let status: serde_json::Value = serde_json::from_str(&Ending::Exited(42).text(Wording::Status)).expect("JSON");
        assert_eq!(status["status"], "Failure");
        assert_eq!(status["reason"], "NonZeroExitCode");
        assert_eq!(status["details"]["causes"][0], serde_json::json!({"reason": "ExitCode", "message": "42"}));
    }

    #[test]
    fn each_ending_has_its_words() {
        for (ending, in_status, sentence) in [
            (Ending::Exited(0), "\"Success\"", ""),
            (Ending::Over, "\"Success\"", ""),
            (Ending::Exited(1), "exit status 1", "command terminated with exit code 1"),
            (Ending::Failed("no such file".into()), "Internal error occurred: no such file", "no such file"),
        ] {
            let status = ending.text(Wording::Status);
            assert!(status.contains(in_status), "{ending:?}: {status}");
            assert_eq!(ending.text(Wording::Sentence), sentence);
        }
    }
}
