//! `windlass __complete`: what may stand where a person's shell asks for it, from the cluster: kinds, names, namespaces.
//!
//! Rules
//!   R1 kinds       the first word of a verb about objects is a kind; after `KIND/` it is a name
//!   R2 names       the words after a kind are names of it; verbs about pods begin with a pod's name
//!   R3 namespaces  the value of `--namespace`
//!   R4 else        nothing: the shell's own script knows verbs and flags
//!   R5 harmless    only what a shell takes for plain text is said, whatever objects are called
//! Not here         the script (`completion`)

use std::collections::BTreeSet;
use std::io::Write;
use std::time::Duration;

use anyhow::Result;
use clap::{Args, Command, CommandFactory};
use serde_json::Value;
use windlass_api::kinds;

use super::session::{Session, SessionFlags};
use crate::cli::Cli;
use crate::place::Place;

/// A person waits for the answer.
const ANSWER_TIME: Duration = Duration::from_secs(5);
/// Names that anybody looks through.
const CANDIDATES_MAX: usize = 2_000;
/// Verbs about objects of a kind.
const OF_KINDS: [&str; 12] =
    ["annotate", "delete", "describe", "edit", "explain", "get", "label", "patch", "rollout", "scale", "trace", "wait"];
/// Verbs about a pod.
const OF_PODS: [&str; 4] = ["cp", "exec", "logs", "port-forward"];

/// `windlass __complete`.
#[derive(Args)]
pub struct CandidateFlags {
    /// The words after the program's name; the last, which may be empty, is the one to complete
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub words: Vec<String>,
}

/// What may stand there.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Nothing,
    Namespaces,
    Kinds,
    /// Names of a kind; with the kind before them where that is how they are written.
    Names {
        kind: String,
        before: String,
    },
}

/// What the words before the last one say.
#[derive(Default)]
struct Said {
    verbs: Vec<String>,
    positions: Vec<String>,
    session: SessionFlags,
    /// The flag whose value comes next.
    open: Option<String>,
    is_over: bool,
}

/// Does it.
pub async fn run(place: &Place, flags: &CandidateFlags) -> Result<()> {
    let Some((last, before)) = flags.words.split_last() else { return Ok(()) };
    let said = read(&Cli::command(), before);
    let found = match asked(&said, last) {
        Asked::Nothing => return Ok(()),
        asked => {
            let session = SessionFlags { request_timeout: Some(ANSWER_TIME), ..said.session };
            look_up(&Session::open(place, &session)?, &asked).await?
        }
    };
    let fit = found.into_iter().filter(|text| text.starts_with(last.as_str()) && is_plain(text));
    let lines: Vec<String> = fit.take(CANDIDATES_MAX).collect();
    Ok(writeln!(std::io::stdout(), "{}", lines.join("\n"))?)
}

/// R5.
fn is_plain(text: &str) -> bool {
    text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '/'))
}

async fn look_up(session: &Session, asked: &Asked) -> Result<BTreeSet<String>> {
    let names = |items: Vec<Value>, before: &str| {
        let name = |item: &Value| item["metadata"]["name"].as_str().map(|name| format!("{before}{name}"));
        items.iter().filter_map(name).collect()
    };
    match asked {
        Asked::Nothing => Ok(BTreeSet::new()),
        Asked::Namespaces => Ok(names(session.list(&kinds::NAMESPACE, None, &[]).await?, "")),
        Asked::Kinds => {
            let served = session.discovery().await?.preferred();
            let listed = served.filter(|served| served.verbs.iter().any(|verb| verb == "list"));
            Ok(listed.map(|served| served.kind.plural.to_string()).collect())
        }
        Asked::Names { kind, before } => {
            let kind = &session.discovery().await?.find_one(kind)?.kind;
            let namespace = kind.namespaced.then_some(session.namespace.as_str());
            Ok(names(session.list(kind, namespace, &[]).await?, before))
        }
    }
}

fn asked(said: &Said, last: &str) -> Asked {
    match said.open.as_deref() {
        Some("namespace") => return Asked::Namespaces,
        Some(_) => return Asked::Nothing,
        None if said.is_over || last.starts_with('-') => return Asked::Nothing,
        None => {}
    }
    let names = |kind: &str, before: String| Asked::Names { kind: kind.to_owned(), before };
    match said.verbs.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["top", what] if said.positions.is_empty() => names(what, String::new()),
        ["rollout"] => Asked::Nothing,
        [verb, ..] if OF_PODS.contains(&verb) && said.positions.is_empty() => names("pods", String::new()),
        [verb, ..] if OF_KINDS.contains(&verb) => match (last.split_once('/'), said.positions.first()) {
            (Some((kind, _)), _) => names(kind, format!("{kind}/")),
            (None, None) => Asked::Kinds,
            (None, Some(_)) if verb == "explain" => Asked::Nothing,
            (None, Some(first)) if first.contains('/') => Asked::Nothing,
            (None, Some(first)) => names(first.rsplit(',').next().unwrap_or(first), String::new()),
        },
        _ => Asked::Nothing,
    }
}

