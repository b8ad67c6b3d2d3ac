//! Watch: who lists once and then watches sees every change once, in order, whatever breaks in between.
//!
//! Source: Kubernetes API concepts, "Efficient detection of changes": a watch from a list's revision brings every later
//! change; 410 says that this is no longer possible. Store, Guarantees ("every event … once, in order").
//!
//! Rules
//!   R1 order    revisions strictly increase, over all resumptions
//!   R2 sense    ADDED only what is not there, MODIFIED and DELETED only what is
//!   R3 picture  what the events make is what a list shows at the same revision
//!   R4 forward  a list that a 410 made necessary is not older than what was seen before

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;
use windlass_api::{Kind, Object};
use windlass_client::{Client, ClientError, List, ListOptions, Watch, WatchEvent, WatchOptions};

use super::journal::{Journal, Span};
use super::lawful;
use crate::history::History;
use crate::life::Life;
use crate::setup::Sabotage;

/// How often a list is held against the picture.
const COMPARE_EVERY: Duration = Duration::from_secs(4);
/// The server is asked to end each watch after this long; quiet ones get a bookmark before.
const WATCH_TIMEOUT: Duration = Duration::from_secs(100);
/// A watch without even a bookmark for this long counts as broken.
const WATCH_IDLE: Duration = Duration::from_secs(90);
/// Rest after something failed.
const RETRY: Duration = Duration::from_millis(300);
/// How long the last comparison may take: a quiet watch is told of a revision by a bookmark only.
const FINISH_MAX: Duration = Duration::from_secs(240);
/// The event that sabotage is done to.
const SABOTAGED_EVENT: u64 = 12;

/// Objects by key, each with uid and revision, at a revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Picture {
    objects: BTreeMap<String, (String, u64)>,
    revision: u64,
}

impl Picture {
    fn of(list: &List) -> Picture {
        let objects = list.items.iter().map(|object| (object.header.key(), identity(object))).collect();
        Picture { objects, revision: list.revision }
    }

    /// R1 and R2.
    fn take_in(&mut self, event: &WatchEvent) -> Result<(), String> {
        let (word, object) = match event {
            WatchEvent::Added(object) => ("ADDED", object),
            WatchEvent::Modified(object) => ("MODIFIED", object),
            WatchEvent::Deleted(object) => ("DELETED", object),
            WatchEvent::Bookmark(revision) if *revision < self.revision => {
                return Err(format!("expected a bookmark from {} on, found {revision}", self.revision));
            }
            WatchEvent::Bookmark(revision) => {
                self.revision = *revision;
                return Ok(());
            }
        };
        let (key, revision) = (object.header.key(), object.header.revision);
        if revision <= self.revision {
            return Err(format!("{word} {key}: expected a revision after {}, found {revision}", self.revision));
        }
        let before = self.objects.get(&key).map(|(uid, _)| uid == object.header.uid());
        match (event, before) {
            (WatchEvent::Added(_), None) | (WatchEvent::Modified(_) | WatchEvent::Deleted(_), Some(true)) => {}
            (_, None) => return Err(format!("{word} {key} at {revision}: it is not there")),
            (WatchEvent::Added(_), Some(_)) => return Err(format!("{word} {key} at {revision}: it is there already")),
            (_, Some(_)) => return Err(format!("{word} {key} at {revision}: another one of this name is there")),
        }
        self.revision = revision;
        match event {
            WatchEvent::Deleted(_) => drop(self.objects.remove(&key)),
            _ => drop(self.objects.insert(key, identity(object))),
        }
        Ok(())
    }

    /// R3: how a list differs from the picture.
    fn differs(&self, list: &Picture) -> Option<String> {
        let missing = list.objects.iter().find(|(key, identity)| self.objects.get(*key) != Some(identity));
        if let Some((key, listed)) = missing {
            let seen = self.objects.get(key);
            return Some(format!("{key} at {}: listed as {listed:?}, watched as {seen:?}", list.revision));
        }
        let left = self.objects.iter().find(|(key, _)| !list.objects.contains_key(*key));
        left.map(|(key, seen)| format!("{key} at {}: not listed, watched as {seen:?}", list.revision))
    }
}

fn identity(object: &Object) -> (String, u64) {
    (object.header.uid().to_owned(), object.header.revision)
}

