//! Which pods have which devices and CPUs, for programs of this machine that ask at a socket: monitors of devices, mostly.
//!
//! Rules
//!   L1 list        every pod that is not over, with its containers; of CPUs and devices only what nobody else may have
//!   L2 allocatable the CPUs that nobody need share, and the devices that are healthy
//! Not here       memory (there is no policy for it) · devices by claims
//! Source: Kubernetes documentation, "Monitoring device plugin resources": the pod resources API v1.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use windlass_api::codec::wire::{Reader, Writer};
use windlass_api::types::core;

use super::{PodDirectory, PodEntry, Shared};
use crate::devices::Grant;
use crate::grpc::code;
use crate::grpc::server::{Answerer, Refusal, bind, serve};
use crate::machine::CpuSet;
use crate::steps::container::containers_of;

/// The socket, as programs know it.
const SOCKET: &str = "kubelet.sock";
const SERVICE: &str = "/v1.PodResourcesLister/";

/// Answers for ever; does nothing where there is no directory for the socket.
pub(super) async fn run(shared: &Arc<Shared>, pods: &PodDirectory) {
    let Some(directory) = &shared.config.pod_resources else { return std::future::pending().await };
    match listen(directory, shared, pods) {
        Ok(served) => served.await,
        Err(error) => {
            let directory = directory.display();
            tracing::error!(%directory, %error, "who has which devices cannot be asked for: there is no socket");
            std::future::pending().await
        }
    }
}

fn listen(directory: &Path, shared: &Arc<Shared>, pods: &PodDirectory) -> std::io::Result<impl Future<Output = ()>> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let listener = bind(directory, SOCKET)?;
    let (shared, pods) = (Arc::clone(shared), pods.clone());
    let answerer: Answerer = Arc::new(move |path, message| {
        let answered = answer(&shared, &pods, &path, &message);
        async move { answered }.boxed()
    });
    Ok(serve(listener, answerer))
}

fn answer(shared: &Shared, pods: &PodDirectory, path: &str, message: &Bytes) -> Result<Vec<u8>, Refusal> {
    let of = |entry: &PodEntry| of_pod(shared, entry);
    match path.strip_prefix(SERVICE) {
        Some("List") => {
            let all = pods.list();
            Ok(all.iter().filter_map(of).fold(Writer::new(), |list, pod| list.message(1, &pod)).finish())
        }
        Some("Get") => {
            let (name, namespace) = asked(message).map_err(|why| (code::INVALID_ARGUMENT, why))?;
            let found = pods.find(&namespace, &name).as_ref().and_then(of);
            let missing = || (code::NOT_FOUND, format!("pod {namespace}/{name} is not on this node"));
            Ok(Writer::new().message(1, &found.ok_or_else(missing)?).finish())
        }
        Some("GetAllocatableResources") => Ok(allocatable(shared).finish()),
        _ => Err((code::UNIMPLEMENTED, format!("the node has no {path}"))),
    }
}

fn asked(message: &[u8]) -> Result<(String, String), String> {
    let (mut name, mut namespace) = (String::new(), String::new());
    let mut fields = Reader::new(message);
    while let Some((tag, wire)) = fields.field().map_err(|error| error.to_string())? {
        match tag {
            1 => name = wire.text().map_err(|error| error.to_string())?,
            2 => namespace = wire.text().map_err(|error| error.to_string())?,
            _ => {}
        }
    }
    Ok((name, namespace))
}

/// L1.
fn of_pod(shared: &Shared, entry: &PodEntry) -> Option<Writer> {
    let pod: core::Pod = serde_json::from_slice(&entry.shown.json).ok()?;
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    if matches!(phase, Some("Succeeded" | "Failed")) {
        return None;
    }
    let (cpus, devices) = (shared.cpus.own_of(&entry.uid), shared.devices.own_of(&entry.uid));
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let (name, namespace) = (text(&pod.metadata.name), text(&pod.metadata.namespace));
    let out = Writer::new().text(1, &name).text(2, &namespace);
    let containers = pod.spec.iter().flat_map(containers_of).map(|container| {
        let grants = devices.get(&container.name).into_iter().flatten();
        let given =
            |out: Writer, Grant { resource, devices, .. }: &Grant| out.message(2, &of_devices(resource, devices));
        let out = grants.fold(Writer::new().text(1, &container.name), given);
        out.bytes(3, &packed(cpus.get(&container.name).copied().unwrap_or_default()))
    });
    Some(containers.fold(out, |out, container| out.message(3, &container)))
}

fn of_devices(resource: &str, devices: &[String]) -> Writer {
    Writer::new().text(1, resource).texts(2, devices.iter().map(String::as_str))
}

/// L2.
fn allocatable(shared: &Shared) -> Writer {
    let table = Arc::clone(&shared.machine.devices().borrow());
    let out = table.0.iter().fold(Writer::new(), |out, (resource, devices)| {
        let healthy = devices.iter().filter(|device| device.is_healthy).map(|device| device.id.clone());
        out.message(1, &of_devices(resource, &healthy.collect::<Vec<_>>()))
    });
    out.bytes(2, &packed(shared.cpus.allocatable()))
}

/// Numbers of a list as protobuf packs them, seven bits a byte.
fn packed(cpus: CpuSet) -> Vec<u8> {
    let mut out = Vec::new();
    for mut cpu in cpus.iter() {
        while cpu >= 0x80 {
            out.push((cpu & 0x7f) as u8 | 0x80);
            cpu >>= 7;
        }
        out.push(cpu as u8);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::packed;

    #[test]
    fn numbers_are_packed() {
        assert_eq!(packed("0,5,300".parse().expect("a set")), [0, 5, 0xac, 0x02]);
    }
}
