//! sig-node: the objects that nodes read, what of pods is decided before a node has them, and what nodes make of them.

mod command;
mod config_map;
mod container_runtime;
mod device;
mod environment;
mod eviction;
mod image_volume;
mod init_container;
mod kubelet;
mod lease;
mod lifecycle;
#[expect(clippy::module_inception, reason = "the area and the kind have one name")]
mod node;
mod pod;
mod pod_life;
mod pod_template;
mod probe;
mod resize;
mod runtime_class;
mod secret;
mod security_context;
mod sub_path;

use crate::{Case, case, on_all_nodes, on_node, row};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        row!("CRUD operations for deviceclasses", device::class_row),
        row!("CRUD operations for resourceclaims", device::claim_row),
        row!("CRUD operations for resourceclaimtemplates", device::claim_template_row),
        row!("CRUD operations for resoureslices", device::slice_row),
        on_node!("ConfigMap, from environment field", environment::a_key_of_a_config_map),
        on_node!("ConfigMap, from environment variables", environment::every_key_of_a_config_map),
        on_node!(
            "ConfigMap, from environment field with various prefixes",
            environment::every_key_of_a_config_map_prefixed
        ),
        on_node!("Secrets, pod environment field", environment::a_key_of_a_secret),
        on_node!(
            "Secrets, pod environment from source (Secrets should be consumable via the environment)",
            environment::every_key_of_a_secret
        ),
        on_node!(
            "Secrets, pod environment from source (Secrets should be consumable as environment variable names variable names with various prefixes)",
            environment::every_key_of_a_secret_prefixed
        ),
        on_node!("DownwardAPI, environment for name, namespace and ip", environment::a_pod_knows_its_name_and_address),
        on_node!("DownwardAPI, environment for Pod UID", environment::a_pod_knows_its_uid),
        on_node!("DownwardAPI, environment for host ip", environment::a_pod_knows_its_hosts_address),
        on_node!("DownwardAPI, environment for hostIPs", environment::a_pod_knows_its_hosts_addresses),
        on_node!(
            "DownwardAPI, environment for CPU and memory limits and requests",
            environment::a_container_knows_its_resources
        ),
        on_node!(
            "DownwardAPI, environment for default CPU and memory limits and requests",
            environment::limits_default_to_what_the_node_has
        ),
        on_node!(
            "Container Runtime, Restart Policy, Pod Phases",
            container_runtime::the_policy_decides_restarts_and_phase
        ),
        on_node!(
            "Container Runtime, TerminationMessage, from container's log output of failing container",
            container_runtime::failure_leaves_its_log_as_last_words
        ),
        on_node!(
            "Container Runtime, TerminationMessage, from file of succeeding container",
            container_runtime::the_file_is_the_last_words
        ),
        on_node!(
            "Container Runtime, TerminationMessage, from log output of succeeding container",
            container_runtime::success_leaves_no_log_as_last_words
        ),
        on_node!(
            "Container Runtime, TerminationMessagePath, non-root user and non-default path",
            container_runtime::another_user_writes_to_another_file
        ),
        on_node!("Kubelet, failed pod, delete", kubelet::a_failed_pod_is_deleted),
        on_node!("Kubelet, failed pod, terminated reason", kubelet::a_failed_pod_says_why),
        on_node!("Kubelet, hostAliases", kubelet::aliases_are_in_the_hosts_file),
        on_node!("Kubelet, log output, default", kubelet::output_is_in_the_log),
        on_node!("Kubelet, managed etc hosts", kubelet::the_hosts_file_is_the_agents_where_it_should_be),
        on_node!("Kubelet, pod with read only root file system", kubelet::a_read_only_root_is_not_written),
        on_node!(
            "In-place Pod Resize, burstable pod resized with equivalents",
            resize::amounts_written_otherwise_are_the_same
        ),
        on_node!(
            "In-place Pod Resize, burtable pod with multiple containers and various operations",
            resize::a_burstable_pod_changes_in_place_and_by_restart
        ),
        on_node!(
            "In-place Pod Resize, guaranteed pods with multiple containers, net decrease",
            resize::a_guaranteed_pod_shrinks
        ),
        on_node!(
            "In-place Pod Resize, guaranteed pods with multiple containers, net increase",
            resize::a_guaranteed_pod_grows
        ),
        on_node!(
            "In-place Pod Resize, guaranteed pods with multiple containers, various operations",
            resize::a_guaranteed_pod_moves_what_it_has
        ),
        on_node!("In-place Pod Resize, read and replace endpoints", resize::the_part_is_read_replaced_and_patched),
        on_node!("Security Context, allowPrivilegeEscalation=false.", security_context::no_privileges_are_gained),
        on_node!("Security Context, privileged=false.", security_context::the_network_is_not_configured),
        on_node!("Security Context, readOnlyRootFilesystem=false.", security_context::the_root_is_written),
        on_node!("Security Context, runAsUser=65534", security_context::a_pod_runs_as_nobody),
        on_node!(
            "Security Context, test RunAsGroup at container level",
            security_context::the_container_says_its_group
        ),
        on_node!("Security Context, test RunAsGroup at pod level", security_context::the_pod_says_its_group),
        on_node!("Sysctl, test sysctls", security_context::a_safe_kernel_parameter_is_set),
        on_node!("Pod Lifecycle, post start exec hook", lifecycle::a_command_runs_after_start),
        on_node!("Pod Lifecycle, post start http hook", lifecycle::a_request_is_sent_after_start),
        on_node!("Pod Lifecycle, prestop exec hook", lifecycle::a_command_runs_before_stop),
        on_node!("Pod Lifecycle, prestop http hook", lifecycle::a_request_is_sent_before_stop),
        on_node!("Pods, prestop hook", lifecycle::a_deleted_pod_runs_its_hook),
        on_node!("Pod liveness probe, using grpc call, failure", probe::a_health_check_of_nobody_restarts),
        on_node!("Pod liveness probe, using grpc call, success", probe::a_served_health_check_does_not_restart),
        on_node!("Pod liveness probe, using http endpoint, failure", probe::an_http_success_does_not_restart),
        on_node!(
            "Pod liveness probe, using http endpoint, multiple restarts (slow)",
            probe::each_failure_restarts_again
        ),
        on_node!("Pod liveness probe, using http endpoint, restart", probe::an_http_error_restarts),
        on_node!("Pod liveness probe, using local file, no restart", probe::a_file_that_stays_does_not_restart),
        on_node!("Pod liveness probe, using local file, restart", probe::a_file_that_goes_restarts),
        on_node!("Pod liveness probe, using tcp socket, no restart", probe::an_open_port_does_not_restart),
        on_node!("Pod readiness probe, failure", probe::a_failing_pod_is_never_ready_nor_restarted),
        on_node!("Pod readiness probe, with initial delay", probe::a_pod_is_ready_after_its_delay),
        on_node!(
            "init-container-fails-stops-app-restartalways-pod",
            init_container::one_that_fails_is_tried_again_and_holds_the_pod_back
        ),
        on_node!(
            "init-container-fails-stops-app-restartnever-pod",
            init_container::one_that_fails_fails_a_pod_that_never_restarts
        ),
        on_node!("init-container-starts-app-restartalways-pod", init_container::they_run_before_a_pod_that_runs_on),
        on_node!("init-container-starts-app-restartnever-pod", init_container::they_run_before_a_pod_that_ends),
        on_all_nodes!("Taint, Pod Eviction on taint removal", eviction::a_taint_that_goes_in_time_evicts_nobody),
        on_node!("Can schedule a pod requesting existing RuntimeClass.", runtime_class::a_pod_of_a_class_is_scheduled),
        on_node!("Pods, ActiveDeadlineSeconds", pod_life::a_pod_that_takes_too_long_fails),
        on_node!("Pods, assigned hostip", pod_life::a_pod_has_its_hosts_address),
        on_node!("Pods, lifecycle", pod_life::a_watch_tells_of_a_pods_life),
        on_node!("Pods, logs from websockets", pod_life::a_log_comes_over_a_websocket),
        on_node!("Pods, remote command execution over websocket", pod_life::a_command_runs_over_a_websocket),
        on_node!("Pods, service environment variables", pod_life::a_pod_knows_the_services),
        on_node!("Image Volume", image_volume::is_pulled_always),
        on_node!("Ephemeral Container Creation", pod_life::a_visitor_runs),
        on_node!("Ephemeral Container, update ephemeral containers", pod_life::a_second_visitor_runs),
        on_node!("Containers, without command and arguments", command::the_image_says_what_runs),
        on_node!("Containers, with arguments", command::arguments_replace_the_images),
        on_node!("Containers, with command", command::a_command_replaces_entry_point_and_arguments),
        on_node!("Containers, with command and arguments", command::a_command_has_its_arguments),
        on_node!("Environment variables, expansion", command::variables_name_earlier_ones),
        on_node!("Environment variables, command expansion", command::a_command_names_variables),
        on_node!("Environment variables, command argument expansion", command::arguments_name_variables),
        on_node!("VolumeSubpathEnvExpansion, subpath expansion", sub_path::a_variable_names_the_part),
        on_node!("VolumeSubpathEnvExpansion, subpath with backticks", sub_path::a_path_with_backsteps_is_refused),
        on_node!("VolumeSubpathEnvExpansion, subpath with absolute path", sub_path::an_absolute_path_is_refused),
        on_node!(
            "VolumeSubpathEnvExpansion, subpath ready from failed state",
            sub_path::a_refused_path_may_become_a_good_one
        ),
        on_node!(
            "VolumeSubpathEnvExpansion, subpath test writes",
            sub_path::what_is_written_through_a_part_is_in_the_volume
        ),
        case!("ConfigMap Update", config_map::a_config_map_is_updated),
        case!("ConfigMap lifecycle", config_map::a_config_map_lives),
        case!("ConfigMap, with empty-key", config_map::no_key_is_empty),
        case!("Node, resource lifecycle", node::a_node_lives),
        row!("PodTemplate lifecycle", pod_template::row),
        case!("PodTemplate, delete a collection", pod_template::many_are_listed_and_deleted),
        case!("PodTemplate, replace", pod_template::a_template_is_replaced),
        on_node!("Pods Generation, 500 updates", pod_life::every_wish_counts),
        on_node!("Pods Generation, graceful delete", pod_life::a_graceful_end_counts),
        on_node!("Pods Generation, updates", pod_life::what_is_wished_counts_generations),
        case!("Pods, QOS", pod::the_class_follows_from_the_resources),
        case!("Pods, completes the lifecycle of a Pod and the PodStatus", pod::a_pod_and_its_status_live),
        case!("Pods, delete a collection", pod::many_are_listed_and_deleted),
        on_node!("Pods, patching status", pod_life::the_status_is_patched),
        case!("Pods, update", pod::a_label_is_changed),
        row!("RuntimeClass API", runtime_class::row),
        case!("RuntimeClass Overhead field must be respected.", runtime_class::a_pod_has_the_overhead_of_its_class),
        case!("Pod with the deleted RuntimeClass is rejected.", runtime_class::a_deleted_class_is_refused),
        case!("Pod with the non-existing RuntimeClass is rejected.", runtime_class::an_unknown_class_is_refused),
        case!("Secret patching", secret::a_secret_is_patched),
        case!("Secrets, with empty-key", secret::no_key_is_empty),
        case!("Sysctls, reject invalid sysctls", pod::names_of_sysctls_are_checked),
        case!("lease API should be available", lease::a_lease_lives),
    ]
}
