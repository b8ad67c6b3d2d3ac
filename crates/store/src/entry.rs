//! What the store keeps: entries, the templates they are made from, and the events of their changes.

use std::any::Any;
use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use windlass_stdx::{Memo, scratch};

/// The position of a transaction in the one order of the whole store. The empty store is at 0.
pub type Revision = u64;

/// A value as it is proposed: its revision is not known yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// The bytes of the value without the revision.
    pub bytes: Bytes,
    /// The byte offset at which the revision is spliced in as a decimal number, at most `bytes.len()`.
    /// `None` stores the bytes as they are.
    pub revision_at: Option<u32>,
}

impl Template {
    /// A value that does not hold its own revision.
    pub fn plain(bytes: impl Into<Bytes>) -> Template {
        Template { bytes: bytes.into(), revision_at: None }
    }

    /// A value with its revision spliced in at `revision_at`.
    pub fn with_revision_at(bytes: impl Into<Bytes>, revision_at: u32) -> Template {
        Template { bytes: bytes.into(), revision_at: Some(revision_at) }
    }
}

/// A key and its value as of one revision. Immutable and shared.
///
/// There are as many as objects, so it is small: key and value are one allocation. They are shared, so that what is derived
/// from an entry and kept with it can hold them without holding the entry.
pub struct Entry {
    /// The revision that wrote this value.
    pub revision: Revision,
    /// The revision that created the key, since it was last absent.
    pub created: Revision,
    /// The key, and behind it the value with its revision spliced in, as it is served.
    bytes: Arc<[u8]>,
    memo: Memo,
    key_len: u16,
    splice_at: u32,
    splice_digits: u8,
}

/// Where the decimal revision stands inside a value; without digits, nowhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Splice {
    pub(crate) at: u32,
    pub(crate) digits: u8,
}

impl Entry {
    /// The entry that `template` becomes at `revision`.
    pub(crate) fn from_template(key: &str, template: &Template, revision: Revision, created: Revision) -> Entry {
        let Some(at) = template.revision_at else {
            return Entry::new(key, &[&template.bytes], revision, created, Splice::default());
        };
        let digits = decimal(revision);
        let (head, tail) = template.bytes.split_at(at as usize);
        let splice = Splice { at, digits: digits.as_bytes().len() as u8 };
        Entry::new(key, &[head, digits.as_bytes(), tail], revision, created, splice)
    }

    /// An entry that is in no store: what somebody makes up to show it as if it were.
    pub fn made_up(key: &str, value: impl AsRef<[u8]>) -> Entry {
        Entry::new(key, &[value.as_ref()], 0, 0, Splice::default())
    }

    /// The entry as a snapshot holds it.
    pub(crate) fn restored(key: &str, value: &[u8], revision: Revision, created: Revision, splice: Splice) -> Entry {
        Entry::new(key, &[value], revision, created, splice)
    }

    fn new(key: &str, value: &[&[u8]], revision: Revision, created: Revision, splice: Splice) -> Entry {
        let key_len = u16::try_from(key.len()).expect("keys are at most KEY_BYTES_MAX long");
        let bytes = scratch(|bytes| {
            bytes.reserve_exact(key.len() + value.iter().map(|part| part.len()).sum::<usize>());
            bytes.extend_from_slice(key.as_bytes());
            value.iter().for_each(|part| bytes.extend_from_slice(part));
            Arc::from(bytes.as_slice())
        });
        let Splice { at: splice_at, digits: splice_digits } = splice;
        Entry { revision, created, bytes, memo: Memo::default(), key_len, splice_at, splice_digits }
    }

    /// The key.
    pub fn key(&self) -> &str {
        std::str::from_utf8(self.key_bytes()).expect("it was made of a str")
    }

