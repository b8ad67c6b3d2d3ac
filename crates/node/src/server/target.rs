//! Which container of which pod a request is about.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use windlass_api::{ApiError, Reason};

use super::{Query, Site};
use crate::agent::PodEntry;
use crate::kernel::Kernel;

/// Why a request is not answered as asked.
#[derive(Debug)]
pub struct Refusal {
    /// What is answered instead.
    pub error: ApiError,
}

impl Refusal {
    /// 404.
    pub fn not_found(message: impl Into<String>) -> Refusal {
        Refusal { error: ApiError::new(Reason::NotFound, message) }
    }

    /// 400.
    pub fn bad_request(message: impl Into<String>) -> Refusal {
        Refusal { error: ApiError::bad_request(message) }
    }

    /// 403.
    pub fn forbidden(message: impl Into<String>) -> Refusal {
        Refusal { error: ApiError::new(Reason::Forbidden, message) }
    }

    /// 500.
    pub fn internal(message: impl std::fmt::Display) -> Refusal {
        Refusal { error: ApiError::internal(message) }
    }
}

/// A container of a pod of this node.
pub struct Target {
    /// This computer.
    pub kernel: Arc<Kernel>,
    /// The pod.
    pub pod: PodEntry,
    /// `namespace/name` of the pod.
    pub title: String,
    /// The container's name; empty when the request is about the pod.
    pub container: String,
}

/// What exec and attach are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamOptions {
    /// Program and arguments; empty for attach.
    pub command: Vec<String>,
    /// Standard input is wanted.
    pub stdin: bool,
    /// Standard output is wanted.
    pub stdout: bool,
    /// Standard error is wanted.
    pub stderr: bool,
    /// A terminal is wanted.
    pub tty: bool,
}

impl StreamOptions {
    /// As the API server passes them on.
    pub fn parse(query: &Query) -> StreamOptions {
        StreamOptions {
            command: query.all("command"),
            stdin: query.flag("input"),
            stdout: query.flag("output"),
            stderr: query.flag("error"),
            tty: query.flag("tty"),
        }
    }
}

impl Target {
    /// The container of this name.
    pub fn find(site: &Site, namespace: &str, pod: &str, container: &str) -> Result<Target, Refusal> {
        let target = Target::find_pod(site, namespace, pod)?;
        if !target.pod.shown.containers.contains_key(container) {
            return Err(Refusal::not_found(format!("container {container:?} not found in pod {:?}", target.title)));
        }
        Ok(Target { container: container.to_owned(), ..target })
    }

    /// The pod of this name.
    pub fn find_pod(site: &Site, namespace: &str, pod: &str) -> Result<Target, Refusal> {
        let title = format!("{namespace}/{pod}");
        let entry = site.pods.find(namespace, pod);
        let pod = entry.ok_or_else(|| Refusal::not_found(format!("pod {title:?} is not on this node")))?;
        Ok(Target { kernel: Arc::clone(&site.kernel), pod, title, container: String::new() })
    }

    /// The running container, to exec into or attach to: its id in its sandbox.
    pub fn running(&self) -> Result<String, Refusal> {
        let now = self.pod.now();
        match now.containers.get(&self.container) {
            Some(Some((attempt, true))) => Ok(format!("{}.{attempt}", self.container)),
            _ => Err(Refusal::bad_request(format!(
                "container {:?} in pod {:?} is not running",
                self.container, self.title
            ))),
        }
    }

    /// The pod's sandbox, when it is one of ours; another runtime has its own.
    pub fn sandbox(&self) -> Result<Option<windlass_runtime::Sandbox>, Refusal> {
        match self.kernel.sandbox(&self.pod.uid) {
            None if self.kernel.is_foreign(&self.pod.uid) => Ok(None),
            None => Err(Refusal::internal(format!("pod {:?} has no sandbox", self.title))),
            found => Ok(found),
        }
    }

    /// The pod's addresses, best first.
    pub fn addresses(&self) -> Vec<IpAddr> {
        self.pod.now().addresses.clone()
    }

    /// The network namespace to connect within; `None` is the machine's own.
    pub fn network_namespace(&self) -> Option<PathBuf> {
        self.kernel.network_namespace(&self.pod.uid)
    }
}
