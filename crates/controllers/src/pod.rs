//! What controllers want to know of a pod, read once per revision.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use windlass_api::Object;
use windlass_client::Cached;

/// The facts about one pod that decisions depend on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct PodFacts {
    pub(crate) metadata: Metadata,
    pub(crate) spec: Spec,
    pub(crate) status: Status,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Metadata {
    pub(crate) creation_timestamp: Option<Timestamp>,
    pub(crate) deletion_timestamp: Option<Timestamp>,
    pub(crate) deletion_grace_period_seconds: Option<i64>,
    pub(crate) annotations: Option<std::collections::BTreeMap<String, String>>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Spec {
    pub(crate) hostname: Option<String>,
    pub(crate) subdomain: Option<String>,
    pub(crate) containers: Vec<Container>,
    pub(crate) init_containers: Option<Vec<Container>>,
    pub(crate) tolerations: Option<Vec<Toleration>>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Container {
    pub(crate) ports: Option<Vec<ContainerPort>>,
    pub(crate) restart_policy: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ContainerPort {
    pub(crate) name: Option<String>,
    pub(crate) container_port: i64,
    pub(crate) protocol: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Toleration {
    pub(crate) key: Option<String>,
    pub(crate) operator: Option<String>,
    pub(crate) value: Option<String>,
    pub(crate) effect: Option<String>,
    pub(crate) toleration_seconds: Option<i64>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Status {
    pub(crate) phase: Option<String>,
    pub(crate) conditions: Option<Vec<Condition>>,
    pub(crate) container_statuses: Option<Vec<ContainerStatus>>,
    #[serde(rename = "podIP")]
    pub(crate) pod_ip: Option<String>,
    #[serde(rename = "podIPs")]
    pub(crate) pod_ips: Option<Vec<PodIp>>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Condition {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) status: String,
    pub(crate) reason: Option<String>,
    pub(crate) last_transition_time: Option<Timestamp>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ContainerStatus {
    pub(crate) restart_count: i64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct PodIp {
    pub(crate) ip: String,
}

impl PodFacts {
    /// The facts of a cached pod, read once.
    pub(crate) fn of(pod: &Cached) -> Arc<PodFacts> {
        pod.memo(PodFacts::read)
    }

    fn read(pod: &Object) -> PodFacts {
        pod.decode().unwrap_or_else(|error| {
            // The API keeps pods well-formed; one that is not is treated as one that says nothing.
            tracing::error!(pod = pod.header.key(), %error, "a pod that cannot be read");
            PodFacts::default()
        })
    }

    pub(crate) fn phase(&self) -> &str {
        self.status.phase.as_deref().unwrap_or("Pending")
    }

    /// It has run to its end, one way or the other.
    pub(crate) fn is_terminal(&self) -> bool {
        matches!(self.phase(), "Succeeded" | "Failed")
    }

    pub(crate) fn is_ending(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }

    /// It counts as one of its owner's replicas.
    pub(crate) fn is_active(&self) -> bool {
        !self.is_terminal() && !self.is_ending()
    }

    fn ready_condition(&self) -> Option<&Condition> {
        self.status.conditions.iter().flatten().find(|condition| condition.kind == "Ready")
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.ready_condition().is_some_and(|condition| condition.status == "True")
    }

    /// Since when it is ready.
    pub(crate) fn ready_since(&self) -> Option<Timestamp> {
        self.ready_condition().filter(|condition| condition.status == "True")?.last_transition_time
    }

    /// After how long it will have been ready for so many seconds; `None` while it is not ready.
    pub(crate) fn available_in(&self, min_ready_seconds: i64, now: Timestamp) -> Option<Duration> {
        let ready = self.ready_condition().filter(|condition| condition.status == "True")?;
        let ready_for = ready.last_transition_time.map_or(SignedDuration::ZERO, |since| now.duration_since(since));
        Some(Duration::try_from(SignedDuration::from_secs(min_ready_seconds) - ready_for).unwrap_or(Duration::ZERO))
    }

    /// The restarts of its containers together.
    pub(crate) fn restarts(&self) -> i64 {
        self.status.container_statuses.iter().flatten().map(|status| status.restart_count).sum()
    }

    /// Its addresses, the first one being the pod's own.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = &str> {
        let listed = self.status.pod_ips.iter().flatten().map(|found| found.ip.as_str());
        let single = self.status.pod_ip.iter().map(String::as_str);
        let single = single.filter(|_| self.status.pod_ips.as_ref().is_none_or(Vec::is_empty));
        listed.chain(single).filter(|address| !address.is_empty())
    }
}

impl Toleration {
    /// Whether it tolerates a taint.
    pub(crate) fn tolerates(&self, key: &str, value: &str, effect: &str) -> bool {
        let own_key = self.key.as_deref().unwrap_or_default();
        let own_effect = self.effect.as_deref().unwrap_or_default();
        if !own_effect.is_empty() && own_effect != effect {
            return false;
        }
        if !own_key.is_empty() && own_key != key {
            return false;
        }
        match self.operator.as_deref().unwrap_or_default() {
            "Exists" => true,
            // An empty key needs `Exists`.
            "" | "Equal" => !own_key.is_empty() && self.value.as_deref().unwrap_or_default() == value,
            _ => false,
        }
    }
}
