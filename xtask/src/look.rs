//! Looking at the tree: where a noun lives, how large everything is.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::step::{cargo, output, root, target_dir};

/// All files that git tracks or would track, relative to the root.
pub fn files() -> Result<Vec<PathBuf>> {
    let mut git = std::process::Command::new("git");
    let listed = output(git.args(["ls-files", "--cached", "--others", "--exclude-standard"]))?;
    let mut files: Vec<PathBuf> =
        listed.lines().map(PathBuf::from).filter(|path| root().join(path).is_file()).collect();
    files.sort();
    files.dedup();
    Ok(files)
}

/// `cargo x where NOUN`: the files named after it (or in a folder named after it), with what they say they are.
pub fn find_noun(noun: &str) -> Result<()> {
    let noun = noun.to_lowercase().replace('-', "_");
    let mut found = 0;
    for path in files()? {
        let named = path.iter().any(|part| part.to_string_lossy().split('.').next() == Some(noun.as_str()));
        if named {
            let text = fs::read_to_string(root().join(&path)).unwrap_or_default();
            let says = text.lines().next().unwrap_or_default().trim_start_matches(['/', '!', '#', ' ']);
            println!("{:<60} {says}", path.display());
            found += 1;
        }
    }
    if found == 0 {
        bail!("no file is named after {noun:?}; NAMES.md lists the words in use");
    }
    Ok(())
}

/// `cargo x size`.
pub fn size() -> Result<()> {
    let mut lines: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for path in files()?.iter().filter(|path| path.extension().is_some_and(|ending| ending == "rs")) {
        let mut parts = path.iter().map(|part| part.to_string_lossy().into_owned());
        let first = parts.next().unwrap_or_default();
        let crate_name = if first == "crates" { parts.next().unwrap_or_default() } else { first };
        let count = fs::read_to_string(root().join(path))?.lines().count();
        let entry = lines.entry(crate_name).or_default();
        entry.0 += 1;
        entry.1 += count;
    }
    println!("{:<14} {:>6} {:>8}", "crate", "files", "lines");
    for (name, (files, count)) in &lines {
        println!("{name:<14} {files:>6} {count:>8}");
    }
    println!("{:<14} {:>6} {:>8}", "all", "", lines.values().map(|entry| entry.1).sum::<usize>());
    let tree = output(&mut cargo(&["tree", "-p", "windlass", "--prefix", "none", "-e", "normal", "--no-dedupe"]))?;
    let packages: std::collections::BTreeSet<&str> =
        tree.lines().map(|line| line.split(" (").next().unwrap_or(line)).collect();
    println!("packages in the binary: {}", packages.len());
    for binary in ["debug/windlass", "x86_64-unknown-linux-gnu/release/windlass"] {
        if let Ok(file) = fs::metadata(target_dir().join(binary)) {
            println!("{binary}: {:.1} MB", file.len() as f64 / 1e6);
        }
    }
    Ok(())
}
