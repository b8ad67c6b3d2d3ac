//! Keyring: which user and password are for which images, as docker's files say it.
//!
//! Rules
//!   R1 forms     `{"auths": {PLACE: …}}` (config.json, `kubernetes.io/dockerconfigjson`) and `{PLACE: …}` (`.dockercfg`)
//!   R2 place     PLACE is `host[:port][/path]`: each label of the host may be a pattern with `*` and `?`, the port is the
//!                same, the path is the beginning of the repository by whole components
//!   R3 exact     the longer place comes before the shorter
//!   R4 docker    index.docker.io and its like are docker.io
//! Source         Kubernetes documentation, "Images", interpretation of config.json

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::reference::{Reference, normal_registry};

/// A user and password for a registry.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The user.
    pub username: String,
    /// The password or access token.
    pub password: String,
    /// Whose they are, as a text of the caller's that outlives a change of the password. Without one they are the
    /// machine's own, and what is pulled with them is for everybody on it.
    pub owner: Option<String>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Credentials { username, owner, .. } = self;
        write!(out, "Credentials {{ username: {username:?}, password: (hidden), owner: {owner:?} }}")
    }
}

impl Credentials {
    /// By what it is known later that somebody has these: their owner, or the very same user and password.
    pub fn marks(&self) -> Vec<String> {
        let mut hash = Sha256::new();
        hash.update(self.username.as_bytes());
        hash.update([0]);
        hash.update(self.password.as_bytes());
        let hash = super::digest::text(&hash.finalize());
        std::iter::once(hash).chain(self.owner.iter().map(|owner| format!("owner:{owner}"))).collect()
    }
}

/// Users and passwords by place.
#[derive(Clone, Debug, Default)]
pub struct Keyring {
    /// The longest place first.
    keys: Vec<(ImagePattern, Credentials)>,
}

/// Which images something is for: `host[:port][/path]` (R2).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ImagePattern {
    path: String,
    host: String,
    port: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Entry {
    auth: String,
    username: String,
    password: String,
}

#[derive(Deserialize)]
struct ConfigFile {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
}

impl Keyring {
    /// Reads a `config.json`: the form with `auths` (R1).
    pub fn read_config(bytes: &[u8], owner: Option<&str>) -> Result<Keyring, String> {
        let file: ConfigFile = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        Keyring::of(file.auths, owner)
    }

    /// Reads the older form, without `auths` (R1).
    pub fn read_dockercfg(bytes: &[u8], owner: Option<&str>) -> Result<Keyring, String> {
        Keyring::of(serde_json::from_slice(bytes).map_err(|error| error.to_string())?, owner)
    }

    /// One user and password by place, as programs that provide them answer.
    pub fn insert(&mut self, place: &str, credentials: Credentials) -> Result<(), String> {
        self.keys.push((ImagePattern::parse(place)?, credentials));
        self.keys.sort_by(|(one, _), (other, _)| other.cmp(one));
        Ok(())
    }

    fn of(entries: BTreeMap<String, Entry>, owner: Option<&str>) -> Result<Keyring, String> {
        let mut keyring = Keyring::default();
        for (place, entry) in entries {
            let Some((username, password)) = pair(entry).map_err(|why| format!("{place}: {why}"))? else { continue };
            keyring.insert(&place, Credentials { username, password, owner: owner.map(str::to_owned) })?;
        }
        Ok(keyring)
    }

    /// What may be tried for this image, in order (R3).
    pub fn find(&self, image: &Reference) -> Vec<Credentials> {
        let fitting = self.keys.iter().filter(|(place, _)| place.matches(image));
        fitting.map(|(_, credentials)| credentials.clone()).collect()
    }
}

/// The user and password of an entry; `auth` counts before the two fields, and an entry may have neither.
fn pair(entry: Entry) -> Result<Option<(String, String)>, &'static str> {
    if entry.auth.is_empty() {
        let is_there = !entry.username.is_empty() || !entry.password.is_empty();
        return Ok(is_there.then_some((entry.username, entry.password)));
    }
    const WANTED: &str = "auth: expected base64 of user:password";
    let auth = entry.auth.trim().trim_end_matches('=');
    let bytes = STANDARD_NO_PAD.decode(auth).or_else(|_| STANDARD.decode(entry.auth.trim())).map_err(|_| WANTED)?;
    let text = String::from_utf8(bytes).map_err(|_| WANTED)?;
    let (username, password) = text.split_once(':').ok_or(WANTED)?;
    Ok(Some((username.to_owned(), password.trim_end_matches('\0').to_owned())))
}

impl ImagePattern {
    /// Reads a place; a scheme and the version of docker's protocol say nothing about images.
    pub fn parse(text: &str) -> Result<ImagePattern, String> {
        let rest = text.trim_start_matches("https://").trim_start_matches("http://");
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (host, port) = match host.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (host, None),
        };
        if host.is_empty() || port.is_some_and(|port| port.parse::<u16>().is_err()) {
            return Err(format!("expected host[:port][/path], found {:?}", super::config::short(text)));
        }
        let path = path.trim_matches('/');
        let path = ["v1", "v2"].iter().find_map(|version| {
            let rest = path.strip_prefix(version)?;
            (rest.is_empty() || rest.starts_with('/')).then(|| rest.trim_start_matches('/'))
        });
        let path = path.unwrap_or_else(|| rest.split_once('/').map_or("", |(_, path)| path).trim_matches('/'));
        let host = if port.is_none() { normal_registry(&host.to_ascii_lowercase()) } else { host.to_ascii_lowercase() };
        Ok(ImagePattern { path: path.to_owned(), host, port: port.map(str::to_owned) })
    }

    /// Whether it is for this image.
    pub fn matches(&self, image: &Reference) -> bool {
        let (host, port) = match image.registry.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (image.registry.as_str(), None),
        };
        let host = host.to_ascii_lowercase();
        let mut labels = self.host.split('.').zip(host.split('.'));
        self.port.as_deref() == port
            && self.host.split('.').count() == host.split('.').count()
            && labels.all(|(pattern, label)| fits(pattern.as_bytes(), label.as_bytes()))
            && is_below(&image.repository, &self.path)
    }
}