    /// The key, unread: what only compares keys need not look that they are text.
    pub(crate) fn key_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.key_len)]
    }

    /// The value, as it is served.
    pub fn value(&self) -> &[u8] {
        &self.bytes[usize::from(self.key_len)..]
    }

    pub(crate) fn splice(&self) -> Splice {
        Splice { at: self.splice_at, digits: self.splice_digits }
    }

    /// The value, shared.
    pub fn shared(&self) -> Bytes {
        Bytes::from_owner(Shared { bytes: Arc::clone(&self.bytes), start: self.key_len })
    }

    /// The value with another revision in the place of its own; the value itself if it holds none.
    ///
    /// A deleted object is announced with the revision of its deletion.
    pub fn value_at(&self, revision: Revision) -> Bytes {
        let Splice { at, digits } = self.splice();
        if digits == 0 || revision == self.revision {
            return self.shared();
        }
        let (head, rest) = self.value().split_at(at as usize);
        [head, decimal(revision).as_bytes(), &rest[usize::from(digits)..]].concat().into()
    }

    /// Whether the value says its own revision, if it says one.
    pub(crate) fn holds_its_revision(&self) -> bool {
        let (at, digits) = (self.splice_at as usize, usize::from(self.splice_digits));
        digits == 0 || self.value().get(at..at + digits) == Some(decimal(self.revision).as_bytes())
    }

    /// The same entry as if it had been written at this revision.
    pub(crate) fn moved_to(&self, revision: Revision) -> Entry {
        let splice = match self.splice() {
            Splice { digits: 0, .. } => Splice::default(),
            Splice { at, .. } => Splice { at, digits: decimal(revision).as_bytes().len() as u8 },
        };
        Entry::restored(self.key(), &self.value_at(revision), revision, self.created, splice)
    }

    /// The same entry in another form: its key and revisions with the value of `template`. Not what is stored.
    pub fn in_form(&self, template: &Template) -> Entry {
        Entry::from_template(self.key(), template, self.revision, self.created)
    }

    /// The value of type `T` derived from this entry, if anybody asked for one before.
    pub fn find_memo<T: Any>(&self) -> Option<&T> {
        self.memo.find()
    }

    /// One value of type `T` derived from this entry: computed at most once, shared by all who ask.
    pub fn memo<T: Any + Send + Sync>(&self, derive: impl FnOnce(&Entry) -> T) -> &T {
        self.memo.get(|| derive(self))
    }
}

/// An entry's bytes, and where its value begins.
struct Shared {
    bytes: Arc<[u8]>,
    start: u16,
}

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[usize::from(self.start)..]
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("key", &self.key())
            .field("revision", &self.revision)
            .field("created", &self.created)
            .field("value_len", &self.value().len())
            .finish()
    }
}

/// An entry as the tree of all entries has it: in the order of the keys, and found by key.
#[derive(Clone)]
pub(crate) struct Keyed(pub(crate) Arc<Entry>);

impl PartialEq for Keyed {
    fn eq(&self, other: &Keyed) -> bool {
        self.0.key_bytes() == other.0.key_bytes()
    }
}

impl Eq for Keyed {}

impl PartialOrd for Keyed {
    fn partial_cmp(&self, other: &Keyed) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Keyed {
    fn cmp(&self, other: &Keyed) -> Ordering {
        self.0.key_bytes().cmp(other.0.key_bytes())
    }
}

/// The order of texts is that of their bytes.
impl Borrow<[u8]> for Keyed {
    fn borrow(&self) -> &[u8] {
        self.0.key_bytes()
    }
}

/// One change of one key. All events of a transaction carry its revision, in the order of its operations.
pub struct Event {
    /// The revision of the transaction.
    pub revision: Revision,
    /// The new entry; `None` when the key was deleted.
    pub entry: Option<Arc<Entry>>,
    /// The entry before the change; `None` when the key was created.
    pub previous: Option<Arc<Entry>>,
    memo: Memo,
}

impl Event {
    /// One of the two entries is there.
    pub(crate) fn new(revision: Revision, entry: Option<Arc<Entry>>, previous: Option<Arc<Entry>>) -> Event {
        Event { revision, entry, previous, memo: Memo::default() }
    }

