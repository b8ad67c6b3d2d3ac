//! Probes: whether a container has started, lives, and may get requests.
//!
//! Source: API reference, Probe; Kubernetes documentation, "Liveness, Readiness and Startup Probes".
//!
//! Rules
//!   R1 startup    until the startup probe has succeeded, the others wait
//!   R2 threshold  a verdict changes after so many equal results in a row
//!   R3 the pod    a probe goes to the pod and nowhere else, whatever its `host` says and whereto it is redirected

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::time::Instant;
use windlass_api::types::{IntOrString, core};

use crate::machine::{Exec, HealthCheck, HttpGet, Machine, MachineError, Purpose};

/// Which of a container's probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProbeKind {
    /// Has it started?
    Startup,
    /// Does it live?
    Liveness,
    /// May it get requests?
    Readiness,
}

impl ProbeKind {
    /// All of them, in the order they are looked at.
    pub const ALL: [ProbeKind; 3] = [ProbeKind::Startup, ProbeKind::Liveness, ProbeKind::Readiness];

    /// The probe of this kind a container has.
    pub fn of(self, container: &core::Container) -> Option<&core::Probe> {
        match self {
            ProbeKind::Startup => container.startup_probe.as_ref(),
            ProbeKind::Liveness => container.liveness_probe.as_ref(),
            ProbeKind::Readiness => container.readiness_probe.as_ref(),
        }
    }

    /// As events name it.
    pub fn title(self) -> &'static str {
        match self {
            ProbeKind::Startup => "Startup",
            ProbeKind::Liveness => "Liveness",
            ProbeKind::Readiness => "Readiness",
        }
    }
}

/// What one try of a probe found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeResult {
    /// It is well.
    Success,
    /// It is not, and why.
    Failure(String),
    /// It could not be tried, and why; this counts neither way.
    Unknown(String),
}

/// A probe's results so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeState {
    /// When it is tried next.
    pub due: Instant,
    /// The verdict, once there is one.
    pub verdict: Option<bool>,
    successes: i32,
    failures: i32,
}

impl ProbeState {
    /// The state of a probe whose container has begun now.
    pub fn begin(probe: &core::Probe, now: Instant) -> ProbeState {
        let delay = Duration::from_secs(u64::try_from(probe.initial_delay_seconds.unwrap_or(0)).unwrap_or(0));
        ProbeState { due: now + delay, verdict: None, successes: 0, failures: 0 }
    }

    /// Takes in a result; returns whether the verdict has changed (R2).
    pub fn take_in(&mut self, probe: &core::Probe, result: &ProbeResult, now: Instant) -> bool {
        self.due = now + period(probe);
        let verdict = match result {
            ProbeResult::Success => {
                self.failures = 0;
                self.successes = self.successes.saturating_add(1);
                (self.successes >= probe.success_threshold.unwrap_or(1).max(1)).then_some(true)
            }
            ProbeResult::Failure(_) => {
                self.successes = 0;
                self.failures = self.failures.saturating_add(1);
                (self.failures >= probe.failure_threshold.unwrap_or(3).max(1)).then_some(false)
            }
            ProbeResult::Unknown(_) => None,
        };
        let changed = verdict.is_some() && verdict != self.verdict;
        self.verdict = verdict.or(self.verdict);
        changed
    }
}

fn period(probe: &core::Probe) -> Duration {
    Duration::from_secs(u64::try_from(probe.period_seconds.unwrap_or(10)).unwrap_or(10).max(1))
}

/// How long one try may take.
pub fn timeout(probe: &core::Probe) -> Duration {
    Duration::from_secs(u64::try_from(probe.timeout_seconds.unwrap_or(1)).unwrap_or(1).max(1))
}

/// What is done to look: an exec, a request, a question or a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// Run this in the container; it must end with 0.
    Exec(Exec),
    /// Send this request; its status must be 200 to 399.
    Http(HttpGet),
    /// Ask this by gRPC; it must be serving.
    Grpc(HealthCheck),
    /// Connect there.
    Tcp(SocketAddr, Duration),
    /// It cannot be done, and why.
    Impossible(String),
}

/// Where a pod is probed.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The pod's addresses; for a pod in the machine's network the machine's.
    pub ips: &'a [IpAddr],
    /// Whether the pod is in the machine's network.
    pub host_network: bool,
}

