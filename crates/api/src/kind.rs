//! A kind's identity: its group, version, names and scope.

use std::borrow::Cow;

/// Names one kind of object, built-in or custom, as URLs and manifests do.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kind {
    /// API group; empty for the core group.
    pub group: Cow<'static, str>,
    /// API version inside the group, such as `v1`.
    pub version: Cow<'static, str>,
    /// CamelCase singular, as in manifests.
    pub kind: Cow<'static, str>,
    /// Lower-case plural, as in URLs.
    pub plural: Cow<'static, str>,
    /// Whether objects live in a namespace.
    pub namespaced: bool,
}

impl Kind {
    const fn built_in(
        group: &'static str,
        version: &'static str,
        kind: &'static str,
        plural: &'static str,
        namespaced: bool,
    ) -> Kind {
        Kind {
            group: Cow::Borrowed(group),
            version: Cow::Borrowed(version),
            kind: Cow::Borrowed(kind),
            plural: Cow::Borrowed(plural),
            namespaced,
        }
    }

    /// `v1` for the core group, `group/version` otherwise: what `apiVersion` says.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_string() } else { format!("{}/{}", self.group, self.version) }
    }

    /// `pods` or `deployments.apps`: how error messages and store keys name the resource.
    pub fn qualified_plural(&self) -> String {
        if self.group.is_empty() { self.plural.to_string() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// The URL of the collection, for all namespaces or one.
    pub fn collection_path(&self, namespace: Option<&str>) -> String {
        let root = if self.group.is_empty() {
            format!("/api/{}", self.version)
        } else {
            format!("/apis/{}/{}", self.group, self.version)
        };
        match namespace {
            Some(namespace) if self.namespaced && !namespace.is_empty() => {
                format!("{root}/namespaces/{namespace}/{}", self.plural)
            }
            _ => format!("{root}/{}", self.plural),
        }
    }

    /// The URL of one object. `namespace` is ignored for cluster-scoped kinds.
    pub fn object_path(&self, namespace: &str, name: &str) -> String {
        format!("{}/{name}", self.collection_path(Some(namespace)))
    }
}

/// The built-in kinds.
pub mod kinds {
    use super::Kind;

    /// core/v1 ComponentStatus.
    pub static COMPONENT_STATUS: Kind = Kind::built_in("", "v1", "ComponentStatus", "componentstatuses", false);
    /// core/v1 Namespace.
    pub static NAMESPACE: Kind = Kind::built_in("", "v1", "Namespace", "namespaces", false);
    /// core/v1 Node.
    pub static NODE: Kind = Kind::built_in("", "v1", "Node", "nodes", false);
    /// core/v1 Pod.
    pub static POD: Kind = Kind::built_in("", "v1", "Pod", "pods", true);
    /// core/v1 Service.
    pub static SERVICE: Kind = Kind::built_in("", "v1", "Service", "services", true);
    /// core/v1 ConfigMap.
    pub static CONFIG_MAP: Kind = Kind::built_in("", "v1", "ConfigMap", "configmaps", true);
    /// core/v1 Secret.
    pub static SECRET: Kind = Kind::built_in("", "v1", "Secret", "secrets", true);
    /// core/v1 ServiceAccount.
    pub static SERVICE_ACCOUNT: Kind = Kind::built_in("", "v1", "ServiceAccount", "serviceaccounts", true);
    /// core/v1 Event.
    pub static EVENT: Kind = Kind::built_in("", "v1", "Event", "events", true);
    /// events.k8s.io/v1 Event: the same objects.
    pub static NEWER_EVENT: Kind = Kind::built_in("events.k8s.io", "v1", "Event", "events", true);
    /// apps/v1 Deployment.
    pub static DEPLOYMENT: Kind = Kind::built_in("apps", "v1", "Deployment", "deployments", true);
    /// apps/v1 ReplicaSet.
    pub static REPLICA_SET: Kind = Kind::built_in("apps", "v1", "ReplicaSet", "replicasets", true);
    /// discovery.k8s.io/v1 EndpointSlice.
    pub static ENDPOINT_SLICE: Kind = Kind::built_in("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", true);
    /// apiextensions.k8s.io/v1 CustomResourceDefinition.
    pub static CUSTOM_RESOURCE_DEFINITION: Kind =
        Kind::built_in("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions", false);
    /// coordination.k8s.io/v1 Lease.
    pub static LEASE: Kind = Kind::built_in("coordination.k8s.io", "v1", "Lease", "leases", true);
    /// core/v1 ReplicationController.
    pub static REPLICATION_CONTROLLER: Kind =
        Kind::built_in("", "v1", "ReplicationController", "replicationcontrollers", true);
    /// core/v1 Endpoints.
    pub static ENDPOINTS: Kind = Kind::built_in("", "v1", "Endpoints", "endpoints", true);
    /// core/v1 PersistentVolume.
    pub static PERSISTENT_VOLUME: Kind = Kind::built_in("", "v1", "PersistentVolume", "persistentvolumes", false);
    /// core/v1 PersistentVolumeClaim.
    pub static PERSISTENT_VOLUME_CLAIM: Kind =
        Kind::built_in("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", true);
    /// core/v1 LimitRange.
    pub static LIMIT_RANGE: Kind = Kind::built_in("", "v1", "LimitRange", "limitranges", true);
    /// core/v1 ResourceQuota.
    pub static RESOURCE_QUOTA: Kind = Kind::built_in("", "v1", "ResourceQuota", "resourcequotas", true);
    /// core/v1 PodTemplate.
    pub static POD_TEMPLATE: Kind = Kind::built_in("", "v1", "PodTemplate", "podtemplates", true);
    /// apps/v1 StatefulSet.
    pub static STATEFUL_SET: Kind = Kind::built_in("apps", "v1", "StatefulSet", "statefulsets", true);
    /// apps/v1 DaemonSet.
    pub static DAEMON_SET: Kind = Kind::built_in("apps", "v1", "DaemonSet", "daemonsets", true);
    /// apps/v1 ControllerRevision.
    pub static CONTROLLER_REVISION: Kind =
        Kind::built_in("apps", "v1", "ControllerRevision", "controllerrevisions", true);
    /// batch/v1 Job.
    pub static JOB: Kind = Kind::built_in("batch", "v1", "Job", "jobs", true);
    /// batch/v1 CronJob.
    pub static CRON_JOB: Kind = Kind::built_in("batch", "v1", "CronJob", "cronjobs", true);
    /// autoscaling/v2 HorizontalPodAutoscaler.
    pub static HORIZONTAL_POD_AUTOSCALER: Kind =
        Kind::built_in("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers", true);
    /// autoscaling/v1 HorizontalPodAutoscaler: an older view of the same thing.
    pub static HORIZONTAL_POD_AUTOSCALER_V1: Kind =
        Kind::built_in("autoscaling", "v1", "HorizontalPodAutoscaler", "horizontalpodautoscalers", true);
    /// policy/v1 PodDisruptionBudget.
    pub static POD_DISRUPTION_BUDGET: Kind =
        Kind::built_in("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets", true);
    /// rbac.authorization.k8s.io/v1 Role.
    pub static ROLE: Kind = Kind::built_in("rbac.authorization.k8s.io", "v1", "Role", "roles", true);
    /// rbac.authorization.k8s.io/v1 RoleBinding.
    pub static ROLE_BINDING: Kind =
        Kind::built_in("rbac.authorization.k8s.io", "v1", "RoleBinding", "rolebindings", true);
    /// rbac.authorization.k8s.io/v1 ClusterRole.
    pub static CLUSTER_ROLE: Kind =
        Kind::built_in("rbac.authorization.k8s.io", "v1", "ClusterRole", "clusterroles", false);
    /// rbac.authorization.k8s.io/v1 ClusterRoleBinding.
    pub static CLUSTER_ROLE_BINDING: Kind =
        Kind::built_in("rbac.authorization.k8s.io", "v1", "ClusterRoleBinding", "clusterrolebindings", false);
    /// authentication.k8s.io/v1 TokenReview.
    pub static TOKEN_REVIEW: Kind = Kind::built_in("authentication.k8s.io", "v1", "TokenReview", "tokenreviews", false);
    /// authentication.k8s.io/v1 SelfSubjectReview.
    pub static SELF_SUBJECT_REVIEW: Kind =
        Kind::built_in("authentication.k8s.io", "v1", "SelfSubjectReview", "selfsubjectreviews", false);
    /// authorization.k8s.io/v1 SubjectAccessReview.
    pub static SUBJECT_ACCESS_REVIEW: Kind =
        Kind::built_in("authorization.k8s.io", "v1", "SubjectAccessReview", "subjectaccessreviews", false);
    /// authorization.k8s.io/v1 LocalSubjectAccessReview.
    pub static LOCAL_SUBJECT_ACCESS_REVIEW: Kind =
        Kind::built_in("authorization.k8s.io", "v1", "LocalSubjectAccessReview", "localsubjectaccessreviews", true);
    /// authorization.k8s.io/v1 SelfSubjectAccessReview.
    pub static SELF_SUBJECT_ACCESS_REVIEW: Kind =
        Kind::built_in("authorization.k8s.io", "v1", "SelfSubjectAccessReview", "selfsubjectaccessreviews", false);
    /// authorization.k8s.io/v1 SelfSubjectRulesReview.
    pub static SELF_SUBJECT_RULES_REVIEW: Kind =
        Kind::built_in("authorization.k8s.io", "v1", "SelfSubjectRulesReview", "selfsubjectrulesreviews", false);
    /// networking.k8s.io/v1 Ingress.
    pub static INGRESS: Kind = Kind::built_in("networking.k8s.io", "v1", "Ingress", "ingresses", true);
    /// networking.k8s.io/v1 IngressClass.
    pub static INGRESS_CLASS: Kind = Kind::built_in("networking.k8s.io", "v1", "IngressClass", "ingressclasses", false);
    /// networking.k8s.io/v1 NetworkPolicy.
    pub static NETWORK_POLICY: Kind =
        Kind::built_in("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies", true);
    /// networking.k8s.io/v1 IPAddress.
    pub static IP_ADDRESS: Kind = Kind::built_in("networking.k8s.io", "v1", "IPAddress", "ipaddresses", false);
    /// networking.k8s.io/v1 ServiceCIDR.
    pub static SERVICE_CIDR: Kind = Kind::built_in("networking.k8s.io", "v1", "ServiceCIDR", "servicecidrs", false);
    /// storage.k8s.io/v1 StorageClass.
    pub static STORAGE_CLASS: Kind = Kind::built_in("storage.k8s.io", "v1", "StorageClass", "storageclasses", false);
    /// storage.k8s.io/v1 VolumeAttachment.
    pub static VOLUME_ATTACHMENT: Kind =
        Kind::built_in("storage.k8s.io", "v1", "VolumeAttachment", "volumeattachments", false);
    /// storage.k8s.io/v1 VolumeAttributesClass.
    pub static VOLUME_ATTRIBUTES_CLASS: Kind =
        Kind::built_in("storage.k8s.io", "v1", "VolumeAttributesClass", "volumeattributesclasses", false);
    /// storage.k8s.io/v1 CSIDriver.
    pub static CSI_DRIVER: Kind = Kind::built_in("storage.k8s.io", "v1", "CSIDriver", "csidrivers", false);
    /// storage.k8s.io/v1 CSINode.
    pub static CSI_NODE: Kind = Kind::built_in("storage.k8s.io", "v1", "CSINode", "csinodes", false);
    /// storage.k8s.io/v1 CSIStorageCapacity.
    pub static CSI_STORAGE_CAPACITY: Kind =
        Kind::built_in("storage.k8s.io", "v1", "CSIStorageCapacity", "csistoragecapacities", true);
    /// scheduling.k8s.io/v1 PriorityClass.
    pub static PRIORITY_CLASS: Kind =
        Kind::built_in("scheduling.k8s.io", "v1", "PriorityClass", "priorityclasses", false);
    /// node.k8s.io/v1 RuntimeClass.
    pub static RUNTIME_CLASS: Kind = Kind::built_in("node.k8s.io", "v1", "RuntimeClass", "runtimeclasses", false);
    /// certificates.k8s.io/v1 CertificateSigningRequest.
    pub static CERTIFICATE_SIGNING_REQUEST: Kind =
        Kind::built_in("certificates.k8s.io", "v1", "CertificateSigningRequest", "certificatesigningrequests", false);
    /// certificates.k8s.io/v1 ClusterTrustBundle.
    pub static CLUSTER_TRUST_BUNDLE: Kind =
        Kind::built_in("certificates.k8s.io", "v1", "ClusterTrustBundle", "clustertrustbundles", false);
    /// certificates.k8s.io/v1 PodCertificateRequest.
    pub static POD_CERTIFICATE_REQUEST: Kind =
        Kind::built_in("certificates.k8s.io", "v1", "PodCertificateRequest", "podcertificaterequests", true);
    /// admissionregistration.k8s.io/v1 ValidatingWebhookConfiguration.
    pub static VALIDATING_WEBHOOK_CONFIGURATION: Kind = Kind::built_in(
        "admissionregistration.k8s.io",
        "v1",
        "ValidatingWebhookConfiguration",
        "validatingwebhookconfigurations",
        false,
    );
    /// admissionregistration.k8s.io/v1 MutatingWebhookConfiguration.
    pub static MUTATING_WEBHOOK_CONFIGURATION: Kind = Kind::built_in(
        "admissionregistration.k8s.io",
        "v1",
        "MutatingWebhookConfiguration",
        "mutatingwebhookconfigurations",
        false,
    );
    /// admissionregistration.k8s.io/v1 ValidatingAdmissionPolicy.
    pub static VALIDATING_ADMISSION_POLICY: Kind = Kind::built_in(
        "admissionregistration.k8s.io",
        "v1",
        "ValidatingAdmissionPolicy",
        "validatingadmissionpolicies",
        false,
    );
    /// admissionregistration.k8s.io/v1 ValidatingAdmissionPolicyBinding.
    pub static VALIDATING_ADMISSION_POLICY_BINDING: Kind = Kind::built_in(
        "admissionregistration.k8s.io",
        "v1",
        "ValidatingAdmissionPolicyBinding",
        "validatingadmissionpolicybindings",
        false,
    );
    /// admissionregistration.k8s.io/v1 MutatingAdmissionPolicy.
    pub static MUTATING_ADMISSION_POLICY: Kind = Kind::built_in(
        "admissionregistration.k8s.io",
        "v1",
        "MutatingAdmissionPolicy",
        "mutatingadmissionpolicies",
        false,
    );
    /// admissionregistration.k8s.io/v1 MutatingAdmissionPolicyBinding.
    pub static MUTATING_ADMISSION_POLICY_BINDING: Kind = Kind::built_in(
        "admissionregistration.k8s.io",
        "v1",
        "MutatingAdmissionPolicyBinding",
        "mutatingadmissionpolicybindings",
        false,
    );
    /// apiregistration.k8s.io/v1 APIService.
    pub static API_SERVICE: Kind = Kind::built_in("apiregistration.k8s.io", "v1", "APIService", "apiservices", false);
    /// flowcontrol.apiserver.k8s.io/v1 FlowSchema.
    pub static FLOW_SCHEMA: Kind =
        Kind::built_in("flowcontrol.apiserver.k8s.io", "v1", "FlowSchema", "flowschemas", false);
    /// flowcontrol.apiserver.k8s.io/v1 PriorityLevelConfiguration.
    pub static PRIORITY_LEVEL_CONFIGURATION: Kind = Kind::built_in(
        "flowcontrol.apiserver.k8s.io",
        "v1",
        "PriorityLevelConfiguration",
        "prioritylevelconfigurations",
        false,
    );
    /// resource.k8s.io/v1 DeviceClass.
    pub static DEVICE_CLASS: Kind = Kind::built_in("resource.k8s.io", "v1", "DeviceClass", "deviceclasses", false);
    /// resource.k8s.io/v1 ResourceClaim.
    pub static RESOURCE_CLAIM: Kind = Kind::built_in("resource.k8s.io", "v1", "ResourceClaim", "resourceclaims", true);
    /// resource.k8s.io/v1 ResourceClaimTemplate.
    pub static RESOURCE_CLAIM_TEMPLATE: Kind =
        Kind::built_in("resource.k8s.io", "v1", "ResourceClaimTemplate", "resourceclaimtemplates", true);
    /// resource.k8s.io/v1 DeviceTaintRule.
    pub static DEVICE_TAINT_RULE: Kind =
        Kind::built_in("resource.k8s.io", "v1", "DeviceTaintRule", "devicetaintrules", false);
    /// storagemigration.k8s.io/v1 StorageVersionMigration.
    pub static STORAGE_VERSION_MIGRATION: Kind =
        Kind::built_in("storagemigration.k8s.io", "v1", "StorageVersionMigration", "storageversionmigrations", false);
    /// v1 Binding.
    pub static BINDING: Kind = Kind::built_in("", "v1", "Binding", "bindings", true);
    /// metrics.k8s.io/v1beta1 NodeMetrics.
    pub static NODE_METRICS: Kind = Kind::built_in("metrics.k8s.io", "v1beta1", "NodeMetrics", "nodes", false);
    /// metrics.k8s.io/v1beta1 PodMetrics.
    pub static POD_METRICS: Kind = Kind::built_in("metrics.k8s.io", "v1beta1", "PodMetrics", "pods", true);
    /// resource.k8s.io/v1 ResourceSlice.
    pub static RESOURCE_SLICE: Kind = Kind::built_in("resource.k8s.io", "v1", "ResourceSlice", "resourceslices", false);
}

#[cfg(test)]
mod tests {
    use super::kinds;

    #[test]
    fn paths_follow_group_and_scope() {
        assert_eq!(kinds::POD.object_path("ns", "p"), "/api/v1/namespaces/ns/pods/p");
        assert_eq!(kinds::NODE.object_path("", "n"), "/api/v1/nodes/n");
        assert_eq!(kinds::DEPLOYMENT.collection_path(None), "/apis/apps/v1/deployments");
        assert_eq!(kinds::DEPLOYMENT.qualified_plural(), "deployments.apps");
        assert_eq!(kinds::DEPLOYMENT.api_version(), "apps/v1");
    }
}
