//! The peer etcd, by its own protocol: unary gRPC calls over HTTP/2, a connection a client, no TLS.
//!
//! etcd is what kube-apiserver writes to, and kube-apiserver is in no package registry that this machine reaches: what
//! etcd costs a request is the least that the whole peer can cost.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

const ADDRESS: &str = "127.0.0.1:12379";

/// A running etcd with a directory of its own.
pub struct Etcd {
    directory: PathBuf,
    server: Child,
}

impl Etcd {
    /// Starts a server of one member.
    pub fn start() -> Result<Etcd> {
        let directory = std::env::temp_dir().join(format!("windlass-bench-etcd-{}", std::process::id()));
        fs::create_dir_all(&directory)?;
        let (clients, peers) = (format!("http://{ADDRESS}"), "http://127.0.0.1:12380");
        let server = Command::new("/usr/bin/etcd")
            .arg("--data-dir")
            .arg(directory.join("data"))
            .args(["--listen-client-urls", &clients, "--advertise-client-urls", &clients])
            .args(["--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers])
            .args(["--initial-cluster", &format!("default={peers}"), "--log-level", "error"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("could not start etcd")?;
        Ok(Etcd { directory, server })
    }

    /// The server's process.
    pub fn pid(&self) -> u32 {
        self.server.id()
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.server.kill().ok();
        self.server.wait().ok();
        fs::remove_dir_all(&self.directory).ok();
    }
}

/// One client: one connection.
pub struct Client(SendRequest<Full<Bytes>>);

impl Client {
    /// Connects as soon as the server answers.
    pub async fn connect() -> Result<Client> {
        let started = Instant::now();
        let stream = loop {
            match TcpStream::connect(ADDRESS).await {
                Ok(stream) => break stream,
                Err(error) if started.elapsed() > Duration::from_secs(30) => bail!("etcd does not answer: {error}"),
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        };
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Client(sender))
    }

    /// `KV.Put`.
    pub async fn put(&mut self, key: &str, value: &[u8]) -> Result<()> {
        self.call("Put", &[(1, key.as_bytes()), (2, value)]).await
    }

    /// `KV.Range` of one key.
    pub async fn get(&mut self, key: &str) -> Result<()> {
        self.call("Range", &[(1, key.as_bytes())]).await
    }

    /// `KV.DeleteRange` of one key.
    pub async fn delete(&mut self, key: &str) -> Result<()> {
        self.call("DeleteRange", &[(1, key.as_bytes())]).await
    }

    /// A unary call whose message holds only byte fields.
    async fn call(&mut self, method: &str, fields: &[(u8, &[u8])]) -> Result<()> {
        let mut message = BytesMut::new();
        for (tag, bytes) in fields {
            message.put_u8(tag << 3 | 2);
            let mut length = bytes.len();
            while length >= 0x80 {
                message.put_u8(length as u8 | 0x80);
                length >>= 7;
            }
            message.put_u8(length as u8);
            message.put_slice(bytes);
        }
        let mut body = BytesMut::with_capacity(message.len() + 5);
        body.put_u8(0);
        body.put_u32(u32::try_from(message.len())?);
        body.put_slice(&message);
        let request = http::Request::post(format!("http://{ADDRESS}/etcdserverpb.KV/{method}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Full::new(body.freeze()))?;
        let response = self.0.send_request(request).await?;
        let answered = response.into_body().collect().await?;
        let status = answered.trailers().and_then(|trailers| trailers.get("grpc-status"));
        ensure!(status.is_some_and(|status| status == "0"), "etcd answered {method} with status {status:?}");
        Ok(())
    }
}
