//! A CSI driver of the tests' own: gRPC on a unix socket, directories that are bind mounts, images that are loop devices.
//! It keeps the interface's word: calls may be repeated, and what is given back is gone.
//!
//! The end-to-end suite uses this file too, so it names nothing of this crate.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::UnixListener;
use tokio::task::JoinHandle;
use windlass_api::codec::wire::{Reader, Writer};

/// What a call is refused with: code and words.
type Refusal = (u32, String);

/// What a driver is like.
#[derive(Clone)]
pub struct Manner {
    /// Its name.
    pub name: String,
    /// What it calls the node.
    pub node: String,
    /// What `NodeGetCapabilities` says: 1 stage, 2 stats, 3 expand, 4 condition, 5 writers, 6 group.
    pub can: Vec<i64>,
    /// Volumes a node takes; 0 is any number.
    pub volumes_max: i64,
}

/// What a driver has and has done.
pub struct State {
    pub manner: Manner,
    /// Where its volumes are: directories, and images of devices.
    pub root: PathBuf,
    /// `METHOD HANDLE`, in order.
    pub calls: Mutex<Vec<String>>,
    /// Methods that never answer.
    pub hangs: Mutex<BTreeSet<String>>,
    /// Methods that break the connection after they have done their work.
    pub crashes: Mutex<BTreeSet<String>>,
    /// Methods that refuse.
    pub refuses: Mutex<BTreeSet<String>>,
    /// What is wrong with its volumes.
    pub trouble: Mutex<Option<String>>,
    /// What it was told at the last publish: volume context, secrets, group, read-only.
    pub told: Mutex<BTreeMap<String, BTreeMap<String, String>>>,
    /// What the node has said of the registration.
    pub registered: Mutex<Option<String>>,
}

/// A driver that serves. Dropping it is its crash: the socket stays, and nobody answers there.
pub struct Driver {
    pub state: Arc<State>,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Driver {
    /// A driver whose volumes are beneath `root`, and which registers in `registry`. Must be called inside a tokio runtime.
    pub fn start(manner: Manner, root: &Path, registry: &Path) -> Driver {
        std::fs::create_dir_all(root.join("volumes")).expect("writable");
        let state = State {
            manner,
            root: root.to_owned(),
            calls: Mutex::default(),
            hangs: Mutex::default(),
            crashes: Mutex::default(),
            refuses: Mutex::default(),
            trouble: Mutex::default(),
            told: Mutex::default(),
            registered: Mutex::default(),
        };
        Driver::serve(Arc::new(state), registry)
    }

    /// Serves again, as a driver that was started anew does.
    pub fn serve(state: Arc<State>, registry: &Path) -> Driver {
        let sockets = [state.root.join("csi.sock"), registry.join(format!("{}-reg.sock", state.manner.name))];
        let tasks = sockets.iter().map(|socket| {
            // Taken away and made anew, as drivers do.
            let _ = std::fs::remove_file(socket);
            let listener = UnixListener::bind(socket).expect("a free name");
            let state = Arc::clone(&state);
            tokio::spawn(async move {
                let mut connections = tokio::task::JoinSet::new();
                loop {
                    let Ok((stream, _)) = listener.accept().await else { return };
                    let state = Arc::clone(&state);
                    connections.spawn(async move {
                        let service = hyper::service::service_fn(move |request| answer(Arc::clone(&state), request));
                        let served = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                        // A client that has what it wants hangs up.
                        let _ = served.serve_connection(TokioIo::new(stream), service).await;
                    });
                    while connections.try_join_next().is_some() {}
                }
            })
        });
        Driver { tasks: tasks.collect(), state: Arc::clone(&state) }
    }

    /// How often a method was called for a volume.
    pub fn count(&self, method: &str, handle: &str) -> usize {
        let wanted = format!("{method} {handle}");
        self.state.calls.lock().expect("nothing panics while holding it").iter().filter(|call| **call == wanted).count()
    }

    /// Makes a volume; `block` is the size of its image.
    pub fn make(&self, handle: &str, block: Option<u64>) {
        let path = self.state.volume(handle);
        match block {
            None => std::fs::create_dir_all(&path).expect("writable"),
            Some(bytes) => std::fs::File::create(path.with_extension("img"))
                .and_then(|file| file.set_len(bytes))
                .expect("writable"),
        }
    }

    /// What of it is mounted or attached.
    pub fn left(&self) -> Vec<String> {
        let root = self.state.root.display().to_string();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("proc is mounted");
        // A mount table names what is mounted from its own disk's top.
        let mut parts: Vec<_> = self.state.root.iter().rev().take(2).collect();
        parts.reverse();
        let own = parts.iter().collect::<PathBuf>().display().to_string();
        let mut left: Vec<String> = mounts.lines().filter(|line| line.contains(&own)).map(str::to_owned).collect();
        left.extend(loops().into_iter().filter(|(_, file)| file.starts_with(&root)).map(|(device, _)| device));
        left
    }

    /// Takes everything away that a failed test has left.
    pub fn clear(state: &State) {
        let root = state.root.display().to_string();
        for (device, _) in loops().into_iter().filter(|(_, file)| file.starts_with(&root)) {
            let _ = Command::new("losetup").args(["-d", &device]).output();
        }
    }
}

/// Loop devices and the files behind them.
fn loops() -> Vec<(String, String)> {
    let said = Command::new("losetup").args(["-l", "-n", "-O", "NAME,BACK-FILE"]).output().expect("losetup is there");
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let pair =
        |line: &str| line.trim().split_once(' ').map(|(device, file)| (device.to_owned(), file.trim().to_owned()));
    said.lines().filter_map(pair).collect()
}

fn run(program: &str, args: &[&str]) -> Result<String, Refusal> {
    let out = Command::new(program).args(args).output().map_err(|error| (13, error.to_string()))?;
    match out.status.success() {
        true => Ok(String::from_utf8_lossy(&out.stdout).trim().to_owned()),
        false => Err((13, format!("{program} {args:?}: {}", String::from_utf8_lossy(&out.stderr)))),
    }
}

fn is_mounted(path: &str) -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("proc is mounted");
    mounts.lines().any(|line| line.split(' ').nth(4) == Some(path))
}

