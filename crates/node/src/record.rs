//! What the agent keeps of a pod on disk, so that after its own restart it knows what runs here, API or not.

use std::collections::BTreeMap;
use std::net::IpAddr;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use windlass_api::types::core;

use crate::backoff::CrashBackoff;
use crate::cpus::OwnCpus;
use crate::devices::OwnDevices;
use crate::machine::{CpuSet, Exit, ExitReason, lost_exit};
use crate::plan::{Ended, ImageFacts, Stage, Track};

/// One pod's record.
#[derive(Debug, Serialize, Deserialize)]
pub struct Record {
    /// The pod as it was last seen.
    pub pod: Box<RawValue>,
    /// What this node knows beside it.
    #[serde(flatten)]
    pub known: Known,
}

/// What this node knows of a pod beside the pod itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Known {
    /// The pod's addresses.
    pub addresses: Vec<IpAddr>,
    /// Its containers.
    pub containers: BTreeMap<String, KnownContainer>,
    /// The pod is over and its sandbox given back.
    pub left: bool,
    /// CPUs that its containers have for themselves.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub own_cpus: OwnCpus,
    /// Devices that its containers have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub own_devices: OwnDevices,
}

/// What this node knows of a container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct KnownContainer {
    /// Counts restarts.
    pub attempt: u32,
    /// It has run.
    pub begun: bool,
    /// How it ended, if it is over.
    pub ended: Option<Ended>,
    /// How the attempt before ended.
    pub last: Option<Ended>,
    /// What its image is.
    pub image: ImageFacts,
    /// All of the pod run again, and this one has not begun yet.
    #[serde(default)]
    pub anew: bool,
    /// The resources it was last given.
    #[serde(default)]
    pub applied: Option<core::ResourceRequirements>,
    /// The CPUs it was last told to run on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<CpuSet>,
}

impl Record {
    /// The bytes to keep.
    pub fn encode(pod: &Bytes, known: &Known) -> Bytes {
        let text = String::from_utf8_lossy(pod).into_owned();
        let pod = RawValue::from_string(text).expect("an object's bytes were read as JSON when it was made");
        let record = Record { pod, known: known.clone() };
        Bytes::from(serde_json::to_vec(&record).expect("a record has string keys only"))
    }

    /// Reads what was kept.
    pub fn decode(bytes: &[u8]) -> Result<Record, serde_json::Error> {
        serde_json::from_slice(bytes)
    }
}

impl KnownContainer {
    /// What is worth keeping of a track.
    pub fn of(track: &Track) -> KnownContainer {
        KnownContainer {
            attempt: track.attempt,
            begun: track.stage != Stage::Absent,
            ended: track.ended().cloned(),
            last: track.last.clone(),
            image: track.image.clone(),
            applied: track.applied.clone(),
            anew: track.anew,
            cpus: track.cpus,
        }
    }

    /// The track to go on from. A container that ran is taken for running until the machine has been looked at.
    pub fn track(self) -> Track {
        let KnownContainer { attempt, begun, ended, last, image, applied, anew, cpus } = self;
        let stage = match (ended, begun) {
            (Some(ended), _) => Stage::Ended(ended),
            (None, true) => Stage::Running { since: jiff::Timestamp::UNIX_EPOCH },
            (None, false) => Stage::Absent,
        };
        let crash = CrashBackoff::resumed(attempt);
        Track { attempt, stage, last, image, applied, anew, cpus, crash, ..Track::new() }
    }
}

/// The track of a container of which only the pod's status tells: this node has lost its own record.
pub fn track_of_status(status: &Value, now: jiff::Timestamp) -> Track {
    let attempt = status["restartCount"].as_u64().and_then(|count| u32::try_from(count).ok()).unwrap_or(0);
    let digest = status["imageID"].as_str().unwrap_or_default().to_owned();
    let image = ImageFacts { digest, ..ImageFacts::default() };
    let state = &status["state"];
    let ended = if state["terminated"].is_object() {
        ended_of_status(&state["terminated"], attempt, now)
    } else if state["running"].is_object() {
        Some(Ended { attempt, exit: lost_exit(now), message: String::new() })
    } else {
        ended_of_status(&status["lastState"]["terminated"], attempt, now)
    };
    let stage = ended.map_or(Stage::Absent, Stage::Ended);
    Track { attempt, stage, image, crash: CrashBackoff::resumed(attempt), ..Track::new() }
}

fn ended_of_status(terminated: &Value, attempt: u32, now: jiff::Timestamp) -> Option<Ended> {
    let code = i32::try_from(terminated["exitCode"].as_i64()?).ok()?;
    let time = |field: &str| terminated[field].as_str().and_then(|text| text.parse().ok());
    let reason = match terminated["reason"].as_str() {
        Some("OOMKilled") => ExitReason::OutOfMemory,
        Some("StartError") => ExitReason::StartFailed,
        Some("ContainerStatusUnknown") => ExitReason::Unknown,
        _ => ExitReason::Ended,
    };
    let exit = Exit {
        code,
        signal: terminated["signal"].as_i64().and_then(|signal| i32::try_from(signal).ok()),
        oom: reason == ExitReason::OutOfMemory,
        reason,
        message: String::new(),
        started_at: time("startedAt"),
        finished_at: time("finishedAt").unwrap_or(now),
    };
    let message = terminated["message"].as_str().unwrap_or_default().to_owned();
    Some(Ended { attempt, exit, message })
}

#[cfg(test)]
mod tests {
    use super::{Known, KnownContainer, Record, track_of_status};
    use crate::plan::tests::{ended, running};
    use crate::plan::{Stage, Track};
    use bytes::Bytes;
    use serde_json::json;

    #[test]
    fn a_record_survives_the_disk() {
        let track = Track { attempt: 3, last: Some(ended(2, 1)), ..running() };
        let mut known = Known { addresses: vec!["10.42.0.5".parse().expect("an address")], ..Known::default() };
        known.containers.insert("web".to_owned(), KnownContainer::of(&track));
        let pod = Bytes::from_static(b"{\"kind\":\"Pod\",\"metadata\":{\"name\":\"p\"}}");
        let back = Record::decode(&Record::encode(&pod, &known)).expect("what was written");
        assert_eq!(back.known, known);
        assert_eq!(back.pod.get().as_bytes(), &pod);
        let track = back.known.containers["web"].clone().track();
        assert!(track.is_running(), "it is taken for running until the machine says otherwise");
        assert_eq!((track.attempt, track.last), (3, Some(ended(2, 1))));
    }

    #[test]
    fn without_a_record_the_status_tells_what_was() {
        let now = jiff::Timestamp::UNIX_EPOCH;
        let over = json!({"restartCount": 2, "state": {"terminated": {"exitCode": 3, "reason": "Error"}}});
        let track = track_of_status(&over, now);
        assert_eq!((track.attempt, track.ended().map(|ended| ended.exit.code)), (2, Some(3)));
        let ran = track_of_status(&json!({"restartCount": 0, "state": {"running": {}}}), now);
        assert_eq!(ran.ended().map(|ended| ended.exit.code), Some(137));
        assert_eq!(track_of_status(&json!({"state": {"waiting": {}}}), now).stage, Stage::Absent);
    }
}
