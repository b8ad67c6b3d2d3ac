//! Static pods: what a file of the machine says shall run here, whatever the API says.
//!
//! Source: Kubernetes documentation, "Create static Pods".
//!
//! Rules
//!   R1 named      `NAME-NODE`, in `default` unless the file names another namespace; bound to this node
//!   R2 hashed     uid and hash are of what the file says: a changed file is another pod
//!   R3 alone      what would need other objects of the API (accounts, ConfigMaps, Secrets, claims) is refused
//!   R4 stays      no taint drives it away
//!   R5 valid      what the API would refuse is refused, with the paths of what is wrong
//!   R6 mirrored   the API has a likeness of it, which names the hash, belongs to the node and can be read but not obeyed

use bytes::Bytes;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use windlass_api::Object;
use windlass_api::codec::{Limits, yaml};
use windlass_api::field::Errors;
use windlass_api::resource::Resource;
use windlass_api::resources::validate_metadata;

/// What the pod is, for those who look: the hash of its file.
const HASH: &str = "kubernetes.io/config.hash";
/// Where the pod comes from.
const SOURCE: &str = "kubernetes.io/config.source";
/// Whose likeness a mirror is: the hash.
const MIRROR: &str = "kubernetes.io/config.mirror";
/// Hexadecimal digits of a hash that are kept: as many as a uid has.
const HASH_DIGITS: usize = 32;

/// The pod that a file says, as if the API had bound it to this node.
pub fn pod(text: &[u8], node: &str) -> Result<Object, String> {
    let mut pod = yaml::decode(text, Limits::default()).map_err(|error| error.to_string())?.value;
    if pod["kind"] != "Pod" || pod["apiVersion"] != "v1" {
        return Err(format!("expected a v1 Pod, found {} {}", pod["apiVersion"], pod["kind"]));
    }
    let name = pod["metadata"]["name"].as_str().filter(|name| !name.is_empty());
    let name = format!("{}-{node}", name.ok_or("expected metadata.name, found none")?);
    if !pod["spec"].is_object() {
        return Err("expected a spec, found none".to_owned());
    }
    alone(&pod["spec"])?;
    let kinds = windlass_api::resources::registry();
    let row = kinds.find_kind("v1", "Pod").expect("every registry has pods");
    row.rules.default(&mut pod);
    // R2.
    let mut hash = Sha256::new();
    hash.update(node);
    hash.update([0]);
    hash.update(pod.to_string());
    let hash: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).take(HASH_DIGITS / 2).collect();
    // R1.
    let metadata = pod["metadata"].as_object_mut().expect("it has a name");
    metadata.insert("name".to_owned(), json!(name));
    metadata.entry("namespace").or_insert_with(|| json!("default"));
    metadata.insert("uid".to_owned(), json!(hash));
    let annotations = metadata.entry("annotations").or_insert_with(|| json!({}));
    if !annotations.is_object() {
        *annotations = json!({});
    }
    annotations[HASH] = json!(hash);
    annotations[SOURCE] = json!("file");
    pod["spec"]["nodeName"] = json!(node);
    // R4.
    pod["spec"]["tolerations"] = json!([{"operator": "Exists", "effect": "NoExecute"}]);
    pod["status"] = json!({});
    valid(row, &pod)?;
    Object::parse(Bytes::from(pod.to_string())).map_err(|error| error.to_string())
}

/// R5.
fn valid(row: &Resource, pod: &Value) -> Result<(), String> {
    let mut errors = Errors::new();
    // The node gave the uid itself.
    validate_metadata(row, pod, &mut errors);
    row.rules.validate(pod, &mut errors);
    let found: Vec<String> = errors.iter().map(ToString::to_string).collect();
    if found.is_empty() { Ok(()) } else { Err(found.join("; ")) }
}

/// R3.
fn alone(spec: &Value) -> Result<(), String> {
    let refused = |what: &str| Err(format!("a static pod cannot use {what}: no API is asked about it"));
    if spec["serviceAccountName"].as_str().is_some_and(|name| !name.is_empty()) {
        return refused("a service account");
    }
    if spec["ephemeralContainers"].is_array() {
        return refused("ephemeral containers");
    }
    for volume in spec["volumes"].as_array().into_iter().flatten() {
        for kind in ["configMap", "secret", "persistentVolumeClaim", "projected", "ephemeral", "csi"] {
            if !volume[kind].is_null() {
                return refused(&format!("a volume of kind {kind}"));
            }
        }
    }
    let lists = ["initContainers", "containers"].iter().filter_map(|list| spec[list].as_array()).flatten();
    for container in lists {
        let env = container["env"].as_array().into_iter().flatten().map(|variable| &variable["valueFrom"]);
        let from = container["envFrom"].as_array().into_iter().flatten();
        let named = env.flat_map(|from| [&from["configMapKeyRef"], &from["secretKeyRef"]]);
        if named.chain(from).any(|reference| !reference.is_null()) {
            return refused("ConfigMaps or Secrets in its environment");
        }
    }
    Ok(())
}

/// R6: what the API is given of a static pod.
pub fn mirror(pod: &Object, node_uid: &str, node: &str) -> Value {
    let mut mirror = pod.value();
    let metadata = mirror["metadata"].as_object_mut().expect("a pod has metadata");
    let hash = metadata.remove("uid").unwrap_or_default();
    metadata["annotations"][MIRROR] = hash;
    let owner = json!({"apiVersion": "v1", "kind": "Node", "name": node, "uid": node_uid, "controller": true});
    metadata.insert("ownerReferences".to_owned(), json!([owner]));
    mirror["status"].take();
    mirror
}

