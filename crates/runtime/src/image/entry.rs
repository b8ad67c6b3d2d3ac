//! The entries of a tar archive with their extensions resolved: long names, pax records, extended attributes.
//!
//! Only headers are taken from the `tar` crate; extensions are read here, because their sizes are a stranger's word and
//! their values may contain any byte.

use std::io::{self, Read};

use tar::{EntryType, Header};

/// One extension record; a path is at most 4 KiB, attributes at most 64 KiB each.
const EXTENSION_BYTES_MAX: u64 = 1 << 20;
/// Extended attributes of one entry.
const ATTRIBUTES_MAX: usize = 64;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Directory,
    Link,
    Symlink,
    Fifo,
    Device,
    /// Something no image needs; what tar calls it.
    Other(char),
}

/// One entry without its content.
#[derive(Debug)]
pub(super) struct Meta {
    pub(super) kind: Kind,
    pub(super) path: Vec<u8>,
    pub(super) link: Vec<u8>,
    pub(super) size: u64,
    pub(super) mode: u32,
    pub(super) owner: (u64, u64),
    /// Seconds and nanoseconds since 1970.
    pub(super) modified: (i64, u32),
    pub(super) attributes: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Extensions seen since the last entry; they describe the next.
#[derive(Default)]
pub(super) struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    records: Vec<(Vec<u8>, Vec<u8>)>,
}

fn bad(why: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.into())
}

impl Extensions {
    /// Takes one header with its content: `None` when it was an extension, else the entry it describes.
    pub(super) fn take(&mut self, header: &Header, content: &mut impl Read) -> io::Result<Option<Meta>> {
        match header.entry_type() {
            EntryType::GNULongName => self.path = Some(text(header, content)?),
            EntryType::GNULongLink => self.link = Some(text(header, content)?),
            EntryType::XHeader => self.records.extend(records(&bounded(header, content)?)?),
            // Records for the whole archive: comments of its maker, nothing about entries that images use.
            EntryType::XGlobalHeader => drop(bounded(header, content)?),
            _ => return std::mem::take(self).describe(header).map(Some),
        }
        Ok(None)
    }

    fn describe(self, header: &Header) -> io::Result<Meta> {
        let mut meta = Meta {
            kind: kind_of(header.entry_type()),
            path: self.path.unwrap_or_else(|| header.path_bytes().into_owned()),
            link: self.link.or_else(|| header.link_name_bytes().map(|link| link.into_owned())).unwrap_or_default(),
            size: header.entry_size()?,
            mode: header.mode()? & 0o7777,
            owner: (header.uid()?, header.gid()?),
            modified: (i64::try_from(header.mtime()?).map_err(|_| bad("the time is beyond every calendar"))?, 0),
            attributes: Vec::new(),
        };
        for (key, value) in self.records {
            meta.extend(&key, value)?;
        }
        if meta.kind == Kind::File && meta.path.ends_with(b"/") {
            meta.kind = Kind::Directory;
        }
        Ok(meta)
    }
}

impl Meta {
    fn extend(&mut self, key: &[u8], value: Vec<u8>) -> io::Result<()> {
        match key {
            b"path" => self.path = value,
            b"linkpath" => self.link = value,
            b"uid" => self.owner.0 = number(&value)?,
            b"gid" => self.owner.1 = number(&value)?,
            b"mtime" => self.modified = time(&value)?,
            // The archive is read on by the header's size: one that says something else is not followed.
            b"size" if number(&value)? != self.size => {
                return Err(bad("a file of 8 GiB or more, or with two sizes, is not supported"));
            }
            _ if key.starts_with(b"GNU.sparse.") => self.kind = Kind::Other('S'),
            _ => {
                let name = key.strip_prefix(b"SCHILY.xattr.").filter(|name| !name.contains(&0));
                if let Some(name) = name {
                    if self.attributes.len() >= ATTRIBUTES_MAX {
                        return Err(bad(format!("more than {ATTRIBUTES_MAX} extended attributes")));
                    }
                    self.attributes.push((name.to_vec(), value));
                }
            }
        }
        Ok(())
    }
}

fn kind_of(kind: EntryType) -> Kind {
    match kind {
        EntryType::Regular | EntryType::Continuous => Kind::File,
        EntryType::Directory => Kind::Directory,
        EntryType::Link => Kind::Link,
        EntryType::Symlink => Kind::Symlink,
        EntryType::Fifo => Kind::Fifo,
        EntryType::Char | EntryType::Block => Kind::Device,
        other => Kind::Other(char::from(other.as_byte())),
    }
}

fn bounded(header: &Header, content: &mut impl Read) -> io::Result<Vec<u8>> {
    let size = header.entry_size()?;
    if size > EXTENSION_BYTES_MAX {
        return Err(bad(format!("an extension header of {size} bytes, where {EXTENSION_BYTES_MAX} are allowed")));
    }
    let mut bytes = Vec::new();
    content.take(size).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A long name, without the NUL that ends it.
fn text(header: &Header, content: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = bounded(header, content)?;
    if bytes.last() == Some(&0) {
        bytes.pop();
    }
    Ok(bytes)
}

/// Pax records: `<length> <key>=<value>\n`, where the length counts all of it (POSIX.1-2001 `pax`).
fn records(mut bytes: &[u8]) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let damaged = || bad("a damaged extension record");
    let mut records = Vec::new();
    while !bytes.is_empty() {
        let space = bytes.iter().position(|byte| *byte == b' ').ok_or_else(damaged)?;
        let length = usize::try_from(number(&bytes[..space])?).map_err(|_| damaged())?;
        let record = bytes.get(space + 1..length).and_then(|record| record.strip_suffix(b"\n")).ok_or_else(damaged)?;
        let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(damaged)?;
        records.push((record[..equals].to_vec(), record[equals + 1..].to_vec()));
        bytes = &bytes[length..];
    }
    Ok(records)
}

fn number(bytes: &[u8]) -> io::Result<u64> {
    let text = std::str::from_utf8(bytes).ok();
    text.and_then(|text| text.parse().ok()).ok_or_else(|| bad("an extension record without a number"))
}

/// Seconds with an optional fraction.
fn time(bytes: &[u8]) -> io::Result<(i64, u32)> {
    let damaged = || bad("an extension record without a time");
    let text = std::str::from_utf8(bytes).map_err(|_| damaged())?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds = whole.parse().map_err(|_| damaged())?;
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    Ok((seconds, digits.parse().map_err(|_| damaged())?))
}

#[cfg(test)]
mod tests {
    use super::{records, time};

    #[test]
    fn records_may_contain_newlines_and_lying_lengths_are_damage() {
        let given = b"12 a=x\ny=z\n\n8 bb=cc\n";
        let read = records(given).expect("two records");
        assert_eq!(read, [(b"a".to_vec(), b"x\ny=z\n".to_vec()), (b"bb".to_vec(), b"cc".to_vec())]);
        for bad in [&b"9999 a=b\n"[..], b"0 a=b\n", b"x a=b\n", b"7 ab\n", b"5", b"18446744073709551615 a=b\n"] {
            assert!(records(bad).is_err(), "{}", String::from_utf8_lossy(bad));
        }
        assert_eq!(time(b"1700000000.25").expect("a time"), (1_700_000_000, 250_000_000));
    }
}
