//! What the guest is told to do, and what it runs. All it has to say is a line on its console that begins with `GUEST`.
//!
//! An emulated machine takes seconds to start a client, so one question is asked about many pods, and the rest is read from
//! the kernel's own files.

/// Kernel modules that a Debian cloud kernel does not have built in: what Windlass needs, and then CRIU.
pub const MODULES: &str = "overlay veth bridge nf_tables nft_chain_nat nft_masq nft_nat nft_ct nft_numgen nft_reject nft_reject_ipv4 nft_reject_inet nft_redir nft_fib nft_fib_ipv4 nft_hash nft_limit nf_conntrack_netlink vxlan tun unix_diag inet_diag tcp_diag udp_diag raw_diag af_packet_diag netlink_diag";

/// The first program of the guest. A process cannot pivot out of the archive itself, so it moves into a tmpfs first.
pub const FIRST: &str = r#"#!/bin/busybox sh
/bin/busybox mkdir -p /proc /new
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t tmpfs -o size=90% root /new
cd / && for part in bin lib lib64 test; do /bin/busybox cp -a $part /new/; done
exec /bin/busybox switch_root /new /bin/busybox sh /test/second
"#;

pub const SECOND: &str = r#"export PATH=/bin
/bin/busybox mkdir -p /proc /sys /dev /run /tmp /var/lib /etc /root /sbin /usr/bin
/bin/busybox --install -s /bin 2>/dev/null
ln -s /bin /usr/sbin
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
say() { echo "GUEST $*"; }
took() { say "$1 at $(cut -d. -f1 /proc/uptime) s"; }
look() { kubectl get pods -o 'jsonpath={range .items[*]}{.metadata.name} ready={.status.containerStatuses[0].ready} reason={.status.containerStatuses[0].state.terminated.reason} uid={.metadata.uid} restarts={.status.containerStatuses[0].restartCount}{"\n"}{end}' > /tmp/pods; }
group() { echo /sys/fs/cgroup/windlass/$(grep "^$1 " /tmp/pods | sed 's/.*uid=//; s/ .*//')/main.0; }
echo 8 > /proc/sys/vm/nr_hugepages
windlass up --detach --cpu-manager-policy static --reserved-cpus 0 || { say failed: up; cat /var/lib/windlass/windlass.log; poweroff -f; }
windlass image import /test/demo.oci.tar || say failed: import
took up
kubectl apply -f /test/pods.yaml || say failed: apply
kubectl wait --for=condition=Ready pod -l is=asked-for --timeout=120s || { say failed: ready; kubectl describe pods; tail -30 /var/lib/windlass/windlass.log; }
look
took ready

for pod in limited by-runc by-crun; do
say $pod.memory.max=$(cat $(group $pod)/memory.max)
say $pod.cpu.max=$(cat $(group $pod)/cpu.max)
say $pod.pids.max=$(cat $(group $pod)/pids.max)
say $pod.oom.group=$(cat $(group $pod)/memory.oom.group)
say $pod.procs=$(find $(group $pod) -name cgroup.procs | xargs cat | wc -l)
done
say pinned.cpus=$(cat $(group pinned)/cpuset.cpus)
say pinned.huge=$(cat $(group pinned)/hugetlb.2MB.max)
say pinned=$(grep Cpus_allowed_list: /proc/$(head -1 $(group pinned)/cgroup.procs)/status)

for pod in limited by-runc by-crun; do
kubectl exec $pod -- sh -c 'grep Seccomp: /proc/self/status; cat /proc/self/cgroup' | while read line; do say $pod.exec=$line; done
done
kubectl patch pod limited --subresource resize -p '{"spec": {"containers": [{"name": "main", "resources": {"limits": {"cpu": "300m", "memory": "64Mi"}}}]}}' || say failed: resize
for i in $(seq 60); do [ "$(cat $(group limited)/memory.max)" = 67108864 ] && break; sleep 1; done
say resized.memory.max=$(cat $(group limited)/memory.max)
say resized.cpu.max=$(cat $(group limited)/cpu.max)
took resized

