//! Policies and their bindings, compiled, as they lie in the store now.
//!
//! Guarantees  an expression is compiled once, when its policy is written; a policy that does not compile says why when
//!             it is asked

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use serde_json::Value;
use windlass_api::Reason;
use windlass_api::cel::{Env, Program, Type};
use windlass_api::field::{Errors, Path};
use windlass_api::resources::{policy_environment, policy_variables};
use windlass_api::selector::LabelSelector;
use windlass_store::Entry;

use crate::admit::matching::Matching;
use crate::admit::surroundings::{bool_program, program, read_conditions};
use crate::admit::webhook::Hooks;
use crate::follow::Picture;
use crate::write::{text, tree};

/// Which of the two kinds of policies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Mutating,
    Validating,
}

/// A policy with the bindings through which it acts.
pub(super) struct Policy {
    pub name: String,
    /// `failurePolicy` is Fail.
    pub fails: bool,
    pub matching: Matching,
    /// Programs, or why one of them is none.
    pub conditions: Result<Vec<Program>, String>,
    pub variables: Result<Vec<(String, Program)>, String>,
    pub validations: Result<Vec<Validating>, String>,
    pub mutations: Result<Vec<Mutation>, String>,
    /// The kind of its parameters: apiVersion and kind.
    pub params: Option<(String, String)>,
    pub bindings: Vec<Arc<Binding>>,
}

/// One validation.
pub(super) struct Validating {
    pub expression: Program,
    pub message: String,
    pub message_expression: Option<Program>,
    pub reason: Reason,
}

/// One mutation.
pub(super) enum Mutation {
    /// Gives what is laid over the object.
    Apply(Program),
    /// Gives the operations of a JSON patch.
    Patch(Program),
}

/// What a binding does about a validation that does not hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Actions {
    pub deny: bool,
    pub warn: bool,
}

/// One binding.
pub(super) struct Binding {
    pub name: String,
    pub matching: Matching,
    pub actions: Actions,
    pub params: Option<Params>,
}

/// Which parameters a binding takes.
pub(super) struct Params {
    pub name: String,
    pub namespace: String,
    pub selector: Option<LabelSelector>,
    /// No parameters at all are a failure.
    pub denies: bool,
}

/// All policies that act, in the order of their names.
#[derive(Default)]
pub(crate) struct Policies {
    policies: BTreeMap<String, Arc<Value>>,
    bindings: BTreeMap<String, Arc<Value>>,
    /// Made of both when it is first asked for after a change.
    acting: OnceLock<Acting>,
    /// Webhooks are followed together with policies: whoever writes looks once.
    hooks: Arc<Hooks>,
}

/// Shared with the requests that look at it.
type Acting = Arc<BTreeMap<(Kind, String), Policy>>;

/// The policies and webhooks of one moment.
pub(in crate::admit) struct Now {
    acting: Acting,
    pub hooks: Arc<Hooks>,
}

impl Now {
    pub fn is_empty(&self) -> bool {
        self.acting.is_empty() && self.hooks.is_empty()
    }

    pub(super) fn of(&self, kind: Kind) -> impl Iterator<Item = &Policy> {
        self.acting.iter().filter(move |((own, _), _)| *own == kind).map(|(_, policy)| policy)
    }
}

impl Policies {
    /// The policies that act now.
    pub(in crate::admit) fn now(&self) -> Now {
        Now { acting: Arc::clone(self.acting.get_or_init(|| self.assemble())), hooks: self.hooks.clone() }
    }

    /// Puts policies and bindings together.
    fn assemble(&self) -> Acting {
        let mut acting = BTreeMap::new();
        for (key, policy) in &self.policies {
            let kind = if key.contains("/mutating") { Kind::Mutating } else { Kind::Validating };
            let name = text(&policy["metadata"], "name");
            let own = self.bindings.iter().filter(|(key, _)| key.contains("/mutating") == (kind == Kind::Mutating));
            let bindings =
                own.map(|(_, binding)| binding).filter(|binding| text(&binding["spec"], "policyName") == name);
            let bindings: Vec<Arc<Binding>> = bindings.map(|binding| Arc::new(read_binding(binding))).collect();
            if !bindings.is_empty() {
                acting.insert((kind, name.to_owned()), read_policy(policy, bindings));
            }
        }
        Arc::new(acting)
    }
}

