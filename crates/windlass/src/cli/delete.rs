//! `windlass delete`: objects go, and the verb waits until they are gone.
//!
//! Rules
//!   R1 which     named, or of a file, or chosen by labels or fields, or `--all`; nothing is deleted unasked
//!   R2 cascade   background unless `--cascade` says foreground or orphan
//!   R3 grace     `--grace-period`; `--now` is 1 s; `--force` is 0 s and does not wait for the node
//!   R4 wait      until each object is gone, or another one has its name; `--wait=false` and `--force` do not wait
//!   R5 missing   is an error unless `--ignore-not-found`; a file's or selection's rest is deleted all the same

use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use http::Method;
use serde_json::{Value, json};
use windlass_api::Kind;
use windlass_client::{Call, with_query};

use super::chosen::{Choice, Chosen};
use super::dry_run::DryRun;
use super::get::all_said;
use super::manifest::FileFlags;
use super::select::SelectFlags;
use super::session::{Session, SessionFlags, is_not_found};

/// `windlass delete`.
#[derive(Args)]
pub struct DeleteFlags {
    #[command(flatten)]
    pub session: SessionFlags,
    /// KIND NAME…, KIND/NAME…, or KIND with -l or --all
    #[arg(value_name = "WHAT")]
    pub words: Vec<String>,
    #[command(flatten)]
    pub select: SelectFlags,
    #[command(flatten)]
    pub files: FileFlags,
    /// All objects of the kinds
    #[arg(long)]
    pub all: bool,
    /// What happens to the objects that these own
    #[arg(long, value_enum, default_value = "background", default_missing_value = "background", num_args = 0..=1, require_equals = true)]
    pub cascade: Cascade,
    /// Seconds to end gracefully; the kind's own unless given
    #[arg(long, default_value_t = -1, allow_negative_numbers = true)]
    pub grace_period: i64,
    /// End within a second
    #[arg(long, conflicts_with = "grace_period")]
    pub now: bool,
    /// Remove at once, without waiting for the node
    #[arg(long)]
    pub force: bool,
    /// Wait until they are gone
    #[arg(long, default_value_t = true, default_missing_value = "true", num_args = 0..=1, require_equals = true, action = clap::ArgAction::Set)]
    pub wait: bool,
    /// How long to wait; 0 for as long as it takes
    #[arg(long, default_value = "0", value_parser = super::duration::parse)]
    pub timeout: Duration,
    /// An object that is not there is no error
    #[arg(long)]
    pub ignore_not_found: bool,
    #[command(flatten)]
    pub dry_run: DryRun,
    /// Print only names: -o name
    #[arg(short, long, default_value = "", hide_default_value = true, value_parser = ["", "name"])]
    pub output: String,
}

/// `--cascade`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Cascade {
    /// They go afterwards.
    Background,
    /// They go first.
    Foreground,
    /// They stay.
    Orphan,
}

/// An object to wait for.
struct Going {
    kind: Kind,
    namespace: String,
    name: String,
    uid: String,
}

/// Does it.
pub async fn run(session: &Session, flags: &DeleteFlags) -> Result<()> {
    let choice = Choice { words: &flags.words, select: &flags.select, files: &flags.files, all: flags.all };
    let (doomed, mut failed) = choice.find(session).await?;
    if doomed.is_empty() && failed.is_empty() {
        println!("No resources found");
        return Ok(());
    }
    if flags.force && !flags.dry_run.is_set() {
        eprintln!(
            "Warning: Immediate deletion does not wait for confirmation that the running resource has been terminated. The resource may continue to run on the cluster indefinitely."
        );
    }
    let mut going = Vec::new();
    for object in &doomed {
        match delete(session, flags, object).await {
            Ok(gone) => going.extend(gone),
            Err(error) if flags.ignore_not_found && is_not_found(&error) => {}
            Err(error) => failed.push(error),
        }
    }
    if flags.wait && !flags.force && !flags.dry_run.is_set() {
        let all = wait_gone(session, &going);
        match flags.timeout {
            Duration::ZERO => all.await?,
            timeout => tokio::time::timeout(timeout, all)
                .await
                .map_err(|_| anyhow::anyhow!("timed out waiting for the condition on what was deleted"))??,
        }
    }
    all_said(failed)
}

