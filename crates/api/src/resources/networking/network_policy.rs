//! NetworkPolicy: which traffic reaches and leaves the pods that it selects.
//!
//! Rules
//!   N1 types    Ingress, and Egress where there are rules for it, unless it says otherwise; each once
//!   N2 ports    by number, a range of numbers, or name
//!   N3 peers    pods and namespaces by selector, or a block of addresses, not both
//!   N4 blocks   a network, without parts that are truly in it
//! Source: API reference, networking.k8s.io/v1 NetworkPolicy.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::check::{self, named, network, optional_word};
use super::super::tree::{Tree, fill, fill_text, items_mut};
use super::super::{age, age_column, column, label_selector, name_column, row};
use crate::field::{Errors, Path};
use crate::kind::kinds;
use crate::name;
use crate::resource::{Resource, Rules};
use crate::selector::LabelSelector;

/// The row of NetworkPolicy.
pub(in super::super) fn resource() -> Resource {
    let columns =
        vec![name_column(), column("Pod-Selector", "string", "the pods whose traffic it restricts"), age_column()];
    row(&kinds::NETWORK_POLICY, columns, NetworkPolicy).short_names(&["netpol"]).counts_generations()
}

struct NetworkPolicy;

impl Rules for NetworkPolicy {
    fn default(&self, object: &mut Value) {
        let Some(spec) = object.get_mut("spec").filter(|spec| spec.is_object()) else { return };
        if spec.items("policyTypes").is_empty() {
            let egress = !spec.items("egress").is_empty();
            spec["policyTypes"] = if egress { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) };
        }
        fill(spec, "podSelector", json!({}));
        for rules in ["ingress", "egress"] {
            for rule in items_mut(spec, rules) {
                items_mut(rule, "ports").iter_mut().for_each(|port| fill_text(port, "protocol", "TCP"));
            }
        }
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        let (spec, at) = (&object["spec"], Path::new("spec"));
        LabelSelector::from_json(&spec["podSelector"], &at.child("podSelector"), errors);
        for (rules, peers) in [("ingress", "from"), ("egress", "to")] {
            for (index, rule) in spec.items(rules).iter().enumerate() {
                let at = at.child(rules).index(index);
                for (index, port) in rule.items("ports").iter().enumerate() {
                    validate_port(port, &at.child("ports").index(index), errors);
                }
                for (index, peer) in rule.items(peers).iter().enumerate() {
                    validate_peer(peer, &at.child(peers).index(index), errors);
                }
            }
        }
        let (types, path) = (spec.items("policyTypes"), at.child("policyTypes"));
        if types.len() > 2 {
            errors.invalid(&path, json!(types), "may not specify more than two policyTypes");
            return;
        }
        for word in types.iter().filter_map(Value::as_str).filter(|word| !matches!(*word, "Ingress" | "Egress")) {
            errors.not_supported(&path, word, &["Egress", "Ingress"]);
        }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![
            json!(object["metadata"].text("name")),
            json!(label_selector::shown(&object["spec"]["podSelector"])),
            age::of(object, now),
        ]
    }
}

/// N2.
fn validate_port(port: &Value, at: &Path, errors: &mut Errors) {
    optional_word(port, "protocol", &["SCTP", "TCP", "UDP"], at, errors);
    let (end, path) = (port.int("endPort"), at.child("endPort"));
    match (&port["port"], end) {
        (Value::Number(_), None) => check::within(port, "port", check::PORTS, at, errors),
        (Value::Number(first), Some(end)) => {
            check::within(port, "port", check::PORTS, at, errors);
            if first.as_i64().is_some_and(|first| end < first) {
                errors.invalid(&path, end, "must be greater than or equal to `port`");
            }
            check::within(port, "endPort", check::PORTS, at, errors);
        }
        (Value::String(text), end) => {
            if let Some(end) = end {
                errors.invalid(&path, end, "may not be specified when `port` is non-numeric");
            }
            named(name::port_name, text, &at.child("port"), errors);
        }
        (_, Some(end)) => errors.invalid(&path, end, "may not be specified when `port` is not specified"),
        (_, None) => {}
    }
}

/// N3.
fn validate_peer(peer: &Value, at: &Path, errors: &mut Errors) {
    let selectors = ["podSelector", "namespaceSelector"].map(|field| (field, peer.is_set(field)));
    for (field, _) in selectors.into_iter().filter(|(_, is_set)| *is_set) {
        LabelSelector::from_json(&peer[field], &at.child(field), errors);
    }
    let selects = selectors.iter().any(|(_, is_set)| *is_set);
    match (selects, peer.is_set("ipBlock")) {
        (false, false) => errors.required(at, "must specify a peer"),
        (true, true) => errors.forbidden(at, "may not specify both ipBlock and another peer"),
        (false, true) => validate_block(&peer["ipBlock"], &at.child("ipBlock"), errors),
        (true, false) => {}
    }
}

