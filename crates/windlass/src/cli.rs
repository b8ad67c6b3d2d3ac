//! The command line: every flag once, with its default.

pub mod apply;
pub mod candidates;
pub mod channel;
pub mod chosen;
pub mod completion;
pub mod config;
pub mod cp;
pub mod create;
pub mod delete;
pub mod describe;
pub mod discovery;
pub mod dry_run;
pub mod duration;
pub mod edit;
pub mod events;
pub mod exec;
pub mod explain;
pub mod failure;
pub mod get;
pub mod kustomize;
pub mod label;
pub mod logs;
pub mod manifest;
pub mod order;
pub mod output;
pub mod patch;
pub mod plugin;
pub mod podset;
pub mod port_forward;
pub mod rollout;
pub mod scale;
pub mod select;
pub mod session;
pub mod stream;
pub mod target;
pub mod top;
pub mod trace;
pub mod verb;
pub mod wait;
pub mod write;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use windlass_api::quantity::Quantity;
use windlass_node::config::CpuSet;
use windlass_node::kernel::{CDI_DIRECTORIES, EMBEDDED};

use self::verb::Verb;
use crate::place::PlaceFlags;

/// A container orchestrator in one binary, speaking the Kubernetes API.
#[derive(Parser)]
#[command(name = "windlass", version, about)]
pub struct Cli {
    #[command(flatten)]
    pub place: PlaceFlags,
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Subcommand)]
pub enum Command {
    /// Start a whole cluster on this machine: server and node in one process
    Up(UpFlags),
    /// Start only the server: API, store, controllers, scheduler
    Server(ServerFlags),
    /// Start only a node, joined to a server
    Node(JoinFlags),
    /// Stop what runs here and remove its containers, mounts, namespaces, cgroups, interfaces and rules
    Down {
        /// Remove the data too: objects, images, certificates
        #[arg(long)]
        purge: bool,
    },
    /// Say how the cluster is
    Status,
    /// Images on this machine
    Image {
        #[command(subcommand)]
        command: ImageCommand,
    },
    /// Print the administrator's kubeconfig
    Kubeconfig {
        /// Print the path of the file instead
        #[arg(long)]
        path: bool,
    },
    /// Print the token with which another machine joins: `windlass node --server … --token …`
    Token,
    /// Make a new key for service account tokens; what the keys before it have signed counts until it ends
    RotateTokenKey,
    /// Write the cluster's objects and keys to one file, whether or not it runs
    Backup {
        /// The file, which must not be there yet; `-` is standard output
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Make this place the cluster of a backup; `windlass up` then goes on with it
    Restore(RestoreFlags),
    /// The words of kubectl
    #[command(flatten)]
    Verb(Box<Verb>),
}

/// Where the API is served and which networks the cluster uses.
#[derive(Args, Clone)]
pub struct ServerFlags {
    /// Where the API listens
    #[arg(long, default_value = "127.0.0.1:6443")]
    pub listen: SocketAddr,
    /// More names or addresses that the API's certificate is good for
    #[arg(long = "san", value_name = "NAME")]
    pub names: Vec<String>,
    #[command(flatten)]
    pub networks: NetworkFlags,
    #[command(flatten)]
    pub audit: AuditFlags,
}

/// What is noted of requests, and where.
#[derive(Args, Clone)]
pub struct AuditFlags {
    /// The file that requests leave their events in; without it there is no audit log
    #[arg(long, value_name = "FILE")]
    pub audit_log_path: Option<PathBuf>,
    /// Which requests leave events, and how much they tell (audit.k8s.io/v1 Policy); without it who asked for what, and
    /// no bodies
    #[arg(long, value_name = "FILE", requires = "audit_log_path")]
    pub audit_policy_file: Option<PathBuf>,
    /// Megabytes of the file before it is put aside
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub audit_log_maxsize: u64,
    /// Files put aside that are kept
    #[arg(long, default_value_t = 10)]
    pub audit_log_maxbackup: usize,
    /// Days that a file put aside is kept
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=36_500))]
    pub audit_log_maxage: u64,
}

/// The cluster's networks.
#[derive(Args, Clone)]
pub struct NetworkFlags {
    /// The network of all pods; each node gets a /24 of it
    #[arg(long, default_value = "10.42.0.0/16", value_parser = parse_network)]
    pub pod_cidr: String,
    /// The network of Service addresses; the tenth is the cluster's DNS
    #[arg(long, default_value = "10.43.0.0/16", value_parser = parse_network)]
    pub service_cidr: String,
}

