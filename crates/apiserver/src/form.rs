//! In which form an answer goes out: what the client accepts, and how an object looks in it.
//!
//! Rules
//!   R1 order        the client's media types are tried by quality, then in its order; the first we can write wins
//!   R2 json         stored bytes go out as they are; nothing is read or written again
//!   R2a yaml        `application/yaml`: objects and lists printed as kubectl prints them; no watch
//!   R2b protobuf    for who takes it and not JSON, or rather: built-in kinds, lists, watches in frames with their length,
//!                   metadata alone, Status; stored bytes are JSON, so JSON costs less where a client takes both
//!   R3 table        `as=Table`: the columns of the kind's row, one row an object, the object itself as asked for
//!   R4 metadata     `as=PartialObjectMetadata(List)`: the object without what is not metadata
//!   R5 none         nothing acceptable is 406, with what there is
//!   R6 objects      whoever asks from inside the process gets the stored objects themselves
//!
//! Source: API concepts, "Receiving resources as Tables", "Resource encoding"; RFC 9110 on Accept.

use std::borrow::Cow;

use bytes::{BufMut, Bytes, BytesMut};
use http::HeaderMap;
use http::header::ACCEPT;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use windlass_api::codec::{
    ENVELOPE_END, EncodeError, encode_bare, encode_protobuf, item_head, list_head, print, watch_frame,
};
use windlass_api::openapi::v2;
use windlass_api::schema::{Message, kubernetes};
use windlass_api::table::{self, Include};
use windlass_api::{ApiError, Reason, Resource};

use crate::request::Query;

const JSON: &str = "application/json";
const YAML: &str = "application/yaml";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
/// Media types looked at in one Accept header.
const MEDIA_TYPES_MAX: usize = 32;
const PARTIAL_OBJECT: &str = "k8s.io.apimachinery.pkg.apis.meta.v1.PartialObjectMetadata";

/// How objects are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Json,
    Yaml,
    Protobuf,
    /// Metadata alone, as protobuf.
    ProtobufMetadata,
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

impl Form {
    /// The media type of one object or list.
    pub fn media(self) -> &'static str {
        match self {
            Form::Yaml => YAML,
            Form::Protobuf | Form::ProtobufMetadata => PROTOBUF,
            Form::Json | Form::Objects { .. } | Form::Metadata | Form::Table(_) => JSON,
        }
    }

    /// Whether bodies are protobuf.
    pub fn is_protobuf(self) -> bool {
        self.media() == PROTOBUF
    }

    /// The media type of a watch.
    pub fn watch_media(self) -> &'static str {
        if self.is_protobuf() { "application/vnd.kubernetes.protobuf;stream=watch" } else { JSON }
    }
}

/// The form for objects and lists of a kind, or a watch of them.
pub(crate) fn negotiate(
    headers: &HeaderMap,
    query: &Query,
    resource: &Resource,
    is_watch: bool,
) -> Result<Form, ApiError> {
    let writable: &[&str] = match (resource.message.is_built_in(), is_watch) {
        (true, false) => &[JSON, YAML, PROTOBUF],
        (true, true) => &[JSON, PROTOBUF],
        (false, false) => &[JSON, YAML],
        (false, true) => &[JSON],
    };
    first_match(headers, writable, |accepted| {
        match (accepted.media, accepted.shape, accepted.group, accepted.version) {
            (YAML, "", _, _) => Some(Ok(Form::Yaml)),
            (PROTOBUF, "", _, _) => Some(Ok(Form::Protobuf)),
            (PROTOBUF, "PartialObjectMetadata" | "PartialObjectMetadataList", "meta.k8s.io", "v1") => {
                Some(Ok(Form::ProtobufMetadata))
            }
            (YAML | PROTOBUF, ..) => None,
            (_, "", _, _) => Some(Ok(Form::Json)),
            (_, "Table", "meta.k8s.io", "v1") => Some(include(query).map(Form::Table)),
            (_, "PartialObjectMetadata" | "PartialObjectMetadataList", "meta.k8s.io", "v1") => Some(Ok(Form::Metadata)),
            _ => None,
        }
    })?
}

