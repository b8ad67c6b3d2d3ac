//! Giving images to a runtime that keeps its own: a registry on this machine's loopback, of what this node has.
//!
//! So images are the node's, whoever runs them: fetched by its rules with the pod's credentials, imported, shared with
//! peers. The runtime has a copy, by the same id.
//!
//! Rules
//!   G1 asked for  only who has the password of this process gets anything, and only who is told has it: the runtime, for one
//!                 pull at a time
//!   G2 by digest  what is given is named by its digest, which the runtime checks
//!   G3 bounded    so many connections at a time; a layer waits until one more can be read
//! Source: OCI distribution specification 1.1, "Pulling manifests", "Pulling blobs".

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use http::{HeaderValue, Method, Response, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::{OnceCell, Semaphore};
use windlass_runtime::image::{Given, Images, LayerArchive, MANIFEST_TYPE};
use windlass_stdx::{Body, World, body_empty, body_from};

use super::super::{failed, of_image, off_the_runtime, refused};
use super::calls::{Client, ListedImage};
use crate::machine::MachineError;
use crate::server::layer_body;

/// Connections at a time: a few pulls, each of a few layers.
const CONNECTIONS_MAX: usize = 64;
/// How long the head of a request may take.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a layer waits for its turn, and how often it looks.
const TURN_TIME_MAX: Duration = Duration::from_secs(300);
const TURN_STEP: Duration = Duration::from_millis(100);
/// How long to wait after the system could not give another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// What all images are called that a runtime has from a node.
const REPOSITORY: &str = "windlass-given";
/// Who asks.
const USER: &str = "windlass";

/// The registry; it begins with the first image that is given.
pub struct Giver {
    images: Images,
    world: World,
    open: OnceCell<Open>,
}

struct Open {
    port: u16,
    password: String,
    offered: Arc<Offered>,
    task: tokio::task::AbortHandle,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What may be asked for now, by image id: how many pulls of it are under way.
#[derive(Default)]
struct Offered(Mutex<BTreeMap<String, (Arc<Given>, usize)>>);

/// An image is offered as long as this lives.
struct Offer<'a> {
    offered: &'a Offered,
    id: String,
}

impl Offered {
    fn offer(&self, id: &str, given: Given) -> Offer<'_> {
        let mut all = self.0.lock().expect("nothing panics while holding it");
        all.entry(id.to_owned()).or_insert_with(|| (Arc::new(given), 0)).1 += 1;
        Offer { offered: self, id: id.to_owned() }
    }

    fn find<T>(&self, pick: impl Fn(&Arc<Given>) -> Option<T>) -> Option<T> {
        self.0.lock().expect("nothing panics while holding it").values().find_map(|(given, _)| pick(given))
    }
}

impl Drop for Offer<'_> {
    fn drop(&mut self) {
        let mut all = self.offered.0.lock().expect("nothing panics while holding it");
        if let Some((_, pulls)) = all.get_mut(&self.id) {
            *pulls -= 1;
            if *pulls == 0 {
                all.remove(&self.id);
            }
        }
    }
}

impl Giver {
    pub fn new(images: Images, world: World) -> Giver {
        Giver { images, world, open: OnceCell::new() }
    }

    /// Sees to it that the runtime has the image of this id.
    pub async fn give(&self, client: &Client, id: &str) -> Result<(), MachineError> {
        if client.has_image(id).await? {
            return Ok(());
        }
        let (images, wanted) = (self.images.clone(), id.to_owned());
        let given = off_the_runtime(move || images.give(&wanted).map_err(|error| of_image(&error))).await?;
        let given = given.ok_or_else(|| MachineError::NotFound { what: "image", id: id.to_owned() })?;
        let open = self.open.get_or_try_init(|| self.open()).await?;
        let name = format!("127.0.0.1:{}/{REPOSITORY}@{}", open.port, given.digest);
        let offer = open.offered.offer(id, given);
        let pulled = client.pull(&name, (USER, &open.password)).await;
        drop(offer);
        let pulled = pulled?;
        if pulled != id {
            let why = format!("expected the runtime to have it as {id}, found {pulled}");
            return Err(refused("give an image to the runtime", why));
        }
        Ok(())
    }

    async fn open(&self) -> Result<Open, MachineError> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.map_err(|error| failed("give images to a runtime", &error))?;
        let port = listener.local_addr().map_err(|error| failed("give images to a runtime", &error))?.port();
        let mut secret = [0; 32];
        self.world.fill_random(&mut secret);
        let password = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(secret);
        let offered = Arc::new(Offered::default());
        let expected = base64::engine::general_purpose::STANDARD.encode(format!("{USER}:{password}"));
        let desk = Arc::new(Desk {
            images: self.images.clone(),
            offered: Arc::clone(&offered),
            expected: format!("Basic {expected}"),
        });
        let task = tokio::spawn(serve(listener, desk)).abort_handle();
        Ok(Open { port, password, offered, task })
    }
}

