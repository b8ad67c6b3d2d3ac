//! Service account tokens: what pods and programs prove themselves by.
//!
//! Goal        a token proves an account for as long as it, the account and what the token is bound to are there
//! Relies on   the cluster's signing key (`key`); the store for what a token is bound to (`bound`)
//!
//! Rules
//!   T1 signed     by one of this cluster's keys, named by its id, in ES256 and no other way; the first key signs
//!   T2 in time    not before it was made, not at or after its end
//!   T3 for us     its issuer is this cluster, and it is meant for an audience that was asked for
//!   T4 bound      see `bound`: checked on every use, against the store of that moment
//!   T5 bounded    a token is at most [`TOKEN_BYTES_MAX`] long; a checked signature is remembered by the token's hash, so
//!                 many of them, and the oldest are forgotten
//!
//! Source: service account tokens as Kubernetes makes them (KEP-1205); RFC 7519, RFC 7518 §3.4.
//!   T6 rotated    keys are taken in and dropped while the server runs; all that count are published
//!
//! Not here    tokens of other issuers

mod bound;
mod claims;
mod key;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, RwLock};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

pub(crate) use bound::identity;
pub(crate) use claims::{Claims, Private, Ref};
pub(crate) use key::SigningKey;

/// Who issues tokens, and whom they are for unless somebody else is named: the API's name in the cluster.
pub(crate) const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
/// Longest token: ours have about 1 KiB.
const TOKEN_BYTES_MAX: usize = 16 * 1024;
/// Tokens whose signature is known to be right. A node's pods have a handful each; a claim set is about 1 KiB.
const KNOWN_MAX: usize = 8192;

/// Makes and checks tokens.
pub(crate) struct Tokens {
    /// The first signs.
    keys: RwLock<Arc<[SigningKey]>>,
    known: Mutex<Known>,
}

/// Tokens seen lately, in two halves: when the young one is full it takes the place of the old one.
#[derive(Default)]
struct Known {
    young: BTreeMap<[u8; 32], Arc<Claims>>,
    old: BTreeMap<[u8; 32], Arc<Claims>>,
}

/// Why a token proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TokenError {
    #[error("the token is malformed: expected {0}")]
    Malformed(&'static str),
    #[error("the token is not signed by this cluster")]
    Signature,
    #[error("the token is of another issuer")]
    Issuer,
    #[error("the token is expired or not valid yet")]
    Time,
    #[error("the token audiences {found:?} is invalid for the target audiences {wanted:?}")]
    Audience { found: Vec<String>, wanted: Vec<String> },
    #[error("the token is bound to {0}, which is gone")]
    Unbound(String),
}

impl Tokens {
    /// Signs with the first of these keys, of which there is one at least.
    pub fn new(keys: Vec<SigningKey>) -> Tokens {
        Tokens { keys: RwLock::new(keys.into()), known: Mutex::default() }
    }

    fn keys(&self) -> Arc<[SigningKey]> {
        self.keys.read().expect("nothing panics while holding the keys").clone()
    }

    /// T6: these keys count from now on; `true` when that is news.
    pub fn rotate(&self, keys: Vec<SigningKey>) -> bool {
        if keys.is_empty() || self.keys().iter().map(SigningKey::id).eq(keys.iter().map(SigningKey::id)) {
            return false;
        }
        *self.keys.write().expect("nothing panics while holding the keys") = keys.into();
        // What a key that is gone has signed proves nothing any more.
        *self.known() = Known::default();
        true
    }

    /// The token of these claims.
    pub fn sign(&self, claims: &Claims) -> String {
        let keys = self.keys();
        let key = keys.first().expect("there is a key at least");
        let head = json!({"alg": "ES256", "kid": key.id()}).to_string();
        let body = serde_json::to_string(claims).expect("claims are texts and numbers");
        let mut token = format!("{}.{}", URL_SAFE_NO_PAD.encode(head), URL_SAFE_NO_PAD.encode(body));
        let signature = key.sign(token.as_bytes());
        token.push('.');
        token.push_str(&URL_SAFE_NO_PAD.encode(signature));
        token
    }

