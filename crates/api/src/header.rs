//! The few fields of an object that everybody asks for: indexes, selectors and owners are looked up by them.
//!
//! Goal        a header costs a tenth of the object it belongs to, however many parts keep one
//!
//! Rules
//!   R1 places  a text of the header is a place in the object's own bytes, not a copy
//!   R2 escapes an object that writes one of these texts with an escape gets a copy of them all, without escapes
//!   R3 small   [`Header::apart`] keeps the texts alive without the object
//!
//! Measured: as strings and a map, a ConfigMap's header took 1.1 KB beside an object of 1.4 KB.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::object::ObjectError;

/// The fields that indexes, selectors and owners are looked up by.
#[derive(Clone, Default)]
pub struct Header {
    /// `metadata.resourceVersion`; zero where there is none.
    pub revision: u64,
    /// `metadata.generation`; zero where there is none.
    pub generation: i64,
    text: Bytes,
    api_version: Place,
    kind: Place,
    namespace: Place,
    name: Place,
    uid: Place,
    created: Place,
    deletion: Option<Place>,
    node_name: Place,
    phase: Place,
    /// Sorted by key, each key once.
    labels: Box<[(Place, Place)]>,
    finalizers: Box<[Place]>,
    owners: Box<[OwnerRef]>,
}

/// Where a text begins and ends.
#[derive(Clone, Copy, Default)]
struct Place {
    start: u32,
    end: u32,
}

/// One entry of `metadata.ownerReferences`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OwnerRef {
    /// The owner's `apiVersion`.
    pub api_version: String,
    /// The owner's kind.
    pub kind: String,
    /// The owner's name.
    pub name: String,
    /// The owner's uid.
    pub uid: String,
    /// Whether this owner is the one that controls the object.
    pub controller: bool,
    /// Whether the owner's foreground deletion waits for this object.
    pub block_owner_deletion: bool,
}

impl Header {
    /// Reads the header out of an object's JSON without building a tree.
    pub fn parse(json: &Bytes) -> Result<Header, ObjectError> {
        let mut parts = Parts::read(json)?;
        let mut ground = Ground::Json(json);
        if let Some(header) = parts.header(&mut ground) {
            return Ok(Header { text: json.clone(), ..header });
        }
        let mut ground = Ground::Copy(String::new());
        let header = parts.header(&mut ground).expect("a copy has room for every text");
        Ok(Header { text: ground.into_text(), ..header })
    }

    /// Whether these bytes have a header that can be read.
    pub fn check(json: &[u8]) -> Result<(), ObjectError> {
        Parts::read(json).map(|_| ())
    }

    /// The same header with a text of its own, so that the object's bytes can go.
    #[must_use]
    pub fn apart(&self) -> Header {
        let mut text = String::new();
        let mut copy = |place: Place| {
            let start = end(&text);
            text.push_str(self.at(place));
            Place { start, end: end(&text) }
        };
        let header = Header {
            revision: self.revision,
            generation: self.generation,
            text: Bytes::new(),
            api_version: copy(self.api_version),
            kind: copy(self.kind),
            namespace: copy(self.namespace),
            name: copy(self.name),
            uid: copy(self.uid),
            created: copy(self.created),
            deletion: self.deletion.map(&mut copy),
            node_name: copy(self.node_name),
            phase: copy(self.phase),
            labels: self.labels.iter().map(|(key, value)| (copy(*key), copy(*value))).collect(),
            finalizers: self.finalizers.iter().map(|finalizer| copy(*finalizer)).collect(),
            owners: self.owners.clone(),
        };
        Header { text: text.into(), ..header }
    }

    fn at(&self, place: Place) -> &str {
        let bytes = &self.text[place.start as usize..place.end as usize];
        std::str::from_utf8(bytes).expect("a place holds a text that was read as one")
    }

    /// `apiVersion`.
    pub fn api_version(&self) -> &str {
        self.at(self.api_version)
    }

    /// `kind`.
    pub fn kind(&self) -> &str {
        self.at(self.kind)
    }

    /// `metadata.namespace`; empty for cluster-scoped kinds.
    pub fn namespace(&self) -> &str {
        self.at(self.namespace)
    }

    /// `metadata.name`.
    pub fn name(&self) -> &str {
        self.at(self.name)
    }

    /// `metadata.uid`.
    pub fn uid(&self) -> &str {
        self.at(self.uid)
    }

    /// `metadata.creationTimestamp` as written.
    pub fn created(&self) -> &str {
        self.at(self.created)
    }

