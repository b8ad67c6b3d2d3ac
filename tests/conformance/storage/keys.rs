//! ConfigMaps and Secrets as files: the matrix of kind, projection, mapping, mode and user; and files that follow them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use crate::Test;
use crate::api::MERGE;
use crate::running::{container, script, waiting};

/// What the files come from.
#[derive(Clone, Copy)]
pub enum Source {
    ConfigMap,
    Secret,
}

use Source::{ConfigMap, Secret};

impl Source {
    fn plural(self) -> &'static str {
        match self {
            ConfigMap => "configmaps",
            Secret => "secrets",
        }
    }

    /// What the object holds under these keys.
    fn object(self, name: &str, keys: &[(&str, &str)]) -> Value {
        let data: serde_json::Map<String, Value> = keys
            .iter()
            .map(|(key, text)| match self {
                ConfigMap => ((*key).to_owned(), json!(text)),
                Secret => ((*key).to_owned(), json!(BASE64.encode(text))),
            })
            .collect();
        json!({"metadata": {"name": name}, "data": data})
    }

    async fn create(self, test: &Test, name: &str, keys: &[(&str, &str)]) {
        test.api.create(&test.path("v1", self.plural()), &self.object(name, keys)).await.ok();
    }

    /// A volume `name` of this source, with more fields of the source.
    fn volume(self, name: &str, of: &str, projected: bool, more: &Value) -> Value {
        let (field, named) = match (self, projected) {
            (ConfigMap, _) => ("configMap", "name"),
            (Secret, true) => ("secret", "name"),
            (Secret, false) => ("secret", "secretName"),
        };
        let mut source = more.clone();
        source[named] = json!(of);
        if !projected {
            return json!({"name": name, field: source});
        }
        let mode = source.as_object_mut().and_then(|source| source.remove("defaultMode")).unwrap_or_default();
        json!({"name": name, "projected": {"sources": [{field: source}], "defaultMode": mode}})
    }
}

/// One row of the matrix.
#[derive(Clone, Copy)]
pub struct Keys {
    pub source: Source,
    pub projected: bool,
    /// The key goes to a path of its own.
    pub mapped: bool,
    pub default_mode: Option<u32>,
    pub item_mode: Option<u32>,
    pub user: Option<u32>,
    pub group: Option<u32>,
    /// Mounted from two volumes.
    pub twice: bool,
    /// Another object of the same name lies in another namespace.
    pub namesake: bool,
    /// The mode that the file shall have.
    pub mode: &'static str,
}

impl Keys {
    pub const fn of(source: Source) -> Keys {
        Keys {
            source,
            projected: false,
            mapped: false,
            default_mode: None,
            item_mode: None,
            user: None,
            group: None,
            twice: false,
            namesake: false,
            mode: "-rw-r--r--",
        }
    }

    pub const fn projected(source: Source) -> Keys {
        Keys { projected: true, ..Keys::of(source) }
    }

    /// A pod finds the file with its content and mode, and nothing that was not picked.
    pub async fn run(self, test: &Test) {
        let name = test.unique("keys");
        self.source.create(test, &name, &[("data-1", "value-1"), ("data-2", "value-2"), ("data-3", "value-3")]).await;
        if self.namesake {
            let other = Test { api: test.api.clone(), namespace: test.api.make_namespace().await };
            self.source.create(&other, &name, &[("data-1", "another")]).await;
            self.read(test, &name).await;
            test.api.delete(&format!("/api/v1/namespaces/{}", other.namespace)).await.ok();
        } else {
            self.read(test, &name).await;
        }
    }

    async fn read(self, test: &Test, name: &str) {
        let (file, files) =
            if self.mapped { ("path/to/data-2", "path\n") } else { ("data-1", "data-1\ndata-2\ndata-3\n") };
        let mut more = json!({});
        if let Some(mode) = self.default_mode {
            more["defaultMode"] = json!(mode);
        }
        if self.mapped {
            let mut item = json!({"key": "data-2", "path": file});
            if let Some(mode) = self.item_mode {
                item["mode"] = json!(mode);
            }
            more["items"] = json!([item]);
        }
        let volumes: &[&str] = if self.twice { &["one", "two"] } else { &["one"] };
        let lines: Vec<String> =
            volumes.iter().map(|volume| format!("cd /{volume}; ls; stat -L -c %A {file}; cat {file}; echo")).collect();
        let mut pod = script("reader", &lines.join("; "));
        let mounts = volumes.iter().map(|volume| json!({"name": volume, "mountPath": format!("/{volume}")}));
        pod["spec"]["containers"][0]["volumeMounts"] = mounts.collect();
        pod["spec"]["volumes"] =
            volumes.iter().map(|volume| self.source.volume(volume, name, self.projected, &more)).collect();
        if let Some(user) = self.user {
            pod["spec"]["securityContext"]["runAsUser"] = json!(user);
        }
        if let Some(group) = self.group {
            pod["spec"]["securityContext"]["fsGroup"] = json!(group);
        }
        let value = if self.mapped { "value-2" } else { "value-1" };
        let expected = format!("{files}{}\n{value}\n", self.mode).repeat(volumes.len());
        assert_eq!(test.run(&pod).await, expected);
    }
}

