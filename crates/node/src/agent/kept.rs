//! What the agent keeps on disk of Services and their endpoints: pods that come back while the API is away find names and
//! addresses as they were.
//!
//! Rules
//!   K1 kept     what was applied is written when it differs, at most every [`INTERVAL`]
//!   K2 used     by an agent that has not heard the API for [`PATIENCE`] since it began; what the API says replaces it

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::time::Instant;
use windlass_api::Object;
use windlass_api::types::{core, discovery};

use super::{Shared, decode_service};

/// The key under which it is kept; no uid looks like it.
pub(super) const KEY: &str = "services";
/// How often it may be written.
const INTERVAL: Duration = Duration::from_secs(30);
/// How long the API is waited for before what was kept counts.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);
/// More than this is not kept: the largest record that the machine reads back is twice that.
const BYTES_MAX: usize = 8 << 20;

/// Services and slices, decoded.
#[derive(Default)]
pub(super) struct Kept {
    pub services: Vec<Arc<Option<core::Service>>>,
    pub slices: Vec<Arc<Option<discovery::EndpointSlice>>>,
}

#[derive(Serialize, Deserialize)]
struct Record {
    services: Vec<Box<RawValue>>,
    slices: Vec<Box<RawValue>>,
}

/// Reads what an earlier agent kept.
pub(super) fn read(bytes: &[u8]) -> Result<Kept, serde_json::Error> {
    let record: Record = serde_json::from_slice(bytes)?;
    let objects = |list: Vec<Box<RawValue>>| {
        list.into_iter().filter_map(|raw| Object::parse(Bytes::copy_from_slice(raw.get().as_bytes())).ok())
    };
    Ok(Kept {
        services: objects(record.services).map(|object| object.memo(decode_service)).collect(),
        slices: objects(record.slices).map(|object| object.memo(super::serving::decode_slice)).collect(),
    })
}

/// Writes what is served now.
#[derive(Default)]
pub(super) struct Keeper {
    written: Option<(Bytes, Instant)>,
}

impl Keeper {
    /// K1. Returns when to look again, if there was no time for it yet.
    pub async fn keep(&mut self, shared: &Shared) -> Option<Instant> {
        let due = self.written.as_ref().map(|(_, at)| *at + INTERVAL);
        if let Some(due) = due.filter(|due| *due > Instant::now()) {
            return Some(due);
        }
        let bytes = encode(shared)?;
        if self.written.as_ref().is_some_and(|(before, _)| *before == bytes) {
            return None;
        }
        if let Err(error) = shared.machine.save(KEY, bytes.clone()).await {
            tracing::warn!(%error, "what is served was not kept");
            // Nothing is written, so the next look writes.
            self.written = Some((Bytes::new(), Instant::now()));
            return Some(Instant::now() + INTERVAL);
        }
        self.written = Some((bytes, Instant::now()));
        None
    }
}

fn encode(shared: &Shared) -> Option<Bytes> {
    let raw = |objects: Vec<Arc<windlass_client::Cached>>| -> Vec<Box<RawValue>> {
        let texts = objects.iter().map(|object| String::from_utf8_lossy(&object.json).into_owned());
        texts.filter_map(|text| RawValue::from_string(text).ok()).collect()
    };
    let record = Record { services: raw(shared.services.list()), slices: raw(shared.slices.list()) };
    let bytes = serde_json::to_vec(&record).expect("a record has string keys only");
    (bytes.len() <= BYTES_MAX).then(|| Bytes::from(bytes))
}

#[cfg(test)]
mod tests {
    use super::read;

    #[test]
    fn k2_what_was_kept_can_be_read_and_what_is_no_object_is_passed_over() {
        let text = r#"{"services": [{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a", "namespace": "n", "uid": "u",
            "resourceVersion": "1"}, "spec": {"clusterIP": "10.43.0.9"}}, 7], "slices": []}"#;
        let kept = read(text.as_bytes()).expect("a record");
        assert_eq!(kept.services.len(), 1);
        let service = Option::as_ref(&kept.services[0]).expect("a service");
        assert_eq!(service.metadata.name.as_deref(), Some("a"));
        assert!(read(b"{").is_err());
    }
}