/// Reads words as the command line would, but takes them as they come.
fn read(root: &Command, words: &[String]) -> Said {
    let mut said = Said::default();
    let mut at = root;
    for word in words {
        if let Some(flag) = said.open.take() {
            keep(&mut said.session, &flag, word);
        } else if word == "--" {
            said.is_over = true;
        } else if let Some(flag) = word.strip_prefix("--") {
            match flag.split_once('=') {
                Some((flag, value)) => keep(&mut said.session, flag, value),
                None => said.open = valued(root, at, |arg| arg.get_long() == Some(flag)),
            }
        } else if let Some(short) = word.strip_prefix('-').and_then(|rest| rest.chars().next()) {
            let found = valued(root, at, |arg| arg.get_short() == Some(short));
            match (found, &word[1 + short.len_utf8()..]) {
                (Some(flag), "") => said.open = Some(flag),
                (Some(flag), value) => keep(&mut said.session, &flag, value),
                (None, _) => {}
            }
        } else if let Some(verb) = at
            .get_subcommands()
            .find(|verb| verb.get_name() == word || verb.get_all_aliases().any(|alias| alias == word))
        {
            said.verbs.push(verb.get_name().to_owned());
            at = verb;
        } else {
            said.positions.push(word.clone());
        }
    }
    said
}

/// The long name of the flag that takes a value, if this is one.
fn valued(root: &Command, at: &Command, is: impl Fn(&clap::Arg) -> bool) -> Option<String> {
    // Flags of every verb may stand before it.
    let any = root.get_subcommands().flat_map(Command::get_arguments).filter(|arg| arg.is_global_set());
    let found = at.get_arguments().chain(root.get_arguments()).chain(any).find(|arg| is(arg))?;
    let long = found.get_long().unwrap_or_default().to_owned();
    found.get_action().takes_values().then_some(long)
}

/// Which cluster is meant, and as whom.
fn keep(session: &mut SessionFlags, flag: &str, value: &str) {
    let value = value.to_owned();
    match flag {
        "namespace" => session.namespace = Some(value),
        "kubeconfig" => session.kubeconfig = Some(value.into()),
        "context" => session.context = Some(value),
        "cluster" => session.cluster = Some(value),
        "user" => session.user = Some(value),
        "server" => session.server = Some(value),
        "token" => session.token = Some(value),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::{Asked, asked, is_plain, read};
    use crate::cli::Cli;
    use clap::CommandFactory;

    /// What is asked for at the end of this line.
    fn at_end_of(line: &str) -> Asked {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let (last, before) = words.split_last().expect("a line has a last word");
        asked(&read(&Cli::command(), before), last)
    }

    fn names(kind: &str, before: &str) -> Asked {
        Asked::Names { kind: kind.to_owned(), before: before.to_owned() }
    }

    #[test]
    fn r1_the_first_word_is_a_kind_or_a_kind_with_a_name() {
        for line in ["get ", "get po", "describe ", "delete -n x ", "get -o yaml ", "rollout status d", "explain "] {
            assert_eq!(at_end_of(line), Asked::Kinds, "{line}");
        }
        assert_eq!(at_end_of("get deploy/w"), names("deploy", "deploy/"));
        assert_eq!(at_end_of("delete pod/a pod/"), names("pod", "pod/"));
    }

    #[test]
    fn r2_after_a_kind_come_names_and_some_verbs_are_about_pods() {
        assert_eq!(at_end_of("get pods "), names("pods", ""));
        assert_eq!(at_end_of("get -A svc,pods a b"), names("pods", ""));
        assert_eq!(at_end_of("logs "), names("pods", ""));
        assert_eq!(at_end_of("exec -it w"), names("pods", ""));
        assert_eq!(at_end_of("top node "), names("nodes", ""));
    }

    #[test]
    fn r3_a_namespace_is_one_of_the_cluster() {
        assert_eq!(at_end_of("get pods -n "), Asked::Namespaces);
        assert_eq!(at_end_of("--namespace k"), Asked::Namespaces);
        let said = read(&Cli::command(), &["get", "-nx", "--kubeconfig=f"].map(str::to_owned));
        assert_eq!((said.session.namespace.as_deref(), said.session.kubeconfig.is_some()), (Some("x"), true));
    }

    #[test]
    fn r4_everything_else_is_the_scripts() {
        for line in ["", "ge", "get --na", "get pods -o ", "exec p -- l", "rollout ", "apply -f ", "logs p "] {
            assert_eq!(at_end_of(line), Asked::Nothing, "{line}");
        }
    }

    #[test]
    fn r5_names_that_a_shell_would_read_are_not_said() {
        assert!(is_plain("system:node") && is_plain("pods/web-1"));
        for name in ["$(reboot)", "a b", "`x`", "a;b", "a'b", "*"] {
            assert!(!is_plain(name), "{name}");
        }
    }
}