impl State {
    fn volume(&self, handle: &str) -> PathBuf {
        self.root.join("volumes").join(handle)
    }

    fn device(&self, handle: &str) -> Option<String> {
        let image = self.volume(handle).with_extension("img").display().to_string();
        loops().into_iter().find(|(_, file)| *file == image).map(|(device, _)| device)
    }

    fn stage(&self, asked: &Asked) -> Result<Writer, Refusal> {
        let path = self.volume(&asked.handle);
        if asked.block {
            if self.device(&asked.handle).is_none() {
                run("losetup", &["-f", "--show", &path.with_extension("img").display().to_string()])?;
            }
            return Ok(Writer::new());
        }
        if !path.is_dir() {
            return Err((5, format!("there is no volume {}", asked.handle)));
        }
        if !is_mounted(&asked.staging) {
            run("mount", &["--bind", &path.display().to_string(), &asked.staging])?;
        }
        Ok(Writer::new())
    }

    fn publish(&self, asked: &Asked) -> Result<Writer, Refusal> {
        let mut told = BTreeMap::from([("context".to_owned(), asked.context.clone())]);
        told.insert("secrets".to_owned(), asked.secrets.clone());
        told.insert("attachment".to_owned(), asked.attachment.clone());
        let other = [("group", asked.group.clone()), ("readonly", asked.read_only.to_string())];
        told.insert("other".to_owned(), other.map(|(key, value)| (key.to_owned(), value)).into());
        *self.told.lock().expect("nothing panics while holding it") = told;
        if is_mounted(&asked.target) {
            return Ok(Writer::new());
        }
        let from = match (asked.block, asked.staging.is_empty()) {
            (true, _) => {
                std::fs::File::create(&asked.target).map_err(|error| (13, error.to_string()))?;
                self.device(&asked.handle).ok_or((9, "it is not staged".to_owned()))?
            }
            (false, false) => asked.staging.clone(),
            // Such a volume lives with its pod.
            (false, true) => {
                let path = self.volume(&asked.handle);
                std::fs::create_dir_all(&path).map_err(|error| (13, error.to_string()))?;
                path.display().to_string()
            }
        };
        if !asked.block {
            std::fs::create_dir_all(&asked.target).map_err(|error| (13, error.to_string()))?;
        }
        run("mount", &["--bind", &from, &asked.target])?;
        if asked.read_only {
            run("mount", &["-o", "remount,bind,ro", &asked.target])?;
        }
        Ok(Writer::new())
    }

