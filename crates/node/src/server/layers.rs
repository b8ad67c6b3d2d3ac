//! `/v2/layers/blobs/DIGEST`: a layer that this node has, for other nodes of the cluster (reading a blob, OCI distribution 1.1).
//!
//! Rules
//!   R1 content   a layer goes by the digest of its archive without compression; who asks checks what comes
//!   R2 bounded   so many layers at a time; beyond, a node says that it is busy, and who asks goes elsewhere
//! Not here       tags and manifests: what a name means is for its registry to say, or one node could mislead all

use std::io::Read;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream;
use http::{HeaderValue, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use windlass_runtime::image::LayerArchive;
use windlass_stdx::{Body, BoxError};

use super::{Refusal, Site, with_type};

/// What is read from the disk at once.
const CHUNK_BYTES: usize = 256 << 10;

/// Answers with the layer.
pub(super) async fn answer(site: &Arc<Site>, digest: &str) -> Result<Response<Body>, Refusal> {
    let (images, wanted) = (site.kernel.images().clone(), digest.to_owned());
    let opened = tokio::task::spawn_blocking(move || images.layer_archive(&wanted)).await;
    let opened = opened.map_err(Refusal::internal)?.map_err(Refusal::internal)?;
    let archive = opened.ok_or_else(|| Refusal::not_found(format!("this node cannot give the layer {digest}")))?;
    let Some(archive) = archive else {
        let mut busy = with_type("text/plain; charset=utf-8", windlass_stdx::body_empty());
        *busy.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        return Ok(busy);
    };
    let mut response = with_type("application/octet-stream", layer_body(archive));
    if let Ok(digest) = HeaderValue::from_str(digest) {
        response.headers_mut().insert("docker-content-digest", digest);
    }
    Ok(response)
}

/// A layer's archive, read piece by piece as it is sent.
pub fn layer_body(archive: LayerArchive) -> Body {
    let chunks = stream::unfold(Some(archive), |archive| async move {
        let mut archive = archive?;
        let read = tokio::task::spawn_blocking(move || {
            let mut chunk = vec![0; CHUNK_BYTES];
            let mut filled = 0;
            while filled < chunk.len() {
                match archive.read(&mut chunk[filled..]) {
                    Ok(0) => break,
                    Ok(read) => filled += read,
                    Err(error) => return Err(error),
                }
            }
            chunk.truncate(filled);
            Ok((archive, Bytes::from(chunk)))
        });
        match read.await {
            Ok(Ok((_, chunk))) if chunk.is_empty() => None,
            Ok(Ok((archive, chunk))) => Some((Ok(Frame::data(chunk)), Some(archive))),
            Ok(Err(error)) => Some((Err(BoxError::from(error)), None)),
            Err(error) => Some((Err(BoxError::from(error)), None)),
        }
    });
    StreamBody::new(chunks).boxed_unsync()
}
