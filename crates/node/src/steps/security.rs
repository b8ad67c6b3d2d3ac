//! Who a container runs as and what it may do: securityContext of pod and container together.
//!
//! Source: API reference, PodSecurityContext and SecurityContext: what the container says wins.

use windlass_api::types::core;

use crate::env::ConfigError;
use crate::machine::{Capabilities, Container, Facts, ImageGroups, Seccomp};

/// Sets the parts of a container that its securityContext decides; `image_user` is what the image says.
pub fn apply(
    out: &mut Container,
    spec: &core::PodSpec,
    container: &core::Container,
    image_user: &str,
    facts: &Facts,
) -> Result<(), ConfigError> {
    let nothing = core::SecurityContext::default();
    let own = container.security_context.as_ref().unwrap_or(&nothing);
    let none = core::PodSecurityContext::default();
    let pod = spec.security_context.as_ref().unwrap_or(&none);
    let labels = own.se_linux_options.as_ref().or(pod.se_linux_options.as_ref());
    if facts.se_linux && labels.is_some_and(|labels| *labels != core::SELinuxOptions::default()) {
        return refuse(
            "seLinuxOptions: this node does not set SELinux labels, and its kernel enforces a policy; remove them",
        );
    }
    out.privileged = own.privileged == Some(true);
    out.read_only_root = own.read_only_root_filesystem == Some(true);
    out.no_new_privileges = own.allow_privilege_escalation == Some(false);
    out.proc_unmasked = own.proc_mount.as_deref() == Some("Unmasked");
    out.user = user(own, pod, &container.name, image_user)?;
    out.groups = groups(pod)?;
    out.image_groups = match pod.supplemental_groups_policy.as_deref() {
        Some("Strict") => ImageGroups::Strict,
        _ => ImageGroups::Merge,
    };
    out.app_armor = app_armor(own, pod, facts)?;
    out.capabilities = capabilities(own)?;
    out.seccomp = seccomp(own, pod)?;
    if out.privileged {
        out.capabilities = Capabilities::all();
        out.seccomp = Seccomp::Unconfined;
        out.app_armor = None;
    }
    Ok(())
}

fn refuse<T>(why: impl Into<String>) -> Result<T, ConfigError> {
    Err(ConfigError::Refused(why.into()))
}

fn user(
    own: &core::SecurityContext,
    pod: &core::PodSecurityContext,
    name: &str,
    image_user: &str,
) -> Result<String, ConfigError> {
    let uid = id(own.run_as_user.or(pod.run_as_user), "runAsUser")?;
    let gid = id(own.run_as_group.or(pod.run_as_group), "runAsGroup")?;
    if own.run_as_non_root.or(pod.run_as_non_root) == Some(true) {
        check_not_root(uid, name, image_user)?;
    }
    let image_uid = image_user.split(':').next().unwrap_or_default();
    Ok(match (uid, gid) {
        (Some(uid), Some(gid)) => format!("{uid}:{gid}"),
        (Some(uid), None) => uid.to_string(),
        (None, Some(gid)) if image_uid.is_empty() => format!("0:{gid}"),
        (None, Some(gid)) => format!("{image_uid}:{gid}"),
        (None, None) => image_user.to_owned(),
    })
}

fn check_not_root(uid: Option<u32>, name: &str, image_user: &str) -> Result<(), ConfigError> {
    let image_uid = image_user.split(':').next().unwrap_or_default();
    match (uid, image_uid.parse::<u32>()) {
        (Some(0), _) => refuse(format!("container's runAsUser breaks non-root policy (container: {name})")),
        (Some(_), _) => Ok(()),
        (None, Ok(0)) => refuse(format!("container has runAsNonRoot and image will run as root (container: {name})")),
        (None, Ok(_)) => Ok(()),
        (None, Err(_)) if image_uid.is_empty() => {
            refuse(format!("container has runAsNonRoot and image will run as root (container: {name})"))
        }
        (None, Err(_)) => refuse(format!(
            "container has runAsNonRoot and image has non-numeric user ({image_uid}), cannot verify user is non-root (container: {name})"
        )),
    }
}

fn groups(pod: &core::PodSecurityContext) -> Result<Vec<u32>, ConfigError> {
    let mut groups = Vec::new();
    for group in pod.supplemental_groups.iter().flatten().copied().chain(pod.fs_group) {
        groups.extend(id(Some(group), "supplementalGroups")?);
    }
    groups.sort_unstable();
    groups.dedup();
    Ok(groups)
}

fn id(value: Option<i64>, field: &str) -> Result<Option<u32>, ConfigError> {
    let Some(value) = value else { return Ok(None) };
    // The last number means "nobody in particular" to the kernel (chown(2)).
    match u32::try_from(value) {
        Ok(id) if id != u32::MAX => Ok(Some(id)),
        _ => refuse(format!("{field}: {value} is not a user or group id; 0 to 4294967294 are")),
    }
}

