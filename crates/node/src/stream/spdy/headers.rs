//! Headers: names and values of a stream, compressed. One compression runs through all frames of a direction.
//!
//! Guarantees  a block that would grow beyond [`HEADER_BYTES_MAX`] is refused before it has
//! Source: SPDY drafts 3 and 3.1, "Name/Value Header Block" and its dictionary

use std::collections::BTreeMap;
use std::sync::LazyLock;

use bytes::{Buf, BufMut, Bytes};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

/// The most bytes of one uncompressed block. The largest of ours is below 200.
pub(super) const HEADER_BYTES_MAX: usize = 16 << 10;

/// The first part of what every compression begins with: these words, each after its length in 32 bits.
const WORDS: &str = "\
    options,head,post,put,delete,trace,accept,accept-charset,accept-encoding,accept-language,accept-ranges,\
    age,allow,authorization,cache-control,connection,content-base,content-encoding,content-language,\
    content-length,content-location,content-md5,content-range,content-type,date,etag,expect,expires,from,\
    host,if-match,if-modified-since,if-none-match,if-range,if-unmodified-since,last-modified,location,\
    max-forwards,pragma,proxy-authenticate,proxy-authorization,range,referer,retry-after,server,te,trailer,\
    transfer-encoding,upgrade,user-agent,vary,via,warning,www-authenticate,method,get,status,200 OK,version,\
    HTTP/1.1,url,public,set-cookie,keep-alive,origin";
/// The second part, as it is.
const PHRASES: &str = "\
    100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505203 \
    Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 \
    Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar \
    Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, \
    GMTchunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.";

static DICTIONARY: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut bytes = Vec::new();
    for word in WORDS.split(',') {
        put_text(&mut bytes, word);
    }
    bytes.extend_from_slice(PHRASES.as_bytes());
    bytes
});

/// The headers of a stream, by lower-case name.
pub(in super::super) type Headers = BTreeMap<String, String>;

/// Why a header block is not understood. The connection cannot go on: every later block builds on this one.
#[derive(Debug, thiserror::Error)]
pub(super) enum HeaderError {
    #[error("a header block is larger than {HEADER_BYTES_MAX} bytes")]
    TooLarge,
    #[error("a header block is not compressed with the dictionary of SPDY/3")]
    Dictionary,
    #[error("a header block is corrupt")]
    Corrupt(#[from] flate2::DecompressError),
    #[error("the compression of headers was ended")]
    Ended,
    #[error("a header block does not hold the names and values it announces")]
    Malformed,
}

/// Reads the header blocks of one direction, in order.
#[derive(Debug)]
pub(super) struct Inflater(Decompress);

impl Inflater {
    pub fn new() -> Inflater {
        Inflater(Decompress::new(true))
    }

    /// Reads the next block.
    pub fn read(&mut self, block: &[u8]) -> Result<Headers, HeaderError> {
        parse(self.inflate(block)?.into())
    }

    fn inflate(&mut self, mut block: &[u8]) -> Result<Vec<u8>, HeaderError> {
        let mut whole = Vec::new();
        let mut piece = [0; 2048];
        loop {
            let (in_before, out_before) = (self.0.total_in(), self.0.total_out());
            let result = self.0.decompress(block, &mut piece, FlushDecompress::Sync);
            let (taken, made) = ((self.0.total_in() - in_before) as usize, (self.0.total_out() - out_before) as usize);
            block = &block[taken..];
            match result {
                Ok(Status::StreamEnd) => return Err(HeaderError::Ended),
                Ok(_) => {}
                Err(error) if error.needs_dictionary().is_some() => {
                    self.0.set_dictionary(&DICTIONARY).map_err(|_| HeaderError::Dictionary)?;
                    continue;
                }
                Err(error) => return Err(error.into()),
            }
            whole.extend_from_slice(&piece[..made]);
            if whole.len() > HEADER_BYTES_MAX {
                return Err(HeaderError::TooLarge);
            }
            if made < piece.len() && (block.is_empty() || taken == 0) {
                return Ok(whole);
            }
        }
    }
}

/// Names are compared in lower case; several values of a name are separated by NUL, of which the first counts.
fn parse(mut block: Bytes) -> Result<Headers, HeaderError> {
    let count = get_u32(&mut block)?;
    let mut headers = Headers::new();
    for _ in 0..count {
        let name = get_text(&mut block)?.to_ascii_lowercase();
        let mut value = get_text(&mut block)?;
        value.truncate(value.find('\0').unwrap_or(value.len()));
        headers.insert(name, value);
    }
    match block.is_empty() {
        true => Ok(headers),
        false => Err(HeaderError::Malformed),
    }
}

fn get_u32(block: &mut Bytes) -> Result<u32, HeaderError> {
    block.try_get_u32().map_err(|_| HeaderError::Malformed)
}

fn get_text(block: &mut Bytes) -> Result<String, HeaderError> {
    let length = get_u32(block)? as usize;
    if length > block.len() {
        return Err(HeaderError::Malformed);
    }
    String::from_utf8(block.split_to(length).into()).map_err(|_| HeaderError::Malformed)
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.put_u32(u32::try_from(text.len()).expect("our own headers are short"));
    out.extend_from_slice(text.as_bytes());
}

/// Writes the header blocks of one direction, in order.
#[derive(Debug)]
pub(super) struct Deflater(Compress);

impl Deflater {
    pub fn new() -> Deflater {
        let mut compress = Compress::new(Compression::fast(), true);
        compress.set_dictionary(&DICTIONARY).expect("nothing has been compressed before");
        Deflater(compress)
    }

