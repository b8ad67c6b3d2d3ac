//! `rollout status`: what a rollout waits for, until it has ended.
//!
//! Rules
//!   R1 observed   nothing is said of a change that its controller has not seen
//!   R2 order      pods are updated, old ones end, new ones become available
//!   R3 deadline   a Deployment whose progress deadline has passed is an error
//!   R4 by hand    pods that are replaced when somebody deletes them (OnDelete) have no rollout to follow

use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use clap::Args;
use serde_json::Value;

use super::WhatFlags;
use crate::cli::chosen::Chosen;
use crate::cli::describe::sheet::{items, number, text};
use crate::cli::session::Session;

/// `windlass rollout status`.
#[derive(Args)]
pub struct StatusFlags {
    #[command(flatten)]
    pub what: WhatFlags,
    /// Follow it to its end
    #[arg(short, long, default_value_t = true, default_missing_value = "true", num_args = 0..=1, require_equals = true, action = clap::ArgAction::Set)]
    pub watch: bool,
    /// An error if this is no longer the revision
    #[arg(long, default_value_t = 0)]
    pub revision: u64,
    /// How long; 0 for as long as it takes
    #[arg(long, value_parser = crate::cli::duration::parse, default_value = "0")]
    pub timeout: Duration,
}

/// How far a rollout is.
#[derive(Debug, PartialEq)]
struct Progress {
    said: String,
    done: bool,
}

pub(super) async fn run(session: &Session, flags: &StatusFlags) -> Result<()> {
    for object in flags.what.find(session).await? {
        let following = follow(session, flags, &object);
        match flags.timeout {
            Duration::ZERO => following.await?,
            timeout => {
                let ended = tokio::time::timeout(timeout, following).await;
                ended.map_err(|_| anyhow!("timed out waiting for the condition"))??;
            }
        }
    }
    Ok(())
}

async fn follow(session: &Session, flags: &StatusFlags, object: &Chosen) -> Result<()> {
    let kind = object.served.kind.kind.to_string();
    object.get(session).await?;
    let mut last = String::new();
    let decide = |found: Option<&Value>| {
        let Some(found) = found else { bail!("object has been deleted") };
        let progress = progress(&kind, found, flags.revision)?;
        if progress.said != last {
            println!("{}", progress.said);
            last.clone_from(&progress.said);
        }
        Ok((progress.done || !flags.watch).then_some(()))
    };
    session.until(&object.served.kind, &object.namespace, &object.name, decide).await
}

fn progress(kind: &str, object: &Value, revision: u64) -> Result<Progress> {
    match kind {
        "Deployment" => deployment(object, revision),
        "DaemonSet" => daemon_set(object),
        "StatefulSet" => stateful_set(object),
        _ => bail!("no status viewer has been implemented for {kind:?}"),
    }
}

fn waiting(said: String) -> Progress {
    Progress { said, done: false }
}

fn done(said: String) -> Progress {
    Progress { said, done: true }
}

fn is_observed(object: &Value) -> bool {
    number(&object["metadata"], "generation") <= number(&object["status"], "observedGeneration")
}

fn deployment(object: &Value, revision: u64) -> Result<Progress> {
    let (name, status) = (text(&object["metadata"], "name"), &object["status"]);
    let at = super::revision(object);
    if revision > 0 && revision != at {
        bail!("desired revision ({revision}) is different from the running revision ({at})");
    }
    if !is_observed(object) {
        return Ok(waiting("Waiting for deployment spec update to be observed...".to_owned()));
    }
    let late = |condition: &&Value| {
        text(condition, "type") == "Progressing" && text(condition, "reason") == "ProgressDeadlineExceeded"
    };
    if items(status, "conditions").iter().find(late).is_some() {
        bail!("deployment {name:?} exceeded its progress deadline");
    }
    let wanted = object["spec"]["replicas"].as_i64().unwrap_or(1);
    let [all, updated, available] = ["replicas", "updatedReplicas", "availableReplicas"].map(|key| number(status, key));
    let wait = |why: String| waiting(format!("Waiting for deployment {name:?} rollout to finish: {why}..."));
    Ok(if updated < wanted {
        wait(format!("{updated} out of {wanted} new replicas have been updated"))
    } else if all > updated {
        wait(format!("{} old replicas are pending termination", all - updated))
    } else if available < updated {
        wait(format!("{available} of {updated} updated replicas are available"))
    } else {
        done(format!("deployment {name:?} successfully rolled out"))
    })
}

/// R4.
fn expect_rolling_update(object: &Value) -> Result<()> {
    if text(&object["spec"]["updateStrategy"], "type") != "RollingUpdate" {
        bail!("rollout status is only available for RollingUpdate strategy type");
    }
    Ok(())
}

fn daemon_set(object: &Value) -> Result<Progress> {
    let (name, status) = (text(&object["metadata"], "name"), &object["status"]);
    expect_rolling_update(object)?;
    if !is_observed(object) {
        return Ok(waiting("Waiting for daemon set spec update to be observed...".to_owned()));
    }
    let [wanted, updated, available] =
        ["desiredNumberScheduled", "updatedNumberScheduled", "numberAvailable"].map(|key| number(status, key));
    let wait = |why: String| waiting(format!("Waiting for daemon set {name:?} rollout to finish: {why}..."));
    Ok(if updated < wanted {
        wait(format!("{updated} out of {wanted} new pods have been updated"))
    } else if available < wanted {
        wait(format!("{available} of {wanted} updated pods are available"))
    } else {
        done(format!("daemon set {name:?} successfully rolled out"))
    })
}

