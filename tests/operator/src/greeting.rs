//! The custom resource, and what is done about each object of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{ObjectMeta, Patch, PatchParams};
use kube::runtime::controller::Action;
use kube::runtime::finalizer::{Event, finalizer};
use kube::runtime::{Controller, watcher};
use kube::{Api, Client, CustomResource, Resource, ResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// Something to say.
#[derive(CustomResource, Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[kube(group = "operator.windlass.test", version = "v1", kind = "Greeting", namespaced, status = "GreetingStatus")]
#[kube(shortname = "hi")]
pub struct GreetingSpec {
    /// What to say.
    pub text: String,
    /// How often.
    #[schemars(range(min = 1, max = 10))]
    pub times: u32,
}

/// What was said.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GreetingStatus {
    /// The generation that was last said.
    pub observed_generation: i64,
}

#[derive(Debug, thiserror::Error)]
enum ReconcileError {
    #[error("the API refuses")]
    Api(#[from] kube::Error),
    #[error("the finalizer failed")]
    Finalizer(#[from] Box<kube::runtime::finalizer::Error<kube::Error>>),
}

/// Reconciles greetings until dropped.
pub async fn run(client: Client, namespace: String) {
    let greetings: Api<Greeting> = Api::namespaced(client.clone(), &namespace);
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), &namespace);
    Controller::new(greetings, watcher::Config::default())
        .owns(maps, watcher::Config::default())
        .run(reconcile, |_, _, _| Action::requeue(Duration::from_secs(1)), Arc::new(client))
        .for_each(|ended| async move {
            if let Err(error) = ended {
                eprintln!("reconcile: {error:?}");
            }
        })
        .await;
}

async fn reconcile(greeting: Arc<Greeting>, client: Arc<Client>) -> Result<Action, ReconcileError> {
    let namespace = greeting.namespace().unwrap_or_default();
    let greetings: Api<Greeting> = Api::namespaced((*client).clone(), &namespace);
    let maps: Api<ConfigMap> = Api::namespaced((*client).clone(), &namespace);
    let done = finalizer(&greetings, "operator.windlass.test/farewell", greeting, |event| async {
        match event {
            Event::Apply(greeting) => say(&greetings, &maps, &greeting).await,
            Event::Cleanup(greeting) => farewell(&maps, &greeting).await,
        }
    });
    Ok(done.await.map_err(Box::new)?)
}

fn map(name: String, said: String, owner: Option<&Greeting>) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(name),
            owner_references: owner.and_then(|owner| owner.controller_owner_ref(&())).map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([("said".to_owned(), said)])),
        ..ConfigMap::default()
    }
}

async fn say(greetings: &Api<Greeting>, maps: &Api<ConfigMap>, greeting: &Greeting) -> Result<Action, kube::Error> {
    let by = PatchParams::apply("operator");
    let said = vec![greeting.spec.text.as_str(); greeting.spec.times as usize].join(" ");
    let wished = map(greeting.name_any(), said, Some(greeting));
    maps.patch(&greeting.name_any(), &by, &Patch::Apply(&wished)).await?;
    let status = json!({
        "apiVersion": Greeting::api_version(&()), "kind": Greeting::kind(&()),
        "status": {"observedGeneration": greeting.metadata.generation},
    });
    greetings.patch_status(&greeting.name_any(), &by.force(), &Patch::Apply(&status)).await?;
    Ok(Action::await_change())
}

/// What the finalizer does: it leaves a last word that nobody owns.
async fn farewell(maps: &Api<ConfigMap>, greeting: &Greeting) -> Result<Action, kube::Error> {
    let name = format!("{}-farewell", greeting.name_any());
    let last = map(name.clone(), greeting.spec.text.clone(), None);
    maps.patch(&name, &PatchParams::apply("operator"), &Patch::Apply(&last)).await?;
    Ok(Action::await_change())
}
