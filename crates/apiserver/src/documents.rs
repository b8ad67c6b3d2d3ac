//! Discovery and OpenAPI: documents about the kinds, made once and served with an ETag.
//!
//! Source: API concepts, "API Discovery"; OpenAPI v3 with `?hash=` as clients cache it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use windlass_api::openapi::{self, v2};
use windlass_api::{ApiError, Registry, discovery};
use windlass_stdx::{Response, body_empty, body_from};

use crate::aggregate;
use crate::compress::{accepts_gzip, gzip};
use crate::definitions::Served;
use crate::form;
use crate::pki::hex;
use crate::request::{Endpoint, Query, not_found};
use crate::server::Server;

/// Documents smaller than this are sent as they are. They are compressed once, so that even small ones are worth it.
const DOCUMENT_COMPRESS_BYTES_MIN: usize = 4 * 1024;

/// Documents made so far, by name: a closed set, two or three for each group version.
#[derive(Default)]
pub(crate) struct Documents(Mutex<BTreeMap<String, Arc<Document>>>);

pub(crate) struct Document {
    pub bytes: Bytes,
    /// Hash of the bytes, in hex.
    pub hash: String,
    /// The bytes compressed, once somebody takes them so.
    gzip: OnceLock<Bytes>,
}

impl Document {
    pub fn new(bytes: impl Into<Bytes>) -> Document {
        let bytes = bytes.into();
        let hash = hex(&Sha256::digest(&bytes)).to_uppercase();
        Document { bytes, hash, gzip: OnceLock::new() }
    }
}

/// OpenAPI v2 with what other servers serve, by whether it is in protobuf: made again when one of the documents that it
/// is made of is another.
#[derive(Default)]
pub(crate) struct Merged(Mutex<BTreeMap<bool, (String, Arc<Document>)>>);

impl Merged {
    /// With the last aggregated API nobody needs them.
    fn clear(&self) {
        self.0.lock().expect("nothing panics while holding the documents").clear();
    }

    fn get(
        &self,
        is_protobuf: bool,
        own: &Document,
        others: &[aggregate::documents::OpenApiV2],
    ) -> Result<Arc<Document>, ApiError> {
        let parts = others.iter().map(|other| format!(" {}/{}={}", other.group, other.version, other.document.hash));
        let key = parts.fold(own.hash.clone(), |key, part| key + &part);
        let found = |(made_of, document): &(String, Arc<Document>)| (*made_of == key).then(|| document.clone());
        let merged = || self.0.lock().expect("nothing panics while holding the documents");
        if let Some(document) = merged().get(&is_protobuf).and_then(found) {
            return Ok(document);
        }
        let mut value: Value = serde_json::from_slice(&own.bytes).map_err(ApiError::internal)?;
        for other in others {
            let (group, version) = (&other.group, &other.version);
            let read = serde_json::from_slice(&other.document.bytes).map_err(|error| error.to_string());
            if let Err(why) = read.and_then(|read| v2::merge(&mut value, read, group, version)) {
                tracing::warn!(group, version, why, "the OpenAPI v2 of an aggregated API is left out");
            }
        }
        let bytes = if is_protobuf { v2::encode(&value) } else { value.to_string().into_bytes() };
        let document = Arc::new(Document::new(bytes));
        merged().insert(is_protobuf, (key, document.clone()));
        Ok(document)
    }
}

impl Documents {
    fn get(&self, name: &str, make: impl FnOnce() -> Result<Vec<u8>, ApiError>) -> Result<Arc<Document>, ApiError> {
        // Made outside the lock: two first readers may make the same document twice, and get equal ones.
        if let Some(document) = self.documents().get(name) {
            return Ok(document.clone());
        }
        let document = Arc::new(Document::new(make()?));
        self.documents().insert(name.to_owned(), document.clone());
        Ok(document)
    }

