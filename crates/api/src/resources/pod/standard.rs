//! Pod Security Standards: what a pod may not ask for at each level, as a pure function.
//!
//! Rules, in the order in which they are told; (1.N) since which version
//!   baseline    host process · host namespaces · privileged · capabilities added · hostPath volumes · host ports ·
//!               hosts of probes and hooks (1.34) · AppArmor · SELinux · /proc mount · seccomp · sysctls (some 1.27, 1.29)
//!   restricted  all of these, and: kinds of volumes · privilege escalation (1.8) · runAsNonRoot · runAsUser 0 (1.23) ·
//!               seccomp set (1.19) · capabilities dropped (1.22); what Windows does not know is not asked of it (1.25)
//! Source: Kubernetes documentation, "Pod Security Standards"; the words are those that users of Kubernetes know

use serde_json::Value;

use super::super::tree::Tree;

/// How much is forbidden.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nothing.
    Privileged,
    /// Known ways to more privileges.
    Baseline,
    /// All but what is thought good today.
    Restricted,
}

/// The standards as they were at a version of Kubernetes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// As they are.
    Latest,
    /// As they were at 1.N.
    Minor(u32),
}

impl Level {
    /// Reads a label's value.
    pub fn parse(text: &str) -> Option<Level> {
        match text {
            "privileged" => Some(Level::Privileged),
            "baseline" => Some(Level::Baseline),
            "restricted" => Some(Level::Restricted),
            _ => None,
        }
    }

    /// As labels and refusals have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        }
    }
}

impl Version {
    /// Reads a label's value: `latest` or `v1.N`.
    pub fn parse(text: &str) -> Option<Version> {
        if text == "latest" {
            return Some(Version::Latest);
        }
        let minor = text.strip_prefix("v1.")?;
        let is_plain = minor == "0" || !minor.starts_with('0');
        minor.parse().ok().filter(|_| is_plain && minor.bytes().all(|byte| byte.is_ascii_digit())).map(Version::Minor)
    }

    fn has(self, since: u32) -> bool {
        match self {
            Version::Latest => true,
            Version::Minor(minor) => minor >= since,
        }
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Version::Latest => f.write_str("latest"),
            Version::Minor(minor) => write!(f, "v1.{minor}"),
        }
    }
}

const CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];
/// With the version that took them up.
const SYSCTLS: [(&str, u32); 10] = [
    ("kernel.shm_rmid_forced", 0),
    ("net.ipv4.ip_local_port_range", 0),
    ("net.ipv4.ip_unprivileged_port_start", 0),
    ("net.ipv4.tcp_syncookies", 0),
    ("net.ipv4.ping_group_range", 0),
    ("net.ipv4.ip_local_reserved_ports", 27),
    ("net.ipv4.tcp_keepalive_time", 29),
    ("net.ipv4.tcp_fin_timeout", 29),
    ("net.ipv4.tcp_keepalive_intvl", 29),
    ("net.ipv4.tcp_keepalive_probes", 29),
];
const SELINUX_TYPES: [(&str, u32); 5] =
    [("", 0), ("container_t", 0), ("container_init_t", 0), ("container_kvm_t", 0), ("container_engine_t", 31)];
const VOLUMES: [&str; 8] =
    ["configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"];
const APPARMOR_ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";

/// What a pod of this metadata and spec asks for against the standard: `reason (detail)` each, none if it may be.
pub fn violations(metadata: &Value, spec: &Value, level: Level, version: Version) -> Vec<String> {
    let pod = Pod { metadata, spec, version, found: Vec::new() };
    match level {
        Level::Privileged => Vec::new(),
        Level::Baseline => pod.baseline().found,
        Level::Restricted => pod.baseline().restricted().found,
    }
}

struct Pod<'a> {
    metadata: &'a Value,
    spec: &'a Value,
    version: Version,
    found: Vec<String>,
}

/// Every container of a spec, whenever it runs.
fn containers(spec: &Value) -> impl Iterator<Item = &Value> {
    ["initContainers", "containers", "ephemeralContainers"].into_iter().flat_map(move |list| spec.items(list))
}