    /// `metadata.deletionTimestamp` as written; `Some` means the object is ending.
    pub fn deletion(&self) -> Option<&str> {
        self.deletion.map(|place| self.at(place))
    }

    /// `spec.nodeName` of a Pod; empty for an unbound pod and for other kinds.
    pub fn node_name(&self) -> &str {
        self.at(self.node_name)
    }

    /// `status.phase` of a Pod or Namespace.
    pub fn phase(&self) -> &str {
        self.at(self.phase)
    }

    /// `metadata.labels`.
    pub fn labels(&self) -> Labels<'_> {
        Labels { header: self }
    }

    /// `metadata.finalizers`.
    pub fn finalizers(&self) -> impl ExactSizeIterator<Item = &str> {
        self.finalizers.iter().map(|finalizer| self.at(*finalizer))
    }

    /// Whether this is one of its finalizers.
    pub fn has_finalizer(&self, finalizer: &str) -> bool {
        self.finalizers().any(|found| found == finalizer)
    }

    /// `metadata.ownerReferences`.
    pub fn owners(&self) -> &[OwnerRef] {
        &self.owners
    }

    /// The owner that controls this object.
    pub fn controller(&self) -> Option<&OwnerRef> {
        self.owners.iter().find(|owner| owner.controller)
    }

    /// Whether the object is being deleted.
    pub fn is_ending(&self) -> bool {
        self.deletion.is_some()
    }

    /// Whether its end concerns another object or waits for somebody: it has owners or finalizers, or is ending.
    pub fn is_linked(&self) -> bool {
        !self.owners.is_empty() || !self.finalizers.is_empty() || self.is_ending()
    }

    /// `namespace/name`, or the name alone for cluster-scoped objects.
    pub fn key(&self) -> String {
        let (namespace, name) = (self.namespace(), self.name());
        if namespace.is_empty() { name.to_owned() } else { format!("{namespace}/{name}") }
    }
}

impl fmt::Debug for Header {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {} {}@{}", self.kind(), self.key(), self.uid(), self.revision)
    }
}

/// Label keys and values, wherever they are kept.
pub trait LabelSet {
    /// The value of this key.
    fn value(&self, key: &str) -> Option<&str>;
}

impl LabelSet for BTreeMap<String, String> {
    fn value(&self, key: &str) -> Option<&str> {
        self.get(key).map(String::as_str)
    }
}

/// The labels of a header, sorted by key.
#[derive(Clone, Copy)]
pub struct Labels<'a> {
    header: &'a Header,
}

impl<'a> Labels<'a> {
    /// The value of this key.
    pub fn get(self, key: &str) -> Option<&'a str> {
        let labels = &self.header.labels;
        let found = labels.binary_search_by(|(place, _)| self.header.at(*place).cmp(key)).ok()?;
        Some(self.header.at(labels[found].1))
    }

    /// Whether there is a label with this key.
    pub fn contains_key(self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.header.labels.is_empty()
    }

    /// Keys and values, sorted by key.
    pub fn iter(self) -> impl ExactSizeIterator<Item = (&'a str, &'a str)> {
        self.header.labels.iter().map(move |(key, value)| (self.header.at(*key), self.header.at(*value)))
    }

    /// A copy of its own.
    pub fn to_map(self) -> BTreeMap<String, String> {
        self.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }
}

impl LabelSet for Labels<'_> {
    fn value(&self, key: &str) -> Option<&str> {
        self.get(key)
    }
}

impl PartialEq for Labels<'_> {
    fn eq(&self, other: &Labels<'_>) -> bool {
        self.iter().eq(other.iter())
    }
}

impl fmt::Debug for Labels<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_map().entries(self.iter()).finish()
    }
}

/// What places are places in.
enum Ground<'a> {
    /// The object's own bytes.
    Json(&'a [u8]),
    /// The texts one after the other.
    Copy(String),
}

impl Ground<'_> {
    /// Where a text is; `None` when it is not in the object's bytes as it reads.
    fn place(&mut self, text: &Text<'_>) -> Option<Place> {
        match (self, &text.0) {
            _ if text.0.is_empty() => Some(Place::default()),
            (Ground::Json(json), Cow::Borrowed(text)) => {
                let start = u32::try_from(text.as_ptr().addr() - json.as_ptr().addr()).ok()?;
                Some(Place { start, end: start + u32::try_from(text.len()).ok()? })
            }
            (Ground::Json(_), Cow::Owned(_)) => None,
            (Ground::Copy(copy), text) => {
                let start = end(copy);
                copy.push_str(text);
                Some(Place { start, end: end(copy) })
            }
        }
    }

    fn into_text(self) -> Bytes {
        match self {
            Ground::Json(json) => Bytes::copy_from_slice(json),
            Ground::Copy(copy) => copy.into(),
        }
    }
}

