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
//!   R7 exempt      policies, their bindings and the rest of their group are never looked at: none can lock itself in
//!
//! Not here       the pods/binding and scale subresources' own objects · `Audit` and audit annotations (there is no audit log) · `status.typeChecking` · reinvocation of mutating
//!                policies · `authorizer.requestResource` · connects (exec, proxy) and evictions · parameters are read in
//!                the version that is stored
//! Source: API reference, admissionregistration.k8s.io/v1; Kubernetes "Validating Admission Policy".

mod compiled;
mod evaluate;
mod matching;

use serde_json::{Value, json};
use windlass_api::cel::{self, Budget, Type};
use windlass_api::codec::{Validation, check_fields};
use windlass_api::merge::{PatchType, apply::combine, patch};
use windlass_api::{ApiError, Reason, kinds};
use windlass_store::Range;

pub(crate) use compiled::Policies;

use crate::key;
use crate::server::Call;
use crate::write::{text, tree};
use compiled::{Actions, Binding, Kind, Mutation, Now, Params, Policy, Validating};
use evaluate::Scope;

/// Parameters that one binding may select.
const PARAMS_MAX: usize = 1_000;

/// What happens to an object: both are null where there is none.
#[derive(Clone, Copy)]
pub(super) struct Event<'a> {
    pub operation: &'a str,
    pub object: &'a Value,
    pub old: &'a Value,
}

impl<'a> Event<'a> {
    /// The object that is there in any case.
    fn any(&self) -> &'a Value {
        if self.object.is_null() { self.old } else { self.object }
    }
}

/// R4, then R5.
pub(super) fn admit(call: Call<'_>, operation: &str, old: &Value, object: &mut Value) -> Result<(), ApiError> {
    let policies = call.server.policies.look(&call.server.store, Policies::now);
    if policies.is_empty() || is_exempt(call) {
        return Ok(());
    }
    for policy in policies.of(Kind::Mutating) {
        mutate(call, policy, operation, (old, &mut *object))?;
    }
    validate(call, &policies, Event { operation, object, old })
}

/// R5, for an object that goes.
pub(super) fn admit_delete(call: Call<'_>, old: &Value) -> Result<(), ApiError> {
    let policies = call.server.policies.look(&call.server.store, Policies::now);
    if policies.is_empty() || is_exempt(call) {
        return Ok(());
    }
    validate(call, &policies, Event { operation: "DELETE", object: &Value::Null, old })
}

/// R7.
fn is_exempt(call: Call<'_>) -> bool {
    call.target.resource.kind.group == kinds::VALIDATING_ADMISSION_POLICY.group
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
fn validate(call: Call<'_>, policies: &Now, event: Event) -> Result<(), ApiError> {
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
    let event = Event { operation, object: &before, old };
    let mut changed = before.clone();
    each_binding(call, policy, event, |_, param| {
        let now = changed.clone();
        let event = Event { operation, object: &now, old };
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
        let message = call.target.resource.message.get();
        check_fields(&mut changed, message, &[], Validation::Strict)?;
        for field in ["apiVersion", "kind"] {
            changed[field] = before[field].clone();
        }
        for field in ["name", "namespace", "uid", "creationTimestamp"] {
            if before["metadata"].get(field) != changed["metadata"].get(field) {
                let why = format!("policy '{}' must not change metadata.{field}", policy.name);
                return Err(refusal(call, event, &why, Reason::Invalid));
            }
        }
        call.target.resource.rules.default(&mut changed);
        *object = changed;
    }
    Ok(())
}

/// The object as one policy makes it with one parameter; `None` if a match condition does not hold.
fn mutated(call: Call<'_>, policy: &Policy, event: Event, param: &Value) -> Result<Option<Value>, Failure> {
    let mut object = event.object.clone();
    for mutation in policy.mutations.as_ref().map_err(Failure::new)? {
        let now = object.clone();
        let surroundings = evaluate::Surroundings::of(call, Event { object: &now, ..event }, param);
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

/// What the request says of itself, as expressions see it.
pub(super) fn request(call: Call<'_>, event: Event) -> Value {
    let target = call.target;
    let kind = &target.resource.kind;
    let gvk = json!({"group": kind.group, "version": kind.version, "kind": kind.kind});
    let gvr = json!({"group": kind.group, "version": kind.version, "resource": kind.plural});
    let sub = target.sub.map(|sub| sub.as_str()).unwrap_or_default();
    let who = call.who;
    json!({
        "kind": gvk, "requestKind": gvk, "resource": gvr, "requestResource": gvr, "subResource": sub,
        "requestSubResource": sub, "name": text(&event.any()["metadata"], "name"), "namespace": target.namespace,
        "operation": event.operation, "dryRun": call.query.get("dryRun") == Some("All"),
        "userInfo": {"username": who.name, "uid": who.uid, "groups": who.groups, "extra": who.extra},
    })
}

/// The type that expressions must give, for the messages of those that do not.
pub(super) fn expects(found: &Type, expected: &Type) -> bool {
    found.is_dyn() || found == expected
}
