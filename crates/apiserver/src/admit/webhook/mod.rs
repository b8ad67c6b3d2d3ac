//! Admission webhooks: other servers that change or refuse what is written.
//!
//! Rules, in order
//!   W1 matched     a webhook is asked about what its rules, selectors and match conditions name (`matching`); an object in
//!                  another version than its rules name is converted for it
//!   W2 mutate      mutating webhooks go one after the other, by the name of their configuration and their place in it; each
//!                  sees what those before it made, and its JSON patch is settled before the next one looks
//!   W3 again       one whose `reinvocationPolicy` is IfNeeded is asked once more if the object changed after it was asked
//!   W4 validate    validating webhooks are asked at the same time about the object as it will be; the first refusal counts
//!   W5 failure     one that cannot be asked refuses the request, unless its `failurePolicy` is Ignore; a refusal, or a patch
//!                  that does not fit, always counts
//!   W6 told        warnings go to the client
//!
//! Relies on      a `sideEffects` of None or NoneOnDryRun, which the kind's own rules demand: dry runs ask too
//! Not here       audit annotations · policies again after webhooks · review kinds such as TokenReview
//! Source: API reference, admissionregistration.k8s.io/v1; Kubernetes "Dynamic Admission Control".

mod review;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use serde_json::Value;
use windlass_api::cel::{Budget, MATCH_CONDITIONS_COST_MAX, Program};
use windlass_api::codec::Validation;
use windlass_api::merge::{PatchType, patch};
use windlass_api::resources::webhook_environment;
use windlass_api::{ApiError, Resource};
use windlass_store::Entry;

use super::event::{Event, request, settle};
use super::matching::{self, Matching};
use super::surroundings::{Plain, Surroundings, conditions_hold, read_conditions};
use crate::convert;
use crate::remote::Remote;
use crate::server::Call;
use crate::write::{text, tree};

/// Validating webhooks that are asked at one time about one request.
const ASKED_AT_ONCE_MAX: usize = 16;
/// Seconds that a webhook has which does not say.
const TIMEOUT_SECONDS: u64 = 10;

/// One webhook.
pub(super) struct Hook {
    name: String,
    matching: Matching,
    /// `matchPolicy` is Equivalent.
    is_equivalent: bool,
    /// Programs, or why one of them is none.
    conditions: Result<Vec<Program>, String>,
    /// `failurePolicy` is Fail.
    fails: bool,
    /// `reinvocationPolicy` is IfNeeded.
    is_reinvoked: bool,
    time: Duration,
    /// The version of the reviews that it takes.
    version: &'static str,
    remote: Remote,
}

/// All webhooks, by the key of their configuration.
#[derive(Default, Clone)]
pub(super) struct Hooks {
    mutating: BTreeMap<String, Arc<Vec<Hook>>>,
    validating: BTreeMap<String, Arc<Vec<Hook>>>,
}

impl Hooks {
    pub fn is_empty(&self) -> bool {
        self.mutating.is_empty() && self.validating.is_empty()
    }

    /// Whether some may change objects.
    pub fn mutate(&self) -> bool {
        !self.mutating.is_empty()
    }

    /// Whether some are asked about objects.
    pub fn validate(&self) -> bool {
        !self.validating.is_empty()
    }

    pub fn put(&mut self, entry: &Entry) {
        let configuration = tree(entry);
        let hooks = configuration["webhooks"].as_array().into_iter().flatten().map(Hook::read).collect();
        self.of(entry.key()).insert(entry.key().to_owned(), Arc::new(hooks));
    }

    pub fn remove(&mut self, key: &str) {
        self.of(key).remove(key);
    }

    fn of(&mut self, key: &str) -> &mut BTreeMap<String, Arc<Vec<Hook>>> {
        if key.starts_with("o/mutating") { &mut self.mutating } else { &mut self.validating }
    }
}

impl Hook {
    fn read(webhook: &Value) -> Hook {
        let versions = webhook["admissionReviewVersions"].as_array().into_iter().flatten();
        let known = versions.filter_map(|version| review::VERSIONS.into_iter().find(|known| version == known)).next();
        Hook {
            name: text(webhook, "name").to_owned(),
            matching: Matching::read_webhook(webhook),
            is_equivalent: text(webhook, "matchPolicy") != "Exact",
            conditions: read_conditions(&webhook_environment(), webhook),
            fails: text(webhook, "failurePolicy") != "Ignore",
            is_reinvoked: text(webhook, "reinvocationPolicy") == "IfNeeded",
            time: Duration::from_secs(webhook["timeoutSeconds"].as_u64().unwrap_or(TIMEOUT_SECONDS)),
            version: known.unwrap_or(review::VERSIONS[0]),
            remote: Remote::of_client_config(&webhook["clientConfig"]),
        }
    }

    /// W5: what becomes of a failure.
    fn failed(&self, why: &str) -> Result<(), ApiError> {
        if self.fails {
            return Err(ApiError::internal(format!("failed calling webhook {:?}: {why}", self.name)));
        }
        tracing::warn!(webhook = %self.name, why, "an admission webhook failed and is ignored");
        Ok(())
    }
}

/// A request as one webhook sees it.
struct Seen<'a> {
    row: Arc<Resource>,
    object: Cow<'a, Value>,
    old: Cow<'a, Value>,
    request: Value,
}

