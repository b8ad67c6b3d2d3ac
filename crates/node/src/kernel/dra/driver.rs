//! A DRA driver of the tests' own: gRPC on unix sockets, and a CDI specification of devices that are none.
//! It keeps the interface's word: calls may be repeated, and what is undone is gone.
//!
//! The agent's tests and the end-to-end suite use this file too, so it names nothing of this crate.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::UnixListener;
use tokio::task::JoinHandle;
use windlass_api::codec::DecodeError;
use windlass_api::codec::wire::{Reader, Writer};

/// What a call is refused with: code and words.
type Refusal = (u32, String);
/// Says what a claim was given: requests, pools and devices. It gets the claim's namespace and name.
pub type Look = Box<dyn Fn(&str, &str) -> Vec<[String; 3]> + Send + Sync>;

/// What a driver has and has done.
pub struct State {
    /// Its name.
    pub name: String,
    /// Where its sockets and its record are.
    root: PathBuf,
    /// Where its devices are explained.
    cdi: PathBuf,
    /// The services that it says it serves.
    pub services: Vec<String>,
    look: Look,
    /// `METHOD CLAIM`, in order, by the claim's name.
    pub calls: Mutex<Vec<String>>,
    /// Methods that never answer.
    pub hangs: Mutex<BTreeSet<String>>,
    /// Methods that refuse, as a whole or for the claim.
    pub refuses: Mutex<BTreeSet<String>>,
    /// What it has prepared, by the claim's uid.
    pub prepared: Mutex<BTreeSet<String>>,
    /// What the node has said of the registration.
    pub registered: Mutex<Option<String>>,
}

/// A driver that serves. Dropping it is its crash: the sockets stay, and nobody answers there.
pub struct Driver {
    pub state: Arc<State>,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// Where a driver's specification is in a directory of them.
fn cdi_file(directory: &Path, driver: &str) -> PathBuf {
    directory.join(format!("{driver}.json"))
}

/// The specification of `gpu-0` to `gpu-3` of a driver: a container that has one sees a variable and a device node.
fn write_cdi(directory: &Path, driver: &str) {
    std::fs::create_dir_all(directory).expect("writable");
    let devices: Vec<serde_json::Value> = (0..4)
        .map(|number| {
            serde_json::json!({"name": format!("gpu-{number}"), "containerEdits": {
                "env": [format!("GPU_{number}=given")],
                "deviceNodes": [{"path": format!("/dev/gpu-{number}"), "hostPath": "/dev/zero", "permissions": "rw"}]}})
        })
        .collect();
    let spec = serde_json::json!({"cdiVersion": "0.6.0", "kind": format!("{driver}/gpu"), "devices": devices});
    let path = cdi_file(directory, driver);
    std::fs::write(&path, spec.to_string()).expect("writable");
}

impl Driver {
    /// A driver with its sockets in `root`, which registers in `registry`; its devices are explained in the directory `cdi`
    /// until all of it is gone. Must be called inside a tokio runtime.
    pub fn start(name: &str, (root, cdi): (&Path, &Path), registry: &Path, look: Look) -> Driver {
        std::fs::create_dir_all(root).expect("writable");
        write_cdi(cdi, name);
        let state = State {
            name: name.to_owned(),
            root: root.to_owned(),
            cdi: cdi.to_owned(),
            services: vec!["v1beta1.DRAPlugin".to_owned(), "v1.DRAPlugin".to_owned()],
            look,
            calls: Mutex::default(),
            hangs: Mutex::default(),
            refuses: Mutex::default(),
            prepared: Mutex::default(),
            registered: Mutex::default(),
        };
        Driver::serve(Arc::new(state), registry)
    }