    fn unpublish(&self, asked: &Asked) -> Result<Writer, Refusal> {
        if is_mounted(&asked.target) {
            run("umount", &[&asked.target])?;
        }
        let path = Path::new(&asked.target);
        let _ = if path.is_dir() { std::fs::remove_dir(path) } else { std::fs::remove_file(path) };
        Ok(Writer::new())
    }

    fn unstage(&self, asked: &Asked) -> Result<Writer, Refusal> {
        if is_mounted(&asked.staging) {
            run("umount", &[&asked.staging])?;
        }
        if let Some(device) = self.device(&asked.handle) {
            run("losetup", &["-d", &device])?;
        }
        Ok(Writer::new())
    }

    fn expand(&self, asked: &Asked) -> Result<Writer, Refusal> {
        if let Some(device) = self.device(&asked.handle) {
            run("losetup", &["-c", &device])?;
        }
        Ok(Writer::new().number(1, asked.bytes))
    }

    fn stats(&self) -> Writer {
        let trouble = self.trouble.lock().expect("nothing panics while holding it").clone();
        let condition = Writer::new().flag(1, trouble.is_some()).text(2, trouble.as_deref().unwrap_or("fine"));
        let bytes = Writer::new().number(1, 70).number(2, 100).number(3, 30).number(4, 1);
        Writer::new().message(1, &bytes).message(2, &condition)
    }

    fn do_it(&self, method: &str, message: &[u8]) -> Result<Writer, Refusal> {
        let asked = Asked::read(method, message).map_err(|error| (3, error.to_string()))?;
        let call = format!("{method} {}", asked.handle);
        self.calls.lock().expect("nothing panics while holding it").push(call);
        if self.refuses.lock().expect("nothing panics while holding it").contains(method) {
            return Err((13, "it was told to refuse".to_owned()));
        }
        let manner = &self.manner;
        let rpc = |kind: &i64| Writer::new().message(1, &Writer::new().number(1, *kind));
        Ok(match method {
            "GetInfo" => {
                let endpoint = self.root.join("csi.sock").display().to_string();
                Writer::new().text(1, "CSIPlugin").text(2, &manner.name).text(3, &endpoint).texts(4, ["1.0.0"])
            }
            "NotifyRegistrationStatus" => {
                let said = if asked.block { "yes".to_owned() } else { asked.staging };
                *self.registered.lock().expect("nothing panics while holding it") = Some(said);
                Writer::new()
            }
            "NodeGetInfo" => {
                let zones = BTreeMap::from([(format!("topology.{}/zone", manner.name), "here".to_owned())]);
                let topology = Writer::new().pairs(1, &zones);
                Writer::new().text(1, &manner.node).number(2, manner.volumes_max).message(3, &topology)
            }
            "NodeGetCapabilities" => manner.can.iter().fold(Writer::new(), |all, kind| all.message(1, &rpc(kind))),
            "Probe" | "GetPluginCapabilities" => Writer::new(),
            "GetPluginInfo" => Writer::new().text(1, &manner.name).text(2, "1"),
            "NodeStageVolume" => self.stage(&asked)?,
            "NodePublishVolume" => self.publish(&asked)?,
            "NodeUnpublishVolume" => self.unpublish(&asked)?,
            "NodeUnstageVolume" => self.unstage(&asked)?,
            "NodeExpandVolume" => self.expand(&asked)?,
            "NodeGetVolumeStats" => self.stats(),
            other => return Err((12, format!("{other} is not implemented"))),
        })
    }
}

