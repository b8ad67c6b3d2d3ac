//! A static pod's likeness in the API: made when it is missing, made anew when somebody deletes it, told how the pod is.
//!
//! Rules
//!   R1 made      the API is given a likeness, which belongs to the node
//!   R2 anew      one that is being deleted goes at once, and another is made
//!   R3 told      the pod's status is written to it as to any other pod

use windlass_api::{Object, kinds};
use windlass_client::DeleteOptions;

use super::PodTask;
use super::work::{Outcome, Slot};
use crate::manifest;

/// What is known of the likeness.
#[derive(Debug, Default)]
pub(super) struct Likeness {
    /// The uid of the one the API has.
    pub uid: Option<String>,
    is_ending: bool,
}

impl PodTask {
    /// The likeness as the API has it.
    pub(super) fn look_at_mirror(&mut self, mirror: Option<&Object>) {
        let Some(likeness) = &mut self.likeness else { return };
        match mirror {
            Some(mirror) => {
                likeness.uid = Some(mirror.header.uid().to_owned());
                likeness.is_ending = mirror.header.is_ending();
                self.current = mirror.value()["status"].take();
            }
            None => *likeness = Likeness::default(),
        }
    }

    /// R1, R2: begins what is missing; whether there was something.
    pub(super) fn mend_mirror(&mut self) -> bool {
        let (namespace, name) = (self.context.namespace().to_owned(), self.context.name().to_owned());
        let context = self.context.clone();
        match &self.likeness {
            Some(Likeness { uid: Some(uid), is_ending: true }) => {
                let options = DeleteOptions::of_uid(uid.as_str()).at_once();
                self.likeness = Some(Likeness::default());
                self.work.begin(Slot::Status, async move {
                    let deleted = context.shared.client.delete(&kinds::POD, &namespace, &name, &options).await;
                    Outcome::MirrorDeleted(deleted.map(drop))
                });
                true
            }
            Some(Likeness { uid: None, .. }) => {
                let Some(node) = context.shared.node_uid() else { return true };
                let Ok(pod) = Object::parse(self.json.clone()) else { return true };
                let mirror = manifest::mirror(&pod, &node, &context.shared.config.name);
                self.work.begin(Slot::Status, async move {
                    let made = context.shared.client.create(&kinds::POD, &namespace, &mirror).await;
                    Outcome::Written(made.map(Box::new))
                });
                true
            }
            _ => false,
        }
    }
}