/// A pod whose files come, change and go with their objects.
async fn follows(test: &Test, source: Source, projected: bool) {
    let name = |word: &str| test.unique(word);
    source.create(test, &name("deleted"), &[("data-1", "value-1")]).await;
    source.create(test, &name("updated"), &[("data-1", "value-1")]).await;
    let mut pod = waiting("follower");
    let optional = json!({"optional": true});
    let words = ["deleted", "updated", "created"];
    pod["spec"]["volumes"] = words.iter().map(|word| source.volume(word, &name(word), projected, &optional)).collect();
    let mounts = words.iter().map(|word| json!({"name": word, "mountPath": format!("/{word}")}));
    pod["spec"]["containers"][0]["volumeMounts"] = mounts.collect();
    test.start_ready(&pod).await;
    let look = "for f in /deleted/data-1 /updated/data-1 /updated/data-3 /created/data-1; do cat $f 2>/dev/null || echo none; echo; done";
    let seen = async |first: [&str; 4]| {
        let said = |text: &str| text.split_whitespace().eq(first);
        test.until_shell("follower", look, said).await;
    };
    seen(["value-1", "value-1", "none", "none"]).await;
    let path = test.path("v1", source.plural());
    test.api.delete(&format!("{path}/{}", name("deleted"))).await.ok();
    let change = source.object(&name("updated"), &[("data-3", "value-3")]);
    test.api.patch(&format!("{path}/{}", name("updated")), MERGE, &json!({"data": {"data-1": null}})).await.ok();
    test.api.patch(&format!("{path}/{}", name("updated")), MERGE, &json!({"data": change["data"]})).await.ok();
    source.create(test, &name("created"), &[("data-1", "value-1")]).await;
    seen(["none", "none", "value-3", "value-1"]).await;
}

pub async fn config_maps_are_followed(test: &Test) {
    follows(test, ConfigMap, false).await;
}

pub async fn projected_config_maps_are_followed(test: &Test) {
    follows(test, ConfigMap, true).await;
}

pub async fn secrets_are_followed(test: &Test) {
    follows(test, Secret, false).await;
}

pub async fn projected_secrets_are_followed(test: &Test) {
    follows(test, Secret, true).await;
}

