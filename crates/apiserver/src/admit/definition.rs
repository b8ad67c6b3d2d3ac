//! Definitions and the objects of their kinds: names are given once, and nothing is written by a schema that is gone.
//!
//! Rules
//!   R1 names      a new definition, or one with other names, gets those that nobody in its group has; of two at once
//!                 the second looks again, because both write the key of all names
//!   R2 schema     an object of a custom kind is written only while its definition is the one it was checked by
//!   R3 ending     nothing new is made of a kind whose definition is being deleted

use serde_json::Value;
use windlass_api::resources::custom_resource_definition::{begin, names};
use windlass_api::{ApiError, Reason, kinds};
use windlass_store::{Expect, Op, Template};

use crate::failure::later;
use crate::key;
use crate::server::Call;
use crate::write::text;

/// R1 for a new definition: its status from the start.
pub(super) fn create(call: Call<'_>, object: &mut Value) -> Op {
    begin(object);
    decide(call, object);
    claim(call)
}

/// R1 for a changed one.
pub(super) fn update(call: Call<'_>, old: &Value, object: &mut Value) -> Option<Op> {
    if object["metadata"].get("deletionTimestamp").is_some() {
        return None;
    }
    decide(call, object);
    (object["spec"]["names"] != old["spec"]["names"]).then(|| claim(call))
}

fn decide(call: Call<'_>, object: &mut Value) {
    let group = text(&object["spec"], "group").to_owned();
    let taken = call.server.taken_names(&group, text(&object["metadata"], "name"));
    object["status"] = names::decide(object, &taken, &call.server.world.now_rfc3339());
}

fn claim(call: Call<'_>) -> Op {
    let expect = match call.server.store.get(key::DEFINITION_NAMES) {
        Some(entry) => Expect::Revision(entry.revision),
        None => Expect::Absent,
    };
    Op::put(key::DEFINITION_NAMES, Template::plain("{}"), expect)
}

/// R2 and R3.
pub(super) fn check(call: Call<'_>, is_new: bool) -> Result<Option<Op>, ApiError> {
    let resource = &call.target.resource;
    let Some(custom) = &resource.custom else { return Ok(None) };
    if is_new && custom.is_ending {
        let message = "create not allowed while custom resource definition is terminating";
        return Err(ApiError::new(Reason::MethodNotAllowed, message));
    }
    if !call.server.is_newest(resource) {
        let message = format!("the definition {:?} has just changed: please try again", custom.definition);
        return Err(later(Reason::ServiceUnavailable, message));
    }
    let key = key::object(&kinds::CUSTOM_RESOURCE_DEFINITION, "", &custom.definition);
    Ok(Some(Op::check(key, Expect::Revision(custom.revision))))
}