/// N4.
fn validate_block(block: &Value, at: &Path, errors: &mut Errors) {
    let whole = block.text("cidr");
    if whole.is_empty() {
        errors.required(&at.child("cidr"), "");
        return;
    }
    network(whole, &at.child("cidr"), errors);
    for (index, part) in block.items("except").iter().enumerate() {
        let (part, path) = (part.as_str().unwrap_or_default(), at.child("except").index(index));
        let before = errors.len();
        network(part, &path, errors);
        if errors.len() == before && !check::is_strict_part(part, whole) {
            errors.invalid(&path, part, "must be a strict subset of `cidr`");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::NetworkPolicy;
    use crate::resources::fixture::{cells, check, filled};
    use serde_json::{Value, json};

    fn ingress(rule: Value) -> Value {
        json!({"metadata": {"name": "p"}, "spec": {"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [rule]}})
    }

    #[test]
    fn n1_types_follow_from_the_rules() {
        let policy = filled(&NetworkPolicy, ingress(json!({"ports": [{"port": 80}]})));
        assert_eq!(policy["spec"]["policyTypes"], json!(["Ingress"]));
        assert_eq!(policy["spec"]["ingress"][0]["ports"][0]["protocol"], "TCP");
        assert_eq!(cells(&NetworkPolicy, &policy), ["p", "app=web", "<unknown>"].map(Value::from));
        let both = filled(&NetworkPolicy, json!({"spec": {"egress": [{}]}}));
        assert_eq!(both["spec"]["policyTypes"], json!(["Ingress", "Egress"]));
        let odd = json!({"spec": {"podSelector": {}, "policyTypes": ["In"]}});
        check(&NetworkPolicy, odd, &["spec.policyTypes: Unsupported value: \"In\": supported values: \"Egress\""]);
    }

    #[test]
    fn n2_ports_are_numbers_ranges_or_names() {
        let port = |port: Value| ingress(json!({"ports": [port]}));
        let at = "spec.ingress[0].ports[0]";
        check(&NetworkPolicy, port(json!({"port": 80, "endPort": 90})), &[]);
        check(&NetworkPolicy, port(json!({"port": "http"})), &[]);
        check(&NetworkPolicy, port(json!({"port": 0})), &[&format!("{at}.port: Invalid value: 0")]);
        check(
            &NetworkPolicy,
            port(json!({"port": 80, "endPort": 70})),
            &[&format!("{at}.endPort: Invalid value: 70: must be greater than or equal to `port`")],
        );
        check(&NetworkPolicy, port(json!({"endPort": 70})), &[&format!("{at}.endPort: Invalid value: 70: may not be")]);
        check(&NetworkPolicy, port(json!({"protocol": "ICMP"})), &[&format!("{at}.protocol: Unsupported value")]);
    }

    #[test]
    fn n3_a_peer_is_selected_or_a_block() {
        let peer = |peer: Value| ingress(json!({"from": [peer]}));
        let at = "spec.ingress[0].from[0]";
        check(&NetworkPolicy, peer(json!({"podSelector": {}, "namespaceSelector": {}})), &[]);
        check(&NetworkPolicy, peer(json!({})), &[&format!("{at}: Required value: must specify a peer")]);
        let both = json!({"podSelector": {}, "ipBlock": {"cidr": "10.0.0.0/8"}});
        check(&NetworkPolicy, peer(both), &[&format!("{at}: Forbidden: may not specify both ipBlock")]);
    }

    #[test]
    fn n4_exceptions_are_in_their_block() {
        let block =
            |cidr: &str, except: &str| ingress(json!({"from": [{"ipBlock": {"cidr": cidr, "except": [except]}}]}));
        let at = "spec.ingress[0].from[0].ipBlock";
        check(&NetworkPolicy, block("10.0.0.0/8", "10.1.0.0/16"), &[]);
        for outside in ["10.0.0.0/8", "11.0.0.0/16", "0.0.0.0/0", "fd00::/16"] {
            let expected = format!("{at}.except[0]: Invalid value: \"{outside}\": must be a strict subset");
            check(&NetworkPolicy, block("10.0.0.0/8", outside), &[&expected]);
        }
    }
}