    /// The next block.
    pub fn write(&mut self, headers: &Headers) -> Bytes {
        let mut plain = Vec::new();
        plain.put_u32(u32::try_from(headers.len()).expect("our own headers are few"));
        for (name, value) in headers {
            put_text(&mut plain, name);
            put_text(&mut plain, value);
        }
        let mut rest = plain.as_slice();
        let mut block = Vec::with_capacity(plain.len() + 64);
        loop {
            let before = self.0.total_in();
            let flushed = self.0.compress_vec(rest, &mut block, FlushCompress::Sync);
            flushed.expect("a compression that is never finished takes all input");
            rest = &rest[(self.0.total_in() - before) as usize..];
            if rest.is_empty() && block.len() < block.capacity() {
                return block.into();
            }
            block.reserve(256);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{DICTIONARY, Deflater, HEADER_BYTES_MAX, HeaderError, Headers, Inflater};

    fn headers(pairs: &[(&str, &str)]) -> Headers {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_dictionary_is_the_one_every_client_has() {
        assert_eq!(DICTIONARY.len(), 1423);
        let block = Deflater::new().write(&Headers::new());
        // RFC 1950: CMF, FLG with FDICT, then the Adler-32 sum of the dictionary.
        assert_eq!((block[0], block[1] & 0x20, &block[2..6]), (0x78, 0x20, &[0xe3, 0xc6, 0xa7, 0xc2][..]));
    }

    #[test]
    fn blocks_are_read_back_in_order() {
        let (mut deflater, mut inflater) = (Deflater::new(), Inflater::new());
        let long = "x".repeat(5000);
        for pairs in [
            vec![("streamtype", "error")],
            vec![("port", "8080"), ("requestid", "0"), ("streamtype", "data")],
            vec![],
            vec![("a", long.as_str())],
            vec![("streamtype", "error")],
        ] {
            let sent = headers(&pairs);
            let block = deflater.write(&sent);
            assert_eq!(inflater.read(&block).expect("our own block"), sent);
        }
    }

    #[test]
    fn names_are_lowered_and_the_first_of_several_values_counts() {
        let block = Deflater::new().write(&headers(&[("StreamType", "stdin\0other")]));
        assert_eq!(Inflater::new().read(&block).expect("a good block"), headers(&[("streamtype", "stdin")]));
    }

    #[test]
    fn a_block_that_grows_too_large_is_refused() {
        let bomb = "0".repeat(HEADER_BYTES_MAX * 8);
        let block = Deflater::new().write(&headers(&[("a", &bomb)]));
        assert!(block.len() < 2048, "{} bytes on the wire", block.len());
        assert!(matches!(Inflater::new().read(&block), Err(HeaderError::TooLarge)));
    }

    #[test]
    fn hostile_blocks_are_refused() {
        assert!(matches!(Inflater::new().read(b"no zlib at all"), Err(HeaderError::Corrupt(_))));
        let mut other = flate2::Compress::new(flate2::Compression::fast(), true);
        other.set_dictionary(b"another").expect("nothing compressed yet");
        let mut block = Vec::with_capacity(64);
        other.compress_vec(&[0; 4], &mut block, flate2::FlushCompress::Sync).expect("compresses");
        assert!(matches!(Inflater::new().read(&block), Err(HeaderError::Dictionary)));
        let raw = |bytes: &[u8]| {
            let mut deflater = Deflater::new();
            let mut block = Vec::with_capacity(256);
            deflater.0.compress_vec(bytes, &mut block, flate2::FlushCompress::Sync).expect("compresses");
            Inflater::new().read(&block)
        };
        for bytes in [
            &[0xff, 0xff, 0xff, 0xff][..],
            &[0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, b'a'],
            &[0, 0, 0, 0, 0],
            &[0, 0, 0, 1, 0, 0, 0, 1, 0xff, 0, 0, 0, 0],
            &[],
        ] {
            assert!(matches!(raw(bytes), Err(HeaderError::Malformed)), "{bytes:?}");
        }
    }
}
