//! Registries: what the owner of this machine says about registries, by prefix of image names.
//!
//! ```text
//! registries:
//! - prefix: docker.io               # host[:port][/path]; * is every image
//!   mirrors: [mirror.example/hub]   # asked before the registry itself, in this order
//!   ca: /etc/ssl/own.pem            # authorities to trust beside the machine's own
//!   plainHttp: true                 # without TLS
//!   signedBy: [/etc/keys/team.pub]  # images must be signed with one of these keys; an empty list lifts a wider rule
//! authFile: /root/.docker/config.json
//! imagePullCredentialsVerificationPolicy: NeverVerifyPreloadedImages
//! preloadedImagesVerificationAllowlist: [registry.example/base]
//! ```
//! Rules
//!   R1 longest   each setting counts from the longest prefix that has it, of whole components
//!   R2 strict    an unknown field, a bad prefix or a file that cannot be read refuses all of it, with the place and reason
//! Not here       credentials that programs provide (the caller's)

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::Access;
use super::config::short;
use super::keyring::{Credentials, Keyring, is_below};
use super::reference::{Reference, is_component, is_registry, normal_registry};
use super::signature::PublicKey;

/// Prefixes of one file.
const ENTRIES_MAX: usize = 1000;
/// Mirrors of one prefix, and its keys.
const LIST_MAX: usize = 32;
/// A file that is named: authorities, keys, credentials.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What is known about registries.
#[derive(Clone, Debug, Default)]
pub struct Registries {
    entries: Vec<Entry>,
    keyring: Keyring,
    verification: Verification,
    allowed: Vec<Prefix>,
}

#[derive(Clone, Debug)]
struct Entry {
    prefix: Prefix,
    mirrors: Option<Vec<Place>>,
    ca_pem: Option<String>,
    plain_http: Option<bool>,
    keys: Option<Vec<PublicKey>>,
}

/// Of which images it is checked that who uses them could have pulled them (Kubernetes: the policy of this name).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
enum Verification {
    NeverVerify,
    #[default]
    NeverVerifyPreloadedImages,
    NeverVerifyAllowlistedImages,
    AlwaysVerify,
}

/// A registry and a path in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) host: String,
    pub(super) path: String,
}

/// The beginning of image names.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Prefix {
    All,
    Place(Place),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Written0 {
    #[serde(default)]
    registries: Vec<Value>,
    auth_file: Option<String>,
    #[serde(default)]
    image_pull_credentials_verification_policy: Verification,
    #[serde(default)]
    preloaded_images_verification_allowlist: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Written {
    prefix: String,
    mirrors: Option<Vec<String>>,
    ca: Option<String>,
    plain_http: Option<bool>,
    signed_by: Option<Vec<String>>,
}

impl Registries {
    /// Reads what the owner wrote, and the files it names (R2).
    pub fn read(value: Value) -> Result<Registries, String> {
        let file: Written0 = serde_json::from_value(value).map_err(|error| error.to_string())?;
        if file.registries.len() > ENTRIES_MAX {
            return Err(format!("registries: expected at most {ENTRIES_MAX}, found {}", file.registries.len()));
        }
        let mut entries = Vec::new();
        for (number, value) in file.registries.into_iter().enumerate() {
            let at = |why: String| format!("registries[{number}]: {why}");
            let written: Written = serde_json::from_value(value).map_err(|error| at(error.to_string()))?;
            entries.push(Entry::read(written).map_err(at)?);
        }
        let keyring = match &file.auth_file {
            Some(path) => {
                let read = named_file(path).and_then(|bytes| Keyring::read_config(&bytes, None));
                read.map_err(|why| format!("authFile: {path}: {why}"))?
            }
            None => Keyring::default(),
        };
        let allowed = file.preloaded_images_verification_allowlist.iter().map(|prefix| Prefix::read(prefix));
        let allowed = allowed.collect::<Result<_, String>>();
        let allowed = allowed.map_err(|why| format!("preloadedImagesVerificationAllowlist: {why}"))?;
        Ok(Registries { entries, keyring, verification: file.image_pull_credentials_verification_policy, allowed })
    }

    /// The same with users and passwords from this keyring instead of `authFile`.
    pub fn with_keyring(self, keyring: Keyring) -> Registries {
        Registries { keyring, ..self }
    }

    /// Whether who uses an image has to show that they may: an image that was `pulled`, or one that came otherwise.
    pub fn access(&self, image: &Reference, found: Access) -> Access {
        let is_free = match self.verification {
            Verification::NeverVerify => true,
            Verification::NeverVerifyPreloadedImages => found == Access::Preloaded,
            Verification::NeverVerifyAllowlistedImages => {
                found == Access::Preloaded && self.allowed.iter().any(|prefix| prefix.covers(image).is_some())
            }
            Verification::AlwaysVerify => false,
        };
        match found {
            _ if is_free => Access::Anyone,
            Access::Preloaded => Access::Only(Default::default()),
            found => found,
        }
    }

    /// Where an image is fetched from: its mirrors, then its own registry.
    pub(super) fn places(&self, image: &Reference) -> Vec<Place> {
        let mirrors = self.setting(image, |entry| entry.mirrors.as_ref()).map_or(&[][..], Vec::as_slice);
        let at_mirror =
            |mirror: &Place| Place { host: mirror.host.clone(), path: joined(&mirror.path, &image.repository) };
        let own = Place { host: image.host().to_owned(), path: image.repository.clone() };
        mirrors.iter().map(at_mirror).chain([own]).collect()
    }

    /// The machine's own credentials for a place.
    pub(super) fn credentials(&self, place: &Place) -> Vec<Credentials> {
        self.keyring.find(&place.reference())
    }

    /// Authorities to trust at a place beside the machine's own, as PEM.
    pub(super) fn ca_pem(&self, place: &Place) -> Option<&str> {
        self.setting(&place.reference(), |entry| entry.ca_pem.as_ref()).map(String::as_str)
    }

    /// Whether a place is spoken to without TLS, where that is said.
    pub(super) fn plain_http(&self, place: &Place) -> Option<bool> {
        self.setting(&place.reference(), |entry| entry.plain_http.as_ref()).copied()
    }

    /// Whether the owner named this host.
    pub(super) fn names(&self, host: &str) -> bool {
        let named =
            |place: &Place| place.host == host || place.host.rsplit_once(':').is_some_and(|(name, _)| name == host);
        let in_prefix = |entry: &Entry| matches!(&entry.prefix, Prefix::Place(place) if named(place));
        self.entries.iter().any(|entry| in_prefix(entry) || entry.mirrors.iter().flatten().any(named))
    }

    /// The keys of which one must have signed the image; none when it need not be signed.
    pub(super) fn keys(&self, image: &Reference) -> &[PublicKey] {
        self.setting(image, |entry| entry.keys.as_ref()).map_or(&[], Vec::as_slice)
    }

    fn setting<'a, T>(&'a self, image: &Reference, get: impl Fn(&'a Entry) -> Option<&'a T>) -> Option<&'a T> {
        let covering = self.entries.iter().filter_map(|entry| Some((entry.prefix.covers(image)?, get(entry)?)));
        // Of two entries with one prefix, the later.
        covering.max_by_key(|(length, _)| *length).map(|(_, setting)| setting)
    }
}