async fn changes(test: &Test, projected: bool) {
    let name = test.unique("changing");
    ConfigMap.create(test, &name, &[("data-1", "value-1")]).await;
    let mut pod = waiting("reader");
    pod["spec"]["volumes"] = json!([ConfigMap.volume("v", &name, projected, &json!({}))]);
    pod["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "v", "mountPath": "/v"}]);
    test.start_ready(&pod).await;
    assert_eq!(test.shell("reader", "cat /v/data-1").await, "value-1");
    let path = format!("{}/{name}", test.path("v1", "configmaps"));
    test.api.patch(&path, MERGE, &json!({"data": {"data-1": "value-2"}})).await.ok();
    test.until_shell("reader", "cat /v/data-1", |text| text == "value-2").await;
}

pub async fn a_change_of_a_config_map_arrives(test: &Test) {
    changes(test, false).await;
}

pub async fn a_change_of_a_projected_config_map_arrives(test: &Test) {
    changes(test, true).await;
}

pub async fn text_and_bytes_arrive(test: &Test) {
    let bytes = [0xde, 0xca, 0xfe, 0xba, 0xd0, 0xfe, 0xff];
    let name = test.unique("bytes");
    let object = json!({"metadata": {"name": name}, "data": {"data-1": "value-1"},
        "binaryData": {"dump.bin": BASE64.encode(bytes)}});
    test.api.create(&test.path("v1", "configmaps"), &object).await.ok();
    let mut pod = script("reader", "cat /v/data-1; od -An -tx1 /v/dump.bin");
    pod["spec"]["volumes"] = json!([{"name": "v", "configMap": {"name": name}}]);
    pod["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "v", "mountPath": "/v"}]);
    let text = test.run(&pod).await;
    assert_eq!(text.split_whitespace().collect::<Vec<_>>().join(" "), "value-1 de ca fe ba d0 fe ff");
}

pub async fn several_sources_share_a_volume(test: &Test) {
    let name = test.unique("several");
    ConfigMap.create(test, &name, &[("configmap-data", "from the map")]).await;
    Secret.create(test, &name, &[("secret-data", "from the secret")]).await;
    let items = |key: &str| json!([{"key": key, "path": key}]);
    let field = json!([{"path": "podname", "fieldRef": {"fieldPath": "metadata.name"}}]);
    let sources = json!([
        {"configMap": {"name": name, "items": items("configmap-data")}},
        {"secret": {"name": name, "items": items("secret-data")}},
        {"downwardAPI": {"items": field}},
    ]);
    let mut pod = script("reader", "cd /all; for f in *; do cat $f; echo; done");
    pod["spec"]["volumes"] = json!([{"name": "all", "projected": {"sources": sources}}]);
    pod["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "all", "mountPath": "/all"}]);
    assert_eq!(test.run(&pod).await, "from the map\nreader\nfrom the secret\n");
}

pub async fn a_secret_and_a_config_map_do_not_disturb_each_other(test: &Test) {
    let name = test.unique("both");
    ConfigMap.create(test, &name, &[("data-1", "map")]).await;
    Secret.create(test, &name, &[("data-1", "secret")]).await;
    let mut pod = script("reader", "cat /map/data-1 /secret/data-1");
    pod["spec"]["volumes"] =
        json!([Secret.volume("secret", &name, false, &json!({})), ConfigMap.volume("map", &name, false, &json!({}))]);
    pod["spec"]["containers"][0]["volumeMounts"] =
        json!([{"name": "secret", "mountPath": "/secret", "readOnly": true}, {"name": "map", "mountPath": "/map"}]);
    assert_eq!(test.run(&pod).await, "mapsecret");
}

/// Fifty ConfigMaps in each of five pods that start together.
pub async fn many_volumes_come_up_together(test: &Test) {
    let names: Vec<String> = (0..50).map(|number| test.unique(&format!("racer-{number}"))).collect();
    for name in &names {
        ConfigMap.create(test, name, &[("data-1", "value-1")]).await;
    }
    let mut pod = waiting("racer");
    pod["spec"]["volumes"] = names.iter().map(|name| ConfigMap.volume(name, name, false, &json!({}))).collect();
    let mounts = names.iter().map(|name| json!({"name": name, "mountPath": format!("/v/{name}")}));
    pod["spec"]["containers"][0]["volumeMounts"] = mounts.collect();
    let template = json!({"metadata": {"labels": {"app": "racer"}}, "spec": pod["spec"]});
    let controller = json!({"metadata": {"name": "racer"},
        "spec": {"replicas": 5, "selector": {"app": "racer"}, "template": template}});
    test.api.create(&test.path("v1", "replicationcontrollers"), &controller).await.ok();
    let ready = |controller: &Value| controller["status"]["readyReplicas"] == 5;
    test.api.seen(&test.path("v1", "replicationcontrollers"), "racer", "all five ready", ready).await;
    let pods = test.api.get(&format!("{}?labelSelector=app%3Dracer", test.path("v1", "pods"))).await.ok();
    let pods = pods["items"].as_array().expect("a list").clone();
    assert_eq!(pods.len(), 5);
    for pod in pods {
        let name = pod["metadata"]["name"].as_str().expect("a pod has a name");
        assert_eq!(test.shell(name, "cat /v/*/data-1 | wc -c").await.trim(), "350");
    }
}

/// A container that writes what another reads.
pub async fn containers_share_an_empty_volume(test: &Test) {
    let mount = json!([{"name": "shared", "mountPath": "/shared"}]);
    let mut writer = container("writer", "echo hello from writer > /shared/file; sleep 1000");
    writer["volumeMounts"] = mount.clone();
    let mut pod = waiting("sharing");
    pod["spec"]["volumes"] = json!([{"name": "shared", "emptyDir": {}}]);
    pod["spec"]["containers"][0]["volumeMounts"] = mount;
    pod["spec"]["containers"].as_array_mut().expect("a list").push(writer);
    test.start_ready(&pod).await;
    test.until_shell("sharing", "cat /shared/file", |text| text == "hello from writer\n").await;
}
