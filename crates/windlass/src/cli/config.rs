//! Kubeconfig files: which cluster, who asks, and in which namespace.
//!
//! Rules, in order
//!   R1 files      `--kubeconfig`; else the files that KUBECONFIG lists; else `~/.kube/config`; else this machine's own
//!                 cluster
//!   R2 merge      of several files, the first that names a thing says what it is; relative paths are relative to their file
//!   R3 choice     `--context`, else `current-context`; `--cluster`, `--user` and `-n` override its parts
//!   R4 trust      `certificate-authority-data`, else the file, else what this machine trusts; nothing is trusted unseen
//!                 unless `insecure-skip-tls-verify` says so
//!   R5 identity   client certificate; else a token, or the file with it; else user and password
//!   R6 commands   an `exec` entry is a program that a file names: it is run only with `--allow-exec-plugin`
//! Not here        auth-provider (gone from Kubernetes), proxies, tls-server-name
//! Source: Kubernetes docs, "Organizing Cluster Access Using kubeconfig Files"

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};
use windlass_api::codec::{Limits, yaml};

/// A kubeconfig larger than this is none.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// Files that KUBECONFIG may list.
const FILES_MAX: usize = 64;
/// Where systems keep the certificates they trust.
const SYSTEM_ROOTS: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// All files as one.
#[derive(Debug, Default)]
pub struct Kubeconfig {
    clusters: Vec<Named>,
    users: Vec<Named>,
    contexts: Vec<Named>,
    current: String,
}

/// An entry, with the directory that its paths are relative to.
#[derive(Debug)]
struct Named {
    name: String,
    value: Value,
    directory: PathBuf,
}

/// What flags override.
#[derive(Debug, Default, Clone)]
pub struct Choice {
    pub context: Option<String>,
    pub cluster: Option<String>,
    pub user: Option<String>,
    pub server: Option<String>,
    pub token: Option<String>,
    pub insecure: bool,
    pub certificate_authority: Option<PathBuf>,
    pub client_certificate: Option<PathBuf>,
    pub client_key: Option<PathBuf>,
}

/// A cluster and who asks it.
#[derive(Debug, Clone)]
pub struct Login {
    /// `https://host:port`.
    pub server: String,
    /// Certificates that are trusted, PEM; `None` for whoever answers.
    pub ca_pem: Option<Vec<u8>>,
    /// Certificate and key, PEM.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
    /// The header `Authorization`.
    pub authorization: Option<String>,
    /// A program that knows the rest; see R6.
    pub exec: Option<Value>,
    /// The context's namespace.
    pub namespace: Option<String>,
}

impl Kubeconfig {
    /// The files that rule R1 means.
    pub fn paths(flag: Option<&Path>, local: &Path) -> Vec<PathBuf> {
        if let Some(path) = flag {
            return vec![path.to_owned()];
        }
        if let Some(listed) = std::env::var_os("KUBECONFIG").filter(|value| !value.is_empty()) {
            return std::env::split_paths(&listed)
                .filter(|path| !path.as_os_str().is_empty())
                .take(FILES_MAX)
                .collect();
        }
        let home = std::env::var_os("HOME").map(|home| Path::new(&home).join(".kube/config"));
        match home.filter(|path| path.exists()) {
            Some(path) => vec![path],
            None => vec![local.to_owned()],
        }
    }

    /// Reads and merges files. One that KUBECONFIG lists may be missing; the only one may not.
    pub fn load(paths: &[PathBuf]) -> Result<Kubeconfig> {
        let mut merged = Kubeconfig::default();
        for path in paths {
            if paths.len() > 1 && !path.exists() {
                continue;
            }
            let context = || format!("could not read the kubeconfig {}", path.display());
            let size = fs::metadata(path).with_context(context)?.len();
            if size > FILE_BYTES_MAX {
                bail!("{}: expected a kubeconfig of at most {FILE_BYTES_MAX} bytes, found {size}", path.display());
            }
            let text = fs::read_to_string(path).with_context(context)?;
            let directory = path.parent().map(Path::to_owned).unwrap_or_default();
            merged.add(&text, &directory).with_context(context)?;
        }
        Ok(merged)
    }