impl Entry {
    fn read(written: Written) -> Result<Entry, String> {
        let prefix = Prefix::read(&written.prefix).map_err(|why| format!("prefix: {why}"))?;
        let too_many = |field: &str| format!("{field}: expected at most {LIST_MAX}");
        let mirrors = written.mirrors.map(|mirrors| {
            if mirrors.len() > LIST_MAX {
                return Err(too_many("mirrors"));
            }
            let read = |(number, mirror): (usize, &String)| {
                Place::read(mirror).map_err(|why| format!("mirrors[{number}]: {why}"))
            };
            mirrors.iter().enumerate().map(read).collect::<Result<Vec<_>, _>>()
        });
        let keys = written.signed_by.map(|files| {
            if files.len() > LIST_MAX {
                return Err(too_many("signedBy"));
            }
            let read = |path: &String| {
                let read = named_file(path).and_then(|pem| PublicKey::of_pem(&pem));
                read.map_err(|why| format!("signedBy: {path}: {why}"))
            };
            files.iter().map(read).collect::<Result<Vec<_>, _>>()
        });
        let ca_pem = written.ca.map(|path| {
            let text = named_file(&path).and_then(|pem| String::from_utf8(pem).map_err(|error| error.to_string()));
            text.map_err(|why| format!("ca: {path}: {why}"))
        });
        let plain_http = written.plain_http;
        Ok(Entry {
            prefix,
            mirrors: mirrors.transpose()?,
            ca_pem: ca_pem.transpose()?,
            plain_http,
            keys: keys.transpose()?,
        })
    }
}

impl Prefix {
    fn read(text: &str) -> Result<Prefix, String> {
        if text == "*" { Ok(Prefix::All) } else { Place::read(text).map(Prefix::Place) }
    }

    /// How much of the image's name it says; `None` when it is not for it (R1).
    fn covers(&self, image: &Reference) -> Option<usize> {
        match self {
            Prefix::All => Some(0),
            Prefix::Place(place) => {
                // One host is one host, however it is written.
                let bare = |host: &str| normal_registry(host.strip_suffix(":443").unwrap_or(host));
                let is_ours = bare(&place.host) == bare(&image.registry) && is_below(&image.repository, &place.path);
                is_ours.then_some(1 + place.path.len())
            }
        }
    }
}