    /// T1–T3: the claims of a token that is right at `now` (Unix seconds) for one of these audiences.
    pub fn check(&self, token: &str, now: i64, audiences: &[String]) -> Result<Arc<Claims>, TokenError> {
        let claims = self.signed(token)?;
        if claims.iss != ISSUER {
            return Err(TokenError::Issuer);
        }
        if now < claims.nbf || claims.exp.is_some_and(|exp| now >= exp) {
            return Err(TokenError::Time);
        }
        if !audiences.iter().any(|audience| claims.aud.contains(audience)) {
            return Err(TokenError::Audience { found: claims.aud.clone(), wanted: audiences.to_vec() });
        }
        Ok(claims)
    }

    /// T1 and T5.
    fn signed(&self, token: &str) -> Result<Arc<Claims>, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::Malformed("a token of at most 16 KiB"));
        }
        let hash: [u8; 32] = Sha256::digest(token).into();
        if let Some(claims) = self.known().get(&hash) {
            return Ok(claims);
        }
        let claims = Arc::new(self.read(token)?);
        self.known().put(hash, &claims);
        Ok(claims)
    }

    fn read(&self, token: &str) -> Result<Claims, TokenError> {
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed("three parts"))?;
        let (head, body) = signed.split_once('.').ok_or(TokenError::Malformed("three parts"))?;
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Malformed("base64url"));
        let head: Value =
            serde_json::from_slice(&decode(head)?).map_err(|_| TokenError::Malformed("a header in JSON"))?;
        let keys = self.keys();
        let named = keys.iter().find(|key| head["kid"] == key.id());
        let key = named.filter(|_| head["alg"] == "ES256").ok_or(TokenError::Signature)?;
        if !key.has_signed(signed.as_bytes(), &decode(signature)?) {
            return Err(TokenError::Signature);
        }
        serde_json::from_slice(&decode(body)?).map_err(|_| TokenError::Malformed("the claims of a service account"))
    }

    /// The keys to check tokens by, as a JSON Web Key Set (RFC 7517).
    pub fn key_set(&self) -> Value {
        json!({"keys": self.keys().iter().map(SigningKey::public).collect::<Vec<_>>()})
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().expect("nothing panics while holding the known tokens")
    }
}

impl Known {
    fn get(&mut self, hash: &[u8; 32]) -> Option<Arc<Claims>> {
        if let Some(found) = self.young.get(hash) {
            return Some(found.clone());
        }
        let found = self.old.remove(hash)?;
        self.put(*hash, &found);
        Some(found)
    }

    fn put(&mut self, hash: [u8; 32], claims: &Arc<Claims>) {
        if self.young.len() >= KNOWN_MAX / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(hash, claims.clone());
    }
}

