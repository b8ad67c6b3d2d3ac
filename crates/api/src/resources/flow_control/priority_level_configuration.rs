//! PriorityLevelConfiguration: how many requests of one kind run at a time, and which wait.
//!
//! Rules
//!   P1 type      only the level `exempt` is exempt; the others say how they are limited
//!   P2 shares    whole numbers that are not negative; what is lent is a percentage
//!   P3 queues    hands are dealt from queues, and both within what can be computed
//!   P4 fixed     `catch-all` is as it is in every cluster
//! Source: API reference, flowcontrol.apiserver.k8s.io/v1; KEP-1040.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::same::same;
use super::super::tree::{Tree, carry_over, fill, fill_number, remove};
use super::super::{age, age_column, column, name_column, row};
use super::{CATCH_ALL, EXEMPT, validate_conditions};
use crate::field::{Errors, Path};
use crate::kind::kinds;
use crate::resource::{Resource, Rules, Subresource};

/// Queues of a level.
const QUEUES_MAX: i64 = 10_000_000;
/// Bits of a flow's hash that dealing a hand may use up.
const HASH_BITS_MAX: u32 = 60;
/// What a level says that says nothing: shares, queues, hand, length of a queue.
const SHARES_DEFAULT: i64 = 30;
const QUEUING_DEFAULT: [(&str, i64); 3] = [("queues", 64), ("handSize", 8), ("queueLengthLimit", 50)];

/// The row of PriorityLevelConfiguration.
pub(in super::super) fn resource() -> Resource {
    let columns = vec![
        name_column(),
        column("Type", "string", "whether its requests ever wait"),
        column("NominalConcurrencyShares", "string", "its part of the requests that run at a time"),
        column("Queues", "string", "how many queues it has"),
        column("HandSize", "string", "among how many of them a flow chooses"),
        column("QueueLengthLimit", "string", "how many requests wait in one"),
        age_column(),
    ];
    row(&kinds::PRIORITY_LEVEL_CONFIGURATION, columns, PriorityLevelConfiguration)
        .subresources(&[Subresource::Status])
        .counts_generations()
}

/// The spec of the level `catch-all`, which no cluster is without.
pub fn catch_all() -> Value {
    json!({"type": "Limited", "limited":
        {"nominalConcurrencyShares": 5, "lendablePercent": 0, "limitResponse": {"type": "Reject"}}})
}

struct PriorityLevelConfiguration;

impl Rules for PriorityLevelConfiguration {
    fn default(&self, object: &mut Value) {
        let Some(spec) = object.get_mut("spec") else { return };
        for (part, shares) in [("limited", SHARES_DEFAULT), ("exempt", 0)] {
            if spec[part].is_object() {
                fill(&mut spec[part], "nominalConcurrencyShares", shares);
                fill(&mut spec[part], "lendablePercent", 0);
            }
        }
        if let Some(queuing) = spec.pointer_mut("/limited/limitResponse/queuing").filter(|queuing| queuing.is_object())
        {
            QUEUING_DEFAULT.iter().for_each(|(field, number)| fill_number(queuing, field, *number));
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        remove(object, "status");
    }

    fn prepare_update(&self, object: &mut Value, old: &Value) {
        carry_over(object, old, "status");
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        let (spec, at, name) = (&object["spec"], Path::new("spec"), object["metadata"].text("name"));
        let (limited, exempt, kind) = (spec.is_set("limited"), spec.is_set("exempt"), spec.text("type"));
        if (name == EXEMPT) != (kind == "Exempt") {
            errors.invalid(&at.child("type"), kind, "type must be 'Exempt' if and only if name is 'exempt'");
        }
        match kind {
            "Exempt" if limited => errors.forbidden(&at.child("limited"), "must be nil if the type is Exempt"),
            "Limited" if exempt => errors.forbidden(&at.child("exempt"), "must be nil if the type is Limited"),
            "Limited" if !limited => errors.required(&at.child("limited"), "must not be empty when type is Limited"),
            "Limited" => validate_limited(&spec["limited"], &at.child("limited"), errors),
            "Exempt" => validate_shares(&spec["exempt"], &at.child("exempt"), errors),
            other => errors.not_supported(&at.child("type"), other, &["Exempt", "Limited"]),
        }
        if name == CATCH_ALL && !same(spec, &catch_all()) {
            errors.invalid(&at, spec.clone(), &format!("spec of '{CATCH_ALL}' must equal the fixed value"));
        }
    }

    fn validate_status(&self, object: &Value, _old: &Value, errors: &mut Errors) {
        validate_conditions(&object["status"], errors);
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let spec = &object["spec"];
        let number = |part: &Value, field: &str| json!(part.int(field).map_or("<none>".to_owned(), |n| n.to_string()));
        let shared = if spec.text("type") == "Exempt" { &spec["exempt"] } else { &spec["limited"] };
        let queuing = &spec["limited"]["limitResponse"]["queuing"];
        vec![
            json!(object["metadata"].text("name")),
            json!(spec.text("type")),
            number(shared, "nominalConcurrencyShares"),
            number(queuing, "queues"),
            number(queuing, "handSize"),
            number(queuing, "queueLengthLimit"),
            age::of(object, now),
        ]
    }
}

/// P2.
fn validate_shares(shared: &Value, at: &Path, errors: &mut Errors) {
    let check = |field: &str, is_good: fn(i64) -> bool, detail: &str, errors: &mut Errors| {
        if let Some(number) = shared.int(field).filter(|&number| !is_good(number)) {
            errors.invalid(&at.child(field), number, detail);
        }
    };
    check("nominalConcurrencyShares", |shares| shares >= 0, "must be a non-negative integer", errors);
    check("lendablePercent", |part| (0..=100).contains(&part), "must be between 0 and 100, inclusive", errors);
    check("borrowingLimitPercent", |part| part >= 0, "if specified, must be a non-negative integer", errors);
}

fn validate_limited(limited: &Value, at: &Path, errors: &mut Errors) {
    validate_shares(limited, at, errors);
    let (response, at) = (&limited["limitResponse"], at.child("limitResponse"));
    let (queuing, path) = (response.is_set("queuing"), at.child("queuing"));
    match response.text("type") {
        "Reject" if queuing => errors.forbidden(&path, "must be nil if limited.limitResponse.type is not Limited"),
        "Queue" if !queuing => {
            errors.required(&path, "must not be empty if limited.limitResponse.type is Limited");
        }
        "Queue" => validate_queuing(&response["queuing"], &path, errors),
        "Reject" => {}
        other => errors.not_supported(&at.child("type"), other, &["Queue", "Reject"]),
    }
}

/// P3.
fn validate_queuing(queuing: &Value, at: &Path, errors: &mut Errors) {
    let [queues, hand, length] =
        ["queues", "handSize", "queueLengthLimit"].map(|field| queuing.int(field).unwrap_or(0));
    for (field, number) in [("queueLengthLimit", length), ("queues", queues)] {
        if number <= 0 {
            errors.invalid(&at.child(field), number, "must be positive");
        }
    }
    if queues > QUEUES_MAX {
        errors.invalid(&at.child("queues"), queues, &format!("must not be greater than {QUEUES_MAX}"));
    }
    let path = at.child("handSize");
    if hand <= 0 {
        errors.invalid(&path, hand, "must be positive");
    } else if hand > queues {
        errors.invalid(&path, hand, &format!("should not be greater than queues ({queues})"));
    } else if hash_bits(queues, hand) > HASH_BITS_MAX {
        let detail = format!(
            "required entropy bits of deckSize {queues} and handSize {hand} should not be greater than {HASH_BITS_MAX}"
        );
        errors.invalid(&path, hand, &detail);
    }
}

/// Bits of a hash that dealing `hand` of `queues` uses up: each card's choice is a factor.
fn hash_bits(queues: i64, hand: i64) -> u32 {
    let bits: f64 = (0..hand.min(64)).map(|dealt| ((queues - dealt) as f64).log2()).sum();
    bits.ceil() as u32
}

#[cfg(test)]
mod tests {
    use super::{PriorityLevelConfiguration, catch_all};
    use crate::resources::fixture::{cells, check, filled};
    use serde_json::{Value, json};

