//! Devices that DRA drivers of this machine prepare for pods: asked once for each claim, undone with its last pod.
//!
//! ```text
//! ROOT/plugins_registry/NAME.sock     drivers that offer themselves
//! ROOT/dra/UID.json                   what is known of a claim: for which pods, and what its drivers have prepared
//! ```
//!
//! Rules
//!   D1 written    what is about to be prepared is on disk before its driver is asked, and until it is undone: an agent that
//!                 comes later undoes what it finds there, with the API or without
//!   D2 once       a claim that is prepared is not prepared again while this boot lasts, whoever was agent then and however
//!                 many pods of this machine use it
//!   D3 last       a claim is undone when the last of its pods is over, and before that its record stays
//!   D4 in turn    one thing at a time is done to a claim; other claims do not wait for it
//!   D5 bounded    every call has its end ([`CALL_TIME_MAX`]); who gave up a call asks again, as the interface lets them
//!   D6 in full    an answer counts only if it speaks of the claim; what is beyond the bounds is no honest answer
//! Source: k8s.io/kubelet/pkg/apis/dra v1 and v1beta1; KEP-4381.

#[cfg(test)]
mod driver;
mod record;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use windlass_api::codec::DecodeError;
use windlass_api::codec::wire::{Reader, Wire, Writer};

use super::off_with;
use super::plugins::Plugins;
use crate::grpc::{self, Call, CallError};
use crate::machine::{ClaimToPrepare, MachineError, Plugin, PluginKind, PreparedDevice};
use crate::turn::{self, Turn, Turns};
use record::Record;

/// How long a driver may take, as kubelet has it: some load firmware.
const CALL_TIME_MAX: Duration = Duration::from_secs(45);
/// The services that are spoken, the best first: as a driver names them when it registers, and as they are called.
const SERVICES: [(&str, &str); 2] = [
    ("v1.DRAPlugin", "k8s.io.kubelet.pkg.apis.dra.v1.DRAPlugin"),
    ("v1beta1.DRAPlugin", "k8s.io.kubelet.pkg.apis.dra.v1beta1.DRAPlugin"),
];
/// Devices of one claim and driver, and names for CDI of one device.
const DEVICES_MAX: usize = 1024;

/// What has been prepared, and by whom.
pub struct Preparing {
    directory: PathBuf,
    boot: String,
    plugins: Arc<Plugins>,
    /// Whose turn it is, by the claim's uid.
    turns: Turns<String>,
}

/// The service that a driver of these versions is called by.
pub fn service(versions: &[String]) -> Option<&'static str> {
    SERVICES.iter().find(|(name, _)| versions.iter().any(|version| version == name)).map(|(_, service)| *service)
}

fn failed(what: &str, claim: &str, why: impl std::fmt::Display) -> MachineError {
    MachineError::Failed { operation: format!("{what} for ResourceClaim {claim}"), why: why.to_string() }
}

impl Preparing {
    /// What is known in this directory; `boot` is the machine's present boot.
    pub fn new(directory: PathBuf, boot: String, plugins: Arc<Plugins>) -> Preparing {
        Preparing { directory, boot, plugins, turns: Turns::default() }
    }

    fn driver(&self, name: &str) -> Result<Arc<Plugin>, MachineError> {
        let found = self.plugins.find(PluginKind::Dra, name);
        let why = format!("DRA driver {name} is not registered");
        found.ok_or(MachineError::Failed { operation: "reach the driver".to_owned(), why })
    }

    /// Has the devices of these claims prepared for a pod.
    pub async fn prepare(&self, pod: &str, claims: &[ClaimToPrepare]) -> Result<(), MachineError> {
        for claim in claims {
            self.prepare_one(pod, claim).await?;
        }
        Ok(())
    }

