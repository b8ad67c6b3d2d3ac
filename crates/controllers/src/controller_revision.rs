//! ControllerRevision: the templates that a DaemonSet or StatefulSet has had, to tell its pods apart and to go back to.
//!
//! Rules
//!   R1 data      a revision holds the template as a strategic merge patch of its owner, which `rollout undo` applies
//!   R2 current   the revision of the owner's template has the highest number; one that comes back is raised, not made anew
//!   R3 name      the owner's name and the template's hash; where another template has the name, the next hash is tried
//!   R4 history   revisions that no pod is of go, lowest number first, down to revisionHistoryLimit
//! Not here       which pods are of which revision (daemon_set, stateful_set)

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};
use windlass_api::{Header, Kind, Object, kinds};
use windlass_client::Cached;

use crate::claim::{Claimant, controller_reference};
use crate::plan::{Plan, Target};
use crate::selector::Selector;
use crate::template;

/// The label of pods and revisions that says which template they are of.
pub(crate) const REVISION_LABEL: &str = "controller-revision-hash";
const CHANGE_CAUSE: &str = "kubernetes.io/change-cause";

/// Whose revisions they are.
pub(crate) struct Owner<'a> {
    pub(crate) kind: &'a Kind,
    pub(crate) header: &'a Header,
    pub(crate) selector: &'a Selector,
    pub(crate) template: &'a Value,
    pub(crate) annotations: Option<&'a BTreeMap<String, String>>,
    pub(crate) collisions: i64,
    pub(crate) history_limit: i64,
}

/// One template that the owner has had.
pub(crate) struct Revision {
    object: Arc<Cached>,
    facts: Arc<Facts>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Facts {
    data: Value,
    revision: i64,
}

/// The revision of the owner's template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Current {
    pub(crate) name: String,
    pub(crate) hash: String,
    /// R3: its name is taken, so there is none in this pass.
    pub(crate) is_taken: bool,
}

impl Revision {
    pub(crate) fn name(&self) -> &str {
        self.object.header.name()
    }

    /// The template that it holds.
    pub(crate) fn template(&self) -> Value {
        let mut template = self.facts.data["spec"]["template"].clone();
        if let Some(fields) = template.as_object_mut() {
            fields.remove("$patch");
        }
        template
    }

    fn hash(&self) -> String {
        let labelled = self.object.header.labels().get(REVISION_LABEL).map(str::to_owned);
        let suffix = self.name().rsplit_once('-').map_or("", |(_, hash)| hash);
        // A StatefulSet's pods are labelled with the revision's name; its own label is the hash.
        labelled.unwrap_or_else(|| suffix.to_owned())
    }
}

/// The hash of the owner's template.
fn hash(owner: &Owner) -> String {
    template::hash(owner.template, owner.collisions)
}

/// The name that R3 gives.
pub(crate) fn name(owner: &Owner) -> String {
    format!("{}-{}", owner.header.name(), hash(owner))
}

/// The owner's revisions, lowest number first; orphans are adopted and strangers released.
pub(crate) fn claim(owner: &Owner, candidates: &[Arc<Cached>], plan: &mut Plan) -> Vec<Revision> {
    let claimant = Claimant { kind: owner.kind, header: owner.header, selector: owner.selector };
    let claims = claimant.sort(candidates);
    claimant.plan(&claims, &kinds::CONTROLLER_REVISION, plan);
    let mut revisions: Vec<Revision> = claims.owned.into_iter().chain(claims.orphans).map(read).collect();
    revisions.sort_by(|one, other| {
        let by = |revision: &Revision| (revision.facts.revision, revision.object.header.created().to_owned());
        by(one).cmp(&by(other))
    });
    revisions
}

fn read(object: Arc<Cached>) -> Revision {
    let facts = object.memo(|revision: &Object| {
        revision.decode().unwrap_or_else(|error| {
            tracing::error!(revision = revision.header.key(), %error, "a revision that cannot be read holds no template");
            Facts::default()
        })
    });
    Revision { object, facts }
}

/// R2, R3. `namesake` is whatever has the name that R3 gives.
pub(crate) fn current(owner: &Owner, revisions: &[Revision], namesake: Option<&Cached>, plan: &mut Plan) -> Current {
    let highest = revisions.last().map_or(0, |revision| revision.facts.revision);
    if let Some(found) = revisions.iter().rev().find(|found| template::same(&found.template(), owner.template)) {
        if found.facts.revision < highest {
            let target = Target::of(&kinds::CONTROLLER_REVISION, &found.object.header);
            let why = format!("revision {} is wanted again, as number {}", found.name(), highest + 1);
            plan.patch(target, json!({"revision": highest + 1}), why);
        }
        return Current { name: found.name().to_owned(), hash: found.hash(), is_taken: false };
    }
    let current = Current { name: name(owner), hash: hash(owner), is_taken: namesake.is_some() };
    if !current.is_taken {
        let why = format!("revision {} is the first of its template", current.name);
        plan.create(&kinds::CONTROLLER_REVISION, owner.header.namespace(), new(owner, &current, highest + 1), why);
    }
    current
}

