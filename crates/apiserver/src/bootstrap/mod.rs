//! What every cluster has before anybody asks: its own namespaces, the Service through which pods reach this API, the network
//! that Services are from, the priorities of its own pods and requests, a list of what it serves, and (in `rbac`) its
//! default roles.
//!
//! Rules
//!   R1 once         what is there already is left alone; what somebody deletes later is restored (see `upkeep`)
//!   R2 endpoint     EndpointSlice and Endpoints of `default/kubernetes` name where this server listens; loopback is never named,
//!                   since in a pod it would mean the pod itself
//!   R3 served       a kind that is not served is not asked for; an APIService of ours goes with the version it is for
//!   R4 class        a new cluster has a StorageClass for local volumes, the default; whoever deletes it has none

mod api_service;
mod flow_control;

use std::sync::Arc;

use futures::future::try_join_all;
use http::{Method, Request};
use serde_json::{Value, json};
use windlass_api::binding::LOCAL_DRIVER;
use windlass_api::resources::SYSTEM_PRIORITY_CLASSES;
use windlass_api::{ApiError, Kind, Reason, kinds};
use windlass_stdx::{body_from, read_body};
use windlass_store::Range;

use crate::config::BODY_BYTES_MAX;
use crate::failure::{commit_failed, read_failed};
use crate::identity::Identity;
use crate::key;
use crate::pipeline;
use crate::pki::FRONT_PROXY_NAME;
use crate::rbac;
use crate::server::{Server, header};
use crate::write;

const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

/// Creates what is missing, and says where this server listens now.
pub(crate) async fn bootstrap(server: &Arc<Server>) -> Result<(), ApiError> {
    server.store.read_barrier().await.map_err(commit_failed)?;
    let had = [&kinds::ENDPOINT_SLICE, &kinds::ENDPOINTS].map(|kind| is_there(server, kind, "default", "kubernetes"));
    let is_new = !is_there(server, &kinds::NAMESPACE, "", "default");
    restore(server).await?;
    rbac::restore(server).await?;
    if is_new {
        ensure(server, &kinds::STORAGE_CLASS, "", &storage_class()).await?;
    }
    let Some([slice, endpoints]) = kubernetes_endpoints(server) else { return Ok(()) };
    let slice = json!({"endpoints": slice["endpoints"], "ports": slice["ports"]});
    let endpoints = json!({"subsets": endpoints["subsets"]});
    let patches = [(&kinds::ENDPOINT_SLICE, slice), (&kinds::ENDPOINTS, endpoints)];
    for ((kind, patch), _) in patches.iter().zip(had).filter(|(_, had)| *had) {
        let path = kind.object_path("default", "kubernetes");
        call(server, Method::PATCH, &path, "application/merge-patch+json", patch).await?;
    }
    Ok(())
}

/// Creates what is missing. Costs a few look-ups when nothing is.
pub(crate) async fn restore(server: &Arc<Server>) -> Result<(), ApiError> {
    for name in NAMESPACES {
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        ensure(server, &kinds::NAMESPACE, "", &namespace).await?;
    }
    ensure(server, &kinds::SERVICE, "default", &kubernetes_service(server)).await?;
    if let Some([slice, endpoints]) = kubernetes_endpoints(server) {
        ensure(server, &kinds::ENDPOINT_SLICE, "default", &slice).await?;
        ensure(server, &kinds::ENDPOINTS, "default", &endpoints).await?;
    }
    if let Some(map) = front_proxy(server) {
        ensure(server, &kinds::CONFIG_MAP, "kube-system", &map).await?;
    }
    ensure(server, &kinds::SERVICE_CIDR, "", &service_cidr(server)).await?;
    ensure_all(server, &kinds::PRIORITY_CLASS, &priority_classes()).await?;
    ensure_all(server, &kinds::PRIORITY_LEVEL_CONFIGURATION, &flow_control::levels()).await?;
    ensure_all(server, &kinds::FLOW_SCHEMA, &flow_control::schemas()).await?;
    ensure_all(server, &kinds::API_SERVICE, &api_service::served(&server.served().registry)).await?;
    remove_gone_versions(server).await
}

/// What aggregated APIs need to know this server by: who proves to them that a request comes from here, and in which headers
/// it says who asks.
fn front_proxy(server: &Server) -> Option<Value> {
    let pki = server.config.pki.as_ref()?;
    let list = |text: &str| json!([text]).to_string();
    Some(json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "extension-apiserver-authentication", "namespace": "kube-system"},
        "data": {
            "client-ca-file": pki.ca_pem(), "requestheader-client-ca-file": pki.front_proxy_ca_pem(),
            "requestheader-allowed-names": list(FRONT_PROXY_NAME),
            "requestheader-username-headers": list("X-Remote-User"),
            "requestheader-uid-headers": list("X-Remote-Uid"),
            "requestheader-group-headers": list("X-Remote-Group"),
            "requestheader-extra-headers-prefix": list("X-Remote-Extra-"),
        },
    }))
}

