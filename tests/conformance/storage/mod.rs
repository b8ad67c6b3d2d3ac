//! sig-storage: the objects of storage, and volumes in running pods.

mod csi;
mod downward;
mod empty_dir;
mod immutable;
mod keys;
mod persistent_volume;
mod storage_class;
mod sub_path;
mod volume;
mod volume_attachment;

use crate::{Case, case, row};

pub(crate) fn cases() -> Vec<Case> {
    let objects = vec![
        row!("CSIDriver, lifecycle", csi::driver_row),
        row!("CSINode, lifecycle", csi::node_row),
        row!("CSIStorageCapacity API", csi::storage_capacity_row),
        case!("CSIInlineVolumes should support Pods with inline volumes", csi::a_pod_with_a_volume_inline_lives),
        case!("ConfigMap Volume, immutability", immutable::a_config_map_stays_when_it_says_so),
        case!("Secrets Volume, immutability", immutable::a_secret_stays_when_it_says_so),
        case!("PersistentVolumes(Claims), lifecycle", persistent_volume::volumes_and_claims_live),
        case!(
            "PersistentVolumes(Claims), apply changes to a pv/pvc status",
            persistent_volume::their_status_is_read_patched_and_replaced
        ),
        row!("StorageClass, lifecycle", storage_class::row),
        case!("VolumeAttachment, lifecycle", volume_attachment::an_attachment_lives),
        case!(
            "VolumeAttachment, apply changes to a volumeattachment status",
            volume_attachment::the_status_is_read_patched_and_replaced
        ),
        row!("VolumeAttributesClass, lifecycle", storage_class::attributes_row),
    ];
    objects.into_iter().chain(volume::cases()).collect()
}
