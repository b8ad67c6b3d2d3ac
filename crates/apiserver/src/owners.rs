//! Who owns which field, on its way through the pipeline: who writes, and what becomes of `metadata.managedFields`.
//!
//! Rules
//!   R1 manager     `fieldManager`, or else what the user agent says before its first `/`; at most 128 printable characters
//!   R2 aside       a write works on objects without `managedFields`; they come back before the object is stored
//!   R3 sent        what a client sends as `managedFields` counts where it can be read, and never through a subresource
//!   R4 quiet       a write that changes nothing but times in them changes nothing
//!   R5 apply only  `force` is for applies, and an apply says who applies
//!
//! Source: API concepts, "Server-Side Apply", "Field management"; API reference, PatchOptions. What owning means:
//! `windlass_api::merge::apply`.

use std::borrow::Cow;

use http::header::{CONTENT_TYPE, USER_AGENT};
use serde_json::{Value, json};
use windlass_api::field::{Errors, Path};
use windlass_api::merge::PatchType;
use windlass_api::merge::apply::{self, Managers, Writer, differ_only_in_time};
use windlass_api::{ApiError, Kind};

use crate::request::Verb;
use crate::server::Call;
use crate::write;

/// Longest name of a manager in bytes.
const MANAGER_BYTES_MAX: usize = 128;
/// The manager of requests that do not say who they are.
const UNKNOWN: &str = "unknown";
const FIELD: &str = "managedFields";

/// What a write means for the owners of fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ownership {
    /// The writer owns what it changes.
    Changed,
    /// An apply has settled it: the object comes with its owners.
    Settled,
    /// They stay as they are: the server writes for itself.
    Kept,
}

/// Who writes: the manager's name (R1).
pub(crate) fn manager<'a>(call: Call<'a>) -> Result<&'a str, ApiError> {
    let Some(given) = call.query.get("fieldManager") else {
        let agent = call.headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
        let name = agent.split('/').next().unwrap_or_default();
        let name = &name[..name.len().min(MANAGER_BYTES_MAX)]; // a header is ASCII
        return Ok(if name.is_empty() { UNKNOWN } else { name });
    };
    let mut errors = Errors::new();
    let path = Path::new("fieldManager");
    if given.len() > MANAGER_BYTES_MAX {
        errors.too_long(&path, MANAGER_BYTES_MAX);
    }
    if given.chars().any(char::is_control) {
        errors.invalid(&path, given, "should only contain printable characters");
    }
    refuse_options(call, &errors)?;
    Ok(given)
}

/// Checks what only applies may say and what they must (R5); gives whether the apply is forced.
pub(crate) fn force(call: Call<'_>, is_apply: bool) -> Result<bool, ApiError> {
    let force = call.query.flag_if_set("force")?;
    let mut errors = Errors::new();
    if is_apply && call.query.get("fieldManager").is_none() {
        errors.required(&Path::new("fieldManager"), "is required for apply patch");
    }
    if !is_apply && force.is_some() {
        errors.forbidden(&Path::new("force"), "may not be specified for non-apply patch");
    }
    refuse_options(call, &errors)?;
    Ok(force.unwrap_or(false))
}

/// The parameters of a write as refusals name them: an object of their own.
fn refuse_options(call: Call<'_>, errors: &Errors) -> Result<(), ApiError> {
    if errors.is_empty() {
        return Ok(());
    }
    let kind = match call.target.verb {
        Verb::Create => "CreateOptions",
        Verb::Update => "UpdateOptions",
        _ => "PatchOptions",
    };
    let options = Kind {
        group: Cow::Borrowed("meta.k8s.io"),
        version: Cow::Borrowed("v1"),
        kind: Cow::Borrowed(kind),
        plural: Cow::Borrowed(""),
        namespaced: false,
    };
    Err(ApiError::invalid(&options, "", errors))
}

