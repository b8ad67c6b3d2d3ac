//! The API server: HTTP in, transactions out.
//!
//! Goal        one way into the cluster: every reader and writer, in this process or far away, passes the same pipeline
//! Relies on   `windlass_store` for order and durability, `windlass_api` for what the objects are
//! Not here    what should happen because an object changed (controllers), how a pod runs (node)
//!
//! # Flow
//! request (path and verb) → authenticate → authorize → decode → admit → default → validate → merge → commit → answer
//!
//! # Use
//! ```ignore
//! let apiserver = Apiserver::new(Config::new(registry), store, world)?;
//! apiserver.bootstrap().await?;
//! let transport = apiserver.transport(Identity::part("scheduler"));      // in process: no socket, same pipeline
//! apiserver.serve(tcp_listener, pki.server_tls(service_address, &names)?).await; // until `apiserver.close()`
//! ```

mod config;
mod identity;
mod pki;

pub use config::{AddressRange, AddressRangeError, Config, NodeLink};
pub use identity::{GROUP_MASTERS, GROUP_NODES, Identity};
pub use pki::{Credential, Pki, PkiError};
