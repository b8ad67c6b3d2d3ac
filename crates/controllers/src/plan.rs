//! What a controller decides: a list of changes, each with the reason for it, and when to look again.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde_json::Value;
use windlass_api::{Header, Kind, Subresource};
use windlass_client::{DeleteOptions, EventKind, Key, ObjectRef, Patch};

/// What is to be done now, and when to look again.
#[derive(Debug, Default)]
pub struct Plan {
    /// The changes, in order. Neighbours that create (or delete) objects of one kind are one burst.
    pub items: Vec<Item>,
    /// When time alone will change the decision.
    pub again: Option<Again>,
}

/// A look that time alone makes necessary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Again {
    /// How long from now.
    pub after: Duration,
    /// What will have changed by then.
    pub why: String,
}

/// One change and the reason for it.
#[derive(Debug)]
pub struct Item {
    /// What is done.
    pub action: Action,
    /// Why, as a sentence. `{name}` stands for the name that the API gives a created object.
    pub why: String,
    /// How the reason is told to people, if at all.
    pub event: Option<Event>,
    /// Checked against the API itself first; where it does not hold nothing is done.
    pub guard: Option<Guard>,
}

/// The Event that an item becomes once it is carried out.
#[derive(Debug)]
pub struct Event {
    /// About which object.
    pub about: ObjectRef,
    /// Normal or warning.
    pub kind: EventKind,
    /// Its reason when the item worked; `None` tells nobody.
    pub reason: Option<&'static str>,
    /// Its reason, as a warning, when it did not; `None` tells nobody.
    pub failed_reason: Option<&'static str>,
}

/// One change.
#[derive(Debug)]
pub enum Action {
    /// A new object.
    Create {
        /// Its kind.
        kind: Kind,
        /// Its namespace; empty for cluster-scoped kinds.
        namespace: String,
        /// All of it.
        object: Value,
    },
    /// A change of a part of an object.
    Patch {
        /// Which object.
        target: Target,
        /// The change.
        patch: Patch,
        /// Of the object itself or of its status.
        subresource: Option<Subresource>,
    },
    /// The end of an object.
    Delete {
        /// Which object.
        target: Target,
        /// Its uid at least, so that a namesake is never meant.
        options: DeleteOptions,
    },
    /// The end of all objects of a kind in a namespace, whether or not we have a copy of them. The next view is told
    /// what stayed ([`Left`]).
    DeleteAll {
        /// The kind.
        kind: Kind,
        /// The namespace.
        namespace: String,
    },
    /// Nothing: there is only something to say.
    Tell,
    /// Takes the finalizers off an ending namespace.
    Finalize {
        /// The namespace as it is, to be sent back without finalizers.
        namespace: Value,
    },
}

/// Names one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace and name.
    pub key: Key,
    /// Its uid.
    pub uid: String,
}

/// What stayed of a kind in a namespace after [`Action::DeleteAll`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// The kind.
    pub kind: Kind,
    /// How many objects.
    pub count: usize,
    /// What holds them, and how many each.
    pub finalizers: BTreeMap<String, usize>,
}

impl Left {
    /// Nothing of this kind yet.
    pub fn of(kind: &Kind) -> Left {
        Left { kind: kind.clone(), count: 0, finalizers: BTreeMap::new() }
    }

    /// Counts an object.
    pub fn count(&mut self, object: &Header) {
        self.count += 1;
        for finalizer in object.finalizers() {
            *self.finalizers.entry(finalizer.to_owned()).or_default() += 1;
        }
    }
}

/// What must be true in the API itself, not only in our copy, before something that cannot be undone.
#[derive(Debug, Clone)]
pub enum Guard {
    /// None of these objects exists with its uid (an empty uid means: with any).
    Absent(Vec<Target>),
    /// The namespace holds no object of these kinds.
    Empty(String, Vec<Kind>),
}

impl Target {
    /// This object.
    pub fn of(kind: &Kind, header: &Header) -> Target {
        Target { kind: kind.clone(), key: Key::of(header), uid: header.uid().to_owned() }
    }
}

impl Plan {
    /// Nothing to do.
    pub fn nothing() -> Plan {
        Plan::default()
    }

    /// Creates an object.
    pub fn create(&mut self, kind: &Kind, namespace: &str, object: Value, why: impl Into<String>) -> &mut Item {
        self.add(Action::Create { kind: kind.clone(), namespace: namespace.to_owned(), object }, why)
    }

