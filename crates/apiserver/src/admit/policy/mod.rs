//! Admission policies: expressions that change or refuse what is written.
//!
//! Rules, in order
//!   R1 bound       a policy acts through its bindings; without one it does nothing
//!   R2 matched     policy and binding both look at the request: operation, resource, namespace, labels (`matching`), and
//!                  all match conditions hold
//!   R3 params      a binding that names parameters acts once for each; if there are none, as `parameterNotFoundAction` says
//!   R4 mutate      mutating policies go first, by name; each sees what those before it made. What comes out is checked
//!                  against the schema and defaulted again
//!   R5 validate    every validation that is false is answered as the binding says: `Deny` refuses, `Warn` tells the client
//!   R6 failure     an expression that does not compile, fails or costs too much refuses the request, unless the policy's
//!                  `failurePolicy` is Ignore
//!   R7 types       what a validating policy's expressions get wrong about the kinds that it names is said in its status, for
//!                  the generation that was looked at
//!
//! Not here       what is never looked at (`event`) · mutating policies for what is not of the resource's own kind, as an
//!                Eviction; a scale is seen as the whole object · `Audit` and audit annotations · reinvocation of mutating
//!                policies · parameters are read in the version that is stored
//! Source: API reference, admissionregistration.k8s.io/v1; Kubernetes "Validating Admission Policy".

mod compiled;
mod evaluate;

use serde_json::Value;
use windlass_api::cel::{self, Budget};
use windlass_api::codec::Validation;
use windlass_api::merge::{PatchType, apply::combine, patch};
use windlass_api::{ApiError, Reason};
use windlass_store::Range;

pub(super) use compiled::Now;
pub(crate) use compiled::Policies;

use super::event::{Event, settle};
use super::matching;
use super::surroundings::Surroundings;
use crate::key;
use crate::server::Call;
use crate::write::{text, tree};
use compiled::{Actions, Binding, Kind, Mutation, Params, Policy, Validating};
use evaluate::Scope;

/// Parameters that one binding may select.
const PARAMS_MAX: usize = 1_000;

/// R4.
pub(super) fn mutate_all(
    call: Call<'_>,
    policies: &Now,
    operation: &str,
    old: &Value,
    object: &mut Value,
) -> Result<(), ApiError> {
    for policy in policies.of(Kind::Mutating) {
        mutate(call, policy, operation, (old, &mut *object))?;
    }
    Ok(())
}

/// R7.
pub(super) fn check_types(call: Call<'_>, policy: &mut Value) {
    let generation = policy["metadata"]["generation"].clone();
    if policy["status"]["observedGeneration"] == generation {
        return;
    }
    let checked = windlass_api::resources::check_types(policy, &call.server.served().registry);
    if !policy["status"].is_object() {
        policy["status"] = Value::Object(serde_json::Map::new());
    }
    policy["status"]["observedGeneration"] = generation;
    policy["status"]["typeChecking"] = checked;
}

/// Why a policy could not be asked.
struct Failure(String);

impl Failure {
    fn new(why: impl std::fmt::Display) -> Failure {
        Failure(why.to_string())
    }
}

/// R6: what becomes of a failure.
fn answer(call: Call<'_>, policy: &Policy, binding: &str, failure: &Failure, event: Event) -> Result<(), ApiError> {
    let why = format!("policy '{}' with binding '{binding}' denied request: {}", policy.name, failure.0);
    if !policy.fails {
        tracing::warn!(policy = %policy.name, binding, why = %failure.0, "an admission policy failed and is ignored");
        return Ok(());
    }
    Err(refusal(call, event, &why, Reason::Invalid))
}

fn refusal(call: Call<'_>, event: Event, why: &str, reason: Reason) -> ApiError {
    let name = text(&event.any()["metadata"], "name");
    let mut error = ApiError::forbidden(&call.target.resource.kind, name, why);
    error.reason = reason;
    error
}

/// R1-R3: runs a policy for every binding and parameter that it is to be run for.
fn each_binding(
    call: Call<'_>,
    policy: &Policy,
    event: Event,
    mut run: impl FnMut(&Binding, &Value) -> Result<Result<(), Failure>, ApiError>,
) -> Result<(), ApiError> {
    let namespace = matching::namespace(call);
    for binding in &policy.bindings {
        let matched = policy.matching.matches(call, event, namespace.as_ref())
            && binding.matching.matches(call, event, namespace.as_ref());
        if !matched {
            continue;
        }
        let params = match params(call, policy, binding) {
            Ok(params) => params,
            Err(failure) => {
                answer(call, policy, &binding.name, &failure, event)?;
                continue;
            }
        };
        for param in &params {
            if let Err(failure) = run(binding, param)? {
                answer(call, policy, &binding.name, &failure, event)?;
            }
        }
    }
    Ok(())
}

