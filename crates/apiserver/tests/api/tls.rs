//! Over TLS on loopback: identities from certificates, joining, and streams to a node's agent.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use windlass_apiserver::{Config, Credential, Identity, Pki};
use windlass_stdx::World;

use crate::{Api, PATIENCE, PODS, bind, pod};

const SERVICE_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 43, 0, 1));

/// A server that listens, and what its clients need.
pub struct Served {
    pub api: Api,
    pub pki: Arc<Pki>,
    pub address: SocketAddr,
    /// Ends when the server has closed.
    pub serving: tokio::task::JoinHandle<()>,
}

pub async fn serve() -> Served {
    serve_with(|_| {}).await
}

pub async fn serve_with(adjust: impl FnOnce(&mut Config)) -> Served {
    let mut pki = None;
    let api = Api::start_with(|config: &mut Config, dir: &Path| {
        let made = Arc::new(Pki::open(&dir.join("pki"), &World::real()).expect("a new CA"));
        config.pki = Some(made.clone());
        config.node_link = Some(made.node_link().expect("a certificate for the way to nodes"));
        pki = Some(made);
        adjust(config);
    })
    .await;
    let pki = pki.expect("set above");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let tls = pki.server_tls(SERVICE_ADDRESS, &["example.test".to_owned()]).expect("a serving certificate");
    let apiserver = api.apiserver.clone();
    let serving = tokio::spawn(async move { apiserver.serve(listener, tls).await });
    Served { api, pki, address, serving }
}

pub fn client_tls(ca_pem: &str, credential: Option<&Credential>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca_pem.as_bytes()).expect("PEM")).expect("a certificate");
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring has the default versions")
        .with_root_certificates(roots);
    match credential {
        None => builder.with_no_client_auth(),
        Some(credential) => {
            let (chain, key) = credential.to_tls().expect("PEM");
            builder.with_client_auth_cert(chain, key).expect("the key belongs to the certificate")
        }
    }
}

async fn connect(
    address: SocketAddr,
    tls: ClientConfig,
    name: &'static str,
) -> Result<SendRequest<Full<bytes::Bytes>>, String> {
    let tcp = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    let connector = tokio_rustls::TlsConnector::from(Arc::new(tls));
    let name = ServerName::try_from(name).expect("a DNS name");
    let stream = connector.connect(name, tcp).await.map_err(|error| error.to_string())?;
    let (sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            eprintln!("the connection ended: {error}");
        }
    });
    Ok(sender)
}

