//! The entries about volumes in running pods: one row each.

use super::downward::Amount;
use super::empty_dir::EmptyDir;
use super::keys::Keys;
use super::keys::Source::{ConfigMap, Secret};
use super::{downward, keys, sub_path};
use crate::{Case, on_node};

/// Names a row by its entry.
macro_rules! volume {
    ($entry:literal, $row:expr) => {
        Case { entry: $entry, needs: $crate::Needs::Node, body: |test| Box::pin(async move { $row.run(test).await }) }
    };
}

/// Somebody who is not root.
const USER: Option<u32> = Some(1000);
/// A group of the pod's own.
const GROUP: Option<u32> = Some(1001);
/// Only its owner may read it.
const MODE: Option<u32> = Some(0o400);
/// [`MODE`] in words.
const OWN: &str = "-r--------";
/// Its group may read it too.
const SHARED: &str = "-r--r-----";
/// What the containers that look at their resources have.
const RESOURCES: &str =
    r#"{"limits": {"cpu": "1250m", "memory": "64Mi"}, "requests": {"cpu": "250m", "memory": "32Mi"}}"#;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        volume!("ConfigMap Volume, without mapping", Keys::of(ConfigMap)),
        volume!("ConfigMap Volume, without mapping, non-root user", Keys { user: USER, ..Keys::of(ConfigMap) }),
        volume!(
            "ConfigMap Volume, without mapping, volume mode set",
            Keys { default_mode: MODE, mode: OWN, ..Keys::of(ConfigMap) }
        ),
        volume!("ConfigMap Volume, with mapping", Keys { mapped: true, ..Keys::of(ConfigMap) }),
        volume!(
            "ConfigMap Volume, with mapping, volume mode set",
            Keys { mapped: true, item_mode: MODE, mode: OWN, ..Keys::of(ConfigMap) }
        ),
        volume!(
            "ConfigMap Volume, with mapping, non-root user",
            Keys { mapped: true, user: USER, ..Keys::of(ConfigMap) }
        ),
        volume!("ConfigMap Volume, multiple volume maps", Keys { twice: true, ..Keys::of(ConfigMap) }),
        on_node!("ConfigMap Volume, create, update and delete", keys::config_maps_are_followed),
        on_node!("ConfigMap Volume, text data, binary data", keys::text_and_bytes_arrive),
        on_node!("ConfigMap Volume, update", keys::a_change_of_a_config_map_arrives),
        volume!("Secrets Volume, default", Keys::of(Secret)),
        volume!("Secrets Volume, mapping", Keys { mapped: true, ..Keys::of(Secret) }),
        volume!(
            "Secrets Volume, mapping, volume mode 0400",
            Keys { mapped: true, item_mode: MODE, mode: OWN, ..Keys::of(Secret) }
        ),
        volume!("Secrets Volume, mapping multiple volume paths", Keys { twice: true, ..Keys::of(Secret) }),
        volume!("Secrets Volume, volume mode 0400", Keys { default_mode: MODE, mode: OWN, ..Keys::of(Secret) }),
        volume!(
            "Secrets Volume, volume mode 0440, fsGroup 1001 and uid 1000",
            Keys { default_mode: Some(0o440), user: USER, group: GROUP, mode: SHARED, ..Keys::of(Secret) }
        ),
        volume!(
            "Secrets Volume, volume mode default, secret with same name in different namespace",
            Keys { namesake: true, ..Keys::of(Secret) }
        ),
        on_node!("Secrets Volume, create, update and delete", keys::secrets_are_followed),
        volume!("Projected Volume, ConfigMap, volume mode default", Keys::projected(ConfigMap)),
        volume!(
            "Projected Volume, ConfigMap, volume mode 0400",
            Keys { default_mode: MODE, mode: OWN, ..Keys::projected(ConfigMap) }
        ),
        volume!("Projected Volume, ConfigMap, non-root user", Keys { user: USER, ..Keys::projected(ConfigMap) }),
        volume!("Projected Volume, ConfigMap, mapped", Keys { mapped: true, ..Keys::projected(ConfigMap) }),
        volume!(
            "Projected Volume, ConfigMap, mapped, volume mode 0400",
            Keys { mapped: true, item_mode: MODE, mode: OWN, ..Keys::projected(ConfigMap) }
        ),
        volume!(
            "Projected Volume, ConfigMap, mapped, non-root user",
            Keys { mapped: true, user: USER, ..Keys::projected(ConfigMap) }
        ),
        volume!(
            "Projected Volume, ConfigMap, multiple volume paths",
            Keys { twice: true, ..Keys::projected(ConfigMap) }
        ),
        on_node!("Projected Volume, ConfigMap, create, update and delete", keys::projected_config_maps_are_followed),
        on_node!("Projected Volume, ConfigMap, update", keys::a_change_of_a_projected_config_map_arrives),
        volume!("Projected Volume, Secrets, volume mode default", Keys::projected(Secret)),
        volume!(
            "Projected Volume, Secrets, volume mode 0400",
            Keys { default_mode: MODE, mode: OWN, ..Keys::projected(Secret) }
        ),
        volume!(
            "Project Volume, Secrets, non-root, custom fsGroup",
            Keys { default_mode: Some(0o440), user: USER, group: GROUP, mode: SHARED, ..Keys::projected(Secret) }
        ),
        volume!("Projected Volume, Secrets, mapped", Keys { mapped: true, ..Keys::projected(Secret) }),
        volume!(
            "Projected Volume, Secrets, mapped, volume mode 0400",
            Keys { mapped: true, item_mode: MODE, mode: OWN, ..Keys::projected(Secret) }
        ),
        volume!("Projected Volume, Secrets, mapped, multiple paths", Keys { twice: true, ..Keys::projected(Secret) }),
        on_node!("Projected Volume, Secrets, create, update delete", keys::projected_secrets_are_followed),
        on_node!("Projected Volume, multiple projections", keys::several_sources_share_a_volume),
        on_node!("EmptyDir Wrapper Volume, ConfigMap volumes, no race", keys::many_volumes_come_up_together),
        on_node!(
            "EmptyDir Wrapper Volume, Secret and ConfigMap volumes, no conflict",
            keys::a_secret_and_a_config_map_do_not_disturb_each_other
        ),
        on_node!("EmptyDir, Shared volumes between containers", keys::containers_share_an_empty_volume),
        volume!(
            "EmptyDir, medium default, volume mode 0644 (EmptyDir volumes should support (non-root,0644,default))",
            EmptyDir { memory: false, user: USER, file_mode: Some("0644") }
        ),
        volume!(
            "EmptyDir, medium default, volume mode 0644 (EmptyDir volumes should support (root,0644,default))",
            EmptyDir { memory: false, user: None, file_mode: Some("0644") }
        ),
        volume!(
            "EmptyDir, medium default, volume mode 0666 (EmptyDir volumes should support (non-root,0666,default))",
            EmptyDir { memory: false, user: USER, file_mode: Some("0666") }
        ),
        volume!(
            "EmptyDir, medium default, volume mode 0666 (EmptyDir volumes should support (root,0666,default))",
            EmptyDir { memory: false, user: None, file_mode: Some("0666") }
        ),
        volume!(
            "EmptyDir, medium default, volume mode 0777 (EmptyDir volumes should support (non-root,0777,default))",
            EmptyDir { memory: false, user: USER, file_mode: Some("0777") }
        ),
        volume!(
            "EmptyDir, medium default, volume mode 0777 (EmptyDir volumes should support (root,0777,default))",
            EmptyDir { memory: false, user: None, file_mode: Some("0777") }
        ),
        volume!(
            "EmptyDir, medium default, volume mode default",
            EmptyDir { memory: false, user: None, file_mode: None }
        ),
        volume!("EmptyDir, medium memory, volume mode default", EmptyDir { memory: true, user: None, file_mode: None }),
        volume!(
            "EmptyDir, medium memory, volume mode 0644",
            EmptyDir { memory: true, user: None, file_mode: Some("0644") }
        ),
        volume!(
            "EmptyDir, medium memory, volume mode 0644, non-root user",
            EmptyDir { memory: true, user: USER, file_mode: Some("0644") }
        ),
        volume!(
            "EmptyDir, medium memory, volume mode 0666",
            EmptyDir { memory: true, user: None, file_mode: Some("0666") }
        ),
        volume!(
            "EmptyDir, medium memory, volume mode 0666,, non-root user",
            EmptyDir { memory: true, user: USER, file_mode: Some("0666") }
        ),
        volume!(
            "EmptyDir, medium memory, volume mode 0777",
            EmptyDir { memory: true, user: None, file_mode: Some("0777") }
        ),
        volume!(
            "EmptyDir, medium memory, volume mode 0777, non-root user",
            EmptyDir { memory: true, user: USER, file_mode: Some("0777") }
        ),
        volume!(
            "DownwardAPI volume, CPU limits",
            Amount {
                projected: false,
                resource: "limits.cpu",
                divisor: "1m",
                resources: RESOURCES,
                expected: Some("1250")
            }
        ),
        volume!(
            "DownwardAPI volume, CPU request",
            Amount {
                projected: false,
                resource: "requests.cpu",
                divisor: "1m",
                resources: RESOURCES,
                expected: Some("250")
            }
        ),
        volume!(
            "DownwardAPI volume, memory limits",
            Amount {
                projected: false,
                resource: "limits.memory",
                divisor: "1",
                resources: RESOURCES,
                expected: Some("67108864")
            }
        ),
        volume!(
            "DownwardAPI volume, memory request",
            Amount {
                projected: false,
                resource: "requests.memory",
                divisor: "1Mi",
                resources: RESOURCES,
                expected: Some("32")
            }
        ),
        volume!(
            "DownwardAPI volume, CPU limit, default node allocatable",
            Amount { projected: false, resource: "limits.cpu", divisor: "1m", resources: "{}", expected: None }
        ),
        volume!(
            "DownwardAPI volume, memory limit, default node allocatable",
            Amount { projected: false, resource: "limits.memory", divisor: "1", resources: "{}", expected: None }
        ),
        volume!(
            "Projected Volume, DownwardAPI, CPU limits",
            Amount {
                projected: true,
                resource: "limits.cpu",
                divisor: "1m",
                resources: RESOURCES,
                expected: Some("1250")
            }
        ),
        volume!(
            "Projected Volume, DownwardAPI, CPU request",
            Amount {
                projected: true,
                resource: "requests.cpu",
                divisor: "1m",
                resources: RESOURCES,
                expected: Some("250")
            }
        ),
        volume!(
            "Projected Volume, DownwardAPI, memory limits",
            Amount {
                projected: true,
                resource: "limits.memory",
                divisor: "1",
                resources: RESOURCES,
                expected: Some("67108864")
            }
        ),
        volume!(
            "Projected Volume, DownwardAPI, memory request",
            Amount {
                projected: true,
                resource: "requests.memory",
                divisor: "1Mi",
                resources: RESOURCES,
                expected: Some("32")
            }
        ),
        volume!(
            "Projected Volume, DownwardAPI, CPU limit, node allocatable",
            Amount { projected: true, resource: "limits.cpu", divisor: "1m", resources: "{}", expected: None }
        ),
        volume!(
            "Projected Volume, DownwardAPI, memory limit, node allocatable",
            Amount { projected: true, resource: "limits.memory", divisor: "1", resources: "{}", expected: None }
        ),
        on_node!("DownwardAPI volume, pod name", downward::a_pod_reads_its_name),
        on_node!("DownwardAPI volume, volume mode 0400", downward::the_volume_has_a_mode),
        on_node!("DownwardAPI volume, file mode 0400", downward::a_file_has_a_mode),
        on_node!("DownwardAPI volume, update label", downward::labels_are_followed),
        on_node!("DownwardAPI volume, update annotations", downward::annotations_are_followed),
        on_node!("Projected Volume, DownwardAPI, pod name", downward::a_pod_reads_its_name_from_a_projection),
        on_node!(
            "Projected Volume, DownwardAPI, volume mode 0400 (Projected downwardAPI should set DefaultMode on files)",
            downward::the_projection_has_a_mode
        ),
        on_node!(
            "Projected Volume, DownwardAPI, volume mode 0400 (Projected downwardAPI should set mode on item file)",
            downward::a_projected_file_has_a_mode
        ),
        on_node!("Projected Volume, DownwardAPI, update labels", downward::projected_labels_are_followed),
        on_node!("Projected Volume, DownwardAPI, update annotation", downward::projected_annotations_are_followed),
        on_node!(
            "SubPath: Reading content from a configmap volume. (Subpath Atomic writer volumes should support subpaths with configmap pod)",
            sub_path::of_a_config_map
        ),
        on_node!(
            "SubPath: Reading content from a configmap volume. (Subpath Atomic writer volumes should support subpaths with configmap pod with mountPath of existing file)",
            sub_path::of_a_config_map_in_the_place_of_a_file
        ),
        on_node!("SubPath: Reading content from a secret volume.", sub_path::of_a_secret),
        on_node!("SubPath: Reading content from a downwardAPI volume.", sub_path::of_a_downward_volume),
        on_node!("SubPath: Reading content from a projected volume.", sub_path::of_a_projected_volume),
    ]
}
