//! Device plugins: programs that say which devices this machine has, and what containers need to use them.
//!
//! Flow        a plugin registers at the node's socket → the node calls the plugin at its own socket → the plugin lists its
//!             devices as long as it lives
//!
//! Rules
//!   P1 named     a resource is an extended one; the plugin's socket lies beside the node's, under a plain name
//!   P2 lives     devices are as the plugin's list says; when it ends they are known still, and none of them is healthy
//!   P3 newest    who registers a resource takes the place of who had it before
//!   P4 anew      an agent that starts has no plugins: it takes their sockets away, and they register again
//!   P5 bounded   plugins, their devices, their names and the time of every call have a limit
//!   P6 silent    one that did not answer in time is not asked again for a while: all who want its devices would wait in turn
//! Not here       which container gets which device (devices) · what CDI names stand for (cdi)
//! Source: Kubernetes documentation, "Device Plugins": the kubelet device plugin API v1beta1.

pub mod cdi;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use windlass_api::codec::DecodeError;
use windlass_api::codec::wire::{Reader, Wire, Writer};

use super::layout::file_name;
use super::{failed, file_error, make_private_dir, names};
use crate::grpc::server::{Answerer, Refusal, bind, serve};
use crate::grpc::{self, Call, CallError, Messages, code};
use crate::machine::{
    Allocated, Device, DeviceMount, DeviceSource, DeviceTable, DeviceWish, ListedDevice, MachineError,
};

/// The node's socket, as plugins know it.
const SOCKET: &str = "kubelet.sock";
/// The version of the API.
const VERSION: &str = "v1beta1";
/// Most plugins at a time.
const PLUGINS_MAX: usize = 64;
/// Most devices of one plugin.
const DEVICES_MAX: usize = 4096;
/// The longest name of a device.
const DEVICE_BYTES_MAX: usize = 256;
/// The most that a container is given of anything for a device.
const PARTS_MAX: usize = 1024;
/// How long the way to a plugin may take, and an answer of it.
const CALL_TIME_MAX: Duration = Duration::from_secs(10);
/// How long a plugin may take to ready a device: some reset it.
const READY_TIME_MAX: Duration = Duration::from_secs(30);
/// P6.
const SILENCE: Duration = Duration::from_secs(30);
/// How often a plugin that does not serve yet is called.
const CALL_EVERY: Duration = Duration::from_millis(50);
/// Annotations of containers that name devices for CDI begin so.
const CDI_ANNOTATION: &str = "cdi.k8s.io/";

/// All plugins of this machine. They are left alone when this ends.
pub struct Plugins {
    inner: Arc<Inner>,
    server: AbortHandle,
}

impl Drop for Plugins {
    fn drop(&mut self) {
        self.server.abort();
        for plugin in self.inner.plugins.lock().expect("nothing panics while holding it").values() {
            plugin.list.abort();
        }
    }
}

struct Inner {
    directory: PathBuf,
    plugins: Mutex<BTreeMap<String, Arc<Plugin>>>,
    table: watch::Sender<Arc<DeviceTable>>,
}

/// One plugin.
struct Plugin {
    socket: PathBuf,
    prefers: bool,
    readies: bool,
    /// Follows its list.
    list: AbortHandle,
    /// P6: when it last did not answer.
    silent: Mutex<Option<Instant>>,
}

impl Plugins {
    /// Listens for plugins in this directory.
    pub fn open(directory: &Path) -> Result<Plugins, MachineError> {
        make_private_dir(directory)?;
        // P4
        for name in names(directory)? {
            use std::os::unix::fs::FileTypeExt;
            let path = directory.join(&name);
            if std::fs::symlink_metadata(&path).is_ok_and(|found| found.file_type().is_socket()) {
                super::remove_file(&path)?;
            }
        }
        let listener =
            bind(directory, SOCKET).map_err(|error| file_error("listen on", &directory.join(SOCKET), &error))?;
        let (plugins, table) = (Mutex::default(), watch::Sender::default());
        let inner = Arc::new(Inner { directory: directory.to_owned(), plugins, table });
        let own = Arc::clone(&inner);
        let answerer: Answerer = Arc::new(move |path, message| answer(Arc::clone(&own), path, message).boxed());
        let server = tokio::spawn(serve(listener, answerer)).abort_handle();
        Ok(Plugins { inner, server })
    }

    /// Which devices there are.
    pub fn table(&self) -> watch::Receiver<Arc<DeviceTable>> {
        self.inner.table.subscribe()
    }

