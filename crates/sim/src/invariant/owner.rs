//! Owner: no object outlives all of its owners.
//!
//! Source: Kubernetes documentation, "Garbage Collection": dependents whose owners are gone are removed.

use std::collections::BTreeSet;

use super::converge::View;

/// Which objects should have gone with their owners.
pub fn check(view: &View) -> Vec<String> {
    let owners = view.deployments.iter().chain(&view.replica_sets).chain(&view.services).chain(&view.pods);
    let alive: BTreeSet<&str> = owners.map(|object| object.header.uid()).collect();
    let owned = view.replica_sets.iter().chain(&view.pods).chain(&view.slices);
    let orphans = owned.filter(|object| {
        !object.header.owners().is_empty()
            && !object.header.owners().iter().any(|owner| alive.contains(owner.uid.as_str()))
    });
    let say = |object: &windlass_api::Object| {
        format!("{} {}: its owners are gone", object.header.kind(), object.header.key())
    };
    orphans.map(say).collect()
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::invariant::converge::View;
    use serde_json::json;
    use windlass_api::Object;

    #[test]
    fn an_object_whose_owner_is_gone_is_found() {
        let set = |uid: &str, owner: &str| {
            let set = json!({"kind": "ReplicaSet", "metadata": {"name": uid, "uid": uid, "ownerReferences": [{"uid": owner}]}});
            Object::parse(set.to_string().into_bytes().into()).expect("an object")
        };
        let deployment = Object::parse(br#"{"metadata":{"name":"d","uid":"d1"}}"#.to_vec().into()).expect("an object");
        let replica_sets = vec![set("s1", "d1"), set("s2", "d2")];
        let view = View { deployments: vec![deployment], replica_sets, ..View::default() };
        assert_eq!(check(&view), ["ReplicaSet s2: its owners are gone"]);
    }
}
