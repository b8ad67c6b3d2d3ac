//! What a verb is about: `pods`, `pod a b`, `deploy/web`, `pods,services`, `all`.
//!
//! Rules
//!   R1 kinds   one word without a name means all objects of the kinds it names, commas between them
//!   R2 names   words after the kinds are names
//!   R3 pairs   `KIND/NAME`, as many as wanted, and then nothing else

use anyhow::{Result, bail};

use super::discovery::{Discovery, Served};

/// What the words mean.
#[derive(Debug, Clone)]
pub enum Asked {
    /// All objects of these kinds (that a selector may narrow).
    Kinds(Vec<Served>),
    /// These objects.
    Named(Vec<(Served, String)>),
}

impl Asked {
    /// Reads the words of a command line.
    pub fn read(discovery: &Discovery, words: &[String]) -> Result<Asked> {
        let Some((first, names)) = words.split_first() else {
            bail!("Required resource not specified.\nUse \"kubectl explain <resource>\" for a detailed description of that resource (e.g. kubectl explain pods).".replace("kubectl", "windlass"));
        };
        if words.iter().any(|word| word.contains('/')) {
            return pairs(discovery, words);
        }
        let mut kinds = Vec::new();
        for word in first.split(',') {
            for served in discovery.find_all(word)? {
                if !kinds.contains(served) {
                    kinds.push(served.clone());
                }
            }
        }
        if names.is_empty() {
            return Ok(Asked::Kinds(kinds));
        }
        let of_kind = |served: &Served| names.iter().map(|name| (served.clone(), name.clone())).collect::<Vec<_>>();
        Ok(Asked::Named(kinds.iter().flat_map(of_kind).collect()))
    }

    /// The one object that the words must mean.
    pub fn one(discovery: &Discovery, words: &[String]) -> Result<(Served, String)> {
        match Asked::read(discovery, words)? {
            Asked::Named(mut named) if named.len() == 1 => Ok(named.remove(0)),
            _ => bail!("expected one object as KIND/NAME or KIND NAME, found {:?}", words.join(" ")),
        }
    }

    /// Whether several kinds were asked for, so that each line must say its own.
    pub fn is_mixed(words: &[String]) -> bool {
        if words.first().is_some_and(|word| word == "all") {
            return true;
        }
        let mut kinds: Vec<&str> = if words.iter().any(|word| word.contains('/')) {
            words.iter().filter_map(|word| word.split('/').next()).collect()
        } else {
            words.first().map(|word| word.split(',').collect()).unwrap_or_default()
        };
        kinds.sort_unstable();
        kinds.dedup();
        kinds.len() > 1
    }
}

/// R3.
fn pairs(discovery: &Discovery, words: &[String]) -> Result<Asked> {
    let mut named = Vec::new();
    for word in words {
        let Some((kind, name)) = word.split_once('/') else {
            bail!(
                "there is no need to specify a resource type as a separate argument when passing arguments in resource/name form (e.g. 'windlass get resource/<resource_name>' instead of 'windlass get resource resource/<resource_name>'"
            );
        };
        if kind.is_empty() || name.is_empty() || name.contains('/') || kind.contains(',') {
            bail!("arguments in resource/name form must have a single resource and name");
        }
        named.push((discovery.find_one(kind)?.clone(), name.to_owned()));
    }
    Ok(Asked::Named(named))
}

#[cfg(test)]
mod tests {
    use super::Asked;
    use crate::cli::discovery::tests::built_in;

    fn check(words: &[&str], expected: &str) {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let shown = match Asked::read(&built_in(), &words) {
            Ok(Asked::Kinds(kinds)) => {
                kinds.iter().map(|served| served.kind.plural.to_string()).collect::<Vec<_>>().join(" ")
            }
            Ok(Asked::Named(named)) => named
                .iter()
                .map(|(served, name)| format!("{}/{name}", served.kind.plural))
                .collect::<Vec<_>>()
                .join(" "),
            Err(error) => error.to_string().chars().take(40).collect(),
        };
        assert_eq!(shown, expected, "{words:?}");
    }

    #[test]
    fn r1_a_word_means_all_of_its_kinds() {
        check(&["po"], "pods");
        check(&["po,svc,pods"], "pods services");
    }

    #[test]
    fn r2_words_after_the_kinds_are_names() {
        check(&["pods", "a", "b"], "pods/a pods/b");
        check(&["po,svc", "a"], "pods/a services/a");
    }

    #[test]
    fn r3_pairs_stand_alone() {
        check(&["deploy/web", "svc/web"], "deployments/web services/web");
        check(&["deploy/web", "pods"], "there is no need to specify a resource t");
        check(&["deploy/"], "arguments in resource/name form must hav");
        check(&["deploy/a/b"], "arguments in resource/name form must hav");
        check(&[], "Required resource not specified.\nUse \"wi");
    }

    #[test]
    fn several_kinds_are_mixed() {
        let mixed = |words: &[&str]| Asked::is_mixed(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
        assert!(mixed(&["all"]) && mixed(&["po,svc"]) && mixed(&["po/a", "svc/a"]));
        assert!(!mixed(&["po"]) && !mixed(&["po/a", "po/b"]) && !mixed(&["po", "a"]));
    }
}
