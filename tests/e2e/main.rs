//! The end-to-end suite: the built binary as root, driven by real clients. Run by `cargo x e2e`.
//!
//! The first list shares one cluster, a few tests at a time; the second starts, breaks and mends clusters of its own.

#![expect(clippy::disallowed_methods, reason = "real clusters take real time")]

mod access;
mod apply;
mod backup;
mod checkpoint;
mod cli;
mod cluster;
mod csi;
mod deployment;
mod dra;
mod fault;
mod guest;
mod helm;
mod image;
mod input;
mod kubectl;
mod network_fault;
mod node_fault;
mod old_kubectl;
mod operator;
mod pod;
mod policy;
mod python;
mod registry;
mod runtime;
mod service;
mod snapshot;
mod stream;
mod usage;
mod volume;

use windlass_tests::suite::{Case, is_chosen, run_cases};
use windlass_tests::{Cluster, trace};

/// Tests at a time: kubectl itself costs more of the machine than the cluster does.
const LANES: usize = 3;

macro_rules! cases {
    ($($module:ident :: $name:ident),* $(,)?) => {
        &[$(Case { name: stringify!($name), body: $module::$name }),*]
    };
}

const SHARED: &[Case] = cases![
    deployment::follow_one_deployment,
    deployment::create_deployment_by_generator,
    deployment::apply_twice_says_unchanged,
    deployment::scale_up_and_down,
    deployment::rollout_status_history_undo,
    deployment::set_image_rolls_with_no_failed_request,
    deployment::a_bad_image_does_not_take_down_the_old_replicas,
    deployment::delete_takes_the_pods_along,
    kubectl::get_in_every_form,
    kubectl::get_watch_sees_changes,
    kubectl::describe_tells_events,
    kubectl::patch_of_every_type,
    kubectl::label_and_annotate,
    kubectl::explain_knows_the_fields,
    kubectl::edit_is_refused_on_a_stale_version,
    kubectl::namespaces_end_with_all_they_hold,
    kubectl::an_eviction_ends_a_pod,
    cli::cli_gets_as_kubectl_does,
    cli::cli_describes_as_kubectl_does,
    cli::cli_applies_as_kubectl_does,
    cli::cli_scales_rolls_and_waits_as_kubectl_does,
    cli::cli_rolls_daemon_and_stateful_sets_as_kubectl_does,
    cli::cli_edits_as_kubectl_does,
    cli::cli_builds_kustomizations_as_kubectl_does,
    cli::cli_reads_logs_and_runs_commands_as_kubectl_does,
    pod::env_config_and_secrets_arrive,
    pod::volumes_are_shared_and_updated,
    pod::downward_api_tells_the_pod_about_itself,
    pod::limits_are_in_the_cgroup,
    pod::a_guaranteed_pod_runs_and_takes_commands,
    pod::memory_hog_is_oom_killed,
    pod::a_failing_container_backs_off,
    pod::a_finished_pod_succeeds,
    pod::init_containers_run_in_order,
    pod::probes_gate_and_restart,
    pod::one_exit_code_restarts_all_containers,
    pod::an_evicted_pod_runs_its_pre_stop_hook_first,
    cli::a_start_is_traced_step_by_step,
    cli::bash_completes_verbs_flags_kinds_names_and_namespaces,
    pod::stop_is_graceful_and_then_not,
    pod::seccomp_and_capabilities_are_the_default,
    pod::a_pending_pod_says_why,
    policy::network_policies_restrict_real_pods,
    policy::a25_policies_hold_until_the_last_pod_of_an_ending_namespace_is_gone,
    node_fault::f52_a_fork_bomb_and_a_hog_stay_in_their_pods,
    node_fault::f52_hogs_of_files_and_disk_leave_their_neighbours_alone,
    node_fault::f64_a_flood_of_output_stays_within_its_bound,
    stream::logs_follow_previous_and_tail,
    stream::logs_follow_across_rotations_and_lose_no_byte,
    stream::logs_of_all_containers_since_and_within_a_limit,
    stream::exec_passes_streams_and_exit_codes,
    stream::exec_with_a_terminal,
    stream::exec_follows_the_size_of_the_terminal,
    stream::a82_a_client_that_does_not_read_costs_little_and_the_command_ends_with_it,
    stream::attach_joins_the_streams_of_a_running_container,
    stream::port_forward_carries_a_request,
    stream::port_forward_passes_the_clients_end_on,
    stream::copy_to_and_from_a_pod,
    stream::directories_are_copied_both_ways_by_kubectl_and_windlass,
    stream::debug_joins_a_pod_copies_one_and_looks_at_a_node,
    service::a_service_is_reached_by_name_and_from_the_host,
    service::endpoints_follow_readiness,
    service::the_service_of_the_api_comes_back_after_it_was_deleted,
    service::node_port_answers,
    checkpoint::a_container_is_saved_or_its_client_is_told_why_not,
    usage::top_shows_what_nodes_and_pods_use,
    usage::a_node_tells_a_summary_through_its_proxy,
    usage::who_takes_more_disk_than_allowed_is_evicted,
    volume::a_claim_gets_a_volume_that_outlives_pods_and_grows,
    volume::a_volume_made_by_hand_is_bound_by_its_claim_and_kept,
    volume::an_ephemeral_volume_goes_with_its_pod,
    csi::csi_volumes_are_made_attached_staged_shared_and_grown,
    csi::csi_devices_and_inline_volumes_reach_their_pods,
    csi::f74_a_csi_driver_that_hangs_keeps_no_other_pod,
    snapshot::csi_snapshots_are_taken_restored_and_cloned,
    dra::dra_devices_are_claimed_allocated_prepared_and_given_back,
    image::a_bad_archive_is_refused_with_the_reason,
    image::a_missing_image_fails_its_pod_with_the_reason,
    image::a_registry_image_is_pulled,
    image::bad_images_fail_their_pods_with_the_reason_and_leave_the_node_well,
    registry::pull_secrets_of_pods_and_accounts_open_what_they_are_for,
    registry::f59_a_registry_that_fails_harms_nothing_that_runs_or_is_here,
    registry::f59_a_registry_that_comes_back_is_found,
    helm::a_chart_is_installed_upgraded_rolled_back_and_uninstalled,
    helm::a_chart_with_crds_hooks_and_tests,
    apply::server_side_apply_knows_who_owns_what,
    apply::client_side_apply_becomes_server_side,
    apply::diff_and_dry_run_change_nothing,
    apply::kustomize_builds_and_applies,
    access::roles_decide_what_a_service_account_may_do,
    access::a_token_speaks_for_its_service_account,
    access::a_pod_asks_the_api_by_its_own_token,
    kubectl::discovery_lists_every_group_and_kind,
    kubectl::events_and_wait_tell_what_happens,
    kubectl::replace_taint_and_cordon,
    kubectl::drain_cordons_evicts_and_waits_for_budgets,
    python::the_python_client_lists_watches_and_patches,
    python::the_python_client_reads_what_deletes_answer_as_the_types_it_knows,
    python::kr8s_finds_creates_scales_and_deletes,
    python::lightkube_applies_from_the_server_side,
    operator::an_operator_of_kube_rs_reconciles_and_is_followed_by_another,
    old_kubectl::kubectl_of_2020_applies_scales_rolls_and_deletes,
    input::unknown_fields_strict_warn_ignore,
    input::wrong_types_and_names_are_refused_with_their_path,
    input::bodies_over_the_limit_are_413,
    input::yaml_bombs_are_refused_quickly,
    input::deep_json_is_refused,
    input::json_patch_copy_bombs_are_refused,
    input::path_traversal_finds_nothing,
    input::nobody_gets_in_without_a_certificate,
];