impl Check {
    /// What a probe does.
    pub fn of_probe(probe: &core::Probe, container: &core::Container, place: Place) -> Check {
        let timeout = timeout(probe);
        if let Some(exec) = &probe.exec {
            return Check::Exec(Exec { args: exec.command.clone().unwrap_or_default(), timeout });
        }
        if let Some(get) = &probe.http_get {
            return Check::http(get, container, place, timeout);
        }
        if let Some(tcp) = &probe.tcp_socket {
            let address = address(tcp.host.as_deref(), place).and_then(|ip| Ok((ip, port(&tcp.port, container)?)));
            return match address {
                Ok(address) => Check::Tcp(address.into(), timeout),
                Err(why) => Check::Impossible(why),
            };
        }
        let Some(grpc) = &probe.grpc else {
            return Check::Impossible("the probe names no action; use exec, httpGet, tcpSocket or grpc".to_owned());
        };
        let asked = address(None, place).and_then(|ip| Ok((ip, port(&IntOrString::Int(grpc.port), container)?)));
        match asked {
            Ok(asked) => Check::Grpc(HealthCheck {
                address: asked.into(),
                service: grpc.service.clone().unwrap_or_default(),
                tls: grpc.mode.as_deref() == Some("TLS"),
                timeout,
            }),
            Err(why) => Check::Impossible(why),
        }
    }

    /// A GET request to the pod.
    pub fn http(get: &core::HTTPGetAction, container: &core::Container, place: Place, timeout: Duration) -> Check {
        let target = address(get.host.as_deref(), place).and_then(|ip| Ok((ip, port(&get.port, container)?)));
        let (ip, port) = match target {
            Ok(target) => target,
            Err(why) => return Check::Impossible(why),
        };
        let path = get.path.as_deref().unwrap_or("/");
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        let headers = get.http_headers.iter().flatten().map(|header| (header.name.clone(), header.value.clone()));
        Check::Http(HttpGet {
            scheme: get.scheme.as_deref().unwrap_or("HTTP").to_lowercase(),
            host: ip.to_string(),
            port,
            path,
            headers: headers.collect(),
            from: None,
            purpose: Purpose::Probe,
            timeout,
        })
    }

    /// Does it once.
    pub async fn run(self, machine: &dyn Machine, pod: &str, container: &str) -> ProbeResult {
        match self {
            Check::Exec(exec) => match machine.exec(pod, container, &exec).await {
                Ok(result) if result.code == 0 => ProbeResult::Success,
                Ok(result) if result.output.is_empty() => {
                    ProbeResult::Failure(format!("command {:?} ended with code {}", exec.args, result.code))
                }
                Ok(result) => ProbeResult::Failure(result.output),
                Err(MachineError::TimedOut { after, .. }) => {
                    ProbeResult::Failure(format!("command timed out: {:?} took longer than {after:?}", exec.args))
                }
                Err(error) => ProbeResult::Unknown(error.to_string()),
            },
            Check::Http(get) => match machine.http_get(&get).await {
                Ok(answer) if (200..400).contains(&answer.status) => ProbeResult::Success,
                Ok(answer) => ProbeResult::Failure(format!("HTTP probe failed with statuscode: {}", answer.status)),
                Err(error) => ProbeResult::Failure(error.to_string()),
            },
            Check::Grpc(check) => match machine.check_health(&check).await {
                Ok(()) => ProbeResult::Success,
                Err(error) => ProbeResult::Failure(error.to_string()),
            },
            Check::Tcp(address, timeout) => match machine.connect(address, timeout).await {
                Ok(()) => ProbeResult::Success,
                Err(error) => ProbeResult::Failure(error.to_string()),
            },
            Check::Impossible(why) => ProbeResult::Unknown(why),
        }
    }
}

/// R3: the pod's own address; `host` may only name it again.
fn address(host: Option<&str>, place: Place) -> Result<IpAddr, String> {
    let own = *place.ips.first().ok_or("the pod has no address yet")?;
    let Some(host) = host.filter(|host| !host.is_empty()) else { return Ok(own) };
    let asked = if host == "localhost" { Ok(IpAddr::from([127, 0, 0, 1])) } else { host.parse::<IpAddr>() };
    match asked {
        Ok(ip) if place.ips.contains(&ip) => Ok(ip),
        Ok(ip) if place.host_network && ip.is_loopback() => Ok(ip),
        _ => Err(format!("host {host:?} is not the pod: only the pod itself is probed, leave host empty")),
    }
}