/// Whether a repository begins with these components.
pub(super) fn is_below(repository: &str, path: &str) -> bool {
    path.is_empty() || repository.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// `*` stands for any characters, `?` for one.
fn fits(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut in_text) = (0, 0);
    // Where the last `*` was, and how far the text was taken then.
    let mut star = None;
    while in_text < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, in_text));
                at += 1;
            }
            Some(byte) if *byte == b'?' || *byte == text[in_text] => {
                at += 1;
                in_text += 1;
            }
            _ => {
                let Some((star_at, taken)) = star else { return false };
                star = Some((star_at, taken + 1));
                (at, in_text) = (star_at + 1, taken + 1);
            }
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::{Credentials, ImagePattern, Keyring};
    use crate::image::Reference;

    fn reference(name: &str) -> Reference {
        name.parse().expect("a name")
    }

    #[test]
    fn a_credential_goes_to_its_place_only() {
        let rows = [
            ("https://index.docker.io/v1/", "nginx", true),
            ("docker.io", "docker.io/library/nginx", true),
            ("docker.io/owner", "nginx", false),
            ("ghcr.io", "ghcr.io/owner/app:v1", true),
            ("ghcr.io/owner", "ghcr.io/owner/app:v1", true),
            ("ghcr.io/owner", "ghcr.io/owners/app:v1", false),
            ("https://ghcr.io/v2/owner/", "ghcr.io/owner/app", true),
            ("ghcr.io/v2x", "ghcr.io/owner/app", false),
            ("ghcr.io", "ghcr.io.evil.example/app", false),
            ("127.0.0.1:5000", "127.0.0.1:5000/app", true),
            ("127.0.0.1:5000", "127.0.0.1:5001/app", false),
            ("127.0.0.1", "127.0.0.1:5001/app", false),
            ("ghcr.io", "nginx", false),
            ("*.registry.io", "a.registry.io/app", true),
            ("*.registry.io", "registry.io/app", false),
            ("*.registry.io", "a.b.registry.io/app", false),
            ("*.dkr.ecr.*.amazonaws.com", "1.dkr.ecr.eu-1.amazonaws.com/app", true),
            ("p*x.*.io", "prefix.registry.io/app", true),
            ("p*x.*.io", "prefiy.registry.io/app", false),
            ("re?.io", "reg.io/app", true),
            ("*.registry.io:8080/path", "a.registry.io:8080/path/app", true),
        ];
        for (place, image, expected) in rows {
            let pattern = ImagePattern::parse(place).expect("a place");
            assert_eq!(pattern.matches(&reference(image)), expected, "{place} {image}");
        }
        for bad in ["", "/path", "host:port/x"] {
            assert!(ImagePattern::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn both_forms_are_read_and_the_longer_place_comes_first() {
        let config = br#"{"auths": {"r.example": {"auth": "dXNlcjpwYTpzcw=="}, "other.example": {"username": "x"},
            "r.example/team": {"username": "team", "password": "t"}, "helped.example": {}}}"#;
        let keyring = Keyring::read_config(config, Some("uid")).expect("a config");
        let found = keyring.find(&reference("r.example/team/app"));
        let pairs: Vec<(&str, &str)> = found.iter().map(|one| (&*one.username, &*one.password)).collect();
        assert_eq!(pairs, [("team", "t"), ("user", "pa:ss")]);
        assert!(!format!("{found:?}").contains("pa:ss"), "a password is not printed");
        assert!(keyring.find(&reference("helped.example/app")).is_empty());
        let old = br#"{"https://index.docker.io/v1/": {"auth": "dTpw", "username": "not this"}}"#;
        let found = Keyring::read_dockercfg(old, None).expect("a dockercfg").find(&reference("nginx"));
        assert_eq!(found, [Credentials { username: "u".to_owned(), password: "p".to_owned(), owner: None }]);
        for bad in
            [&b"["[..], br#"{"auths": {"r.example": {"auth": "!"}}}"#, br#"{"auths": {"r.example": {"auth": "dQ=="}}}"#]
        {
            assert!(Keyring::read_config(bad, None).is_err());
        }
    }

    #[test]
    fn who_has_the_same_password_or_the_same_secret_is_known_again() {
        let with = |password: &str, owner: &str| Credentials {
            username: "u".to_owned(),
            password: password.to_owned(),
            owner: Some(owner.to_owned()),
        };
        let shared = |one: Credentials, other: Credentials| one.marks().iter().any(|mark| other.marks().contains(mark));
        assert!(shared(with("p", "a"), with("p", "b")));
        assert!(shared(with("p", "a"), with("q", "a")));
        assert!(!shared(with("p", "a"), with("q", "b")));
    }
}
