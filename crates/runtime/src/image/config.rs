//! What an image says about running it, parsed with bounds: every field was written by a stranger.

/// The part of an image config (OCI image spec 1.1, `config.md`) that running a container needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageConfig {
    /// The program and its first arguments.
    pub entrypoint: Vec<String>,
    /// Arguments after the entrypoint, or the program when there is none.
    pub cmd: Vec<String>,
    /// `NAME=value`, in the image's order.
    pub env: Vec<String>,
    /// An absolute path, or empty.
    pub working_dir: String,
    /// `user`, `uid`, `user:group` or `uid:gid`, or empty.
    pub user: String,
    /// A signal name or number, or empty.
    pub stop_signal: String,
    /// `80/tcp`.
    pub exposed_ports: Vec<String>,
    /// Absolute paths the image wants to be volumes. Nothing on the host may be derived from them.
    pub volumes: Vec<String>,
    /// Labels, without those in our reserved prefix.
    pub labels: std::collections::BTreeMap<String, String>,
}