    fn plugin(&self, resource: &str) -> Result<Arc<Plugin>, MachineError> {
        let found = self.inner.plugins.lock().expect("nothing panics while holding it").get(resource).cloned();
        found.ok_or_else(|| MachineError::NotFound { what: "device plugin of", id: resource.to_owned() })
    }

    /// Which devices a plugin would like to be used together; none when it does not care.
    pub async fn prefer(&self, resource: &str, wish: &DeviceWish) -> Result<Vec<String>, MachineError> {
        let plugin = self.plugin(resource)?;
        if !plugin.prefers {
            return Ok(Vec::new());
        }
        let one = Writer::new().texts(1, wish.available.iter().map(String::as_str));
        let one = one.texts(2, wish.included.iter().map(String::as_str));
        let one = one.number(3, i64::try_from(wish.count).unwrap_or(i64::MAX));
        let answer = plugin.call("GetPreferredAllocation", Writer::new().message(1, &one), CALL_TIME_MAX).await?;
        let chosen = each(&answer, 1, |one| one.message().and_then(|one| texts_of(one, 1)));
        Ok(chosen.map_err(|error| plugin.malformed(&error))?.into_iter().flatten().take(DEVICES_MAX).collect())
    }

    /// What a container needs to use these devices.
    pub async fn allocate(&self, resource: &str, devices: &[String]) -> Result<Allocated, MachineError> {
        let plugin = self.plugin(resource)?;
        let one = Writer::new().texts(1, devices.iter().map(String::as_str));
        let answer = plugin.call("Allocate", Writer::new().message(1, &one), CALL_TIME_MAX).await?;
        let all =
            each(&answer, 1, |one| one.message().and_then(allocated)).map_err(|error| plugin.malformed(&error))?;
        match <[Allocated; 1]>::try_from(all) {
            Ok([one]) => Ok(one),
            Err(all) => Err(MachineError::Failed {
                operation: format!("allocate devices of {resource}"),
                why: format!("expected an answer for one container, found {}", all.len()),
            }),
        }
    }

    /// Readies devices for a container that is about to start.
    pub async fn ready(&self, resource: &str, devices: &[String]) -> Result<(), MachineError> {
        let plugin = self.plugin(resource)?;
        if !plugin.readies {
            return Ok(());
        }
        let asked = Writer::new().texts(1, devices.iter().map(String::as_str));
        plugin.call("PreStartContainer", asked, READY_TIME_MAX).await.map(|_| ())
    }
}

impl Plugin {
    async fn call(&self, method: &str, message: Writer, time_max: Duration) -> Result<Bytes, MachineError> {
        let call = Call::new(&format!("/{VERSION}.DevicePlugin/{method}"), message.finish(), time_max);
        let operation = || format!("{method} of the device plugin at {}", self.socket.display());
        // P6
        let silent = || self.silent.lock().expect("nothing panics while holding it");
        if silent().is_some_and(|since| since.elapsed() < SILENCE) {
            let why = format!("it did not answer a moment ago, and is asked again {} s after that", SILENCE.as_secs());
            return Err(MachineError::Failed { operation: operation(), why });
        }
        let answer = grpc::call(&self.socket, &call).await;
        *silent() = matches!(answer, Err(CallError::TimedOut(_))).then(Instant::now);
        answer.map_err(|error| match error {
            CallError::TimedOut(after) => MachineError::TimedOut { operation: operation(), after },
            other => failed(&operation(), &other),
        })
    }

    fn malformed(&self, error: &DecodeError) -> MachineError {
        failed(&format!("read what the device plugin at {} says", self.socket.display()), error)
    }
}

/// What `read` makes of each field of this tag.
fn each<T>(message: &[u8], tag: u32, read: impl Fn(Wire) -> Result<T, DecodeError>) -> Result<Vec<T>, DecodeError> {
    let (mut reader, mut all) = (Reader::new(message), Vec::new());
    while let Some((found, wire)) = reader.field()? {
        if found == tag && all.len() <= DEVICES_MAX {
            all.push(read(wire)?);
        }
    }
    Ok(all)
}

fn texts_of(mut message: Reader, tag: u32) -> Result<Vec<String>, DecodeError> {
    let mut all = Vec::new();
    while let Some((found, wire)) = message.field()? {
        if found == tag {
            all.push(wire.text()?);
        }
    }
    Ok(all)
}

