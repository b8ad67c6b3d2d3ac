//! A StorageClass as binding sees it, and which one is the default.

use std::sync::Arc;

use windlass_api::Object;
use windlass_api::binding::ENFORCE_SIZE;

/// A provisioner that makes no volumes: they are made by hand.
pub(super) const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";
/// The annotations of the class for claims that name none, the newer one first.
const IS_DEFAULT: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];

/// What binding depends on in a StorageClass.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Class {
    pub(super) name: String,
    pub(super) provisioner: String,
    /// What becomes of its volumes when their claims go.
    pub(super) policy: String,
    /// Its claims wait for their first pod.
    pub(super) waits: bool,
    /// Its volumes hold no more than they say.
    pub(super) enforces_size: bool,
    /// Its claims may grow.
    pub(super) may_grow: bool,
    is_default: bool,
    created: String,
}

impl Class {
    /// Reads a StorageClass.
    pub(super) fn read(object: &Object) -> Class {
        let (value, header) = (object.value(), &object.header);
        let annotations = &value["metadata"]["annotations"];
        Class {
            name: header.name().to_owned(),
            provisioner: value["provisioner"].as_str().unwrap_or_default().to_owned(),
            policy: value["reclaimPolicy"].as_str().unwrap_or("Delete").to_owned(),
            waits: value["volumeBindingMode"] == "WaitForFirstConsumer",
            enforces_size: value["parameters"][ENFORCE_SIZE] == "true",
            may_grow: value["allowVolumeExpansion"] == true,
            is_default: IS_DEFAULT.iter().any(|annotation| annotations[annotation] == "true"),
            created: header.created().to_owned(),
        }
    }
}

/// The class for claims that name none: of several defaults the newest, then the first by name.
pub(super) fn default_of(classes: impl Iterator<Item = Arc<Class>>) -> Option<String> {
    let mut defaults: Vec<_> = classes.filter(|class| class.is_default).collect();
    defaults.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| a.name.cmp(&b.name)));
    defaults.first().map(|class| class.name.clone())
}
