//! An operator made with kube-rs.

use std::process::Command;

use windlass_tests::Test;
use windlass_tests::cluster::{given, must};

pub fn an_operator_of_kube_rs_reconciles_and_is_followed_by_another(test: &Test) {
    let mut operator = Command::new(given("WINDLASS_OPERATOR"));
    let said = must(operator.arg(test.cluster.kubeconfig()).arg(&test.namespace));
    assert_eq!(said.trim(), "ok");
    test.kubectl(&["delete", "crd", "greetings.operator.windlass.test"]);
}
