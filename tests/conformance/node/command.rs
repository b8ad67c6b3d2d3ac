//! Containers: what of the image's entry point a container's command and arguments replace, and how variables in them
//! are expanded.

use serde_json::{Value, json};

use crate::Test;
use crate::running::{IMAGE, has_lines, script};

/// A pod of the image as it is, with more in its container.
fn of_image(more: Value) -> Value {
    let mut pod = script("main", "");
    let mut container = json!({"name": "main", "image": IMAGE});
    for (key, value) in more.as_object().into_iter().flatten() {
        container[key] = value.clone();
    }
    pod["spec"]["containers"][0] = container;
    pod
}

pub async fn the_image_says_what_runs(test: &Test) {
    assert_eq!(test.run(&of_image(json!({}))).await, "words of the image\n");
}

pub async fn arguments_replace_the_images(test: &Test) {
    assert_eq!(test.run(&of_image(json!({"args": ["override", "arguments"]}))).await, "override arguments\n");
}

pub async fn a_command_replaces_entry_point_and_arguments(test: &Test) {
    assert_eq!(test.run(&of_image(json!({"command": ["/bin/echo"]}))).await, "\n");
}

pub async fn a_command_has_its_arguments(test: &Test) {
    let pod = of_image(json!({"command": ["/bin/echo", "override"], "args": ["arguments", "too"]}));
    assert_eq!(test.run(&pod).await, "override arguments too\n");
}

pub async fn variables_name_earlier_ones(test: &Test) {
    let mut pod = script("main", "env");
    pod["spec"]["containers"][0]["env"] = json!([{"name": "FOO", "value": "foo-value"},
        {"name": "BAR", "value": "bar-value"}, {"name": "FOOBAR", "value": "$(FOO);;$(BAR)"},
        {"name": "LATER", "value": "$(AFTER)"}, {"name": "AFTER", "value": "$$(FOO)"}]);
    let lines = ["FOO=foo-value", "BAR=bar-value", "FOOBAR=foo-value;;bar-value", "LATER=$(AFTER)", "AFTER=$(FOO)"];
    has_lines(&test.run(&pod).await, &lines);
}

pub async fn a_command_names_variables(test: &Test) {
    let mut pod = script("main", "TEST_VAR=wrong echo \"$(TEST_VAR)\" '$$(TEST_VAR)'");
    pod["spec"]["containers"][0]["env"] = json!([{"name": "TEST_VAR", "value": "test-value"}]);
    assert_eq!(test.run(&pod).await, "test-value $(TEST_VAR)\n");
}

pub async fn arguments_name_variables(test: &Test) {
    let mut pod = of_image(json!({"args": ["$(TEST_VAR)", "$$(TEST_VAR)", "$(NO_VAR)"]}));
    pod["spec"]["containers"][0]["env"] = json!([{"name": "TEST_VAR", "value": "test-value"}]);
    assert_eq!(test.run(&pod).await, "test-value $(TEST_VAR) $(NO_VAR)\n");
}
