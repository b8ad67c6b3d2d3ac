//! What the server is told beside the object of a write: who writes, how strictly fields are checked, whether it counts.

use clap::{Args, ValueEnum};

use super::dry_run::DryRun;

/// Flags of verbs that send objects.
#[derive(Args, Debug, Clone, Default)]
pub struct WriteFlags {
    #[command(flatten)]
    pub dry_run: DryRun,
    /// Who owns the fields that are set
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    pub field_manager: String,
    /// What happens to unknown and duplicate fields: strict refuses, warn says, ignore drops
    #[arg(long, value_enum, default_value = "strict", default_missing_value = "strict", num_args = 0..=1, require_equals = true)]
    pub validate: Validate,
    /// json, yaml, name, jsonpath=TEMPLATE: print the object instead of what was done
    #[arg(short, long, default_value = "", hide_default_value = true)]
    pub output: String,
}

/// `--validate`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Validate {
    #[default]
    #[value(alias = "true")]
    Strict,
    Warn,
    #[value(alias = "false")]
    Ignore,
}

impl Validate {
    /// What the server is told.
    pub fn query(self) -> (&'static str, &'static str) {
        let validate = match self {
            Validate::Strict => "Strict",
            Validate::Warn => "Warn",
            Validate::Ignore => "Ignore",
        };
        ("fieldValidation", validate)
    }
}

impl WriteFlags {
    /// As a query; `manager` is who writes unless the flag says another.
    pub fn query<'q>(&'q self, manager: &'q str) -> Vec<(&'q str, &'q str)> {
        let manager = if self.field_manager.is_empty() { manager } else { &self.field_manager };
        let mut query = self.dry_run.query();
        query.extend([("fieldManager", manager), self.validate.query()]);
        query
    }
}