/// W1; `None` where the webhook is not asked.
async fn look<'a>(
    call: Call<'_>,
    hook: &Hook,
    event: Event<'a>,
    namespace: Option<&Value>,
) -> Result<Option<Seen<'a>>, ApiError> {
    let Some(row) = hook.matching.find(call, event, (namespace, hook.is_equivalent)) else { return Ok(None) };
    let own = &call.target.resource;
    let mut shown = [Cow::Borrowed(event.object), Cow::Borrowed(event.old)];
    if row.kind != own.kind {
        for object in shown.iter_mut().filter(|object| object["kind"] == *own.kind.kind) {
            if let Err(error) = convert::between(call.server, (own, &row), object.to_mut()).await {
                hook.failed(&error.message)?;
                return Ok(None);
            }
        }
    }
    let [object, old] = shown;
    let seen = Event { object: &object, old: &old, ..event };
    let request = request(call, event, (&row, seen));
    if !matches!(&hook.conditions, Ok(conditions) if conditions.is_empty()) {
        let around = Surroundings::told(call, seen, request.clone());
        let mut budget = Budget::new(MATCH_CONDITIONS_COST_MAX);
        match conditions_hold(&hook.conditions, &Plain(&around), &mut budget) {
            Ok(true) => {}
            Ok(false) => return Ok(None),
            Err(why) => {
                hook.failed(&format!("match conditions: {why}"))?;
                return Ok(None);
            }
        }
    }
    Ok(Some(Seen { row, object, old, request }))
}

/// W2 and W3: what webhooks make of an object. `event` is what happens to it, but for the object itself.
pub(super) async fn mutate(
    call: Call<'_>,
    hooks: &Hooks,
    event: Event<'_>,
    object: &mut Value,
) -> Result<(), ApiError> {
    let all: Vec<&Hook> = hooks.mutating.values().flat_map(|hooks| hooks.iter()).collect();
    let namespace = matching::namespace(call);
    let (mut asked, mut again) = (Vec::new(), BTreeSet::new());
    for (place, hook) in all.iter().enumerate() {
        let outcome = ask_to_change(call, hook, event, (namespace.as_ref(), &mut *object)).await?;
        if outcome == Outcome::Changed {
            again.extend(asked.drain(..));
        }
        if outcome != Outcome::NotAsked && hook.is_reinvoked {
            asked.push(place);
        }
    }
    for hook in again.into_iter().filter_map(|place: usize| all.get(place)) {
        ask_to_change(call, hook, event, (namespace.as_ref(), &mut *object)).await?;
    }
    Ok(())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    NotAsked,
    Same,
    Changed,
}

async fn ask_to_change(
    call: Call<'_>,
    hook: &Hook,
    event: Event<'_>,
    (namespace, object): (Option<&Value>, &mut Value),
) -> Result<Outcome, ApiError> {
    let changed = {
        let event = Event { object: &*object, ..event };
        let Some(seen) = look(call, hook, event, namespace).await? else { return Ok(Outcome::NotAsked) };
        match review::ask(call, hook, (&seen.request, &seen.object, &seen.old)).await {
            Err(why) => {
                hook.failed(&why)?;
                return Ok(Outcome::Same);
            }
            Ok(answer) => match answer.allowed(call, hook)? {
                None => return Ok(Outcome::Same),
                Some(body) => patched(call, hook, &seen, &body).await?,
            },
        }
    };
    if changed == *object {
        return Ok(Outcome::Same);
    }
    *object = changed;
    Ok(Outcome::Changed)
}

/// The object as a webhook's patch makes it, in the version of the request.
async fn patched(call: Call<'_>, hook: &Hook, seen: &Seen<'_>, body: &[u8]) -> Result<Value, ApiError> {
    let by = format!("admission webhook {:?}", hook.name);
    if seen.object.is_null() {
        let why = format!("{by} attempted to modify the object, which is not supported for this operation");
        return Err(ApiError::internal(why));
    }
    let patched = patch(PatchType::Json, &seen.object, body, None);
    let mut patched = patched.map_err(|error| ApiError::internal(format!("{by}: {error}")))?.value;
    let own = &call.target.resource;
    if seen.object["kind"] != *own.kind.kind {
        if !patched.is_object() || ["apiVersion", "kind"].iter().any(|field| patched[field] != seen.object[field]) {
            return Err(ApiError::internal(format!("{by} must leave a {}", text(&seen.object, "kind"))));
        }
        return Ok(patched);
    }
    settle(call, &seen.row, (&seen.object, &mut patched), (&by, Validation::Ignore))?;
    if seen.row.kind != own.kind {
        convert::between(call.server, (&seen.row, own), &mut patched).await?;
        own.rules.default(&mut patched);
    }
    Ok(patched)
}

/// W4.
pub(super) async fn validate(call: Call<'_>, hooks: &Hooks, event: Event<'_>) -> Result<(), ApiError> {
    if !hooks.validate() {
        return Ok(());
    }
    let namespace = matching::namespace(call);
    let namespace = namespace.as_ref();
    let all = hooks.validating.values().flat_map(|hooks| hooks.iter());
    let asked: Vec<_> = all.map(|hook| ask_whether(call, hook, event, namespace).boxed()).collect();
    let mut answers = futures::stream::iter(asked).buffered(ASKED_AT_ONCE_MAX);
    while let Some(answer) = answers.next().await {
        answer?;
    }
    Ok(())
}

async fn ask_whether(call: Call<'_>, hook: &Hook, event: Event<'_>, namespace: Option<&Value>) -> Result<(), ApiError> {
    let Some(seen) = look(call, hook, event, namespace).await? else { return Ok(()) };
    match review::ask(call, hook, (&seen.request, &seen.object, &seen.old)).await {
        Err(why) => hook.failed(&why),
        Ok(answer) => match answer.allowed(call, hook)? {
            None => Ok(()),
            Some(_) => hook.failed("received invalid webhook response: validating webhook may not return a patch"),
        },
    }
}
