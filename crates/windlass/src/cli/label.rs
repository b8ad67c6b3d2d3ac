//! `windlass label` and `windlass annotate`: marks on objects, set and taken away.
//!
//! Rules
//!   R1 words      what has a `=` or ends in `-` is a mark, and everything after the first mark is one; the rest is which
//!                 objects
//!   R2 keep       a mark that is there with another value is only changed with `--overwrite`
//!   R3 same       what is so already is said to be, and not written
//!   R4 condition  `--resource-version` must hold, and what was looked at too
//! Not here        `--list`, `--local`

use anyhow::{Result, bail};
use clap::Args;
use http::Method;
use serde_json::{Map, Value, json};
use windlass_client::{Call, with_query};

use super::chosen::{Choice, Chosen};
use super::dry_run::DryRun;
use super::get::all_said;
use super::manifest::FileFlags;
use super::select::SelectFlags;
use super::session::{Session, SessionFlags};

/// `windlass label` and `windlass annotate`.
#[derive(Args)]
pub struct LabelFlags {
    #[command(flatten)]
    pub session: SessionFlags,
    /// KIND NAME… or KIND/NAME…, or KIND with -l or --all; then KEY=VALUE to set and KEY- to take away
    #[arg(value_name = "WHAT")]
    pub words: Vec<String>,
    #[command(flatten)]
    pub select: SelectFlags,
    #[command(flatten)]
    pub files: FileFlags,
    /// All objects of the kinds
    #[arg(long)]
    pub all: bool,
    /// Change a value that is there already
    #[arg(long)]
    pub overwrite: bool,
    /// Only if it is still at this version
    #[arg(long)]
    pub resource_version: Option<String>,
    #[command(flatten)]
    pub dry_run: DryRun,
}

/// What is marked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Marks {
    Labels,
    Annotations,
}

impl Marks {
    fn field(self) -> &'static str {
        match self {
            Marks::Labels => "labels",
            Marks::Annotations => "annotations",
        }
    }

    /// What has been done to an object.
    fn done(self, removes_only: bool) -> &'static str {
        match self {
            Marks::Labels if removes_only => "unlabeled",
            Marks::Labels => "labeled",
            Marks::Annotations => "annotated",
        }
    }
}

/// Does it.
pub async fn run(session: &Session, flags: &LabelFlags, marks: Marks) -> Result<()> {
    let (words, wanted) = read(&flags.words, marks)?;
    let choice = Choice { words: &words, select: &flags.select, files: &flags.files, all: flags.all };
    let chosen = choice.find_all(session).await?;
    if chosen.is_empty() {
        bail!("no objects passed");
    }
    let mut failed = Vec::new();
    for object in &chosen {
        if let Err(error) = mark(session, flags, (marks, &wanted), object).await {
            failed.push(error);
        }
    }
    all_said(failed)
}

/// R1: the words that say which objects, and the marks; null takes one away.
fn read(words: &[String], marks: Marks) -> Result<(Vec<String>, Map<String, Value>)> {
    let is_mark = |word: &String| word.contains('=') || word.ends_with('-');
    let first = words.iter().position(is_mark).unwrap_or(words.len());
    let mut wanted = Map::new();
    for word in &words[first..] {
        let (key, value) = match (word.split_once('='), word.strip_suffix('-')) {
            (Some((key, value)), _) => (key, json!(value)),
            (None, Some(key)) => (key, Value::Null),
            (None, None) => bail!("expected KEY=VALUE or KEY- after the first of them, found {word:?}"),
        };
        if key.is_empty() {
            bail!("expected KEY=VALUE or KEY-, found {word:?}");
        }
        if wanted.insert(key.to_owned(), value).is_some() {
            bail!("{key:?} is named twice: what is it to be?");
        }
    }
    if wanted.is_empty() {
        bail!("at least one of KEY=VALUE and KEY- is needed: which {} are to be set or taken away?", marks.field());
    }
    Ok((words[..first].to_vec(), wanted))
}

async fn mark(
    session: &Session,
    flags: &LabelFlags,
    (marks, wanted): (Marks, &Map<String, Value>),
    object: &Chosen,
) -> Result<()> {
    let current = object.get(session).await?;
    let there = &current["metadata"][marks.field()];
    if !flags.overwrite
        && let Some((key, value)) = in_the_way(there, wanted)
    {
        bail!("'{key}' already has a value ({value}), and --overwrite is false");
    }
    let mut version = current["metadata"]["resourceVersion"].clone();
    if let Some(expected) = &flags.resource_version {
        version = json!(expected);
    }
    let changes = wanted.iter().any(|(key, value)| there[key.as_str()] != *value);
    if !changes {
        println!("{} not {}", object.qualified(), marks.done(false));
        return Ok(());
    }
    if !flags.dry_run.is_client() {
        let patch = json!({"metadata": {"resourceVersion": version, marks.field(): wanted}});
        let manager = if marks == Marks::Labels { "kubectl-label" } else { "kubectl-annotate" };
        let mut query = flags.dry_run.query();
        query.push(("fieldManager", manager));
        let call = Call::new(Method::PATCH, with_query(&object.path(), &query));
        session.json(call.body("application/merge-patch+json", serde_json::to_vec(&patch)?)).await?;
    }
    let removes_only = wanted.values().all(Value::is_null);
    println!("{} {}{}", object.qualified(), marks.done(removes_only), flags.dry_run.suffix());
    Ok(())
}

/// R2: a mark that is there with another value.
fn in_the_way<'m>(there: &'m Value, wanted: &'m Map<String, Value>) -> Option<(&'m str, &'m str)> {
    wanted.iter().find_map(|(key, value)| {
        let found = there[key.as_str()].as_str()?;
        (value.is_string() && value != found).then_some((key.as_str(), found))
    })
}

#[cfg(test)]
mod tests {
    use super::{Marks, in_the_way, read};
    use serde_json::{Map, Value, json};

    fn words(list: &[&str]) -> Vec<String> {
        list.iter().map(|word| (*word).to_owned()).collect()
    }

    fn map(value: Value) -> Map<String, Value> {
        value.as_object().expect("an object").clone()
    }

    #[test]
    fn r1_marks_follow_the_objects() {
        let (objects, marks) =
            read(&words(&["pods", "web", "tier=gold", "old-", "note=a=b"]), Marks::Labels).expect("words");
        assert_eq!(objects, ["pods", "web"]);
        assert_eq!(Value::from(marks), json!({"tier": "gold", "old": null, "note": "a=b"}));
        for wrong in [&["pods", "web"][..], &["pods", "a=b", "web"], &["pods", "=b"], &["pods", "a=b", "a-"]] {
            assert!(read(&words(wrong), Marks::Annotations).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn r2_another_value_is_in_the_way() {
        let there = json!({"tier": "gold", "same": "x"});
        assert_eq!(in_the_way(&there, &map(json!({"tier": "silver", "same": "x"}))), Some(("tier", "gold")));
        assert_eq!(in_the_way(&there, &map(json!({"tier": null, "same": "x", "new": "y"}))), None);
        assert_eq!(in_the_way(&Value::Null, &map(json!({"tier": "silver"}))), None);
    }
}
