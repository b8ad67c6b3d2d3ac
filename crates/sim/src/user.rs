//! A user: creates, changes, scales and deletes objects of its own over a link that loses messages, and remembers what
//! was acknowledged.
//!
//! Flow        look at an object → decide → write → acknowledged, refused, or unknown: then look again

use std::time::Duration;

use serde_json::{Value, json};
use windlass_api::{Kind, Object, Reason, kinds};
use windlass_client::{Client, ClientError, DeleteOptions, ListOptions, Patch, Propagation};
use windlass_stdx::{TransportError, World};

use crate::history::History;
use crate::invariant::acked::{Ledger, NAMESPACE, ObjectId, STEP, Shape};

/// Objects of each kind that a user has: ConfigMaps, Services, Deployments.
const OBJECTS: [(&Kind, u64, &str); 3] =
    [(&kinds::CONFIG_MAP, 2, "config"), (&kinds::SERVICE, 1, "service"), (&kinds::DEPLOYMENT, 2, "web")];
/// How long a user thinks, in milliseconds, at least and at most.
const THINK_MS: (u64, u64) = (50, 1_800);
/// One in so many times a user deletes one of its pods instead.
const PODS_DELETED: u64 = 12;
/// How long a user waits for an answer.
const DEADLINE: Duration = Duration::from_secs(5);
/// The most replicas of a Deployment.
const REPLICAS_MAX: u64 = 4;

/// A user and what it has.
pub struct User {
    name: String,
    client: Client,
    world: World,
    history: History,
    ledger: Ledger,
    steps: u64,
}

/// What a user wants to do with an object.
struct Wish {
    verb: Verb,
    /// What it would leave.
    leaves: Vec<Shape>,
}

enum Verb {
    Create(Value),
    Update(Value),
    Patch(Value),
    Scale(u64),
    Delete(Propagation),
}

/// What became of it.
enum Fate {
    Acked(Option<Box<Object>>),
    Scaled(u64),
    Refused,
    Unknown,
}

impl User {
    /// A user who has done nothing yet.
    pub fn new(name: &str, client: &Client, history: History, ledger: Ledger) -> User {
        let (client, world) = (client.with_deadline(DEADLINE), client.world().clone());
        User { name: name.to_owned(), client, world, history, ledger, steps: 0 }
    }

    /// Works for ever.
    pub async fn work(mut self) {
        loop {
            let (least, most) = THINK_MS;
            tokio::time::sleep(Duration::from_millis(least + self.world.random_below(most - least))).await;
            if self.world.random_below(PODS_DELETED) == 0 {
                self.delete_pod().await;
                continue;
            }
            let (kind, id) = self.pick();
            if let Some(object) = self.look(kind, &id).await {
                self.act(kind, &id, object.as_ref()).await;
            }
        }
    }

    fn note(&self, what: impl std::fmt::Display) {
        self.history.note(&self.name, what);
    }

    fn pick(&self) -> (&'static Kind, ObjectId) {
        let all: u64 = OBJECTS.iter().map(|(_, count, _)| count).sum();
        let mut pick = self.world.random_below(all);
        for (kind, count, word) in OBJECTS {
            if pick < count {
                let name = format!("{}-{word}{pick}", self.name);
                return (kind, ObjectId { plural: kind.plural.to_string(), name });
            }
            pick -= count;
        }
        unreachable!("the pick is below the sum of all counts")
    }

    /// Deletes one of the pods of one of the user's Deployments; another takes its place.
    async fn delete_pod(&self) {
        let options = ListOptions::labels(format!("app in ({0}-web0,{0}-web1)", self.name));
        let Ok(list) = self.client.list(&kinds::POD, Some(NAMESPACE), &options).await else { return };
        if list.items.is_empty() {
            return;
        }
        let pod = &list.items[self.world.random_below(list.items.len() as u64) as usize].header;
        let how = DeleteOptions::of_uid(pod.uid());
        let how = if self.world.random_below(3) == 0 { how.at_once() } else { how };
        match self.client.delete(&kinds::POD, NAMESPACE, pod.name(), &how).await {
            Ok(_) => self.note(format_args!("has deleted pod {} on {:?}", pod.name(), pod.node_name())),
            Err(error) => self.note(format_args!("could not delete pod {}: {error}", pod.name())),
        }
    }

