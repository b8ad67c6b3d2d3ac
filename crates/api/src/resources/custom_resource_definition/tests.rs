//! CustomResourceDefinitions by example: what a definition may say, and what is refused of it.

use super::resource;
use crate::field::Errors;
use serde_json::{Value, json};

/// A definition that nothing is wrong with, with this schema.
fn definition(schema: Value) -> Value {
    let mut object = json!({
        "metadata": {"name": "foos.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced", "names": {"plural": "foos", "kind": "Foo"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}],
        },
    });
    let rules = resource().rules;
    rules.default(&mut object);
    super::begin(&mut object);
    object
}

fn object() -> Value {
    definition(json!({"type": "object"}))
}

fn found(object: &Value) -> Vec<String> {
    let mut errors = Errors::new();
    resource().rules.validate(object, &mut errors);
    errors.iter().map(ToString::to_string).collect()
}

/// Changes a good definition and checks what is said of it.
fn check(change: impl Fn(&mut Value), expected: &[&str]) {
    let mut object = object();
    change(&mut object);
    assert_eq!(found(&object), expected, "{object}");
}

fn check_schema(schema: Value, expected: &[&str]) {
    let at = "spec.versions[0].schema.openAPIV3Schema";
    let expected: Vec<String> = expected.iter().map(|text| format!("{at}{text}")).collect();
    assert_eq!(found(&definition(schema.clone())), expected, "{schema}");
}

/// A schema whose field `a` is this.
fn field(schema: Value) -> Value {
    json!({"type": "object", "properties": {"a": schema}})
}

#[test]
fn c1_and_c2_the_server_completes_what_was_left_out() {
    let object = object();
    assert_eq!(
        object["spec"]["names"],
        json!({"plural": "foos", "kind": "Foo", "singular": "foo", "listKind": "FooList"})
    );
    assert_eq!(object["spec"]["conversion"], json!({"strategy": "None"}));
    assert_eq!(object["status"]["storedVersions"], json!(["v1"]));
    assert_eq!(found(&object), Vec::<String>::new());
}

#[test]
fn c3_a_version_that_was_stored_stays() {
    let mut changed = object();
    let old = changed.clone();
    changed["spec"]["versions"][0]["name"] = json!("v2");
    let rules = resource().rules;
    rules.prepare_update(&mut changed, &old);
    assert_eq!(changed["status"]["storedVersions"], json!(["v1", "v2"]));
    assert!(found(&changed)[0].starts_with(
        "status.storedVersions[0]: Invalid value: \"v1\": missing from spec.versions; v1 was previously a storage version"
    ));
}

#[test]
fn c4_names_are_dns_labels() {
    let name = "metadata.name: Invalid value: \"foos.example.com\": must be spec.names.plural+\".\"+spec.group";
    check(|object| object["spec"]["names"]["plural"] = json!("bars"), &[name]);
    check(
        |object| object["spec"]["group"] = json!("nodots"),
        &[name, "spec.group: Invalid value: \"nodots\": should be a domain with at least one dot"],
    );
    check(
        |object| object["spec"]["names"]["listKind"] = json!("Foo"),
        &["spec.names.listKind: Invalid value: \"Foo\": kind and listKind may not be the same"],
    );
    check(
        |object| object["spec"]["scope"] = json!("World"),
        &["spec.scope: Unsupported value: \"World\": supported values: \"Cluster\", \"Namespaced\""],
    );
    let mut object = object();
    object["spec"]["names"]["shortNames"] = json!(["F_"]);
    assert!(found(&object)[0].starts_with("spec.names.shortNames[0]: Invalid value: \"F_\": a DNS-1035 label"));
    object["spec"]["names"]["shortNames"] = json!([]);
    object["spec"]["group"] = json!("example.k8s.io");
    object["metadata"]["name"] = json!("foos.example.k8s.io");
    assert!(found(&object)[0].starts_with(
        "metadata.annotations[api-approved.kubernetes.io]: Required value: protected groups must have approval annotation"
    ));
}

