//! cgroup v2: this machine may have v1 only, so the built binary boots in a guest with a stock Debian kernel.
//!
//! The guest is emulated, without hardware help and without a disk: its whole file system is one archive in memory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use windlass_tests::cluster::{given, must, tail};

/// An emulated machine is some twenty times slower than this one.
const GUEST_TIMEOUT: Duration = Duration::from_secs(420);

/// Kernel modules that a Debian cloud kernel does not have built in and Windlass needs.
const MODULES: &str = "overlay veth bridge nf_tables nft_chain_nat nft_masq nft_nat nft_ct nft_numgen nft_reject nft_reject_ipv4 nft_reject_inet nft_redir nft_fib nft_fib_ipv4 nft_hash nft_limit nf_conntrack_netlink vxlan tun";

/// The first program of the guest. A process cannot pivot out of the archive itself, so it moves into a tmpfs first.
const FIRST: &str = "#!/bin/busybox sh
/bin/busybox mkdir -p /proc /new
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t tmpfs -o size=90% root /new
cd / && for part in bin lib lib64 test; do /bin/busybox cp -a $part /new/; done
exec /bin/busybox switch_root /new /bin/busybox sh /test/second
";

const SECOND: &str = "export PATH=/bin
/bin/busybox mkdir -p /proc /sys /dev /run /tmp /var/lib /etc /root /sbin /usr/bin
/bin/busybox --install -s /bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
mkdir -p /dev/pts; mount -t devpts devpts /dev/pts
mount -t cgroup2 cgroup2 /sys/fs/cgroup
for module in MODULES; do modprobe $module 2>/dev/null; done
ip link set lo up
ip link add eth9 type dummy 2>/dev/null || ip link add eth9 type veth peer name eth8
ip addr add 192.0.2.10/24 dev eth9; ip link set eth9 up; ip route add default via 192.0.2.1
hostname guest
echo '127.0.0.1 localhost guest' > /etc/hosts
export HOME=/root KUBECONFIG=/var/lib/windlass/admin.kubeconfig WINDLASS_LOG=info
say() { echo \"GUEST $*\"; }
echo 8 > /proc/sys/vm/nr_hugepages
windlass up --detach --cpu-manager-policy static --reserved-cpus 0 || { say failed: up; cat /var/lib/windlass/windlass.log; poweroff -f; }
windlass image import /test/demo.oci.tar || say failed: import
kubectl apply -f /test/pod.yaml || say failed: apply
kubectl wait --for=condition=Ready pod/limited --timeout=120s || { say failed: ready; kubectl describe pod limited; tail -30 /var/lib/windlass/windlass.log; }
group=$(find /sys/fs/cgroup/windlass -name memory.max | awk '{print length($0), $0}' | sort -n | tail -1 | cut -d' ' -f2-)
group=${group%/memory.max}
say memory.max=$(cat $group/memory.max)
say cpu.max=$(cat $group/cpu.max)
say pids.max=$(cat $group/pids.max)
say procs=$(wc -l < $group/cgroup.procs)
say oom.group=$(cat $group/memory.oom.group)
say cpu.weight=$(cat $group/cpu.weight)
kubectl patch pod limited --subresource resize -p '{\"spec\": {\"containers\": [{\"name\": \"main\", \"resources\": {\"limits\": {\"cpu\": \"300m\", \"memory\": \"64Mi\"}}}]}}' || say failed: resize
for i in $(seq 60); do [ \"$(cat $group/memory.max)\" = 67108864 ] && break; sleep 1; done
say resized.memory.max=$(cat $group/memory.max)
say resized.cpu.max=$(cat $group/cpu.max)
say resized.restarts=$(kubectl get pod limited -o 'jsonpath={.status.containerStatuses[0].restartCount}')
kubectl apply -f /test/pinned.yaml
kubectl wait --for=condition=Ready pod/pinned --timeout=120s || { say failed: pinned; kubectl describe pod pinned; }
uid=$(kubectl get pod pinned -o 'jsonpath={.metadata.uid}')
own=$(find /sys/fs/cgroup/windlass -path \"*$uid*\" -name cpuset.cpus | awk '{print length($0), $0}' | sort -n | tail -1 | cut -d' ' -f2-)
say pinned.cpus=$(cat $own)
say pinned.huge=$(cat ${own%/cpuset.cpus}/hugetlb.2MB.max)
kubectl exec pinned -- sh -c 'grep Cpus_allowed_list: /proc/self/status' | while read line; do say pinned=$line; done
kubectl apply -f /test/hog.yaml
for pod in hog family; do
for i in $(seq 60); do reason=$(kubectl get pod $pod -o 'jsonpath={.status.containerStatuses[0].state.terminated.reason}'); [ -n \"$reason\" ] && break; sleep 1; done
say $pod=$reason
done
kubectl logs family | while read line; do say family.said=$line; done
kubectl apply -f /test/forks.yaml
for i in $(seq 60); do kubectl logs forks 2>/dev/null | grep -q done && break; sleep 1; done
kubectl logs forks | while read line; do say forks=$line; done
kubectl exec limited -- sh -c 'grep Seccomp: /proc/self/status; cat /proc/self/cgroup' | while read line; do say exec=$line; done
windlass down
say left=$(find /sys/fs/cgroup -maxdepth 1 -name windlass | wc -l)
say end
poweroff -f
";

const POD: &str = "apiVersion: v1
kind: Pod
metadata: {name: limited}
spec:
  containers:
  - name: main
    image: windlass.local/demo:1
    resources: {requests: {cpu: 100m, memory: 16Mi}, limits: {cpu: 500m, memory: 48Mi}}
";

/// It has a CPU for itself, and two huge pages.
const PINNED: &str = "apiVersion: v1
kind: Pod
metadata: {name: pinned}
spec:
  containers:
  - name: main
    image: windlass.local/demo:1
    resources: {limits: {cpu: 1, memory: 32Mi, hugepages-2Mi: 4Mi}}
";

const HOG: &str = "apiVersion: v1
kind: Pod
metadata: {name: hog}
spec:
  restartPolicy: Never
  containers:
  - name: main
    image: windlass.local/demo:1
    command: [sh, -c, 'x=$(yes 0123456789abcdef | head -c 64000000); echo survived']
    resources: {limits: {memory: 24Mi}}
---
apiVersion: v1
kind: Pod
metadata: {name: family}
spec:
  restartPolicy: Never
  containers:
  - name: main
    image: windlass.local/demo:1
    command: [sh, -c, 'sh -c \"x=\\$(yes 0123456789abcdef | head -c 64000000)\"; echo outlived; sleep 1000']
    resources: {limits: {memory: 24Mi}}
";

/// It tells the limit of processes that it sees.
const FORKS: &str = "apiVersion: v1
kind: Pod
metadata: {name: forks}
spec:
  restartPolicy: Never
  containers:
  - name: main
    image: windlass.local/demo:1
    command: [sh, -c, 'cat /sys/fs/cgroup/pids.max; echo done']
";

pub fn limits_hold_on_cgroup_v2_in_a_guest() {
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
    command.args(["-append", "console=ttyS0 quiet panic=-1 cgroup_no_v1=all"]);
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
    has("GUEST end");
    has(&format!("GUEST memory.max={}", 48 * 1024 * 1024));
    has("GUEST cpu.max=50000 100000");
    has("GUEST pinned.cpus=1");
    has("GUEST pinned=Cpus_allowed_list: 1");
    has(&format!("GUEST pinned.huge={}", 4 << 20));
    has("GUEST hog=OOMKilled");
    has("GUEST oom.group=1");
    has("GUEST family=OOMKilled");
    assert!(!said.contains("outlived"), "all of a container goes: {}", tail(&said, 80));
    has(&format!("GUEST resized.memory.max={}", 64 * 1024 * 1024));
    has("GUEST resized.cpu.max=30000 100000");
    has("GUEST resized.restarts=0");
    has("GUEST forks=done");
    assert!(!said.contains("GUEST forks=max"), "the container sees its own limit: {}", tail(&said, 80));
    has("GUEST exec=Seccomp: 2");
    has("GUEST left=0");
    assert!(!said.contains("GUEST pids.max=max"), "pids are limited: {}", tail(&said, 80));
    assert!(!said.contains("GUEST failed"), "{}", tail(&said, 80));
    fs::remove_dir_all(&directory).expect("our own directory");
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
    let binary = given("WINDLASS_BIN");
    copy(&binary, "bin/windlass");
    // A debug build links the C library at run time: the guest needs the same one.
    for word in must(Command::new("/usr/bin/ldd").arg(&binary)).split_whitespace().filter(|word| word.starts_with('/'))
    {
        let to = word.trim_start_matches('/');
        fs::create_dir_all(root.join(to).parent().expect("a library lies in a directory")).expect("writable");
        copy(Path::new(word), to);
    }
    let texts = [
        ("../init", FIRST.to_owned()),
        ("second", SECOND.replace("MODULES", MODULES)),
        ("pod.yaml", POD.to_owned()),
        ("pinned.yaml", PINNED.to_owned()),
        ("hog.yaml", HOG.to_owned()),
        ("forks.yaml", FORKS.to_owned()),
    ];
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