fn quoted<'t>(names: impl IntoIterator<Item = &'t str>) -> String {
    names.into_iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ")
}

fn of_containers(names: &[&str]) -> String {
    format!("container{} {}", if names.len() == 1 { "" } else { "s" }, quoted(names.iter().copied()))
}

impl<'a> Pod<'a> {
    fn is_windows(&self) -> bool {
        self.version.has(25) && self.spec["os"].text("name") == "windows"
    }

    fn tell(&mut self, reason: &str, detail: String) {
        self.found.push(format!("{reason} ({detail})"));
    }

    /// The names of the containers that are so.
    fn which(&self, is_so: impl Fn(&'a Value) -> bool) -> Vec<&'a str> {
        let spec = self.spec;
        containers(spec).filter(|container| is_so(container)).map(|container| container.text("name")).collect()
    }

    /// Tells of containers that are so, and of the pod's own context if it is.
    fn context(&mut self, reason: &str, detail: &str, is_bad: impl Fn(&'a Value) -> bool) {
        let mut who = Vec::new();
        if is_bad(&self.spec["securityContext"]) {
            who.push("pod".to_owned());
        }
        let names = self.which(|container| is_bad(&container["securityContext"]));
        if !names.is_empty() {
            who.push(of_containers(&names));
        }
        if !who.is_empty() {
            self.tell(reason, format!("{} {detail}", who.join(" and ")));
        }
    }

    fn baseline(mut self) -> Pod<'a> {
        let spec = self.spec;
        self.context("hostProcess", "must not set securityContext.windowsOptions.hostProcess=true", |context| {
            context["windowsOptions"].flag("hostProcess")
        });
        let shared = ["hostNetwork", "hostPID", "hostIPC"].into_iter().filter(|field| spec.flag(field));
        let shared: Vec<String> = shared.map(|field| format!("{field}=true")).collect();
        if !shared.is_empty() {
            self.tell("host namespaces", shared.join(", "));
        }
        let names = self.which(|container| container["securityContext"].flag("privileged"));
        if !names.is_empty() {
            self.tell("privileged", format!("{} must not set securityContext.privileged=true", of_containers(&names)));
        }
        self.added("non-default capabilities", &CAPABILITIES);
        let volumes = spec.items("volumes").iter().filter(|volume| volume.is_set("hostPath"));
        let volumes: Vec<&str> = volumes.map(|volume| volume.text("name")).collect();
        if !volumes.is_empty() {
            self.tell("hostPath volumes", format!("volume{} {}", plural(volumes.len()), quoted(volumes)));
        }
        self.host_ports();
        if self.version.has(34) {
            self.hosts();
        }
        self.app_armor();
        self.se_linux();
        let names = self.which(|container| !matches!(container["securityContext"].text("procMount"), "" | "Default"));
        if !names.is_empty() {
            let detail = format!("{} must not set securityContext.procMount to \"Unmasked\"", of_containers(&names));
            self.tell("procMount", detail);
        }
        self.context(
            "seccompProfile",
            "must not set securityContext.seccompProfile.type to \"Unconfined\"",
            |context| context["seccompProfile"].text("type") == "Unconfined",
        );
        let version = self.version;
        let is_safe = |name: &str| SYSCTLS.iter().any(|(safe, since)| *safe == name && version.has(*since));
        let sysctls = spec["securityContext"].items("sysctls").iter().map(|sysctl| sysctl.text("name"));
        let sysctls: Vec<&str> = sysctls.filter(|name| !is_safe(name)).collect();
        if !sysctls.is_empty() {
            self.tell("forbidden sysctls", sysctls.join(", "));
        }
        self
    }

    /// Capabilities that are added and not among these.
    fn added(&mut self, reason: &str, allowed: &[&str]) {
        if let Some(detail) = self.added_beyond(allowed) {
            self.tell(reason, detail);
        }
    }

    fn added_beyond(&self, allowed: &[&str]) -> Option<String> {
        fn added(container: &Value) -> impl Iterator<Item = &str> {
            container["securityContext"]["capabilities"].items("add").iter().filter_map(Value::as_str)
        }
        let names = self.which(|container| added(container).any(|name| !allowed.contains(&name)));
        let mut what: Vec<&str> =
            containers(self.spec).flat_map(added).filter(|name| !allowed.contains(name)).collect();
        what.sort_unstable();
        what.dedup();
        let detail = || {
            format!("{} must not include {} in securityContext.capabilities.add", of_containers(&names), quoted(what))
        };
        (!names.is_empty()).then(detail)
    }

    fn host_ports(&mut self) {
        fn ports(container: &Value) -> impl Iterator<Item = i64> {
            container.items("ports").iter().filter_map(|port| port.int("hostPort")).filter(|port| *port != 0)
        }
        let names = self.which(|container| ports(container).next().is_some());
        let mut used: Vec<i64> = containers(self.spec).flat_map(ports).collect();
        used.sort_unstable();
        used.dedup();
        if !names.is_empty() {
            let verb = if names.len() == 1 { "uses" } else { "use" };
            let used: Vec<String> = used.iter().map(i64::to_string).collect();
            let detail = format!("{} {verb} hostPort{} {}", of_containers(&names), plural(used.len()), used.join(", "));
            self.tell("hostPort", detail);
        }
    }

    fn hosts(&mut self) {
        fn asked(container: &Value) -> impl Iterator<Item = &str> {
            let hooks = ["postStart", "preStop"].map(|hook| &container["lifecycle"][hook]);
            let probes = ["livenessProbe", "readinessProbe", "startupProbe"].map(|probe| &container[probe]);
            let actions = hooks.into_iter().chain(probes).flat_map(|it| [&it["httpGet"], &it["tcpSocket"]]);
            actions.map(|action| action.text("host")).filter(|host| !host.is_empty())
        }
        let names = self.which(|container| asked(container).next().is_some());
        let mut hosts: Vec<&str> = containers(self.spec).flat_map(asked).collect();
        hosts.sort_unstable();
        hosts.dedup();
        if !names.is_empty() {
            let verb = if names.len() == 1 { "uses" } else { "use" };
            let what = format!("probe or lifecycle host{} {}", plural(hosts.len()), quoted(hosts));
            self.tell("probe or lifecycle host", format!("{} {verb} {what}", of_containers(&names)));
        }
    }

    fn app_armor(&mut self) {
        let is_bad =
            |context: &Value| !matches!(context["appArmorProfile"].text("type"), "" | "RuntimeDefault" | "Localhost");
        self.context("forbidden AppArmor profile", "must not set AppArmor profile type to \"Unconfined\"", is_bad);
        let is_fine = |profile: &str| matches!(profile, "" | "runtime/default") || profile.starts_with("localhost/");
        let annotations = self.metadata.entries("annotations").iter();
        let bad = annotations
            .filter(|(key, profile)| key.starts_with(APPARMOR_ANNOTATION) && !profile.as_str().is_some_and(is_fine));
        let bad: Vec<String> = bad.map(|(key, profile)| format!("{key}={profile}")).collect();
        if !bad.is_empty() {
            let detail = format!("annotation{} {}", plural(bad.len()), quoted(bad.iter().map(String::as_str)));
            self.tell("forbidden AppArmor profile", detail);
        }
    }

    fn se_linux(&mut self) {
        let version = self.version;
        let is_known = |kind: &str| SELINUX_TYPES.iter().any(|(known, since)| *known == kind && version.has(*since));
        let contexts = std::iter::once(&self.spec["securityContext"])
            .chain(containers(self.spec).map(|container| &container["securityContext"]));
        let options: Vec<&Value> = contexts.map(|context| &context["seLinuxOptions"]).collect();
        let mut kinds: Vec<&str> =
            options.iter().map(|options| options.text("type")).filter(|kind| !is_known(kind)).collect();
        kinds.sort_unstable();
        kinds.dedup();
        let mut what = Vec::new();
        if !kinds.is_empty() {
            what.push(format!("type{} {}", plural(kinds.len()), quoted(kinds)));
        }
        for field in ["user", "role"] {
            if options.iter().any(|options| !options.text(field).is_empty()) {
                what.push(format!("{field} may not be set"));
            }
        }
        let detail = format!("set forbidden securityContext.seLinuxOptions: {}", what.join("; "));
        self.context("seLinuxOptions", &detail, |context| {
            let options = &context["seLinuxOptions"];
            !is_known(options.text("type")) || !options.text("user").is_empty() || !options.text("role").is_empty()
        });
    }

    fn restricted(mut self) -> Pod<'a> {
        let spec = self.spec;
        let is_fine = |volume: &&Value| VOLUMES.iter().any(|kind| volume.is_set(kind));
        let volumes: Vec<&Value> = spec.items("volumes").iter().filter(|volume| !is_fine(volume)).collect();
        if !volumes.is_empty() {
            let kind = |volume: &Value| {
                let mut fields = volume.as_object().into_iter().flatten().map(|(field, _)| field.as_str());
                fields.find(|field| *field != "name").unwrap_or("unknown").to_owned()
            };
            let each = volumes.iter().map(|volume| {
                format!("volume {:?} uses restricted volume type {:?}", volume.text("name"), kind(volume))
            });
            self.tell("restricted volume types", each.collect::<Vec<_>>().join("; "));
        }
        if self.version.has(8) && !self.is_windows() {
            let names =
                self.which(|container| container["securityContext"]["allowPrivilegeEscalation"] != Value::Bool(false));
            if !names.is_empty() {
                let detail =
                    format!("{} must set securityContext.allowPrivilegeEscalation=false", of_containers(&names));
                self.tell("allowPrivilegeEscalation != false", detail);
            }
        }
        self.non_root();
        if self.version.has(23) {
            self.context("runAsUser=0", "must not set runAsUser=0", |context| context.int("runAsUser") == Some(0));
        }
        if self.version.has(19) && !self.is_windows() {
            self.seccomp_set();
        }
        if self.version.has(22) && !self.is_windows() {
            self.dropped();
        }
        self
    }

    fn non_root(&mut self) {
        let own = &self.spec["securityContext"]["runAsNonRoot"];
        let of = |container: &'a Value| &container["securityContext"]["runAsNonRoot"];
        let explicit = self.which(|container| *of(container) == Value::Bool(false));
        let implicit = self.which(|container| of(container).is_null() && *own != Value::Bool(true));
        let reason = "runAsNonRoot != true";
        if *own == Value::Bool(false) && explicit.is_empty() && implicit.is_empty() {
            self.tell(reason, "pod must not set securityContext.runAsNonRoot=false".to_owned());
        } else if !explicit.is_empty() {
            let detail = format!("{} must not set securityContext.runAsNonRoot=false", of_containers(&explicit));
            self.tell(reason, detail);
        } else if !implicit.is_empty() {
            let detail = format!("pod or {} must set securityContext.runAsNonRoot=true", of_containers(&implicit));
            self.tell(reason, detail);
        }
    }

    fn seccomp_set(&mut self) {
        let is_set = |context: &Value| matches!(context["seccompProfile"].text("type"), "RuntimeDefault" | "Localhost");
        let by_pod = is_set(&self.spec["securityContext"]);
        let names = self.which(|container| {
            let context = &container["securityContext"];
            context["seccompProfile"].text("type").is_empty() && !by_pod
        });
        if !names.is_empty() {
            let detail = format!(
                "pod or {} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"",
                of_containers(&names)
            );
            self.tell("seccompProfile", detail);
        }
    }

    fn dropped(&mut self) {
        let drops = |container: &'a Value| {
            container["securityContext"]["capabilities"].items("drop").iter().any(|name| *name == "ALL")
        };
        let names = self.which(|container| !drops(container));
        let mut details = Vec::new();
        if !names.is_empty() {
            details.push(format!("{} must set securityContext.capabilities.drop=[\"ALL\"]", of_containers(&names)));
        }
        details.extend(self.added_beyond(&["NET_BIND_SERVICE"]));
        if !details.is_empty() {
            self.tell("unrestricted capabilities", details.join("; "));
        }
    }
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

#[cfg(test)]
mod tests {
    use super::{Level, Version, violations};
    use serde_json::{Value, json};

