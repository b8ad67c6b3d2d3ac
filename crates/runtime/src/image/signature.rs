//! Signatures: whether an image was signed with a key that the owner of this machine trusts.
//!
//! Rules
//!   R1 keys       ECDSA on P-256 and Ed25519, as PEM (`cosign.pub`, `openssl pkey -pubout`)
//!   R2 place      the signatures of a manifest lie in its own repository under the tag `sha256-HEX.sig`, each a layer with
//!                 its payload, and the signature of that in an annotation (cosign's layout)
//!   R3 what       the payload names this repository and this digest, and the signature is one of a trusted key over it
//! Not here        certificates and logs (Fulcio, Rekor): a key is trusted because the owner says so; who pulls what (`pull`)

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{ECDSA_P256_SHA256_ASN1, ED25519, UnparsedPublicKey};
use serde::Deserialize;

use super::reference::Reference;

/// What the payload's layer is called.
pub(super) const PAYLOAD_KIND: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// Where the signature of a payload is.
pub(super) const ANNOTATION: &str = "dev.cosignproject.cosign/signature";
/// The longest payload.
pub(super) const PAYLOAD_BYTES_MAX: u64 = 64 << 10;
/// Signatures of one image that are looked at.
pub(super) const SIGNATURES_MAX: usize = 32;

/// What comes before the key itself in a SubjectPublicKeyInfo (RFC 5480, RFC 8410): both kinds have a fixed length.
const P256_HEAD: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
const ED25519_HEAD: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// A key that signatures are checked with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PublicKey {
    /// An uncompressed point.
    P256(Vec<u8>),
    Ed25519(Vec<u8>),
}

#[derive(Deserialize)]
struct Payload {
    critical: Critical,
}

#[derive(Deserialize)]
struct Critical {
    identity: Identity,
    image: ImageOf,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
struct Identity {
    #[serde(rename = "docker-reference")]
    reference: String,
}

#[derive(Deserialize)]
struct ImageOf {
    #[serde(rename = "docker-manifest-digest")]
    digest: String,
}

impl PublicKey {
    /// Reads a key (R1).
    pub(super) fn of_pem(pem: &[u8]) -> Result<PublicKey, String> {
        const WANTED: &str = "expected a PEM block PUBLIC KEY with a P-256 or Ed25519 key";
        let text = std::str::from_utf8(pem).map_err(|_| WANTED)?;
        let (_, rest) = text.split_once("-----BEGIN PUBLIC KEY-----").ok_or(WANTED)?;
        let (body, _) = rest.split_once("-----END PUBLIC KEY-----").ok_or(WANTED)?;
        let body: String = body.split_whitespace().collect();
        let der = STANDARD.decode(body).map_err(|_| WANTED)?;
        if let Some(point) = der.strip_prefix(&P256_HEAD).filter(|point| point.len() == 65 && point[0] == 4) {
            return Ok(PublicKey::P256(point.to_vec()));
        }
        if let Some(key) = der.strip_prefix(&ED25519_HEAD).filter(|key| key.len() == 32) {
            return Ok(PublicKey::Ed25519(key.to_vec()));
        }
        Err(WANTED.to_owned())
    }

    /// What tells this key from others.
    pub(super) fn id(&self) -> String {
        match self {
            PublicKey::P256(bytes) | PublicKey::Ed25519(bytes) => super::digest::of(bytes),
        }
    }

    fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        let verified = match self {
            PublicKey::P256(point) => UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point).verify(message, signature),
            PublicKey::Ed25519(key) => UnparsedPublicKey::new(&ED25519, key).verify(message, signature),
        };
        verified.is_ok()
    }
}

/// The tag that the signatures of this manifest have (R2).
pub(super) fn tag_of(digest: &str) -> String {
    format!("{}.sig", digest.replace(':', "-"))
}

/// Which of the keys signed the image, as this payload with this signature, in base64, says (R3).
pub(super) fn check<'a>(
    keys: &'a [PublicKey],
    payload: &[u8],
    signature: &str,
    (image, digest): (&Reference, &str),
) -> Result<&'a PublicKey, String> {
    let signature = STANDARD.decode(signature.trim()).map_err(|_| "the signature is not base64".to_owned())?;
    // Nothing in the payload is believed before this.
    let none = || "it was signed with none of the keys that are trusted for this image".to_owned();
    let key = keys.iter().find(|key| key.has_signed(payload, &signature)).ok_or_else(none)?;
    let said: Payload = serde_json::from_slice(payload).map_err(|error| format!("its payload: {error}"))?;
    let said = said.critical;
    if said.kind != "cosign container image signature" {
        return Err(format!("it is {:?}, not a signature of an image", super::config::short(&said.kind)));
    }
    if said.image.digest != digest {
        return Err(format!("it is for {}", super::config::short(&said.image.digest)));
    }
    let named = said.identity.reference.parse::<Reference>().ok();
    match named {
        Some(named) if named.registry == image.registry && named.repository == image.repository => Ok(key),
        _ => Err(format!("it is for {}", super::config::short(&said.identity.reference))),
    }
}

#[cfg(test)]
mod tests {
    use super::{PublicKey, tag_of};

    #[test]
    fn keys_of_two_kinds_are_read_and_others_refused() {
        let p256 = "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEWhuH3g2CdVxUjBBKi/FkRCCyRiKK\nhFc8uvgHCPFpFMY2XhCLoUrVTXfZ4nYCNOW4hWPYvMX0KsjlNtALGhQ4pA==\n-----END PUBLIC KEY-----\n";
        assert!(matches!(PublicKey::of_pem(p256.as_bytes()), Ok(PublicKey::P256(_))));
        let ed25519 = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n";
        assert!(matches!(PublicKey::of_pem(ed25519.as_bytes()), Ok(PublicKey::Ed25519(_))));
        for bad in ["", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", &p256.replace("MFkw", "MFkx")] {
            assert!(PublicKey::of_pem(bad.as_bytes()).is_err(), "{bad}");
        }
        assert_eq!(tag_of("sha256:ab"), "sha256-ab.sig");
    }
}
