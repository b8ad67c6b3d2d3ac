//! What was rolled out before: a Deployment keeps it in its replica sets, a DaemonSet and a StatefulSet in
//! ControllerRevisions.

use anyhow::{Result, bail};
use serde_json::{Map, Value};
use windlass_api::kinds;

use super::revision;
use crate::cli::chosen::Chosen;
use crate::cli::describe::deployment::{replica_sets, without_hash};
use crate::cli::describe::pod::is_owned;
use crate::cli::describe::sheet::{selector, text};
use crate::cli::session::Session;

/// One pod template that was rolled out.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Past {
    /// Its number: higher is later.
    pub number: u64,
    /// Why it was rolled out, if somebody noted it down.
    pub cause: String,
    /// The template, as it was noted down; [`Past::wish`] is what the object itself would hold.
    pub template: Value,
    /// The annotations that come back with it.
    pub annotations: Map<String, Value>,
}

impl Past {
    /// The template as the object itself would hold it: without what tells a Deployment's replica sets apart.
    pub(super) fn wish(&self) -> Value {
        without_hash(&self.template)
    }
}

/// All of them, lowest number first. `what` is what is being done, for those that cannot.
pub(super) async fn past(session: &Session, object: &Chosen, found: &Value, what: &str) -> Result<Vec<Past>> {
    let kind = &object.served.kind;
    let mut past: Vec<Past> = match (&*kind.group, &*kind.kind) {
        ("apps", "Deployment") => replica_sets(session, found).await?.iter().map(of_replica_set).collect(),
        ("apps", "DaemonSet" | "StatefulSet") => {
            let metadata = &found["metadata"];
            let chosen = selector(&found["spec"]["selector"]);
            let query = [("labelSelector", chosen.as_str())];
            let all = session.list(&kinds::CONTROLLER_REVISION, metadata["namespace"].as_str(), &query).await?;
            all.iter().filter(|revision| is_owned(revision, text(metadata, "uid"))).map(of_revision).collect()
        }
        _ => bail!("no {what} has been implemented for {:?}", kind.kind),
    };
    past.sort_by_key(|past| past.number);
    Ok(past)
}

fn of_replica_set(set: &Value) -> Past {
    let template = set["spec"]["template"].clone();
    let annotations = set["metadata"]["annotations"].as_object().cloned().unwrap_or_default();
    Past { number: revision(set), cause: cause(set), template, annotations }
}

/// Its data is a strategic merge patch that replaces the template.
fn of_revision(revision: &Value) -> Past {
    let mut template = revision["data"]["spec"]["template"].clone();
    if let Some(fields) = template.as_object_mut() {
        fields.remove("$patch");
    }
    let number = revision["revision"].as_u64().unwrap_or(0);
    Past { number, cause: cause(revision), template, annotations: Map::new() }
}

fn cause(object: &Value) -> String {
    text(&object["metadata"]["annotations"], "kubernetes.io/change-cause").to_owned()
}

#[cfg(test)]
mod tests {
    use super::{Past, of_replica_set, of_revision};
    use serde_json::{Map, json};

    #[test]
    fn the_hash_label_does_not_come_back() {
        let set = json!({"metadata": {"annotations": {"deployment.kubernetes.io/revision": "3"}},
            "spec": {"template": {"metadata": {"labels": {"app": "a", "pod-template-hash": "x"}}}}});
        assert_eq!(of_replica_set(&set).wish(), json!({"metadata": {"labels": {"app": "a"}}}));
        let template = set["spec"]["template"].clone();
        let annotations = set["metadata"]["annotations"].as_object().cloned().expect("a map");
        assert_eq!(of_replica_set(&set), Past { number: 3, cause: String::new(), template, annotations });
    }

    #[test]
    fn a_controller_revision_is_a_patch_that_replaces() {
        let revision = json!({"metadata": {"annotations": {"kubernetes.io/change-cause": "why"}}, "revision": 7,
            "data": {"spec": {"template": {"$patch": "replace", "spec": {"containers": []}}}}});
        let template = json!({"spec": {"containers": []}});
        let annotations = Map::new();
        assert_eq!(of_revision(&revision), Past { number: 7, cause: "why".to_owned(), template, annotations });
    }
}
