//! The API server: HTTP in, transactions out.
//!
//! Goal        one way into the cluster: every reader and writer, in this process or far away, passes the same pipeline
//! Relies on   `windlass_store` for order and durability, `windlass_api` for what the objects are
//! Not here    what should happen because an object changed (controllers), how a pod runs (node)
//!
//! # Flow
//! request (path and verb) → authenticate → authorize → decode → admit → default → validate → merge → commit → answer
//! (see `pipeline`, which names the file of each step)
//!
//! # Guarantees
//! - An answer of success to a write means that it is durable and seen by every later read.
//! - Every write is one transaction: the object, its namespace's being there, and every address or port it takes.
//! - A watch sees every change after its start once, in order, or ends with an error that says to list again.
//! - No input ends the process: bodies, paths, selectors and tokens are bounded and typed before they are looked at.

mod admit;
mod aggregate;
mod answer;
mod apply;
mod audit;
mod authenticate;
mod authorize;
pub mod backup;
mod bootstrap;
mod change;
mod cleanup;
mod component;
mod compress;
mod config;
mod convert;
mod create;
mod decode;
mod definitions;
mod delete;
mod documents;
mod failure;
mod flow;
mod follow;
mod form;
mod frames;
mod get;
mod health;
mod identity;
mod impersonate;
mod join;
mod key;
mod lanes;
mod list;
mod listed;
mod metrics;
mod options;
mod owners;
mod page;
mod pipeline;
mod pki;
mod rbac;
mod remote;
mod request;
mod review;
mod select;
mod serve;
mod server;
mod sign;
mod starts;
mod sub;
mod token;
mod turns;
mod update;
mod upkeep;
mod usage;
mod watch;
mod write;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};

use futures::future::BoxFuture;
use rustls::ServerConfig;
use tokio::net::TcpListener;
use windlass_api::ApiError;
use windlass_stdx::{Request, Response, Transport, TransportError, World};
use windlass_store::Store;

use crate::component::Parts;
use crate::definitions::Served;
use crate::follow::Followed;
use crate::frames::Frames;
use crate::join::Knocks;
use crate::lanes::Lanes;
use crate::metrics::Metrics;
use crate::page::PageKey;
use crate::server::Server;
use crate::token::{SigningKey, Tokens};
use crate::turns::Turns;
use crate::usage::Usage;

pub use audit::{Audit, AuditConfig, AuditError, Policy as AuditPolicy, PolicyError as AuditPolicyError, Rotation};
pub use component::Part;
pub use config::{AddressRange, AddressRangeError, Config, NodeLink};
pub use identity::{GROUP_MASTERS, GROUP_NODES, Identity};
pub use pki::{Credential, KeyFiles, Pki, PkiError};

/// The API server. Cheap to clone; clones are the same server.
#[derive(Clone)]
pub struct Apiserver {
    server: Arc<Server>,
}

impl Apiserver {
    /// A server over this store.
    pub fn new(config: Config, store: Store, world: World) -> Apiserver {
        let page_key = match &config.pki {
            Some(pki) => PageKey(pki.derive("continue tokens")),
            None => {
                let mut key = [0; 32];
                world.fill_random(&mut key);
                PageKey(key)
            }
        };
        let keys = match &config.pki {
            Some(pki) => pki.opened_token_keys(),
            None => vec![SigningKey::generate().expect("the operating system gives randomness")],
        };
        let served = RwLock::new(Arc::new(Served::new(config.registry.clone())));
        let server = Server {
            config,
            store,
            world,
            page_key,
            lanes: Lanes::default(),
            metrics: Metrics::default(),
            served,
            knocks: Knocks::default(),
            turns: Turns::default(),
            starts: Default::default(),
            backups: backup::Places::default(),
            frames: Frames::default(),
            tokens: Tokens::new(keys),
            definitions: Followed::default(),
            definitions_changed: tokio::sync::watch::Sender::new(()),
            policy: Followed::default(),
            policies: Followed::default(),
            aggregated: Followed::default(),
            merged: Default::default(),
            graph: Followed::default(),
            usage: Usage::default(),
            parts: Parts::default(),
            is_kept_up: AtomicBool::new(false),
            closing: tokio::sync::watch::Sender::new(false),
        };
        Apiserver { server: Arc::new(server) }
    }

    /// Says that a part of the control plane runs beside this server, as long as the answer is held.
    pub fn part(&self, name: &str) -> Part {
        self.server.parts.begin(name)
    }

    /// Creates what every cluster has: the namespaces `default`, `kube-system`, `kube-public` and `kube-node-lease`, the
    /// Service `default/kubernetes` with its endpoint, and the default roles and bindings. What is there already is left
    /// alone, but that default roles allow at least what they should.
    ///
    /// From then on, until the server closes or its last clone is dropped, what is deleted of these is restored, and
    /// Events go an hour after they last happened. Must be called inside a tokio runtime.
    pub async fn bootstrap(&self) -> Result<(), ApiError> {
        bootstrap::bootstrap(&self.server).await?;
        if !self.server.is_kept_up.swap(true, Ordering::Relaxed) {
            tokio::spawn(upkeep::run(Arc::downgrade(&self.server)));
            tokio::spawn(cleanup::run(Arc::downgrade(&self.server)));
            tokio::spawn(aggregate::availability::run(Arc::downgrade(&self.server)));
        }
        Ok(())
    }

    /// The same pipeline without a socket, for a part of this process.
    pub fn transport(&self, identity: Identity) -> Arc<dyn Transport> {
        Arc::new(InProcess { server: self.server.clone(), identity: Arc::new(identity) })
    }

    /// Serves TLS connections until [`Apiserver::close`]. TLS comes from [`Pki::server_tls`], which asks for client
    /// certificates of the cluster's CA.
    pub async fn serve(&self, listener: TcpListener, tls: Arc<ServerConfig>) {
        serve::serve(self.server.clone(), listener, tls).await;
    }

    /// Ends watches, streams and listeners. The store is not closed.
    pub fn close(&self) {
        self.server.closing.send_replace(true);
    }
}

struct InProcess {
    server: Arc<Server>,
    identity: Arc<Identity>,
}

impl Transport for InProcess {
    fn call(&self, request: Request) -> BoxFuture<'static, Result<Response, TransportError>> {
        let (server, identity) = (self.server.clone(), self.identity.clone());
        Box::pin(async move { Ok(pipeline::answer(&server, &identity, request).await) })
    }
}