    /// What there is now; `None` when nobody says.
    async fn look(&self, kind: &Kind, id: &ObjectId) -> Option<Option<Object>> {
        let found = self.client.get(kind, NAMESPACE, &id.name).await.ok()?;
        if let Err(wrong) = self.ledger.seen(id, found.as_ref()) {
            self.history.violate("acked", format_args!("{} reads: {wrong}", self.name));
        }
        Some(found)
    }

    async fn act(&mut self, kind: &'static Kind, id: &ObjectId, object: Option<&Object>) {
        let Some(wish) = self.decide(kind, id, object) else { return };
        self.ledger.begin(id, &wish.leaves);
        let fate = self.send(kind, id, &wish.verb).await;
        match fate {
            Fate::Acked(object) => self.acked(id, &wish, object.as_deref()),
            Fate::Scaled(revision) => {
                self.note(format_args!("{} {}: {} at {revision}", id.plural, id.name, wish.leaves[0]));
                self.ledger.acked(id, wish.leaves[0].clone(), revision);
            }
            Fate::Refused => self.ledger.refused(id, &wish.leaves),
            Fate::Unknown => self.note(format_args!("{} {}: maybe {}", id.plural, id.name, wish.leaves[0])),
        }
    }

    fn acked(&self, id: &ObjectId, wish: &Wish, object: Option<&Object>) {
        let revision = object.map_or(0, |object| object.header.revision);
        let left = match (&wish.verb, object) {
            (Verb::Delete(_), Some(object)) if object.header.is_ending() && object.header.finalizers().len() > 0 => {
                Shape::Ending
            }
            (Verb::Delete(_), _) => Shape::Absent,
            (_, object) => Shape::of(object),
        };
        self.note(format_args!("{} {}: {left} at {revision}", id.plural, id.name));
        if !wish.leaves.contains(&left) {
            let wanted = &wish.leaves[0];
            self.history.violate("acked", format_args!("{}: wrote {wanted}, the answer shows {left}", id.name));
        }
        self.ledger.acked(id, left, revision);
    }

    fn next_step(&mut self) -> String {
        self.steps += 1;
        format!("{}.{}", self.name, self.steps)
    }

    fn decide(&mut self, kind: &Kind, id: &ObjectId, object: Option<&Object>) -> Option<Wish> {
        let dice = self.world.random_below(100);
        let is_deployment = kind.plural == kinds::DEPLOYMENT.plural;
        let step = self.next_step();
        let Some(object) = object else {
            let replicas = is_deployment.then(|| 1 + self.world.random_below(REPLICAS_MAX));
            let body = self.body(kind, id, &step, replicas);
            return Some(Wish { verb: Verb::Create(body), leaves: vec![Shape::present(&step, replicas)] });
        };
        if object.header.is_ending() {
            return None;
        }
        let mut value = object.value();
        let replicas = value["spec"]["replicas"].as_u64();
        let leaves = vec![Shape::present(&step, replicas)];
        Some(match dice {
            0..8 => {
                let how = if dice < 3 { Propagation::Foreground } else { Propagation::Background };
                Wish { verb: Verb::Delete(how), leaves: vec![Shape::Ending, Shape::Absent] }
            }
            8..50 if is_deployment => {
                let own = value["metadata"]["annotations"][STEP].as_str().unwrap_or_default();
                let replicas = self.world.random_below(REPLICAS_MAX + 1);
                Wish { verb: Verb::Scale(replicas), leaves: vec![Shape::present(own, Some(replicas))] }
            }
            8..75 => {
                let mut change = self.change(kind, id, &step);
                change["metadata"] = json!({"annotations": {STEP: step}});
                Wish { verb: Verb::Patch(change), leaves }
            }
            _ => {
                value["metadata"]["annotations"][STEP] = json!(step);
                if kind.plural == kinds::CONFIG_MAP.plural {
                    value["data"]["step"] = json!(step);
                }
                Wish { verb: Verb::Update(value), leaves }
            }
        })
    }

    /// What a patch changes besides the step.
    fn change(&self, kind: &Kind, id: &ObjectId, step: &str) -> Value {
        match &*kind.plural {
            "deployments" => json!({"spec": {"template": template(id, 1 + self.world.random_below(3))}}),
            "services" => json!({"spec": {"ports": [{"port": 80, "targetPort": 8080 + self.world.random_below(3)}]}}),
            _ => json!({"data": {"step": step}}),
        }
    }