kept=/var/lib/kubelet/checkpoints
for pod in counter by-runc; do
kubectl create --raw "/api/v1/nodes/guest/proxy/checkpoint/default/$pod/main?timeout=60" -f /dev/null > /tmp/made || say failed: checkpoint of $pod
done
took saved
say checkpoint.directory=$(stat -c %a $kept) $(ls $kept | wc -l)
say checkpoint.modes=$(stat -c %a $kept/*.tar | sort -u)
mkdir /tmp/runc /tmp/saved && busybox tar xf $kept/checkpoint-by-runc_default-main-*.tar -C /tmp/runc && busybox tar xf $kept/checkpoint-counter_default-main-*.tar -C /tmp/saved
say runc.checkpoint=$(ls /tmp/runc/checkpoint | grep -c '^core-1.img$')
say checkpoint.files=$(ls /tmp/saved)
say checkpoint.images=$(ls /tmp/saved/checkpoint | grep -cE '^(core-1|pages-1|pstree|inventory)[.]img$')
say checkpoint.changes=$(busybox tar tf /tmp/saved/rootfs-diff.tar | grep -c '^tmp/begun$')
say checkpoint.secret=$(cat /tmp/saved/checkpoint/pages-*.img | grep -c a-word-in-memory)
saved=$(tail -1 $(ls /var/lib/windlass/pods/$(basename $(dirname $(group counter)))/logs/main/0.log) | sed 's/.* //')
init=$(head -1 $(group counter)/cgroup.procs)
mkdir /tmp/again && cd /proc/$init/root && for part in *; do case $part in proc|sys|dev) mkdir /tmp/again/$part;; *) cp -a $part /tmp/again/;; esac; done; cd /
mount --bind /tmp/again /tmp/again
binds=$(tr -d '", ' < /tmp/saved/bind.mounts | awk -F: '$1 == "destination" {seen = $2} $1 == "source" {print "--external mnt[" seen "]:" $2}')
criu restore --images-dir /tmp/saved/checkpoint --work-dir /tmp/saved --log-file restore.log -v3 --restore-detached --pidfile /tmp/again.pid --root /tmp/again --manage-cgroups=ignore --file-locks --ext-unix-sk --tcp-established $binds --inherit-fd "fd[5]:$(readlink /proc/$init/fd/1)" --inherit-fd "fd[6]:$(readlink /proc/$init/fd/2)" 5>/tmp/again.out 6>/tmp/again.err || { say failed: restore; grep -E 'Error|Warn' /tmp/saved/restore.log; }
for i in $(seq 20); do [ "$(wc -l < /tmp/again.out)" -ge 3 ] && break; sleep 1; done
say restored=$(head -3 /tmp/again.out)
kill -9 $(cat /tmp/again.pid)
took restored

for i in $(seq 60); do look; [ $(grep -c 'reason=OOMKilled\|reason=Completed' /tmp/pods) -ge 5 ] && break; sleep 1; done
for pod in hog family hog-runc hog-crun forks; do say $(grep "^$pod " /tmp/pods); done
for pod in limited counter by-runc by-crun; do say $(grep "^$pod " /tmp/pods); done
kubectl logs family | while read line; do say family.said=$line; done
kubectl logs forks | while read line; do say forks=$line; done
kubectl logs counter > /tmp/counted
say counted=$saved $(wc -l < /tmp/counted) $(tail -1 /tmp/counted)
took ended

say used=$(kubectl get podmetrics counter -o 'jsonpath={.containers[0].usage.memory} {.containers[0].usage.cpu}')
kubectl get --raw '/api/v1/nodes/guest/proxy/stats/summary?only_cpu_and_memory=true' > /tmp/summary || say failed: summary
say stalls=$(grep -o '"psi":' /tmp/summary | wc -l)
kubectl delete pod by-runc by-crun hog-runc hog-crun --timeout=60s > /dev/null || say failed: delete
for pod in by-runc by-crun; do say $pod.left=$(find /run /sys/fs/cgroup /var/lib/windlass/runtime /var/lib/windlass/pods -name $(basename $(dirname $(group $pod))) | wc -l); done
windlass down
say left=$(find /sys/fs/cgroup -maxdepth 1 -name windlass | wc -l)
took down
say end
poweroff -f
"#;

/// What is run: in each way a pod with limits, the one that runc runs with a terminal, and one that takes too much.
pub fn pods() -> String {
    let mut all = PODS.to_owned();
    for (limited, hog, class, terminal) in [
        ("limited", "hog", None, false),
        ("by-runc", "hog-runc", Some("runc"), true),
        ("by-crun", "hog-crun", Some("crun"), false),
    ] {
        if let Some(class) = class {
            all += &format!(
                "---\napiVersion: node.k8s.io/v1\nkind: RuntimeClass\nmetadata: {{name: {class}}}\nhandler: {class}\n"
            );
        }
        let class = class.map(|class| format!("  runtimeClassName: {class}\n")).unwrap_or_default();
        all += &format!(
            "---
apiVersion: v1
kind: Pod
metadata: {{name: {limited}, labels: {{is: asked-for}}}}
spec:
{class}  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: windlass.local/demo:1
    tty: {terminal}
    resources: {{requests: {{cpu: 100m, memory: 16Mi}}, limits: {{cpu: 500m, memory: 48Mi}}}}
---
apiVersion: v1
kind: Pod
metadata: {{name: {hog}}}
spec:
{class}  restartPolicy: Never
  containers:
  - name: main
    image: windlass.local/demo:1
    command: [sh, -c, 'x=$(yes 0123456789abcdef | head -c 64000000); echo survived']
    resources: {{limits: {{memory: 24Mi}}}}
"
        );
    }
    all
}

/// Beside these: one with a CPU and huge pages of its own, one that counts in memory, and some that look at their limits.
const PODS: &str = "---
# It has a CPU for itself, and two huge pages.
apiVersion: v1
kind: Pod
metadata: {name: pinned, labels: {is: asked-for}}
spec:
  containers:
  - name: main
    image: windlass.local/demo:1
    resources: {limits: {cpu: 1, memory: 32Mi, hugepages-2Mi: 4Mi}}
---
apiVersion: v1
kind: Pod
metadata: {name: counter, labels: {is: asked-for}}
spec:
  containers:
  - name: main
    image: windlass.local/demo:1
    command: [sh, -c, 'touch /tmp/begun; word=a-word-in-memory; i=0; while true; do i=$((i+1)); echo $i; sleep 1; done']
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
---
# It tells the limit of processes that it sees.
apiVersion: v1
kind: Pod
metadata: {name: forks}
spec:
  restartPolicy: Never
  containers:
  - name: main
    image: windlass.local/demo:1
    command: [sh, -c, 'cat /sys/fs/cgroup/pids.max; echo done']
";