    /// The key that changed.
    pub fn key(&self) -> &str {
        let either = self.entry.as_ref().or(self.previous.as_ref());
        either.expect("an event is of a key that was there before or is now").key()
    }

    /// The same change with its entries in another form.
    pub fn in_form(&self, entry: Option<Arc<Entry>>, previous: Option<Arc<Entry>>) -> Event {
        Event::new(self.revision, entry, previous)
    }

    /// One value of type `T` derived from this event, such as its encoded form: computed at most once, shared by
    /// all watchers.
    pub fn memo<T: Any + Send + Sync>(&self, derive: impl FnOnce(&Event) -> T) -> &T {
        self.memo.get(|| derive(self))
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event")
            .field("revision", &self.revision)
            .field("key", &self.key())
            .field("deleted", &self.entry.is_none())
            .finish()
    }
}

/// A revision in decimal, without an allocation.
struct Decimal {
    buffer: [u8; 20],
    start: usize,
}

impl Decimal {
    fn as_bytes(&self) -> &[u8] {
        &self.buffer[self.start..]
    }
}

fn decimal(mut number: u64) -> Decimal {
    let mut decimal = Decimal { buffer: [0; 20], start: 20 };
    loop {
        decimal.start -= 1;
        decimal.buffer[decimal.start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return decimal;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{Entry, Event, Template, decimal};

    #[test]
    fn a_revision_is_spliced_in_and_replaced() {
        let template = Template::with_revision_at(&b"{\"rv\":\"\"}"[..], 7);
        let entry = Arc::new(Entry::from_template("a", &template, 99, 7));
        assert_eq!((entry.key(), entry.value()), ("a", &b"{\"rv\":\"99\"}"[..]));
        assert_eq!(&entry.value_at(99)[..], b"{\"rv\":\"99\"}");
        assert_eq!(&entry.value_at(100)[..], b"{\"rv\":\"100\"}");
        assert_eq!(&entry.value_at(7)[..], b"{\"rv\":\"7\"}");
    }

    #[test]
    fn an_entry_moves_to_a_revision_with_more_digits() {
        let template = Template::with_revision_at(&b"{\"rv\":\"\"}"[..], 7);
        let moved = Entry::from_template("a", &template, 99, 7).moved_to(1000);
        assert_eq!((moved.value(), moved.revision, moved.created), (&b"{\"rv\":\"1000\"}"[..], 1000, 7));
        assert_eq!(&moved.value_at(1001)[..], b"{\"rv\":\"1001\"}");
        let plain = Entry::from_template("a", &Template::plain(&b"x"[..]), 3, 3).moved_to(1000);
        assert_eq!((plain.value(), plain.revision), (&b"x"[..], 1000));
    }

    #[test]
    fn shared_bytes_are_the_same_and_outlast_the_entry() {
        let entry = Entry::made_up("a", &b"x"[..]);
        let shared = entry.shared();
        assert_eq!((&shared[..], shared.as_ptr()), (&b"x"[..], entry.value().as_ptr()));
        drop(entry);
        assert_eq!(&shared[..], b"x");
    }

    #[test]
    fn a_plain_value_is_served_as_it_is() {
        let entry = Arc::new(Entry::from_template("a", &Template::plain(&b"x"[..]), 3, 3));
        assert_eq!(entry.value(), b"x");
        assert_eq!(&entry.value_at(4)[..], b"x");
    }

    /// There is one for each object: what is added here is added a million times.
    #[test]
    fn an_entry_is_small() {
        assert_eq!((size_of::<Entry>(), size_of::<Event>()), (56, 40));
    }

    #[test]
    fn every_length_of_a_revision_is_written_in_decimal() {
        for number in [0, 1, 9, 10, 99, 100, 12_345, u64::MAX] {
            assert_eq!(decimal(number).as_bytes(), number.to_string().as_bytes());
        }
    }
}