    fn body(&self, kind: &Kind, id: &ObjectId, step: &str, replicas: Option<u64>) -> Value {
        let mut body = json!({
            "apiVersion": kind.api_version(), "kind": kind.kind,
            "metadata": {"name": id.name, "namespace": NAMESPACE, "annotations": {STEP: step}},
        });
        match &*kind.plural {
            "deployments" => {
                body["spec"] = json!({"replicas": replicas, "selector": {"matchLabels": {"app": id.name}},
                    "template": template(id, 1)});
            }
            "services" => {
                let app = format!("{}-web0", self.name);
                body["spec"] = json!({"selector": {"app": app}, "ports": [{"port": 80, "targetPort": 8080}]});
            }
            _ => body["data"] = json!({"step": step}),
        }
        body
    }

    async fn send(&self, kind: &Kind, id: &ObjectId, verb: &Verb) -> Fate {
        let (client, name) = (&self.client, id.name.as_str());
        let sent = match verb {
            Verb::Create(body) => client.create(kind, NAMESPACE, body).await.map(Some),
            Verb::Update(body) => client.update(kind, NAMESPACE, name, body).await.map(Some),
            Verb::Patch(patch) => {
                client.patch(kind, NAMESPACE, name, &Patch::Strategic(patch.clone()), None).await.map(Some)
            }
            Verb::Delete(how) => client.delete(kind, NAMESPACE, name, &DeleteOptions::default().propagate(*how)).await,
            Verb::Scale(replicas) => return self.scale(kind, name, *replicas).await,
        };
        match sent {
            Ok(object) => Fate::Acked(object.map(Box::new)),
            Err(error) => self.judge(id, &error),
        }
    }

    async fn scale(&self, kind: &Kind, name: &str, replicas: u64) -> Fate {
        let scale = json!({"apiVersion": "autoscaling/v1", "kind": "Scale",
            "metadata": {"name": name, "namespace": NAMESPACE}, "spec": {"replicas": replicas}});
        match self.client.update_sub(kind, NAMESPACE, name, "scale", &scale).await {
            Ok(scale) => {
                let revision = scale["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse().ok());
                Fate::Scaled(revision.unwrap_or(0))
            }
            Err(error) => self.judge(&ObjectId { plural: kind.plural.to_string(), name: name.to_owned() }, &error),
        }
    }

    /// Whether a write that brought an error may have been carried out.
    fn judge(&self, id: &ObjectId, error: &ClientError) -> Fate {
        match error {
            ClientError::Transport { source: TransportError::Unreachable { .. }, .. } => Fate::Refused,
            ClientError::Api(refusal) => match refusal.reason {
                Reason::Conflict | Reason::AlreadyExists | Reason::NotFound | Reason::TooManyRequests => Fate::Refused,
                _ if error.is_retryable() => Fate::Unknown,
                _ => {
                    let ObjectId { plural, name } = id;
                    self.history.violate("acked", format_args!("{plural}/{name}: a good write was refused: {error}"));
                    Fate::Refused
                }
            },
            _ => Fate::Unknown,
        }
    }
}

/// The pods of a Deployment. Those of even names leave a lost node early.
fn template(id: &ObjectId, version: u64) -> Value {
    let owner = id.name.split('-').next().unwrap_or_default();
    let early = |taint: &str| json!({"key": format!("node.kubernetes.io/{taint}"), "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 6});
    let tolerations = if id.name.ends_with('0') { vec![early("not-ready"), early("unreachable")] } else { Vec::new() };
    json!({
        "metadata": {"labels": {"app": id.name}, "annotations": {"version": version.to_string()}},
        "spec": {
            "terminationGracePeriodSeconds": 4,
            "tolerations": tolerations,
            "volumes": [{"name": "config", "configMap": {"name": format!("{owner}-config0"), "optional": true}}],
            "containers": [{
                "name": "web", "image": format!("demo:{version}"),
                "ports": [{"containerPort": 8080}],
                "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
                "volumeMounts": [{"name": "config", "mountPath": "/config"}],
            }],
        },
    })
}