/// Whose likeness an object is; `None` for every other pod.
pub fn mirrored(object: &Object) -> Option<String> {
    // Most pods are no mirrors, and need not be read for that.
    let named = object.json.windows(MIRROR.len()).any(|window| window == MIRROR.as_bytes());
    named.then(|| annotation(&object.value(), MIRROR)).flatten()
}

/// Whether a pod is one that a file of this machine says. Anybody may write the annotations of a pod of the API, but not
/// its uid, which for ours is the hash.
pub fn is_static(uid: &str, annotations: Option<&std::collections::BTreeMap<String, String>>) -> bool {
    annotations.is_some_and(|annotations| {
        annotations.get(SOURCE).is_some_and(|source| source == "file")
            && annotations.get(HASH).is_some_and(|hash| hash == uid)
            && !annotations.contains_key(MIRROR)
    })
}

/// The same of an object.
pub fn says_static(object: &Object) -> bool {
    let value = object.value();
    let annotations = value["metadata"]["annotations"]
        .as_object()
        .map(|all| all.iter().filter_map(|(name, text)| Some((name.clone(), text.as_str()?.to_owned()))).collect());
    is_static(object.header.uid(), annotations.as_ref())
}

fn annotation(object: &Value, name: &str) -> Option<String> {
    let annotations: &Map<String, Value> = object["metadata"]["annotations"].as_object()?;
    Some(annotations.get(name)?.as_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::{is_static, mirror, mirrored, pod};

    const WEB: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {containers: [{name: a, image: b}]}\n";

    #[test]
    fn r1_a_static_pod_is_named_after_its_node() {
        let pod = pod(WEB.as_bytes(), "n1").expect("a pod");
        assert_eq!((pod.header.namespace(), pod.header.name()), ("default", "web-n1"));
        assert_eq!((pod.header.node_name(), pod.header.uid().len()), ("n1", 32));
        assert_eq!(pod.value()["spec"]["restartPolicy"], "Always", "defaults are filled in");
        let read = pod.decode::<windlass_api::types::core::Pod>().expect("a pod");
        assert!(is_static(pod.header.uid(), read.metadata.annotations.as_ref()));
        assert!(!is_static("of-the-api", read.metadata.annotations.as_ref()), "another pod that says the same");
    }

    #[test]
    fn r2_another_text_is_another_pod_and_another_layout_is_not() {
        let uid = |text: &str| pod(text.as_bytes(), "n1").expect("a pod").header.uid().to_owned();
        assert_eq!(uid(WEB), uid(&WEB.replace("{name: web}", "\n  name: \"web\"")));
        assert_ne!(uid(WEB), uid(&WEB.replace("image: b", "image: c")));
    }

    #[test]
    fn r3_what_needs_the_api_is_refused() {
        let with = |part: &str| pod(WEB.replace("spec: {", &format!("spec: {{{part}, ")).as_bytes(), "n1").err();
        for part in [
            "serviceAccountName: a",
            "volumes: [{name: v, secret: {secretName: s}}]",
            "initContainers: [{name: i, image: b, envFrom: [{secretRef: {name: s}}]}]",
            "initContainers: [{name: i, image: b, env: [{name: E, valueFrom: {configMapKeyRef: {name: m, key: k}}}]}]",
        ] {
            assert!(with(part).is_some_and(|why| why.starts_with("a static pod cannot use")), "{part}");
        }
        assert!(with("volumes: [{name: v, emptyDir: {}}]").is_none());
        for text in ["", "kind: Pod", "apiVersion: v1\nkind: Pod\nmetadata: {name: a}", "a: [", "- 1"] {
            assert!(pod(text.as_bytes(), "n1").is_err(), "{text:?}");
        }
    }

    #[test]
    fn r5_what_the_api_would_refuse_is_refused_by_its_path() {
        let why = |text: String| pod(text.as_bytes(), "n1").expect_err("it is not valid");
        let rows = [
            (WEB.replace("image: b", "image: b, ports: [{containerPort: 70000}]"), "spec.containers[0].ports[0]"),
            (WEB.replace("{name: a, image: b}", "{name: a, image: b}, {name: a, image: b}"), "spec.containers[1].name"),
            (WEB.replace("name: web", "name: We_b"), "metadata.name"),
            (WEB.replace("spec: {", "spec: {restartPolicy: Sometimes, "), "spec.restartPolicy"),
        ];
        for (text, path) in rows {
            let why = why(text);
            assert!(why.contains(path), "{why}");
        }
    }

    #[test]
    fn r6_a_mirror_names_whom_it_mirrors() {
        let pod = pod(WEB.as_bytes(), "n1").expect("a pod");
        let mirror = mirror(&pod, "u", "n1");
        assert_eq!(mirror["metadata"]["ownerReferences"][0]["uid"], "u");
        assert!(mirror["metadata"]["uid"].is_null() && mirror["status"].is_null());
        let mirror = windlass_api::Object::parse(mirror.to_string().into()).expect("an object");
        assert_eq!(mirrored(&mirror).as_deref(), Some(pod.header.uid()));
        assert_eq!(mirrored(&pod), None);
    }
}
