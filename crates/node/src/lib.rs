//! The node agent: makes this machine agree with the pods that are bound to it.
//!
//! Goal        every pod bound to this node runs as its spec says, and its status says how it really is
//! Watches     Pod (bound here), Node (own), Service, EndpointSlice, NetworkPolicy, Namespace; Pod (all, while policies
//!             need them); ConfigMap and Secret (named by its pods)
//! Writes      Pod: status, and the deletion of what has ended · Node: itself and its status · Lease: its own · Event
//! Relies on   the scheduler binds; nobody else touches what [`Machine`] makes
//!
//! Flow: an object changes → [`agent`] tells the pod's task → the task looks at the pod and at its containers and
//! plans (`plan`) → steps make the machine agree (`steps`) → the status is written when it differs (`status`).
//!
//! Not here    namespaces, cgroups, overlay file systems (runtime), addresses and rules (network), placement (scheduler)

pub mod agent;
pub mod cni;
pub mod config;
pub mod grpc;
pub mod join;
pub mod kernel;
pub mod machine;
mod manifest;
pub mod registries;
pub mod server;
pub mod services;

mod admission;
mod backoff;
mod budget;
mod certificate;
mod cpus;
mod devices;
mod downward;
mod env;
mod env_file;
mod eviction;
mod expansion;
mod logs;
mod node;
mod plan;
mod pod;
mod policy;
mod probe;
mod record;
mod source;
mod starts;
mod status;
mod steps;
mod stream;
mod token;
mod turn;

pub use agent::Agent;
pub use config::NodeConfig;
pub use kernel::{Kernel, KernelConfig, ProviderFiles, RuntimeChoice};
pub use machine::{Machine, MachineError};
pub use server::{ServerError, ServerIdentity, serve};
pub use starts::Starts;
