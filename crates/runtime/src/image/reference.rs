//! Reference: the name of an image, with the defaults everybody knows from docker.

use std::fmt;
use std::str::FromStr;

/// The longest reference that is accepted, in bytes.
pub const REFERENCE_BYTES_MAX: usize = 512;

/// A full image name: `registry/repository:tag` or `registry/repository@digest`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    /// Host and optional port.
    pub registry: String,
    /// The path below the registry.
    pub repository: String,
    /// The tag; `latest` when neither tag nor digest was given.
    pub tag: Option<String>,
    /// `sha256:` and 64 hex digits.
    pub digest: Option<String>,
}

/// Why a text does not name an image.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("expected an image name such as nginx, ghcr.io/owner/app:v1 or app@sha256:…, found {found:?}: {why}")]
pub struct ReferenceError {
    /// The text, cut to a bounded length.
    pub found: String,
    /// What is wrong with it.
    pub why: &'static str,
}

const DEFAULT_REGISTRY: &str = "docker.io";

impl Reference {
    /// What the image is listed under: a digest says all, so a tag beside it does not count.
    pub(super) fn key(&self) -> String {
        match &self.digest {
            Some(digest) => format!("{}/{}@{digest}", self.registry, self.repository),
            None => self.to_string(),
        }
    }

    /// Registry and repository.
    pub(super) fn place(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// Where the registry really listens.
    pub(super) fn host(&self) -> &str {
        match self.registry.as_str() {
            DEFAULT_REGISTRY => "registry-1.docker.io",
            other => other,
        }
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Reference, ReferenceError> {
        let refuse = |why| ReferenceError { found: text.chars().take(80).collect(), why };
        if text.len() > REFERENCE_BYTES_MAX {
            return Err(refuse("it is longer than 512 bytes"));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) if is_digest(digest) => (rest, Some(digest.to_owned())),
            Some(_) => return Err(refuse("the digest is not sha256: and 64 lower-case hex digits")),
            None => (text, None),
        };
        let (path, tag) = match rest.rsplit_once(':') {
            Some((path, tag)) if !tag.contains('/') => (path, Some(tag.to_owned())),
            _ => (rest, None),
        };
        if tag.as_deref().is_some_and(|tag| !is_tag(tag)) {
            return Err(refuse("the tag is not 1 to 128 letters, digits, '_', '.' or '-'"));
        }
        let (registry, repository) = match path.split_once('/') {
            Some((host, below)) if is_host(host) => (normal_registry(host), below.to_owned()),
            _ => (DEFAULT_REGISTRY.to_owned(), path.to_owned()),
        };
        if !is_registry(&registry) {
            return Err(refuse("the registry is not a host name with an optional port"));
        }
        let repository = match registry.as_str() {
            DEFAULT_REGISTRY if !repository.contains('/') => format!("library/{repository}"),
            _ => repository,
        };
        if repository.len() > 255 || !repository.split('/').all(is_component) {
            return Err(refuse(
                "the repository is not lower-case letters and digits, separated by '/', '.', '_' or '-'",
            ));
        }
        let tag = if tag.is_none() && digest.is_none() { Some("latest".to_owned()) } else { tag };
        Ok(Reference { registry, repository, tag, digest })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(out, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(out, "@{digest}")?;
        }
        Ok(())
    }
}

/// Whether this is a digest we know how to check.
pub(crate) fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:")
        .is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')))
}

/// Docker's rule: the first component is a host when it could not be a repository of the default registry.
fn is_host(component: &str) -> bool {
    component.contains('.') || component.contains(':') || component == "localhost"
}

pub(super) fn normal_registry(host: &str) -> String {
    let host = host.to_ascii_lowercase();
    match host.as_str() {
        "index.docker.io" | "registry-1.docker.io" => DEFAULT_REGISTRY.to_owned(),
        _ => host,
    }
}

pub(super) fn is_registry(registry: &str) -> bool {
    let (host, port) = match registry.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (registry, None),
    };
    let host_is_good = !host.is_empty()
        && !host.starts_with(['-', '.'])
        && !host.ends_with('.')
        && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-'));
    host_is_good && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
}

fn is_tag(tag: &str) -> bool {
    (1..=128).contains(&tag.len())
        && !tag.starts_with(['.', '-'])
        && tag.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
}

/// One part of a repository path: alphanumeric runs joined by `.`, `_`, `__` or dashes (OCI distribution spec).
pub(super) fn is_component(component: &str) -> bool {
    let alphanumeric = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let bytes = component.as_bytes();
    alphanumeric(bytes.first())
        && alphanumeric(bytes.last())
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'_' | b'-'))
        && !component.contains("..")
        && !component.contains("___")
        && !component.contains("._")
        && !component.contains("_.")
}

#[cfg(test)]
mod tests {
    use super::Reference;

    #[test]
    fn short_names_get_dockers_defaults() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let rows = [
            ("nginx".to_owned(), "docker.io/library/nginx:latest".to_owned()),
            ("nginx:1.27".to_owned(), "docker.io/library/nginx:1.27".to_owned()),
            ("owner/app".to_owned(), "docker.io/owner/app:latest".to_owned()),
            ("index.docker.io/owner/app:v1".to_owned(), "docker.io/owner/app:v1".to_owned()),
            ("localhost/app".to_owned(), "localhost/app:latest".to_owned()),
            ("127.0.0.1:5000/a/b/c:v1".to_owned(), "127.0.0.1:5000/a/b/c:v1".to_owned()),
            (format!("ghcr.io/o/a@{digest}"), format!("ghcr.io/o/a@{digest}")),
            (format!("ghcr.io/o/a:v1@{digest}"), format!("ghcr.io/o/a:v1@{digest}")),
        ];
        for (given, full) in rows {
            assert_eq!(given.parse::<Reference>().map(|reference| reference.to_string()), Ok(full), "{given}");
        }
    }

    #[test]
    fn what_is_not_a_name_is_refused() {
        let long = "a".repeat(600);
        let rows = [
            "",
            "Nginx",
            "nginx:",
            "nginx:la test",
            "a//b",
            "../etc/passwd",
            "nginx@sha256:12",
            "nginx@md5:abc",
            "-x/y",
            "host.example:0/app",
            "host.example:99999/app",
            "app/",
            "/app",
            "a..b",
            "nginx\n",
            long.as_str(),
        ];
        for given in rows {
            assert!(given.parse::<Reference>().is_err(), "{given:?} was accepted");
        }
    }
}