/// Watches all objects of a kind for a whole run.
pub struct Observer {
    client: Client,
    kind: &'static Kind,
    history: History,
    sabotage: Option<Sabotage>,
    picture: Picture,
    /// A list of a revision that the picture has not reached yet.
    pending: Option<Pending>,
    /// Every object as it was seen last, by key, with its uid.
    last: BTreeMap<String, (String, Value)>,
    journal: Journal,
    /// The revision of the first list.
    first: u64,
    /// The revisions of all changes shown.
    seen: BTreeSet<u64>,
    /// What was passed by listing anew.
    skipped: Vec<Span>,
    finished: bool,
    compare_at: Instant,
    events: u64,
    compared: u64,
    relisted: u64,
}

struct Pending {
    list: Picture,
    /// It was asked for after the end of the run.
    is_last: bool,
}

/// What an observer has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Changes seen.
    pub events: u64,
    /// Lists held against the picture.
    pub compared: u64,
    /// Lists that a 410 made necessary.
    pub relisted: u64,
}

impl Observer {
    /// An observer that has seen nothing.
    pub fn new(
        client: Client,
        kind: &'static Kind,
        history: History,
        journal: Journal,
        sabotage: Option<Sabotage>,
    ) -> Observer {
        Observer {
            client,
            kind,
            history,
            sabotage,
            picture: Picture::default(),
            pending: None,
            last: BTreeMap::new(),
            journal,
            first: 0,
            seen: BTreeSet::new(),
            skipped: Vec::new(),
            finished: false,
            compare_at: Instant::now(),
            events: 0,
            compared: 0,
            relisted: 0,
        }
    }

    /// Watches until `finish` is over, and then until one more list was compared.
    pub async fn run(mut self, finish: Life) -> Observed {
        while self.relist().await.is_err() {
            tokio::time::sleep(RETRY).await;
        }
        (self.relisted, self.first) = (0, self.picture.revision);
        self.skipped.clear();
        let (history, plural) = (self.history.clone(), &self.kind.plural);
        let watching = async { while !self.until_broken(&finish).await {} };
        let in_time = async {
            finish.over().await;
            tokio::time::sleep(FINISH_MAX).await;
        };
        tokio::select! {
            biased;
            () = watching => {}
            () = in_time => {
                history.violate("watch", format_args!("{plural}: the last list was not reached within {FINISH_MAX:?}"));
            }
        }
        let passed = (self.first, self.picture.revision);
        for wrong in self.journal.check(&self.kind.qualified_plural(), passed, &self.seen, &self.skipped) {
            self.history.violate("journal", wrong);
        }
        Observed { events: self.events, compared: self.compared, relisted: self.relisted }
    }

    async fn list(&self) -> Result<Picture, ClientError> {
        self.client.list(self.kind, None, &ListOptions::default()).await.map(|list| Picture::of(&list))
    }

    /// Begins anew. R4.
    async fn relist(&mut self) -> Result<(), ClientError> {
        let list = self.list().await?;
        if list.revision < self.picture.revision {
            let (found, seen) = (list.revision, self.picture.revision);
            let plural = &self.kind.plural;
            self.history.violate("watch", format_args!("{plural}: a list at {found}, but {seen} was seen before"));
        }
        self.skipped.push((self.picture.revision, list.revision));
        (self.picture, self.pending) = (list, None);
        self.relisted += 1;
        Ok(())
    }

    /// One watch. Returns whether the observer has finished.
    async fn until_broken(&mut self, finish: &Life) -> bool {
        let options = WatchOptions {
            linked_only: false,
            labels: String::new(),
            fields: String::new(),
            revision: self.picture.revision,
            timeout: WATCH_TIMEOUT,
            idle: WATCH_IDLE,
        };
        let broken = match self.client.watch(self.kind, None, &options).await {
            Ok(watch) => self.follow(watch, finish).await,
            Err(error) => Err(error),
        };
        let expired = match broken {
            Ok(finished) => return finished,
            Err(error) => error.is_expired(),
        };
        tokio::time::sleep(RETRY).await;
        if expired && let Err(error) = self.relist().await {
            self.history.note("observer", format_args!("{}: {error}", self.kind.plural));
        }
        false
    }

    async fn follow(&mut self, mut watch: Watch, finish: &Life) -> Result<bool, ClientError> {
        while !self.finished {
            tokio::select! {
                biased;
                event = watch.next() => match event? {
                    Some(event) => self.see(&event),
                    None => return Ok(false),
                },
                () = tokio::time::sleep_until(self.compare_at), if self.pending.is_none() => self.ask(finish).await,
            }
        }
        Ok(true)
    }