#[test]
fn c5_one_version_is_stored_and_each_can_be_read() {
    check(
        |object| object["spec"]["versions"][0]["storage"] = json!(false),
        &["spec.versions: Invalid value: [\"v1\"]: must have exactly one version marked as storage version"],
    );
    check(
        |object| object["spec"]["versions"][0]["schema"] = json!({}),
        &["spec.versions[0].schema.openAPIV3Schema: Required value: schemas are required"],
    );
    check(
        |object| object["spec"]["preserveUnknownFields"] = json!(true),
        &[
            "spec.preserveUnknownFields: Invalid value: true: cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead",
        ],
    );
    check(
        |object| {
            object["spec"]["versions"][0]["additionalPrinterColumns"] =
                json!([{"name": "A", "type": "text", "jsonPath": "a"}])
        },
        &[
            "spec.versions[0].additionalPrinterColumns[0].type: Invalid value: \"text\": must be one of integer,number,string,boolean,date",
            "spec.versions[0].additionalPrinterColumns[0].jsonPath: Invalid value: \"a\": expected . or [ in the path, found \"a\"",
        ],
    );
    check(
        |object| {
            object["spec"]["versions"][0]["subresources"] =
                json!({"scale": {"specReplicasPath": ".status.a", "statusReplicasPath": ".status.b"}})
        },
        &[
            "spec.versions[0].subresources.scale.specReplicasPath: Invalid value: \".status.a\": should be a json path under .spec",
        ],
    );
    check(
        |object| {
            object["spec"]["versions"][0]["selectableFields"] =
                json!([{"jsonPath": ".spec.color"}, {"jsonPath": ".metadata.name"}])
        },
        &[
            "spec.versions[0].selectableFields[0].jsonPath: Invalid value: \".spec.color\": is an invalid path: does not refer to a valid field",
            "spec.versions[0].selectableFields[1].jsonPath: Invalid value: \".metadata.name\": must not point to fields in metadata",
        ],
    );
    check(
        |object| object["spec"]["conversion"] = json!({"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v1beta1"], "clientConfig": {"url": "http://a"}}}),
        &[
            "spec.conversion.webhook.clientConfig.url: Invalid value: \"http://a\": 'https' is the only allowed URL scheme; desired format: https://host[/path]",
            "spec.conversion.webhook.conversionReviewVersions: Invalid value: [\"v1beta1\"]: must include at least one of v1",
        ],
    );
    check(
        |object| object["spec"]["conversion"] = json!({"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v1"], "clientConfig": {"url": "https://a", "caBundle": "QQ=="}}}),
        &[
            "spec.conversion.webhook.clientConfig.caBundle: Invalid value: \"QQ==\": unable to load root certificates: unable to parse bytes as PEM block",
        ],
    );
    check(
        |object| object["spec"]["conversion"] = json!({"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v1"], "clientConfig": {"service": {"namespace": "ns", "name": "s"}}}}),
        &[],
    );
}

#[test]
fn c6_s1_each_place_has_a_type() {
    check_schema(json!({}), &[".type: Required value: must not be empty at the root"]);
    check_schema(
        json!({"type": "array", "items": {"type": "string"}}),
        &[".type: Invalid value: \"array\": must be object at the root"],
    );
    check_schema(
        field(json!({})),
        &[".properties[a].type: Required value: must not be empty for specified object fields"],
    );
    check_schema(
        field(json!({"type": "array", "items": {}})),
        &[".properties[a].items.type: Required value: must not be empty for specified array items"],
    );
    check_schema(field(json!({"x-kubernetes-preserve-unknown-fields": true})), &[]);
    // As the CRD of VolumeSnapshots has it: the type that is said beside int-or-string does not count.
    check_schema(field(json!({"x-kubernetes-int-or-string": true, "type": "string", "pattern": "^[0-9]+$"})), &[]);
    check_schema(
        field(json!({"type": "text"})),
        &[
            ".properties[a].type: Unsupported value: \"text\": supported values: \"array\", \"boolean\", \"integer\", \"number\", \"object\", \"string\"",
        ],
    );
}

#[test]
fn c6_s2_nothing_that_is_not_structural() {
    check_schema(
        field(json!({"type": "object", "$ref": "x"})),
        &[".properties[a].$ref: Forbidden: $ref is not supported"],
    );
    check_schema(
        field(json!({"type": "object", "additionalProperties": false})),
        &[".properties[a].additionalProperties: Forbidden: additionalProperties cannot be set to false"],
    );
    check_schema(
        field(
            json!({"type": "object", "additionalProperties": {"type": "string"}, "properties": {"b": {"type": "string"}}}),
        ),
        &[".properties[a].additionalProperties: Forbidden: additionalProperties and properties are mutual exclusive"],
    );
    check_schema(
        field(json!({"type": "array", "items": {"type": "string"}, "uniqueItems": true})),
        &[
            ".properties[a].uniqueItems: Forbidden: uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
        ],
    );
}