/// What a call asks for, whichever it is.
#[derive(Default)]
struct Asked {
    handle: String,
    staging: String,
    target: String,
    block: bool,
    group: String,
    read_only: bool,
    bytes: i64,
    attachment: BTreeMap<String, String>,
    context: BTreeMap<String, String>,
    secrets: BTreeMap<String, String>,
}

impl Asked {
    fn read(method: &str, message: &[u8]) -> Result<Asked, windlass_api::codec::DecodeError> {
        let (mut reader, mut asked) = (Reader::new(message), Asked::default());
        while let Some((tag, wire)) = reader.field()? {
            match (method, tag) {
                ("NotifyRegistrationStatus", 1) => asked.block = wire.flag()?,
                ("NotifyRegistrationStatus", 2) | ("NodeUnstageVolume", 2) => asked.staging = wire.text()?,
                (_, 1) => asked.handle = wire.text()?,
                ("NodeUnpublishVolume" | "NodeExpandVolume" | "NodeGetVolumeStats", 2) => asked.target = wire.text()?,
                ("NodeExpandVolume", 3) => {
                    if let Some((1, wire)) = wire.message()?.field()? {
                        asked.bytes = wire.number()?;
                    }
                }
                ("NodeStageVolume" | "NodePublishVolume", 2) => asked.attachment.extend([wire.pair()?]),
                ("NodeStageVolume" | "NodePublishVolume" | "NodeGetVolumeStats", 3) | ("NodeExpandVolume", 4) => {
                    asked.staging = wire.text()?;
                }
                ("NodePublishVolume", 4) => asked.target = wire.text()?,
                ("NodeStageVolume", 4) | ("NodePublishVolume", 5) => {
                    let mut capability = wire.message()?;
                    while let Some((tag, wire)) = capability.field()? {
                        asked.block |= tag == 1;
                        if tag == 2 {
                            let mut mount = wire.message()?;
                            while let Some((tag, wire)) = mount.field()? {
                                if tag == 3 {
                                    asked.group = wire.text()?;
                                }
                            }
                        }
                    }
                }
                ("NodePublishVolume", 6) => asked.read_only = wire.flag()?,
                ("NodeStageVolume", 5) | ("NodePublishVolume", 7) => asked.secrets.extend([wire.pair()?]),
                ("NodeStageVolume", 6) | ("NodePublishVolume", 8) => asked.context.extend([wire.pair()?]),
                _ => {}
            }
        }
        Ok(asked)
    }
}

type Frames = StreamBody<stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, Infallible>>>>;

async fn answer(
    state: Arc<State>,
    request: http::Request<hyper::body::Incoming>,
) -> Result<http::Response<Frames>, std::io::Error> {
    let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
    let asked = request.into_body().collect().await.map_err(std::io::Error::other)?.to_bytes();
    let is_in = |set: &Mutex<BTreeSet<String>>| set.lock().expect("nothing panics while holding it").contains(&method);
    if is_in(&state.hangs) {
        state.calls.lock().expect("nothing panics while holding it").push(format!("{method} hangs"));
        std::future::pending::<()>().await;
    }
    let (doing, name) = (Arc::clone(&state), method.clone());
    let done = tokio::task::spawn_blocking(move || doing.do_it(&name, asked.get(5..).unwrap_or_default()));
    let done = done.await.map_err(std::io::Error::other)?;
    if is_in(&state.crashes) {
        return Err(std::io::Error::other("it was told to crash"));
    }
    let mut trailers = http::HeaderMap::new();
    let mut frames = Vec::new();
    let code = match done {
        Ok(message) => {
            let message = message.finish();
            let mut data = vec![0];
            data.extend(u32::try_from(message.len()).expect("short").to_be_bytes());
            data.extend(message);
            frames.push(Ok(Frame::data(Bytes::from(data))));
            0
        }
        Err((code, words)) => {
            let words: String = words.chars().filter(|char| char.is_ascii_graphic() || *char == ' ').collect();
            trailers.insert("grpc-message", words.parse().expect("plain text"));
            code
        }
    };
    trailers.insert("grpc-status", http::HeaderValue::from(code));
    frames.push(Ok(Frame::trailers(trailers)));
    Ok(http::Response::new(StreamBody::new(stream::iter(frames))))
}