/// A test with clusters of its own.
type Lone = (&'static str, fn());

const LONE: &[Lone] = &[
    ("the_server_is_killed_50_times_and_no_write_is_lost", fault::the_server_is_killed_50_times_and_no_write_is_lost),
    ("the_agent_is_killed_with_20_pods_and_none_restarts", fault::the_agent_is_killed_with_20_pods_and_none_restarts),
    (
        "f46_the_agent_is_killed_at_any_step_of_start_and_stop",
        node_fault::f46_the_agent_is_killed_at_any_step_of_start_and_stop,
    ),
    ("pods_end_in_order_when_the_machine_goes_down", node_fault::pods_end_in_order_when_the_machine_goes_down),
    (
        "f79_a_new_agent_takes_over_the_shims_of_the_old_one",
        node_fault::f79_a_new_agent_takes_over_the_shims_of_the_old_one,
    ),
    (
        "f61_rules_and_leases_that_were_removed_are_restored",
        network_fault::f61_rules_and_leases_that_were_removed_are_restored,
    ),
    (
        "f62_a_pod_whose_ground_was_removed_is_restarted_with_the_reason",
        network_fault::f62_a_pod_whose_ground_was_removed_is_restarted_with_the_reason,
    ),
    (
        "f58_ports_that_are_taken_are_tried_again_and_others_go_on",
        network_fault::f58_ports_that_are_taken_are_tried_again_and_others_go_on,
    ),
    (
        "f17_f19_a_node_notices_a_silent_server_and_goes_on_without_it",
        network_fault::f17_f19_a_node_notices_a_silent_server_and_goes_on_without_it,
    ),
    (
        "csi_the_agent_is_killed_in_each_step_and_nothing_is_left",
        csi::csi_the_agent_is_killed_in_each_step_and_nothing_is_left,
    ),
    ("f47_a_killed_shim_is_noticed_and_its_pod_restarted", fault::a_killed_shim_is_noticed_and_its_pod_restarted),
    ("a_full_disk_refuses_writes_and_heals", fault::a_full_disk_refuses_writes_and_heals),
    (
        "a_runtime_class_has_its_pods_run_by_runc_and_down_leaves_nothing",
        runtime::a_runtime_class_has_its_pods_run_by_runc_and_down_leaves_nothing,
    ),
    (
        "a_runtime_class_has_its_pods_run_by_containerd_and_down_leaves_nothing",
        runtime::a_runtime_class_has_its_pods_run_by_containerd_and_down_leaves_nothing,
    ),
    (
        "limits_runtimes_and_checkpoints_hold_on_cgroup_v2_in_a_guest",
        guest::limits_runtimes_and_checkpoints_hold_on_cgroup_v2_in_a_guest,
    ),
    ("layers_come_from_a_node_that_has_them", registry::layers_come_from_a_node_that_has_them),
    (
        "a_cluster_is_backed_up_while_it_is_written_to_and_comes_back_as_it_was",
        backup::a_cluster_is_backed_up_while_it_is_written_to_and_comes_back_as_it_was,
    ),
    (
        "f82_nodes_that_ran_on_are_in_the_cluster_that_is_restored",
        backup::f82_nodes_that_ran_on_are_in_the_cluster_that_is_restored,
    ),
    ("server_and_node_run_apart", cluster::server_and_node_run_apart),
    (
        "f56_a_node_that_returns_ends_the_copies_that_moved_away",
        cluster::f56_a_node_that_returns_ends_the_copies_that_moved_away,
    ),
    ("a_cordoned_node_takes_no_pods_and_is_drained", cluster::a_cordoned_node_takes_no_pods_and_is_drained),
    (
        "a_drain_waits_for_a_disruption_budget_and_goes_on_when_it_lets_go",
        cluster::a_drain_waits_for_a_disruption_budget_and_goes_on_when_it_lets_go,
    ),
    ("bad_flags_and_taken_ports_say_what_to_do", cluster::bad_flags_and_taken_ports_say_what_to_do),
];

fn main() {
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    std::panic::set_hook(Box::new(|panic| eprintln!("{panic}")));
    let (mut passed, mut failed) = (0, 0);
    if SHARED.iter().any(|case| is_chosen(case.name, &filter)) {
        let mut cluster = Cluster::start(0);
        cluster.import_image();
        (passed, failed) = run_cases(&cluster, SHARED, &filter, LANES);
        let down = cluster.down();
        let left = trace::left_behind(&cluster);
        if down.ok && left.is_empty() {
            passed += 1;
        } else {
            failed += 1;
            eprintln!("FAILED down_leaves_nothing_behind: {}\n{}", down.stderr, left.join("\n"));
        }
    }
    for (name, body) in LONE.iter().filter(|(name, _)| is_chosen(name, &filter)) {
        let started = std::time::Instant::now();
        let ok = std::panic::catch_unwind(body).is_ok();
        eprintln!("{} {name} ({:.1} s)", if ok { "ok    " } else { "FAILED" }, started.elapsed().as_secs_f64());
        *(if ok { &mut passed } else { &mut failed }) += 1;
    }
    println!("{passed} passed, {failed} failed");
    if failed > 0 || passed == 0 {
        std::process::exit(1);
    }
}
