//! Digests: what content is, checked while it passes through.

use std::io::{self, Read};

use sha2::{Digest as _, Sha256};

/// The digest of these bytes, `sha256:…`.
pub(super) fn of(bytes: &[u8]) -> String {
    text(&Sha256::digest(bytes))
}

pub(super) fn text(hash: &[u8]) -> String {
    let mut text = String::with_capacity(7 + 64);
    text.push_str("sha256:");
    for byte in hash {
        text.push(char::from_digit(u32::from(byte >> 4), 16).expect("a nibble is a hex digit"));
        text.push(char::from_digit(u32::from(byte & 15), 16).expect("a nibble is a hex digit"));
    }
    text
}

/// Reads through to another reader, counting and hashing what passes; ends with an error beyond `bytes_max`.
pub(super) struct Checked<R> {
    inner: R,
    hash: Sha256,
    bytes: u64,
    bytes_max: u64,
}

/// The error of a [`Checked`] that was read beyond its bound.
#[derive(Debug, thiserror::Error)]
#[error("it is larger than {bytes_max} bytes")]
pub(super) struct TooLong {
    bytes_max: u64,
}

impl<R: Read> Checked<R> {
    pub(super) fn new(inner: R, bytes_max: u64) -> Checked<R> {
        Checked { inner, hash: Sha256::new(), bytes: 0, bytes_max }
    }

    /// Reads what is left and gives the digest and size of everything.
    pub(super) fn finish(mut self) -> io::Result<(String, u64)> {
        self.drain()?;
        Ok((text(&self.hash.finalize()), self.bytes))
    }

    /// Reads what is left.
    pub(super) fn drain(&mut self) -> io::Result<()> {
        let mut buffer = vec![0; 64 << 10];
        while self.read(&mut buffer)? > 0 {}
        Ok(())
    }
}

impl<R: Read> Read for Checked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.bytes += read as u64;
        if self.bytes > self.bytes_max {
            return Err(io::Error::other(TooLong { bytes_max: self.bytes_max }));
        }
        self.hash.update(&buffer[..read]);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::{Checked, of};
    use std::io::Read;

    #[test]
    fn content_is_hashed_while_it_passes_and_bounded() {
        let mut checked = Checked::new(&b"abc"[..], 3);
        let mut first = [0; 1];
        checked.read_exact(&mut first).expect("a byte");
        let expected = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(checked.finish().expect("the rest"), (expected.to_owned(), 3));
        assert_eq!(of(b"abc"), expected);
        assert!(Checked::new(&b"abcd"[..], 3).finish().is_err());
    }
}