/// OpenID Connect discovery (RFC 8414), for those who check tokens by themselves. `address` is where this server is
/// reached.
pub(crate) fn discovery(address: &str) -> Value {
    json!({
        "issuer": ISSUER, "jwks_uri": format!("https://{address}/openid/v1/jwks"),
        "response_types_supported": ["id_token"], "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    })
}

#[cfg(test)]
mod tests {
    use super::{Claims, ISSUER, KNOWN_MAX, SigningKey, TokenError, Tokens};
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use serde_json::json;

    fn tokens() -> Tokens {
        Tokens::new(vec![SigningKey::generate().expect("randomness")])
    }

    fn claims() -> Claims {
        let json = json!({"iss": ISSUER, "sub": "system:serviceaccount:a:bot", "aud": [ISSUER], "iat": 100, "nbf": 100,
            "exp": 200, "jti": "j", "kubernetes.io": {"namespace": "a", "serviceaccount": {"name": "bot", "uid": "u"}}});
        serde_json::from_value(json).expect("claims")
    }

    fn check(tokens: &Tokens, token: &str, now: i64) -> Result<(), TokenError> {
        tokens.check(token, now, &[ISSUER.to_owned()]).map(|_| ())
    }

    #[test]
    fn t6_a_token_counts_as_long_as_its_key_does() {
        let ours = tokens();
        let keys = || -> Vec<SigningKey> { (0..2).map(|_| SigningKey::generate().expect("randomness")).collect() };
        let first = ours.sign(&claims());
        assert_eq!(check(&ours, &first, 150), Ok(()));
        let theirs = Tokens::new(keys());
        let second = theirs.sign(&claims());
        let id = theirs.keys()[0].id().to_owned();
        assert!(theirs.rotate(keys()), "other keys are news");
        assert_eq!(check(&theirs, &second, 150), Err(TokenError::Signature), "though it was known");
        assert!(!theirs.key_set()["keys"].to_string().contains(&id));
        assert!(!theirs.rotate(Vec::new()), "a server without keys could prove nobody");
        assert_eq!(theirs.key_set()["keys"].as_array().map(Vec::len), Some(2));
    }

    #[test]
    fn t1_only_this_clusters_signature_counts() {
        let (ours, theirs) = (tokens(), tokens());
        let token = ours.sign(&claims());
        assert_eq!(check(&ours, &token, 150), Ok(()));
        assert_eq!(check(&theirs, &token, 150), Err(TokenError::Signature));
        let parts: Vec<&str> = token.split('.').collect();
        let mut forged = claims();
        forged.sub = "system:serviceaccount:kube-system:admin".to_owned();
        let forged = URL_SAFE_NO_PAD.encode(serde_json::to_string(&forged).expect("JSON"));
        assert_eq!(check(&ours, &format!("{}.{forged}.{}", parts[0], parts[2]), 150), Err(TokenError::Signature));
        let none = URL_SAFE_NO_PAD.encode(json!({"alg": "none", "kid": ours.keys()[0].id()}).to_string());
        assert_eq!(check(&ours, &format!("{none}.{}.", parts[1]), 150), Err(TokenError::Signature));
        for broken in ["", "a", "a.b", "a.b.c", "....", "é.é.é"] {
            assert!(check(&ours, broken, 150).is_err(), "{broken}");
        }
    }

    #[test]
    fn t2_a_token_has_its_time() {
        let tokens = tokens();
        let token = tokens.sign(&claims());
        for (now, right) in [(99, false), (100, true), (199, true), (200, false)] {
            assert_eq!(check(&tokens, &token, now).is_ok(), right, "{now}");
        }
    }

    #[test]
    fn t3_a_token_is_for_whom_it_names() {
        let tokens = tokens();
        let token = tokens.sign(&Claims { aud: vec!["vault".to_owned()], ..claims() });
        assert!(matches!(check(&tokens, &token, 150), Err(TokenError::Audience { .. })));
        assert!(tokens.check(&token, 150, &["other".to_owned(), "vault".to_owned()]).is_ok());
        let foreign = tokens.sign(&Claims { iss: "https://example.com".to_owned(), ..claims() });
        assert_eq!(check(&tokens, &foreign, 150), Err(TokenError::Issuer));
    }

    #[test]
    fn t5_what_is_remembered_is_bounded() {
        let tokens = tokens();
        let token = tokens.sign(&claims());
        assert_eq!(check(&tokens, &token, 150), Ok(()));
        let claims = std::sync::Arc::new(claims());
        for number in 0..2 * KNOWN_MAX as u64 {
            let mut hash = [0; 32];
            hash[..8].copy_from_slice(&number.to_le_bytes());
            tokens.known().put(hash, &claims);
        }
        let known = tokens.known();
        assert!(known.young.len() + known.old.len() <= KNOWN_MAX);
        drop(known);
        assert_eq!(check(&tokens, &token, 150), Ok(()), "what was forgotten is checked again");
        assert!(check(&tokens, &"x".repeat(20_000), 150).is_err());
    }
}