#[test]
fn c6_s3_junctors_only_check() {
    check_schema(
        field(json!({"type": "string", "anyOf": [{"type": "string"}, {"default": "x"}]})),
        &[
            ".properties[a].anyOf[0].type: Forbidden: must be empty to be structural",
            ".properties[a].anyOf[1].default: Forbidden: must be empty to be structural",
        ],
    );
    check_schema(
        json!({"type": "object", "oneOf": [{"properties": {"b": {"enum": [1]}}}]}),
        &[
            ".properties[b]: Required value: because it is defined in spec.versions[0].schema.openAPIV3Schema.oneOf[0].properties[b]",
        ],
    );
    check_schema(
        field(json!({"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]})),
        &[],
    );
    check_schema(
        field(json!({"type": "object", "properties": {"b": {"type": "string"}}, "not": {"required": ["b"]}})),
        &[],
    );
}

#[test]
fn c6_s4_extensions_fit_their_type() {
    check_schema(
        field(json!({"type": "array", "x-kubernetes-list-type": "map", "items": {"type": "object"}})),
        &[
            ".properties[a].x-kubernetes-list-map-keys: Required value: must not be empty if x-kubernetes-list-type is map",
        ],
    );
    check_schema(
        field(json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
            "items": {"type": "object", "properties": {"k": {"type": "string"}}}})),
        &[
            ".properties[a].items.properties[k].default: Required value: this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property",
        ],
    );
    check_schema(
        field(json!({"type": "string", "x-kubernetes-list-type": "set"})),
        &[".properties[a].type: Invalid value: \"string\": must be array if x-kubernetes-list-type is specified"],
    );
    check_schema(
        field(json!({"type": "object", "x-kubernetes-embedded-resource": true})),
        &[
            ".properties[a].properties: Required value: must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields",
        ],
    );
}

#[test]
fn c6_s5_metadata_is_implied() {
    let metadata = |schema: Value| json!({"type": "object", "properties": {"metadata": schema}});
    check_schema(metadata(json!({"type": "object", "properties": {"name": {"type": "string", "pattern": "^a"}}})), &[]);
    check_schema(
        metadata(json!({"type": "object", "properties": {"labels": {"type": "object"}}})),
        &[
            ".properties[metadata]: Forbidden: must not specify anything other than name and generateName, but metadata is implicitly specified",
        ],
    );
}

#[test]
fn c6_s6_defaults_are_valid() {
    check_schema(
        field(json!({"type": "integer", "default": "x"})),
        &[
            ".properties[a].default: Invalid value: \"string\": spec.versions[0].schema.openAPIV3Schema.properties[a].default in body must be of type integer: \"string\"",
        ],
    );
    check_schema(
        field(json!({"type": "object", "properties": {"b": {"type": "string"}}, "default": {"c": 1}})),
        &[".properties[a].default: Invalid value: {\"c\":1}: must be pruned: unknown field \"c\""],
    );
    check_schema(field(json!({"type": "object", "properties": {"b": {"type": "string"}}, "default": {"b": "x"}})), &[]);
}

#[test]
fn c6_s7_schemas_are_bounded() {
    let long = format!("{}: (", "must be a valid regular expression, but isn't");
    let found = found(&definition(field(json!({"type": "string", "pattern": "("}))));
    assert!(found[0].contains(&long[..40]), "{found:?}");
    let many: serde_json::Map<String, Value> =
        (0..super::structural::PLACES_MAX).map(|n| (format!("f{n}"), json!({"type": "string"}))).collect();
    let said = super::tests::found(&definition(json!({"type": "object", "properties": many})));
    assert!(said[0].contains("Too many"), "{said:?}");
}

#[test]
fn c7_what_was_established_keeps_its_scope_and_kind() {
    let mut old = object();
    old["status"] = super::names::decide(&old, &super::names::Taken::default(), "2026-01-01T00:00:00Z");
    old["status"]["storedVersions"] = json!(["v1"]);
    let mut changed = old.clone();
    changed["spec"]["scope"] = json!("Cluster");
    changed["spec"]["names"]["kind"] = json!("Bar");
    let mut errors = Errors::new();
    resource().rules.validate_changed(&changed, &old, &mut errors);
    let found: Vec<&str> = errors.iter().map(|error| error.path.as_str()).collect();
    assert_eq!(found, ["spec.scope", "spec.names.kind"]);
}
