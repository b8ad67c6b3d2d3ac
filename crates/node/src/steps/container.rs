//! Step: one container, from its spec to a running process; and back.
//!
//! Flow: image → environment, mounts, security, limits (all pure, all refusable) → create → start → postStart

use std::net::IpAddr;
use std::time::Duration;

use windlass_api::types::core;
use windlass_client::EventKind;

use super::image::ImageTrouble;
use super::{PodContext, device, image, lifecycle, mount, resources, security};
use crate::agent::NodeFacts;
use crate::devices::Grant;
use crate::env::{self, ConfigError, EnvView};
use crate::env_file;
use crate::expansion::expand;
use crate::machine::{Container, CpuSet, Image, ProcessUser, Stop};
use crate::source::SourceView;

/// A stopped container gets at least this long after its preStop hook, as kubelet gives it.
const GRACE_AFTER_HOOK: Duration = Duration::from_secs(2);

/// A container that was started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Started {
    /// [`Image::id`].
    pub image: String,
    /// [`Image::digest`].
    pub digest: String,
    /// The signal its image wants to be stopped with.
    pub stop_signal: String,
    /// Who its processes are.
    pub user: ProcessUser,
    /// The CPUs it was told to run on.
    pub cpus: Option<CpuSet>,
    /// Its postStart hook failed, and how: it must be stopped.
    pub hook_failure: Option<String>,
}

/// Why a container was not started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartError {
    /// Its image is not here.
    Image(ImageTrouble),
    /// Its spec cannot be carried out as things are: `CreateContainerConfigError`.
    Config(String),
    /// The machine did not make it: `CreateContainerError`.
    Create(String),
    /// The machine made it but it did not run; the machine knows it as ended.
    Run(String),
}

impl StartError {
    /// What `kubectl get pods` shows.
    pub fn reason(&self) -> &'static str {
        match self {
            StartError::Image(trouble) => trouble.reason,
            StartError::Config(_) => "CreateContainerConfigError",
            StartError::Create(_) => "CreateContainerError",
            StartError::Run(_) => "RunContainerError",
        }
    }

    /// A sentence.
    pub fn message(&self) -> &str {
        match self {
            StartError::Image(trouble) => &trouble.message,
            StartError::Config(message) | StartError::Create(message) | StartError::Run(message) => message,
        }
    }
}

/// What a start needs beside the pod.
#[derive(Clone, Debug)]
pub struct StartPlan {
    /// `NAME.ATTEMPT`.
    pub id: String,
    /// The container whose processes it sees, for one that came to look: `NAME.ATTEMPT`.
    pub beside: Option<String>,
    /// The pod's addresses.
    pub addresses: Vec<IpAddr>,
    /// What the pod names.
    pub sources: SourceView,
}

/// Starts a container. Returns when it runs and its postStart hook is over.
pub async fn start(pod: &PodContext, name: &str, plan: StartPlan) -> Result<Started, StartError> {
    let container =
        pod.container(name).ok_or_else(|| StartError::Config(format!("container {name:?} is not in the spec")))?;
    let wanted = image::Wanted::by(container);
    let image = pod.timed(("image", name), image::ensure(pod, &wanted, &plan.sources));
    let image = image.await.map_err(StartError::Image)?;
    pod.timed(("services", name), pod.shared.services_seen()).await.map_err(StartError::Config)?;
    let services = pod.shared.service_variables(pod.namespace(), pod.spec().enable_service_links != Some(false));
    let node = pod.shared.node_facts();
    let files = env_file::of_container(&*pod.shared.machine, &pod.uid, container).await;
    let view =
        EnvView { pod: pod.view(&plan.addresses, &node), sources: &plan.sources, services: &services, files: &files };
    let grants = pod.shared.devices.own_of(&pod.uid).remove(name).unwrap_or_default();
    for Grant { resource, devices, .. } in &grants {
        let ready = pod.shared.machine.ready_devices(resource, devices).await;
        ready.map_err(|error| StartError::Create(error.to_string()))?;
    }
    let built =
        build(&view, container, &image, (&node, &grants)).map_err(|error| StartError::Config(error.to_string()));
    let mut built = match built {
        Ok(built) => built,
        Err(error) => {
            pod.note_container(name, EventKind::Warning, "Failed", format!("Error: {}", error.message()));
            return Err(error);
        }
    };
    let claimed = device::of_container(pod, container).await;
    built.cdi.extend(claimed.map_err(|error| StartError::Create(error.to_string()))?);
    built.id = plan.id.clone();
    built.resources.cpus = pod.shared.cpus.of(&pod.uid, name, None);
    built.beside = plan.beside.clone();
    run(pod, container, &built, image, &plan.addresses).await
}

