//! The life of a container of another runtime: made, started, stopped, removed; commands in it.
//!
//! Rules
//!   L1 signal    the signal is the node's to send, not the runtime's: it is the pod's, and no call of CRI v1 takes one
//!   L2 limits    limits hold before the program begins, those too that CRI has no word for

use std::os::fd::AsFd;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde_json::Value;
use windlass_runtime::Resources;

use super::super::{of_runtime, off_the_runtime, remove_file, signal};
use super::calls::{ListedContainer, stage};
use super::{Cri, CriPod, StreamAsk, config, given};
use crate::machine::{Container, Exec, ExecResult, MachineError, OUTPUT_BYTES_MAX, ProcessUser, Resize, Stop};

/// How often it is looked whether a killed container is known to be over, and how long at most.
const OVER_STEP: Duration = Duration::from_millis(50);
const OVER_TIME_MAX: Duration = Duration::from_secs(30);

impl Cri {
    /// The container of this id (`NAME.ATTEMPT`), if the runtime has it.
    async fn find(&self, pod: &CriPod, id: &str) -> Result<Option<ListedContainer>, MachineError> {
        let mut labels = self.labels(&pod.uid);
        labels.insert(config::CONTAINER.to_owned(), id.to_owned());
        let mut found = pod.client.containers(&labels).await?;
        // Of two the newer one counts; there is one at most unless a call was given up half-way.
        Ok(found.pop())
    }

    async fn get(&self, pod: &CriPod, id: &str) -> Result<ListedContainer, MachineError> {
        let found = self.find(pod, id).await?;
        found.ok_or_else(|| MachineError::NotFound { what: "container", id: id.to_owned() })
    }

    /// Makes a container; one of this id that never ran is made anew.
    pub async fn create(&self, pod: &CriPod, wanted: &Container) -> Result<(), MachineError> {
        config::check(wanted)?;
        let sandbox = self.living(pod).await?;
        let sandbox = sandbox.ok_or_else(|| MachineError::NotFound { what: "sandbox", id: pod.uid.clone() })?;
        self.remove(pod, &wanted.id).await?;
        self.giver.give(&pod.client, &wanted.image).await?;
        let (layout, cdi, uid, own) = (self.layout.clone(), self.cdi.clone(), pod.uid.clone(), wanted.clone());
        let mut given = off_the_runtime(move || given::of(&layout, &cdi, &uid, &own)).await?;
        if let Some(beside) = &wanted.beside {
            given.beside = Some(self.get(pod, beside).await?.id);
        }
        let (groups, logs) = (self.groups(&pod.uid), self.layout.logs(&pod.uid)?);
        let parent = groups.path();
        let place = self.place(&pod.uid, &logs, &parent);
        let told = config::container(wanted, &given, &pod.record.asked, &place);
        let of = config::sandbox(&pod.record.asked, &place);
        let id = pod.client.create(&sandbox, &told, &of).await?;
        let limits = wanted.resources;
        off_the_runtime(move || {
            groups.make(&id, &limits).map_err(|error| of_runtime("make the container's control groups", &error))
        })
        .await
    }

    /// Who the processes of a created container are: the runtime has looked names up in the image.
    pub async fn user(&self, pod: &CriPod, id: &str) -> Result<ProcessUser, MachineError> {
        let found = self.get(pod, id).await?;
        let status = pod.client.status(&found.id).await?;
        let user = &status.more["runtimeSpec"]["process"]["user"];
        let number = |value: &Value| value.as_u64().and_then(|number| u32::try_from(number).ok()).unwrap_or(0);
        let gid = number(&user["gid"]);
        let groups = user["additionalGids"].as_array().into_iter().flatten().map(number);
        Ok(ProcessUser { uid: number(&user["uid"]), gid, groups: groups.filter(|group| *group != gid).collect() })
    }

    /// Lets a created container run.
    pub async fn start(&self, pod: &CriPod, id: &str) -> Result<(), MachineError> {
        let found = self.get(pod, id).await?;
        let started = pod.client.start(&found.id).await;
        self.hint(&pod.uid);
        started
    }

    /// Sends the signal, waits for the grace, has killed what is left (L1).
    pub async fn stop(&self, pod: &CriPod, id: &str, stop: &Stop) -> Result<(), MachineError> {
        let Some(found) = self.find(pod, id).await? else { return Ok(()) };
        if found.stage != stage::RUNNING {
            return Ok(());
        }
        if let Some(pid) = pod.client.status(&found.id).await?.pid() {
            end_softly(pid, &found.id, signal::number(&stop.signal), stop.grace).await;
        }
        pod.client.kill(&found.id).await?;
        let over = async {
            while pod.client.status(&found.id).await?.stage == stage::RUNNING {
                tokio::time::sleep(OVER_STEP).await;
            }
            Ok(())
        };
        let after = OVER_TIME_MAX;
        let over = tokio::time::timeout(after, over).await;
        self.hint(&pod.uid);
        over.unwrap_or_else(|_| Err(MachineError::TimedOut { operation: format!("stop container {id}"), after }))
    }