/// A port by number or by its name in the container.
fn port(port: &IntOrString, container: &core::Container) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => {
            let named = container.ports.iter().flatten().find(|port| port.name.as_ref() == Some(name));
            match (named, name.parse::<i32>()) {
                (Some(port), _) => port.container_port,
                (None, Ok(number)) => number,
                (None, Err(_)) => return Err(format!("couldn't find port {name:?} in container {}", container.name)),
            }
        }
    };
    u16::try_from(number).ok().filter(|port| *port > 0).ok_or_else(|| format!("invalid port number: {number}"))
}

#[cfg(test)]
mod tests {
    use super::{Check, Place, ProbeResult, ProbeState};
    use serde_json::{Value, json};
    use std::net::IpAddr;
    use std::time::Duration;
    use tokio::time::Instant;
    use windlass_api::types::core;

    #[test]
    fn verdicts_change_at_their_thresholds() {
        let probe = json!({"periodSeconds": 2, "initialDelaySeconds": 5, "successThreshold": 2, "failureThreshold": 3});
        let probe: core::Probe = serde_json::from_value(probe).expect("a probe");
        let start = Instant::now();
        let mut state = ProbeState::begin(&probe, start);
        assert_eq!(state.due, start + Duration::from_secs(5));
        let shown: String = "sfssuffsfffs"
            .chars()
            .map(|result| {
                let result = match result {
                    's' => ProbeResult::Success,
                    'f' => ProbeResult::Failure(String::new()),
                    _ => ProbeResult::Unknown(String::new()),
                };
                match (state.take_in(&probe, &result, start), state.verdict) {
                    (true, Some(true)) => 'Y',
                    (true, Some(false)) => 'N',
                    _ => '.',
                }
            })
            .collect();
        assert_eq!(shown, "...Y......N.", "s s gives yes, f f f gives no, unknown gives nothing");
        assert_eq!(state.due, start + Duration::from_secs(2));
    }

    fn check(probe: Value, host_network: bool) -> String {
        let container = json!({"name": "c", "ports": [{"name": "web", "containerPort": 8080}]});
        let container: core::Container = serde_json::from_value(container).expect("a container");
        let probe: core::Probe = serde_json::from_value(probe).expect("a probe");
        let ips: [IpAddr; 1] = ["10.42.0.5".parse().expect("an address")];
        match Check::of_probe(&probe, &container, Place { ips: &ips, host_network }) {
            Check::Exec(exec) => format!("{:?}", exec.args),
            Check::Http(get) => format!("{}://{}:{}{}", get.scheme, get.host, get.port, get.path),
            Check::Tcp(address, timeout) => format!("{address} {timeout:?}"),
            Check::Grpc(check) => format!("grpc {} {:?} tls {}", check.address, check.service, check.tls),
            Check::Impossible(why) => why,
        }
    }

    #[test]
    fn probes_go_to_the_pod_by_number_or_name() {
        assert_eq!(check(json!({"httpGet": {"port": "web", "path": "x"}}), false), "http://10.42.0.5:8080/x");
        assert_eq!(check(json!({"httpGet": {"port": 81, "scheme": "HTTPS"}}), false), "https://10.42.0.5:81/");
        assert_eq!(check(json!({"tcpSocket": {"port": 81}, "timeoutSeconds": 3}), false), "10.42.0.5:81 3s");
        assert_eq!(check(json!({"exec": {"command": ["true"]}}), false), "[\"true\"]");
        assert_eq!(check(json!({"grpc": {"port": 5000}}), false), "grpc 10.42.0.5:5000 \"\" tls false");
        let other = json!({"grpc": {"port": 5000, "service": "a.b", "mode": "TLS"}});
        assert_eq!(check(other, false), "grpc 10.42.0.5:5000 \"a.b\" tls true");
        assert_eq!(check(json!({"tcpSocket": {"port": 81, "host": "127.0.0.1"}}), true), "127.0.0.1:81 1s");
    }

    #[test]
    fn a88_a_probe_of_something_else_is_impossible() {
        for host in ["169.254.169.254", "127.0.0.1", "localhost", "metadata.internal", "10.42.0.6", "::1"] {
            let why = check(json!({"httpGet": {"port": 80, "host": host}}), false);
            assert!(why.contains("is not the pod"), "{host}: {why}");
        }
        assert!(check(json!({"httpGet": {"port": "none"}}), false).contains("couldn't find port"));
        assert!(check(json!({"tcpSocket": {"port": 0}}), false).contains("invalid port"));
        assert!(check(json!({}), false).contains("no action"));
    }
}
