//! Single: a container of a pod never runs twice, neither on two machines nor on one.
//!
//! Source: Kubernetes documentation, "Pod Lifecycle": a pod is bound once and never moves; its containers are restarted
//! only after they have ended. FAULTS "no pod twice".

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use crate::history::History;

/// A container of a pod: the pod's uid and the container's name.
pub type Whose = (String, String);

/// What runs where, as the machines do it. Clones are the same.
#[derive(Clone)]
pub struct Runs {
    running: Arc<Mutex<BTreeMap<Whose, Vec<String>>>>,
    history: History,
}

impl Runs {
    /// Nothing runs.
    pub fn new(history: History) -> Runs {
        Runs { running: Arc::default(), history }
    }

    /// A container has begun to run on a machine. `container` is `NAME.ATTEMPT`.
    pub fn began(&self, pod: &str, container: &str, machine: &str) {
        let mut running = self.running.lock().expect("nothing panics while holding it");
        let places = running.entry(whose(pod, container)).or_default();
        places.push(format!("{container} on {machine}"));
        if places.len() > 1 {
            let all = places.join(", ");
            drop(running);
            self.history.violate("single", format_args!("pod {pod} runs more than once: {all}"));
        }
    }

    /// It has ended.
    pub fn ended(&self, pod: &str, container: &str, machine: &str) {
        let mut running = self.running.lock().expect("nothing panics while holding it");
        let place = format!("{container} on {machine}");
        let key = whose(pod, container);
        if let Some(places) = running.get_mut(&key) {
            places.retain(|found| *found != place);
            if places.is_empty() {
                running.remove(&key);
            }
        }
    }
}

/// The pod and name behind `NAME.ATTEMPT`.
pub fn whose(pod: &str, container: &str) -> Whose {
    let name = container.rsplit_once('.').map_or(container, |(name, _)| name);
    (pod.to_owned(), name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::Runs;
    use crate::history::History;

    fn check(steps: impl Fn(&Runs)) -> usize {
        let history = History::begin(None);
        steps(&Runs::new(history.clone()));
        history.violations().len()
    }

    #[tokio::test(start_paused = true)]
    async fn a_container_may_run_again_after_its_end() {
        let again = check(|runs| {
            runs.began("u1", "web.0", "n1");
            runs.ended("u1", "web.0", "n1");
            runs.began("u1", "web.1", "n1");
            runs.began("u1", "side.0", "n1");
            runs.began("u2", "web.0", "n2");
        });
        assert_eq!(again, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_container_that_runs_twice_is_found() {
        let on_one = check(|runs| {
            runs.began("u1", "web.0", "n1");
            runs.began("u1", "web.1", "n1");
        });
        let on_two = check(|runs| {
            runs.began("u1", "web.0", "n1");
            runs.began("u1", "web.0", "n2");
        });
        assert_eq!((on_one, on_two), (1, 1));
    }
}
