//! The administrator's kubeconfig: written by the server, printed on request.

use std::fs;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use windlass_apiserver::Pki;

use crate::place::Place;

/// The URL under which a process on this machine reaches an API that listens there.
pub fn local_url(listen: SocketAddr) -> String {
    let ip = if listen.ip().is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { listen.ip() };
    format!("https://{}", SocketAddr::new(ip, listen.port()))
}

/// Writes the kubeconfig, readable by root only, with a new client certificate.
pub fn save(place: &Place, pki: &Pki, listen: SocketAddr) -> Result<()> {
    let admin = pki
        .issue_client("kubernetes-admin", "system:masters")
        .context("cannot issue the administrator's certificate")?;
    let name = &place.instance;
    let text = format!(
        "apiVersion: v1
kind: Config
clusters:
- name: {name}
  cluster:
    server: {server}
    certificate-authority-data: {ca}
users:
- name: {name}-admin
  user:
    client-certificate-data: {cert}
    client-key-data: {key}
contexts:
- name: {name}
  context:
    cluster: {name}
    user: {name}-admin
current-context: {name}
",
        server = local_url(listen),
        ca = BASE64.encode(pki.ca_pem()),
        cert = BASE64.encode(&admin.cert_pem),
        key = BASE64.encode(&admin.key_pem),
    );
    let path = place.kubeconfig();
    let part = path.with_extension("part");
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(&part).with_context(|| format!("could not write {}", part.display()))?;
    file.write_all(text.as_bytes()).with_context(|| format!("could not write {}", part.display()))?;
    fs::rename(&part, &path).with_context(|| format!("could not write {}", path.display()))
}

/// Prints the kubeconfig or its path.
pub fn print(place: &Place, only_path: bool) -> Result<()> {
    let path = place.kubeconfig();
    if !path.exists() {
        bail!("{} does not exist: start a cluster with `windlass up` first", path.display());
    }
    if only_path {
        println!("{}", path.display());
    } else {
        print!("{}", fs::read_to_string(&path).with_context(|| format!("could not read {}", path.display()))?);
    }
    Ok(())
}
