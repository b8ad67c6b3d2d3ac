//! Which objects: labels, fields, and whether of all namespaces.

use clap::Args;
use windlass_api::Kind;

use super::session::Session;

/// Flags that narrow what a kind means.
#[derive(Args, Debug, Clone, Default)]
pub struct SelectFlags {
    /// Only objects with these labels: app=web, app!=web, app in (a,b), app
    #[arg(short = 'l', long, default_value = "", hide_default_value = true)]
    pub selector: String,
    /// Only objects with these fields: status.phase=Running
    #[arg(long, default_value = "", hide_default_value = true)]
    pub field_selector: String,
    /// Of all namespaces
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
}

impl SelectFlags {
    /// Whether they narrow anything.
    pub fn is_narrow(&self) -> bool {
        !self.selector.is_empty() || !self.field_selector.is_empty()
    }

    /// As a query.
    pub fn query(&self) -> Vec<(&str, &str)> {
        vec![("labelSelector", &self.selector), ("fieldSelector", &self.field_selector)]
    }

    /// The namespace to list; `None` is all.
    pub fn namespace<'s>(&self, session: &'s Session, kind: &Kind) -> Option<&'s str> {
        (kind.namespaced && !self.all_namespaces).then_some(session.namespace.as_str())
    }
}
