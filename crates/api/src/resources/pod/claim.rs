//! Claims for devices: which ones a pod has, and which of them its containers use.
//!
//! Rules
//!   R1 claim   has a name of its own, and is one that exists or is made from a template; a pod has at most 256
//!   R2 used    a container refers to claims of its pod, to each one once, or to single requests of it
//!   R3 static  a node's own pods have none
//! Source: API reference, core/v1 PodResourceClaim and ResourceClaim; KEP-4381.

use std::collections::BTreeSet;

use serde_json::Value;

use super::super::check::named;
use super::super::tree::Tree;
use crate::field::{Errors, Path};
use crate::name;

/// Claims of one pod: each is written before the pod is bound.
const CLAIMS_MAX: usize = 256;

/// R1 and R3. Gives the names that containers may refer to.
pub(super) fn validate<'a>(spec: &'a Value, is_mirror: bool, at: &Path, errors: &mut Errors) -> BTreeSet<&'a str> {
    let (claims, list) = (spec.items("resourceClaims"), at.child("resourceClaims"));
    let mut seen = BTreeSet::new();
    if claims.len() > CLAIMS_MAX {
        errors.too_many(&list, claims.len(), CLAIMS_MAX);
    }
    for (index, claim) in claims.iter().enumerate().take(CLAIMS_MAX) {
        if is_mirror {
            errors.forbidden(&Path::whole(), "static pods do not support resource claims");
            continue;
        }
        let (name, path) = (claim.text("name"), list.index(index));
        match name {
            "" => errors.required(&path.child("name"), ""),
            _ if !seen.insert(name) => errors.duplicate(&path.child("name"), name),
            _ => named(name::label, name, &path.child("name"), errors),
        }
        match (claim.is_set("resourceClaimName"), claim.is_set("resourceClaimTemplateName")) {
            (true, true) => {
                let detail = "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified";
                errors.invalid(&path, claim.clone(), detail);
            }
            (false, false) => {
                let detail = "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`";
                errors.invalid(&path, claim.clone(), detail);
            }
            _ => {}
        }
        for field in ["resourceClaimName", "resourceClaimTemplateName"].into_iter().filter(|field| claim.is_set(field))
        {
            named(name::subdomain, claim.text(field), &path.child(field), errors);
        }
    }
    claims.iter().map(|claim| claim.text("name")).filter(|name| !name.is_empty()).collect()
}

/// R2, for `resources` at `at`.
pub(super) fn validate_used(resources: &Value, claims: &BTreeSet<&str>, at: &Path, errors: &mut Errors) {
    let list = at.child("claims");
    let mut seen: BTreeSet<(&str, &str)> = BTreeSet::new();
    for (index, used) in resources.items("claims").iter().enumerate() {
        let (name, request, path) = (used.text("name"), used.text("request"), list.index(index));
        if name.is_empty() {
            errors.required(&path, "");
            continue;
        }
        if seen.contains(&(name, "")) {
            // All requests of the claim are used already.
            errors.duplicate(&path, name);
        } else {
            if !request.is_empty() {
                named(name::label, request, &path.child("request"), errors);
            }
            if seen.contains(&(name, request)) {
                errors.duplicate(&path, format!("{name}/{request}"));
            } else if request.is_empty() && seen.iter().any(|(other, _)| *other == name) {
                errors.duplicate(&path, name);
            }
            seen.insert((name, request));
        }
        if !claims.contains(name) {
            let known = claims.iter().copied().collect::<Vec<_>>().join(", ");
            let detail = match known.as_str() {
                "" => "must be one of the names in pod.spec.resourceClaims which is empty".to_owned(),
                known => format!("must be one of the names in pod.spec.resourceClaims: {known}"),
            };
            errors.not_found_because(&path, name, &detail);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{validate, validate_used};
    use crate::field::{Errors, Path};
    use crate::resources::fixture::compare;
    use serde_json::{Value, json};

    fn check(claims: Value, used: Value, expected: &[&str]) {
        let (spec, mut errors) = (json!({"resourceClaims": claims}), Errors::new());
        let names = validate(&spec, false, &Path::new("s"), &mut errors);
        validate_used(&json!({"claims": used}), &names, &Path::new("r"), &mut errors);
        compare(&errors, expected);
    }

    #[test]
    fn r1_a_claim_exists_or_is_made() {
        check(
            json!([{"name": "gpu", "resourceClaimName": "c"}, {"name": "nic", "resourceClaimTemplateName": "t"}]),
            json!([]),
            &[],
        );
        check(
            json!([{"name": "a"}, {"name": "a", "resourceClaimName": "C_1", "resourceClaimTemplateName": "t"}, {"resourceClaimName": "c"}]),
            json!([]),
            &[
                "s.resourceClaims[0]: Invalid value: {\"name\":\"a\"}: must specify one of: `resourceClaimName`, `resourceClaimTemplateName`",
                "s.resourceClaims[1].name: Duplicate value: \"a\"",
                "s.resourceClaims[1]: Invalid value",
                "s.resourceClaims[1].resourceClaimName: Invalid value: \"C_1\"",
                "s.resourceClaims[2].name: Required value",
            ],
        );
        let many: Vec<Value> = (0..257).map(|at| json!({"name": format!("c{at}"), "resourceClaimName": "c"})).collect();
        check(json!(many[..256]), json!([]), &[]);
        check(json!(many), json!([]), &["s.resourceClaims: Too many: 257: must have at most 256 items"]);
    }

    #[test]
    fn r2_a_container_uses_each_claim_once() {
        let claims = json!([{"name": "gpu", "resourceClaimName": "c"}]);
        check(claims.clone(), json!([{"name": "gpu", "request": "a"}, {"name": "gpu", "request": "b"}]), &[]);
        check(
            claims.clone(),
            json!([{"name": "gpu", "request": "a"}, {"name": "gpu", "request": "a"}, {"name": "gpu"}, {"name": "gpu"}, {}]),
            &[
                "r.claims[1]: Duplicate value: \"gpu/a\"",
                "r.claims[2]: Duplicate value: \"gpu\"",
                "r.claims[3]: Duplicate value: \"gpu\"",
                "r.claims[4]: Required value",
            ],
        );
        check(
            claims,
            json!([{"name": "x"}]),
            &["r.claims[0]: Not found: \"x\": must be one of the names in pod.spec.resourceClaims: gpu"],
        );
        check(
            json!([]),
            json!([{"name": "x"}]),
            &["r.claims[0]: Not found: \"x\": must be one of the names in pod.spec.resourceClaims which is empty"],
        );
    }

    #[test]
    fn r3_static_pods_have_none() {
        let (spec, mut errors) = (json!({"resourceClaims": [{"name": "a"}]}), Errors::new());
        validate(&spec, true, &Path::new("s"), &mut errors);
        compare(&errors, &["[]: Forbidden: static pods do not support resource claims"]);
    }
}