fn service_cidr(server: &Server) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": "kubernetes"},
        "spec": {"cidrs": [server.config.service_range.to_string()]},
    })
}

/// Volumes that are directories on the node of their first pod, for claims that ask for no other class.
fn storage_class() -> Value {
    json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
        "metadata": {"name": "local", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        "provisioner": LOCAL_DRIVER, "volumeBindingMode": "WaitForFirstConsumer", "reclaimPolicy": "Delete",
        "allowVolumeExpansion": true,
    })
}

fn priority_classes() -> Vec<Value> {
    let class = |(name, value, description): &(&str, i64, &str)| {
        json!({
            "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name},
            "value": value, "description": description,
        })
    };
    SYSTEM_PRIORITY_CLASSES.iter().map(class).collect()
}

/// R3: APIServices of ours for what is no longer served.
async fn remove_gone_versions(server: &Arc<Server>) -> Result<(), ApiError> {
    let registry = &server.served().registry;
    let range = Range::prefix(key::prefix(&kinds::API_SERVICE, ""));
    let page = server.store.range(&range).map_err(read_failed)?;
    for entry in page.entries.iter().filter(|entry| header(entry).labels().contains_key(api_service::OWN_LABEL)) {
        if api_service::is_gone(registry, &write::tree(entry)) {
            let path = kinds::API_SERVICE.object_path("", header(entry).name());
            call(server, Method::DELETE, &path, "application/json", &Value::Null).await?;
        }
    }
    Ok(())
}

fn kubernetes_service(server: &Server) -> Value {
    let target_port = server.config.advertise.map_or(6443, |address| address.port());
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {
            "name": "kubernetes", "namespace": "default",
            "labels": {"component": "apiserver", "provider": "kubernetes"},
        },
        "spec": {
            "type": "ClusterIP", "clusterIP": server.config.kubernetes_address().to_string(),
            "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": target_port}],
        },
    })
}

/// R2: as a slice, and as Endpoints, which are not to be mirrored into another slice.
fn kubernetes_endpoints(server: &Server) -> Option<[Value; 2]> {
    let address =
        server.config.advertise.filter(|address| !address.ip().is_loopback() && !address.ip().is_unspecified())?;
    let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
    let (ip, ports) = (address.ip().to_string(), json!([{"name": "https", "port": address.port(), "protocol": "TCP"}]));
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": "kubernetes", "namespace": "default", "labels": {"kubernetes.io/service-name": "kubernetes"},
        },
        "addressType": family, "endpoints": [{"addresses": [ip], "conditions": {"ready": true}}], "ports": ports,
    });
    let endpoints = json!({
        "apiVersion": "v1", "kind": "Endpoints",
        "metadata": {
            "name": "kubernetes", "namespace": "default",
            "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"},
        },
        "subsets": [{"addresses": [{"ip": ip}], "ports": ports}],
    });
    Some([slice, endpoints])
}

/// Creates those objects in no namespace that are not there, together: they wait for the disk once.
async fn ensure_all(server: &Arc<Server>, kind: &Kind, objects: &[Value]) -> Result<(), ApiError> {
    try_join_all(objects.iter().map(|object| ensure(server, kind, "", object))).await?;
    Ok(())
}

/// Creates an object of a kind that is served, unless one of its name is there.
async fn ensure(server: &Arc<Server>, kind: &Kind, namespace: &str, object: &Value) -> Result<(), ApiError> {
    if server.served().registry.get(&kind.group, &kind.version, &kind.plural).is_none() {
        return Ok(());
    }
    if is_there(server, kind, namespace, object["metadata"]["name"].as_str().unwrap_or_default()) {
        return Ok(());
    }
    match call(server, Method::POST, &kind.collection_path(Some(namespace)), "application/json", object).await {
        Err(error) if error.reason == Reason::AlreadyExists => Ok(()),
        created => created,
    }
}

fn is_there(server: &Server, kind: &Kind, namespace: &str, name: &str) -> bool {
    server.store.get(&key::object(kind, namespace, name)).is_some()
}

/// A write by the server itself.
pub(crate) async fn call(
    server: &Arc<Server>,
    method: Method,
    path: &str,
    media: &str,
    body: &Value,
) -> Result<(), ApiError> {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", media)
        .body(body_from(if body.is_null() { String::new() } else { body.to_string() }))
        .map_err(ApiError::internal)?;
    let response = pipeline::answer(server, &Identity::part("bootstrap"), request).await;
    if response.status().is_success() {
        return Ok(());
    }
    let bytes = read_body(response.into_body(), BODY_BYTES_MAX).await.map_err(ApiError::internal)?.unwrap_or_default();
    let status: Value = serde_json::from_slice(&bytes).map_err(ApiError::internal)?;
    Err(ApiError::from_status(&status).unwrap_or_else(|| ApiError::internal("an answer that is no Status")))
}