    /// Removes a container that does not run; its log stays.
    pub async fn remove(&self, pod: &CriPod, id: &str) -> Result<(), MachineError> {
        while let Some(found) = self.find(pod, id).await? {
            pod.client.remove(&found.id).await?;
            let (groups, own) = (self.groups(&pod.uid), found.id.clone());
            off_the_runtime(move || groups.remove(&own).map_err(|error| of_runtime("remove control groups", &error)))
                .await?;
            self.seen.lock().expect("nothing panics while holding it").remove(&found.id);
        }
        let (message, parts) = (self.layout.message(&pod.uid, id)?, self.layout.parts(&pod.uid)?.join(id));
        off_the_runtime(move || remove_file(&message).and_then(|()| given::remove_parts(&parts))).await
    }

    /// Changes limits of what runs.
    pub async fn resize(&self, pod: &CriPod, resize: &Resize) -> Result<(), MachineError> {
        // No container may have more than the pod has at any moment, so the pod grows first and shrinks last.
        self.limit(pod, resize.before.most(&resize.after)).await?;
        for (container, resources) in &resize.containers {
            let found = self.get(pod, container).await?;
            let (groups, own, limits) = (self.groups(&pod.uid), found.id.clone(), *resources);
            off_the_runtime(move || groups.update(&own, &limits).map_err(|error| of_runtime("resize pod", &error)))
                .await?;
            pod.client.update(&found.id, &config::resources(resources, 0)).await?;
        }
        self.limit(pod, resize.after).await
    }

    async fn limit(&self, pod: &CriPod, limits: Resources) -> Result<(), MachineError> {
        let groups = self.groups(&pod.uid);
        off_the_runtime(move || groups.limit(&limits).map_err(|error| of_runtime("resize pod", &error))).await
    }

    /// Runs a command in a running container. The runtime kills it when the time is over.
    pub async fn exec(&self, pod: &CriPod, id: &str, exec: &Exec) -> Result<ExecResult, MachineError> {
        let found = self.get(pod, id).await?;
        let operation = || format!("run {:?} in container {id}", exec.args);
        let ran = pod.client.exec(&found.id, &exec.args, exec.timeout).await.map_err(|error| match error {
            MachineError::TimedOut { .. } => MachineError::TimedOut { operation: operation(), after: exec.timeout },
            MachineError::Failed { why, .. } => MachineError::Failed { operation: operation(), why },
            other => other,
        })?;
        let mut output: Vec<u8> = ran.stdout.iter().take(OUTPUT_BYTES_MAX).copied().collect();
        output.extend(ran.stderr.iter().take(OUTPUT_BYTES_MAX - output.len()));
        let code = i32::try_from(ran.code).unwrap_or(-1);
        Ok(ExecResult { code, output: String::from_utf8_lossy(&output).into_owned() })
    }

    /// Where a stream with a running container is opened, and whether the container has a terminal of its own.
    pub async fn stream(&self, pod: &CriPod, id: &str, ask: &StreamAsk) -> Result<String, MachineError> {
        let found = self.get(pod, id).await?;
        pod.client.stream(&found.id, ask).await
    }

    /// Somebody has changed something of this pod.
    fn hint(&self, uid: &str) {
        // Nobody need listen.
        let _ = self.changes.send(uid.to_owned());
    }
}

/// Signals the first process of a container, and waits until it is over or the grace is. What the number means may have
/// changed since the runtime said it: the process is held first, and looked at then.
async fn end_softly(pid: u32, container: &str, signal: i32, grace: Duration) {
    let Some(number) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return };
    let Ok(process) = pidfd_open(number, PidfdFlags::empty()) else { return };
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    // A process that is over takes no signal, and need not.
    if !groups.contains(container) || windlass_runtime::signal_held(process.as_fd(), signal).is_err() {
        return;
    }
    let over = async {
        // No signal at all asks whether it is there.
        while windlass_runtime::signal_held(process.as_fd(), 0).is_ok() {
            tokio::time::sleep(OVER_STEP).await;
        }
    };
    // What is not over then is killed.
    let _ = tokio::time::timeout(grace, over).await;
}