/// What a node is.
#[derive(Args, Clone)]
pub struct NodeFlags {
    /// The node's name; the machine's host name unless given
    #[arg(long)]
    pub node_name: Option<String>,
    /// The address that others reach this node at; found unless given
    #[arg(long)]
    pub node_address: Option<IpAddr>,
    /// Where the node agent listens for logs, exec and port-forward
    #[arg(long, default_value_t = 10250)]
    pub node_port: u16,
    /// A directory whose files are pods that run on this node, whatever the API says
    #[arg(long, value_name = "DIRECTORY")]
    pub manifests: Option<PathBuf>,
    /// A CredentialProviderConfig: programs that have credentials for registries
    #[arg(long, value_name = "FILE")]
    pub image_credential_provider_config: Option<PathBuf>,
    /// The directory with these programs
    #[arg(long, value_name = "DIRECTORY")]
    pub image_credential_provider_bin_dir: Option<PathBuf>,
    /// What runs the containers of pods whose RuntimeClass has this handler: a program with the command line of OCI
    /// runtimes, or unix:///SOCKET of a runtime that serves CRI; may be repeated. `runc` and `crun` are known where they are
    /// on the PATH
    #[arg(long = "runtime", value_name = "NAME=PROGRAM|SOCKET", value_parser = parse_runtime)]
    pub runtimes: Vec<(String, PathBuf)>,
    /// The handler of pods without a RuntimeClass; `windlass` is what this program does by itself
    #[arg(long, value_name = "NAME", default_value = EMBEDDED)]
    pub default_runtime: String,
    /// The directory where device plugins register; kubelet's own unless given
    #[arg(long, value_name = "DIRECTORY")]
    pub device_plugins: Option<PathBuf>,
    /// The directory of the socket that says which pod has which devices; kubelet's own unless given
    #[arg(long, value_name = "DIRECTORY")]
    pub pod_resources: Option<PathBuf>,
    /// Directories whose files say what containers need to use devices (CDI); later ones have precedence
    #[arg(long, value_name = "DIRECTORIES", value_delimiter = ',', default_values_os_t = CDI_DIRECTORIES.map(PathBuf::from))]
    pub cdi_dirs: Vec<PathBuf>,
    /// Seconds without a sign of life after which the node counts as lost
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u64).range(4..=600))]
    pub node_lease_seconds: u64,
    /// Kernel parameters that pods may set beyond the safe ones, as kernel.msg*,net.core.somaxconn
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    pub allowed_unsafe_sysctls: Vec<String>,
    /// Whether containers of Guaranteed pods that ask for whole CPUs have these for themselves
    #[arg(long, value_enum, default_value_t = CpuPolicyFlag::None)]
    pub cpu_manager_policy: CpuPolicyFlag,
    /// CPUs that pods are not promised and nobody has for itself, as 0 or 0-1,8
    #[arg(long, value_name = "CPUS", conflicts_with = "reserved_cpu")]
    pub reserved_cpus: Option<CpuSet>,
    /// CPU that pods are not promised, as 500m
    #[arg(long, value_name = "QUANTITY")]
    pub reserved_cpu: Option<Quantity>,
    /// Memory that pods are not promised, as 1Gi
    #[arg(long, value_name = "QUANTITY")]
    pub reserved_memory: Option<Quantity>,
    /// Disk space that pods are not promised, as 10Gi
    #[arg(long, value_name = "QUANTITY")]
    pub reserved_storage: Option<Quantity>,
    /// Seconds that pods have to end when the machine goes down, which SIGTERM says (SIGINT ends the agent only); 0 lets
    /// them run
    #[arg(long, default_value_t = 0, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(..=3600))]
    pub shutdown_grace: u64,
    /// How many of these belong to pods of the critical priority classes, which end last
    #[arg(long, default_value_t = 0, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(..=3600))]
    pub shutdown_grace_critical: u64,
    /// Less free memory than this makes the node evict pods, as 100Mi
    #[arg(long, value_name = "QUANTITY")]
    pub eviction_memory: Option<Quantity>,
    /// Less free disk space than this makes the node remove unused images, then evict pods, as 5Gi
    #[arg(long, value_name = "QUANTITY")]
    pub eviction_storage: Option<Quantity>,
    /// Room for fewer new files on the disk than this does the same
    #[arg(long, value_name = "NUMBER")]
    pub eviction_files: Option<u64>,
    /// Fewer free process ids than this make the node evict pods; by default a twentieth of all
    #[arg(long, value_name = "COUNT")]
    pub eviction_pids: Option<u64>,
    /// From so much of the disk in use on, unused images are removed, in percent; 100 is never
    #[arg(long, default_value_t = 85, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(0..=100))]
    pub image_gc_high_threshold: u8,
    /// Until so much of it is in use
    #[arg(long, default_value_t = 80, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(0..=100))]
    pub image_gc_low_threshold: u8,
    /// Images that have been here for less are spared, in seconds
    #[arg(long, default_value_t = 120, value_name = "SECONDS")]
    pub image_gc_minimum_age: u64,
    /// Images that are fetched from one registry at one time
    #[arg(long, default_value_t = 3, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub parallel_image_pulls: u32,
}