/// Whether the runtime has this image from a node, and by no other name.
pub fn is_given(image: &ListedImage) -> bool {
    let is_ours = |name: &String| {
        let place = name.split(['@']).next().unwrap_or_default();
        place.starts_with("127.0.0.1:") && place.ends_with(&format!("/{REPOSITORY}"))
    };
    !image.names.is_empty() && image.names.iter().all(is_ours)
}

struct Desk {
    images: Images,
    offered: Arc<Offered>,
    expected: String,
}

async fn serve(listener: TcpListener, desk: Arc<Desk>) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let slot = Arc::clone(&slots).acquire_owned().await.expect("the semaphore is never closed");
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a runtime that wants an image could not be heard");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let desk = Arc::clone(&desk);
        tokio::spawn(async move {
            let answer = service_fn(move |request| {
                let desk = Arc::clone(&desk);
                async move { Ok::<_, Infallible>(desk.answer(request).await) }
            });
            let served = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .serve_connection(TokioIo::new(stream), answer);
            if let Err(error) = served.await {
                tracing::debug!(%error, "a connection of a runtime that wants an image ended");
            }
            drop(slot);
        });
    }
}

impl Desk {
    async fn answer(&self, request: hyper::Request<Incoming>) -> Response<Body> {
        let told = request.headers().get(http::header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        // G1. The time that a comparison takes tells nothing that helps against 256 bits of chance.
        if told != Some(self.expected.as_str()) {
            let mut refusal = status(StatusCode::UNAUTHORIZED);
            let challenge = HeaderValue::from_static("Basic realm=\"windlass\"");
            refusal.headers_mut().insert(http::header::WWW_AUTHENTICATE, challenge);
            return refusal;
        }
        let path = request.uri().path().trim_start_matches('/').to_owned();
        let parts: Vec<&str> = path.split('/').collect();
        let with_body = match *request.method() {
            Method::GET => true,
            Method::HEAD => false,
            _ => return status(StatusCode::METHOD_NOT_ALLOWED),
        };
        match parts.as_slice() {
            ["v2"] | ["v2", ""] => status(StatusCode::OK),
            ["v2", REPOSITORY, "manifests", digest] => {
                match self.offered.find(|given| (given.digest == *digest).then(|| given.manifest.clone())) {
                    Some(manifest) => document(MANIFEST_TYPE, digest, manifest, with_body),
                    None => status(StatusCode::NOT_FOUND),
                }
            }
            ["v2", REPOSITORY, "blobs", digest] => self.blob(digest, with_body).await,
            _ => status(StatusCode::NOT_FOUND),
        }
    }

    /// G2.
    async fn blob(&self, digest: &str, with_body: bool) -> Response<Body> {
        let all = self.offered.0.lock().expect("nothing panics while holding it").clone();
        if let Some((given, _)) = all.get(digest) {
            return document("application/octet-stream", digest, given.config.clone(), with_body);
        }
        let is_layer = |given: &Arc<Given>| given.layers.iter().find(|(layer, _)| layer == digest).map(|layer| layer.1);
        let Some(size) = all.values().find_map(|(given, _)| is_layer(given)) else {
            return status(StatusCode::NOT_FOUND);
        };
        let body = match with_body {
            false => body_empty(),
            true => match self.layer(digest).await {
                Ok(archive) => layer_body(archive),
                Err(why) => {
                    tracing::warn!(digest, why, "a layer could not be given to a runtime");
                    return status(StatusCode::SERVICE_UNAVAILABLE);
                }
            },
        };
        with_length(body, "application/octet-stream", (digest, size))
    }

    /// G3.
    async fn layer(&self, digest: &str) -> Result<LayerArchive, String> {
        let look = async {
            loop {
                let (images, wanted) = (self.images.clone(), digest.to_owned());
                let opened = tokio::task::spawn_blocking(move || images.layer_archive(&wanted)).await;
                match opened.map_err(|error| error.to_string())?.map_err(|error| error.to_string())? {
                    Some(Some(archive)) => return Ok(archive),
                    Some(None) => tokio::time::sleep(TURN_STEP).await,
                    None => return Err("it is not here any more".to_owned()),
                }
            }
        };
        tokio::time::timeout(TURN_TIME_MAX, look).await.unwrap_or_else(|_| Err("too many layers are read".to_owned()))
    }
}

fn status(code: StatusCode) -> Response<Body> {
    let mut response = Response::new(body_empty());
    *response.status_mut() = code;
    response
}

fn document(content_type: &'static str, digest: &str, bytes: Vec<u8>, with_body: bool) -> Response<Body> {
    let size = bytes.len() as u64;
    let body = if with_body { body_from(bytes) } else { body_empty() };
    with_length(body, content_type, (digest, size))
}

fn with_length(body: Body, content_type: &'static str, (digest, size): (&str, u64)) -> Response<Body> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(http::header::CONTENT_LENGTH, size.into());
    if let Ok(digest) = HeaderValue::from_str(digest) {
        headers.insert("docker-content-digest", digest);
    }
    response
}
