//! A registry that means harm, or that breaks down at the worst moment.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use windlass_runtime::image::{ImageError, PullOptions};

use crate::stage::{Layer, Packing, Stage, layout, told};

/// What a fake registry answers: status, headers and body.
pub type Answer = (u16, Vec<(String, String)>, Vec<u8>);
/// The same by path.
pub type Answers = BTreeMap<String, Answer>;

/// What it is asked.
pub struct Asked {
    /// With the query.
    pub path: String,
    /// By lower-case name.
    pub headers: BTreeMap<String, String>,
}

/// A registry that answers as it was told and remembers what it was asked.
pub struct Fake {
    pub host: String,
    /// Path and authorization of each question.
    pub asked: Arc<Mutex<Vec<String>>>,
}

impl Fake {
    /// Answers from a table; where that has `/token`, everything else is only for who brings the token `t`.
    pub fn start(answers: impl FnOnce(&str) -> Answers) -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let host = listener.local_addr().expect("an address").to_string();
        let answers = answers(&host);
        let own = format!("http://{host}/token");
        Fake::on(listener, move |asked| {
            let authorized = asked.headers.get("authorization").is_some_and(|found| found == "Bearer t");
            if answers.contains_key("/token") && asked.path.starts_with("/v2/") && !authorized {
                let challenge = format!("Bearer realm=\"{own}\",service=\"s\"");
                return (401, vec![("WWW-Authenticate".to_owned(), challenge)], Vec::new());
            }
            let key = asked.path.split('?').next().unwrap_or_default();
            answers.get(key).cloned().unwrap_or_else(|| (404, Vec::new(), b"absent".to_vec()))
        })
    }

    /// Answers as the function says. A body is cut where a `Content-Length` promises more.
    pub fn on(listener: TcpListener, answer: impl Fn(&Asked) -> Answer + Send + 'static) -> Fake {
        let host = listener.local_addr().expect("an address").to_string();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let heard = asked.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                exchange(&mut stream.expect("a client"), &answer, &heard);
            }
        });
        Fake { host, asked }
    }

    /// What it was asked so far.
    pub fn heard(&self) -> Vec<String> {
        self.asked.lock().expect("unpoisoned").clone()
    }
}

/// One request. A client that leaves early is what some tests want.
fn exchange(stream: &mut TcpStream, answer: &impl Fn(&Asked) -> Answer, heard: &Mutex<Vec<String>>) {
    let mut reader = BufReader::new(stream.try_clone().expect("a stream"));
    let (mut first, mut line, mut headers) = (String::new(), String::new(), BTreeMap::new());
    if reader.read_line(&mut first).is_err() {
        return;
    }
    while reader.read_line(&mut line).is_ok_and(|length| length > 2) {
        if let Some((name, value)) = line.split_once(':') {
            headers.insert(name.to_lowercase(), value.trim().to_owned());
        }
        line.clear();
    }
    let asked = Asked { path: first.split(' ').nth(1).unwrap_or_default().to_owned(), headers };
    let authorization = asked.headers.get("authorization").map_or("", String::as_str);
    heard.lock().expect("unpoisoned").push(format!("{} {authorization}", asked.path).trim().to_owned());
    let (status, headers, body) = answer(&asked);
    let mut head = format!("HTTP/1.1 {status} x\r\nConnection: close\r\n");
    if !headers.iter().any(|(name, _)| name == "Content-Length") {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    for (name, value) in &headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let _ = stream.write_all(format!("{head}\r\n").as_bytes()).and_then(|()| stream.write_all(&body));
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let _ = reader.read(&mut [0; 1]);
}

pub fn plain(body: impl Into<Vec<u8>>) -> (u16, Vec<(String, String)>, Vec<u8>) {
    (200, Vec::new(), body.into())
}

/// The answers of an honest registry for one image `app:v1`.
pub fn honest() -> (Answers, Value) {
    let (files, manifest) = layout(&[Layer::new().file("a", "a").finish()], Packing::Gzip);
    let mut answers = Answers::new();
    for (path, bytes) in files.0 {
        if let Some(hex) = path.strip_prefix("blobs/sha256/") {
            answers.insert(format!("/v2/app/blobs/sha256:{hex}"), plain(bytes));
        }
    }
    answers.insert("/v2/app/manifests/v1".to_owned(), plain(manifest.to_string()));
    (answers, manifest)
}

pub async fn pull(fake: &Fake) -> Result<(), ImageError> {
    let stage = Stage::new();
    let result = stage.images.pull(&format!("{}/app:v1", fake.host), PullOptions::default()).await;
    if result.is_err() {
        assert_eq!(stage.content(), [""; 0], "a pull that fails leaves nothing");
    }
    result.map(|_| ())
}

pub async fn check_refused(what: &str, change: impl FnOnce(&mut Answers, &mut Value), why: &str) {
    let (mut answers, mut manifest) = honest();
    change(&mut answers, &mut manifest);
    let fake = Fake::start(|_| answers);
    let error = pull(&fake).await.expect_err(what);
    assert!(told(&error).contains(why), "{what}: expected {why:?}, found {:?}", told(&error));
}

pub fn layer_path(manifest: &Value) -> String {
    format!("/v2/app/blobs/{}", manifest["layers"][0]["digest"].as_str().expect("a digest"))
}

pub const MANIFEST: &str = "/v2/app/manifests/v1";