fn end(text: &str) -> u32 {
    u32::try_from(text.len()).expect("an object is far smaller than 4 GiB")
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire<'a> {
    #[serde(borrow, default)]
    api_version: Text<'a>,
    #[serde(borrow, default)]
    kind: Text<'a>,
    #[serde(borrow)]
    metadata: WireMetadata<'a>,
    #[serde(borrow)]
    spec: Option<&'a RawValue>,
    #[serde(borrow)]
    status: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireMetadata<'a> {
    #[serde(borrow, default)]
    namespace: Text<'a>,
    #[serde(borrow, default)]
    name: Text<'a>,
    #[serde(borrow, default)]
    uid: Text<'a>,
    #[serde(borrow, default)]
    resource_version: Text<'a>,
    #[serde(default)]
    generation: i64,
    #[serde(borrow)]
    labels: Option<WireLabels<'a>>,
    owner_references: Option<Vec<OwnerRef>>,
    #[serde(borrow)]
    finalizers: Option<Vec<Text<'a>>>,
    #[serde(borrow)]
    creation_timestamp: Option<Text<'a>>,
    #[serde(borrow)]
    deletion_timestamp: Option<Text<'a>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct WirePodSpec<'a> {
    #[serde(borrow)]
    node_name: Option<Text<'a>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct WirePhase<'a> {
    #[serde(borrow)]
    phase: Option<Text<'a>>,
}

/// What is read of an object, each part once.
struct Parts<'a> {
    wire: Wire<'a>,
    node_name: Text<'a>,
    phase: Text<'a>,
}

impl<'a> Parts<'a> {
    fn read(json: &'a [u8]) -> Result<Parts<'a>, ObjectError> {
        let wire: Wire = serde_json::from_slice(json).map_err(ObjectError::Malformed)?;
        let node_name = match wire.spec {
            Some(spec) if wire.kind.0 == "Pod" => read_part::<WirePodSpec<'a>>(spec)?.node_name,
            _ => None,
        };
        let phase = match wire.status {
            Some(status) if matches!(&*wire.kind.0, "Pod" | "Namespace") => read_part::<WirePhase<'a>>(status)?.phase,
            _ => None,
        };
        Ok(Parts { node_name: node_name.unwrap_or_default(), phase: phase.unwrap_or_default(), wire })
    }

    /// The header whose places are in `ground`, but for its text.
    fn header(&mut self, ground: &mut Ground<'_>) -> Option<Header> {
        let metadata = &mut self.wire.metadata;
        let mut labels = Vec::new();
        for (key, value) in metadata.labels.iter().flat_map(|labels| &labels.0) {
            labels.push((ground.place(key)?, ground.place(value)?));
        }
        let mut finalizers = Vec::new();
        for finalizer in metadata.finalizers.iter().flatten() {
            finalizers.push(ground.place(finalizer)?);
        }
        Some(Header {
            revision: metadata.resource_version.0.parse().unwrap_or(0),
            generation: metadata.generation,
            text: Bytes::new(),
            api_version: ground.place(&self.wire.api_version)?,
            kind: ground.place(&self.wire.kind)?,
            namespace: ground.place(&metadata.namespace)?,
            name: ground.place(&metadata.name)?,
            uid: ground.place(&metadata.uid)?,
            created: optional(ground, metadata.creation_timestamp.as_ref())?.unwrap_or_default(),
            deletion: optional(ground, metadata.deletion_timestamp.as_ref())?,
            node_name: ground.place(&self.node_name)?,
            phase: ground.place(&self.phase)?,
            labels: labels.into(),
            finalizers: finalizers.into(),
            // Last: what is taken is not there for a second try.
            owners: metadata.owner_references.take().unwrap_or_default().into(),
        })
    }
}

fn optional(ground: &mut Ground<'_>, text: Option<&Text<'_>>) -> Option<Option<Place>> {
    match text {
        None => Some(None),
        Some(text) => ground.place(text).map(Some),
    }
}

fn read_part<'a, T: Deserialize<'a> + Default>(raw: &'a RawValue) -> Result<T, ObjectError> {
    if raw.get() == "null" {
        return Ok(T::default());
    }
    serde_json::from_str(raw.get()).map_err(ObjectError::Malformed)
}

/// A text, borrowed from the JSON where it stands there as it reads.
#[derive(Clone, Default)]
struct Text<'a>(Cow<'a, str>);

impl<'a, 'de: 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Text<'a>, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a string")
            }

            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(TextVisitor)
    }
}

