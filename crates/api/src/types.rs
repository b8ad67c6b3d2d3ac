//! The typed forms of the built-in objects. No other crate names `k8s-openapi`: they come from here.
//!
//! A typed round trip drops fields it does not know, so types are for reading and for building new objects, never for
//! changing an object that somebody else wrote.

pub use k8s_openapi::ByteString;

/// core/v1: Pod, Node, Service, Namespace, ConfigMap, Secret, ServiceAccount, Event and their parts.
pub use k8s_openapi::api::core::v1 as core;

/// apps/v1: Deployment, ReplicaSet.
pub use k8s_openapi::api::apps::v1 as apps;

/// authentication.k8s.io/v1: TokenRequest, TokenReview.
pub use k8s_openapi::api::authentication::v1 as authentication;

/// autoscaling/v1: Scale.
pub use k8s_openapi::api::autoscaling::v1 as autoscaling;

/// coordination.k8s.io/v1: Lease.
pub use k8s_openapi::api::coordination::v1 as coordination;

/// discovery.k8s.io/v1: EndpointSlice.
pub use k8s_openapi::api::discovery::v1 as discovery;

/// policy/v1: Eviction.
pub use k8s_openapi::api::policy::v1 as policy;

/// meta/v1: ObjectMeta, LabelSelector, DeleteOptions, Time and their like.
pub use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;

/// Quantities such as `100m` or `1Gi`, as text.
pub use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// A number or a text, such as a port or a percentage.
pub use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