fn stateful_set(object: &Value) -> Result<Progress> {
    let (spec, status) = (&object["spec"], &object["status"]);
    expect_rolling_update(object)?;
    if number(status, "observedGeneration") == 0 || !is_observed(object) {
        return Ok(waiting("Waiting for statefulset spec update to be observed...".to_owned()));
    }
    let wanted = spec["replicas"].as_i64().unwrap_or(1);
    let [ready, updated, current] =
        ["readyReplicas", "updatedReplicas", "currentReplicas"].map(|key| number(status, key));
    if ready < wanted {
        return Ok(waiting(format!("Waiting for {} pods to be ready...", wanted - ready)));
    }
    let rolling = &spec["updateStrategy"]["rollingUpdate"];
    if rolling.is_object() {
        // The server fills it in, so that kubectl speaks of partitions whether there are any or not.
        let share = wanted - number(rolling, "partition");
        return Ok(if updated < share {
            waiting(format!(
                "Waiting for partitioned roll out to finish: {updated} out of {share} new pods have been updated..."
            ))
        } else {
            done(format!("partitioned roll out complete: {updated} new pods have been updated..."))
        });
    }
    let (old, new) = (text(status, "currentRevision"), text(status, "updateRevision"));
    Ok(if old == new {
        done(format!("statefulset rolling update complete {current} pods at revision {old}..."))
    } else {
        waiting(format!("waiting for statefulset rolling update to complete {updated} pods at revision {new}..."))
    })
}

#[cfg(test)]
mod tests {
    use super::{Progress, progress};
    use serde_json::{Value, json};

    fn check(kind: &str, object: &Value, said: &str, ended: bool) {
        assert_eq!(progress(kind, object, 0).expect(said), Progress { said: said.to_owned(), done: ended });
    }

    #[test]
    fn r2_pods_are_updated_then_old_ones_end_then_new_ones_are_available() {
        let mut web = json!({"metadata": {"name": "web", "generation": 2}, "spec": {"replicas": 2}, "status": {"observedGeneration": 1}});
        check("Deployment", &web, "Waiting for deployment spec update to be observed...", false);
        web["status"] = json!({"observedGeneration": 2, "replicas": 3, "updatedReplicas": 1});
        check(
            "Deployment",
            &web,
            "Waiting for deployment \"web\" rollout to finish: 1 out of 2 new replicas have been updated...",
            false,
        );
        web["status"]["updatedReplicas"] = json!(2);
        check(
            "Deployment",
            &web,
            "Waiting for deployment \"web\" rollout to finish: 1 old replicas are pending termination...",
            false,
        );
        web["status"]["replicas"] = json!(2);
        check(
            "Deployment",
            &web,
            "Waiting for deployment \"web\" rollout to finish: 0 of 2 updated replicas are available...",
            false,
        );
        web["status"]["availableReplicas"] = json!(2);
        check("Deployment", &web, "deployment \"web\" successfully rolled out", true);
    }

    #[test]
    fn r2_stateful_pods_are_ready_then_updated() {
        let mut db = json!({"metadata": {"name": "db", "generation": 1}, "spec": {"replicas": 3,
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 1}}}, "status": {"observedGeneration": 1}});
        check("StatefulSet", &db, "Waiting for 3 pods to be ready...", false);
        db["status"]["readyReplicas"] = json!(3);
        check(
            "StatefulSet",
            &db,
            "Waiting for partitioned roll out to finish: 0 out of 2 new pods have been updated...",
            false,
        );
        db["status"]["updatedReplicas"] = json!(2);
        check("StatefulSet", &db, "partitioned roll out complete: 2 new pods have been updated...", true);
    }

    #[test]
    fn r4_what_is_updated_by_hand_has_no_rollout() {
        let mut agent = json!({"metadata": {"name": "agent"}, "spec": {"updateStrategy": {"type": "OnDelete"}}});
        for kind in ["DaemonSet", "StatefulSet"] {
            let error = progress(kind, &agent, 0).expect_err(kind).to_string();
            assert_eq!(error, "rollout status is only available for RollingUpdate strategy type");
        }
        agent["spec"]["updateStrategy"]["type"] = json!("RollingUpdate");
        check("DaemonSet", &agent, "daemon set \"agent\" successfully rolled out", true);
    }

    #[test]
    fn r3_a_missed_deadline_is_an_error() {
        let web = json!({"metadata": {"name": "web"}, "status": {"conditions": [{"type": "Progressing", "reason": "ProgressDeadlineExceeded"}]}});
        let error = progress("Deployment", &web, 0).expect_err("late").to_string();
        assert_eq!(error, "deployment \"web\" exceeded its progress deadline");
        assert!(progress("Pod", &web, 0).is_err());
    }
}