    /// Lists, to compare when the watch has come as far.
    async fn ask(&mut self, finish: &Life) {
        self.compare_at = Instant::now() + COMPARE_EVERY;
        let is_last = finish.is_over();
        if let Ok(list) = self.list().await {
            self.pending = Some(Pending { list, is_last });
            self.compare(None);
        }
    }

    /// R3, when the next event is past the list that waits.
    fn compare(&mut self, next: Option<u64>) {
        let Some(pending) = self.pending.take() else { return };
        let reached = self.picture.revision >= pending.list.revision || next > Some(pending.list.revision);
        if !reached {
            self.pending = Some(pending);
            return;
        }
        // A list older than the picture was overtaken on its way; the next one will not be.
        if self.picture.revision <= pending.list.revision {
            self.compared += 1;
            self.finished = pending.is_last;
            if let Some(difference) = self.picture.differs(&pending.list) {
                self.violate(&difference);
            }
        }
    }

    fn see(&mut self, event: &WatchEvent) {
        if let WatchEvent::Added(object) | WatchEvent::Modified(object) | WatchEvent::Deleted(object) = event {
            self.events += 1;
            self.look(object);
            self.compare(Some(object.header.revision));
            if self.events == SABOTAGED_EVENT && self.sabotage == Some(Sabotage::MissedEvent) {
                return;
            }
            self.seen.insert(object.header.revision);
        }
        self.take_in(event);
        if self.events == SABOTAGED_EVENT && self.sabotage == Some(Sabotage::RepeatedEvent) {
            self.take_in(event);
        }
        self.compare(None);
    }

    /// Holds an object against what it was before.
    fn look(&mut self, object: &Object) {
        let (key, uid, value) = (object.header.key(), object.header.uid().to_owned(), object.value());
        if let Some((_, before)) = self.last.get(&key).filter(|(before, _)| *before == uid) {
            for wrong in lawful::check(before, &value) {
                self.history.violate("lawful", format_args!("{} {key}: {wrong}", self.kind.plural));
            }
        }
        self.last.insert(key, (uid, value));
    }

    fn take_in(&mut self, event: &WatchEvent) {
        if let Err(wrong) = self.picture.take_in(event) {
            self.violate(&wrong);
        }
    }

    fn violate(&self, wrong: &str) {
        self.history.violate("watch", format_args!("{}: {wrong}", self.kind.plural));
    }
}

#[cfg(test)]
mod tests {
    use super::Picture;
    use std::sync::Arc;
    use windlass_api::Object;
    use windlass_client::WatchEvent;

    fn object(name: &str, uid: &str, revision: u64) -> Arc<Object> {
        let json = format!(r#"{{"metadata":{{"name":"{name}","uid":"{uid}","resourceVersion":"{revision}"}}}}"#);
        Arc::new(Object::parse(json.into_bytes().into()).expect("an object"))
    }

    /// A picture that holds `a` since revision 5.
    fn picture() -> Picture {
        let mut picture = Picture::default();
        picture.take_in(&WatchEvent::Added(object("a", "u1", 5))).expect("nothing was there");
        picture
    }

    fn refused(event: WatchEvent) -> String {
        picture().take_in(&event).expect_err("it makes no sense")
    }

    #[test]
    fn r1_an_event_that_comes_again_is_found() {
        assert_eq!(
            refused(WatchEvent::Modified(object("a", "u1", 5))),
            "MODIFIED a: expected a revision after 5, found 5"
        );
        assert_eq!(refused(WatchEvent::Bookmark(4)), "expected a bookmark from 5 on, found 4");
    }

    #[test]
    fn r2_an_event_that_makes_no_sense_is_found() {
        assert_eq!(refused(WatchEvent::Modified(object("b", "u2", 6))), "MODIFIED b at 6: it is not there");
        assert_eq!(refused(WatchEvent::Added(object("a", "u1", 6))), "ADDED a at 6: it is there already");
        assert_eq!(
            refused(WatchEvent::Deleted(object("a", "u2", 6))),
            "DELETED a at 6: another one of this name is there"
        );
    }

    #[test]
    fn r3_a_picture_that_differs_from_the_list_is_found() {
        let mut list = picture();
        assert_eq!(picture().differs(&list), None);
        list.take_in(&WatchEvent::Modified(object("a", "u1", 6))).expect("it is there");
        assert!(picture().differs(&list).is_some(), "a change was missed");
        list.take_in(&WatchEvent::Deleted(object("a", "u1", 7))).expect("it is there");
        assert!(picture().differs(&list).is_some(), "an end was missed");
    }
}