    fn of(name: &str, spec: Value) -> Value {
        json!({"metadata": {"name": name}, "spec": spec})
    }

    fn queued(queuing: Value) -> Value {
        of("p", json!({"type": "Limited", "limited": {"limitResponse": {"type": "Queue", "queuing": queuing}}}))
    }

    #[test]
    fn p1_a_level_is_exempt_or_limited() {
        check(&PriorityLevelConfiguration, of("exempt", json!({"type": "Exempt", "exempt": {}})), &[]);
        let expected = ["spec.type: Invalid value: \"Exempt\": type must be 'Exempt' if and only if name is 'exempt'"];
        check(&PriorityLevelConfiguration, of("p", json!({"type": "Exempt"})), &expected);
        let expected = ["spec.limited: Required value: must not be empty when type is Limited"];
        check(&PriorityLevelConfiguration, of("p", json!({"type": "Limited"})), &expected);
        check(
            &PriorityLevelConfiguration,
            of("p", json!({"type": "Some"})),
            &["spec.type: Unsupported value: \"Some\""],
        );
    }

    #[test]
    fn p2_and_p3_numbers_can_be_worked_with() {
        let level = filled(&PriorityLevelConfiguration, queued(json!({})));
        check(&PriorityLevelConfiguration, level.clone(), &[]);
        let expected = ["p", "Limited", "30", "64", "8", "50", "<unknown>"].map(Value::from);
        assert_eq!(cells(&PriorityLevelConfiguration, &level), expected);
        let at = "spec.limited.limitResponse.queuing";
        check(
            &PriorityLevelConfiguration,
            queued(json!({"queues": 4, "handSize": 5})),
            &[&format!("{at}.handSize: Invalid value: 5: should not be greater than queues (4)")],
        );
        check(
            &PriorityLevelConfiguration,
            queued(json!({"queues": 10_000_000, "handSize": 8})),
            &[&format!("{at}.handSize: Invalid value: 8: required entropy bits of deckSize 10000000 and handSize 8")],
        );
        let mut odd = queued(json!({}));
        odd["spec"]["limited"]["lendablePercent"] = json!(101);
        check(
            &PriorityLevelConfiguration,
            odd,
            &["spec.limited.lendablePercent: Invalid value: 101: must be between 0"],
        );
    }

    #[test]
    fn p4_catch_all_is_as_it_is() {
        check(&PriorityLevelConfiguration, of("catch-all", catch_all()), &[]);
        let mut more = catch_all();
        more["limited"]["nominalConcurrencyShares"] = json!(50);
        check(&PriorityLevelConfiguration, of("catch-all", more), &["spec: Invalid value"]);
    }
}
