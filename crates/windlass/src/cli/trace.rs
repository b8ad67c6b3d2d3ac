//! `windlass trace pod`: one pod's start as a timeline, so that each moment has an owner.
//!
//! Rules
//!   R1 told      what the API server and the pod's node measured themselves; both remember the last pods only
//!   R2 between   a gap belongs to who has to act next: the scheduler before the binding, the watch before the node has
//!                seen the pod, the node's agent afterwards
//! Relies on      the clocks of server and node being alike; on one machine they are the same

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use http::Method;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use windlass_api::kinds;
use windlass_client::{Call, segment};

use super::describe::sheet::{items, text};
use super::output::escape;
use super::session::{Session, SessionFlags};

/// Columns of the picture.
const PICTURE_COLUMNS: usize = 40;
/// A gap shorter than this belongs to its neighbours.
const GAP_MIN: SignedDuration = SignedDuration::from_micros(50);

/// `windlass trace`.
#[derive(Args)]
pub struct TraceFlags {
    #[command(flatten)]
    pub session: SessionFlags,
    #[command(subcommand)]
    pub what: TraceWhat,
}

/// Of what.
#[derive(Subcommand)]
pub enum TraceWhat {
    /// How a pod came up
    #[command(alias = "pods", alias = "po")]
    Pod {
        /// The pod
        name: String,
        /// json, instead of a picture
        #[arg(short, long, value_parser = ["json"])]
        output: Option<String>,
    },
}

/// A piece of the timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Row {
    who: &'static str,
    what: String,
    began: Timestamp,
    ended: Timestamp,
}

/// Does it.
pub async fn run(session: &Session, flags: &TraceFlags) -> Result<()> {
    let TraceWhat::Pod { name, output } = &flags.what;
    let pod = session.get(&kinds::POD, &session.namespace, name).await?;
    let (uid, node) = (text(&pod["metadata"], "uid"), text(&pod["spec"], "nodeName"));
    let ask = async |path: String| session.json(Call::new(Method::GET, path)).await;
    let asked = ask(format!("/debug/starts/{}", segment(uid))).await?;
    let done = match node {
        "" => json!({}),
        node => {
            let namespace = segment(&session.namespace);
            ask(format!("/api/v1/nodes/{}/proxy/starts/{namespace}/{}", segment(node), segment(name))).await?
        }
    };
    let rows = timeline(&asked, &done);
    let (Some(began), Some(ended)) = (rows.iter().map(|row| row.began).min(), rows.iter().map(|row| row.ended).max())
    else {
        bail!("neither the server nor the node remembers how pod {name} came up: they keep the last pods only");
    };
    match output {
        Some(_) => println!("{}", as_json(&pod, &rows, began, ended)),
        None => {
            let title = format!("pod {}/{name} on node {node}: {} ms", session.namespace, millis(ended, began));
            println!("{}", escape::text(&title));
            print!("{}", escape::text(&picture(&rows, began, ended)));
        }
    }
    Ok(())
}

/// Who does what, as a reader would call it.
fn owner(what: &str) -> (&'static str, &str) {
    match what {
        "create" => ("runtime", "create container"),
        "start" => ("runtime", "start program"),
        "sandbox" => ("runtime", "sandbox"),
        "network" => ("network", "attach"),
        "status" => ("api server", "write status"),
        "image" => ("images", "find or pull"),
        "postStart" => ("program", "postStart"),
        "sources" => ("agent", "read what the pod names"),
        "services" => ("agent", "read services"),
        other => ("agent", other),
    }
}

/// All that was told, in order, and who had to act in between.
fn timeline(asked: &Value, done: &Value) -> Vec<Row> {
    let time = |span: &Value, key: &str| text(span, key).parse::<Timestamp>().ok();
    let times = |span: &Value| Some((time(span, "began")?, time(span, "ended")?));
    let mut rows = Vec::new();
    let mut reached: Option<Timestamp> = None;
    for span in items(asked, "spans") {
        let Some((began, ended)) = times(span) else { continue };
        let is_binding = text(span, "what") == "bind";
        if is_binding && let Some(from) = reached {
            // The scheduler may be told before who made the pod is answered.
            let (began, ended) = (from.min(began), began);
            rows.push(Row { who: "scheduler", what: "choose a node".to_owned(), began, ended });
        }
        let what = if is_binding { "bind" } else { "create pod" };
        rows.push(Row { who: "api server", what: what.to_owned(), began, ended });
        reached = reached.max(Some(ended));
    }
    let mut spans: Vec<_> = items(done, "spans").iter().filter_map(|span| Some((times(span)?, span))).collect();
    spans.sort_by_key(|((began, ended), _)| (*began, *ended));
    for ((began, ended), span) in spans {
        let what = text(span, "what");
        if let Some(from) = reached.filter(|from| began.duration_since(*from) > GAP_MIN) {
            let (who, waited) = if what == "seen" { ("watch", "tell the node") } else { ("agent", "plan") };
            rows.push(Row { who, what: waited.to_owned(), began: from, ended: began });
        }
        reached = reached.max(Some(ended));
        if what == "seen" {
            continue;
        }
        let (who, what) = owner(what);
        let container = text(span, "container");
        let what = if container.is_empty() { what.to_owned() } else { format!("{what} ({container})") };
        rows.push(Row { who, what, began, ended });
    }
    rows
}

