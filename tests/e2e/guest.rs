//! cgroup v2, crun and CRIU: this machine may have v1 only, and a kernel that CRIU does not know, so the built binary boots
//! in a guest with a stock Debian kernel.
//!
//! The guest is emulated, without hardware help and without a disk: its whole file system is one archive in memory.

mod script;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use script::{FIRST, MODULES, SECOND, pods};
use windlass_tests::cluster::{given, must, tail};

/// An emulated machine is some twenty times slower than this one.
const GUEST_TIMEOUT: Duration = Duration::from_secs(420);

/// Of CPU, memory and disks each: the node, all pods together, five pods and their containers.
const STALLS_MIN: u32 = 3 * 12;

pub fn limits_runtimes_and_checkpoints_hold_on_cgroup_v2_in_a_guest() {
    let directory = std::env::temp_dir().join(format!("windlass-guest-{}", std::process::id()));
    fs::create_dir_all(&directory).expect("the temporary directory is writable");
    let kernel = given("WINDLASS_GUEST_KERNEL");
    let archive = archive(&directory, &kernel);
    let console = directory.join("console");
    let mut command = Command::new("/usr/bin/qemu-system-x86_64");
    command.args([
        "-machine",
        "q35",
        "-cpu",
        "max",
        "-accel",
        "tcg,thread=multi",
        "-smp",
        "3",
        "-m",
        "3072",
        "-nographic",
    ]);
    command.args(["-nodefaults", "-no-reboot", "-serial"]).arg(format!("file:{}", console.display()));
    command.arg("-kernel").arg(find(&kernel.join("boot"), "vmlinuz-")).arg("-initrd").arg(&archive);
    command.args(["-append", "console=ttyS0 quiet panic=-1 cgroup_no_v1=all psi=1"]);
    let mut guest = command.stdin(Stdio::null()).spawn().expect("qemu-system-x86 is installed");
    let started = std::time::Instant::now();
    while guest.try_wait().expect("our own child can be waited for").is_none() {
        if started.elapsed() > GUEST_TIMEOUT {
            guest.kill().expect("our own child can be killed");
        }
        std::thread::park_timeout(Duration::from_millis(200));
    }
    let said = String::from_utf8_lossy(&fs::read(&console).unwrap_or_default()).replace('\r', "");
    let has = |line: &str| {
        assert!(said.lines().any(|found| found.contains(line)), "expected {line:?} in:\n{}", tail(&said, 80))
    };
    let never = |line: &str| assert!(!said.contains(line), "found {line:?} in:\n{}", tail(&said, 80));
    has("GUEST end");
    never("GUEST failed");
    for pod in ["limited", "by-runc", "by-crun"] {
        has(&format!("GUEST {pod}.memory.max={}", 48 * 1024 * 1024));
        has(&format!("GUEST {pod}.cpu.max=50000 100000"));
        has(&format!("GUEST {pod}.pids.max="));
        never(&format!("GUEST {pod}.pids.max=max"));
        has(&format!("GUEST {pod}.oom.group=1"));
        has(&format!("GUEST {pod}.exec=Seccomp: 2"));
    }
    has("GUEST pinned.cpus=1");
    has("GUEST pinned=Cpus_allowed_list: 1");
    has(&format!("GUEST pinned.huge={}", 4 << 20));
    for pod in ["hog", "family", "hog-runc", "hog-crun"] {
        has(&format!("GUEST {pod} ready=false reason=OOMKilled"));
    }
    never("outlived");
    has(&format!("GUEST resized.memory.max={}", 64 * 1024 * 1024));
    has("GUEST resized.cpu.max=30000 100000");
    has("GUEST forks=done");
    never("GUEST forks=max");
    checkpoints(&said);
    for pod in ["limited", "by-runc", "by-crun", "counter"] {
        let line = said.lines().find(|line| line.starts_with(&format!("GUEST {pod} ready=true"))).unwrap_or_default();
        assert!(line.ends_with("restarts=0"), "{pod} runs on, never restarted: {line:?} in:\n{}", tail(&said, 80));
    }
    let used = said.lines().find_map(|line| line.strip_prefix("GUEST used=")).unwrap_or_default();
    let [memory, cpu] = used.split(' ').collect::<Vec<_>>()[..] else {
        panic!("expected memory and CPU, found {used:?}")
    };
    assert!(memory.ends_with("Ki") && memory != "0Ki" && cpu.ends_with('n'), "what is used is told: {used:?}");
    let stalls = said.lines().find_map(|line| line.strip_prefix("GUEST stalls=")?.trim().parse().ok()).unwrap_or(0);
    assert!(stalls >= STALLS_MIN, "what five pods and the node waited for is told: {stalls} in:\n{}", tail(&said, 80));
    has("GUEST by-runc.left=0");
    has("GUEST by-crun.left=0");
    has("GUEST left=0");
    fs::remove_dir_all(&directory).expect("our own directory");
}