/// R1.
fn new(owner: &Owner, current: &Current, number: i64) -> Value {
    let mut patch = owner.template.clone();
    patch["$patch"] = json!("replace");
    let mut labels = owner.template["metadata"]["labels"].clone();
    if !labels.is_object() {
        labels = json!({});
    }
    labels[REVISION_LABEL] = json!(current.hash);
    let cause = owner.annotations.and_then(|annotations| annotations.get(CHANGE_CAUSE));
    let annotations = cause.map(|cause| json!({CHANGE_CAUSE: cause}));
    json!({
        "apiVersion": "apps/v1", "kind": "ControllerRevision",
        "metadata": {
            "name": current.name, "namespace": owner.header.namespace(), "labels": labels, "annotations": annotations,
            "ownerReferences": [controller_reference(owner.kind, owner.header)],
        },
        "data": {"spec": {"template": patch}}, "revision": number,
    })
}

/// R4. `is_live` says whether some pod is of the revision with this name and hash.
pub(crate) fn clean_up(owner: &Owner, revisions: &[Revision], is_live: impl Fn(&str, &str) -> bool, plan: &mut Plan) {
    let idle: Vec<&Revision> =
        revisions.iter().filter(|revision| !is_live(revision.name(), &revision.hash())).collect();
    let limit = usize::try_from(owner.history_limit).unwrap_or(0);
    for revision in idle.iter().take(idle.len().saturating_sub(limit)) {
        let why = format!("revision {} is beyond revisionHistoryLimit {limit}", revision.name());
        plan.delete(Target::of(&kinds::CONTROLLER_REVISION, &revision.object.header), why);
    }
}

#[cfg(test)]
mod tests {
    use super::{Owner, claim, clean_up, current, name};
    use crate::fixture::{check, object};
    use crate::plan::{Action, Plan};
    use crate::selector::Selector;
    use serde_json::{Value, json};
    use windlass_api::kinds;

    fn template(image: &str) -> Value {
        json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": image}]}})
    }

    fn revision(name: &str, image: &str, number: i64) -> Value {
        let mut patch = template(image);
        patch["$patch"] = json!("replace");
        json!({"apiVersion": "apps/v1", "kind": "ControllerRevision",
            "metadata": {"name": name, "namespace": "a", "uid": name, "labels": {"app": "web", "controller-revision-hash": name},
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "web", "uid": "d", "controller": true}]},
            "data": {"spec": {"template": patch}}, "revision": number})
    }

    /// What is planned for an owner whose template has this image.
    fn plan(image: &str, revisions: &[Value], namesake: bool) -> (super::Current, Plan) {
        let owner = object(&json!({"apiVersion": "apps/v1", "kind": "DaemonSet",
            "metadata": {"name": "web", "namespace": "a", "uid": "d"}}));
        let selector: Selector = serde_json::from_value(json!({"matchLabels": {"app": "web"}})).expect("a selector");
        let template = template(image);
        let owner = Owner {
            kind: &kinds::DAEMON_SET,
            header: &owner.header,
            selector: &selector,
            template: &template,
            annotations: None,
            collisions: 0,
            history_limit: 1,
        };
        let mut plan = Plan::default();
        let candidates: Vec<_> = revisions.iter().map(object).collect();
        let namesake = namesake.then(|| object(&revision(&name(&owner), "other", 1)));
        let revisions = claim(&owner, &candidates, &mut plan);
        let current = current(&owner, &revisions, namesake.as_deref(), &mut plan);
        clean_up(&owner, &revisions, |name, _| name == current.name, &mut plan);
        (current, plan)
    }

    #[test]
    fn r1_a_revision_is_a_patch_of_its_owner() {
        let (current, plan) = plan("web:1", &[], false);
        let Action::Create { object, .. } = &plan.items[0].action else { panic!("a revision is made") };
        assert_eq!(object["data"]["spec"]["template"]["$patch"], "replace");
        assert_eq!(object["metadata"]["labels"]["controller-revision-hash"], json!(current.hash));
        assert_eq!((&object["revision"], &object["metadata"]["name"]), (&json!(1), &json!(current.name)));
    }

    #[test]
    fn r2_a_template_that_comes_back_raises_its_revision() {
        let revisions = [revision("web-1", "web:1", 1), revision("web-2", "web:2", 2)];
        check(&plan("web:2", &revisions, false).1, "");
        let (current, plan) = plan("web:1", &revisions, false);
        assert_eq!(current.name, "web-1");
        check(&plan, "patch controllerrevisions a/web-1: revision web-1 is wanted again, as number 3");
    }

    #[test]
    fn r3_a_taken_name_is_not_used() {
        let (current, plan) = plan("web:1", &[], true);
        assert!(current.is_taken);
        check(&plan, "");
    }

    #[test]
    fn r4_idle_revisions_go_beyond_the_limit() {
        let revisions = [revision("web-1", "web:1", 1), revision("web-2", "web:2", 2), revision("web-3", "web:3", 3)];
        check(
            &plan("web:3", &revisions, false).1,
            "delete controllerrevisions a/web-1: revision web-1 is beyond revisionHistoryLimit 1",
        );
    }
}
