//! The cluster's signing key for tokens: ECDSA on P-256, in ES256's form (RFC 7518 §3.4).

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, UnparsedPublicKey,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// A key that signs tokens.
pub(crate) struct SigningKey {
    pair: EcdsaKeyPair,
    random: SystemRandom,
    id: String,
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
#[error("cannot use a P-256 key for tokens: {0}")]
pub(crate) struct SigningKeyError(String);

impl SigningKey {
    /// A new key, which nobody else has and a restart forgets.
    pub fn generate() -> Result<SigningKey, SigningKeyError> {
        let key = rcgen::KeyPair::generate().map_err(|error| SigningKeyError(error.to_string()))?;
        SigningKey::from_pkcs8(&key.serialize_der())
    }

    /// The key in these bytes.
    pub fn from_pkcs8(der: &[u8]) -> Result<SigningKey, SigningKeyError> {
        let random = SystemRandom::new();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der, &random)
            .map_err(|error| SigningKeyError(error.to_string()))?;
        let id = URL_SAFE_NO_PAD.encode(Sha256::digest(pair.public_key()));
        Ok(SigningKey { pair, random, id })
    }

    /// What tokens name it by: a hash of its public half.
    pub fn id(&self) -> &str {
        &self.id
    }

    pub fn sign(&self, bytes: &[u8]) -> Vec<u8> {
        let signature = self.pair.sign(&self.random, bytes);
        signature.expect("a signature fails only without randomness").as_ref().to_vec()
    }

    pub fn has_signed(&self, bytes: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.pair.public_key()).verify(bytes, signature).is_ok()
    }

    /// Its public half as a JSON Web Key.
    pub fn public(&self) -> Value {
        // An uncompressed point: one byte that says so, then both coordinates.
        let point = &self.pair.public_key().as_ref()[1..];
        let (x, y) = point.split_at(point.len() / 2);
        json!({
            "use": "sig", "kty": "EC", "kid": self.id, "crv": "P-256", "alg": "ES256",
            "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y),
        })
    }
}