/// `--cpu-manager-policy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CpuPolicyFlag {
    None,
    Static,
}

/// `windlass up`.
#[derive(Args, Clone)]
pub struct UpFlags {
    #[command(flatten)]
    pub server: ServerFlags,
    #[command(flatten)]
    pub node: NodeFlags,
    /// Go on in the background and return when the node is Ready
    #[arg(long)]
    pub detach: bool,
}

/// `windlass restore`.
#[derive(Args, Clone)]
pub struct RestoreFlags {
    /// What `windlass backup` wrote; `-` is standard input
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Put the store and the keys that are here aside, if they are of the same cluster
    #[arg(long)]
    pub replace: bool,
    /// Refuse a backup of any other cluster than this one
    #[arg(long, value_name = "ID")]
    pub cluster: Option<String>,
    /// Only read the file, say whether it is whole and of what it is, and change nothing
    #[arg(long, conflicts_with = "replace")]
    pub check: bool,
}

/// `windlass node`.
#[derive(Args, Clone)]
pub struct JoinFlags {
    /// The server's URL, such as https://10.0.0.1:6443
    #[arg(long)]
    pub server: String,
    /// What `windlass token` printed on the server; needed the first time only
    #[arg(long, env = "WINDLASS_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    #[command(flatten)]
    pub node: NodeFlags,
    #[command(flatten)]
    pub networks: NetworkFlags,
}

/// `windlass image …`.
#[derive(Subcommand)]
pub enum ImageCommand {
    /// Take in an archive: an OCI layout or what `docker save` writes
    Import {
        /// The archive, or the directory of an OCI layout
        path: PathBuf,
        /// The name it gets, instead of those in the archive
        #[arg(long)]
        name: Option<String>,
    },
    /// Fetch an image from a registry
    Pull {
        /// The image's name, such as nginx:1.29
        name: String,
        /// `USER:PASSWORD` for the registry
        #[arg(long, alias = "creds", env = "WINDLASS_REGISTRY_CREDENTIALS", hide_env_values = true)]
        credentials: Option<String>,
        /// A docker config.json with users and passwords, instead of the machine's
        #[arg(long, value_name = "FILE")]
        auth_file: Option<PathBuf>,
    },
    /// List the images
    #[command(alias = "ls")]
    List,
    /// Remove an image that no container uses
    Rm {
        /// The image's name or id
        name: String,
    },
}

/// `NAME=PROGRAM`, of which the name is what a RuntimeClass may have as its handler.
fn parse_runtime(text: &str) -> Result<(String, PathBuf), String> {
    let (name, program) =
        text.split_once('=').ok_or("expected NAME=PROGRAM or NAME=unix:///SOCKET, as kata=/usr/bin/kata-runtime")?;
    if name == EMBEDDED {
        return Err(format!("{EMBEDDED} is what this program does by itself; choose another name"));
    }
    match windlass_api::name::label(name).first() {
        Some(why) => Err(format!("{name:?}: {why}")),
        None => Ok((name.to_owned(), program.into())),
    }
}

fn parse_network(text: &str) -> Result<String, String> {
    let range: windlass_apiserver::AddressRange =
        text.parse().map_err(|error: windlass_apiserver::AddressRangeError| error.to_string())?;
    Ok(range.to_string())
}

#[cfg(test)]
mod tests {
    use super::Cli;
    use clap::{CommandFactory, Parser};

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_runtime_is_a_name_and_a_program() {
        let parse = |text: &str| {
            let parsed = Cli::try_parse_from(["windlass", "up", "--runtime", text]);
            parsed.map(drop).map_err(|error| error.to_string())
        };
        assert_eq!(parse("kata=/usr/bin/kata-runtime"), Ok(()));
        for (text, why) in [
            ("kata", "expected NAME=PROGRAM"),
            ("windlass=/bin/x", "choose another name"),
            ("Kata=/bin/x", "RFC 1123 label"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn a_bad_network_is_refused_by_its_flag() {
        let error =
            Cli::try_parse_from(["windlass", "up", "--pod-cidr", "300.1.2.3/16"]).err().map(|error| error.to_string());
        assert!(error.is_some_and(|text| text.contains("--pod-cidr") && text.contains("300.1.2.3/16")));
    }
}
