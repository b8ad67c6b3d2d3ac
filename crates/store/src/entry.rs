//! What the store keeps: entries, the templates they are made from, and the events of their changes.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use windlass_stdx::Memo;

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
pub struct Entry {
    /// The key.
    pub key: Arc<str>,
    /// The value with its revision spliced in, as it is served.
    pub value: Bytes,
    /// The revision that wrote this value.
    pub revision: Revision,
    /// The revision that created the key, since it was last absent.
    pub created: Revision,
    pub(crate) splice: Option<Splice>,
    memo: Memo,
}

/// Where the decimal revision stands inside a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Splice {
    pub(crate) at: u32,
    pub(crate) digits: u8,
}

impl Entry {
    /// The entry that `template` becomes at `revision`.
    pub(crate) fn from_template(key: Arc<str>, template: &Template, revision: Revision, created: Revision) -> Entry {
        let (value, splice) = match template.revision_at {
            None => (template.bytes.clone(), None),
            Some(at) => {
                let digits = decimal(revision);
                let (head, tail) = template.bytes.split_at(at as usize);
                let splice = Splice { at, digits: digits.as_bytes().len() as u8 };
                (join(head, digits.as_bytes(), tail), Some(splice))
            }
        };
        Entry { key, value, revision, created, splice, memo: Memo::default() }
    }

    /// An entry that is in no store: what somebody makes up to show it as if it were.
    pub fn made_up(key: impl Into<Arc<str>>, value: impl Into<Bytes>) -> Entry {
        Entry::from_template(key.into(), &Template::plain(value), 0, 0)
    }

    /// The entry as a snapshot holds it.
    pub(crate) fn restored(
        key: Arc<str>,
        value: Bytes,
        revision: Revision,
        created: Revision,
        splice: Option<Splice>,
    ) -> Entry {
        Entry { key, value, revision, created, splice, memo: Memo::default() }
    }

    /// The value for an answer, which is gone soon: it holds the entry.
    ///
    /// A clone of `value` leaves a counter that stays as long as the value, 32 bytes and a gap beside each object.
    pub fn lent(self: &Arc<Entry>) -> Bytes {
        Bytes::from_owner(Lent(Arc::clone(self)))
    }

    /// The value with another revision in the place of its own; the value itself if it holds none.
    ///
    /// A deleted object is announced with the revision of its deletion.
    pub fn value_at(&self, revision: Revision) -> Bytes {
        match self.splice {
            None => self.value.clone(),
            Some(_) if revision == self.revision => self.value.clone(),
            Some(splice) => {
                let head = &self.value[..splice.at as usize];
                let tail = &self.value[splice.at as usize + usize::from(splice.digits)..];
                join(head, decimal(revision).as_bytes(), tail)
            }
        }
    }

    /// Whether the value says its own revision, if it says one.
    pub(crate) fn holds_its_revision(&self) -> bool {
        self.splice.is_none_or(|splice| {
            let (at, digits) = (splice.at as usize, usize::from(splice.digits));
            self.value.get(at..at + digits) == Some(decimal(self.revision).as_bytes())
        })
    }

    /// The same entry as if it had been written at this revision.
    pub(crate) fn moved_to(&self, revision: Revision) -> Entry {
        let digits = decimal(revision).as_bytes().len() as u8;
        let splice = self.splice.map(|splice| Splice { digits, ..splice });
        Entry::restored(self.key.clone(), self.value_at(revision), revision, self.created, splice)
    }

    /// The same entry in another form: its key and revisions with the value of `template`. Not what is stored.
    pub fn in_form(&self, template: &Template) -> Entry {
        Entry::from_template(self.key.clone(), template, self.revision, self.created)
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

/// An entry as the owner of bytes.
struct Lent(Arc<Entry>);

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.0.value
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("key", &self.key)
            .field("revision", &self.revision)
            .field("created", &self.created)
            .field("value_len", &self.value.len())
            .finish()
    }
}

/// One change of one key. All events of a transaction carry its revision, in the order of its operations.
pub struct Event {
    /// The revision of the transaction.
    pub revision: Revision,
    /// The key that changed.
    pub key: Arc<str>,
    /// The new entry; `None` when the key was deleted.
    pub entry: Option<Arc<Entry>>,
    /// The entry before the change; `None` when the key was created.
    pub previous: Option<Arc<Entry>>,
    memo: Memo,
}

impl Event {
    pub(crate) fn new(
        revision: Revision,
        key: Arc<str>,
        entry: Option<Arc<Entry>>,
        previous: Option<Arc<Entry>>,
    ) -> Event {
        Event { revision, key, entry, previous, memo: Memo::default() }
    }

    /// The same change with its entries in another form.
    pub fn in_form(&self, entry: Option<Arc<Entry>>, previous: Option<Arc<Entry>>) -> Event {
        Event::new(self.revision, self.key.clone(), entry, previous)
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
            .field("key", &self.key)
            .field("deleted", &self.entry.is_none())
            .finish()
    }
}

fn join(head: &[u8], middle: &[u8], tail: &[u8]) -> Bytes {
    let mut joined = BytesMut::with_capacity(head.len() + middle.len() + tail.len());
    joined.extend_from_slice(head);
    joined.extend_from_slice(middle);
    joined.extend_from_slice(tail);
    joined.freeze()
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

    use super::{Entry, Template, decimal};

    #[test]
    fn a_revision_is_spliced_in_and_replaced() {
        let template = Template::with_revision_at(&b"{\"rv\":\"\"}"[..], 7);
        let entry = Entry::from_template("a".into(), &template, 99, 7);
        assert_eq!(&entry.value[..], b"{\"rv\":\"99\"}");
        assert_eq!(&entry.value_at(99)[..], b"{\"rv\":\"99\"}");
        assert_eq!(&entry.value_at(100)[..], b"{\"rv\":\"100\"}");
        assert_eq!(&entry.value_at(7)[..], b"{\"rv\":\"7\"}");
    }

    #[test]
    fn an_entry_moves_to_a_revision_with_more_digits() {
        let template = Template::with_revision_at(&b"{\"rv\":\"\"}"[..], 7);
        let moved = Entry::from_template("a".into(), &template, 99, 7).moved_to(1000);
        assert_eq!((&moved.value[..], moved.revision, moved.created), (&b"{\"rv\":\"1000\"}"[..], 1000, 7));
        assert_eq!(&moved.value_at(1001)[..], b"{\"rv\":\"1001\"}");
        let plain = Entry::from_template("a".into(), &Template::plain(&b"x"[..]), 3, 3).moved_to(1000);
        assert_eq!((&plain.value[..], plain.revision), (&b"x"[..], 1000));
    }

    #[test]
    fn lent_bytes_hold_the_entry_and_no_longer() {
        let entry = Arc::new(Entry::made_up("a", &b"x"[..]));
        let lent = entry.lent();
        assert_eq!((&lent[..], lent.as_ptr(), Arc::strong_count(&entry)), (&b"x"[..], entry.value.as_ptr(), 2));
        drop(lent);
        assert_eq!(Arc::strong_count(&entry), 1);
    }

    #[test]
    fn a_plain_value_is_served_as_it_is() {
        let entry = Entry::from_template("a".into(), &Template::plain(&b"x"[..]), 3, 3);
        assert_eq!(&entry.value[..], b"x");
        assert_eq!(&entry.value_at(4)[..], b"x");
    }

    #[test]
    fn every_length_of_a_revision_is_written_in_decimal() {
        for number in [0, 1, 9, 10, 99, 100, 12_345, u64::MAX] {
            assert_eq!(decimal(number).as_bytes(), number.to_string().as_bytes());
        }
    }
}
