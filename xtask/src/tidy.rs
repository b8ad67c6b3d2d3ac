//! Tidy: the style rules that a program can check. Each rule is one function over the files.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Result, bail};

use crate::look::files;
use crate::step::root;

/// What each crate may name among ours: the layers of ARCHITECTURE.md.
const LAYERS: &[(&str, &[&str])] = &[
    ("stdx", &[]),
    ("api", &["stdx"]),
    ("store", &["stdx"]),
    ("runtime", &["stdx"]),
    ("client", &["api", "stdx"]),
    ("network", &["api", "stdx"]),
    ("apiserver", &["store", "api", "stdx"]),
    ("controllers", &["client", "api", "stdx"]),
    ("scheduler", &["client", "api", "stdx"]),
    ("adapters", &["client", "api", "stdx"]),
    ("node", &["client", "runtime", "network", "api", "stdx"]),
];

/// A file longer than this has more than one idea.
const LINES_MAX: usize = 1000;

/// Words that say nothing as the name of a file.
const EMPTY_NAMES: &[&str] = &[
    "util",
    "utils",
    "helper",
    "helpers",
    "common",
    "misc",
    "manager",
    "handler",
    "base",
    "impl",
    "info",
    "data",
    "processor",
];

/// Crates that may hold `unsafe`.
const UNSAFE_IN: &[&str] = &["crates/runtime/", "crates/network/"];

/// Runs all rules; the error lists every broken one.
pub fn run() -> Result<()> {
    let broken = broken_rules()?;
    if !broken.is_empty() {
        bail!("tidy: {} problems\n  {}", broken.len(), broken.join("\n  "));
    }
    eprintln!("── tidy: nothing to mend");
    Ok(())
}

fn broken_rules() -> Result<Vec<String>> {
    let mut broken = Vec::new();
    for path in files()? {
        let name = path.to_string_lossy().into_owned();
        if name.ends_with("Cargo.toml") {
            layers(&name, &fs::read_to_string(root().join(&path))?, &mut broken);
        }
        if !name.ends_with(".rs") {
            continue;
        }
        let text = fs::read_to_string(root().join(&path))?;
        header(&name, &text, &mut broken);
        length(&name, &text, &mut broken);
        file_name(&path, &mut broken);
        words(&name, &text, &mut broken);
        unsafe_code(&name, &text, &mut broken);
    }
    one_binary_per_suite(&mut broken)?;
    Ok(broken)
}

fn layers(name: &str, text: &str, broken: &mut Vec<String>) {
    let Some(crate_name) = name.strip_prefix("crates/").and_then(|rest| rest.strip_suffix("/Cargo.toml")) else {
        return;
    };
    let Some((_, allowed)) = LAYERS.iter().find(|(layer, _)| *layer == crate_name) else {
        return;
    };
    let normal = text.split("[dev-dependencies]").next().unwrap_or(text);
    for line in normal.lines() {
        let Some(rest) = line.strip_prefix("windlass-") else { continue };
        let named = rest.split([' ', '=', '.']).next().unwrap_or_default();
        if !allowed.contains(&named) {
            broken.push(format!("{name}: {crate_name} may not name {named} (ARCHITECTURE.md, layers)"));
        }
    }
}

fn header(name: &str, text: &str, broken: &mut Vec<String>) {
    if !text.starts_with("//!") && !text.starts_with("#![") {
        broken.push(format!("{name}: a file opens with `//!`, one sentence that says what it is"));
    }
}

fn length(name: &str, text: &str, broken: &mut Vec<String>) {
    let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or(text);
    let lines = code.lines().count();
    if lines > LINES_MAX && !name.contains("/tests/") && !name.starts_with("tests/") {
        broken.push(format!("{name}: {lines} lines, at most {LINES_MAX}: split it by noun"));
    }
}

fn file_name(path: &Path, broken: &mut Vec<String>) {
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    if EMPTY_NAMES.contains(&stem.as_str()) {
        broken.push(format!("{}: {stem:?} says nothing; name the file after its noun", path.display()));
    }
}

fn words(name: &str, text: &str, broken: &mut Vec<String>) {
    if name == "xtask/src/tidy.rs" {
        return;
    }
    for (index, line) in text.lines().enumerate() {
        for word in ["todo!(", "unimplemented!(", "FIXME", "#[ignore", "dbg!("] {
            if line.contains(word) {
                broken.push(format!("{name}:{}: {word:?} is unfinished work", index + 1));
            }
        }
    }
}

fn unsafe_code(name: &str, text: &str, broken: &mut Vec<String>) {
    if UNSAFE_IN.iter().any(|allowed| name.starts_with(allowed)) || name == "xtask/src/tidy.rs" {
        return;
    }
    for (index, line) in text.lines().enumerate() {
        let code = line.split("//").next().unwrap_or(line);
        if code.contains("unsafe {") || code.contains("unsafe fn") || code.contains("unsafe impl") {
            broken.push(format!("{name}:{}: unsafe belongs in runtime and network only", index + 1));
        }
    }
}

/// A suite is `tests/<suite>/main.rs` and modules: a file directly in `tests/` would link everything once more.
fn one_binary_per_suite(broken: &mut Vec<String>) -> Result<()> {
    let mut suites: BTreeMap<String, usize> = BTreeMap::new();
    for path in files()? {
        let name = path.to_string_lossy().into_owned();
        if let Some((before, after)) = name.split_once("/tests/")
            && before.starts_with("crates/")
            && before.matches('/').count() == 1
            && after.ends_with(".rs")
            && !after.contains('/')
        {
            *suites.entry(name.clone()).or_default() += 1;
        }
    }
    for name in suites.keys() {
        broken.push(format!("{name}: a suite is a folder with main.rs and modules"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{broken_rules, header, layers, words};

    #[test]
    fn the_tree_is_tidy() {
        let broken = broken_rules().expect("the tree can be read");
        assert!(broken.is_empty(), "{}", broken.join("\n"));
    }

    #[test]
    fn a_crate_may_not_name_a_crate_above_it() {
        let mut broken = Vec::new();
        layers("crates/store/Cargo.toml", "[dependencies]\nwindlass-api = { workspace = true }\n", &mut broken);
        layers("crates/store/Cargo.toml", "[dependencies]\nwindlass-stdx = { workspace = true }\n", &mut broken);
        assert_eq!(broken.len(), 1);
    }

    #[test]
    fn a_file_without_a_header_or_with_unfinished_work_is_found() {
        let mut broken = Vec::new();
        header("x.rs", "fn main() {}", &mut broken);
        words("x.rs", "fn main() { todo!() }", &mut broken);
        assert_eq!(broken.len(), 2);
    }
}