    /// Changes a part of an object by a merge patch.
    pub fn patch(&mut self, target: Target, patch: Value, why: impl Into<String>) -> &mut Item {
        self.add(Action::Patch { target, patch: Patch::Merge(patch), subresource: None }, why)
    }

    /// Changes a part of an object's status by this patch.
    pub fn patch_status(&mut self, target: Target, patch: Patch, why: impl Into<String>) -> &mut Item {
        self.add(Action::Patch { target, patch, subresource: Some(Subresource::Status) }, why)
    }

    /// Deletes an object, only if it still has its uid.
    pub fn delete(&mut self, target: Target, why: impl Into<String>) -> &mut Item {
        let options = DeleteOptions::of_uid(&target.uid);
        self.add(Action::Delete { target, options }, why)
    }

    /// Deletes an object at once, without waiting for its node.
    pub fn delete_at_once(&mut self, target: Target, why: impl Into<String>) -> &mut Item {
        let options = DeleteOptions::of_uid(&target.uid).at_once();
        self.add(Action::Delete { target, options }, why)
    }

    /// Says why nothing can be done.
    pub fn say(&mut self, about: ObjectRef, reason: &'static str, why: impl Into<String>) -> &mut Item {
        self.add(Action::Tell, why).tell(about, reason)
    }

    /// Any change.
    pub fn add(&mut self, action: Action, why: impl Into<String>) -> &mut Item {
        self.items.push(Item { action, why: why.into(), event: None, guard: None });
        self.items.last_mut().expect("pushed a line ago")
    }

    /// Looks again after a while; the earliest of several counts.
    pub fn look_again(&mut self, after: Duration, why: impl Into<String>) {
        if self.again.as_ref().is_none_or(|again| after < again.after) {
            self.again = Some(Again { after, why: why.into() });
        }
    }
}

impl Item {
    /// What it tells people is a warning.
    pub fn as_warning(&mut self) -> &mut Item {
        if let Some(event) = &mut self.event {
            event.kind = EventKind::Warning;
        }
        self
    }

    /// Only if this holds in the API itself, not only in our copy.
    pub fn guard(&mut self, guard: Guard) -> &mut Item {
        self.guard = Some(guard);
        self
    }

    /// Tells people by an Event of this reason.
    pub fn tell(&mut self, about: ObjectRef, reason: &'static str) -> &mut Item {
        self.event = Some(Event { about, kind: EventKind::Normal, reason: Some(reason), failed_reason: None });
        self
    }

    /// Tells people by a warning of this reason, and only when it fails.
    pub fn tell_only_failure(&mut self, about: ObjectRef, reason: &'static str) -> &mut Item {
        self.event = Some(Event { about, kind: EventKind::Normal, reason: None, failed_reason: Some(reason) });
        self
    }

    /// Tells people by a warning of this reason when it fails.
    pub fn tell_failure(&mut self, reason: &'static str) -> &mut Item {
        if let Some(event) = &mut self.event {
            event.failed_reason = Some(reason);
        }
        self
    }
}

/// The plan as text, one line an item: what tests compare and logs show.
impl fmt::Display for Plan {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for item in &self.items {
            match (&item.action, &item.event) {
                (Action::Tell, Some(event)) => {
                    let key = Key::new(&event.about.namespace, &event.about.name);
                    writeln!(out, "tell {key} {}: {}", event.reason.unwrap_or_default(), item.why)?;
                }
                (action, _) => writeln!(out, "{action}: {}", item.why)?,
            }
        }
        if let Some(again) = &self.again {
            writeln!(out, "again after {:?}: {}", again.after, again.why)?;
        }
        Ok(())
    }
}

impl fmt::Display for Action {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::Create { kind, namespace, object } => {
                let metadata = &object["metadata"];
                let name = metadata["name"].as_str().or_else(|| metadata["generateName"].as_str());
                write!(out, "create {} {}", kind.plural, Key::new(namespace, name.unwrap_or_default()))
            }
            Action::Patch { target, subresource: None, .. } => write!(out, "patch {target}"),
            Action::Patch { target, subresource: Some(part), .. } => write!(out, "patch {target} {}", part.as_str()),
            Action::Delete { target, .. } => write!(out, "delete {target}"),
            Action::Tell => write!(out, "tell"),
            Action::DeleteAll { kind, namespace } => write!(out, "delete {} {namespace}/*", kind.plural),
            Action::Finalize { namespace, .. } => {
                write!(out, "finalize namespaces {}", namespace["metadata"]["name"].as_str().unwrap_or_default())
            }
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {}", self.kind.plural, self.key)
    }
}