/// What a plugin answers for one container. What is beyond the bounds is no honest answer, and is cut.
fn allocated(mut answer: Reader) -> Result<Allocated, DecodeError> {
    let mut out = Allocated::default();
    let mut parts = 0;
    while let Some((tag, wire)) = answer.field()? {
        parts += 1;
        if parts > PARTS_MAX {
            break;
        }
        match tag {
            1 => out.env.extend([wire.pair()?]),
            2 => {
                let mut mount = DeviceMount::default();
                let mut fields = wire.message()?;
                while let Some((tag, wire)) = fields.field()? {
                    match tag {
                        1 => mount.target = wire.text()?,
                        2 => mount.source = wire.text()?.into(),
                        3 => mount.read_only = wire.flag()?,
                        _ => {}
                    }
                }
                out.mounts.push(mount);
            }
            3 => {
                let (mut source, mut target, mut access) = (String::new(), String::new(), String::new());
                let mut fields = wire.message()?;
                while let Some((tag, wire)) = fields.field()? {
                    match tag {
                        1 => target = wire.text()?,
                        2 => source = wire.text()?,
                        3 => access = wire.text()?,
                        _ => {}
                    }
                }
                out.nodes.push(Device { source: DeviceSource::Path(source.into()), target, access });
            }
            4 => {
                let (key, names) = wire.pair()?;
                if key.starts_with(CDI_ANNOTATION) {
                    out.cdi.extend(names.split(',').map(str::to_owned));
                }
            }
            5 => out.cdi.extend(texts_of(wire.message()?, 1)?),
            _ => {}
        }
    }
    out.cdi.retain(|name| !name.is_empty());
    out.cdi.sort();
    out.cdi.dedup();
    Ok(out)
}

/// What a plugin says when it registers.
#[derive(Default)]
struct Registration {
    version: String,
    endpoint: String,
    resource: String,
    prefers: bool,
    readies: bool,
}

