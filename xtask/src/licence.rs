//! Every dependency's licence is one we accept. `deny.toml` says the same for those who have cargo-deny.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail};

use crate::step::{cargo, output};

/// Licences that let anyone use and change Windlass under the Apache licence.
const ACCEPTED: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "MPL-2.0",
    "MPL-2.0+",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Packages whose licence is in a file rather than in their manifest, read and accepted by hand.
/// `rust-criu` is under the MIT licence.
const READ_BY_HAND: &[&str] = &["rust-criu"];

/// Fails when a dependency has a licence that is not accepted.
pub fn run() -> Result<()> {
    let text = output(&mut cargo(&["metadata", "--format-version", "1", "--locked"]))?;
    let metadata: serde_json::Value = serde_json::from_str(&text).context("cargo metadata printed no JSON")?;
    let packages = metadata["packages"].as_array().context("cargo metadata lists no packages")?;
    let mut refused = BTreeSet::new();
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        let licence = package["license"].as_str().unwrap_or_default();
        if !is_accepted(licence) && !READ_BY_HAND.contains(&name) {
            refused.insert(format!("{name}: {licence:?}"));
        }
    }
    if !refused.is_empty() {
        bail!("licences that are not accepted:\n  {}", refused.into_iter().collect::<Vec<_>>().join("\n  "));
    }
    eprintln!("── licences: {} packages accepted", packages.len());
    Ok(())
}

/// Whether an SPDX expression can be satisfied by accepted licences. The old `/` means `OR`.
fn is_accepted(expression: &str) -> bool {
    let expression = expression.replace('/', " OR ").replace(['(', ')'], " ");
    // Without nesting, AND binds no weaker than OR in any expression in our tree: each side of AND must offer a choice.
    expression.split(" AND ").all(|side| side.split(" OR ").any(|one| ACCEPTED.contains(&one.trim())))
}

#[cfg(test)]
mod tests {
    use super::is_accepted;

    #[test]
    fn an_expression_needs_one_accepted_choice_on_each_side() {
        assert!(is_accepted("MIT OR Apache-2.0"));
        assert!(is_accepted("MIT/Apache-2.0"));
        assert!(is_accepted("(MIT OR Apache-2.0) AND Unicode-3.0"));
        assert!(is_accepted("MPL-2.0 OR LGPL-3.0-or-later"));
        assert!(!is_accepted("GPL-3.0-or-later"));
        assert!(!is_accepted("MIT AND GPL-2.0"));
        assert!(!is_accepted(""));
    }
}