    /// R2.
    fn add(&mut self, text: &str, directory: &Path) -> Result<()> {
        let documents = yaml::documents(text, Limits::default())?;
        let Some(file) = documents.first() else { return Ok(()) };
        for (key, field, list) in [
            ("clusters", "cluster", &mut self.clusters),
            ("users", "user", &mut self.users),
            ("contexts", "context", &mut self.contexts),
        ] {
            for entry in file[key].as_array().into_iter().flatten() {
                let name = entry["name"].as_str().unwrap_or_default().to_owned();
                if !list.iter().any(|known| known.name == name) {
                    list.push(Named { name, value: entry[field].clone(), directory: directory.to_owned() });
                }
            }
        }
        if self.current.is_empty() {
            self.current = file["current-context"].as_str().unwrap_or_default().to_owned();
        }
        Ok(())
    }

    /// R3 to R6.
    pub fn login(&self, choice: &Choice) -> Result<Login> {
        let wanted = choice.context.as_deref().unwrap_or(&self.current);
        let context = match find(&self.contexts, wanted) {
            Some(found) => found.value.clone(),
            None if wanted.is_empty() => json!({}),
            None => bail!("context {wanted:?} does not exist"),
        };
        let named = |flag: &Option<String>, key: &str| {
            flag.clone().unwrap_or_else(|| context[key].as_str().unwrap_or_default().to_owned())
        };
        let cluster = entry(&self.clusters, "cluster", &named(&choice.cluster, "cluster"))?;
        let user = entry(&self.users, "user", &named(&choice.user, "user"))?;
        let server = choice.server.clone().or_else(|| text(&cluster.value, "server"));
        let Some(server) = server else {
            bail!(
                "no cluster is chosen: name one with --context, or --server, or set current-context in the kubeconfig"
            );
        };
        if text(&cluster.value, "tls-server-name").is_some() || text(&cluster.value, "proxy-url").is_some() {
            bail!("the cluster's tls-server-name and proxy-url are not supported: reach {server} directly");
        }
        let namespace = text(&context, "namespace").filter(|namespace| !namespace.is_empty());
        Ok(Login {
            server: server.trim_end_matches('/').to_owned(),
            ca_pem: trusted(&cluster, choice)?,
            identity: identity(&user, choice)?,
            authorization: authorization(&user, choice)?,
            exec: user.value.get("exec").filter(|exec| exec.is_object()).cloned(),
            namespace,
        })
    }
}

fn find<'n>(list: &'n [Named], name: &str) -> Option<&'n Named> {
    list.iter().find(|entry| entry.name == name)
}

fn entry(list: &[Named], what: &str, name: &str) -> Result<Named> {
    match find(list, name) {
        Some(found) => {
            Ok(Named { name: name.to_owned(), value: found.value.clone(), directory: found.directory.clone() })
        }
        None if name.is_empty() => Ok(Named { name: String::new(), value: json!({}), directory: PathBuf::new() }),
        None => bail!("{what} {name:?} does not exist"),
    }
}

fn text(value: &Value, key: &str) -> Option<String> {
    value[key].as_str().map(str::to_owned)
}

/// R4.
fn trusted(cluster: &Named, choice: &Choice) -> Result<Option<Vec<u8>>> {
    if choice.insecure || cluster.value["insecure-skip-tls-verify"] == true {
        return Ok(None);
    }
    if let Some(path) = &choice.certificate_authority {
        return read(path).map(Some);
    }
    if let Some(pem) = stored(cluster, "certificate-authority")? {
        return Ok(Some(pem));
    }
    match SYSTEM_ROOTS.iter().find_map(|path| fs::read(path).ok()) {
        Some(pem) => Ok(Some(pem)),
        None => bail!(
            "the kubeconfig names no certificate authority and this machine has none: pass --certificate-authority"
        ),
    }
}

/// R5, the certificate.
fn identity(user: &Named, choice: &Choice) -> Result<Option<(Vec<u8>, Vec<u8>)>> {
    let part = |flag: &Option<PathBuf>, key: &str| match flag {
        Some(path) => read(path).map(Some),
        None => stored(user, key),
    };
    match (part(&choice.client_certificate, "client-certificate")?, part(&choice.client_key, "client-key")?) {
        (Some(certificate), Some(key)) => Ok(Some((certificate, key))),
        (None, None) => Ok(None),
        _ => bail!("expected both a client certificate and its key, found one of them"),
    }
}