async fn request(sender: &mut SendRequest<Full<bytes::Bytes>>, method: &str, path: &str, body: String) -> (u16, Value) {
    let request = Request::builder().method(method).uri(path).header("host", "localhost");
    let request = request.header("content-type", "application/json").body(Full::from(body)).expect("a request");
    let response = tokio::time::timeout(PATIENCE, sender.send_request(request)).await.expect("in time");
    let response = response.expect("an answer");
    let code = response.status().as_u16();
    let bytes = response.into_body().collect().await.expect("a body").to_bytes();
    (code, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
}

#[tokio::test]
async fn a_certificate_of_the_cluster_ca_is_who_it_names() {
    let served = serve().await;
    let ca = served.pki.ca_pem();
    let admin = served.pki.issue_client("kubernetes-admin", "system:masters").expect("a certificate");
    let mut sender = connect(served.address, client_tls(ca, Some(&admin)), "localhost").await.expect("a connection");
    assert_eq!(request(&mut sender, "GET", "/api/v1/namespaces", String::new()).await.0, 200);
    let node = served.pki.issue_node("n1", &[]).expect("a certificate");
    let mut sender =
        connect(served.address, client_tls(ca, Some(&node)), "kubernetes.default.svc").await.expect("a connection");
    let (code, status) = request(&mut sender, "GET", "/apis/apps/v1/deployments", String::new()).await;
    assert_eq!(code, 403);
    assert!(status["message"].as_str().expect("a message").contains("User \"system:node:n1\" cannot list"), "{status}");
    let mut sender = connect(served.address, client_tls(ca, None), "example.test").await.expect("a connection");
    let (code, status) = request(&mut sender, "GET", "/api/v1/namespaces", String::new()).await;
    assert_eq!(code, 403);
    assert!(status["message"].as_str().expect("a message").contains("system:anonymous"), "{status}");
}

#[tokio::test]
async fn a29_certificates_that_prove_nothing_are_refused() {
    let served = serve().await;
    let ca = served.pki.ca_pem();
    let other = Pki::open(&served.api.dir.join("other"), &World::real()).expect("another CA");
    let foreign = other.issue_client("kubernetes-admin", "system:masters").expect("a certificate");
    let serving = served.pki.issue_serving("kubernetes-admin", &["localhost".to_owned()]).expect("a certificate");
    let issued_in = |year: &str| {
        let world = World::seeded(1, format!("{year}-01-01T00:00:00Z").parse().expect("a time"));
        let pki = Pki::open(&served.api.dir.join("pki"), &world).expect("the same CA, at another time");
        pki.issue_client("kubernetes-admin", "system:masters").expect("a certificate")
    };
    for (what, credential) in [
        ("of a foreign CA", foreign),
        ("for servers", serving),
        ("that has expired", issued_in("2020")),
        ("that is not valid yet", issued_in("2999")),
    ] {
        // With TLS 1.3 the client learns of its refusal when it reads first.
        let outcome = match connect(served.address, client_tls(ca, Some(&credential)), "localhost").await {
            Err(error) => Err(error),
            Ok(mut sender) => {
                let request =
                    Request::get("/version").header("host", "localhost").body(Full::default()).expect("a request");
                sender.send_request(request).await.map(|_| ()).map_err(|error| error.to_string())
            }
        };
        assert!(outcome.is_err(), "a certificate {what} was taken");
    }
    let mistrusted = connect(served.address, client_tls(other.ca_pem(), None), "localhost").await;
    assert!(mistrusted.is_err(), "the server proved itself to another CA's client");
}

#[tokio::test]
async fn a_machine_with_the_token_joins_once_and_one_without_never() {
    let served = serve().await;
    let mut sender =
        connect(served.address, client_tls(served.pki.ca_pem(), None), "localhost").await.expect("a connection");
    let key = rcgen::KeyPair::generate().expect("a key");
    let csr = rcgen::CertificateParams::default().serialize_request(&key).expect("a request").pem().expect("PEM");
    let join =
        |token: &str, node: &str| json!({"token": token, "nodeName": node, "csr": csr, "addresses": ["127.0.0.1"]});
    let token = served.pki.join_token();
    assert!(token.starts_with(&format!("WL1.{}.", served.pki.fingerprint())));
    let path = "/windlass/v1/join";
    let (code, answer) = request(&mut sender, "POST", path, join(&token, "n1").to_string()).await;
    assert_eq!((code, answer["ca"].as_str()), (200, Some(served.pki.ca_pem())), "{answer}");
    let credential = Credential {
        cert_pem: answer["certificate"].as_str().expect("a certificate").to_owned(),
        key_pem: key.serialize_pem(),
    };
    let tls = client_tls(served.pki.ca_pem(), Some(&credential));
    let mut joined = connect(served.address, tls, "localhost").await.expect("a connection");
    let node = json!({"metadata": {"name": "n1"}}).to_string();
    assert_eq!(request(&mut joined, "POST", "/api/v1/nodes", node).await.0, 201);
    let (code, status) = request(&mut sender, "POST", path, join(&token, "n1").to_string()).await;
    assert_eq!(code, 409, "{status}");
    assert_eq!(request(&mut joined, "POST", path, join(&token, "n1").to_string()).await.0, 200, "its owner may renew");
    for name in ["../x", "", "UPPER", "localhost", "kubernetes", "a/b", "system:masters"] {
        let (code, status) = request(&mut sender, "POST", path, join(&token, name).to_string()).await;
        assert_eq!(code, 400, "{name}: {status}");
    }
    let mut codes = Vec::new();
    for _ in 0..30 {
        codes.push(request(&mut sender, "POST", path, join("WL1.0.0", "n2").to_string()).await.0);
    }
    assert_eq!((codes[0], codes[29]), (401, 429), "{codes:?}");
}

#[tokio::test]
async fn r5_idle_connections_do_not_keep_a_server_that_closes() {
    let served = serve().await;
    let admin = served.pki.issue_client("kubernetes-admin", "system:masters").expect("a certificate");
    let tls = || client_tls(served.pki.ca_pem(), Some(&admin));
    // One that has asked nothing, one that has been answered, one that speaks HTTP/2, and one that only knocks.
    let _silent = connect(served.address, tls(), "localhost").await.expect("a connection");
    let mut answered = connect(served.address, tls(), "localhost").await.expect("a connection");
    assert_eq!(request(&mut answered, "GET", "/version", String::new()).await.0, 200);
    let mut second = tls();
    second.alpn_protocols = vec![b"h2".to_vec()];
    let tcp = TcpStream::connect(served.address).await.expect("a connection");
    let connector = tokio_rustls::TlsConnector::from(Arc::new(second));
    let name = ServerName::try_from("localhost").expect("a DNS name");
    let mut stream = connector.connect(name, tcp).await.expect("a connection");
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.expect("the server reads");
    let _knocking = TcpStream::connect(served.address).await.expect("a connection");
    let mut watching = connect(served.address, tls(), "localhost").await.expect("a connection");
    let watch = Request::get("/api/v1/namespaces?watch=true").header("host", "localhost").body(Full::default());
    let watch = watching.send_request(watch.expect("a request")).await.expect("an answer");
    let started = tokio::time::Instant::now();
    served.api.apiserver.close();
    served.serving.await.expect("the listener ends");
    let took = started.elapsed();
    assert!(took < Duration::from_secs(2), "it took {took:?}");
    drop(watch);
}

#[tokio::test]
async fn a16_a_client_that_does_not_read_is_cut() {
    let served = serve_with(|config| config.stall_time_max = Duration::from_millis(500)).await;
    let data = "x".repeat(900_000);
    for index in 0..24 {
        let name = format!("large-{index}");
        served.api.make(crate::CONFIG_MAPS, &json!({"metadata": {"name": name}, "data": {"k": data}})).await;
    }
    let admin = served.pki.issue_client("kubernetes-admin", "system:masters").expect("a certificate");
    let mut tls = client_tls(served.pki.ca_pem(), Some(&admin));
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(64 * 1024).expect("a small buffer");
    let tcp = socket.connect(served.address).await.expect("a connection");
    let name = ServerName::try_from("localhost").expect("a DNS name");
    let mut stream = tokio_rustls::TlsConnector::from(Arc::new(tls)).connect(name, tcp).await.expect("a connection");
    stream
        .write_all(format!("GET {} HTTP/1.1\r\nhost: localhost\r\n\r\n", crate::CONFIG_MAPS).as_bytes())
        .await
        .expect("the server reads");
    // Another client is served meanwhile, and when the server has cut the first nothing of it is under way.
    let mut other = connect(served.address, client_tls(served.pki.ca_pem(), Some(&admin)), "localhost")
        .await
        .expect("a connection");
    assert_eq!(request(&mut other, "GET", "/version", String::new()).await.0, 200);
    let started = tokio::time::Instant::now();
    while started.elapsed() < Duration::from_secs(2) {
        assert_eq!(request(&mut other, "GET", "/version", String::new()).await.0, 200);
    }
    let mut received = 0;
    let mut buffer = vec![0; 1 << 20];
    let ended = tokio::time::timeout(PATIENCE, async {
        while let Ok(count @ 1..) = stream.read(&mut buffer).await {
            received += count;
        }
    });
    ended.await.expect("the connection was cut");
    assert!(received < 20_000_000, "it was sent all {received} bytes");
}

/// A node agent that tells what it was asked, and echoes upgraded connections.
async fn agent(pki: &Pki, node: &str) -> SocketAddr {
    let credential = pki.issue_node(node, &[]).expect("a certificate");
    let (chain, key) = credential.to_tls().expect("PEM");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(pki.ca_pem().as_bytes()).expect("PEM")).expect("a certificate");
    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let tls = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has the default versions")
        .with_client_cert_verifier(verifier.build().expect("a CA"))
        .with_single_cert(chain, key)
        .expect("the key belongs to the certificate");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(tcp).await else { return };
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service_fn(agent_answers))
                    .with_upgrades();
                if let Err(error) = connection.await {
                    eprintln!("the agent's connection ended: {error}");
                }
            });
        }
    });
    address
}