    fn good() -> Value {
        json!({"securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{"name": "a", "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}}]})
    }

    /// The spec with one field set: `containers.securityContext.privileged` goes into the container.
    fn with(path: &str, value: Value) -> Value {
        let mut spec = good();
        let mut at = &mut spec;
        for part in path.split('.') {
            at = match part {
                "containers" => &mut at["containers"][0],
                field => &mut at[field],
            };
        }
        *at = value;
        spec
    }

    fn check(spec: &Value, level: Level) -> String {
        violations(&Value::Null, spec, level, Version::Latest).join(", ")
    }

    #[test]
    fn a85_each_field_is_judged_as_the_standards_have_it() {
        use Level::{Baseline, Privileged, Restricted};
        // Field, value, the first level that forbids it, and the reason.
        let rows: &[(&str, Value, Level, &str)] = &[
            ("securityContext.windowsOptions", json!({"hostProcess": true}), Baseline, "hostProcess (pod must"),
            (
                "containers.securityContext.windowsOptions",
                json!({"hostProcess": true}),
                Baseline,
                "hostProcess (container \"a\"",
            ),
            ("hostNetwork", json!(true), Baseline, "host namespaces (hostNetwork=true)"),
            ("hostPID", json!(true), Baseline, "host namespaces (hostPID=true)"),
            ("hostIPC", json!(true), Baseline, "host namespaces (hostIPC=true)"),
            ("containers.securityContext.privileged", json!(true), Baseline, "privileged (container \"a\""),
            (
                "containers.securityContext.capabilities.add",
                json!(["NET_RAW"]),
                Baseline,
                "must not include \"NET_RAW\"",
            ),
            ("containers.securityContext.capabilities.add", json!(["CHOWN"]), Restricted, "must not include \"CHOWN\""),
            ("containers.securityContext.capabilities.add", json!(["NET_BIND_SERVICE"]), Privileged, ""),
            ("containers.securityContext.capabilities.drop", json!(["NET_RAW"]), Restricted, "drop=[\"ALL\"]"),
            ("volumes", json!([{"name": "v", "hostPath": {"path": "/"}}]), Baseline, "hostPath volumes (volume \"v\")"),
            (
                "volumes",
                json!([{"name": "v", "nfs": {"path": "/"}}]),
                Restricted,
                "uses restricted volume type \"nfs\"",
            ),
            ("volumes", json!([{"name": "v", "image": {"reference": "x"}}]), Restricted, "volume type \"image\""),
            ("volumes", json!([{"name": "v", "emptyDir": {}}, {"name": "w", "csi": {}}]), Privileged, ""),
            ("containers.ports", json!([{"hostPort": 80}]), Baseline, "hostPort (container \"a\" uses hostPort 80)"),
            ("containers.ports", json!([{"containerPort": 80, "hostPort": 0}]), Privileged, ""),
            ("containers.livenessProbe", json!({"httpGet": {"host": "x"}}), Baseline, "probe or lifecycle host \"x\""),
            ("containers.readinessProbe", json!({"tcpSocket": {"host": "x"}}), Baseline, "probe or lifecycle host"),
            ("containers.startupProbe", json!({"tcpSocket": {"host": ""}}), Privileged, ""),
            (
                "containers.lifecycle",
                json!({"preStop": {"httpGet": {"host": "x"}}}),
                Baseline,
                "probe or lifecycle host",
            ),
            (
                "securityContext.appArmorProfile",
                json!({"type": "Unconfined"}),
                Baseline,
                "forbidden AppArmor profile (pod",
            ),
            ("containers.securityContext.appArmorProfile", json!({"type": "Localhost"}), Privileged, ""),
            ("securityContext.seLinuxOptions", json!({"type": "spc_t"}), Baseline, "type \"spc_t\""),
            ("securityContext.seLinuxOptions", json!({"type": "container_engine_t"}), Privileged, ""),
            ("containers.securityContext.seLinuxOptions", json!({"user": "u"}), Baseline, "user may not be set"),
            ("containers.securityContext.seLinuxOptions", json!({"role": "r"}), Baseline, "role may not be set"),
            ("containers.securityContext.procMount", json!("Unmasked"), Baseline, "procMount (container \"a\""),
            ("containers.securityContext.procMount", json!("Default"), Privileged, ""),
            ("securityContext.seccompProfile", json!({"type": "Unconfined"}), Baseline, "seccompProfile (pod must not"),
            (
                "containers.securityContext.seccompProfile",
                json!({"type": "Unconfined"}),
                Baseline,
                "seccompProfile (container",
            ),
            (
                "securityContext.seccompProfile",
                Value::Null,
                Restricted,
                "pod or container \"a\" must set securityContext.secc",
            ),
            (
                "securityContext.sysctls",
                json!([{"name": "kernel.msgmax"}]),
                Baseline,
                "forbidden sysctls (kernel.msgmax)",
            ),
            ("securityContext.sysctls", json!([{"name": "net.ipv4.tcp_fin_timeout"}]), Privileged, ""),
            (
                "containers.securityContext.allowPrivilegeEscalation",
                json!(true),
                Restricted,
                "allowPrivilegeEscalation",
            ),
            (
                "containers.securityContext.allowPrivilegeEscalation",
                Value::Null,
                Restricted,
                "allowPrivilegeEscalation",
            ),
            ("securityContext.runAsNonRoot", Value::Null, Restricted, "pod or container \"a\" must set"),
            ("securityContext.runAsNonRoot", json!(false), Restricted, "runAsNonRoot != true"),
            ("containers.securityContext.runAsNonRoot", json!(false), Restricted, "container \"a\" must not set"),
            ("securityContext.runAsUser", json!(0), Restricted, "runAsUser=0 (pod must not set runAsUser=0)"),
            ("containers.securityContext.runAsUser", json!(0), Restricted, "runAsUser=0 (container \"a\""),
            ("containers.securityContext.runAsUser", json!(1000), Privileged, ""),
        ];
        for (path, value, forbidding, reason) in rows {
            let spec = with(path, value.clone());
            for level in [Privileged, Baseline, Restricted] {
                let found = check(&spec, level);
                let expected = *forbidding != Privileged && level >= *forbidding;
                assert_eq!(!found.is_empty(), expected, "{path}={value} at {level:?}: {found}");
                assert!(!expected || found.contains(reason), "{path}={value} at {level:?}: {found}");
            }
            // The same in each kind of container.
            for list in ["initContainers", "ephemeralContainers"] {
                let mut moved = spec.clone();
                let container = moved["containers"].take();
                moved["containers"] = good()["containers"].clone();
                moved["containers"][0]["name"] = json!("b");
                moved[list] = container;
                let found = check(&moved, Restricted);
                assert_eq!(!found.is_empty(), *forbidding != Privileged, "{path}={value} in {list}: {found}");
            }
        }
        assert_eq!(check(&good(), Restricted), "");
    }

    #[test]
    fn a_version_knows_what_it_knew() {
        let at = |spec: &Value, minor| violations(&Value::Null, spec, Level::Restricted, Version::Minor(minor)).len();
        let probe = with("containers.livenessProbe", json!({"httpGet": {"host": "x"}}));
        assert_eq!((at(&probe, 33), at(&probe, 34)), (0, 1));
        let sysctl = with("securityContext.sysctls", json!([{"name": "net.ipv4.tcp_fin_timeout"}]));
        assert_eq!((at(&sysctl, 28), at(&sysctl, 29)), (1, 0));
        let windows = json!({"os": {"name": "windows"}, "securityContext": {"runAsNonRoot": true}, "containers": [{"name": "a"}]});
        assert!(at(&windows, 24) > 0);
        assert_eq!(at(&windows, 25), 0);
        for wrong in ["v2.0", "1.20", "v1.", "v1.x", "v1.01", "Latest", ""] {
            assert_eq!(Version::parse(wrong), None, "{wrong}");
        }
        assert_eq!(Version::parse("v1.0").map(|version| version.to_string()).as_deref(), Some("v1.0"));
    }

    #[test]
    fn annotations_of_old_count() {
        let metadata = json!({"annotations": {"container.apparmor.security.beta.kubernetes.io/a": "unconfined"}});
        assert_eq!(violations(&metadata, &good(), Level::Baseline, Version::Latest).len(), 1);
    }
}