/// R5, the header.
fn authorization(user: &Named, choice: &Choice) -> Result<Option<String>> {
    if let Some(token) = &choice.token {
        return Ok(Some(format!("Bearer {token}")));
    }
    if let Some(file) = text(&user.value, "tokenFile").filter(|file| !file.is_empty()) {
        let token = String::from_utf8(read(&user.directory.join(file))?).context("the token file is not text")?;
        return Ok(Some(format!("Bearer {}", token.trim())));
    }
    if let Some(token) = text(&user.value, "token").filter(|token| !token.is_empty()) {
        return Ok(Some(format!("Bearer {token}")));
    }
    match (text(&user.value, "username"), text(&user.value, "password")) {
        (Some(name), Some(password)) => Ok(Some(format!("Basic {}", BASE64.encode(format!("{name}:{password}"))))),
        _ => Ok(None),
    }
}

/// What `KEY-data` holds, or the file that `KEY` names.
fn stored(entry: &Named, key: &str) -> Result<Option<Vec<u8>>> {
    if let Some(data) = text(&entry.value, &format!("{key}-data")).filter(|data| !data.is_empty()) {
        let bytes =
            BASE64.decode(data.trim()).with_context(|| format!("{key}-data of {:?} is not base64", entry.name))?;
        return Ok(Some(bytes));
    }
    match text(&entry.value, key).filter(|path| !path.is_empty()) {
        Some(path) => read(&entry.directory.join(path)).map(Some),
        None => Ok(None),
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("could not read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::{Choice, Kubeconfig};
    use std::path::Path;

    const ONE: &str = "
clusters:
- {name: c1, cluster: {server: 'https://one:6443/', insecure-skip-tls-verify: true}}
- {name: c2, cluster: {server: 'https://two:6443', certificate-authority-data: Y2E=}}
users:
- {name: u1, user: {token: secret}}
- {name: u2, user: {username: a, password: b}}
- {name: u3, user: {exec: {command: /bin/evil}}}
contexts:
- {name: cx, context: {cluster: c1, user: u1, namespace: team}}
- {name: cy, context: {cluster: c2, user: u2}}
- {name: cz, context: {cluster: c2, user: u3}}
current-context: cx
";

    fn load(texts: &[&str]) -> Kubeconfig {
        let mut config = Kubeconfig::default();
        for text in texts {
            config.add(text, Path::new("/nowhere")).expect("a kubeconfig");
        }
        config
    }

    #[test]
    fn r2_the_first_file_that_names_a_thing_wins() {
        let other = "clusters: [{name: c1, cluster: {server: 'https://other'}}]\ncurrent-context: cy\n";
        let login = load(&[ONE, other]).login(&Choice::default()).expect("a login");
        assert_eq!((login.server.as_str(), login.namespace.as_deref()), ("https://one:6443", Some("team")));
        assert!(load(&[other, ONE]).login(&Choice::default()).expect("a login").server.contains("two"));
    }

    #[test]
    fn r3_flags_override_the_context() {
        let config = load(&[ONE]);
        let choice = Choice { cluster: Some("c2".to_owned()), ..Choice::default() };
        let login = config.login(&choice).expect("a login");
        assert_eq!((login.server.as_str(), login.ca_pem.as_deref()), ("https://two:6443", Some(&b"ca"[..])));
        let missing = Choice { context: Some("nope".to_owned()), ..Choice::default() };
        assert_eq!(config.login(&missing).expect_err("no context").to_string(), "context \"nope\" does not exist");
    }

    #[test]
    fn r4_nothing_is_trusted_unseen_unless_said() {
        let config = load(&[ONE]);
        assert!(config.login(&Choice::default()).expect("a login").ca_pem.is_none());
        let choice = Choice { context: Some("cy".to_owned()), ..Choice::default() };
        assert!(config.login(&choice).expect("a login").ca_pem.is_some());
        assert!(config.login(&Choice { insecure: true, ..choice }).expect("a login").ca_pem.is_none());
    }

    #[test]
    fn r5_tokens_and_passwords_become_a_header() {
        let config = load(&[ONE]);
        let of = |context: &str| {
            let choice = Choice { context: Some(context.to_owned()), ..Choice::default() };
            config.login(&choice).expect("a login").authorization
        };
        assert_eq!(of("cx").as_deref(), Some("Bearer secret"));
        assert_eq!(of("cy").as_deref(), Some("Basic YTpi"));
        assert_eq!(of("cz"), None);
    }

    #[test]
    fn r6_a92_a_command_is_only_told_of() {
        let choice = Choice { context: Some("cz".to_owned()), ..Choice::default() };
        let login = load(&[ONE]).login(&choice).expect("a login");
        assert_eq!(login.exec.expect("the entry")["command"], "/bin/evil");
    }
}