fn millis(later: Timestamp, earlier: Timestamp) -> String {
    format!("{:.1}", later.duration_since(earlier).as_secs_f64() * 1e3)
}

fn picture(rows: &[Row], from: Timestamp, to: Timestamp) -> String {
    let whole = to.duration_since(from).as_secs_f64().max(1e-6);
    let column = |at: Timestamp| (at.duration_since(from).as_secs_f64() / whole * PICTURE_COLUMNS as f64) as usize;
    let wide = |of: fn(&Row) -> usize, least: usize| rows.iter().map(of).max().unwrap_or(0).max(least);
    let (who, what) = (wide(|row| row.who.len(), 3), wide(|row| row.what.chars().count(), 4));
    let mut out = format!("{:>8} {:>8}  {:<who$}  {:<what$}\n", "AT", "MS", "WHO", "WHAT");
    for row in rows {
        let (begin, end) = (column(row.began).min(PICTURE_COLUMNS - 1), column(row.ended));
        let bar = "#".repeat((end - begin.min(end)).max(1));
        let (at, took) = (millis(row.began, from), millis(row.ended, row.began));
        let line = format!("{at:>8} {took:>8}  {:<who$}  {:<what$}  {:begin$}{bar}", row.who, row.what, "");
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

fn as_json(pod: &Value, rows: &[Row], from: Timestamp, to: Timestamp) -> Value {
    let ms = |later: Timestamp, earlier: Timestamp| later.duration_since(earlier).as_micros() as f64 / 1e3;
    let spans = rows.iter().map(|row| {
        json!({"who": row.who, "what": row.what, "atMs": ms(row.began, from), "tookMs": ms(row.ended, row.began)})
    });
    let metadata = &pod["metadata"];
    json!({
        "pod": {"namespace": metadata["namespace"], "name": metadata["name"], "uid": metadata["uid"]},
        "node": pod["spec"]["nodeName"],
        "began": from,
        "tookMs": ms(to, from),
        "spans": spans.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::{picture, timeline};
    use serde_json::{Value, json};

    fn span(what: &str, container: &str, began_ms: u32, ended_ms: u32) -> Value {
        let at = |ms: u32| format!("2026-01-01T00:00:00.{ms:03}Z");
        json!({"what": what, "container": container, "began": at(began_ms), "ended": at(ended_ms)})
    }

    #[test]
    fn r2_nothing_takes_less_than_no_time() {
        let asked = json!({"spans": [span("create", "", 0, 8), span("bind", "", 5, 7)]});
        let rows = timeline(&asked, &json!({"spans": [span("seen", "", 8, 8)]}));
        assert_eq!(rows.len(), 3, "created, chosen, bound");
        assert!(rows.iter().all(|row| row.began <= row.ended));
    }

    #[test]
    fn r2_each_gap_has_an_owner() {
        let asked = json!({"spans": [span("create", "", 0, 2), span("bind", "", 5, 6)]});
        let done = json!({"spans": [
            span("seen", "", 7, 7), span("sandbox", "", 10, 20), span("create", "web", 20, 40), span("status", "", 45, 50)]});
        let rows = timeline(&asked, &done);
        let told: Vec<String> = rows.iter().map(|row| format!("{}: {}", row.who, row.what)).collect();
        let expected = [
            "api server: create pod",
            "scheduler: choose a node",
            "api server: bind",
            "watch: tell the node",
            "agent: plan",
            "runtime: sandbox",
            "runtime: create container (web)",
            "agent: plan",
            "api server: write status",
        ];
        assert_eq!(told, expected);
        for pair in rows.windows(2) {
            assert_eq!(pair[0].ended, pair[1].began, "no moment is left out");
        }
        let (from, to) = (rows[0].began, rows[8].ended);
        let text = picture(&rows, from, to);
        let last = text.lines().last().expect("a line");
        assert!(last.trim_start().starts_with("45.0      5.0  api server  write status"), "{text}");
        assert!(last.ends_with("####"), "{text}");
    }

    #[test]
    fn r1_what_nobody_remembers_is_no_timeline() {
        assert!(timeline(&json!({"spans": []}), &json!({})).is_empty());
    }
}
