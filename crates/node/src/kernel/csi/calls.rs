//! The calls of a CSI driver's node service: what is asked, in the wire's field numbers, and what is answered.
//!
//! Source: Container Storage Interface 1.12, `csi.proto`.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use windlass_api::codec::DecodeError;
use windlass_api::codec::wire::{Reader, Writer};

use crate::grpc::{self, Call, CallError};
use crate::machine::{DriverFacts, LentVolume, VolumeStats};

/// How long a driver may take to make a volume usable, or to give it back; kubelet has the same.
pub const VOLUME_TIME_MAX: Duration = Duration::from_secs(120);
/// How long it may take to say something.
pub const SAY_TIME_MAX: Duration = Duration::from_secs(30);

async fn node(socket: &Path, method: &str, message: Writer, timeout: Duration) -> Result<Bytes, CallError> {
    grpc::call(socket, &Call::new(&format!("/csi.v1.Node/{method}"), message.finish(), timeout)).await
}

/// What a driver that registers says of itself.
pub async fn meet(socket: &Path, timeout: Duration) -> Result<DriverFacts, String> {
    let failed = |method: &'static str| move |error: CallError| format!("{method}: {error}");
    let told = node(socket, "NodeGetInfo", Writer::new(), timeout).await.map_err(failed("NodeGetInfo"))?;
    let can = node(socket, "NodeGetCapabilities", Writer::new(), timeout).await;
    let can = can.map_err(failed("NodeGetCapabilities"))?;
    let facts = read_facts(&told, &can).map_err(|error| error.to_string())?;
    if facts.node_id.is_empty() {
        return Err("NodeGetInfo: expected a node_id, found none".to_owned());
    }
    Ok(facts)
}

fn read_facts(told: &[u8], can: &[u8]) -> Result<DriverFacts, DecodeError> {
    let (mut reader, mut facts) = (Reader::new(told), DriverFacts::default());
    while let Some((tag, wire)) = reader.field()? {
        match tag {
            1 => facts.node_id = wire.text()?,
            2 => facts.volumes_max = u32::try_from(wire.number()?).ok().filter(|count| *count > 0),
            3 => {
                let mut topology = wire.message()?;
                while let Some((tag, wire)) = topology.field()? {
                    if tag == 1 {
                        facts.topology.extend([wire.pair()?]);
                    }
                }
            }
            _ => {}
        }
    }
    let mut reader = Reader::new(can);
    while let Some((tag, wire)) = reader.field()? {
        if tag == 1 {
            match capability(wire.message()?)? {
                1 => facts.stages = true,
                2 => facts.counts = true,
                3 => facts.expands = true,
                4 => facts.tells_health = true,
                5 => facts.tells_writers = true,
                6 => facts.takes_group = true,
                _ => {}
            }
        }
    }
    Ok(facts)
}

/// `NodeServiceCapability`: field 1 is `RPC`, whose field 1 is its type.
fn capability(mut reader: Reader) -> Result<i64, DecodeError> {
    while let Some((tag, wire)) = reader.field()? {
        if tag == 1 {
            let mut rpc = wire.message()?;
            while let Some((tag, wire)) = rpc.field()? {
                if tag == 1 {
                    return wire.number();
                }
            }
        }
    }
    Ok(0)
}

/// A volume as a driver is asked for it: the volume, who is to be its group, and what the driver can.
pub struct Asked<'a> {
    /// The volume.
    pub lent: &'a LentVolume,
    /// The pod's group, for a driver that gives it the volume itself.
    pub group: Option<u32>,
    /// What the driver can.
    pub facts: &'a DriverFacts,
}

impl Asked<'_> {
    /// `VolumeCapability`.
    fn capability(&self) -> Writer {
        let lent = self.lent;
        let capability = match lent.is_block {
            true => Writer::new().message(1, &Writer::new()),
            false => {
                let options = lent.mount_options.iter().map(String::as_str);
                let group = self.group.filter(|_| self.facts.takes_group).map(|group| group.to_string());
                let mount = Writer::new().text(1, &lent.fs_type).texts(2, options);
                Writer::new().message(2, &mount.text(3, group.as_deref().unwrap_or_default()))
            }
        };
        let mode = access_mode(lent.access.first().map_or("ReadWriteOnce", String::as_str), self.facts.tells_writers);
        capability.message(3, &Writer::new().number(1, mode))
    }

    /// Stages it.
    pub async fn stage(&self, socket: &Path, staging: &str) -> Result<(), CallError> {
        let lent = self.lent;
        let message = Writer::new()
            .text(1, &lent.handle)
            .pairs(2, &lent.attachment)
            .text(3, staging)
            .message(4, &self.capability())
            .pairs(5, &lent.stage_secrets.0)
            .pairs(6, &lent.attributes);
        node(socket, "NodeStageVolume", message, VOLUME_TIME_MAX).await.map(drop)
    }

    /// Publishes it.
    pub async fn publish(&self, socket: &Path, staging: &str, target: &str) -> Result<(), CallError> {
        let lent = self.lent;
        let mut context: BTreeMap<String, String> = lent.attributes.clone();
        context.extend(lent.pod_attributes.clone());
        let message = Writer::new()
            .text(1, &lent.handle)
            .pairs(2, &lent.attachment)
            .text(3, staging)
            .text(4, target)
            .message(5, &self.capability())
            .flag(6, lent.read_only)
            .pairs(7, &lent.publish_secrets.0)
            .pairs(8, &context);
        node(socket, "NodePublishVolume", message, VOLUME_TIME_MAX).await.map(drop)
    }

    /// Lets what is on it grow with it.
    pub async fn expand(&self, socket: &Path, staging: &str, target: &str, bytes: u64) -> Result<(), CallError> {
        let range = Writer::new().number(1, i64::try_from(bytes).unwrap_or(i64::MAX));
        let message = Writer::new()
            .text(1, &self.lent.handle)
            .text(2, target)
            .message(3, &range)
            .text(4, staging)
            .message(5, &self.capability())
            .pairs(6, &self.lent.expand_secrets.0);
        node(socket, "NodeExpandVolume", message, VOLUME_TIME_MAX).await.map(drop)
    }
}

