//! `/containerLogs/NAMESPACE/POD/CONTAINER`: what a container has said, and what it goes on to say.

use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, stream};
use http::header::UPGRADE;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use jiff::{SignedDuration, Timestamp};
use windlass_stdx::{Body, BoxError};

use super::{Query, Refusal, Target, with_type};
use crate::logs::{LogOptions, LogReader, Step};

/// How often a follower looks whether there is more.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(100);

/// Answers with the log, over a WebSocket where the client asks for one.
pub(super) async fn answer(request: Request<Incoming>, target: Target) -> Result<Response<Body>, Refusal> {
    let query = Query::parse(request.uri().query());
    let options = options(&query, target.kernel.world().now())?;
    let previous = query.flag("previous");
    let attempt = attempt(&target, previous)?;
    let id = format!("{}.{attempt}", target.container);
    let (directory, log) = target.kernel.log_place(&target.pod.uid, &id).map_err(Refusal::internal)?;
    let opened = options.clone();
    let reader = tokio::task::spawn_blocking(move || LogReader::open(&directory, &log, opened)).await;
    let reader = reader.map_err(Refusal::internal)?.map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Refusal::not_found(format!("container {id:?} has no log")),
        _ => Refusal::internal(format!("the log of container {id:?} cannot be read: {error}")),
    })?;
    let follower =
        Follower { target, attempt, follow: options.follow && !previous, reader: Some(reader), was_over: false };
    let chunks = stream::unfold(follower, |mut follower| async move {
        let chunk = follower.next().await?;
        Some((chunk, follower))
    });
    if request.headers().contains_key(UPGRADE) {
        return crate::stream::log(request, chunks);
    }
    let frames = chunks.map(|chunk| chunk.map(Frame::data));
    Ok(with_type("text/plain; charset=utf-8", StreamBody::new(frames).boxed_unsync()))
}

/// Which attempt's log is meant.
fn attempt(target: &Target, previous: bool) -> Result<u32, Refusal> {
    let name = &target.container;
    let pod = target.title.rsplit('/').next().unwrap_or_default();
    let Some((attempt, _)) = target.pod.shown.containers.get(name).copied().flatten() else {
        return Err(Refusal::bad_request(format!(
            "container {name:?} in pod {pod:?} is waiting to start: ContainerCreating"
        )));
    };
    match (previous, attempt.checked_sub(1)) {
        (false, _) => Ok(attempt),
        (true, Some(before)) => Ok(before),
        (true, None) => {
            Err(Refusal::bad_request(format!("previous terminated container {name:?} in pod {pod:?} not found")))
        }
    }
}

fn options(query: &Query, now: Timestamp) -> Result<LogOptions, Refusal> {
    let number = |key: &str| match query.get(key) {
        None | Some("") => Ok(None),
        Some(text) => text
            .parse::<u64>()
            .map(Some)
            .map_err(|_| Refusal::bad_request(format!("{key}: expected a number of at least 0, found {text:?}"))),
    };
    let since = match (query.get("sinceTime"), number("sinceSeconds")?) {
        (Some(text), _) if !text.is_empty() => Some(text.parse::<Timestamp>().map_err(|_| {
            Refusal::bad_request(format!("sinceTime: expected a time as 2026-01-01T00:00:00Z, found {text:?}"))
        })?),
        (_, Some(seconds)) => {
            let ago = SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX));
            Some(now.checked_sub(ago).unwrap_or(Timestamp::MIN))
        }
        _ => None,
    };
    Ok(LogOptions {
        follow: query.flag("follow"),
        tail_lines: number("tailLines")?,
        timestamps: query.flag("timestamps"),
        since,
        limit_bytes: number("limitBytes")?,
    })
}

struct Follower {
    target: Target,
    attempt: u32,
    follow: bool,
    reader: Option<LogReader>,
    /// The container was over before the last look, so that look has seen everything.
    was_over: bool,
}

impl Follower {
    /// The next piece; `None` at the end.
    async fn next(&mut self) -> Option<Result<Bytes, BoxError>> {
        loop {
            let mut reader = self.reader.take()?;
            let looked = tokio::task::spawn_blocking(move || {
                let step = reader.step();
                (reader, step)
            });
            let step = match looked.await {
                Ok((reader, step)) => {
                    self.reader = Some(reader);
                    step
                }
                Err(error) => return Some(Err(error.into())),
            };
            match step {
                Ok(Step::Text(text)) => return Some(Ok(Bytes::from(text))),
                Ok(Step::Full) => return None,
                Ok(Step::Idle) if !self.follow || self.was_over => return None,
                Ok(Step::Idle) => {
                    self.was_over = !self.runs();
                    tokio::time::sleep(FOLLOW_INTERVAL).await;
                }
                Err(error) => return Some(Err(error.into())),
            }
        }
    }

    fn runs(&self) -> bool {
        let shown = self.target.pod.now();
        let found = shown.containers.get(&self.target.container).copied().flatten();
        found == Some((self.attempt, true))
    }
}

#[cfg(test)]
mod tests {
    use super::options;
    use crate::server::Query;
    use jiff::Timestamp;

    #[test]
    fn options_are_read_or_refused_with_their_name() {
        let now: Timestamp = "2026-01-01T00:01:00Z".parse().expect("a time");
        let read = |text: &str| options(&Query::parse(Some(text)), now);
        let found = read("follow=true&tailLines=5&sinceSeconds=60&limitBytes=10&timestamps=1").expect("all fine");
        assert_eq!(
            (found.tail_lines, found.limit_bytes, found.follow, found.timestamps),
            (Some(5), Some(10), true, true)
        );
        assert_eq!(found.since, Some("2026-01-01T00:00:00Z".parse().expect("a time")));
        for wrong in ["tailLines=-1", "tailLines=x", "sinceTime=yesterday", "limitBytes=1.5"] {
            let refusal = read(wrong).expect_err("must be refused");
            assert_eq!(refusal.error.code(), 400, "{wrong}");
            assert!(refusal.error.message.starts_with(wrong.split('=').next().expect("a name")), "{wrong}");
        }
        assert!(read("sinceSeconds=99999999999999999").is_ok());
    }
}
