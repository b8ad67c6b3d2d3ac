//! ComponentStatus: whether the parts of the control plane are well. Kubernetes has deprecated the kind; tools still ask.
//!
//! Rules
//!   C1 now     nothing is stored: an answer is what is so while it is asked
//!   C2 store   `etcd-0` is the store, under the name that Kubernetes has for it: well if it reaches a quorum
//!   C3 parts   what runs beside this server in one process is well as long as it runs
//! Not here     watches, and writes, which the kind never had

use std::sync::{Arc, Mutex, PoisonError, Weak};

use http::StatusCode;
use serde_json::{Value, json};
use windlass_api::{ApiError, kinds};
use windlass_store::Entry;

use crate::answer::{Answer, Payload};
use crate::health;
use crate::key;
use crate::select::Selection;
use crate::server::{Call, Server};

/// The parts that run beside the server.
#[derive(Default)]
pub(crate) struct Parts(Mutex<Vec<(String, Weak<()>)>>);

/// A part of the control plane: it runs as long as this is held.
pub struct Part(#[expect(dead_code, reason = "it is held, not read")] Arc<()>);

impl Parts {
    /// C3.
    pub fn begin(&self, name: &str) -> Part {
        let running = Arc::new(());
        let mut parts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        parts.retain(|(known, _)| known != name);
        parts.push((name.to_owned(), Arc::downgrade(&running)));
        Part(running)
    }

    fn all(&self) -> Vec<(String, Option<String>)> {
        let parts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let stopped = |part: &Weak<()>| (part.strong_count() == 0).then(|| "it has stopped".to_owned());
        parts.iter().map(|(name, part)| (name.clone(), stopped(part))).collect()
    }
}

/// One of them.
pub(crate) async fn get(call: Call<'_>) -> Result<Answer, ApiError> {
    let name = &call.target.name;
    let found = all(call.server).await.into_iter().find(|(own, _)| own == name);
    let (name, problem) = found.ok_or_else(|| ApiError::not_found(&kinds::COMPONENT_STATUS, name))?;
    Ok(Answer::object(status(&name, problem).to_string().into()))
}

/// All of them that are asked for.
pub(crate) async fn list(call: Call<'_>) -> Result<Answer, ApiError> {
    let selection = Selection::parse(call.target, call.query)?;
    let entries = all(call.server).await.into_iter().map(|(name, problem)| {
        let key = key::object(&kinds::COMPONENT_STATUS, "", &name);
        Arc::new(Entry::made_up(&key, status(&name, problem).to_string()))
    });
    let entries: Vec<Arc<Entry>> = entries.filter(|entry| selection.matches(entry)).collect();
    Ok(Answer {
        code: StatusCode::OK,
        payload: Payload::List { objects: entries.into(), metadata: json!({}) },
        warnings: Vec::new(),
    })
}

/// Names, and what is wrong, in the order of names.
async fn all(server: &Server) -> Vec<(String, Option<String>)> {
    let mut all = server.parts.all();
    all.push(("etcd-0".to_owned(), health::store_problem(server).await));
    all.sort();
    all
}

fn status(name: &str, problem: Option<String>) -> Value {
    let (status, message) = problem.map_or(("True", "ok".to_owned()), |problem| ("False", problem));
    let condition = json!({"type": "Healthy", "status": status, "message": message});
    json!({"apiVersion": "v1", "kind": "ComponentStatus", "metadata": {"name": name}, "conditions": [condition]})
}
