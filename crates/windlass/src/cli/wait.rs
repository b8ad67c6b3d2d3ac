//! `windlass wait`: until objects are as wanted.
//!
//! Rules
//!   R1 condition  `condition=Name[=value]`: the status condition has that value, True unless said; not while the object's
//!                 generation is newer than what was observed
//!   R2 jsonpath   `jsonpath={path}[=value]`: the path leads to that value, or to any
//!   R3 delete     until the object is gone, or another has its name; one that is not there is gone
//!   R4 create     until there is an object of that name
//!   R5 time       `--timeout` holds for all together; 0 looks once, negative waits a week

use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use clap::Args;
use serde_json::Value;

use super::chosen::{Choice, Chosen};
use super::get::all_said;
use super::manifest::FileFlags;
use super::output::jsonpath::{Path, text_of};
use super::select::SelectFlags;
use super::session::{Session, SessionFlags};
use super::target::Asked;

/// How long looking once may take.
const LOOK: Duration = Duration::from_secs(1);

/// `windlass wait`.
#[derive(Args)]
pub struct WaitFlags {
    #[command(flatten)]
    pub session: SessionFlags,
    /// KIND NAME…, KIND/NAME…, or KIND with -l or --all
    #[arg(value_name = "WHAT")]
    pub words: Vec<String>,
    #[command(flatten)]
    pub select: SelectFlags,
    #[command(flatten)]
    pub files: FileFlags,
    /// condition=NAME[=VALUE], jsonpath={PATH}[=VALUE], delete or create
    #[arg(long = "for", value_name = "CONDITION")]
    pub until: String,
    /// All objects of the kinds
    #[arg(long)]
    pub all: bool,
    /// How long; negative for a week
    #[arg(long, value_parser = super::duration::parse_or_week, default_value = "30s", allow_hyphen_values = true)]
    pub timeout: Duration,
}

/// What is waited for.
#[derive(Debug, Clone, PartialEq)]
pub enum Until {
    /// A status condition, and its value in lower case.
    Condition(String, String),
    /// A path, and what it leads to.
    Path(Path, Option<String>),
    /// That it is gone.
    Deleted,
    /// That it is there.
    Created,
}

impl Until {
    fn parse(text: &str) -> Result<Until, String> {
        let (word, rest) = text.split_once('=').unwrap_or((text, ""));
        match (word.to_lowercase().as_str(), rest) {
            ("delete", "") => Ok(Until::Deleted),
            ("create", "") => Ok(Until::Created),
            ("condition", rest) if !rest.is_empty() => {
                let (name, value) = rest.split_once('=').unwrap_or((rest, "true"));
                Ok(Until::Condition(name.to_owned(), value.to_lowercase()))
            }
            ("jsonpath", rest) if !rest.is_empty() => Until::parse_path(rest),
            _ => Err(format!("unrecognized condition: {text:?}")),
        }
    }

    /// The value stands behind the closing brace: a path may hold `=` itself.
    fn parse_path(text: &str) -> Result<Until, String> {
        let text = text.trim_matches(['\'', '"']);
        let (path, value) = match text.rfind('}') {
            Some(end) => (&text[..=end], text[end + 1..].trim_start_matches(['\'', '"']).strip_prefix('=')),
            None => text.split_once('=').map_or((text, None), |(path, value)| (path, Some(value))),
        };
        let path = Path::relaxed(path).map_err(|error| error.to_string())?;
        let value = value.map(|value| value.trim_matches(['\'', '"']).to_owned());
        if value.as_deref() == Some("") {
            return Err("jsonpath wait value cannot be empty".to_owned());
        }
        Ok(Until::Path(path, value))
    }

    /// R1 and R2: whether an object is as wanted.
    fn is_met(&self, object: &Value) -> bool {
        match self {
            Until::Condition(name, value) => {
                let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
                let mut conditions = conditions
                    .filter(|condition| condition["type"].as_str().is_some_and(|kind| kind.eq_ignore_ascii_case(name)));
                let Some(condition) = conditions.next() else { return false };
                let generation = object["metadata"]["generation"].as_i64();
                let observed =
                    condition["observedGeneration"].as_i64().or(object["status"]["observedGeneration"].as_i64());
                let stale = matches!((generation, observed), (Some(made), Some(seen)) if seen < made);
                !stale && condition["status"].as_str().unwrap_or_default().to_lowercase() == *value
            }
            Until::Path(path, value) => match (path.find(object, object, true), value) {
                (Ok(found), Some(value)) => found.len() == 1 && text_of(found[0]) == *value,
                (Ok(found), None) => !found.is_empty() && !found.iter().all(|value| value.is_null()),
                (Err(_), _) => false,
            },
            Until::Deleted => false,
            Until::Created => true,
        }
    }
}

