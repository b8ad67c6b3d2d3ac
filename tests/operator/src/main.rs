//! An operator as its users write one: kube-rs, a custom resource, a finalizer, server-side apply, leader election.
//!
//! `operator KUBECONFIG NAMESPACE` installs its definition, elects one of two candidates, reconciles greetings, and
//! checks what came of it; it prints `ok` when all of it was so.

#![expect(clippy::disallowed_methods, reason = "an operator lives in the real world")]

mod greeting;
mod leader;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::conditions::is_crd_established;
use kube::runtime::wait::{await_condition, conditions};
use kube::{Api, Client, Config, CustomResourceExt, Error, ResourceExt};
use serde_json::json;
use tokio::time::timeout;

use greeting::{Greeting, GreetingSpec};

/// Everything waited for comes well before this.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().context("the first argument is a kubeconfig")?;
    let namespace = arguments.next().context("the second argument is a namespace")?;
    let config = Config::from_custom_kubeconfig(Kubeconfig::read_from(path)?, &KubeConfigOptions::default()).await?;
    let client = Client::try_from(config)?;
    install(&client).await?;
    // Two candidates, as two replicas of the operator would be.
    let first = tokio::spawn(leader::lead_and_run(client.clone(), namespace.clone(), "first".to_owned()));
    let second = tokio::spawn(leader::lead_and_run(client.clone(), namespace.clone(), "second".to_owned()));
    let holder = leader::holder(&client, &namespace).await?;
    check_greeting(&client, &namespace, "before").await?;
    // The leader goes without a word; the other takes its place when the lease has run out.
    let (gone, stays) = if holder == "first" { (first, second) } else { (second, first) };
    gone.abort();
    check_greeting(&client, &namespace, "after").await?;
    ensure!(leader::holder(&client, &namespace).await? != holder, "the other candidate leads now");
    stays.abort();
    println!("ok");
    Ok(())
}

/// Applies the definition and waits until it is served.
async fn install(client: &Client) -> Result<()> {
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let wished = Greeting::crd();
    let name = wished.name_any();
    let by = PatchParams::apply("operator");
    definitions.patch(&name, &by, &Patch::Apply(&wished)).await.context("apply the definition")?;
    definitions.patch(&name, &by, &Patch::Apply(&wished)).await.context("apply it again")?;
    timeout(PATIENCE, await_condition(definitions, &name, is_crd_established())).await??;
    Ok(())
}

/// One greeting's life.
async fn check_greeting(client: &Client, namespace: &str, name: &str) -> Result<()> {
    let greetings: Api<Greeting> = Api::namespaced(client.clone(), namespace);
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let wished = Greeting::new(name, GreetingSpec { text: "ahoy".to_owned(), times: 2 });
    let made = greetings.create(&PostParams::default(), &wished).await.context("create a greeting")?;
    let said = |text: &'static str| {
        move |map: Option<&ConfigMap>| {
            map.and_then(|map| map.data.as_ref()?.get("said")).is_some_and(|said| said == text)
        }
    };
    timeout(PATIENCE, await_condition(maps.clone(), name, said("ahoy ahoy")))
        .await
        .context("the greeting is said")??;
    let observed = |generation: i64| {
        move |greeting: Option<&Greeting>| {
            greeting
                .and_then(|greeting| greeting.status.as_ref())
                .is_some_and(|status| status.observed_generation == generation)
        }
    };
    let generation = made.metadata.generation.context("a custom object has a generation")?;
    timeout(PATIENCE, await_condition(greetings.clone(), name, observed(generation))).await??;
    // A change of the spec is seen, and counted.
    greetings.patch(name, &PatchParams::default(), &Patch::Merge(json!({"spec": {"times": 3}}))).await?;
    timeout(PATIENCE, await_condition(maps.clone(), name, said("ahoy ahoy ahoy"))).await??;
    timeout(PATIENCE, await_condition(greetings.clone(), name, observed(generation + 1))).await??;
    // What the operator owns is not for others to apply.
    let other = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"said": "no"}});
    match maps.patch(name, &PatchParams::apply("somebody"), &Patch::Apply(&other)).await {
        Err(Error::Api(status)) if status.code == 409 => {
            ensure!(status.message.contains("conflict with \"operator\""), "{}", status.message);
        }
        answered => anyhow::bail!("expected a conflict, found {answered:?}"),
    }
    // A spec that its schema does not allow is refused.
    let wrong = Greeting::new("wrong", GreetingSpec { text: "ahoy".to_owned(), times: 1_000 });
    match greetings.create(&PostParams::default(), &wrong).await {
        Err(Error::Api(status)) if status.code == 422 => {
            ensure!(status.message.contains("spec.times"), "{}", status.message);
        }
        answered => anyhow::bail!("expected a refusal, found {answered:?}"),
    }
    ensure!(greetings.list(&ListParams::default()).await?.items.len() == 1, "one greeting is there");
    // The finalizer is run, then the object goes, then what it owns.
    greetings.delete(name, &DeleteParams::default()).await?;
    let uid = made.uid().context("a uid")?;
    timeout(PATIENCE, await_condition(greetings, name, conditions::is_deleted(&uid))).await.context("it goes")??;
    let farewell = format!("{name}-farewell");
    timeout(PATIENCE, await_condition(maps.clone(), &farewell, said("ahoy")))
        .await
        .context("the finalizer was run")??;
    let gone = |map: Option<&ConfigMap>| map.is_none();
    timeout(PATIENCE, await_condition(maps, name, gone)).await.context("what it owned goes")??;
    Ok(())
}