async fn agent_answers(
    mut request: Request<hyper::body::Incoming>,
) -> Result<http::Response<Full<bytes::Bytes>>, std::convert::Infallible> {
    if !request.headers().contains_key("upgrade") {
        return Ok(http::Response::new(Full::from(request.uri().to_string())));
    }
    let path = request.uri().to_string();
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let mut stream = TokioIo::new(upgrade.await.expect("an upgraded connection"));
        stream.write_all(format!("{path}\n").as_bytes()).await.expect("the client reads");
        let mut buffer = [0; 5];
        stream.read_exact(&mut buffer).await.expect("the client writes");
        stream.write_all(&buffer).await.expect("the client reads");
        stream.shutdown().await.expect("the end is told");
    });
    let mut response = http::Response::new(Full::default());
    *response.status_mut() = http::StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert("connection", "Upgrade".parse().expect("a value"));
    response.headers_mut().insert("upgrade", "websocket".parse().expect("a value"));
    response.headers_mut().insert("sec-websocket-protocol", "v5.channel.k8s.io".parse().expect("a value"));
    Ok(response)
}

async fn with_agent() -> Served {
    let served = serve().await;
    let address = agent(&served.pki, "n1").await;
    let node = json!({"metadata": {"name": "n1"}});
    served.api.make("/api/v1/nodes", &node).await;
    let status = json!({"status": {
        "addresses": [{"type": "Hostname", "address": "n1"}, {"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": address.port()}},
    }});
    assert_eq!(served.api.merge("/api/v1/nodes/n1/status", &status).await.said(), "200");
    served.api.make(PODS, &pod("p")).await;
    served
}