impl Place {
    fn read(text: &str) -> Result<Place, String> {
        let (host, path) = text.split_once('/').unwrap_or((text, ""));
        let path_is_good = path.is_empty() || path.split('/').all(is_component);
        if !is_registry(host) || !path_is_good {
            return Err(format!("expected host[:port][/path] without a scheme, found {:?}", short(text)));
        }
        Ok(Place { host: normal_registry(host), path: path.to_owned() })
    }

    /// An image there, to look its rules up by.
    fn reference(&self) -> Reference {
        Reference { registry: normal_registry(&self.host), repository: self.path.clone(), tag: None, digest: None }
    }
}

fn joined(path: &str, below: &str) -> String {
    if path.is_empty() { below.to_owned() } else { format!("{path}/{below}") }
}

/// A file that the owner named by its absolute path.
fn named_file(path: &str) -> Result<Vec<u8>, String> {
    if !Path::new(path).is_absolute() {
        return Err("expected an absolute path".to_owned());
    }
    let file = File::open(path).map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("it is larger than {FILE_BYTES_MAX} bytes"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::{Place, Registries};
    use crate::image::{Access, Reference};
    use serde_json::json;

    fn reference(name: &str) -> Reference {
        name.parse().expect("a name")
    }

    #[test]
    fn each_setting_counts_from_the_longest_prefix_that_has_it() {
        let registries = Registries::read(json!({"registries": [
            {"prefix": "*", "mirrors": ["all.example"]},
            {"prefix": "docker.io", "mirrors": ["hub.example:5000/cache"], "plainHttp": false},
            {"prefix": "docker.io/library", "mirrors": []},
            {"prefix": "plain.example", "plainHttp": true},
        ]}))
        .expect("readable");
        let places = |name: &str| -> Vec<String> {
            let places = registries.places(&reference(name));
            places.iter().map(|place| format!("{}/{}", place.host, place.path)).collect()
        };
        assert_eq!(places("nginx"), ["registry-1.docker.io/library/nginx"]);
        assert_eq!(places("owner/app"), ["hub.example:5000/cache/owner/app", "registry-1.docker.io/owner/app"]);
        assert_eq!(places("docker.io/librarys/x")[0], "hub.example:5000/cache/librarys/x");
        assert_eq!(places("ghcr.io/a/b"), ["all.example/a/b", "ghcr.io/a/b"]);
        let plain = |host: &str| registries.plain_http(&Place { host: host.to_owned(), path: "x".to_owned() });
        assert_eq!(
            (plain("plain.example"), plain("registry-1.docker.io"), plain("other")),
            (Some(true), Some(false), None)
        );
        assert!(registries.names("hub.example") && registries.names("plain.example") && !registries.names("ghcr.io"));
    }

    #[test]
    fn what_cannot_be_read_is_refused_with_its_place() {
        let rows = [
            (json!({"registry": []}), "unknown field"),
            (
                json!({"registries": [{"prefix": "a.example"}, {"prefix": "https://b.example"}]}),
                "registries[1]: prefix",
            ),
            (json!({"registries": [{"prefix": "a.example", "mirror": "x"}]}), "registries[0]: unknown field"),
            (json!({"registries": [{"prefix": "a.example", "mirrors": ["b", "c d"]}]}), "mirrors[1]"),
            (json!({"registries": [{"prefix": "a.example", "ca": "own.pem"}]}), "absolute path"),
            (json!({"registries": [{"prefix": "a.example", "signedBy": ["/absent"]}]}), "signedBy: /absent"),
            (json!({"authFile": "/absent"}), "authFile: /absent"),
            (json!({"imagePullCredentialsVerificationPolicy": "Sometimes"}), "unknown variant"),
        ];
        for (value, why) in rows {
            let error = Registries::read(value).expect_err(why);
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn who_has_to_show_that_they_may_is_the_policys_to_say() {
        let only = || Access::Only(["mark".to_owned()].into());
        let none = || Access::Only(Default::default());
        let rows = [
            ("NeverVerify", Access::Anyone, Access::Anyone),
            ("NeverVerifyPreloadedImages", Access::Anyone, only()),
            ("NeverVerifyAllowlistedImages", none(), only()),
            ("AlwaysVerify", none(), only()),
        ];
        for (policy, preloaded, pulled) in rows {
            let registries = Registries::read(json!({
                "imagePullCredentialsVerificationPolicy": policy,
                "preloadedImagesVerificationAllowlist": ["base.example/os"],
            }))
            .expect("readable");
            let image = reference("r.example/app");
            assert_eq!(registries.access(&image, Access::Preloaded), preloaded, "{policy}");
            assert_eq!(registries.access(&image, only()), pulled, "{policy}");
            assert_eq!(registries.access(&image, Access::Anyone), Access::Anyone, "{policy}");
            if policy == "NeverVerifyAllowlistedImages" {
                assert_eq!(registries.access(&reference("base.example/os/x"), Access::Preloaded), Access::Anyone);
            }
        }
    }
}