async fn run(
    pod: &PodContext,
    container: &core::Container,
    built: &Container,
    image: Image,
    addresses: &[IpAddr],
) -> Result<Started, StartError> {
    let machine = &pod.shared.machine;
    let failed = |message: String| {
        pod.note_container(&container.name, EventKind::Warning, "Failed", format!("Error: {message}"));
        message
    };
    let created = pod.timed(("create", &container.name), machine.create(&pod.uid, built));
    created.await.map_err(|error| StartError::Create(failed(error.to_string())))?;
    pod.note_container(&container.name, EventKind::Normal, "Created", format!("Container created: {}", container.name));
    let user = machine.user(&pod.uid, &built.id).await;
    let user = user.map_err(|error| StartError::Create(failed(error.to_string())))?;
    let started = pod.timed(("start", &container.name), machine.start(&pod.uid, &built.id));
    started.await.map_err(|error| StartError::Run(failed(error.to_string())))?;
    pod.note_container(&container.name, EventKind::Normal, "Started", format!("Container started: {}", container.name));
    let mut hook_failure = None;
    if let Some(hook) = lifecycle::post_start(container)
        && let Err(why) =
            pod.timed(("postStart", &container.name), lifecycle::run(pod, container, &built.id, hook, addresses)).await
    {
        let message = format!("PostStartHook failed: {why}");
        pod.note_container(&container.name, EventKind::Warning, "FailedPostStartHook", message.clone());
        hook_failure = Some(message);
    }
    let cpus = built.resources.cpus;
    Ok(Started { image: image.id, digest: image.digest, stop_signal: image.stop_signal, user, cpus, hook_failure })
}

/// A stop to be carried out.
#[derive(Clone, Debug)]
pub struct StopPlan {
    /// `NAME.ATTEMPT`.
    pub id: String,
    /// How long it may take, preStop included.
    pub grace: Duration,
    /// Run the preStop hook first.
    pub hook: bool,
    /// The signal the image wants.
    pub image_signal: String,
    /// The pod's addresses.
    pub addresses: Vec<IpAddr>,
}

/// Stops a container: preStop, then its signal, then the end of its patience.
pub async fn stop(pod: &PodContext, name: &str, plan: StopPlan) -> Result<(), String> {
    let container = pod.container(name);
    let mut left = plan.grace;
    if let Some(container) = container
        && let Some(hook) = lifecycle::pre_stop(container).filter(|_| plan.hook && !plan.grace.is_zero())
    {
        let began = tokio::time::Instant::now();
        let ran = lifecycle::run(pod, container, &plan.id, hook, &plan.addresses);
        match tokio::time::timeout(plan.grace, ran).await {
            Ok(Ok(())) => {}
            Ok(Err(why)) => {
                let message = format!("PreStopHook failed: {why}");
                pod.note_container(name, EventKind::Warning, "FailedPreStopHook", message);
            }
            Err(_) => {
                let message = format!("PreStopHook not completed in {:?}", plan.grace);
                pod.note_container(name, EventKind::Warning, "FailedPreStopHook", message);
            }
        }
        left = left.saturating_sub(began.elapsed()).max(GRACE_AFTER_HOOK);
    }
    let own = container.and_then(|container| container.lifecycle.as_ref()?.stop_signal.clone());
    let stop = Stop { signal: own.unwrap_or(plan.image_signal), grace: left };
    pod.shared.machine.stop(&pod.uid, &plan.id, &stop).await.map_err(|error| error.to_string())
}

/// Whether the environment of a container is said by ConfigMaps or Secrets.
pub fn names_sources(container: &core::Container) -> bool {
    let is_source =
        |source: &core::EnvVarSource| source.config_map_key_ref.is_some() || source.secret_key_ref.is_some();
    let mut values = container.env.iter().flatten().filter_map(|variable| variable.value_from.as_ref());
    container.env_from.iter().flatten().next().is_some() || values.any(is_source)
}

/// All containers of a pod that its author named, init containers first.
pub fn containers_of(spec: &core::PodSpec) -> impl Iterator<Item = &core::Container> {
    spec.init_containers.iter().flatten().chain(&spec.containers)
}

/// The ephemeral containers of a pod, as containers that run once: they came to look at the others.
pub fn visitors_of(spec: &core::PodSpec) -> Vec<core::Container> {
    let visitor = |asked: &core::EphemeralContainer| core::Container {
        args: asked.args.clone(),
        command: asked.command.clone(),
        env: asked.env.clone(),
        env_from: asked.env_from.clone(),
        image: asked.image.clone(),
        image_pull_policy: asked.image_pull_policy.clone(),
        name: asked.name.clone(),
        resources: asked.resources.clone(),
        restart_policy: Some("Never".to_owned()),
        security_context: asked.security_context.clone(),
        stdin: asked.stdin,
        stdin_once: asked.stdin_once,
        termination_message_path: asked.termination_message_path.clone(),
        termination_message_policy: asked.termination_message_policy.clone(),
        tty: asked.tty,
        volume_devices: asked.volume_devices.clone(),
        volume_mounts: asked.volume_mounts.clone(),
        working_dir: asked.working_dir.clone(),
        ..core::Container::default()
    };
    spec.ephemeral_containers.iter().flatten().map(visitor).collect()
}