fn capabilities(own: &core::SecurityContext) -> Result<Capabilities, ConfigError> {
    let mut out = Capabilities::default();
    let Some(asked) = &own.capabilities else { return Ok(out) };
    let is_all = |name: &String| name.eq_ignore_ascii_case("ALL");
    let add = asked.add.as_deref().unwrap_or_default();
    let drop = asked.drop.as_deref().unwrap_or_default();
    if drop.iter().any(is_all) {
        out = Capabilities::none();
    }
    if add.iter().any(is_all) {
        out = Capabilities::all();
    }
    let unknown =
        |error: &dyn std::fmt::Display| ConfigError::Refused(format!("securityContext.capabilities: {error}"));
    for name in add.iter().filter(|name| !is_all(name)) {
        out.add(name).map_err(|error| unknown(&error))?;
    }
    for name in drop.iter().filter(|name| !is_all(name)) {
        out.remove(name).map_err(|error| unknown(&error))?;
    }
    Ok(out)
}

fn seccomp(own: &core::SecurityContext, pod: &core::PodSecurityContext) -> Result<Seccomp, ConfigError> {
    let Some(profile) = own.seccomp_profile.as_ref().or(pod.seccomp_profile.as_ref()) else {
        return Ok(Seccomp::Default);
    };
    match (profile.type_.as_str(), profile.localhost_profile.as_deref().unwrap_or_default()) {
        ("RuntimeDefault", _) => Ok(Seccomp::Default),
        ("Unconfined", _) => Ok(Seccomp::Unconfined),
        ("Localhost", "") => refuse("seccompProfile.localhostProfile is empty; name a file"),
        ("Localhost", path) => Ok(Seccomp::Localhost(path.to_owned())),
        (other, _) => {
            refuse(format!("seccompProfile.type {other} is not known; use RuntimeDefault, Localhost or Unconfined"))
        }
    }
}

/// The AppArmor profile that stands for `RuntimeDefault`, where who runs the machine has loaded one of this name.
pub const APP_ARMOR_DEFAULT: &str = "windlass-default";

fn app_armor(
    own: &core::SecurityContext,
    pod: &core::PodSecurityContext,
    facts: &Facts,
) -> Result<Option<String>, ConfigError> {
    let usual = || facts.app_armor_default.then(|| APP_ARMOR_DEFAULT.to_owned());
    let Some(profile) = own.app_armor_profile.as_ref().or(pod.app_armor_profile.as_ref()) else {
        return Ok(usual());
    };
    match (profile.type_.as_str(), profile.localhost_profile.as_deref().unwrap_or_default()) {
        ("Unconfined", _) => Ok(None),
        _ if !facts.app_armor => refuse("appArmorProfile: the kernel of this node has no AppArmor"),
        ("RuntimeDefault", _) if facts.app_armor_default => Ok(usual()),
        ("RuntimeDefault", _) => {
            refuse(format!("appArmorProfile: this node has no profile {APP_ARMOR_DEFAULT:?} loaded to be the default"))
        }
        ("Localhost", name) if !name.is_empty() => Ok(Some(name.to_owned())),
        _ => refuse("appArmorProfile: expected RuntimeDefault, Unconfined, or Localhost with localhostProfile"),
    }
}

#[cfg(test)]
mod tests {
    use super::{APP_ARMOR_DEFAULT, apply};
    use crate::machine::{Capabilities, Container, Facts, ImageGroups, Seccomp};
    use serde_json::{Value, json};
    use windlass_api::types::core;

    fn check(pod: Value, own: Value, image_user: &str) -> Result<Container, String> {
        on(&Facts::default(), pod, own, image_user)
    }

    fn on(facts: &Facts, pod: Value, own: Value, image_user: &str) -> Result<Container, String> {
        let spec = json!({"securityContext": pod, "containers": [{"name": "c", "securityContext": own}]});
        let spec: core::PodSpec = serde_json::from_value(spec).expect("a spec");
        let mut out = Container::default();
        apply(&mut out, &spec, &spec.containers[0], image_user, facts).map_err(|error| error.to_string())?;
        Ok(out)
    }

    #[test]
    fn the_containers_word_wins_over_the_pods_and_the_images() {
        let user = |pod, own, image| check(pod, own, image).expect("allowed").user;
        assert_eq!(user(json!({}), json!({}), "app:web"), "app:web");
        assert_eq!(user(json!({"runAsUser": 5}), json!({}), "app"), "5");
        assert_eq!(user(json!({"runAsUser": 5, "runAsGroup": 6}), json!({"runAsUser": 7}), "app"), "7:6");
        assert_eq!(user(json!({"runAsGroup": 6}), json!({}), ""), "0:6");
        let groups = check(json!({"fsGroup": 9, "supplementalGroups": [8, 9]}), json!({}), "").expect("allowed").groups;
        assert_eq!(groups, [8, 9]);
    }

