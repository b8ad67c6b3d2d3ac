//! Programs of this machine that offer themselves to the node: CSI and DRA drivers, by a socket in `plugins_registry`.
//!
//! Flow        a socket appears → GetInfo → what kind of plugin is it, and does this node speak its version → of a CSI driver:
//!             who is the node to it → NotifyRegistrationStatus → it is there until its socket goes
//!
//! Rules
//!   P1 apart      one that hangs or fails is asked again later, and keeps nobody else waiting longer than [`CALL_TIME_MAX`]
//!   P2 once       a socket that stays is not asked twice; one that was made anew is another
//!   P3 told       a plugin that is not taken is told why
//!   P4 one        of two plugins of a kind and name the first is there until it goes
//! Source: Kubernetes documentation, "Device Plugins" and KEP 595, plugin registration v1.

use std::collections::BTreeMap;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;
use windlass_api::codec::DecodeError;
use windlass_api::codec::wire::{Reader, Writer};

use super::csi::calls;
use super::{dra, names};
use crate::grpc::{self, Call};
use crate::machine::{MachineError, Plugin, PluginKind};

/// How long a plugin may take to answer.
pub const CALL_TIME_MAX: Duration = Duration::from_secs(5);
/// A plugin that failed is asked again after this long, doubled each time.
const RETRY_MIN: Duration = Duration::from_secs(1);
/// … and never after more than this.
const RETRY_MAX: Duration = Duration::from_secs(120);
/// The most sockets that are looked at.
const PLUGINS_MAX: usize = 256;

/// The plugins of this machine.
pub struct Plugins {
    directory: PathBuf,
    seen: Mutex<BTreeMap<String, Seen>>,
}

/// A socket that has been seen.
struct Seen {
    /// Its inode and when that was changed.
    is: (u64, i64, i64),
    state: State,
}

enum State {
    There(Arc<Plugin>),
    Failed { wait: Duration, retry_at: Instant },
}

impl Plugins {
    /// The plugins whose sockets are in this directory.
    pub fn new(directory: PathBuf) -> Plugins {
        Plugins { directory, seen: Mutex::default() }
    }

    /// The plugin of this kind and name.
    pub fn find(&self, kind: PluginKind, name: &str) -> Option<Arc<Plugin>> {
        let seen = self.seen.lock().expect("nothing panics while holding it");
        seen.values().find_map(|seen| match &seen.state {
            State::There(plugin) if plugin.kind == kind && plugin.name == name => Some(Arc::clone(plugin)),
            _ => None,
        })
    }

    /// Looks which sockets there are, asks the new ones who they are, and says who is there.
    pub async fn look(&self) -> Result<Vec<Arc<Plugin>>, MachineError> {
        let directory = self.directory.clone();
        let found = super::off_the_runtime(move || sockets(&directory)).await?;
        let due: Vec<(String, (u64, i64, i64), Duration)> = {
            let mut seen = self.seen.lock().expect("nothing panics while holding it");
            seen.retain(|name, seen| {
                let stays = found.get(name) == Some(&seen.is);
                if let (false, State::There(plugin)) = (stays, &seen.state) {
                    tracing::info!(plugin = plugin.name, why = "its socket is gone", "a plugin is not there any more");
                }
                stays
            });
            let now = Instant::now();
            let due = |(name, is): (&String, &(u64, i64, i64))| match seen.get(name).map(|seen| &seen.state) {
                None => Some((name.clone(), *is, RETRY_MIN)),
                Some(State::Failed { wait, retry_at }) if *retry_at <= now => {
                    Some((name.clone(), *is, (*wait * 2).min(RETRY_MAX)))
                }
                Some(_) => None,
            };
            found.iter().filter_map(due).collect()
        };
        let asked = due.into_iter().map(|(name, is, wait)| async move {
            let socket = self.directory.join(&name);
            let state = match self.meet(&socket).await {
                Ok(plugin) => {
                    tracing::info!(plugin = plugin.name, kind = ?plugin.kind, "a plugin is there");
                    State::There(Arc::new(plugin))
                }
                Err(why) => {
                    tracing::warn!(socket = %socket.display(), why, wait_ms = wait.as_millis(), "a plugin is not taken");
                    State::Failed { wait, retry_at: Instant::now() + wait }
                }
            };
            self.seen.lock().expect("nothing panics while holding it").insert(name, Seen { is, state });
        });
        futures::future::join_all(asked).await;
        let seen = self.seen.lock().expect("nothing panics while holding it");
        let there = seen.values().filter_map(|seen| match &seen.state {
            State::There(plugin) => Some(Arc::clone(plugin)),
            State::Failed { .. } => None,
        });
        Ok(there.collect())
    }

