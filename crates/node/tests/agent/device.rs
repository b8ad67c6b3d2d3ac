//! Devices of a plugin: a real server on a socket registers, lists, is asked what containers need, and comes and goes.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use windlass_api::codec::wire::{Reader, Writer};
use windlass_api::kinds;
use windlass_node::grpc::{Call, call};
use windlass_stdx::BoxError;

use crate::stage::{Cluster, NODE, condition, on_a_node, shell, status, until_so};

const RESOURCE: &str = "example.com/thing";

/// A device plugin, as vendors write them.
struct Plugin {
    devices: watch::Sender<Vec<(&'static str, bool)>>,
    /// The calls that it has had.
    calls: Arc<Mutex<Vec<String>>>,
    server: JoinHandle<()>,
}

impl Drop for Plugin {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Plugin {
    /// Serves, and registers as soon as the node listens.
    async fn start(directory: PathBuf, devices: &[(&'static str, bool)]) -> Plugin {
        let socket = directory.join("thing.sock");
        // One that is in the way is an earlier one's.
        let _ = std::fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket).expect("the node has made the directory");
        let devices = watch::Sender::new(devices.to_vec());
        let calls = Arc::new(Mutex::new(Vec::new()));
        let (list, noted) = (devices.clone(), Arc::clone(&calls));
        let server = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("a socket of ours");
                let (list, noted) = (list.subscribe(), Arc::clone(&noted));
                let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
                    let (list, noted) = (list.clone(), Arc::clone(&noted));
                    async move {
                        let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
                        let body = request.into_body().collect().await.expect("a message").to_bytes();
                        Ok::<_, std::convert::Infallible>(answer(&method, &body[5..], list, &noted))
                    }
                });
                let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                tokio::spawn(async move {
                    // The node hangs up as it likes.
                    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        let options = Writer::new().flag(1, true).flag(2, true);
        let register = Writer::new().text(1, "v1beta1").text(2, "thing.sock").text(3, RESOURCE).message(4, &options);
        let register = Call::new("/v1beta1.Registration/Register", register.finish(), Duration::from_secs(10));
        let socket = directory.join("kubelet.sock");
        until_so("the plugin is registered", || async { call(&socket, &register).await.is_ok() }).await;
        Plugin { devices, calls, server }
    }

    fn calls(&self) -> Vec<String> {
        self.calls.lock().expect("nothing panics while holding it").clone()
    }
}

fn framed(message: &[u8]) -> Frame<Bytes> {
    let mut out = BytesMut::new();
    out.put_u8(0);
    out.put_u32(u32::try_from(message.len()).expect("a short message"));
    out.put_slice(message);
    Frame::data(out.freeze())
}

fn answer(
    method: &str,
    message: &[u8],
    mut list: watch::Receiver<Vec<(&'static str, bool)>>,
    calls: &Mutex<Vec<String>>,
) -> http::Response<windlass_stdx::Body> {
    if method == "ListAndWatch" {
        list.mark_changed();
        let frames = futures::stream::unfold(list, |mut list| async move {
            list.changed().await.ok()?;
            let message = list.borrow_and_update().iter().fold(Writer::new(), |message, (id, is_healthy)| {
                let device = Writer::new().text(1, id).text(2, if *is_healthy { "Healthy" } else { "Unhealthy" });
                message.message(1, &device)
            });
            Some((Ok::<_, BoxError>(framed(&message.finish())), list))
        });
        return response(StreamBody::new(frames).boxed_unsync());
    }
    // Of a container's request the devices: field 1 of field 1; of PreStartContainer field 1.
    let texts = |message: &[u8]| {
        let (mut reader, mut texts) = (Reader::new(message), Vec::new());
        while let Some((tag, wire)) = reader.field().expect("well formed") {
            if tag == 1 {
                texts.push(wire.bytes().expect("text or a message").to_vec());
            }
        }
        texts
    };
    let inner = if method == "PreStartContainer" { texts(message) } else { texts(&texts(message)[0]) };
    let ids: Vec<String> = inner.iter().map(|id| String::from_utf8_lossy(id).into_owned()).collect();
    calls.lock().expect("nothing panics while holding it").push(format!("{method} {}", ids.join(",")));
    let message = match method {
        // The last of those that are free.
        "GetPreferredAllocation" => {
            let one = Writer::new().texts(1, ids.last().map(String::as_str));
            Writer::new().message(1, &one)
        }
        "Allocate" => {
            let env = [("THINGS".to_owned(), ids.join(","))];
            let mount = Writer::new().text(1, "/given/system").text(2, "/proc/sys/kernel/ostype").flag(3, true);
            let node = Writer::new().text(1, "/dev/given").text(2, "/dev/zero").text(3, "rw");
            let one = Writer::new().pairs(1, env.iter().map(|(name, value)| (name, value))).message(2, &mount);
            let cdi = Writer::new().text(1, "example.com/thing=all");
            Writer::new().message(1, &one.message(3, &node).message(5, &cdi))
        }
        _ => Writer::new(),
    };
    let mut trailers = http::HeaderMap::new();
    trailers.insert("grpc-status", http::HeaderValue::from(0));
    let frames = [Ok::<_, BoxError>(framed(&message.finish())), Ok(Frame::trailers(trailers))];
    response(StreamBody::new(futures::stream::iter(frames)).boxed_unsync())
}

fn response(body: windlass_stdx::Body) -> http::Response<windlass_stdx::Body> {
    let mut response = http::Response::new(body);
    response.headers_mut().insert("content-type", http::HeaderValue::from_static("application/grpc"));
    response
}

const SAYS: &str = "trap 'exit 0' TERM; echo things=$THINGS cdi=$FROM_CDI system=$(cat /given/system) \
    read=$(head -c 3 /dev/given | wc -c); while true; do sleep 0.1; done";

fn pod(count: u32) -> Value {
    let mut container = shell("a", SAYS);
    container["resources"] = json!({"limits": {RESOURCE: count.to_string()}});
    json!({"terminationGracePeriodSeconds": 1, "containers": [container]})
}

/// Waits until the Node tells of so many devices, and of so many that can be used.
async fn node_has(cluster: &Cluster, all: &str, healthy: &str) {
    until_so(&format!("the node has {all} devices and {healthy} of them are healthy"), || async {
        let node = cluster.client.get(&kinds::NODE, "", NODE).await.expect("an answer").expect("a node").value();
        node["status"]["capacity"][RESOURCE] == all && node["status"]["allocatable"][RESOURCE] == healthy
    })
    .await;
}

fn write_cdi(directory: &Path) {
    std::fs::create_dir_all(directory).expect("the test's own directory");
    let spec = json!({"cdiVersion": "0.6.0", "kind": "example.com/thing",
        "devices": [{"name": "all", "containerEdits": {"env": ["FROM_CDI=yes"]}}]});
    std::fs::write(directory.join("thing.json"), spec.to_string()).expect("the test's own directory");
}

#[test]
fn devices_of_a_plugin_are_given_kept_and_taken_back() {
    on_a_node(|cluster| async move {
        let mut cluster = cluster.lock().await;
        write_cdi(&cluster.dir.join("cdi"));
        let directory = cluster.dir.join("kubelet/device-plugins");
        let plugin = Plugin::start(directory.clone(), &[("d0", true), ("d1", true), ("d2", false)]).await;
        node_has(&cluster, "3", "2").await;
        cluster.pod("one", pod(1)).await;
        let one = cluster.until("one", |pod| condition(pod, "Ready")).await;
        let said = "things=d1 cdi=yes system=Linux read=3";
        until_so("the container has used it", || async { cluster.log(&one, "a", 0).trim() == said }).await;
        assert_eq!(plugin.calls(), ["GetPreferredAllocation d0,d1", "Allocate d1", "PreStartContainer d1"]);
        let list = Call::new("/v1.PodResourcesLister/List", Vec::new(), Duration::from_secs(10));
        let listed = call(&cluster.dir.join("pod-resources/kubelet.sock"), &list).await.expect("an answer");
        let devices = Writer::new().text(1, RESOURCE).text(2, "d1");
        let container = Writer::new().text(1, "a").message(2, &devices);
        let one_pod = Writer::new().text(1, "one").text(2, "default").message(3, &container);
        assert_eq!(listed, Writer::new().message(1, &one_pod).finish());
        cluster.pod("two", pod(2)).await;
        let two = cluster.until("two", |pod| pod["status"]["phase"] == "Failed").await;
        assert_eq!(two["status"]["reason"], "UnexpectedAdmissionError");
        let message = two["status"]["message"].as_str().expect("a message");
        assert!(message.contains("Requested: 2, Available: 1"), "{message}");
        cluster.delete("two").await;
        // The agent and its plugins start again; who has a device keeps it.
        cluster.stop_agent().await;
        drop(plugin);
        cluster.start_agent().await;
        node_has(&cluster, "0", "0").await;
        let plugin = Plugin::start(directory.clone(), &[("d0", true), ("d1", true)]).await;
        node_has(&cluster, "2", "2").await;
        cluster.pod("late", pod(1)).await;
        let late = cluster.until("late", |pod| condition(pod, "Ready")).await;
        until_so("it has the other", || async { cluster.log(&late, "a", 0).contains("things=d0 ") }).await;
        let after = cluster.until("one", |pod| condition(pod, "Ready")).await;
        assert_eq!(status(&after)["restartCount"], 0);
        // What is sick is not given away any more, nor anything of a plugin that is gone.
        plugin.devices.send_replace(vec![("d0", true), ("d1", false)]);
        node_has(&cluster, "2", "1").await;
        cluster.delete("one").await;
        cluster.pod("more", pod(1)).await;
        let more = cluster.until("more", |pod| pod["status"]["phase"] == "Failed").await;
        assert!(more["status"]["message"].as_str().expect("a message").contains("Available: 0"), "{more:#}");
        drop(plugin);
        node_has(&cluster, "2", "0").await;
        for name in ["more", "late"] {
            cluster.delete(name).await;
        }
    });
}