/// Calls `with` with who writes what to which part, now.
pub(crate) fn with_writer<T>(call: Call<'_>, with: impl FnOnce(&Writer<'_>) -> T) -> Result<T, ApiError> {
    let (api_version, now) = (call.target.resource.kind.api_version(), call.server.world.now_rfc3339());
    let subresource = call.target.sub.map_or("", |sub| sub.as_str());
    Ok(with(&Writer { manager: manager(call)?, api_version: &api_version, subresource, now: &now }))
}

/// Whether what makes the change has to see the owners: an apply, and a patch that names places in them.
pub(crate) fn are_seen(call: Call<'_>, ownership: Ownership) -> bool {
    let media = call.headers.get(CONTENT_TYPE).and_then(|media| media.to_str().ok()).unwrap_or_default();
    ownership == Ownership::Settled || PatchType::of_content_type(media) == Some(PatchType::Json)
}

/// Takes the owners out of an object.
pub(crate) fn take(object: &mut Value) -> Option<Value> {
    object.get_mut("metadata").and_then(Value::as_object_mut)?.remove(FIELD)
}

/// Puts owners into an object.
pub(crate) fn put(object: &mut Value, managed: Option<Value>) {
    if let Some(managed) = managed {
        write::metadata_mut(object).insert(FIELD.to_owned(), managed);
    }
}

/// The owners of a changed object: as stored, and as the wished object has them.
pub(crate) struct Owners {
    ownership: Ownership,
    stored: Option<Value>,
    wished: Option<Value>,
}

impl Owners {
    /// Takes them out of the wished object too (R2).
    pub fn take(call: Call<'_>, ownership: Ownership, stored: Option<Value>, wished: &mut Value) -> Owners {
        let mut wished = take(wished);
        if ownership == Ownership::Changed && (call.target.sub.is_some() || wished == stored) {
            wished = None; // R3; and most writes send what they read
        }
        Owners { ownership, stored, wished }
    }

    /// Whether the owners change although the object does not (R4).
    pub fn are_new(&self) -> bool {
        match (self.ownership, &self.stored, &self.wished) {
            (Ownership::Kept, ..) => false,
            (Ownership::Changed, _, wished) => wished.as_ref().is_some_and(|sent| Managers::sent(sent).is_some()),
            (Ownership::Settled, Some(stored), Some(wished)) => {
                stored != wished && !differ_only_in_time(stored, wished)
            }
            (Ownership::Settled, stored, wished) => stored.is_some() || wished.is_some(),
        }
    }

    /// The owners after a write that made `object` of `old`.
    pub fn after(self, call: Call<'_>, old: &Value, object: &Value) -> Result<Option<Value>, ApiError> {
        match self.ownership {
            Ownership::Kept => Ok(self.stored),
            Ownership::Settled => Ok(self.wished),
            Ownership::Changed => {
                let sent = self.wished.as_ref().and_then(Managers::sent);
                let managers = sent.unwrap_or_else(|| Managers::stored(self.stored));
                let message = call.target.resource.message.get();
                let managers = with_writer(call, |writer| apply::update(old, object, managers, writer, message))?;
                Ok(managers.into_value())
            }
        }
    }
}

/// The owners of a new object; `sent` is what the client or the apply says.
pub(crate) fn of_new(
    call: Call<'_>,
    ownership: Ownership,
    object: &Value,
    sent: Option<&Value>,
) -> Result<Option<Value>, ApiError> {
    if ownership != Ownership::Changed {
        return Ok(sent.cloned());
    }
    let message = call.target.resource.message.get();
    let sent = sent.and_then(Managers::sent);
    with_writer(call, |writer| apply::create(object, sent, writer, message).into_value())
}

/// The refusal of an apply that cannot be carried out.
pub(crate) fn refuse(call: Call<'_>, refusal: apply::Refusal) -> ApiError {
    match refusal {
        apply::Refusal::Conflicts(conflicts) => conflicts.into(),
        apply::Refusal::TooManyAppliers { found } => {
            let mut errors = Errors::new();
            let detail = format!("must have at most {} appliers", apply::APPLIERS_MAX);
            errors.invalid(&Path::new("metadata").child(FIELD), json!(found), &detail);
            ApiError::invalid(&call.target.resource.kind, &call.target.name, &errors)
        }
    }
}