    async fn meet(&self, socket: &Path) -> Result<Plugin, String> {
        let ask = |method: &str, message: Vec<u8>| {
            let call = Call::new(&format!("/pluginregistration.Registration/{method}"), message, CALL_TIME_MAX);
            async move {
                grpc::call(socket, &call).await.map_err(|error| format!("{method}: {error}", method = call.method))
            }
        };
        let answer = ask("GetInfo", Vec::new()).await?;
        let told = Introduction::read(&answer).map_err(|error| error.to_string())?;
        let met = self.take(told, socket).await;
        let said = Writer::new().flag(1, met.is_ok()).text(2, met.as_ref().err().map_or("", String::as_str));
        ask("NotifyRegistrationStatus", said.finish()).await?;
        met
    }

    async fn take(&self, told: Introduction, socket: &Path) -> Result<Plugin, String> {
        let kind = match told.kind.as_str() {
            "CSIPlugin" => PluginKind::Csi,
            "DRAPlugin" => PluginKind::Dra,
            other => return Err(format!("expected a CSIPlugin or DRAPlugin, found {other:?}")),
        };
        let is_name = !told.name.is_empty() && told.name.len() <= 63 && !told.name.starts_with('.');
        if !is_name || !told.name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.')) {
            return Err(format!("expected a driver's name of letters, digits, - and ., found {:?}", told.name));
        }
        // P4.
        if self.find(kind, &told.name).is_some() {
            return Err(format!("another plugin of the name {} is there", told.name));
        }
        let endpoint = match told.endpoint.as_str() {
            "" => socket.to_owned(),
            path => PathBuf::from(path.strip_prefix("unix://").unwrap_or(path)),
        };
        let mut plugin = Plugin { kind, name: told.name, endpoint, versions: told.versions, driver: None };
        if kind == PluginKind::Csi {
            if !plugin.versions.iter().any(|version| version.trim_start_matches('v').starts_with("1.")) {
                return Err(format!("expected version 1 of CSI, found {:?}", plugin.versions));
            }
            plugin.driver = Some(calls::meet(&plugin.endpoint, CALL_TIME_MAX).await?);
        }
        if kind == PluginKind::Dra && dra::service(&plugin.versions).is_none() {
            return Err(format!("expected v1.DRAPlugin or v1beta1.DRAPlugin, found {:?}", plugin.versions));
        }
        Ok(plugin)
    }
}

/// The sockets of a directory, each with what tells it from another of its name.
fn sockets(directory: &Path) -> Result<BTreeMap<String, (u64, i64, i64)>, MachineError> {
    let mut out = BTreeMap::new();
    for name in names(directory)?.into_iter().filter(|name| !name.starts_with('.')).take(PLUGINS_MAX) {
        let Ok(found) = std::fs::symlink_metadata(directory.join(&name)) else { continue };
        if found.file_type().is_socket() {
            out.insert(name, (found.ino(), found.ctime(), found.ctime_nsec()));
        }
    }
    Ok(out)
}

/// `PluginInfo`.
#[derive(Debug, Default, PartialEq, Eq)]
struct Introduction {
    kind: String,
    name: String,
    endpoint: String,
    versions: Vec<String>,
}

impl Introduction {
    fn read(answer: &[u8]) -> Result<Introduction, DecodeError> {
        let (mut reader, mut told) = (Reader::new(answer), Introduction::default());
        while let Some((tag, wire)) = reader.field()? {
            match tag {
                1 => told.kind = wire.text()?,
                2 => told.name = wire.text()?,
                3 => told.endpoint = wire.text()?,
                4 => told.versions.push(wire.text()?),
                _ => {}
            }
        }
        Ok(told)
    }
}