/// `AccessMode.Mode`; a driver that tells one writer from several is told which.
fn access_mode(mode: &str, tells_writers: bool) -> i64 {
    match (mode, tells_writers) {
        ("ReadOnlyMany", _) => 3,
        ("ReadWriteMany", _) => 5,
        ("ReadWriteOncePod", true) => 6,
        ("ReadWriteOnce", true) => 7,
        _ => 1,
    }
}

/// Undoes [`Asked::publish`].
pub async fn unpublish(socket: &Path, handle: &str, target: &str) -> Result<(), CallError> {
    let message = Writer::new().text(1, handle).text(2, target);
    node(socket, "NodeUnpublishVolume", message, VOLUME_TIME_MAX).await.map(drop)
}

/// Undoes [`Asked::stage`].
pub async fn unstage(socket: &Path, handle: &str, staging: &str) -> Result<(), CallError> {
    let message = Writer::new().text(1, handle).text(2, staging);
    node(socket, "NodeUnstageVolume", message, VOLUME_TIME_MAX).await.map(drop)
}

/// What is on it, and whether it is well.
pub async fn stats(socket: &Path, handle: &str, target: &str, staging: &str) -> Result<VolumeStats, CallError> {
    let message = Writer::new().text(1, handle).text(2, target).text(3, staging);
    let answer = node(socket, "NodeGetVolumeStats", message, SAY_TIME_MAX).await?;
    read_stats(&answer).map_err(|error| CallError::Malformed(error.to_string()))
}

fn read_stats(answer: &[u8]) -> Result<VolumeStats, DecodeError> {
    let (mut reader, mut stats) = (Reader::new(answer), VolumeStats::default());
    while let Some((tag, wire)) = reader.field()? {
        let mut part = wire.message()?;
        let (mut numbers, mut words) = ([0i64; 5], String::new());
        while let Some((inner, wire)) = part.field()? {
            match (tag, inner) {
                (2, 2) => words = wire.text()?,
                (1, 1..=4) | (2, 1) => numbers[inner as usize] = wire.number()?,
                _ => {}
            }
        }
        let [_, free, total, used, unit] = numbers.map(|number| u64::try_from(number).unwrap_or(0));
        match (tag, unit) {
            (1, 1) => (stats.bytes_free, stats.bytes_total, stats.bytes_used) = (free, total, used),
            (1, 2) => (stats.inodes_free, stats.inodes_total, stats.inodes_used) = (free, total, used),
            // `VolumeCondition`: field 1 says that something is wrong, field 2 what.
            (2, _) => stats.trouble = Some(words).filter(|_| numbers[1] != 0),
            _ => {}
        }
    }
    Ok(stats)
}

#[cfg(test)]
mod tests {
    use super::{access_mode, read_facts, read_stats};
    use windlass_api::codec::wire::Writer;

    #[test]
    fn a_driver_says_who_the_node_is_and_what_it_can() {
        let zones = std::collections::BTreeMap::from([("zone".to_owned(), "a".to_owned())]);
        let topology = Writer::new().pairs(1, &zones);
        let told = Writer::new().text(1, "n1").number(2, 3).message(3, &topology).finish();
        let can = |kind: i64| Writer::new().message(1, &Writer::new().number(1, kind));
        let can = Writer::new().message(1, &can(1)).message(1, &can(3)).message(1, &can(99)).finish();
        let facts = read_facts(&told, &can).expect("well formed");
        assert_eq!((facts.node_id.as_str(), facts.volumes_max, facts.topology["zone"].as_str()), ("n1", Some(3), "a"));
        assert!(facts.stages && facts.expands && !facts.counts && !facts.takes_group);
        assert!(read_facts(b"\x0a\xff", &[]).is_err(), "hostile");
    }

    #[test]
    fn a_volume_says_how_full_and_how_well_it_is() {
        let bytes = Writer::new().number(1, 10).number(2, 30).number(3, 20).number(4, 1);
        let condition = Writer::new().flag(1, true).text(2, "gone");
        let stats = read_stats(&Writer::new().message(1, &bytes).message(2, &condition).finish()).expect("well formed");
        assert_eq!((stats.bytes_free, stats.bytes_total, stats.bytes_used, stats.inodes_total), (10, 30, 20, 0));
        assert_eq!(stats.trouble.as_deref(), Some("gone"));
        let well = read_stats(&Writer::new().message(2, &Writer::new().text(2, "fine")).finish()).expect("well formed");
        assert_eq!(well.trouble, None);
    }

    #[test]
    fn one_writer_is_told_from_several_only_to_those_who_ask() {
        let all = ["ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod"];
        assert_eq!(all.map(|mode| access_mode(mode, false)), [1, 3, 5, 1]);
        assert_eq!(all.map(|mode| access_mode(mode, true)), [7, 3, 5, 6]);
    }
}