    async fn prepare_one(&self, pod: &str, claim: &ClaimToPrepare) -> Result<(), MachineError> {
        // D4.
        let turn = turn::take(&self.turns, &claim.uid).await;
        let path = record::path(&self.directory, &claim.uid)?;
        let known: Option<Record> = off_with(&path, |path| record::read(&path)).await?;
        let mut record = known.clone().unwrap_or_else(|| Record::new(claim));
        record.begin(pod, claim, &self.boot);
        // Of a driver that is not here nothing is prepared, and nothing must be undone.
        let found = |name: &str| self.driver(name).map(|plugin| (name.to_owned(), plugin));
        let open: Vec<(String, Arc<Plugin>)> = record.open().map(found).collect::<Result<_, _>>()?;
        // D1.
        if known.as_ref() != Some(&record) {
            keep(&turn, &path, &record).await?;
        }
        for (driver, plugin) in open {
            let answer = call(&plugin, "NodePrepareResources", &record).await?;
            let of_claim = answer_for(&answer, &record.uid)
                .map_err(|error| failed("read what NodePrepareResources says", &record.name, error))?;
            let devices = match of_claim {
                None => Err("NodePrepareResources skipped 1 ResourceClaims".to_owned()),
                Some(bytes) => devices(bytes).map_err(|error| error.to_string()).and_then(|found| found),
            };
            let devices = devices.map_err(|why| failed("NodePrepareResources failed", &record.name, why))?;
            record.drivers.insert(driver, Some(devices));
            keep(&turn, &path, &record).await?;
        }
        Ok(())
    }

    /// What has been prepared for a pod, all of it.
    pub async fn prepared(&self, pod: &str) -> Result<Vec<PreparedDevice>, MachineError> {
        let boot = self.boot.clone();
        let records = self.of_pod(pod).await?;
        let whole = records.into_iter().filter(|record| record.boot == boot && record.open().next().is_none());
        Ok(whole.flat_map(Record::devices).collect())
    }

    /// Undoes what has been prepared for a pod and for nobody else. What cannot be undone keeps nothing else.
    pub async fn unprepare(&self, pod: &str) -> Result<(), MachineError> {
        let records = self.of_pod(pod).await?;
        let undone = records.into_iter().map(|record| self.unprepare_one(pod, record.uid));
        futures::future::join_all(undone).await.into_iter().collect()
    }

    async fn unprepare_one(&self, pod: &str, claim: String) -> Result<(), MachineError> {
        // D4.
        let turn = turn::take(&self.turns, &claim).await;
        let path = record::path(&self.directory, &claim)?;
        let known: Option<Record> = off_with(&path, |path| record::read(&path)).await?;
        let Some(mut record) = known.filter(|record| record.pods.contains(pod)) else { return Ok(()) };
        // D3.
        if record.pods.len() > 1 {
            record.pods.remove(pod);
            return keep(&turn, &path, &record).await;
        }
        let drivers: Vec<String> = record.drivers.keys().cloned().collect();
        for driver in drivers {
            let plugin = match self.driver(&driver) {
                Ok(plugin) => plugin,
                // Nothing of an earlier boot is there, and there may be no such driver any more.
                Err(_) if record.boot != self.boot => continue,
                Err(error) => return Err(error),
            };
            // From here on nobody knows whether it still is prepared.
            record.drivers.insert(driver.clone(), None);
            keep(&turn, &path, &record).await?;
            let answer = call(&plugin, "NodeUnprepareResources", &record).await?;
            let of_claim = answer_for(&answer, &claim).and_then(|found| found.map(refusal).transpose());
            match of_claim.map_err(|error| failed("read what NodeUnprepareResources says", &record.name, error))? {
                None => {
                    let why = "NodeUnprepareResources skipped 1 ResourceClaims";
                    return Err(failed("NodeUnprepareResources failed", &record.name, why));
                }
                Some(why) if !why.is_empty() => {
                    return Err(failed("NodeUnprepareResources failed", &record.name, why));
                }
                Some(_) => {}
            }
        }
        off_with(&path, move |path| {
            let _turn = turn;
            super::remove_file(&path)
        })
        .await
    }