/// Labels, sorted by key; of a key that is there twice the last.
struct WireLabels<'a>(Vec<(Text<'a>, Text<'a>)>);

impl<'a, 'de: 'a> Deserialize<'de> for WireLabels<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<WireLabels<'a>, D::Error> {
        struct LabelsVisitor;
        impl<'de> Visitor<'de> for LabelsVisitor {
            type Value = WireLabels<'de>;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a map of strings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<WireLabels<'de>, A::Error> {
                let mut labels: Vec<(Text<'de>, Text<'de>)> = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    labels.push(entry);
                }
                // Stable, so that of equal keys the last one written comes last, and is the one that stays.
                labels.sort_by(|(one, _), (other, _)| one.0.cmp(&other.0));
                labels.dedup_by(|later, earlier| {
                    let is_again = later.0.0 == earlier.0.0;
                    if is_again {
                        std::mem::swap(later, earlier);
                    }
                    is_again
                });
                Ok(WireLabels(labels))
            }
        }
        deserializer.deserialize_map(LabelsVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::Header;
    use bytes::Bytes;
    use serde_json::json;

    fn header(json: &str) -> Header {
        Header::parse(&Bytes::copy_from_slice(json.as_bytes())).expect("an object")
    }

    #[test]
    fn the_header_holds_what_is_looked_up() {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "p", "namespace": "ns", "uid": "u", "resourceVersion": "12", "labels": {"a": "b"},
                "creationTimestamp": "then", "finalizers": ["f", "g"],
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "ru", "controller": true}]},
            "spec": {"nodeName": "n1", "containers": []}, "status": {"phase": "Running"},
        });
        let whole = header(&pod.to_string());
        for header in [&whole, &whole.apart()] {
            assert_eq!((header.key().as_str(), header.revision, header.node_name()), ("ns/p", 12, "n1"));
            assert_eq!((header.phase(), header.created(), header.deletion()), ("Running", "then", None));
            assert_eq!((header.api_version(), header.kind(), header.uid()), ("v1", "Pod", "u"));
            assert_eq!(header.labels().to_map(), [("a".to_owned(), "b".to_owned())].into());
            assert!(header.has_finalizer("g") && !header.has_finalizer("h") && header.finalizers().len() == 2);
            assert_eq!(header.controller().map(|owner| owner.uid.as_str()), Some("ru"));
        }
    }

    #[test]
    fn a_custom_object_may_have_any_spec() {
        let odd = header(r#"{"kind":"Odd","metadata":{"name":"x"},"spec":[1,2],"status":"fine"}"#);
        assert_eq!(odd.name(), "x");
        let plain = header(r#"{"kind":"Pod","metadata":{"name":"x","labels":null},"spec":null,"status":null}"#);
        assert!(plain.labels().is_empty() && plain.phase().is_empty());
    }

    #[test]
    fn texts_with_escapes_read_as_they_mean() {
        let odd = header(r#"{"kind":"Odd","metadata":{"name":"x\u0041","finalizers":["a\"b"],"labels":{"k":"\\"}}}"#);
        for header in [&odd, &odd.apart()] {
            assert_eq!((header.kind(), header.name(), header.labels().get("k")), ("Odd", "xA", Some("\\")));
            assert!(header.has_finalizer("a\"b"));
        }
    }

    #[test]
    fn labels_are_sorted_and_the_last_of_a_key_counts() {
        let twice = header(r#"{"metadata":{"labels":{"b":"1","a":"2","b":"3","c":""}}}"#);
        let labels: Vec<_> = twice.labels().iter().collect();
        assert_eq!(labels, [("a", "2"), ("b", "3"), ("c", "")]);
        assert_eq!((twice.labels().get("b"), twice.labels().get("d")), (Some("3"), None));
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for bad in ["", "[]", "{}", r#"{"metadata":{"name":1}}"#, r#"{"kind":"Pod","metadata":{},"spec":1}"#] {
            assert!(Header::check(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_header_is_small() {
        assert!(size_of::<Header>() <= 176, "{}", size_of::<Header>());
    }
}