#[tokio::test]
async fn logs_come_from_the_node_of_the_pod() {
    let served = with_agent().await;
    let api = &served.api;
    assert_eq!(api.get(&format!("{PODS}/p/log")).await.text(), "", "a pod without a node has said nothing");
    bind(api, "p", "n1").await;
    let reply = api.get(&format!("{PODS}/p/log?follow=true&tailLines=3&nonsense=1")).await;
    assert_eq!(
        (reply.code.as_u16(), reply.text().as_str()),
        (200, "/containerLogs/default/p/main?follow=true&tailLines=3")
    );
    let reply = api.get(&format!("{PODS}/p/log?container=none")).await;
    assert_eq!(reply.said(), "400 BadRequest: container none is not valid for pod p");
    assert_eq!(api.get(&format!("{PODS}/p/log?tailLines=-1")).await.code, 400);
    assert_eq!(api.get(&format!("{PODS}/none/log")).await.code, 404);
    let mut two = pod("two");
    two["spec"]["containers"].as_array_mut().expect("containers").push(json!({"name": "side", "image": "i"}));
    api.make(PODS, &two).await;
    bind(api, "two", "n1").await;
    let reply = api.get(&format!("{PODS}/two/log")).await;
    assert_eq!(
        reply.said(),
        "400 BadRequest: a container name must be specified for pod two, choose one of: [main side]"
    );
}

