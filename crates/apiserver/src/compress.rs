//! gzip, for answers that are worth it.
//!
//! Rules
//!   R1 asked    only for who takes gzip
//!   R2 large    lists from `LIST_COMPRESS_BYTES_MIN` on, as Kubernetes does; documents nearly always, because they are
//!               compressed once and kept (`documents`); nothing else, and never a watch
//!   R3 fast     at the fastest level, chunk by chunk while it is sent, so that other requests come between
//!
//! Source: RFC 9110, "Accept-Encoding"; Kubernetes' APIResponseCompression.

use std::io::Write;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::HeaderMap;
use http::header::ACCEPT_ENCODING;
use http_body::Frame;
use windlass_stdx::{Body, BoxError};

/// Lists smaller than this are sent as they are.
pub(crate) const LIST_COMPRESS_BYTES_MIN: usize = 128 * 1024;
/// Compressed bytes that go out together.
const COMPRESSED_CHUNK_BYTES: usize = 16 * 1024;
/// Encodings looked at in one header.
const ENCODINGS_MAX: usize = 16;

/// Whether the client takes gzip.
pub(crate) fn accepts_gzip(headers: &HeaderMap) -> bool {
    let texts = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    texts.flat_map(|text| text.split(',')).take(ENCODINGS_MAX).any(|encoding| {
        let mut parts = encoding.split(';').map(str::trim);
        let is_gzip = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip"));
        let refused = parts.any(|part| part.strip_prefix("q=").is_some_and(|quality| quality.parse() == Ok(0.0_f32)));
        is_gzip && !refused
    })
}

/// Bytes compressed as a whole.
pub(crate) fn gzip(bytes: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).expect("writing to a Vec does not fail");
    Bytes::from(encoder.finish().expect("writing to a Vec does not fail"))
}

/// A body compressed while it is sent (R3).
pub(crate) struct Compressed {
    inner: Body,
    /// `None` after the end.
    encoder: Option<GzEncoder<Vec<u8>>>,
}

impl Compressed {
    pub fn new(inner: Body) -> Compressed {
        Compressed { inner, encoder: Some(GzEncoder::new(Vec::new(), Compression::fast())) }
    }
}

impl http_body::Body for Compressed {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        loop {
            let Some(encoder) = &self.encoder else { return Poll::Ready(None) };
            if encoder.get_ref().len() >= COMPRESSED_CHUNK_BYTES {
                let encoder = self.encoder.as_mut().expect("it was just there");
                return Poll::Ready(Some(Ok(Frame::data(Bytes::from(std::mem::take(encoder.get_mut()))))));
            }
            match ready!(Pin::new(&mut self.inner).poll_frame(context)) {
                Some(Ok(frame)) => {
                    if let (Ok(data), Some(encoder)) = (frame.into_data(), &mut self.encoder) {
                        encoder.write_all(&data)?;
                    }
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => {
                    let rest = self.encoder.take().expect("it was just there").finish()?;
                    return Poll::Ready(Some(Ok(Frame::data(Bytes::from(rest)))));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::{Compressed, accepts_gzip, gzip};
    use flate2::read::GzDecoder;
    use http::HeaderMap;
    use windlass_stdx::{body_from, read_body};

    #[test]
    fn gzip_is_for_who_takes_it() {
        for (text, accepted) in [
            ("gzip", true),
            ("deflate, GZIP;q=0.5", true),
            ("gzip;q=0", false),
            ("identity", false),
            ("", false),
            ("gzipped", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("accept-encoding", text.parse().expect("a header value"));
            assert_eq!(accepts_gzip(&headers), accepted, "{text}");
        }
        assert!(!accepts_gzip(&HeaderMap::new()));
    }

    #[tokio::test]
    async fn what_is_compressed_comes_back_as_it_was() {
        let text: String = (0..50_000).map(|number| format!("config-map-{},", number % 100)).collect();
        let body = http_body_util::BodyExt::boxed_unsync(Compressed::new(body_from(text.clone())));
        let sent = read_body(body, 1 << 20).await.expect("a body").expect("a small one");
        assert!(sent.len() < text.len() / 2);
        for bytes in [sent, gzip(text.as_bytes())] {
            let mut back = String::new();
            GzDecoder::new(&bytes[..]).read_to_string(&mut back).expect("gzip");
            assert_eq!(back, text);
        }
    }
}