/// Does it.
pub async fn run(session: &Session, flags: &WaitFlags) -> Result<()> {
    let until = Until::parse(&flags.until).map_err(|error| anyhow!(error))?;
    let timeout = match flags.timeout {
        Duration::ZERO => LOOK,
        timeout => timeout,
    };
    let deadline = tokio::time::Instant::now() + timeout;
    let chosen = match &until {
        Until::Created => named(session, flags).await?,
        _ => {
            let choice = Choice { words: &flags.words, select: &flags.select, files: &flags.files, all: flags.all };
            choice.find_all(session).await?
        }
    };
    if chosen.is_empty() && until != Until::Deleted {
        bail!("no matching resources found");
    }
    let mut failed = Vec::new();
    for object in &chosen {
        match tokio::time::timeout_at(deadline, wait(session, &until, object)).await {
            Ok(Ok(Outcome::WasGone)) => {}
            Ok(Ok(Outcome::Met)) => println!("{} condition met", object.qualified()),
            Ok(Err(error)) => failed.push(error),
            Err(_) => failed.push(anyhow!(
                "timed out waiting for the condition on {}/{}",
                object.served.kind.plural,
                object.name
            )),
        }
    }
    all_said(failed)
}

/// R4: what is not there yet can only be named.
async fn named(session: &Session, flags: &WaitFlags) -> Result<Vec<Chosen>> {
    if !flags.files.is_empty() {
        let choice = Choice { words: &flags.words, select: &flags.select, files: &flags.files, all: false };
        return choice.find_all(session).await;
    }
    let Asked::Named(named) = Asked::read(session.discovery().await?, &flags.words)? else {
        bail!("--for=create needs the name of what will be created");
    };
    let chosen = |(served, name): (super::discovery::Served, String)| {
        let namespace = session.namespace_of(&served.kind).to_owned();
        Chosen { served, namespace, name }
    };
    Ok(named.into_iter().map(chosen).collect())
}

/// How waiting ended.
#[derive(Debug, Clone, Copy)]
enum Outcome {
    Met,
    /// It was gone before we looked: there is nothing to tell.
    WasGone,
}

async fn wait(session: &Session, until: &Until, object: &Chosen) -> Result<Outcome> {
    let mut uid: Option<Value> = None;
    if matches!(until, Until::Condition(..) | Until::Path(..)) {
        // an object that is not there is an error, not something to wait for
        object.get(session).await?;
    }
    let decide = |found: Option<&Value>| match (until, found) {
        (Until::Deleted, None) if uid.is_none() => Ok(Some(Outcome::WasGone)),
        (Until::Deleted, None) => Ok(Some(Outcome::Met)),
        (Until::Deleted, Some(found)) => {
            let first = uid.get_or_insert_with(|| found["metadata"]["uid"].clone());
            Ok((*first != found["metadata"]["uid"]).then_some(Outcome::Met))
        }
        (until, Some(found)) => Ok(until.is_met(found).then_some(Outcome::Met)),
        (Until::Created, None) => Ok(None),
        (_, None) => bail!("{} was deleted while waiting", object.qualified()),
    };
    session.until(&object.served.kind, &object.namespace, &object.name, decide).await
}

#[cfg(test)]
mod tests {
    use super::Until;
    use serde_json::{Value, json};

    fn check(until: &str, object: &Value, met: bool) {
        assert_eq!(Until::parse(until).expect(until).is_met(object), met, "{until} on {object}");
    }

    #[test]
    fn r1_a_condition_counts_when_it_is_about_this_generation() {
        let mut object =
            json!({"metadata": {"generation": 2}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        check("condition=Ready", &object, true);
        check("condition=ready=TRUE", &object, true);
        check("condition=Ready=False", &object, false);
        check("condition=Other", &object, false);
        object["status"]["observedGeneration"] = json!(1);
        check("condition=Ready", &object, false);
    }

    #[test]
    fn r2_a_path_leads_to_a_value() {
        let object = json!({"status": {"phase": "Running", "n": 3, "list": [{"type": "A", "v": "x"}]}});
        check("jsonpath={.status.phase}=Running", &object, true);
        check("jsonpath='{.status.phase}'=Running", &object, true);
        check("jsonpath={.status.phase}=Pending", &object, false);
        check("jsonpath={.status.n}=3", &object, true);
        check("jsonpath={.status.list[?(@.type==\"A\")].v}=x", &object, true);
        check("jsonpath={.status.phase}", &object, true);
        check("jsonpath={.status.missing}", &object, false);
    }

    #[test]
    fn what_is_no_condition_is_refused() {
        for text in ["", "ready", "condition=", "jsonpath=", "jsonpath={.a}=", "delete=1"] {
            assert!(Until::parse(text).is_err(), "{text}");
        }
        assert_eq!(Until::parse("delete"), Ok(Until::Deleted));
    }
}
