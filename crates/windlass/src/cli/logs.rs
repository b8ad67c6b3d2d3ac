//! `windlass logs`: what containers have said.
//!
//! Rules
//!   R1 one       a pod, or one of the pods of a kind with a selector
//!   R2 many      with `-l` all pods that fit, the last ten lines of each unless `--tail` says more
//!   R3 follow    `-f` goes on; several at once line by line, at most `--max-log-requests`
//!   R4 prefix    `--prefix` says before each line where it is from
//! The text is the container's own and is passed on byte for byte.

use std::io::Write;

use anyhow::{Result, anyhow, bail};
use clap::Args;
use futures::future::try_join_all;
use http::Method;
use http_body_util::BodyExt;
use serde_json::Value;
use std::time::Duration;
use windlass_api::kinds;
use windlass_client::{Call, LineStream, with_query};

use super::describe::sheet::text;
use super::podset::{container, containers, pods};
use super::session::{Session, SessionFlags, is_not_found, object_path};

/// A longer line comes in pieces where several are followed.
const LINE_BYTES_MAX: usize = 1 << 20;

/// `windlass logs`.
#[derive(Args)]
pub struct LogsFlags {
    #[command(flatten)]
    pub session: SessionFlags,
    /// POD or KIND/NAME
    #[arg(value_name = "WHAT")]
    pub what: Option<String>,
    /// The container
    #[arg(value_name = "CONTAINER", conflicts_with = "container")]
    pub second: Option<String>,
    /// The container
    #[arg(short, long)]
    pub container: Option<String>,
    /// All containers
    #[arg(long)]
    pub all_containers: bool,
    /// Of all pods with these labels
    #[arg(short = 'l', long, conflicts_with = "what")]
    pub selector: Option<String>,
    /// Go on as more is said
    #[arg(short, long)]
    pub follow: bool,
    /// Of the container before this one
    #[arg(short, long)]
    pub previous: bool,
    /// Only the last lines; -1 for all
    #[arg(long, allow_negative_numbers = true)]
    pub tail: Option<i64>,
    /// Only what is younger than this: 10m
    #[arg(long, value_parser = super::duration::parse, conflicts_with = "since_time")]
    pub since: Option<Duration>,
    /// Only what is younger than this time, RFC 3339
    #[arg(long)]
    pub since_time: Option<String>,
    /// Say when each line was said
    #[arg(long)]
    pub timestamps: bool,
    /// Only so many bytes
    #[arg(long)]
    pub limit_bytes: Option<u64>,
    /// Say where each line is from
    #[arg(long)]
    pub prefix: bool,
    /// A log that cannot be read is said and passed over
    #[arg(long)]
    pub ignore_errors: bool,
    /// How many logs may be followed at once
    #[arg(long, default_value_t = 5)]
    pub max_log_requests: usize,
}

/// One log.
struct Log {
    path: String,
    prefix: String,
}

/// Does it.
pub async fn run(session: &Session, flags: &LogsFlags) -> Result<()> {
    let logs = find(session, flags).await?;
    if flags.follow && logs.len() > 1 {
        if logs.len() > flags.max_log_requests {
            bail!(
                "you are attempting to follow {} log streams, but maximum allowed concurrency is {}, use --max-log-requests to increase the limit",
                logs.len(),
                flags.max_log_requests
            );
        }
        try_join_all(logs.iter().map(|log| lines(session, flags, log))).await?;
        return Ok(());
    }
    for log in &logs {
        if log.prefix.is_empty() { bytes(session, flags, log).await? } else { lines(session, flags, log).await? }
    }
    Ok(())
}