/// The form for what is no object of a kind that can be shown in other ways: answers to questions.
pub(crate) fn negotiate_tree(headers: &HeaderMap) -> Result<Form, ApiError> {
    first_match(headers, &[JSON, YAML, PROTOBUF], |accepted| match (accepted.media, accepted.shape) {
        (YAML, "") => Some(Form::Yaml),
        (PROTOBUF, "") => Some(Form::Protobuf),
        (_, "") => Some(Form::Json),
        _ => None,
    })
}

/// The form of a refusal: the client's, or JSON where it has none that fits.
pub(crate) fn of_refusal(headers: &HeaderMap) -> Form {
    let form = first_match(headers, &[JSON, YAML, PROTOBUF], |accepted| match accepted.media {
        YAML => Some(Form::Yaml),
        PROTOBUF => Some(Form::Protobuf),
        _ => Some(Form::Json),
    });
    form.unwrap_or(Form::Json)
}

/// A tree that says what it is, and the form that it has then: JSON where the wished one cannot show it.
pub(crate) fn tree(form: Form, tree: &Value) -> (Vec<u8>, Form) {
    let text = |field: &str| tree[field].as_str().unwrap_or_default();
    let message = || kubernetes().find_kind(text("apiVersion"), text("kind"));
    match form {
        Form::Yaml => (print::print(tree).into_bytes(), Form::Yaml),
        Form::Protobuf | Form::ProtobufMetadata => {
            match message().and_then(|message| encode_protobuf(tree, message).ok()) {
                Some(bytes) => (bytes, Form::Protobuf),
                None => (tree.to_string().into_bytes(), Form::Json),
            }
        }
        _ => (tree.to_string().into_bytes(), Form::Json),
    }
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
    // Stable: the client's order stays, but for protobuf (R2b).
    accepted.sort_by_key(|accepted| (std::cmp::Reverse(accepted.quality), accepted.media == PROTOBUF));
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
            Form::Yaml => Bytes::from(print::print(&parsed(object))),
            Form::Protobuf => Bytes::from(self.with(object, encode_protobuf)),
            Form::ProtobufMetadata => Bytes::from(self.with(&Bytes::from(metadata_only(object)), encode_protobuf)),
            Form::Metadata => Bytes::from(metadata_only(object)),
            Form::Table(_) => {
                let mut out = self.list_head(&json!({"resourceVersion": revision_of(object)}));
                out.extend_from_slice(&self.item(object));
                out.extend_from_slice(&self.list_tail(&Value::Null));
                Bytes::from(out)
            }
        }
    }

    /// The object by an encoder of protobuf.
    fn with(&self, object: &[u8], encode: fn(&Value, Message<'_>) -> Result<Vec<u8>, EncodeError>) -> Vec<u8> {
        let message = match self.form {
            Form::ProtobufMetadata => kubernetes().find(PARTIAL_OBJECT).expect("it is in the table"),
            _ => self.resource.message.get(),
        };
        encode(&parsed(object), message).expect("a stored object is of its message")
    }

    /// One object inside a list.
    pub fn item<'a>(&self, object: &'a [u8]) -> Cow<'a, [u8]> {
        match self.form {
            Form::Json | Form::Objects { .. } => object.into(),
            Form::Yaml => print::print(&json!([parsed(object)])).into_bytes().into(),
            Form::Protobuf => as_item(&self.with(object, encode_bare)).into(),
            Form::ProtobufMetadata => as_item(&self.with(&metadata_only(object), encode_bare)).into(),
            Form::Metadata => metadata_only(object).into(),
            Form::Table(include) => self.row(object, include).into(),
        }
    }

    /// What stands between two items of a list, and what stands for items where there are none.
    pub fn list_joints(&self) -> (&'static [u8], &'static [u8]) {
        match self.form {
            Form::Yaml => (b"", b" []\n"),
            Form::Protobuf | Form::ProtobufMetadata => (b"", b""),
            _ => (b",", b""),
        }
    }

    /// What stands before the first item, where there is one.
    pub fn list_opening(&self) -> &'static [u8] {
        if self.form == Form::Yaml { b"\n" } else { b"" }
    }

    /// A list without items.
    pub fn empty_list(&self) -> Vec<u8> {
        let mut list = match self.form.is_protobuf() {
            true => self.protobuf_list_head(&json!({}), 0),
            false => self.list_head(&json!({})),
        };
        list.extend_from_slice(self.list_joints().1);
        list.extend_from_slice(&self.list_tail(&json!({})));
        list
    }

    /// What stands before the items of a list in protobuf, which are so many bytes.
    pub fn protobuf_list_head(&self, metadata: &Value, items_bytes: usize) -> Vec<u8> {
        let api_version = self.resource.kind.api_version();
        let (api_version, kind) = match self.form {
            Form::ProtobufMetadata => ("meta.k8s.io/v1", "PartialObjectMetadataList"),
            _ => (api_version.as_str(), self.resource.list_kind.as_str()),
        };
        list_head(api_version, kind, metadata, items_bytes).expect("the metadata of a list are of their message")
    }

    /// One event of a watch.
    pub fn event(&self, what: &str, object: &Bytes) -> Bytes {
        let object = self.object(object);
        if self.form.is_protobuf() {
            return Bytes::from(watch_frame(what, &object));
        }
        let mut frame = BytesMut::with_capacity(object.len() + what.len() + 24);
        frame.put_slice(b"{\"type\":\"");
        frame.put_slice(what.as_bytes());
        frame.put_slice(b"\",\"object\":");
        frame.put_slice(&object);
        frame.put_slice(b"}\n");
        frame.freeze()
    }

    /// What stands before the items of a list with this metadata.
    pub fn list_head(&self, metadata: &Value) -> Vec<u8> {
        let kind = &self.resource.kind;
        let head = match self.form {
            Form::Yaml => format!("apiVersion: {}\nitems:", kind.api_version()),
            // Its head holds the length of what follows: `protobuf_list_head`.
            Form::Protobuf | Form::ProtobufMetadata => String::new(),
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
    pub fn list_tail(&self, metadata: &Value) -> Cow<'static, [u8]> {
        match self.form {
            Form::Yaml => {
                let tail = json!({"kind": self.resource.list_kind, "metadata": metadata});
                Cow::Owned(print::print(&tail).into_bytes())
            }
            Form::Protobuf | Form::ProtobufMetadata => Cow::Borrowed(&ENVELOPE_END),
            _ => Cow::Borrowed(b"]}"),
        }
    }

    fn row(&self, object: &[u8], include: Include) -> Vec<u8> {
        let tree = parsed(object);
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

fn parsed(object: &[u8]) -> Value {
    serde_json::from_slice(object).expect("stored objects are JSON")
}

fn as_item(bare: &[u8]) -> Vec<u8> {
    let mut item = item_head(bare.len());
    item.extend_from_slice(bare);
    item
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
        let registry = windlass_api::resources::registry();
        let pods = registry.get("", "v1", "pods").expect("a built-in kind");
        negotiate(&headers, &Query::default(), pods, false).map_err(|error| error.code())
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
        assert_eq!(form("application/vnd.kubernetes.protobuf"), Ok(Form::Protobuf));
        assert_eq!(form("application/vnd.kubernetes.protobuf,application/json;q=0.9"), Ok(Form::Protobuf));
        assert_eq!(form("application/yaml,application/json"), Ok(Form::Yaml));
        assert_eq!(form("application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io"), Err(406));
        assert_eq!(form("text/html"), Err(406));
        assert_eq!(form("application/json;q=0"), Err(406));
    }
}