    /// Serves, or serves again, as a driver that was started anew does.
    pub fn serve(state: Arc<State>, registry: &Path) -> Driver {
        let sockets = [state.root.join("dra.sock"), registry.join(format!("{}-reg.sock", state.name))];
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

    /// How often a method was called for a claim.
    pub fn count(&self, method: &str, claim: &str) -> usize {
        let wanted = format!("{method} {claim}");
        self.state.calls.lock().expect("not poisoned").iter().filter(|call| **call == wanted).count()
    }

    /// What is prepared, by uid.
    pub fn prepared(&self) -> Vec<String> {
        self.state.prepared.lock().expect("not poisoned").iter().cloned().collect()
    }
}

impl Drop for State {
    fn drop(&mut self) {
        // The directory may be gone with all of its test.
        let _ = std::fs::remove_file(cdi_file(&self.cdi, &self.name));
    }
}

impl State {
    fn do_it(&self, path: &str, message: &[u8]) -> Result<Writer, Refusal> {
        let (service, method) = path.trim_start_matches('/').split_once('/').unwrap_or_default();
        let malformed = |error: DecodeError| (3, error.to_string());
        match method {
            "GetInfo" => {
                let endpoint = self.root.join("dra.sock").display().to_string();
                let services = self.services.iter().map(String::as_str);
                return Ok(Writer::new()
                    .text(1, "DRAPlugin")
                    .text(2, &self.name)
                    .text(3, &endpoint)
                    .texts(4, services));
            }
            "NotifyRegistrationStatus" => {
                let (is_taken, why) = status(message).map_err(malformed)?;
                let said = if is_taken { "yes".to_owned() } else { why };
                *self.registered.lock().expect("not poisoned") = Some(said);
                return Ok(Writer::new());
            }
            "NodePrepareResources" | "NodeUnprepareResources" => {}
            other => return Err((12, format!("{other} is not implemented"))),
        }
        if service != "k8s.io.kubelet.pkg.apis.dra.v1.DRAPlugin" {
            return Err((12, format!("expected the best of the services, found {service}")));
        }
        let mut answer = Writer::new();
        for (namespace, uid, name) in claims(message).map_err(malformed)? {
            self.calls.lock().expect("not poisoned").push(format!("{method} {name}"));
            let refuses = self.refuses.lock().expect("not poisoned").contains(method);
            let of_claim = match (method, refuses) {
                ("NodePrepareResources", true) => Writer::new().text(2, "it was told to refuse"),
                (_, true) => Writer::new().text(1, "it was told to refuse"),
                ("NodePrepareResources", false) => {
                    self.prepared.lock().expect("not poisoned").insert(uid.clone());
                    (self.look)(&namespace, &name).iter().fold(Writer::new(), |all, [request, pool, device]| {
                        let cdi = format!("{}/gpu={device}", self.name);
                        let one = Writer::new().texts(1, [request.as_str()]).text(2, pool).text(3, device);
                        all.message(1, &one.texts(4, [cdi.as_str()]))
                    })
                }
                (_, false) => {
                    self.prepared.lock().expect("not poisoned").remove(&uid);
                    Writer::new()
                }
            };
            answer = answer.message(1, &Writer::new().text(1, &uid).message(2, &of_claim));
        }
        Ok(answer)
    }
}

/// Namespace, uid and name of each claim of a request.
fn claims(message: &[u8]) -> Result<Vec<(String, String, String)>, DecodeError> {
    let (mut reader, mut out) = (Reader::new(message), Vec::new());
    while let Some((_, wire)) = reader.field()? {
        let (mut fields, mut texts) = (wire.message()?, BTreeMap::new());
        while let Some((tag, wire)) = fields.field()? {
            texts.insert(tag, wire.text()?);
        }
        let mut text = |tag: u32| texts.remove(&tag).unwrap_or_default();
        out.push((text(1), text(2), text(3)));
    }
    Ok(out)
}

/// Whether the node has taken it, and why not.
fn status(message: &[u8]) -> Result<(bool, String), DecodeError> {
    let (mut reader, mut out) = (Reader::new(message), (false, String::new()));
    while let Some((tag, wire)) = reader.field()? {
        match tag {
            1 => out.0 = wire.flag()?,
            2 => out.1 = wire.text()?,
            _ => {}
        }
    }
    Ok(out)
}

type Frames = StreamBody<stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, Infallible>>>>;

async fn answer(
    state: Arc<State>,
    request: http::Request<hyper::body::Incoming>,
) -> Result<http::Response<Frames>, std::io::Error> {
    let path = request.uri().path().to_owned();
    let method = path.rsplit('/').next().unwrap_or_default().to_owned();
    let asked = request.into_body().collect().await.map_err(std::io::Error::other)?.to_bytes();
    if state.hangs.lock().expect("not poisoned").contains(&method) {
        state.calls.lock().expect("not poisoned").push(format!("{method} hangs"));
        std::future::pending::<()>().await;
    }
    let doing = Arc::clone(&state);
    let done = tokio::task::spawn_blocking(move || doing.do_it(&path, asked.get(5..).unwrap_or_default()));
    let done = done.await.map_err(std::io::Error::other)?;
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
