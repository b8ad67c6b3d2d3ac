//! Watches, as the verbs use them: events of whole objects or of tables, until told otherwise.

use anyhow::{Result, bail};
use http::Method;
use serde_json::Value;
use windlass_api::{ApiError, Kind, Reason};
use windlass_client::{Call, ClientError, LineStream, segment, with_query};

use super::session::{Session, object_path, with_kind};

/// Bytes of one event: an object and a little.
const EVENT_BYTES_MAX: usize = 16 << 20;

/// A watch.
pub struct Events {
    lines: LineStream,
}

impl Session {
    /// The changes of a kind after a revision, in the form that `accept` asks for.
    pub async fn watch(
        &self,
        kind: &Kind,
        namespace: Option<&str>,
        query: &[(&str, &str)],
        accept: &str,
    ) -> Result<Events> {
        let path = kind.collection_path(namespace.map(segment).as_deref());
        let query = [query, &[("watch", "true")]].concat();
        let call = Call::new(Method::GET, with_query(&path, &query)).accept(accept.to_owned());
        let body = self.client.open(call).await?;
        Ok(Events { lines: LineStream::new(body, EVENT_BYTES_MAX) })
    }

    /// Watches one object until `decide` has something to say, beginning with what it is now; `None` is an object that
    /// is not there. A watch that ends is begun again.
    pub async fn until<T>(
        &self,
        kind: &Kind,
        namespace: &str,
        name: &str,
        mut decide: impl FnMut(Option<&Value>) -> Result<Option<T>>,
    ) -> Result<T> {
        let fields = format!("metadata.name={name}");
        loop {
            let path = kind.collection_path(Some(&segment(namespace)));
            let list = self.json(Call::new(Method::GET, with_query(&path, &[("fieldSelector", &fields)]))).await?;
            let found = list["items"].as_array().and_then(|items| items.first()).cloned();
            let found = found.map(|object| with_kind(object, kind));
            if let Some(decision) = decide(found.as_ref())? {
                return Ok(decision);
            }
            let revision = list["metadata"]["resourceVersion"].as_str().unwrap_or_default();
            let query = [("fieldSelector", fields.as_str()), ("resourceVersion", revision)];
            let mut events = self.watch(kind, Some(namespace), &query, "application/json").await?;
            while let Some((event, object)) = events.next().await? {
                let seen = match event.as_str() {
                    "DELETED" => None,
                    "BOOKMARK" => continue,
                    _ => Some(&object),
                };
                if let Some(decision) = decide(seen)? {
                    return Ok(decision);
                }
            }
        }
    }

    /// Whether an object is still there, and the same one.
    pub async fn still_there(&self, kind: &Kind, namespace: &str, name: &str, uid: &str) -> Result<bool> {
        let path = object_path(kind, namespace, name);
        match self.client.send(Call::new(Method::GET, path)).await {
            Ok(answer) => {
                let object: Value = serde_json::from_slice(&answer.body)?;
                Ok(uid.is_empty() || object["metadata"]["uid"] == uid)
            }
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

impl Events {
    /// The next event: its type and its object or table. `None` when the server ended the watch.
    pub async fn next(&mut self) -> Result<Option<(String, Value)>> {
        loop {
            let line = match self.lines.next().await {
                Ok(Some(line)) => line,
                Ok(None) => return Ok(None),
                Err(source) => return Err(ClientError::Body { what: "watch".to_owned(), source }.into()),
            };
            if line.trim_ascii().is_empty() {
                continue;
            }
            let mut event: Value = serde_json::from_slice(&line)?;
            let kind = event["type"].as_str().unwrap_or_default().to_owned();
            let object = event["object"].take();
            match kind.as_str() {
                "ERROR" => {
                    let lost =
                        || ApiError::new(Reason::InternalError, "the watch ended with an error that is no Status");
                    let refusal = ApiError::from_status(&object).unwrap_or_else(lost);
                    return Err(ClientError::Api(refusal).into());
                }
                "" => bail!("expected a watch event, found a line without a type"),
                _ => return Ok(Some((kind, object))),
            }
        }
    }
}