/// What is saved is whole and root's alone, what was saved goes on, and what is restored goes on from where it was saved.
fn checkpoints(said: &str) {
    let after = |start: &str| {
        let found = said.lines().find_map(|line| line.strip_prefix(&format!("GUEST {start}")));
        found.unwrap_or_else(|| panic!("expected {start:?} in:\n{}", tail(said, 80))).trim()
    };
    assert_eq!(after("checkpoint.directory="), "700 2");
    assert_eq!(after("checkpoint.modes="), "600");
    let files = "bind.mounts checkpoint config.dump deleted.files dump.log rootfs-diff.tar spec.dump stats-dump";
    assert_eq!(after("checkpoint.files="), files);
    assert_eq!(after("checkpoint.images="), "4");
    assert_eq!(after("runc.checkpoint="), "1");
    assert_eq!(after("checkpoint.changes="), "1");
    assert_ne!(after("checkpoint.secret="), "0", "what was in memory is in the images");
    let numbers = |text: &str| text.split_whitespace().filter_map(|word| word.parse().ok()).collect::<Vec<u64>>();
    let restored = numbers(after("restored="));
    let [first, second, third] = restored[..] else { panic!("it goes on counting: {restored:?}") };
    let [saved, lines, last] = numbers(after("counted="))[..] else { panic!("expected three numbers") };
    assert!((2..=saved + 1).contains(&first), "it began at {first}, and was saved before {saved}");
    assert_eq!((second, third), (first + 1, first + 2), "it goes on from there");
    assert!(lines == last && last > saved, "what was saved counts on and misses nothing: {lines} lines up to {last}");
}

fn find(directory: &Path, prefix: &str) -> PathBuf {
    let entries = fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let found = entries
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix)));
    found.unwrap_or_else(|| panic!("{prefix}* in {}", directory.display()))
}

/// Packs the guest's file system.
fn archive(directory: &Path, kernel: &Path) -> PathBuf {
    let root = directory.join("root");
    for part in ["bin", "lib/modules", "lib64", "test"] {
        fs::create_dir_all(root.join(part)).expect("writable");
    }
    let copy = |from: &Path, to: &str| {
        fs::copy(from, root.join(to)).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
    };
    copy(Path::new("/bin/busybox"), "bin/busybox");
    copy(&given("WINDLASS_KUBECTL"), "bin/kubectl");
    copy(&given("WINDLASS_IMAGE"), "test/demo.oci.tar");
    // Programs link libraries at run time, a debug build too: the guest needs the same ones. CRIU runs tar and gzip.
    let binary = given("WINDLASS_BIN");
    let programs = ["/usr/sbin/runc", "/usr/bin/crun", "/usr/sbin/criu", "/bin/tar", "/bin/gzip"].map(Path::new);
    for program in programs.into_iter().chain([&*binary]) {
        copy(program, &format!("bin/{}", program.file_name().expect("a program has a name").to_string_lossy()));
        let linked = must(Command::new("/usr/bin/ldd").arg(program));
        for word in linked.split_whitespace().filter(|word| word.starts_with('/') && !word.ends_with(':')) {
            let to = word.trim_start_matches('/');
            fs::create_dir_all(root.join(to).parent().expect("a library lies in a directory")).expect("writable");
            copy(Path::new(word), to);
        }
    }
    let texts = [("../init", FIRST.to_owned()), ("second", SECOND.replace("MODULES", MODULES)), ("pods.yaml", pods())];
    for (name, text) in texts {
        fs::write(root.join("test").join(name), text).expect("writable");
    }
    must(Command::new("/bin/chmod").arg("755").arg(root.join("init")));
    copy_modules(kernel, &root);
    let archive = directory.join("initrd");
    let pack = format!("cd {} && find . | busybox cpio -o -H newc > {}", root.display(), archive.display());
    must(Command::new("/bin/sh").args(["-c", &pack]));
    fs::remove_dir_all(&root).expect("our own directory");
    archive
}

/// The kernel's file system and network modules with their index, as `modprobe` expects them.
fn copy_modules(kernel: &Path, root: &Path) {
    let from = find(&kernel.join("lib/modules"), "");
    let version = from.file_name().expect("a version").to_string_lossy().into_owned();
    let to = root.join("lib/modules").join(&version);
    for part in
        ["kernel/net", "kernel/fs/overlayfs", "kernel/drivers/net", "kernel/lib", "kernel/crypto", "kernel/arch"]
    {
        let target = to.join(part);
        fs::create_dir_all(target.parent().expect("a module lies in a directory")).expect("writable");
        if from.join(part).exists() {
            must(Command::new("/bin/cp").arg("-a").arg(from.join(part)).arg(target.parent().expect("has a parent")));
        }
    }
    for index in ["modules.builtin", "modules.order"] {
        fs::copy(from.join(index), to.join(index)).expect("a kernel package has its indexes");
    }
    must(Command::new("/sbin/depmod").arg("-b").arg(root).arg(version));
}
