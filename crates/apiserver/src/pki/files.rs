//! The authority's files as a backup carries them: all of them by name, and no other.
//!
//! Rules
//!   R1 all       each file is there, once; there is no room for another name, and so none for a path
//!   R2 checked   a key belongs to its certificate, and each file can be used, before any of it is written

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use rcgen::{KeyPair, PublicKeyData as _};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{JOIN_SECRET, PkiError, TOKEN_KEYS, certificate_error, io_error, join_secret, load, save, token_keys};

/// What makes a cluster itself: who can read this can be anybody in it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyFiles {
    #[serde(rename = "ca.crt")]
    ca_crt: String,
    #[serde(rename = "ca.key")]
    ca_key: String,
    #[serde(rename = "front-proxy-ca.crt")]
    front_proxy_ca_crt: String,
    #[serde(rename = "front-proxy-ca.key")]
    front_proxy_ca_key: String,
    #[serde(rename = "join.secret")]
    join_secret: String,
    #[serde(rename = "sa.key")]
    sa_key: String,
}

impl KeyFiles {
    /// Reads them from the authority's directory.
    pub fn read(dir: &Path) -> Result<KeyFiles, PkiError> {
        let read = |name: &str| {
            let path = dir.join(name);
            load(&path)?.ok_or(PkiError::Malformed { path, expected: "anything: it is missing" })
        };
        Ok(KeyFiles {
            ca_crt: read("ca.crt")?,
            ca_key: read("ca.key")?,
            front_proxy_ca_crt: read("front-proxy-ca.crt")?,
            front_proxy_ca_key: read("front-proxy-ca.key")?,
            join_secret: read("join.secret")?,
            sa_key: read("sa.key")?,
        })
    }

    /// R2.
    pub fn check(&self) -> Result<(), PkiError> {
        let malformed = |name: &str, expected| PkiError::Malformed { path: name.into(), expected };
        check_pair(("ca.crt", &self.ca_crt), &self.ca_key)?;
        check_pair(("front-proxy-ca.crt", &self.front_proxy_ca_crt), &self.front_proxy_ca_key)?;
        join_secret(&self.join_secret).ok_or_else(|| malformed("join.secret", JOIN_SECRET))?;
        token_keys(&self.sa_key).ok_or_else(|| malformed("sa.key", TOKEN_KEYS))?;
        Ok(())
    }

    /// Writes them to a directory, which is made.
    pub fn write(&self, dir: &Path) -> Result<(), PkiError> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io_error("create", dir))?;
        for (name, text, mode) in [
            ("ca.crt", &self.ca_crt, 0o644),
            ("ca.key", &self.ca_key, 0o600),
            ("front-proxy-ca.crt", &self.front_proxy_ca_crt, 0o644),
            ("front-proxy-ca.key", &self.front_proxy_ca_key, 0o600),
            ("join.secret", &self.join_secret, 0o600),
            ("sa.key", &self.sa_key, 0o600),
        ] {
            save(&dir.join(name), text, mode)?;
        }
        Ok(())
    }
}

fn check_pair((name, certificate): (&str, &str), key: &str) -> Result<(), PkiError> {
    let key = KeyPair::from_pem(key).map_err(certificate_error("read the CA key"))?;
    let malformed = || PkiError::Malformed { path: name.into(), expected: "the certificate of the key beside it" };
    let der = CertificateDer::from_pem_slice(certificate.as_bytes()).map_err(|_| malformed())?;
    let (_, parsed) = X509Certificate::from_der(&der).map_err(|_| malformed())?;
    if parsed.public_key().raw == key.subject_public_key_info() { Ok(()) } else { Err(malformed()) }
}

#[cfg(test)]
mod tests {
    use super::KeyFiles;
    use crate::pki::Pki;
    use windlass_stdx::World;

    fn made(name: &str) -> (std::path::PathBuf, KeyFiles) {
        let dir = std::env::temp_dir().join(format!("windlass-key-files-{name}-{}", std::process::id()));
        Pki::open(&dir, &World::real()).expect("a new authority");
        let files = KeyFiles::read(&dir).expect("all files are there");
        (dir, files)
    }

    #[test]
    fn an_authority_is_the_same_after_its_files_were_carried_elsewhere() {
        let (dir, files) = made("carried");
        files.check().expect("they fit");
        let text = serde_json::to_string(&files).expect("texts");
        let read: KeyFiles = serde_json::from_str(&text).expect("the same texts");
        let elsewhere = dir.join("elsewhere");
        read.write(&elsewhere).expect("a directory of ours");
        let token = |dir| Pki::open(dir, &World::real()).expect("an authority").join_token();
        assert_eq!(token(&dir), token(&elsewhere));
        std::fs::remove_dir_all(&dir).expect("our own directory");
    }

    #[test]
    fn r1_another_name_and_a_missing_one_are_refused() {
        let (dir, files) = made("names");
        let value = serde_json::to_value(&files).expect("texts");
        for name in ["../ca.key", "/etc/passwd", "other"] {
            let mut more = value.clone();
            more[name] = "x".into();
            assert!(serde_json::from_value::<KeyFiles>(more).is_err(), "{name}");
        }
        for name in ["ca.crt", "ca.key", "front-proxy-ca.crt", "front-proxy-ca.key", "join.secret", "sa.key"] {
            let mut fewer = value.clone();
            fewer.as_object_mut().expect("a map").remove(name);
            assert!(serde_json::from_value::<KeyFiles>(fewer).is_err(), "{name}");
            std::fs::rename(dir.join(name), dir.join("away")).expect("it is there");
            assert!(KeyFiles::read(&dir).is_err(), "{name}");
            std::fs::rename(dir.join("away"), dir.join(name)).expect("it is there");
        }
        let twice = value.to_string().replacen('{', "{\"sa.key\":\"x\",", 1);
        assert!(serde_json::from_str::<KeyFiles>(&twice).is_err(), "a name twice");
        std::fs::remove_dir_all(&dir).expect("our own directory");
    }

    #[test]
    fn r2_a_certificate_of_another_key_and_files_of_no_use_are_refused() {
        let (dir, files) = made("check");
        let (other_dir, other) = made("check-other");
        for wrong in [
            KeyFiles { ca_crt: other.ca_crt.clone(), ..files.clone() },
            KeyFiles { ca_key: other.ca_key.clone(), ..files.clone() },
            KeyFiles { front_proxy_ca_crt: other.front_proxy_ca_crt.clone(), ..files.clone() },
            KeyFiles { join_secret: "short".to_owned(), ..files.clone() },
            KeyFiles { sa_key: files.ca_crt.clone(), ..files.clone() },
            KeyFiles { sa_key: String::new(), ..files.clone() },
        ] {
            assert!(wrong.check().is_err());
        }
        for dir in [dir, other_dir] {
            std::fs::remove_dir_all(&dir).expect("our own directory");
        }
    }
}
