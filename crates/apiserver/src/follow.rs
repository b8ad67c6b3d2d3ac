//! A picture of some of the store's objects, kept for questions that every request asks.
//!
//! Guarantees  a picture shows every change that was acknowledged before it was asked for · it costs nothing while
//!             nobody asks, and reads each change once
//! Not here    changes that another member acknowledged and this one has not applied yet

use std::sync::RwLock;

use windlass_store::{Entry, Range, ReadError, Revision, Store};

/// What is kept of the entries under some prefixes.
pub(crate) trait Picture: Default {
    /// Where its entries lie.
    fn prefixes() -> &'static [&'static str];

    /// An entry is new or has changed.
    fn put(&mut self, entry: &Entry);

    /// An entry is gone.
    fn remove(&mut self, key: &str);
}

/// A picture and how far it has followed the store.
#[derive(Default)]
pub(crate) struct Followed<P>(RwLock<State<P>>);

#[derive(Default)]
struct State<P> {
    picture: P,
    /// The revision that the picture shows; `None` shows nothing yet.
    at: Option<Revision>,
}

impl<P: Picture> Followed<P> {
    /// Looks at the picture of now.
    pub fn look<T>(&self, store: &Store, look: impl FnOnce(&P) -> T) -> T {
        let newest = store.revision();
        {
            let state = self.0.read().expect("nothing panics while holding a picture");
            if state.at >= Some(newest) {
                return look(&state.picture);
            }
        }
        let mut state = self.0.write().expect("nothing panics while holding a picture");
        if state.at < Some(newest) && state.follow(store).is_err() {
            // What happened meanwhile is not kept any more: everything is read again.
            if let Err(error) = state.read(store) {
                tracing::debug!(%error, "the store ends; its last picture is used");
            }
        }
        look(&state.picture)
    }
}

impl<P: Picture> State<P> {
    /// Applies what has changed since.
    fn follow(&mut self, store: &Store) -> Result<(), Lost> {
        let at = self.at.ok_or(Lost)?;
        // A watch that has just begun is awake: it reads what is published now, however late others are woken.
        let mut watch = store.watch(common(P::prefixes()), at).map_err(|_| Lost)?;
        while let Some(event) = watch.try_next().map_err(|_| Lost)? {
            if !P::prefixes().iter().any(|prefix| event.key().starts_with(prefix)) {
                continue;
            }
            match &event.entry {
                Some(entry) => self.picture.put(entry),
                None => self.picture.remove(event.key()),
            }
        }
        self.at = Some(watch.progress());
        Ok(())
    }

    /// Makes the picture anew.
    fn read(&mut self, store: &Store) -> Result<(), ReadError> {
        let mut picture = P::default();
        let mut at = None;
        for prefix in P::prefixes() {
            let page = store.range(&Range { at, ..Range::prefix(*prefix) })?;
            at = Some(page.revision);
            page.entries.iter().for_each(|entry| picture.put(entry));
        }
        *self = State { picture, at };
        Ok(())
    }
}

/// The changes since the picture are not all there.
struct Lost;

/// What all prefixes begin with.
fn common(prefixes: &'static [&'static str]) -> &'static str {
    let Some((first, rest)) = prefixes.split_first() else { return "" };
    let shared = |other: &&str| first.bytes().zip(other.bytes()).take_while(|(left, right)| left == right).count();
    let length = rest.iter().map(shared).min().unwrap_or(first.len());
    first.get(..length).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{Followed, Picture, common};
    use std::collections::BTreeSet;
    use std::sync::Arc;
    use windlass_stdx::World;
    use windlass_store::{Config, Entry, Expect, Op, RealDisk, Store, Template};

    #[derive(Default)]
    struct Names(BTreeSet<String>);

    impl Picture for Names {
        fn prefixes() -> &'static [&'static str] {
            &["o/a/", "o/b/"]
        }

        fn put(&mut self, entry: &Entry) {
            self.0.insert(entry.key().to_owned());
        }

        fn remove(&mut self, key: &str) {
            self.0.remove(key);
        }
    }

    #[tokio::test]
    async fn a_picture_shows_what_was_acknowledged() {
        let dir = std::env::temp_dir().join(format!("windlass-follow-{}", World::real().uuid()));
        let store = Store::open(Config::new(dir.join("store")), Arc::new(RealDisk), World::real()).await;
        let store = store.expect("an empty directory");
        let followed = Followed::<Names>::default();
        let put = |key: &'static str| vec![Op::put(key, Template::plain("{}"), Expect::Any)];
        let shown = || followed.look(&store, |names| names.0.iter().cloned().collect::<Vec<_>>().join(" "));
        store.commit(put("o/a/1")).await.expect("a write");
        assert_eq!(shown(), "o/a/1");
        store.commit(put("o/b/1")).await.expect("a write");
        store.commit(put("o/c/1")).await.expect("a write");
        assert_eq!(shown(), "o/a/1 o/b/1");
        store.commit(vec![Op::delete("o/a/1", Expect::Any)]).await.expect("a write");
        assert_eq!(shown(), "o/b/1");
        store.commit(put("o/a/2")).await.expect("a write");
        store.compact(store.revision()).expect("nothing is newer");
        assert_eq!(shown(), "o/a/2 o/b/1", "what is not kept any more is read again");
        store.close().await;
        std::fs::remove_dir_all(&dir).expect("our own directory");
    }

    #[test]
    fn prefixes_are_followed_by_what_they_share() {
        assert_eq!(common(&["o/roles.", "o/rolebindings."]), "o/role");
        assert_eq!((common(&["o/pods/"]), common(&[])), ("o/pods/", ""));
    }
}
