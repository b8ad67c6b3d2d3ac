//! Making sandboxes and containers: from the agent's words to the runtime's.

use std::os::unix::fs::PermissionsExt;

use windlass_runtime::{ContainerSpec, IpcMode, LogSpec, Mount, NetworkMode, PidMode, RuntimeError, SandboxSpec};

use super::device::cdi;
use super::runtimes::Way;
use super::{Kernel, container, file_error, make_private_dir, of_image, of_runtime, off_the_runtime, refused, seccomp};
use crate::machine::{Container, MachineError, Sandbox};

impl Kernel {
    /// A sandbox that lives stays; one whose shim is lost is removed first.
    pub(super) async fn make_sandbox(&self, sandbox: &Sandbox) -> Result<(), MachineError> {
        let pod = &sandbox.pod;
        if let Some(found) = self.runtime.sandbox(pod) {
            if found.is_alive() {
                return Ok(());
            }
            self.end_sandbox(pod).await?;
        }
        if let Some(found) = self.cri.pod(pod) {
            if self.cri.is_kept(&found).await? {
                return Ok(());
            }
            self.end_sandbox(pod).await?;
        }
        let handler = sandbox.handler.as_deref();
        let handler = handler.ok_or_else(|| {
            let why = "the API, which knows the RuntimeClass, cannot be reached".to_owned();
            refused("look up the pod's runtime", why)
        })?;
        let way = self.runtimes.way(handler, sandbox.user_namespace)?;
        self.write_files(sandbox).await?;
        let program = match way {
            Way::Shim(program) => program,
            Way::Cri(endpoint) => {
                let attached = match sandbox.host_network {
                    true => None,
                    false => Some(self.place_in_network(pod).await?),
                };
                return self.cri.make_sandbox(sandbox, endpoint, attached).await;
            }
        };
        let network = match sandbox.host_network {
            true => NetworkMode::Host,
            false => {
                let namespace = self.network_namespace(pod);
                NetworkMode::Path(
                    namespace.ok_or_else(|| MachineError::NotFound { what: "network of pod", id: pod.clone() })?,
                )
            }
        };
        let made = self.runtime.create_sandbox(SandboxSpec {
            id: pod.clone(),
            hostname: sandbox.hostname.clone(),
            network,
            ipc: if sandbox.host_ipc { IpcMode::Host } else { IpcMode::Sandbox },
            pid: match (sandbox.host_pid, sandbox.share_pids) {
                (true, _) => PidMode::Host,
                (false, true) => PidMode::Sandbox,
                (false, false) => PidMode::Container,
            },
            shm_bytes: None,
            user_namespace: sandbox.user_namespace,
            sysctls: sandbox.sysctls.clone(),
            resources: sandbox.resources,
            program,
            labels: [("pod".to_owned(), sandbox.title.clone())].into(),
        });
        let made = made.await.map_err(|error| of_runtime(&format!("make sandbox {pod}"), &error))?;
        self.listen(&made);
        Ok(())
    }

    async fn write_files(&self, sandbox: &Sandbox) -> Result<(), MachineError> {
        let mut files = Vec::new();
        for (name, text) in &sandbox.files {
            files.push((self.layout.file(&sandbox.pod, name)?, text.clone()));
        }
        let directory = self.layout.pod(&sandbox.pod)?.join("files");
        off_the_runtime(move || {
            make_private_dir(&directory)?;
            for (path, text) in files {
                // In place: what containers have mounted is the file itself.
                let written = std::fs::write(&path, text);
                let written =
                    written.and_then(|()| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)));
                written.map_err(|error| file_error("write", &path, &error))?;
            }
            Ok(())
        })
        .await
    }

    /// A container of this id that never ran is made anew.
    pub(super) async fn make_container(&self, pod: &str, wanted: &Container) -> Result<(), MachineError> {
        if let Some(found) = self.cri.pod(pod) {
            return self.cri.create(&found, wanted).await;
        }
        let sandbox = self.living_sandbox(pod)?;
        let spec = self.container_spec(pod, wanted).await?;
        let doing = format!("make container {}", wanted.id);
        match sandbox.create_container(spec.clone()).await {
            Err(RuntimeError::Exists { .. }) => {
                sandbox.remove(&wanted.id).await.map_err(|error| of_runtime(&doing, &error))?;
                sandbox.create_container(spec).await.map_err(|error| of_runtime(&doing, &error))
            }
            other => other.map_err(|error| of_runtime(&doing, &error)),
        }
    }

    async fn container_spec(&self, pod: &str, wanted: &Container) -> Result<ContainerSpec, MachineError> {
        let image = self.images.find(&wanted.image).map_err(|error| of_image(&error))?;
        let image = image.ok_or_else(|| MachineError::NotFound { what: "image", id: wanted.image.clone() })?;
        let log = self.layout.log(pod, &wanted.id)?;
        let message = self.layout.message(pod, &wanted.id)?;
        let (mut mounts, mut devices, edits) = {
            let directories = self.config.cdi.clone();
            let (layout, images) = (self.layout.clone(), self.images.clone());
            let (pod, wanted) = (pod.to_owned(), wanted.clone());
            let log = log.clone();
            off_the_runtime(move || {
                let parents = [log.parent(), message.parent()];
                parents.into_iter().flatten().try_for_each(make_private_dir)?;
                container::make_message_file(&message)?;
                let mounts = container::mounts(&layout, &images, &pod, &wanted, &message)?;
                let devices = container::devices(&layout, &pod, &wanted)?;
                let edits = cdi::resolve(&directories, &wanted.cdi)
                    .map_err(|why| MachineError::Failed { operation: "look up devices".to_owned(), why })?;
                Ok((mounts, devices, edits))
            })
            .await?
        };
        mounts.extend(edits.mounts.into_iter().map(Mount::Bind));
        devices.extend(edits.nodes);
        // What the device needs is not the author's to change.
        let named = |name: &String| edits.env.iter().any(|(own, _)| own == name);
        let env = wanted.env.iter().filter(|(name, _)| !named(name)).chain(&edits.env).cloned().collect();
        let (profiles, filter) = (self.layout.seccomp(), wanted.seccomp.clone());
        let seccomp = off_the_runtime(move || seccomp::filter(&profiles, &filter)).await?;
        let unmasked = wanted.proc_unmasked.then(Vec::new);
        Ok(ContainerSpec {
            id: wanted.id.clone(),
            beside: wanted.beside.clone(),
            labels: Default::default(),
            layers: image.layers,
            args: wanted.args.clone(),
            env,
            cwd: wanted.cwd.clone(),
            user: wanted.user.clone(),
            additional_gids: wanted.groups.iter().chain(&edits.groups).copied().collect(),
            image_groups: wanted.image_groups,
            mounts,
            devices,
            hooks: edits.hooks,
            capabilities: wanted.capabilities.clone(),
            seccomp,
            app_armor: wanted.app_armor.clone(),
            read_only_root: wanted.read_only_root,
            no_new_privileges: wanted.no_new_privileges,
            privileged: wanted.privileged,
            resources: wanted.resources,
            rlimits: Vec::new(),
            oom_score_adj: wanted.oom_score_adj,
            log: Some(LogSpec::new(log)),
            stdin: wanted.stdin,
            stdin_once: wanted.stdin_once,
            tty: wanted.tty,
            masked_paths: unmasked.clone(),
            readonly_paths: unmasked,
        })
    }
}