/// The container as the machine takes it; without its id.
fn build(
    view: &EnvView,
    container: &core::Container,
    image: &Image,
    (node, grants): (&NodeFacts, &[Grant]),
) -> Result<Container, ConfigError> {
    let spec = view.pod.pod.spec.as_ref().expect("a pod without a spec is not taken in");
    let mut env = env::of_container(view, container)?;
    let mut out = Container {
        image: image.id.clone(),
        args: args(container, image, &env)?,
        cwd: container.working_dir.clone().filter(|cwd| !cwd.is_empty()).unwrap_or_else(|| image.working_dir.clone()),
        mounts: mount::of_container(spec, container, &env)?,
        devices: mount::devices_of(spec, container)?,
        resources: resources::of_container(container),
        oom_score_adj: resources::oom_score_adj(spec, container, node.facts.memory_bytes),
        stdin: container.stdin == Some(true),
        stdin_once: container.stdin_once == Some(true),
        tty: container.tty == Some(true),
        message_path: container.termination_message_path.clone().unwrap_or_else(|| "/dev/termination-log".to_owned()),
        ..Container::default()
    };
    for Grant { allocated, .. } in grants {
        // What the author says of the same variable holds.
        for (name, value) in &allocated.env {
            if !env.iter().any(|(own, _)| own == name) {
                env.insert(0, (name.clone(), value.clone()));
            }
        }
        out.mounts.extend(allocated.mounts.iter().map(mount::of_device));
        out.devices.extend(allocated.nodes.iter().cloned());
        out.cdi.extend(allocated.cdi.iter().cloned());
    }
    security::apply(&mut out, spec, container, &image.user, &node.facts)?;
    let mut spec_env = env;
    if !spec_env.iter().any(|(name, _)| name == "HOSTNAME") && spec.host_network != Some(true) {
        let name = spec.hostname.clone().or_else(|| view.pod.pod.metadata.name.clone());
        spec_env.insert(0, ("HOSTNAME".to_owned(), name.unwrap_or_default()));
    }
    out.env = env::over_image(&image.env, spec_env);
    Ok(out)
}

/// Program and arguments: a command replaces the image's entrypoint and its arguments.
fn args(container: &core::Container, image: &Image, env: &[(String, String)]) -> Result<Vec<String>, ConfigError> {
    let lookup = |name: &str| env.iter().find(|(found, _)| found == name).map(|(_, value)| value.clone());
    let expanded = |words: &Option<Vec<String>>| -> Vec<String> {
        words.iter().flatten().map(|word| expand(word, lookup)).collect()
    };
    let (command, own) = (expanded(&container.command), expanded(&container.args));
    let out: Vec<String> = match (command.is_empty(), own.is_empty()) {
        (false, _) => command.into_iter().chain(own).collect(),
        (true, false) => image.entrypoint.iter().cloned().chain(own).collect(),
        (true, true) => image.entrypoint.iter().chain(&image.cmd).cloned().collect(),
    };
    if out.is_empty() {
        return Err(ConfigError::Refused(
            "no command specified: neither the container nor its image names a program".to_owned(),
        ));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::args;
    use crate::machine::Image;
    use serde_json::{Value, json};

    #[test]
    fn a_command_replaces_what_the_image_says() {
        let image = Image { entrypoint: vec!["/e".to_owned()], cmd: vec!["c".to_owned()], ..Image::default() };
        let check = |container: Value, image: &Image| {
            let mut container = container;
            container["name"] = json!("c");
            let container = serde_json::from_value(container).expect("a container");
            args(&container, image, &[("A".to_owned(), "1".to_owned())]).map_err(|error| error.to_string())
        };
        assert_eq!(check(json!({}), &image).expect("runs"), ["/e", "c"]);
        assert_eq!(check(json!({"args": ["$(A)"]}), &image).expect("runs"), ["/e", "1"]);
        assert_eq!(check(json!({"command": ["/x"]}), &image).expect("runs"), ["/x"]);
        assert_eq!(check(json!({"command": ["/x"], "args": ["y"]}), &image).expect("runs"), ["/x", "y"]);
        assert!(check(json!({}), &Image::default()).expect_err("nothing to run").contains("no command specified"));
    }
}