/// R1 and R2.
async fn find(session: &Session, flags: &LogsFlags) -> Result<Vec<Log>> {
    let named = flags.container.as_deref().or(flags.second.as_deref());
    let pods = match (&flags.what, &flags.selector) {
        (Some(what), _) => {
            let mut found = pods(session, what).await.map_err(|error| missing(session, error))?;
            if found.len() > 1 {
                eprintln!("Found {} pods, using pod/{}", found.len(), text(&found[0]["metadata"], "name"));
            }
            found.truncate(1);
            found
        }
        (None, Some(selector)) => {
            let found = session.list(&kinds::POD, Some(&session.namespace), &[("labelSelector", selector)]).await?;
            if found.is_empty() {
                eprintln!("No resources found in {} namespace.", session.namespace);
            }
            found
        }
        (None, None) => bail!(
            "expected 'logs [-f] [-p] (POD | TYPE/NAME) [-c CONTAINER]'.\nPOD or TYPE/NAME is a required argument for the logs command\nSee 'windlass logs -h' for help and examples"
        ),
    };
    let mut logs = Vec::new();
    for pod in &pods {
        let chosen = match flags.all_containers {
            true => containers(pod).into_iter().map(str::to_owned).collect(),
            false => vec![container(pod, named)?],
        };
        logs.extend(chosen.iter().map(|container| log(flags, pod, container)));
    }
    Ok(logs)
}

/// kubectl says it so.
fn missing(session: &Session, error: anyhow::Error) -> anyhow::Error {
    if !is_not_found(&error) {
        return error;
    }
    anyhow!("error from server (NotFound): {error} in namespace {:?}", session.namespace)
}

fn log(flags: &LogsFlags, pod: &Value, container: &str) -> Log {
    let (namespace, name) = (text(&pod["metadata"], "namespace"), text(&pod["metadata"], "name"));
    let tail = match (flags.tail, &flags.selector) {
        (Some(lines), _) if lines >= 0 => lines.to_string(),
        (None, Some(_)) => "10".to_owned(),
        _ => String::new(),
    };
    let said = |flag: bool| if flag { "true" } else { "" };
    let since = flags.since.map(|since| since.as_secs().max(1).to_string()).unwrap_or_default();
    let limit = flags.limit_bytes.map(|bytes| bytes.to_string()).unwrap_or_default();
    let query = [
        ("container", container),
        ("follow", said(flags.follow)),
        ("previous", said(flags.previous)),
        ("timestamps", said(flags.timestamps)),
        ("tailLines", &tail),
        ("sinceSeconds", &since),
        ("sinceTime", flags.since_time.as_deref().unwrap_or_default()),
        ("limitBytes", &limit),
    ];
    let path = with_query(&format!("{}/log", object_path(&kinds::POD, namespace, name)), &query);
    let prefix = if flags.prefix { format!("[pod/{name}/{container}] ") } else { String::new() };
    Log { path, prefix }
}

/// Says and passes over what went wrong, if that is wanted.
fn tolerate(flags: &LogsFlags, result: Result<()>) -> Result<()> {
    match result {
        Err(error) if flags.ignore_errors => {
            super::failure::say(&error);
            Ok(())
        }
        other => other,
    }
}

async fn bytes(session: &Session, flags: &LogsFlags, log: &Log) -> Result<()> {
    let copy = async {
        let mut body = session.client.open(Call::new(Method::GET, log.path.clone()).accept("*/*")).await?;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| anyhow!("the log broke off: {error}"))?;
            if let Ok(chunk) = frame.into_data() {
                let mut out = std::io::stdout().lock();
                out.write_all(&chunk)?;
                out.flush()?;
            }
        }
        Ok(())
    };
    tolerate(flags, copy.await)
}

async fn lines(session: &Session, flags: &LogsFlags, log: &Log) -> Result<()> {
    let copy = async {
        let body = session.client.open(Call::new(Method::GET, log.path.clone()).accept("*/*")).await?;
        let mut lines = LineStream::new(body, LINE_BYTES_MAX);
        while let Some(line) = lines.next().await.map_err(|error| anyhow!("the log broke off: {error}"))? {
            let mut out = std::io::stdout().lock();
            out.write_all(&[log.prefix.as_bytes(), &line, b"\n"].concat())?;
            out.flush()?;
        }
        Ok(())
    };
    tolerate(flags, copy.await)
}