    fn documents(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Document>>> {
        self.0.lock().expect("nothing panics while holding the documents")
    }
}

/// Answers a discovery endpoint.
pub(crate) fn discover(server: &Server, endpoint: &Endpoint, headers: &HeaderMap) -> Result<Response, ApiError> {
    let aggregated = match endpoint {
        Endpoint::Api | Endpoint::Apis => form::negotiate_discovery(headers)?,
        _ => {
            form::negotiate_json(headers)?;
            false
        }
    };
    let served = server.served();
    let registry = &served.registry;
    let address = server.config.advertise.map_or_else(String::new, |address| address.to_string());
    let name = format!("{endpoint:?} {aggregated}");
    let document = served.documents.get(&name, || {
        let value = match (endpoint, aggregated) {
            (Endpoint::Api, true) => Some(discovery::aggregated_core(registry)),
            (Endpoint::Api, false) => Some(discovery::core_versions(registry, &address)),
            (Endpoint::Apis, true) => Some(discovery::aggregated_groups(registry)),
            (Endpoint::Apis, false) => Some(discovery::group_list(registry)),
            (Endpoint::Group(group), _) => discovery::group(registry, group),
            (Endpoint::GroupVersion(group, version), _) => discovery::resource_list(registry, group, version),
            _ => Some(root(registry)),
        };
        Ok(value.ok_or_else(not_found)?.to_string().into_bytes())
    })?;
    let document = match endpoint {
        _ if aggregate::all(server).is_empty() => document,
        Endpoint::Apis if aggregated => with(document, |list| aggregate::documents::add_aggregated(server, list))?,
        Endpoint::Apis => with(document, |list| aggregate::documents::add_groups(server, list))?,
        Endpoint::Group(name) => with(document, |group| {
            let more = aggregate::documents::api_group(server, name, Some(group.take()));
            *group = more.unwrap_or_default();
            true
        })?,
        _ => document,
    };
    let mut response = with_etag(&document, headers);
    if aggregated && response.status() == StatusCode::OK {
        let media = HeaderValue::from_static(discovery::AGGREGATED_MEDIA_TYPE);
        response.headers_mut().insert(CONTENT_TYPE, media);
    }
    response.headers_mut().insert(VARY, HeaderValue::from_static("Accept, Accept-Encoding"));
    Ok(response)
}

/// A document with what other servers serve.
fn with(document: Arc<Document>, add: impl FnOnce(&mut Value) -> bool) -> Result<Arc<Document>, ApiError> {
    let mut value = serde_json::from_slice(&document.bytes).map_err(ApiError::internal)?;
    if add(&mut value) { Ok(Arc::new(Document::new(value.to_string().into_bytes()))) } else { Ok(document) }
}

/// `/`: the paths that are served.
fn root(registry: &Registry) -> Value {
    let mut paths: Vec<String> =
        ["/api", "/apis", "/healthz", "/livez", "/metrics", "/openapi/v2", "/openapi/v3", "/readyz", "/version"]
            .map(str::to_owned)
            .to_vec();
    for resource in registry.iter() {
        let kind = &resource.kind;
        if kind.group.is_empty() {
            paths.push(format!("/api/{}", kind.version));
        } else {
            paths.push(format!("/apis/{}", kind.group));
            paths.push(format!("/apis/{}/{}", kind.group, kind.version));
        }
    }
    paths.sort();
    paths.dedup();
    json!({"paths": paths})
}

/// Answers `/openapi/v3` and the documents below it.
pub(crate) fn open_api(
    server: &Server,
    endpoint: &Endpoint,
    headers: &HeaderMap,
    query: &Query,
) -> Result<Response, ApiError> {
    form::negotiate_json(headers)?;
    let served = server.served();
    let Endpoint::OpenApiGroup(group, version) = endpoint else {
        let index = served.documents.get("openapi index", || open_api_index(&served))?;
        let index = match aggregate::all(server).is_empty() {
            true => index,
            false => with(index, |index| {
                let paths = index["paths"].as_object_mut();
                paths.is_some_and(|paths| aggregate::documents::add_open_api(server, paths))
            })?,
        };
        return Ok(with_etag(&index, headers));
    };
    let path = if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") };
    let document = open_api_document(&served, &path)?;
    let mut response = with_etag(&document, headers);
    // A URL that names the hash of what it gets may be kept for good.
    if query.get("hash") == Some(document.hash.as_str()) {
        let forever = HeaderValue::from_static("public, immutable, max-age=31536000");
        response.headers_mut().insert(CACHE_CONTROL, forever);
    }
    Ok(response)
}

/// Answers `/openapi/v2`, in JSON or in protobuf.
pub(crate) fn open_api_v2(server: &Server, headers: &HeaderMap) -> Result<Response, ApiError> {
    let is_protobuf = form::negotiate_open_api_v2(headers)?;
    let served = server.served();
    let own = |is_protobuf: bool| {
        served.documents.get(if is_protobuf { "openapi v2 protobuf" } else { "openapi v2" }, || {
            let document = v2::document_v2(&served.registry);
            Ok(if is_protobuf { v2::encode(&document) } else { document.to_string().into_bytes() })
        })
    };
    let others = aggregate::documents::open_api_v2(server);
    let document = if others.is_empty() {
        server.merged.clear();
        own(is_protobuf)?
    } else {
        server.merged.get(is_protobuf, &*own(false)?, &others)?
    };
    let mut response = with_etag(&document, headers);
    if is_protobuf && response.status() == StatusCode::OK {
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(v2::PROTOBUF_MEDIA_TYPE));
    }
    response.headers_mut().insert(VARY, HeaderValue::from_static("Accept, Accept-Encoding"));
    Ok(response)
}

fn open_api_document(served: &Served, path: &str) -> Result<Arc<Document>, ApiError> {
    served.documents.get(path, || Ok(openapi::document(&served.registry, path).to_string().into_bytes()))
}

fn open_api_index(served: &Served) -> Result<Vec<u8>, ApiError> {
    let mut paths = serde_json::Map::new();
    for path in openapi::paths(&served.registry) {
        let url = format!("/openapi/v3/{path}?hash={}", open_api_document(served, &path)?.hash);
        paths.insert(path, json!({"serverRelativeURL": url}));
    }
    Ok(json!({"paths": paths}).to_string().into_bytes())
}

fn with_etag(document: &Document, headers: &HeaderMap) -> Response {
    let etag = format!("\"{}\"", document.hash);
    let known = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let is_known = known.flat_map(|value| value.split(',')).any(|value| value.trim() == etag);
    let mut response = if is_known {
        let mut response = Response::new(body_empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        let compress = document.bytes.len() >= DOCUMENT_COMPRESS_BYTES_MIN && accepts_gzip(headers);
        let bytes = if compress { document.gzip.get_or_init(|| gzip(&document.bytes)) } else { &document.bytes };
        let mut response = Response::new(body_from(bytes.clone()));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if compress {
            response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        response
    };
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("public"));
    headers.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    headers.insert(ETAG, HeaderValue::from_str(&etag).expect("hex digits in quotes are a header value"));
    response
}