/// Deletes one object; gives what to wait for.
async fn delete(session: &Session, flags: &DeleteFlags, object: &Chosen) -> Result<Option<Going>> {
    let kind = &object.served.kind;
    let answer = if flags.dry_run.is_client() {
        session.get(kind, &object.namespace, &object.name).await?
    } else {
        let path = with_query(&object.path(), &flags.dry_run.query());
        session.json(Call::with_json(Method::DELETE, path, &options(flags))).await?
    };
    let qualified = object.served.qualified();
    if flags.output == "name" {
        println!("{qualified}/{}", object.name);
    } else {
        let how = if flags.force { "force deleted" } else { "deleted" };
        let place = if kind.namespaced { format!(" from {} namespace", object.namespace) } else { String::new() };
        println!("{qualified} {:?} {how}{place}{}", object.name, flags.dry_run.suffix());
    }
    // The answer is the object as it was left, or a Status that names its uid.
    let uid = answer["metadata"]["uid"].as_str().or(answer["details"]["uid"].as_str()).unwrap_or_default().to_owned();
    let going = Going { kind: kind.clone(), namespace: object.namespace.clone(), name: object.name.clone(), uid };
    Ok(Some(going))
}

/// R2 and R3.
fn options(flags: &DeleteFlags) -> Value {
    let mut options = json!({"apiVersion": "v1", "kind": "DeleteOptions"});
    options["propagationPolicy"] = json!(match flags.cascade {
        Cascade::Background => "Background",
        Cascade::Foreground => "Foreground",
        Cascade::Orphan => "Orphan",
    });
    let grace = match (flags.force, flags.now, flags.grace_period) {
        (true, _, grace) if grace < 0 => Some(0),
        (true, _, grace) => Some(grace),
        (false, true, _) | (false, false, 0) => Some(1),
        (false, false, grace) if grace < 0 => None,
        (false, false, grace) => Some(grace),
    };
    if let Some(grace) = grace {
        options["gracePeriodSeconds"] = json!(grace);
    }
    options
}

/// R4.
async fn wait_gone(session: &Session, going: &[Going]) -> Result<()> {
    for object in going {
        if !session.still_there(&object.kind, &object.namespace, &object.name, &object.uid).await? {
            continue;
        }
        session
            .until(&object.kind, &object.namespace, &object.name, |found| {
                let same = found.is_some_and(|found| object.uid.is_empty() || found["metadata"]["uid"] == object.uid);
                Ok((!same).then_some(()))
            })
            .await
            .with_context(|| format!("while waiting until {:?} is gone", object.name))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{DeleteFlags, options};
    use clap::{Args, Command, FromArgMatches};
    use serde_json::{Value, json};

    fn parse(words: &[&str]) -> DeleteFlags {
        let command = DeleteFlags::augment_args(Command::new("delete"));
        let matches = command.get_matches_from([&["delete"], words].concat());
        DeleteFlags::from_arg_matches(&matches).expect("flags")
    }

    #[test]
    fn r2_background_unless_said() {
        assert_eq!(options(&parse(&[]))["propagationPolicy"], "Background");
        assert_eq!(options(&parse(&["--cascade=orphan"]))["propagationPolicy"], "Orphan");
    }

    #[test]
    fn r3_grace_is_the_kinds_own_unless_said() {
        let grace = |words: &[&str]| options(&parse(words))["gracePeriodSeconds"].clone();
        assert_eq!(grace(&[]), Value::Null);
        assert_eq!(grace(&["--now"]), json!(1));
        assert_eq!(grace(&["--force"]), json!(0));
        assert_eq!(grace(&["--grace-period=5"]), json!(5));
        assert_eq!(grace(&["--grace-period=0"]), json!(1));
        assert_eq!(grace(&["--grace-period", "0", "--force"]), json!(0));
    }

    #[test]
    fn r4_waiting_can_be_turned_off() {
        assert!(parse(&[]).wait && parse(&["--wait"]).wait && !parse(&["--wait=false"]).wait);
    }
}