    #[test]
    fn root_is_refused_where_it_must_not_be() {
        let rows = [
            (json!({}), "", Some("image will run as root")),
            (json!({}), "0", Some("image will run as root")),
            (json!({}), "app", Some("non-numeric user (app)")),
            (json!({}), "1000:0", None),
            (json!({"runAsUser": 0}), "1000", Some("breaks non-root policy")),
            (json!({"runAsUser": 1}), "", None),
            (json!({"runAsUser": -1}), "", Some("not a user or group id")),
            (json!({"runAsUser": 4_294_967_296_i64}), "", Some("not a user or group id")),
        ];
        for (own, image, refused) in rows {
            let found = check(json!({"runAsNonRoot": true}), own.clone(), image).err();
            match refused {
                Some(why) => {
                    assert!(found.as_deref().is_some_and(|found| found.contains(why)), "{own} {image}: {found:?}")
                }
                None => assert_eq!(found, None, "{own} {image}"),
            }
        }
    }

    #[test]
    fn capabilities_are_dropped_and_added() {
        let mask = |own: Value| check(json!({}), own, "").expect("allowed").capabilities.mask();
        assert_eq!(mask(json!({})), Capabilities::default().mask());
        assert_eq!(mask(json!({"capabilities": {"drop": ["ALL"]}})), 0);
        assert_eq!(mask(json!({"capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}})), 1 << 10);
        assert_eq!(mask(json!({"capabilities": {"add": ["ALL"], "drop": ["CHOWN"]}})), Capabilities::all().mask() & !1);
        assert!(check(json!({}), json!({"capabilities": {"add": ["EVERYTHING"]}}), "").is_err());
        assert_eq!(mask(json!({"privileged": true})), Capabilities::all().mask());
    }

    #[test]
    fn system_calls_are_filtered_unless_told_otherwise() {
        let filter = |pod, own| check(pod, own, "").map(|container| container.seccomp);
        assert_eq!(filter(json!({}), json!({})), Ok(Seccomp::Default));
        assert_eq!(filter(json!({"seccompProfile": {"type": "Unconfined"}}), json!({})), Ok(Seccomp::Unconfined));
        assert_eq!(filter(json!({}), json!({"privileged": true})), Ok(Seccomp::Unconfined));
        let local = |path: &str| json!({"seccompProfile": {"type": "Localhost", "localhostProfile": path}});
        assert_eq!(filter(json!({}), local("a.json")), Ok(Seccomp::Localhost("a.json".to_owned())));
        assert!(filter(json!({}), local("")).is_err());
    }

    #[test]
    fn the_images_groups_count_unless_the_policy_is_strict() {
        let policy = |pod| check(pod, json!({}), "").expect("allowed").image_groups;
        assert_eq!(policy(json!({})), ImageGroups::Merge);
        assert_eq!(policy(json!({"supplementalGroupsPolicy": "Strict"})), ImageGroups::Strict);
    }

    #[test]
    fn an_app_armor_profile_is_taken_on_or_refused_never_ignored() {
        let with = |facts: &Facts, kind: &str| {
            let own = json!({"appArmorProfile": {"type": kind, "localhostProfile": "strict"}});
            on(facts, json!({}), own, "").map(|container| container.app_armor)
        };
        let (none, bare) = (Facts::default(), Facts { app_armor: true, ..Facts::default() });
        let whole = Facts { app_armor_default: true, ..bare.clone() };
        assert_eq!(with(&none, "Unconfined"), Ok(None));
        assert!(with(&none, "Localhost").is_err_and(|why| why.contains("no AppArmor")));
        assert_eq!(with(&bare, "Localhost"), Ok(Some("strict".to_owned())));
        assert!(with(&bare, "RuntimeDefault").is_err_and(|why| why.contains(APP_ARMOR_DEFAULT)));
        assert_eq!(with(&whole, "RuntimeDefault"), Ok(Some(APP_ARMOR_DEFAULT.to_owned())));
        let usual = on(&whole, json!({}), json!({}), "").map(|container| container.app_armor);
        assert_eq!(usual, Ok(Some(APP_ARMOR_DEFAULT.to_owned())), "it is the default");
    }

    #[test]
    fn labels_are_refused_where_a_policy_is_enforced() {
        let facts = Facts { se_linux: true, ..Facts::default() };
        let own = json!({"seLinuxOptions": {"level": "s0:c1"}});
        assert!(on(&facts, json!({}), own.clone(), "").is_err_and(|why| why.contains("SELinux")));
        assert!(check(json!({}), own, "").is_ok(), "elsewhere they mean nothing, as everywhere");
    }
}
