//! `--dry-run`: say what would happen; the client's own guess, or the server's word without the change.

use clap::{Args, ValueEnum};

/// Who pretends.
#[derive(Args, Debug, Clone, Default)]
pub struct DryRun {
    /// Change nothing: client says what would be sent, server what would come of it
    #[arg(long, value_enum, default_value = "none", default_missing_value = "client", num_args = 0..=1, require_equals = true)]
    dry_run: Pretender,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Pretender {
    #[default]
    None,
    Client,
    Server,
}

impl DryRun {
    /// Whether nothing is changed.
    pub fn is_set(&self) -> bool {
        self.dry_run != Pretender::None
    }

    /// Whether nothing is sent.
    pub fn is_client(&self) -> bool {
        self.dry_run == Pretender::Client
    }

    /// What the server is told.
    pub fn query(&self) -> Vec<(&'static str, &'static str)> {
        vec![("dryRun", if self.dry_run == Pretender::Server { "All" } else { "" })]
    }

    /// What is said behind the outcome.
    pub fn suffix(&self) -> &'static str {
        match self.dry_run {
            Pretender::None => "",
            Pretender::Client => " (dry run)",
            Pretender::Server => " (server dry run)",
        }
    }
}
