//! Several served versions of one stored kind.
//!
//! Goal        an object lies in the store once, in one version; every served version is a view of it
//! Rules
//!   R1 one key      all versions of a kind read and write the key of the kind they are stored as
//!   R2 as stored    an object that lies in the store as it is served goes out as its bytes; conversion costs it nothing
//!   R3 both ways    what goes in converts to the stored version, what comes out to the served one; the round trip loses
//!                   nothing that the served version can say
//!   R4 metadata     stays as it is, managed fields with the `apiVersion` of each entry included
//! Source      API concepts, "API versioning"; custom resources, "Versions in CustomResourceDefinitions"
//! Not here    when objects are converted, and batches of them (apiserver)

use std::sync::Arc;

use serde_json::Value;

use crate::kind::Kind;

/// How the objects of a kind lie in the store, where that differs from how they are served.
#[derive(Clone)]
pub struct Stored {
    /// The kind they are stored as. Its group and plural spell the keys.
    pub kind: Kind,
    /// The way between the two.
    pub convert: Arc<dyn Convert>,
    /// Objects written before this revision pass `convert` even where they lie in the served version: the schema they
    /// were written by is no longer the kind's.
    pub current_since: u64,
    /// Where versions differ by more than their schemas somebody outside is asked to turn one into another: then this is
    /// what the stored version's own schema keeps and fills in, before and after.
    pub rest: Option<Arc<dyn Convert>>,
}

impl Stored {
    /// Stored as `kind`, by a way that never changes.
    pub fn new(kind: Kind, convert: Arc<dyn Convert>) -> Stored {
        Stored { kind, convert, current_since: 0, rest: None }
    }
}

/// Turns objects of one kind from the version they are stored in into the served one, and back. Pure; `apiVersion` and
/// `kind` are set by the caller.
pub trait Convert: Send + Sync + 'static {
    /// From the stored version to the served one.
    fn to_served(&self, object: &mut Value);

    /// From the served version to the stored one.
    fn to_stored(&self, object: &mut Value);
}

/// Makes an object say that it is of this kind.
pub fn name_kind(object: &mut Value, kind: &Kind) {
    if let Some(fields) = object.as_object_mut() {
        fields.insert("apiVersion".to_owned(), Value::from(kind.api_version()));
        fields.insert("kind".to_owned(), Value::from(kind.kind.as_ref()));
    }
}