    /// The pods for which something is prepared, or about to be.
    pub async fn pods(&self) -> Result<Vec<String>, MachineError> {
        let records = off_with(&self.directory, |directory| record::all(&directory)).await?;
        Ok(records.into_iter().flat_map(|record| record.pods).collect())
    }

    async fn of_pod(&self, pod: &str) -> Result<Vec<Record>, MachineError> {
        let mut records = off_with(&self.directory, |directory| record::all(&directory)).await?;
        records.retain(|record| record.pods.contains(pod));
        Ok(records)
    }
}

async fn keep(turn: &Turn, path: &Path, record: &Record) -> Result<(), MachineError> {
    let turn = Arc::clone(turn);
    let bytes = serde_json::to_vec(record).expect("a record has string keys only");
    off_with(path, move |path| {
        let _turn = turn;
        super::save_file_for_good(&path, &bytes)
    })
    .await
}

/// D5.
async fn call(plugin: &Plugin, method: &str, record: &Record) -> Result<Bytes, MachineError> {
    let service = service(&plugin.versions).expect("a DRA plugin is there only with a service that we speak");
    let claim = Writer::new().text(1, &record.namespace).text(2, &record.uid).text(3, &record.name);
    let call = Call::new(&format!("/{service}/{method}"), Writer::new().message(1, &claim).finish(), CALL_TIME_MAX);
    grpc::call(&plugin.endpoint, &call).await.map_err(|error| match error {
        CallError::TimedOut(after) => {
            MachineError::TimedOut { operation: format!("{method} of DRA driver {}", plugin.name), after }
        }
        other => failed(method, &record.name, other),
    })
}

/// D6: what an answer says of a claim: the value of its entry in the map that the answer is.
fn answer_for<'a>(answer: &'a [u8], uid: &str) -> Result<Option<&'a [u8]>, DecodeError> {
    let mut reader = Reader::new(answer);
    while let Some((tag, wire)) = reader.field()? {
        if tag != 1 {
            continue;
        }
        let (mut key, mut value, mut entry) = (String::new(), &[][..], wire.message()?);
        while let Some((tag, wire)) = entry.field()? {
            match tag {
                1 => key = wire.text()?,
                2 => value = wire.bytes()?,
                _ => {}
            }
        }
        if key == uid {
            return Ok(Some(value));
        }
    }
    Ok(None)
}

/// `NodePrepareResourceResponse`: the devices, or why there are none.
fn devices(answer: &[u8]) -> Result<Result<Vec<PreparedDevice>, String>, DecodeError> {
    let (mut reader, mut out, mut error) = (Reader::new(answer), Vec::new(), String::new());
    while let Some((tag, wire)) = reader.field()? {
        match tag {
            1 if out.len() == DEVICES_MAX => {
                return Ok(Err(format!("expected at most {DEVICES_MAX} devices, found more")));
            }
            1 => out.push(device(wire)?),
            2 => error = wire.text()?,
            _ => {}
        }
    }
    Ok(if error.is_empty() { Ok(out) } else { Err(error) })
}

fn device(wire: Wire) -> Result<PreparedDevice, DecodeError> {
    let (mut fields, mut out) = (wire.message()?, PreparedDevice::default());
    while let Some((tag, wire)) = fields.field()? {
        match tag {
            1 => out.requests.push(wire.text()?),
            2 => out.pool = wire.text()?,
            3 => out.device = wire.text()?,
            4 => out.cdi.push(wire.text()?),
            _ => {}
        }
    }
    out.requests.truncate(DEVICES_MAX);
    out.cdi.truncate(DEVICES_MAX);
    Ok(out)
}

/// `NodeUnprepareResourceResponse`: why it is not undone; empty when it is.
fn refusal(answer: &[u8]) -> Result<String, DecodeError> {
    let (mut reader, mut error) = (Reader::new(answer), String::new());
    while let Some((tag, wire)) = reader.field()? {
        if tag == 1 {
            error = wire.text()?;
        }
    }
    Ok(error)
}
