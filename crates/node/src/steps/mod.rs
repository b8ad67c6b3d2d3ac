//! The steps that make a pod run on this machine, in order; undone in reverse.
//!
//! Guarantees  `up` of what is up already is `Ok` at once; `down` is safe without `up`
//!
//! What all containers of a pod share comes by [`STEPS`]; what each container needs comes by [`container::start`].

pub mod claim;
pub mod container;
pub mod device;
pub mod image;
pub mod lent;
pub mod lifecycle;
pub mod mount;
pub mod network;
pub mod projection;
pub mod resources;
pub mod sandbox;
pub mod security;
pub mod volume;

use std::net::IpAddr;
use std::sync::Arc;

use futures::future::BoxFuture;
use windlass_api::types::core;
use windlass_client::{EventKind, Note, ObjectRef};

use crate::agent::Shared;
use crate::certificate::Certificates;
use crate::downward::PodView;
use crate::machine::MachineError;
use crate::source::SourceView;
use crate::token::Tokens;

/// A pod on its way up or down, as its steps see it.
#[derive(Clone)]
pub struct PodContext {
    /// What the pods of this node share.
    pub shared: Arc<Shared>,
    /// The pod.
    pub pod: Arc<core::Pod>,
    /// Its ephemeral containers, as containers.
    pub visitors: Arc<[core::Container]>,
    /// Its uid, which names it to the machine.
    pub uid: Arc<str>,
    /// Its service account tokens.
    pub tokens: Tokens,
    /// Its certificates.
    pub certificates: Certificates,
    /// An earlier agent ran it: what that one wrote may still be there.
    pub is_known: bool,
}

/// Why a step is not up; becomes a Warning event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepError {
    /// The event's reason: `FailedMount`, `FailedCreatePodSandBox`, …
    pub reason: &'static str,
    /// A sentence.
    pub message: String,
}

/// What the steps have brought so far.
#[derive(Clone, Debug, Default)]
pub struct Ground {
    /// The pod's addresses.
    pub addresses: Vec<IpAddr>,
    /// What the pod names, as it was when the pod came up; `None` while the API, which would tell, is away.
    pub sources: Option<SourceView>,
}

/// One step that a pod's containers rely on.
pub trait Step: Send + Sync {
    /// What it is called in a trace.
    fn name(&self) -> &'static str;
    /// Makes it so.
    fn up<'a>(&'a self, pod: &'a PodContext, ground: &'a mut Ground) -> BoxFuture<'a, Result<(), StepError>>;
    /// Undoes it.
    fn down<'a>(&'a self, pod: &'a PodContext) -> BoxFuture<'a, Result<(), MachineError>>;
}

/// All steps, in order.
pub static STEPS: [&dyn Step; 4] = [&volume::Volumes, &device::Devices, &network::Network, &sandbox::SandboxStep];

/// Takes every step.
pub async fn up(pod: &PodContext, sources: Option<SourceView>) -> Result<Ground, StepError> {
    let mut ground = Ground { sources, ..Ground::default() };
    for step in STEPS {
        pod.timed((step.name(), ""), step.up(pod, &mut ground)).await?;
    }
    Ok(ground)
}

/// Undoes every step, the last one first. What the sandbox runs on is left as long as that is there; of the others one that
/// cannot be undone keeps no other, and the first error is told.
pub async fn down(pod: &PodContext) -> Result<(), MachineError> {
    let [others @ .., sandbox] = &STEPS;
    sandbox.down(pod).await?;
    let mut undone = Ok(());
    for step in others.iter().rev() {
        undone = undone.and(step.down(pod).await);
    }
    undone
}

impl PodContext {
    /// Does something and notes how long it took, if the pod is coming up.
    pub async fn timed<T>(&self, (what, container): (&'static str, &str), work: impl Future<Output = T>) -> T {
        let began = self.shared.world.now();
        let done = work.await;
        self.shared.starts.note(&self.uid, (what, container), (began, self.shared.world.now()));
        done
    }

    /// The pod's spec; a pod without one was refused when it was taken in.
    pub fn spec(&self) -> &core::PodSpec {
        self.pod.spec.as_ref().expect("a pod without a spec is not taken in")
    }

    /// All containers of the pod, its visitors last.
    pub fn containers(&self) -> impl Iterator<Item = &core::Container> {
        container::containers_of(self.spec()).chain(self.visitors.iter())
    }

    /// The container of this name.
    pub fn container(&self, name: &str) -> Option<&core::Container> {
        self.containers().find(|container| container.name == name)
    }

    /// The pod's namespace.
    pub fn namespace(&self) -> &str {
        self.pod.metadata.namespace.as_deref().unwrap_or_default()
    }

    /// The pod's name.
    pub fn name(&self) -> &str {
        self.pod.metadata.name.as_deref().unwrap_or_default()
    }

    /// Whether the pod is in the machine's own network.
    pub fn host_network(&self) -> bool {
        self.spec().host_network == Some(true)
    }

    /// What the pod may know of itself.
    pub fn view<'a>(&'a self, addresses: &'a [IpAddr], node: &'a crate::agent::NodeFacts) -> PodView<'a> {
        PodView { pod: &self.pod, pod_ips: addresses, host_ips: &node.addresses, allocatable: node.allocatable }
    }

    /// The pod, as events name it.
    pub fn object_ref(&self) -> ObjectRef {
        ObjectRef {
            api_version: "v1".to_owned(),
            kind: "Pod".to_owned(),
            namespace: self.namespace().to_owned(),
            name: self.name().to_owned(),
            uid: self.uid.to_string(),
            field_path: String::new(),
        }
    }

    /// Tells about the pod.
    pub fn note(&self, kind: EventKind, reason: &str, message: impl Into<String>) {
        let note = Note { about: self.object_ref(), kind, reason: reason.to_owned(), message: message.into() };
        self.shared.recorder.note(note);
    }

    /// Tells about one of the pod's containers.
    pub fn note_container(&self, name: &str, kind: EventKind, reason: &str, message: impl Into<String>) {
        let mut about = self.object_ref().container(name);
        if self.spec().init_containers.iter().flatten().any(|container| container.name == name) {
            about.field_path = format!("spec.initContainers{{{name}}}");
        } else if self.visitors.iter().any(|container| container.name == name) {
            about.field_path = format!("spec.ephemeralContainers{{{name}}}");
        }
        self.shared.recorder.note(Note { about, kind, reason: reason.to_owned(), message: message.into() });
    }
}
