//! Service account tokens that pods have projected into their volumes: asked of the API, renewed before they end.
//!
//! Source: API reference, TokenRequest: bound to the pod, so it ends with it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;
use tokio::time::Instant;
use windlass_api::kinds;
use windlass_api::types::core;

use crate::steps::PodContext;

/// How long a token lives when the volume does not say.
const LIFETIME_DEFAULT_SECONDS: i64 = 3600;
/// The shortest life the API gives.
const LIFETIME_SECONDS_MIN: i64 = 600;

/// What token is wanted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TokenRequest {
    /// For whom; empty is the API server itself.
    pub audience: String,
    /// For how long.
    pub seconds: i64,
}

impl TokenRequest {
    /// How long a token lives that nobody says more of.
    pub const SECONDS: i64 = LIFETIME_DEFAULT_SECONDS;

    /// What a volume asks for.
    pub fn of(projection: &core::ServiceAccountTokenProjection) -> TokenRequest {
        let seconds = projection.expiration_seconds.unwrap_or(LIFETIME_DEFAULT_SECONDS).max(LIFETIME_SECONDS_MIN);
        TokenRequest { audience: projection.audience.clone().unwrap_or_default(), seconds }
    }
}

/// A token that was not renewed is taken to live for so long, and then it is tried again.
const RETRY: Duration = Duration::from_secs(600);
/// However short a token's life, it is used for so long.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest a token is used although it lives on.
const USED_MAX: Duration = Duration::from_secs(24 * 3600);

struct Token {
    text: String,
    /// When it ends, in the API's words.
    ends: String,
    renew_at: Instant,
}

/// How long a token lives, as the API says, which need not be as long as it was asked for.
fn life(ends: &str, now: Timestamp) -> Option<Duration> {
    let ends: Timestamp = ends.parse().ok()?;
    Duration::try_from(ends.duration_since(now)).ok()
}

/// The tokens of one pod. Cheap to clone.
#[derive(Clone, Default)]
pub struct Tokens(Arc<Mutex<BTreeMap<TokenRequest, Token>>>);

impl Tokens {
    /// The tokens asked for; those that are due are asked of the API. One that cannot be renewed is used on.
    pub async fn fetch(
        &self,
        pod: &PodContext,
        requests: Vec<TokenRequest>,
    ) -> Result<BTreeMap<TokenRequest, String>, String> {
        let mut out = BTreeMap::new();
        for request in requests {
            let known = {
                let tokens = self.0.lock().expect("nothing panics while holding it");
                tokens.get(&request).map(|token| (token.told(), token.renew_at > Instant::now()))
            };
            let text = match known {
                Some(((text, _), true)) => text,
                known => match (ask(pod, &request).await, known) {
                    (Ok(told), _) => {
                        let asked = Duration::from_secs(u64::try_from(request.seconds).unwrap_or(0));
                        self.keep(&request, life(&told.1, pod.shared.world.now()).unwrap_or(asked), told)
                    }
                    (Err(why), Some((told, _))) => {
                        tracing::warn!(pod = pod.name(), why, "a service account token was not renewed; it is used on");
                        self.keep(&request, RETRY, told)
                    }
                    (Err(why), None) => return Err(why),
                },
            };
            out.insert(request, text);
        }
        Ok(out)
    }

    /// When the first of them must be renewed.
    pub fn renew_at(&self) -> Option<Instant> {
        self.0.lock().expect("nothing panics while holding it").values().map(|token| token.renew_at).min()
    }

    /// When a token that was fetched ends, in the API's words.
    pub fn ends(&self, request: &TokenRequest) -> String {
        let tokens = self.0.lock().expect("nothing panics while holding it");
        tokens.get(request).map(|token| token.ends.clone()).unwrap_or_default()
    }

    /// Keeps a token that is taken to live for so long from now on.
    fn keep(&self, request: &TokenRequest, life: Duration, (text, ends): (String, String)) -> String {
        // At four fifths of its life, as kubelet does; never again and again without a pause.
        let used = (life * 4 / 5).clamp(PAUSE, USED_MAX);
        let token = Token { text: text.clone(), ends, renew_at: Instant::now() + used };
        self.0.lock().expect("nothing panics while holding it").insert(request.clone(), token);
        text
    }
}

impl Token {
    fn told(&self) -> (String, String) {
        (self.text.clone(), self.ends.clone())
    }
}

/// A token and when it ends.
async fn ask(pod: &PodContext, request: &TokenRequest) -> Result<(String, String), String> {
    let account = pod.spec().service_account_name.as_deref().filter(|name| !name.is_empty()).unwrap_or("default");
    let audiences: Vec<&str> =
        Some(request.audience.as_str()).filter(|audience| !audience.is_empty()).into_iter().collect();
    let body = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "metadata": {},
        "spec": {"audiences": audiences, "expirationSeconds": request.seconds,
            "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": pod.name(), "uid": &*pod.uid}},
    });
    let client = &pod.shared.client;
    let answer = client.create_sub(&kinds::SERVICE_ACCOUNT, pod.namespace(), account, "token", &body).await;
    let answer = answer.map_err(|error| format!("failed to fetch token of service account {account:?}: {error}"))?;
    let ends = answer["status"]["expirationTimestamp"].as_str().unwrap_or_default().to_owned();
    answer["status"]["token"].as_str().map(|token| (token.to_owned(), ends)).ok_or_else(|| {
        format!("failed to fetch token of service account {account:?}: expected status.token in the answer, found none")
    })
}

#[cfg(test)]
mod tests {
    use super::{RETRY, TokenRequest, Tokens, life};
    use jiff::Timestamp;
    use std::time::Duration;
    use tokio::time::Instant;

    #[test]
    fn a_token_that_is_used_on_is_not_due_at_once() {
        let (tokens, request) = (Tokens::default(), TokenRequest { audience: String::new(), seconds: 3600 });
        let told = || ("t".to_owned(), String::new());
        // Its life is over, and it cannot be renewed.
        tokens.keep(&request, Duration::ZERO, told());
        assert_eq!(tokens.keep(&request, RETRY, told()), "t");
        let renew_at = tokens.renew_at().expect("it is held");
        assert!(renew_at > Instant::now() + Duration::from_secs(60));
    }

    #[test]
    fn a_token_lives_as_long_as_the_api_says() {
        let of = |ends: &str| life(ends, Timestamp::UNIX_EPOCH).map(|life| life.as_secs());
        assert_eq!([of("1970-01-01T00:01:00Z"), of("1969-12-31T00:00:00Z"), of("")], [Some(60), None, None]);
        let (tokens, request) = (Tokens::default(), TokenRequest { audience: String::new(), seconds: 3600 });
        for (life, used) in [(100, 80), (10 * 24 * 3600, 24 * 3600), (0, 1)] {
            tokens.keep(&request, Duration::from_secs(life), ("t".to_owned(), String::new()));
            let wait = tokens.renew_at().expect("it is held") - Instant::now();
            assert!(
                wait <= Duration::from_secs(used) && wait + Duration::from_secs(1) > Duration::from_secs(used),
                "{wait:?}"
            );
        }
    }
}