/// R3: the objects that a binding names; one null where the policy takes none.
fn params(call: Call<'_>, policy: &Policy, binding: &Binding) -> Result<Vec<Value>, Failure> {
    let (Some((api_version, kind)), Some(wanted)) = (&policy.params, &binding.params) else {
        return Ok(vec![Value::Null]);
    };
    let served = call.server.served();
    let Some(resource) = served.registry.find_kind(api_version, kind) else {
        return Err(Failure(format!("failed to find resource referenced by paramKind: '{api_version}, Kind={kind}'")));
    };
    let namespace = match (resource.kind.namespaced, wanted.namespace.as_str()) {
        (true, "") if call.target.namespace.is_empty() => {
            return Err(Failure(
                "failed to configure binding: cannot use namespaced paramRef in policy binding that \
                                matches cluster-scoped resources"
                    .to_owned(),
            ));
        }
        (true, "") => call.target.namespace.as_str(),
        (_, namespace) => namespace,
    };
    let found = find_params(call, wanted, &resource.kind, namespace)?;
    if found.is_empty() && wanted.denies {
        return Err(Failure(
            "failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction"
                .to_owned(),
        ));
    }
    Ok(found)
}

fn find_params(
    call: Call<'_>,
    wanted: &Params,
    kind: &windlass_api::Kind,
    namespace: &str,
) -> Result<Vec<Value>, Failure> {
    let store = &call.server.store;
    if let Some(selector) = &wanted.selector {
        let page = store.range(&Range::prefix(key::prefix(kind, namespace))).map_err(Failure::new)?;
        let objects = page.entries.iter().map(|entry| tree(entry));
        let matching = objects.filter(|object| selector.matches_json(&object["metadata"]["labels"]));
        return Ok(matching.take(PARAMS_MAX).collect());
    }
    let found = (!wanted.name.contains('/')).then(|| store.get(&key::object(kind, namespace, &wanted.name))).flatten();
    Ok(found.iter().map(|entry| tree(entry)).collect())
}

/// R5.
pub(super) fn validate(call: Call<'_>, policies: &Now, event: Event) -> Result<(), ApiError> {
    for policy in policies.of(Kind::Validating) {
        each_binding(call, policy, event, |binding, param| {
            let mut refused = None;
            let done = evaluate::check(call, policy, event, param, |validation, why| {
                report(call, policy, binding, (validation, why), event, &mut refused);
            });
            match refused {
                Some(error) => Err(error),
                None => Ok(done),
            }
        })?;
    }
    Ok(())
}

/// A validation that does not hold, answered as its binding says.
fn report(
    call: Call<'_>,
    policy: &Policy,
    binding: &Binding,
    (validation, why): (&Validating, &str),
    event: Event,
    refused: &mut Option<ApiError>,
) {
    let about = format!("ValidatingAdmissionPolicy '{}' with binding '{}'", policy.name, binding.name);
    let Actions { deny, warn } = binding.actions;
    if warn {
        call.warned.add(format!("Validation failed for {about}: {why}"));
    }
    if deny && refused.is_none() {
        *refused = Some(refusal(call, event, &format!("{about} denied request: {why}"), validation.reason));
    }
}

/// R4.
fn mutate(
    call: Call<'_>,
    policy: &Policy,
    operation: &str,
    (old, object): (&Value, &mut Value),
) -> Result<(), ApiError> {
    let before = object.clone();
    let event = Event::new(operation, old, &before);
    let mut changed = before.clone();
    each_binding(call, policy, event, |_, param| {
        let now = changed.clone();
        let event = Event::new(operation, old, &now);
        match mutated(call, policy, event, param) {
            Ok(Some(object)) => {
                changed = object;
                Ok(Ok(()))
            }
            Ok(None) => Ok(Ok(())),
            Err(failure) => Ok(Err(failure)),
        }
    })?;
    if changed != before {
        let by = format!("policy '{}'", policy.name);
        settle(call, &call.target.resource, (&before, &mut changed), (&by, Validation::Strict))?;
        *object = changed;
    }
    Ok(())
}

/// The object as one policy makes it with one parameter; `None` if a match condition does not hold.
fn mutated(call: Call<'_>, policy: &Policy, event: Event, param: &Value) -> Result<Option<Value>, Failure> {
    let mut object = event.object.clone();
    for mutation in policy.mutations.as_ref().map_err(Failure::new)? {
        let now = object.clone();
        let surroundings = Surroundings::of(call, Event { object: &now, ..event }, param);
        let scope = Scope::new(policy, &surroundings);
        let mut budget = Budget::new(cel::OBJECT_COST_MAX);
        if !scope.conditions_hold(&mut budget)? {
            return Ok(None);
        }
        let (Mutation::Apply(program) | Mutation::Patch(program)) = mutation;
        let made = program.evaluate(&scope, &mut budget).map_err(Failure::new)?.to_json().map_err(Failure::new)?;
        object = match mutation {
            Mutation::Apply(_) => combine(now.clone(), &made, call.target.resource.message.get()),
            Mutation::Patch(_) => {
                let body = made.to_string();
                patch(PatchType::Json, &now, body.as_bytes(), None).map_err(Failure::new)?.value
            }
        };
    }
    Ok(Some(object))
}
