//! Volumes of a pod or a template: each with what it comes from.

use serde_json::Value;

use super::sheet::{NONE, Sheet, items, plain, text};

/// What a kind of volume is, in words, and which of its fields are shown.
struct Source {
    key: &'static str,
    words: &'static str,
    fields: &'static [(&'static str, &'static str)],
}

const SOURCES: &[Source] = &[
    Source {
        key: "hostPath",
        words: "HostPath (bare host directory volume)",
        fields: &[("Path", "path"), ("HostPathType", "type")],
    },
    Source {
        key: "emptyDir",
        words: "EmptyDir (a temporary directory that shares a pod's lifetime)",
        fields: &[("Medium", "medium"), ("SizeLimit", "sizeLimit")],
    },
    Source {
        key: "secret",
        words: "Secret (a volume populated by a Secret)",
        fields: &[("SecretName", "secretName"), ("Optional", "optional")],
    },
    Source {
        key: "configMap",
        words: "ConfigMap (a volume populated by a ConfigMap)",
        fields: &[("Name", "name"), ("Optional", "optional")],
    },
    Source {
        key: "persistentVolumeClaim",
        words: "PersistentVolumeClaim (a reference to a PersistentVolumeClaim in the same namespace)",
        fields: &[("ClaimName", "claimName"), ("ReadOnly", "readOnly")],
    },
    Source {
        key: "nfs",
        words: "NFS (an NFS mount that lasts the lifetime of a pod)",
        fields: &[("Server", "server"), ("Path", "path"), ("ReadOnly", "readOnly")],
    },
    Source {
        key: "csi",
        words: "CSI (a Container Storage Interface (CSI) volume source)",
        fields: &[("Driver", "driver"), ("FSType", "fsType"), ("ReadOnly", "readOnly")],
    },
];

/// `indent` goes before the title and one more blank before each name, as templates are indented.
pub(super) fn volumes(sheet: &mut Sheet, volumes: &[Value], in_template: bool) {
    let (level, space) = if in_template { (1, " ") } else { (0, "") };
    if volumes.is_empty() {
        sheet.field(level, "Volumes", NONE);
        return;
    }
    sheet.line(level, "Volumes:");
    for volume in volumes {
        sheet.line(1, format_args!("{space}{}:", text(volume, "name")));
        describe(sheet, volume);
    }
}

fn describe(sheet: &mut Sheet, volume: &Value) {
    if let Some(source) = SOURCES.iter().find(|source| volume.get(source.key).is_some()) {
        sheet.field(2, "Type", source.words);
        for (title, key) in source.fields {
            sheet.field(2, title, field(&volume[source.key], key));
        }
    } else if let Some(projected) = volume.get("projected") {
        describe_projected(sheet, projected);
    } else if let Some(downward) = volume.get("downwardAPI") {
        sheet.field(2, "Type", "DownwardAPI (a volume populated by information about the pod)");
        downward_items(sheet, downward);
    } else if let Some(ephemeral) = volume.get("ephemeral") {
        sheet.field(
            2,
            "Type",
            "EphemeralVolume (an inline specification for a volume that gets created and deleted with the pod)",
        );
        let spec = &ephemeral["volumeClaimTemplate"]["spec"];
        sheet.field(2, "StorageClass", text(spec, "storageClassName"));
        sheet.field(2, "Volume", text(spec, "volumeName"));
    } else if let Some(image) = volume.get("image") {
        sheet.field(2, "Type", "Image (a container image or OCI artifact)");
        sheet.field(2, "Reference", text(image, "reference"));
        sheet.field(2, "PullPolicy", text(image, "pullPolicy"));
    } else {
        sheet.line(2, "<unknown>");
    }
}

/// What is not set is what the kind of field means by that.
fn field(source: &Value, key: &str) -> String {
    match (key, &source[key]) {
        ("optional" | "readOnly", Value::Null) => "false".to_owned(),
        ("sizeLimit", Value::Null) => "<unset>".to_owned(),
        (_, value) => plain(value),
    }
}

fn describe_projected(sheet: &mut Sheet, projected: &Value) {
    sheet.field(2, "Type", "Projected (a volume that contains injected data from multiple sources)");
    for source in items(projected, "sources") {
        if let Some(secret) = source.get("secret") {
            sheet.field(2, "SecretName", text(secret, "name"));
            sheet.field(2, "Optional", field(secret, "optional"));
        } else if let Some(downward) = source.get("downwardAPI") {
            sheet.field(2, "DownwardAPI", downward.is_object());
            if !items(downward, "items").is_empty() && items(projected, "sources").len() == 1 {
                downward_items(sheet, downward);
            }
        } else if let Some(map) = source.get("configMap") {
            sheet.field(2, "ConfigMapName", text(map, "name"));
            sheet.field(2, "Optional", field(map, "optional"));
        } else if let Some(token) = source.get("serviceAccountToken") {
            sheet.field(2, "TokenExpirationSeconds", plain(&token["expirationSeconds"]));
        }
    }
}

fn downward_items(sheet: &mut Sheet, downward: &Value) {
    sheet.line(2, "Items:");
    for item in items(downward, "items") {
        let from = match item.get("fieldRef") {
            Some(field) => text(field, "fieldPath"),
            None => text(&item["resourceFieldRef"], "resource"),
        };
        sheet.line(3, format_args!("{from} -> {}", text(item, "path")));
    }
}