impl Picture for Policies {
    fn prefixes() -> &'static [&'static str] {
        &[
            "o/mutatingadmissionpolicies.admissionregistration.k8s.io/",
            "o/mutatingadmissionpolicybindings.admissionregistration.k8s.io/",
            "o/mutatingwebhookconfigurations.admissionregistration.k8s.io/",
            "o/validatingadmissionpolicies.admissionregistration.k8s.io/",
            "o/validatingadmissionpolicybindings.admissionregistration.k8s.io/",
            "o/validatingwebhookconfigurations.admissionregistration.k8s.io/",
        ]
    }

    fn put(&mut self, entry: &Entry) {
        if entry.key().contains("webhookconfigurations.") {
            Arc::make_mut(&mut self.hooks).put(entry);
            return;
        }
        let object = Arc::new(tree(entry));
        let into = if entry.key().contains("policybindings.") { &mut self.bindings } else { &mut self.policies };
        into.insert(entry.key().to_owned(), object);
        self.acting = OnceLock::new();
    }

    fn remove(&mut self, key: &str) {
        if key.contains("webhookconfigurations.") {
            Arc::make_mut(&mut self.hooks).remove(key);
            return;
        }
        self.policies.remove(key);
        self.bindings.remove(key);
        self.acting = OnceLock::new();
    }
}

fn items<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value.get(field).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn read_binding(binding: &Value) -> Binding {
    let spec = &binding["spec"];
    let actions = items(spec, "validationActions");
    let has = |action: &str| actions.iter().any(|found| found == action);
    let reference = &spec["paramRef"];
    let params = reference.is_object().then(|| Params {
        name: text(reference, "name").to_owned(),
        namespace: text(reference, "namespace").to_owned(),
        selector: reference["selector"]
            .is_object()
            .then(|| LabelSelector::from_json(&reference["selector"], &Path::new("selector"), &mut Errors::new())),
        denies: text(reference, "parameterNotFoundAction") != "Allow",
    });
    Binding {
        name: text(&binding["metadata"], "name").to_owned(),
        matching: Matching::read(&spec["matchResources"]),
        actions: Actions { deny: has("Deny"), warn: has("Warn") },
        params,
    }
}

fn read_policy(policy: &Value, bindings: Vec<Arc<Binding>>) -> Policy {
    let spec = &policy["spec"];
    let kind = &spec["paramKind"];
    let params = kind.is_object().then(|| (text(kind, "apiVersion").to_owned(), text(kind, "kind").to_owned()));
    let base = policy_environment(params.is_some());
    let (variables, env) = read_variables(spec, &base);
    let validations = items(spec, "validations").iter().map(|validation| read_validation(&env, validation));
    let mutations = items(spec, "mutations").iter().map(|mutation| read_mutation(&env, mutation));
    Policy {
        name: text(&policy["metadata"], "name").to_owned(),
        fails: text(spec, "failurePolicy") != "Ignore",
        matching: Matching::read(&spec["matchConstraints"]),
        conditions: read_conditions(&base, spec),
        variables,
        validations: validations.collect(),
        mutations: mutations.collect(),
        params,
        bindings,
    }
}

/// Variables, each of which sees those before it; and the environment that sees them all.
fn read_variables(spec: &Value, env: &Env) -> (Result<Vec<(String, Program)>, String>, Env) {
    let mut fields: Vec<(String, Type)> = Vec::new();
    let mut programs = Vec::new();
    for variable in items(spec, "variables") {
        let (name, expression) = (text(variable, "name"), text(variable, "expression"));
        match policy_variables(env, &fields).compile(expression) {
            Ok(program) => {
                fields.push((name.to_owned(), program.output().clone()));
                programs.push((name.to_owned(), program));
            }
            Err(errors) => {
                return (Err(format!("variable {name}: compilation failed: {errors}")), policy_variables(env, &fields));
            }
        }
    }
    (Ok(programs), policy_variables(env, &fields))
}

fn read_validation(env: &Env, validation: &Value) -> Result<Validating, String> {
    let (expression, message) = (text(validation, "expression"), text(validation, "message").trim());
    let message_expression = text(validation, "messageExpression");
    let message_expression = match message_expression {
        "" => None,
        expression => Some(program(env, expression, &Type::String)?),
    };
    Ok(Validating {
        expression: bool_program(env, expression)?,
        message: if message.is_empty() {
            format!("failed expression: {}", expression.trim())
        } else {
            message.to_owned()
        },
        message_expression,
        reason: Reason::parse(text(validation, "reason")).unwrap_or(Reason::Invalid),
    })
}

fn read_mutation(env: &Env, mutation: &Value) -> Result<Mutation, String> {
    match text(mutation, "patchType") {
        "JSONPatch" => {
            let program = env.compile(text(&mutation["jsonPatch"], "expression"));
            program.map(Mutation::Patch).map_err(|errors| format!("compilation failed: {errors}"))
        }
        _ => {
            let program = env.compile(text(&mutation["applyConfiguration"], "expression"));
            program.map(Mutation::Apply).map_err(|errors| format!("compilation failed: {errors}"))
        }
    }
}