impl Registration {
    fn read(message: &[u8]) -> Result<Registration, DecodeError> {
        let (mut out, mut fields) = (Registration::default(), Reader::new(message));
        while let Some((tag, wire)) = fields.field()? {
            match tag {
                1 => out.version = wire.text()?,
                2 => out.endpoint = wire.text()?,
                3 => out.resource = wire.text()?,
                4 => {
                    let mut options = wire.message()?;
                    while let Some((tag, wire)) = options.field()? {
                        match tag {
                            1 => out.readies = wire.flag()?,
                            2 => out.prefers = wire.flag()?,
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(out)
    }

    /// P1.
    fn check(&self) -> Result<(), Refusal> {
        let refuse = |why: String| Err((code::INVALID_ARGUMENT, why));
        let Registration { version, endpoint, resource, .. } = self;
        if version != VERSION {
            return refuse(format!("expected version {VERSION}, found {version:?}"));
        }
        let domain = resource.split_once('/').map_or("", |(domain, _)| domain);
        let is_native = domain.is_empty() || domain == "kubernetes.io" || domain.ends_with(".kubernetes.io");
        if is_native || resource.starts_with("requests.") || !windlass_api::name::label_key(resource).is_empty() {
            return refuse(format!("the ResourceName {resource:?} is invalid: expected a name as example.com/device"));
        }
        match file_name(endpoint) {
            Ok(endpoint) if endpoint != SOCKET => Ok(()),
            _ => refuse(format!("expected the plain name of a socket as endpoint, found {endpoint:?}")),
        }
    }
}

async fn answer(inner: Arc<Inner>, path: String, message: Bytes) -> Result<Vec<u8>, Refusal> {
    if path != format!("/{VERSION}.Registration/Register") {
        return Err((code::UNIMPLEMENTED, format!("the node has no {path}")));
    }
    let asked = Registration::read(&message).map_err(|error| (code::INVALID_ARGUMENT, error.to_string()))?;
    asked.check()?;
    {
        let plugins = inner.plugins.lock().expect("nothing panics while holding it");
        if plugins.len() >= PLUGINS_MAX && !plugins.contains_key(&asked.resource) {
            return Err((code::EXHAUSTED, format!("{PLUGINS_MAX} device plugins are registered already")));
        }
    }
    // It is called after it was answered: some plugins serve only then.
    tokio::spawn(async move {
        if let Err(error) = follow(&inner, &asked).await {
            let Registration { resource, endpoint, .. } = asked;
            tracing::warn!(resource, endpoint, %error, "a device plugin that registered cannot be followed");
        }
    });
    Ok(Vec::new())
}

/// Calls a plugin for its list; one that does not serve yet is called again.
async fn list(socket: &Path) -> Result<Messages, CallError> {
    let call = Call::new(&format!("/{VERSION}.DevicePlugin/ListAndWatch"), Vec::new(), CALL_TIME_MAX);
    let listening = async {
        loop {
            match grpc::listen(socket, &call).await {
                Err(CallError::Unreachable { .. }) => tokio::time::sleep(CALL_EVERY).await,
                other => return other,
            }
        }
    };
    tokio::time::timeout(CALL_TIME_MAX, listening).await.unwrap_or(Err(CallError::TimedOut(CALL_TIME_MAX)))
}

/// P2, P3: takes in a plugin's list until it ends.
async fn follow(inner: &Arc<Inner>, asked: &Registration) -> Result<(), CallError> {
    let socket = inner.directory.join(&asked.endpoint);
    let mut list = list(&socket).await?;
    let (own, name) = (Arc::clone(inner), asked.resource.clone());
    let (is_known, known) = tokio::sync::oneshot::channel::<Arc<Plugin>>();
    let following = tokio::spawn(async move {
        let Ok(plugin) = known.await else { return };
        loop {
            let found = match list.next().await {
                Ok(Some(message)) => devices(&message),
                Ok(None) => break,
                Err(error) => Err(error.to_string()),
            };
            match found {
                Ok(found) => own.show(&name, &plugin, found),
                Err(why) => {
                    tracing::warn!(resource = name, why, "a device plugin's list broke off");
                    break;
                }
            }
        }
        own.lose(&name, &plugin);
    });
    let plugin = Arc::new(Plugin {
        socket,
        prefers: asked.prefers,
        readies: asked.readies,
        list: following.abort_handle(),
        silent: Mutex::default(),
    });
    let before = {
        let mut plugins = inner.plugins.lock().expect("nothing panics while holding it");
        plugins.insert(asked.resource.clone(), Arc::clone(&plugin))
    };
    if let Some(before) = before {
        before.list.abort();
    }
    tracing::info!(resource = asked.resource, endpoint = asked.endpoint, "a device plugin is registered");
    // The task waits for this, so it is there.
    let _ = is_known.send(plugin);
    Ok(())
}

/// What a list says.
fn devices(list: &[u8]) -> Result<Vec<ListedDevice>, String> {
    let found = each(list, 1, |wire| {
        let (mut device, mut fields) = (ListedDevice::default(), wire.message()?);
        while let Some((tag, wire)) = fields.field()? {
            match tag {
                1 => device.id = wire.text()?,
                2 => device.is_healthy = wire.text()? == "Healthy",
                3 => {
                    let mut topology = wire.message()?;
                    while let Some((1, wire)) = topology.field()? {
                        let mut node = wire.message()?;
                        // The first one, which has the number 0, is an empty message.
                        let number = node.field()?.map_or(Ok(0), |(_, wire)| wire.number())?;
                        device.numa_nodes.push(number);
                    }
                }
                _ => {}
            }
        }
        Ok(device)
    });
    let found = found.map_err(|error| error.to_string())?;
    if found.len() > DEVICES_MAX {
        return Err(format!("expected at most {DEVICES_MAX} devices, found more"));
    }
    let is_named = |device: &ListedDevice| !device.id.is_empty() && device.id.len() <= DEVICE_BYTES_MAX;
    // One that is listed twice is one.
    let mut seen = std::collections::BTreeSet::new();
    Ok(found.into_iter().filter(is_named).filter(|device| seen.insert(device.id.clone())).collect())
}

impl Inner {
    /// The plugins, held as they are, if this one has the resource still.
    fn current(
        &self,
        resource: &str,
        plugin: &Arc<Plugin>,
    ) -> Option<std::sync::MutexGuard<'_, BTreeMap<String, Arc<Plugin>>>> {
        let plugins = self.plugins.lock().expect("nothing panics while holding it");
        let is_current = plugins.get(resource).is_some_and(|current| Arc::ptr_eq(current, plugin));
        is_current.then_some(plugins)
    }

    fn show(&self, resource: &str, plugin: &Arc<Plugin>, devices: Vec<ListedDevice>) {
        let Some(_held) = self.current(resource, plugin) else { return };
        self.table.send_if_modified(|table| {
            let is_new = table.0.get(resource) != Some(&devices);
            if is_new {
                Arc::make_mut(table).0.insert(resource.to_owned(), devices);
            }
            is_new
        });
    }

    /// P2.
    fn lose(&self, resource: &str, plugin: &Arc<Plugin>) {
        let Some(mut plugins) = self.current(resource, plugin) else { return };
        plugins.remove(resource);
        tracing::warn!(resource, "a device plugin is gone; its devices are not healthy any more");
        self.table.send_modify(|table| {
            let devices = Arc::make_mut(table).0.get_mut(resource);
            devices.into_iter().flatten().for_each(|device| device.is_healthy = false);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::{Plugin, Plugins, Registration, allocated, devices};
    use crate::machine::MachineError;
    use windlass_api::codec::wire::{Reader, Writer};

    #[test]
    fn p1_only_extended_resources_at_plain_sockets_are_taken() {
        let is_taken = |version: &str, resource: &str, endpoint: &str| {
            let asked = Writer::new().text(1, version).text(2, endpoint).text(3, resource);
            Registration::read(&asked.finish()).expect("well formed").check().is_ok()
        };
        assert!(is_taken("v1beta1", "example.com/gpu", "gpu.sock"));
        for (version, resource, endpoint) in [
            ("v1", "example.com/gpu", "gpu.sock"),
            ("v1beta1", "cpu", "gpu.sock"),
            ("v1beta1", "kubernetes.io/gpu", "gpu.sock"),
            ("v1beta1", "a.kubernetes.io/gpu", "gpu.sock"),
            ("v1beta1", "example.com/a/b", "gpu.sock"),
            ("v1beta1", "example.com/gpu", "../gpu.sock"),
            ("v1beta1", "example.com/gpu", "/run/gpu.sock"),
            ("v1beta1", "example.com/gpu", "kubelet.sock"),
            ("v1beta1", "example.com/gpu", ""),
        ] {
            assert!(!is_taken(version, resource, endpoint), "{version} {resource} {endpoint}");
        }
    }

    #[tokio::test]
    async fn p4_an_agent_that_starts_takes_the_sockets_of_plugins_away() {
        let directory = std::env::temp_dir().join(format!("windlass-plugins-{}", std::process::id()));
        let first = Plugins::open(&directory).expect("it can listen");
        let old = directory.join("old.sock");
        let plugin = std::os::unix::net::UnixListener::bind(&old).expect("it can listen");
        std::fs::write(directory.join("state"), "kept").expect("writable");
        drop(first);
        let second = Plugins::open(&directory).expect("it can listen again");
        assert!(!old.exists() && directory.join("kubelet.sock").exists() && directory.join("state").exists());
        drop((second, plugin));
        std::fs::remove_dir_all(&directory).expect("the test's own directory");
    }

    /// A plugin that takes calls and never answers: the first one waits its time, those after it do not.
    #[tokio::test]
    async fn p6_a_plugin_that_does_not_answer_holds_up_one_call_and_no_more() {
        let directory = std::env::temp_dir().join(format!("windlass-silent-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a directory for the test");
        let socket = directory.join("silent.sock");
        let _hangs = std::os::unix::net::UnixListener::bind(&socket).expect("it can listen");
        let list = tokio::spawn(async {}).abort_handle();
        let plugin = Plugin { socket, prefers: true, readies: true, list, silent: Default::default() };
        let call = async |time_max| plugin.call("Allocate", Writer::new(), time_max).await.expect_err("no answer");
        let short = std::time::Duration::from_millis(50);
        let first = call(short).await;
        assert!(matches!(first, MachineError::TimedOut { .. }), "{first}");
        let begun = tokio::time::Instant::now();
        let second = call(super::CALL_TIME_MAX).await.to_string();
        assert!(second.contains("did not answer a moment ago"), "{second}");
        assert!(begun.elapsed() < super::CALL_TIME_MAX / 2, "it is told at once");
        std::fs::remove_dir_all(&directory).expect("the test's own directory");
    }

    #[test]
    fn what_plugins_say_is_read_with_its_bounds() {
        let node = |number| Writer::new().message(1, &Writer::new().number(1, number));
        let device = |id: &str, health: &str| Writer::new().text(1, id).text(2, health);
        let list = Writer::new().message(1, &device("a", "Healthy").message(3, &node(1)));
        let list = list.message(1, &device("b", "Unhealthy").message(3, &node(0))).message(1, &device("", "Healthy"));
        let found = devices(&list.finish()).expect("a list");
        let shown: Vec<_> = found.iter().map(|one| (one.id.as_str(), one.is_healthy, &one.numa_nodes[..])).collect();
        assert_eq!(shown, [("a", true, &[1][..]), ("b", false, &[0][..])]);
        let many =
            (0..5000).fold(Writer::new(), |list, number| list.message(1, &device(&number.to_string(), "Healthy")));
        assert!(devices(&many.finish()).is_err() && devices(&[0x0a, 0xff]).is_err());
        let pair = [("cdi.k8s.io/x".to_owned(), "v/c=1,v/c=0".to_owned()), ("other".to_owned(), "v/c=9".to_owned())];
        let answer = Writer::new().pairs(4, pair.iter().map(|(key, value)| (key, value)));
        let answer = answer.message(5, &Writer::new().text(1, "v/c=1")).finish();
        let found = allocated(Reader::new(&answer)).expect("an answer");
        assert_eq!(found.cdi, ["v/c=0", "v/c=1"]);
    }
}
