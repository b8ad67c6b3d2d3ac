//! In which form an answer goes out: what the client accepts, and how an object looks in it.
//!
//! Rules
//!   R1 order        the client's media types are tried by quality, then in its order; the first we can write wins
//!   R2 json         stored bytes go out as they are; nothing is read or written again
//!   R3 table        `as=Table`: the columns of the kind's row, one row an object, the object itself as asked for
//!   R4 metadata     `as=PartialObjectMetadata(List)`: the object without what is not metadata
//!   R5 none         nothing acceptable is 406, with what there is
//!   R6 objects      whoever asks from inside the process gets the stored objects themselves
//!
//! Protobuf is never written: every client that asks for it also accepts JSON.
//! Source: API concepts, "Receiving resources as Tables", "Resource encoding"; RFC 9110 on Accept.

use bytes::Bytes;
use http::HeaderMap;
use http::header::ACCEPT;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use windlass_api::openapi::v2;
use windlass_api::table::{self, Include};
use windlass_api::{ApiError, Reason, Resource};

use crate::request::Query;

const JSON: &str = "application/json";
/// Media types looked at in one Accept header.
const MEDIA_TYPES_MAX: usize = 32;

/// How objects are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Json,
    /// Lists and watches as objects in memory, for parts of this process (R6); all else as JSON.
    Objects {
        /// Without those that are not linked.
        linked_only: bool,
    },
    Metadata,
    Table(Include),
}

/// One media type of an Accept header.
struct Accepted<'a> {
    media: &'a str,
    quality: u32,
    shape: &'a str,
    version: &'a str,
    group: &'a str,
}

/// The form for objects and lists of a kind.
pub(crate) fn negotiate(headers: &HeaderMap, query: &Query) -> Result<Form, ApiError> {
    first_match(headers, &[JSON], |accepted| match (accepted.shape, accepted.group, accepted.version) {
        ("", _, _) => Some(Ok(Form::Json)),
        ("Table", "meta.k8s.io", "v1") => Some(include(query).map(Form::Table)),
        ("PartialObjectMetadata" | "PartialObjectMetadataList", "meta.k8s.io", "v1") => Some(Ok(Form::Metadata)),
        _ => None,
    })?
}

/// Whether the OpenAPI v2 document goes out as protobuf.
pub(crate) fn negotiate_open_api_v2(headers: &HeaderMap) -> Result<bool, ApiError> {
    let writable = [JSON, v2::PROTOBUF_ACCEPTED[0], v2::PROTOBUF_ACCEPTED[1]];
    first_match(headers, &writable, |accepted| Some(v2::PROTOBUF_ACCEPTED.contains(&accepted.media)))
}

/// Whether discovery goes out aggregated (`apidiscovery.k8s.io/v2`).
pub(crate) fn negotiate_discovery(headers: &HeaderMap) -> Result<bool, ApiError> {
    first_match(headers, &[JSON], |accepted| match (accepted.shape, accepted.group, accepted.version) {
        ("", _, _) => Some(false),
        ("APIGroupDiscoveryList", "apidiscovery.k8s.io", "v2") => Some(true),
        _ => None,
    })
}

/// Checks that plain JSON is acceptable.
pub(crate) fn negotiate_json(headers: &HeaderMap) -> Result<(), ApiError> {
    first_match(headers, &[JSON], |accepted| accepted.shape.is_empty().then_some(()))
}

fn include(query: &Query) -> Result<Include, ApiError> {
    let asked = query.get("includeObject").unwrap_or_default();
    Include::parse(asked).ok_or_else(|| {
        let found = crate::request::short(asked);
        ApiError::bad_request(format!("expected None, Metadata or Object for includeObject, found {found}"))
    })
}

/// The first choice among what the client accepts and we can write.
fn first_match<T>(
    headers: &HeaderMap,
    writable: &[&str],
    choose: impl Fn(&Accepted) -> Option<T>,
) -> Result<T, ApiError> {
    let json = Accepted { media: JSON, quality: 1000, shape: "", version: "", group: "" };
    let texts: Vec<&str> = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    let mut accepted: Vec<Accepted> =
        texts.iter().flat_map(|text| text.split(',')).take(MEDIA_TYPES_MAX).filter_map(accepted).collect();
    if texts.iter().all(|text| text.trim().is_empty()) {
        accepted.push(json);
    }
    accepted.sort_by_key(|accepted| std::cmp::Reverse(accepted.quality)); // stable: the client's order stays
    let found = accepted
        .iter()
        .filter(|accepted| {
            accepted.quality > 0
                && (writable.contains(&accepted.media) || matches!(accepted.media, "application/*" | "*/*"))
        })
        .find_map(choose);
    found.ok_or_else(|| {
        let writable = writable.join(", ");
        ApiError::new(Reason::NotAcceptable, format!("only the following media types are accepted: {writable}"))
    })
}

fn accepted(text: &str) -> Option<Accepted<'_>> {
    let mut parts = text.split(';').map(str::trim);
    let media = parts.next().filter(|media| !media.is_empty())?;
    let mut accepted = Accepted { media, quality: 1000, shape: "", version: "", group: "" };
    for (name, value) in parts.filter_map(|part| part.split_once('=')) {
        match name {
            "q" => accepted.quality = quality(value),
            "as" => accepted.shape = value,
            "v" => accepted.version = value,
            "g" => accepted.group = value,
            _ => {}
        }
    }
    Some(accepted)
}

