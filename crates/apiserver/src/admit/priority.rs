//! How important a pod is: a number that it takes from its class, for good.
//!
//! Rules
//!   R1 class      a pod that names a class gets its value and says whether it makes others leave; an unknown class is
//!                 refused
//!   R2 default    one that names none is of the default class, of several the least important; without any it is of no
//!                 importance
//!   R3 no wishes  a pod that brings a priority of its own is refused unless it is the same
//!   R4 one        there is at most one default class
//!
//! Source: admission controllers reference, Priority; API reference, scheduling.k8s.io/v1 PriorityClass.

use serde::Deserialize;
use serde_json::{Value, json};
use windlass_api::resources::PREEMPTION_DEFAULT;
use windlass_api::{ApiError, kinds};
use windlass_store::{Entry, Expect, Op, Range};

use crate::failure::read_failed;
use crate::key;
use crate::server::{Call, header};
use crate::write::text;

/// What a pod takes from its class. Kept with the stored class: read once.
#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Class {
    value: i64,
    global_default: bool,
    preemption_policy: Option<String>,
}

/// R1 to R3 for a new pod. Gives what must still hold when it is written.
pub(super) fn create(call: Call<'_>, pod: &mut Value) -> Result<Vec<Op>, ApiError> {
    let name = text(&pod["metadata"], "name").to_owned();
    let spec = &mut pod["spec"];
    if !spec.is_object() {
        return Ok(Vec::new()); // validation says what is missing
    }
    let refuse = |why: String| ApiError::forbidden(&kinds::POD, &name, &why);
    let mut ops = Vec::new();
    let class = match text(spec, "priorityClassName") {
        "" => default_class(call)?.map(|(class_name, class)| {
            spec["priorityClassName"] = json!(class_name);
            class
        }),
        class_name => {
            let not_found = || refuse(format!("no PriorityClass with name {class_name} was found"));
            if class_name.contains('/') {
                return Err(not_found());
            }
            let key = key::object(&kinds::PRIORITY_CLASS, "", class_name);
            let entry = call.server.store.get(&key).ok_or_else(not_found)?;
            ops.push(Op::check(key, Expect::Revision(entry.revision)));
            Some(class(&entry).clone())
        }
    };
    let class = class.unwrap_or_default();
    match spec["priority"].as_i64() {
        Some(wished) if wished != class.value => {
            return Err(refuse(format!(
                "the integer value of priority ({wished}) must not be provided in pod spec; priority admission \
                 controller computed {} from the given PriorityClass name",
                class.value
            )));
        }
        _ => spec["priority"] = json!(class.value),
    }
    let policy = class.preemption_policy.as_deref().unwrap_or(PREEMPTION_DEFAULT);
    match text(spec, "preemptionPolicy") {
        wished if !wished.is_empty() && wished != policy => Err(refuse(format!(
            "the string value of PreemptionPolicy ({wished}) must not be provided in pod spec; priority admission \
             controller computed {policy} from the given PriorityClass name"
        ))),
        _ => {
            spec["preemptionPolicy"] = json!(policy);
            Ok(ops)
        }
    }
}

/// R4, for a class that is made or changed.
pub(super) fn check_one_default(call: Call<'_>, changed: &Value) -> Result<(), ApiError> {
    let name = text(&changed["metadata"], "name");
    if changed["globalDefault"] != true {
        return Ok(());
    }
    match default_class(call)? {
        Some((other, _)) if other != name => {
            let why = format!("PriorityClass {other} is already marked as default. Only one default can exist");
            Err(ApiError::forbidden(&kinds::PRIORITY_CLASS, name, &why))
        }
        _ => Ok(()),
    }
}

/// R2.
fn default_class(call: Call<'_>) -> Result<Option<(String, Class)>, ApiError> {
    let page = call.server.store.range(&Range::prefix(key::prefix(&kinds::PRIORITY_CLASS, ""))).map_err(read_failed)?;
    let defaults = page.entries.iter().filter(|entry| class(entry).global_default);
    let least = defaults.min_by_key(|entry| class(entry).value);
    Ok(least.map(|entry| (header(entry).name().to_string(), class(entry).clone())))
}

fn class(entry: &Entry) -> &Class {
    entry.memo(|entry| serde_json::from_slice(entry.value()).unwrap_or_default())
}
