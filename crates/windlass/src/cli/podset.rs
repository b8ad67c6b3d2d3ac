//! Which pod and which of its containers a verb means that speaks to running programs.
//!
//! Rules
//!   R1 pod        a name or `pod/NAME`; of any kind with a selector, the first of its pods that runs, else the first
//!   R2 container  the one named, else what the pod's annotation says, else the first; said where there are several

use anyhow::{Result, bail};
use serde_json::Value;
use windlass_api::{Kind, kinds};

use super::describe::sheet::{items, pairs, selector, text};
use super::session::Session;
use super::target::Asked;

/// The annotation that names a pod's main container.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

/// R1: the pods that a word means; the first is the one to use.
pub async fn pods(session: &Session, word: &str) -> Result<Vec<Value>> {
    if !word.contains('/') {
        return Ok(vec![session.get(&kinds::POD, &session.namespace, word).await?]);
    }
    let (served, name) = Asked::one(session.discovery().await?, &[word.to_owned()])?;
    let kind: &Kind = &served.kind;
    let object = session.get(kind, session.namespace_of(kind), &name).await?;
    if kind.kind == "Pod" && kind.group.is_empty() {
        return Ok(vec![object]);
    }
    let Some(chosen) = labels_of(&object) else {
        bail!("{word} has no selector for pods: name a pod, or a Deployment, ReplicaSet, Service or Job");
    };
    let mut pods = session.list(&kinds::POD, Some(&session.namespace), &[("labelSelector", &chosen)]).await?;
    if pods.is_empty() {
        bail!("{word} has no pods now (selector {chosen})");
    }
    pods.sort_by_key(|pod| text(&pod["status"], "phase") != "Running");
    Ok(pods)
}

/// The labels that an object's selector asks for: of a Service a plain map.
fn labels_of(object: &Value) -> Option<String> {
    let asked = &object["spec"]["selector"];
    if asked["matchLabels"].is_object() || asked["matchExpressions"].is_array() {
        return Some(selector(asked));
    }
    let labels: Vec<String> = pairs(asked).map(|(key, value)| format!("{key}={value}")).collect();
    (!labels.is_empty()).then(|| labels.join(","))
}

/// All containers of a pod: those it runs, then those that ran first, then those added later.
pub fn containers(pod: &Value) -> Vec<&str> {
    let spec = &pod["spec"];
    let of = |key: &'static str| items(spec, key).iter().map(|container| text(container, "name"));
    of("containers").chain(of("initContainers")).chain(of("ephemeralContainers")).collect()
}

/// `one, two, setup (init)`.
fn listed(pod: &Value) -> String {
    let spec = &pod["spec"];
    let of = |key: &'static str, said: &'static str| {
        items(spec, key).iter().map(move |container| format!("{}{said}", text(container, "name")))
    };
    let all = of("containers", "").chain(of("initContainers", " (init)")).chain(of("ephemeralContainers", " (ephem)"));
    all.collect::<Vec<_>>().join(", ")
}

/// R2.
pub fn container(pod: &Value, named: Option<&str>) -> Result<String> {
    let all = containers(pod);
    if let Some(named) = named.filter(|named| !named.is_empty()) {
        if !all.contains(&named) {
            let name = text(&pod["metadata"], "name");
            bail!("container {named} is not valid for pod {name} out of: {}", listed(pod));
        }
        return Ok(named.to_owned());
    }
    let noted = pod["metadata"]["annotations"][DEFAULT_CONTAINER].as_str();
    if let Some(noted) = noted.filter(|noted| all.contains(noted)) {
        return Ok(noted.to_owned());
    }
    let Some(first) = all.first() else { bail!("pod {} has no containers", text(&pod["metadata"], "name")) };
    if all.len() > 1 {
        eprintln!("Defaulted container {first:?} out of: {}", listed(pod));
    }
    Ok((*first).to_owned())
}

#[cfg(test)]
mod tests {
    use super::{container, labels_of};
    use serde_json::json;

    #[test]
    fn r1_selectors_of_all_forms_choose_pods() {
        assert_eq!(labels_of(&json!({"spec": {"selector": {"app": "web"}}})).as_deref(), Some("app=web"));
        assert_eq!(labels_of(&json!({"spec": {"selector": {"matchLabels": {"a": "b"}}}})).as_deref(), Some("a=b"));
        assert_eq!(labels_of(&json!({"data": {}})), None);
    }

    #[test]
    fn r2_the_first_container_unless_said() {
        let mut pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}]}});
        assert_eq!(container(&pod, None).expect("a container"), "a");
        assert_eq!(container(&pod, Some("i")).expect("a container"), "i");
        let error = container(&pod, Some("z")).expect_err("no z").to_string();
        assert_eq!(error, "container z is not valid for pod p out of: a, b, i (init)");
        pod["metadata"]["annotations"] = json!({"kubectl.kubernetes.io/default-container": "b"});
        assert_eq!(container(&pod, None).expect("a container"), "b");
    }
}