/// A quality in thousandths; a malformed one counts as absent.
fn quality(text: &str) -> u32 {
    text.parse::<f32>().map_or(1000, |quality| (quality.clamp(0.0, 1.0) * 1000.0) as u32)
}

/// What is needed to show objects of one kind.
#[derive(Clone, Copy)]
pub(crate) struct Show<'a> {
    pub form: Form,
    pub resource: &'a Resource,
    pub now: jiff::Timestamp,
}

impl Show<'_> {
    /// One object by itself.
    pub fn object(&self, object: &Bytes) -> Bytes {
        match self.form {
            Form::Json | Form::Objects { .. } => object.clone(),
            Form::Metadata => Bytes::from(metadata_only(object)),
            Form::Table(_) => {
                let mut out = self.list_head(&json!({"resourceVersion": revision_of(object)}));
                out.extend_from_slice(&self.item(object));
                out.extend_from_slice(self.list_tail());
                Bytes::from(out)
            }
        }
    }

    /// One object inside a list.
    pub fn item(&self, object: &Bytes) -> Bytes {
        match self.form {
            Form::Json | Form::Objects { .. } => object.clone(),
            Form::Metadata => Bytes::from(metadata_only(object)),
            Form::Table(include) => Bytes::from(self.row(object, include)),
        }
    }

    /// What stands before the items of a list with this metadata.
    pub fn list_head(&self, metadata: &Value) -> Vec<u8> {
        let kind = &self.resource.kind;
        let head = match self.form {
            Form::Json | Form::Objects { .. } => format!(
                "{{\"kind\":\"{}\",\"apiVersion\":\"{}\",\"metadata\":{metadata},\"items\":[",
                self.resource.list_kind,
                kind.api_version()
            ),
            Form::Metadata => format!(
                "{{\"kind\":\"PartialObjectMetadataList\",\"apiVersion\":\"meta.k8s.io/v1\",\"metadata\":{metadata},\"items\":["
            ),
            Form::Table(_) => format!(
                "{{\"kind\":\"Table\",\"apiVersion\":\"meta.k8s.io/v1\",\"metadata\":{metadata},\"columnDefinitions\":{},\"rows\":[",
                table::columns(self.resource)
            ),
        };
        head.into_bytes()
    }

    /// What stands after them.
    pub fn list_tail(&self) -> &'static [u8] {
        b"]}"
    }

    fn row(&self, object: &[u8], include: Include) -> Vec<u8> {
        let tree: Value = serde_json::from_slice(object).expect("stored objects are JSON");
        let cells = self.resource.rules.cells(&tree, self.now);
        let mut out = format!("{{\"cells\":{}", Value::Array(cells)).into_bytes();
        match include {
            Include::None => {}
            Include::Metadata => {
                out.extend_from_slice(b",\"object\":");
                out.extend_from_slice(&metadata_only(object));
            }
            Include::Object => {
                out.extend_from_slice(b",\"object\":");
                out.extend_from_slice(object);
            }
        }
        out.push(b'}');
        out
    }
}

#[derive(Deserialize)]
struct WithMetadata<'a> {
    #[serde(borrow)]
    metadata: &'a RawValue,
}

#[derive(Serialize)]
struct MetadataOnly<'a> {
    kind: &'static str,
    #[serde(rename = "apiVersion")]
    api_version: &'static str,
    metadata: &'a RawValue,
}

fn metadata_only(object: &[u8]) -> Vec<u8> {
    let found: WithMetadata = serde_json::from_slice(object).expect("stored objects have metadata");
    let shown = MetadataOnly { kind: "PartialObjectMetadata", api_version: "meta.k8s.io/v1", metadata: found.metadata };
    serde_json::to_vec(&shown).expect("JSON that was read can be written")
}

fn revision_of(object: &Bytes) -> String {
    windlass_api::Header::parse(object).map_or_else(|_| String::new(), |header| header.revision.to_string())
}

#[cfg(test)]
mod tests {
    use super::{Form, Include, negotiate};
    use crate::request::Query;
    use http::HeaderMap;

    fn form(accept: &str) -> Result<Form, u16> {
        let mut headers = HeaderMap::new();
        headers.insert("accept", accept.parse().expect("a header value"));
        negotiate(&headers, &Query::default()).map_err(|error| error.code())
    }

    #[test]
    fn the_first_media_type_that_can_be_written_wins() {
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(form(kubectl), Ok(Form::Table(Include::Metadata)));
        assert_eq!(form("application/vnd.kubernetes.protobuf,application/json"), Ok(Form::Json));
        assert_eq!(
            form("application/json;q=0.1, application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"),
            Ok(Form::Metadata)
        );
        assert_eq!(form(""), Ok(Form::Json));
        assert_eq!(form("*/*"), Ok(Form::Json));
        assert_eq!(form("application/vnd.kubernetes.protobuf"), Err(406));
        assert_eq!(form("application/json;q=0"), Err(406));
    }
}
