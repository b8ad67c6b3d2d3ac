//! What this computer is and has, as its own files say.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::path::Path;

use windlass_network::Cidr;
use windlass_runtime::image::ImageRecord;

use super::volume;
use crate::machine::{CpuPlace, CpuSet, Facts, MachineError};

/// An address outside of everybody's network (RFC 5737): asking for the way to it sends nothing.
const OUTSIDE: (Ipv4Addr, u16) = (Ipv4Addr::new(192, 0, 2, 1), 9);

/// The machine's own resolv.conf; empty when it has none.
pub fn resolv_conf() -> String {
    fs::read_to_string("/etc/resolv.conf").unwrap_or_default()
}

/// Reads everything but what runs containers. Addresses within `not` (the pods' network) are not the machine's own.
pub fn read(images: Vec<ImageRecord>, data: &Path, not: Option<Cidr>) -> Result<Facts, MachineError> {
    let text = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let memory = text("/proc/meminfo");
    let [(disk_bytes, disk_free_bytes), (disk_files, disk_free_files)] = volume::disk_of(data)?;
    Ok(Facts {
        hostname: text("/proc/sys/kernel/hostname"),
        addresses: addresses(not),
        cpus: std::thread::available_parallelism().map_or(1, |cpus| u32::try_from(cpus.get()).unwrap_or(u32::MAX)),
        cpu_places: cpu_places(),
        memory_bytes: memory_field(&memory, "MemTotal"),
        memory_free_bytes: memory_field(&memory, "MemAvailable"),
        disk_bytes,
        disk_free_bytes,
        disk_files,
        disk_free_files,
        huge_bytes: [2048, 1_048_576].map(|kib: u64| {
            let pages = fs::read_to_string(format!("/sys/kernel/mm/hugepages/hugepages-{kib}kB/nr_hugepages")).ok()?;
            Some(pages.trim().parse::<u64>().ok()?.saturating_mul(kib << 10))
        }),
        pids: (pids_max(), processes(&text("/proc/loadavg"))),
        architecture: architecture().to_owned(),
        operating_system: "linux".to_owned(),
        kernel_version: text("/proc/sys/kernel/osrelease"),
        os_image: os_image(&text("/etc/os-release")),
        machine_id: text("/etc/machine-id"),
        boot_id: boot_id(),
        runtime_version: concat!("windlass://", env!("CARGO_PKG_VERSION")).to_owned(),
        handlers: Vec::new(),
        images: images.into_iter().map(|image| (image.names, image.size)).collect(),
        app_armor: text("/sys/module/apparmor/parameters/enabled") == "Y",
        app_armor_default: text("/sys/kernel/security/apparmor/profiles").lines().any(is_default_profile),
        se_linux: Path::new("/sys/fs/selinux/enforce").exists(),
        hosts: fs::read_to_string("/etc/hosts").unwrap_or_default(),
        resolv_conf: resolv_conf(),
    })
}

/// Changes with every boot.
pub fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// A line of the loaded profiles: `NAME (enforce)`.
fn is_default_profile(line: &str) -> bool {
    line.split(' ').next() == Some(crate::steps::security::APP_ARMOR_DEFAULT)
}

/// The name Kubernetes has for the processor.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The CPUs that are on, and where they are (sysfs, devices/system/cpu).
fn cpu_places() -> Vec<CpuPlace> {
    let text = |path: &str| fs::read_to_string(format!("/sys/devices/system/cpu/{path}")).unwrap_or_default();
    let online: CpuSet = text("online").parse().unwrap_or_default();
    let place = |cpu: usize| {
        let number = |name: &str| text(&format!("cpu{cpu}/topology/{name}")).trim().parse::<u32>().ok();
        // Of a machine that does not say each is a core of its own.
        let core = number("core_id").unwrap_or_else(|| u32::try_from(cpu).unwrap_or(u32::MAX));
        CpuPlace { cpu, core, socket: number("physical_package_id").unwrap_or(0) }
    };
    online.iter().map(place).collect()
}

/// How many process ids there are.
pub fn pids_max() -> u64 {
    fs::read_to_string("/proc/sys/kernel/pid_max").unwrap_or_default().trim().parse().unwrap_or(0)
}

/// A field of /proc/meminfo in bytes.
pub fn memory_field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// Processes and threads that exist, from `0.10 0.20 0.30 1/234 5678`.
pub fn processes(loadavg: &str) -> u64 {
    let running = loadavg.split_whitespace().nth(3).and_then(|field| field.split_once('/'));
    running.and_then(|(_, all)| all.parse().ok()).unwrap_or(0)
}

fn os_image(text: &str) -> String {
    let pretty = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    pretty.map_or_else(|| "Linux".to_owned(), |name| name.trim_matches('"').to_owned())
}

/// The address of the way out, or else the first that is not of the pods' or the machine's inside.
fn addresses(not: Option<Cidr>) -> Vec<IpAddr> {
    let out = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).and_then(|socket| {
        socket.connect(OUTSIDE)?;
        socket.local_addr()
    });
    let is_ours = |ip: &IpAddr| match ip {
        IpAddr::V4(ip) => !ip.is_loopback() && !ip.is_unspecified() && !not.is_some_and(|not| not.contains(*ip)),
        IpAddr::V6(_) => false,
    };
    let first = out.ok().map(|address| address.ip()).filter(is_ours);
    let found = first.or_else(|| {
        let trie = fs::read_to_string("/proc/thread-self/net/fib_trie").unwrap_or_default();
        local_addresses(&trie).into_iter().map(IpAddr::V4).find(is_ours)
    });
    vec![found.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))]
}

/// The machine's own addresses in fib_trie: a line with the address, then one with `/32 host LOCAL`.
fn local_addresses(trie: &str) -> Vec<Ipv4Addr> {
    let mut found = Vec::new();
    let mut last = None;
    for line in trie.lines() {
        if let Some((_, address)) = line.split_once("|-- ") {
            last = address.trim().parse::<Ipv4Addr>().ok();
        } else if line.trim() == "/32 host LOCAL"
            && let Some(address) = last.filter(|address| !found.contains(address))
        {
            found.push(address);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::{local_addresses, memory_field, os_image, processes};

    #[test]
    fn the_kernels_files_are_read() {
        let memory = "MemTotal:       24633000 kB\nMemFree: 1 kB\nMemAvailable:   2048 kB\n";
        assert_eq!(
            (memory_field(memory, "MemTotal"), memory_field(memory, "MemAvailable")),
            (24_633_000 * 1024, 2 << 20)
        );
        assert_eq!(processes("0.10 0.20 0.30 1/234 5678"), 234);
        assert_eq!(
            os_image("ID=debian\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n"),
            "Debian GNU/Linux 12 (bookworm)"
        );
        let trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 192.0.2.7\n        /32 host LOCAL\n     |-- 192.0.2.255\n        /32 link BROADCAST\n";
        let trie = format!(
            "{trie}Local:\n     |-- 127.0.0.1\n        /32 host LOCAL\n     |-- 192.0.2.7\n        /32 host LOCAL\n"
        );
        let shown: Vec<String> = local_addresses(&trie).iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["192.0.2.7", "127.0.0.1"]);
    }
}
