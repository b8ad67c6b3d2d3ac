//! Samples: for each built-in kind, one small object that breaks no rule, and a status that it may have.
//!
//! What has to hold of every kind is shown with these, by tests here and through the whole API server; a new kind adds a
//! row. Every object is called `sample` unless its kind has a rule for names, and is in `default` if it is in a namespace.

use serde_json::Value;

use crate::codec::{Limits, yaml};

/// One object of a kind, as somebody would write it.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The manifest.
    pub object: Value,
    /// What a controller would write to its `status`; null for kinds that have none.
    pub status: Value,
}

/// The manifest and the status, as YAML.
const ROWS: &[(&str, &str)] = &[
    ("{apiVersion: v1, kind: Namespace, metadata: {name: sample}}", "{phase: Active}"),
    (
        "{apiVersion: v1, kind: Node, metadata: {name: sample}, spec: {podCIDR: 10.42.7.0/24}}",
        "{capacity: {cpu: 2, memory: 4Gi}, conditions: [{type: Ready, status: 'True'}]}",
    ),
    (
        "{apiVersion: v1, kind: Pod, metadata: {name: sample}, spec: {containers: [{name: c, image: 'example.com/app:1'}]}}",
        "{phase: Running}",
    ),
    (
        "{apiVersion: v1, kind: Service, metadata: {name: sample}, spec: {selector: {app: sample}, ports: [{port: 80}]}}",
        "{conditions: [{type: Checked, status: 'True', reason: Sample, message: m, lastTransitionTime: '2026-01-01T00:00:00Z'}]}",
    ),
    ("{apiVersion: v1, kind: ConfigMap, metadata: {name: sample}, data: {k: v}}", ""),
    ("{apiVersion: v1, kind: Secret, metadata: {name: sample}, stringData: {k: v}}", ""),
    ("{apiVersion: v1, kind: ServiceAccount, metadata: {name: sample}}", ""),
    (
        "{apiVersion: v1, kind: Event, metadata: {name: sample}, reason: Pulled, message: done, type: Normal, \
         involvedObject: {kind: Pod, name: sample, namespace: default}}",
        "",
    ),
    (
        "{apiVersion: events.k8s.io/v1, kind: Event, metadata: {name: sample}, reason: Pulled, note: done, type: Normal, \
         action: Pull, eventTime: '2026-01-01T00:00:00.000000Z', reportingController: example.com/c, \
         reportingInstance: c-1, regarding: {kind: Pod, name: sample, namespace: default}}",
        "",
    ),
    (
        "{apiVersion: apps/v1, kind: Deployment, metadata: {name: sample}, spec: {selector: {matchLabels: {app: sample}}, \
         template: {metadata: {labels: {app: sample}}, spec: {containers: [{name: c, image: 'example.com/app:1'}]}}}}",
        "{observedGeneration: 1, replicas: 1}",
    ),
    (
        "{apiVersion: apps/v1, kind: ReplicaSet, metadata: {name: sample}, spec: {selector: {matchLabels: {app: sample}}, \
         template: {metadata: {labels: {app: sample}}, spec: {containers: [{name: c, image: 'example.com/app:1'}]}}}}",
        "{observedGeneration: 1, replicas: 1}",
    ),
    (
        "{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: sample}, addressType: IPv4, \
         endpoints: [{addresses: [10.42.7.2]}], ports: [{port: 80}]}",
        "",
    ),
    (
        "{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {name: samples.example.com}, \
         spec: {group: example.com, scope: Namespaced, names: {plural: samples, kind: Sample}, \
         versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}]}}",
        "{storedVersions: [v1]}",
    ),
    (
        "{apiVersion: coordination.k8s.io/v1, kind: Lease, metadata: {name: sample}, \
         spec: {holderIdentity: a, leaseDurationSeconds: 40}}",
        "",
    ),
    (
        "{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {name: sample}, spec: {rules: [{host: a.example.com, \
         http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: sample, port: {number: 80}}}}]}}]}}",
        "{loadBalancer: {ingress: [{ip: 192.0.2.1}]}}",
    ),
    (
        "{apiVersion: networking.k8s.io/v1, kind: IngressClass, metadata: {name: sample}, \
         spec: {controller: example.com/ingress}}",
        "",
    ),
    (
        "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: sample}, \
         spec: {podSelector: {}, ingress: [{from: [{podSelector: {}}], ports: [{port: 80}]}]}}",
        "",
    ),
    (
        "{apiVersion: networking.k8s.io/v1, kind: IPAddress, metadata: {name: 192.0.2.7}, \
         spec: {parentRef: {resource: services, namespace: default, name: sample}}}",
        "",
    ),
    (
        "{apiVersion: networking.k8s.io/v1, kind: ServiceCIDR, metadata: {name: sample}, spec: {cidrs: [192.0.2.0/24]}}",
        "{conditions: [{type: Ready, status: 'True', reason: Sample, lastTransitionTime: '2026-01-01T00:00:00Z'}]}",
    ),
    (
        "{apiVersion: storage.k8s.io/v1, kind: StorageClass, metadata: {name: sample}, provisioner: example.com/disk}",
        "",
    ),
    (
        "{apiVersion: storage.k8s.io/v1, kind: VolumeAttachment, metadata: {name: sample}, \
         spec: {attacher: disk.example.com, nodeName: sample, source: {persistentVolumeName: sample}}}",
        "{attached: true}",
    ),
    (
        "{apiVersion: storage.k8s.io/v1, kind: VolumeAttributesClass, metadata: {name: sample}, \
         driverName: disk.example.com, parameters: {iops: '100'}}",
        "",
    ),
    ("{apiVersion: storage.k8s.io/v1, kind: CSIDriver, metadata: {name: disk.example.com}, spec: {}}", ""),
    (
        "{apiVersion: storage.k8s.io/v1, kind: CSINode, metadata: {name: sample}, \
         spec: {drivers: [{name: disk.example.com, nodeID: sample}]}}",
        "",
    ),
    (
        "{apiVersion: storage.k8s.io/v1, kind: CSIStorageCapacity, metadata: {name: sample}, storageClassName: sample, \
         capacity: 1Gi}",
        "",
    ),
    ("{apiVersion: scheduling.k8s.io/v1, kind: PriorityClass, metadata: {name: sample}, value: 10}", ""),
    ("{apiVersion: node.k8s.io/v1, kind: RuntimeClass, metadata: {name: sample}, handler: sample}", ""),
    (
        "{apiVersion: certificates.k8s.io/v1, kind: ClusterTrustBundle, metadata: {name: sample}, \
         spec: {trustBundle: \"-----BEGIN CERTIFICATE-----\\nMAA=\\n-----END CERTIFICATE-----\"}}",
        "",
    ),
    (
        "{apiVersion: certificates.k8s.io/v1, kind: PodCertificateRequest, metadata: {name: sample}, \
         spec: {signerName: example.com/sample, podName: sample, podUID: sample, serviceAccountName: default, \
         serviceAccountUID: sample, nodeName: sample, nodeUID: sample, \
         stubPKCS10Request: MIGiMFYCAQAwIzEPMA0GA1UEAwwGc2FtcGxlMRAwDgYDVQQKDAdzYW1wbGVzMCowBQYDK2VwAyEARObpPTNR+QPrN8Rd9e5d\
         txOQuWe83N9Xoox161tXWGegADAFBgMrZXADQQC1GLOZZf4WpuYQ641Q5gIs/gUywg6Cy4omeqOqm+XhwJW9F7qEKTDoBqFv/+hEkO3Qjh2D\
         Eh2rq67v0Ml7vX0J}}",
        "{conditions: [{type: Denied, status: 'True', reason: Sample, lastTransitionTime: '2026-01-01T00:00:00Z'}]}",
    ),
    (
        "{apiVersion: certificates.k8s.io/v1, kind: CertificateSigningRequest, metadata: {name: sample}, \
         spec: {signerName: example.com/sample, usages: [client auth], request: LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0KTUlHaU1GWUNBUUF3SXpFUE1BMEdBMVVFQXd3R2MyRnRjR3hsTVJB\
         d0RnWURWUVFLREFkellXMXdiR1Z6TUNvdwpCUVlESzJWd0F5RUFST2JwUFROUitRUHJOOFJkOWU1ZHR4T1F1V2U4M045WG9veDE2\
         MXRYV0dlZ0FEQUZCZ01yClpYQURRUUMxR0xPWlpmNFdwdVlRNjQxUTVnSXMvZ1V5d2c2Q3k0b21lcU9xbStYaHdKVzlGN3FFS1RE\
         b0JxRnYKLytoRWtPM1FqaDJERWgycnE2N3YwTWw3dlgwSgotLS0tLUVORCBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0K}}",
        "{conditions: [{type: Failed, status: 'True', reason: Sample}]}",
    ),
    (
        "{apiVersion: admissionregistration.k8s.io/v1, kind: ValidatingWebhookConfiguration, metadata: {name: sample}, \
         webhooks: [{name: a.example.com, sideEffects: None, admissionReviewVersions: [v1], failurePolicy: Ignore, \
         clientConfig: {url: 'https://127.0.0.1:1/'}, rules: [{operations: [CREATE], apiGroups: [example.com], \
         apiVersions: [v1], resources: [samples]}]}]}",
        "",
    ),
    (
        "{apiVersion: admissionregistration.k8s.io/v1, kind: MutatingWebhookConfiguration, metadata: {name: sample}, \
         webhooks: [{name: a.example.com, sideEffects: None, admissionReviewVersions: [v1], failurePolicy: Ignore, \
         clientConfig: {url: 'https://127.0.0.1:1/'}, rules: [{operations: [CREATE], apiGroups: [example.com], \
         apiVersions: [v1], resources: [samples]}]}]}",
        "",
    ),
    (
        "{apiVersion: admissionregistration.k8s.io/v1, kind: ValidatingAdmissionPolicy, metadata: {name: sample}, \
         spec: {matchConstraints: {resourceRules: [{operations: [CREATE], apiGroups: [example.com], apiVersions: [v1], \
         resources: [samples]}]}, validations: [{expression: 'true'}]}}",
        "{observedGeneration: 1}",
    ),
    (
        "{apiVersion: admissionregistration.k8s.io/v1, kind: MutatingAdmissionPolicy, metadata: {name: sample}, \
         spec: {matchConstraints: {resourceRules: [{operations: [CREATE], apiGroups: [example.com], apiVersions: [v1], \
         resources: [samples]}]}, reinvocationPolicy: Never, \
         mutations: [{patchType: ApplyConfiguration, applyConfiguration: {expression: 'Object{}'}}]}}",
        "",
    ),
    (
        "{apiVersion: admissionregistration.k8s.io/v1, kind: ValidatingAdmissionPolicyBinding, metadata: {name: sample}, \
         spec: {policyName: other, validationActions: [Deny]}}",
        "",
    ),
    (
        "{apiVersion: admissionregistration.k8s.io/v1, kind: MutatingAdmissionPolicyBinding, metadata: {name: sample}, \
         spec: {policyName: other}}",
        "",
    ),
    (
        "{apiVersion: apiregistration.k8s.io/v1, kind: APIService, metadata: {name: v1.sample.example.com}, \
         spec: {group: sample.example.com, version: v1, groupPriorityMinimum: 100, versionPriority: 100}}",
        "{conditions: [{type: Available, status: 'True', reason: Local}]}",
    ),
    (
        "{apiVersion: flowcontrol.apiserver.k8s.io/v1, kind: FlowSchema, metadata: {name: sample}, \
         spec: {priorityLevelConfiguration: {name: catch-all}, rules: [{subjects: [{kind: User, user: {name: ann}}], \
         nonResourceRules: [{verbs: ['*'], nonResourceURLs: ['*']}]}]}}",
        "{conditions: [{type: Dangling, status: 'False', reason: Found}]}",
    ),
    (
        "{apiVersion: flowcontrol.apiserver.k8s.io/v1, kind: PriorityLevelConfiguration, metadata: {name: sample}, \
         spec: {type: Limited, limited: {limitResponse: {type: Queue, queuing: {}}}}}",
        "{conditions: [{type: ConcurrencyShared, status: 'True', reason: Sample}]}",
    ),
    (
        "{apiVersion: resource.k8s.io/v1, kind: DeviceClass, metadata: {name: sample}, \
         spec: {selectors: [{cel: {expression: 'true'}}]}}",
        "",
    ),
    (
        "{apiVersion: resource.k8s.io/v1, kind: DeviceTaintRule, metadata: {name: sample}, \
         spec: {deviceSelector: {driver: gpu.example.com}, taint: {key: example.com/broken, effect: NoSchedule}}}",
        "{conditions: [{type: EvictionInProgress, status: 'False', reason: NoExecuteOnly, message: m, \
         lastTransitionTime: '2026-01-01T00:00:00Z'}]}",
    ),
    (
        "{apiVersion: storagemigration.k8s.io/v1, kind: StorageVersionMigration, metadata: {name: sample}, \
         spec: {resource: {resource: secrets}}}",
        "{resourceVersion: '7', conditions: [{type: Running, status: 'True', reason: Begun, message: m, \
         lastTransitionTime: '2026-01-01T00:00:00Z'}]}",
    ),
    ("{apiVersion: v1, kind: Binding, metadata: {name: sample}, target: {kind: Node, name: sample}}", ""),
    (
        "{apiVersion: resource.k8s.io/v1, kind: ResourceClaim, metadata: {name: sample}, \
         spec: {devices: {requests: [{name: a, exactly: {deviceClassName: sample}}]}}}",
        "{allocation: {devices: {results: [{request: a, driver: gpu.example.com, pool: p, device: d}]}}}",
    ),
    (
        "{apiVersion: resource.k8s.io/v1, kind: ResourceClaimTemplate, metadata: {name: sample}, \
         spec: {spec: {devices: {requests: [{name: a, exactly: {deviceClassName: sample}}]}}}}",
        "",
    ),
    (
        "{apiVersion: resource.k8s.io/v1, kind: ResourceSlice, metadata: {name: sample}, spec: {driver: gpu.example.com, \
         nodeName: sample, pool: {name: sample, generation: 1, resourceSliceCount: 1}, devices: [{name: gpu-0}]}}",
        "",
    ),
    (
        "{apiVersion: rbac.authorization.k8s.io/v1, kind: Role, metadata: {name: sample}, \
         rules: [{verbs: [get], apiGroups: [''], resources: [pods]}]}",
        "",
    ),
    (
        "{apiVersion: rbac.authorization.k8s.io/v1, kind: RoleBinding, metadata: {name: sample}, \
         roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view}}",
        "",
    ),
    (
        "{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: sample}, \
         rules: [{verbs: [get], nonResourceURLs: [/metrics]}]}",
        "",
    ),
    (
        "{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {name: sample}, \
         roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view}}",
        "",
    ),
    ("{apiVersion: authentication.k8s.io/v1, kind: TokenReview, spec: {token: abc}}", ""),
    ("{apiVersion: authentication.k8s.io/v1, kind: SelfSubjectReview}", ""),
    (
        "{apiVersion: authorization.k8s.io/v1, kind: SubjectAccessReview, \
         spec: {user: jane, resourceAttributes: {verb: get, resource: pods}}}",
        "",
    ),
    (
        "{apiVersion: authorization.k8s.io/v1, kind: LocalSubjectAccessReview, metadata: {namespace: default}, \
         spec: {user: jane, resourceAttributes: {namespace: default, verb: get, resource: pods}}}",
        "",
    ),
    (
        "{apiVersion: authorization.k8s.io/v1, kind: SelfSubjectAccessReview, \
         spec: {nonResourceAttributes: {verb: get, path: /version}}}",
        "",
    ),
    ("{apiVersion: authorization.k8s.io/v1, kind: SelfSubjectRulesReview, spec: {namespace: default}}", ""),
    (
        "{apiVersion: v1, kind: ReplicationController, metadata: {name: sample}, spec: {selector: {app: sample}, \
         template: {metadata: {labels: {app: sample}}, spec: {containers: [{name: c, image: 'example.com/app:1'}]}}}}",
        "{observedGeneration: 1, replicas: 1}",
    ),
    (
        "{apiVersion: v1, kind: Endpoints, metadata: {name: sample}, \
         subsets: [{addresses: [{ip: 10.42.7.2}], ports: [{port: 80}]}]}",
        "",
    ),
    (
        "{apiVersion: v1, kind: PersistentVolume, metadata: {name: sample}, \
         spec: {accessModes: [ReadWriteOnce], capacity: {storage: 1Gi}, hostPath: {path: /data}}}",
        "{phase: Available}",
    ),
    (
        "{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: sample}, \
         spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}",
        "{phase: Bound, accessModes: [ReadWriteOnce], capacity: {storage: 1Gi}}",
    ),
    (
        "{apiVersion: v1, kind: LimitRange, metadata: {name: sample}, \
         spec: {limits: [{type: Container, max: {cpu: 2}, default: {cpu: 500m}}]}}",
        "",
    ),
    (
        "{apiVersion: v1, kind: ResourceQuota, metadata: {name: sample}, spec: {hard: {pods: 4, requests.cpu: 2}}}",
        "{hard: {pods: 4}, used: {pods: 1}}",
    ),
    (
        "{apiVersion: v1, kind: PodTemplate, metadata: {name: sample}, \
         template: {metadata: {labels: {app: sample}}, spec: {containers: [{name: c, image: 'example.com/app:1'}]}}}",
        "",
    ),
    (
        "{apiVersion: apps/v1, kind: StatefulSet, metadata: {name: sample}, spec: {serviceName: sample, \
         selector: {matchLabels: {app: sample}}, \
         template: {metadata: {labels: {app: sample}}, spec: {containers: [{name: c, image: 'example.com/app:1'}]}}, \
         volumeClaimTemplates: [{metadata: {name: data}, spec: {accessModes: [ReadWriteOnce], \
         resources: {requests: {storage: 1Gi}}}}]}}",
        "{observedGeneration: 1, replicas: 1}",
    ),
    (
        "{apiVersion: apps/v1, kind: DaemonSet, metadata: {name: sample}, spec: {selector: {matchLabels: {app: sample}}, \
         template: {metadata: {labels: {app: sample}}, spec: {containers: [{name: c, image: 'example.com/app:1'}]}}}}",
        "{observedGeneration: 1, desiredNumberScheduled: 1, currentNumberScheduled: 1, numberMisscheduled: 0, numberReady: 1}",
    ),
    ("{apiVersion: apps/v1, kind: ControllerRevision, metadata: {name: sample}, data: {spec: {}}, revision: 1}", ""),
    (
        "{apiVersion: batch/v1, kind: Job, metadata: {name: sample}, \
         spec: {template: {spec: {restartPolicy: Never, containers: [{name: c, image: 'example.com/app:1'}]}}}}",
        "{active: 1, ready: 1, startTime: '2026-01-01T00:00:00Z'}",
    ),
    (
        "{apiVersion: batch/v1, kind: CronJob, metadata: {name: sample}, spec: {schedule: '*/5 * * * *', timeZone: Etc/UTC, \
         jobTemplate: {spec: {template: {spec: {restartPolicy: Never, \
         containers: [{name: c, image: 'example.com/app:1'}]}}}}}}",
        "{lastScheduleTime: '2026-01-01T00:00:00Z'}",
    ),
    (
        "{apiVersion: policy/v1, kind: PodDisruptionBudget, metadata: {name: sample}, \
         spec: {minAvailable: 50%, selector: {matchLabels: {app: sample}}}}",
        "{observedGeneration: 1, disruptionsAllowed: 1, currentHealthy: 2, desiredHealthy: 1, expectedPods: 2}",
    ),
    (
        "{apiVersion: autoscaling/v2, kind: HorizontalPodAutoscaler, metadata: {name: sample}, \
         spec: {maxReplicas: 3, scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: sample}, \
         metrics: [{type: Pods, pods: {metric: {name: m}, target: {type: AverageValue, averageValue: '10'}}}]}}",
        "{currentReplicas: 1, desiredReplicas: 1}",
    ),
    (
        "{apiVersion: autoscaling/v1, kind: HorizontalPodAutoscaler, metadata: {name: sample}, \
         spec: {maxReplicas: 3, scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: sample}}}",
        "{currentReplicas: 1, desiredReplicas: 1, currentCPUUtilizationPercentage: 40}",
    ),
];

/// The samples, in no order that means anything.
pub fn samples() -> Vec<Sample> {
    let rows = ROWS.iter();
    rows.map(|(object, status)| Sample { object: tree(object), status: tree(status) }).collect()
}

fn tree(text: &str) -> Value {
    let mut documents = yaml::documents(text, Limits::default()).expect("the rows above are YAML");
    documents.pop().unwrap_or_default()
}