#[tokio::test]
async fn upgraded_streams_are_carried_byte_for_byte() {
    let served = with_agent().await;
    bind(&served.api, "p", "n1").await;
    let admin = served.pki.issue_client("kubernetes-admin", "system:masters").expect("a certificate");
    let tls = client_tls(served.pki.ca_pem(), Some(&admin));
    let mut sender = connect(served.address, tls, "localhost").await.expect("a connection");
    let path = format!("{PODS}/p/exec?command=sh&command=-c&command=echo%20%26%3D&stdout=true&tty=false");
    let request = Request::get(path)
        .header("host", "localhost")
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-protocol", "v5.channel.k8s.io")
        .body(Full::default())
        .expect("a request");
    let response =
        tokio::time::timeout(PATIENCE, sender.send_request(request)).await.expect("in time").expect("an answer");
    assert_eq!(response.status(), 101);
    assert_eq!(response.headers()["sec-websocket-protocol"], "v5.channel.k8s.io");
    let mut stream = TokioIo::new(hyper::upgrade::on(response).await.expect("an upgraded connection"));
    stream.write_all(b"hello").await.expect("the agent reads");
    let mut all = String::new();
    tokio::time::timeout(PATIENCE, stream.read_to_string(&mut all)).await.expect("in time").expect("text");
    assert_eq!(all, "/exec/default/p/main?command=sh&command=-c&command=echo%20%26%3D&output=1\nhello");
}

#[tokio::test]
async fn an_agent_that_is_not_its_node_or_not_there_is_said_so() {
    let served = with_agent().await;
    let api = &served.api;
    bind(api, "p", "n1").await;
    assert_eq!(api.get(&format!("{PODS}/p/exec?command=sh")).await.code, 400, "without an upgrade");
    // The address of another node's agent: its certificate names another node.
    let other = agent(&served.pki, "n2").await;
    for (address, port) in
        [("127.0.0.1", other.port()), ("127.0.0.1", 1), ("0.0.0.0", other.port()), ("169.254.169.254", 80)]
    {
        let status = json!({"status": {
            "addresses": [{"type": "InternalIP", "address": address}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
        }});
        api.merge("/api/v1/nodes/n1/status", &status).await;
        let reply =
            tokio::time::timeout(Duration::from_secs(20), api.get(&format!("{PODS}/p/log"))).await.expect("in time");
        assert!(
            reply.said().starts_with("503 ServiceUnavailable: cannot reach the agent of node \"n1\""),
            "{}",
            reply.said()
        );
    }
    api.delete("/api/v1/nodes/n1").await;
    assert_eq!(api.get(&format!("{PODS}/p/log")).await.code, 503);
}

#[test]
fn the_ca_survives_a_restart_and_a_lost_key_is_said_so() {
    let dir = crate::temporary_dir();
    let world = World::real();
    let first = Pki::open(&dir, &world).expect("a new CA");
    let second = Pki::open(&dir, &world).expect("the same CA");
    assert_eq!((first.ca_pem(), first.join_token()), (second.ca_pem(), second.join_token()));
    assert!(
        first.is_join_token(&second.join_token())
            && !first.is_join_token("")
            && !first.is_join_token(&first.join_token()[1..])
    );
    for (file, mode) in [("ca.key", 0o600), ("join.secret", 0o600), ("ca.crt", 0o644)] {
        use std::os::unix::fs::PermissionsExt;
        let found = std::fs::metadata(dir.join(file)).expect("the file is there").permissions().mode() & 0o777;
        assert_eq!(found, mode, "{file}");
    }
    std::fs::remove_file(dir.join("ca.key")).expect("the key is there");
    let error = Pki::open(&dir, &world).err().expect("a CA without its key").to_string();
    assert!(error.contains("restore the key from a backup"), "{error}");
    std::fs::remove_dir_all(&dir).expect("the directory is there");
    assert_eq!(Identity::node("n1").node_name(), Some("n1"));
}
