//! Netlink messages: a header, a fixed part, and attributes that nest (Linux `netlink(7)`).

/// Marks an attribute whose payload is attributes.
const NESTED: u16 = 0x8000;
/// The bits of an attribute's type that say what it is.
const KIND_MASK: u16 = 0x3fff;
pub(super) const HEADER_BYTES: usize = 16;
/// The message asks for something.
pub(crate) const REQUEST: u16 = 0x1;

/// Messages to be sent together, in order.
#[derive(Default)]
pub(crate) struct Messages {
    pub(super) bytes: Vec<u8>,
    /// One per message: what it asks for, for errors.
    pub(super) labels: Vec<&'static str>,
}

impl Messages {
    /// No message yet.
    pub(crate) fn new() -> Messages {
        Messages::default()
    }

    /// How many messages there are.
    pub(crate) fn len(&self) -> usize {
        self.labels.len()
    }

    /// Appends a message of this `kind`: `fixed` is the family's own header, `fill` adds the attributes.
    pub(crate) fn add(
        &mut self,
        label: &'static str,
        (kind, flags): (u16, u16),
        fixed: &[u8],
        fill: impl FnOnce(&mut Attributes<'_>),
    ) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&(flags | REQUEST).to_ne_bytes());
        self.bytes.extend_from_slice(&(self.labels.len() as u32).to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(fixed);
        pad(&mut self.bytes);
        fill(&mut Attributes { bytes: &mut self.bytes });
        let length = u32::try_from(self.bytes.len() - start).expect("a message is far below 4 GiB");
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
        self.labels.push(label);
    }

    /// Sets a flag on the last message.
    pub(crate) fn flag_last(&mut self, flag: u16) {
        let mut at = 0;
        let mut last = 0;
        while at < self.bytes.len() {
            last = at;
            at += length_at(&self.bytes, at);
        }
        let flags = u16::from_ne_bytes([self.bytes[last + 6], self.bytes[last + 7]]) | flag;
        self.bytes[last + 6..last + 8].copy_from_slice(&flags.to_ne_bytes());
    }
}

pub(super) fn length_at(bytes: &[u8], at: usize) -> usize {
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]) as usize
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// Writes the attributes of a message or of a nesting attribute.
pub(crate) struct Attributes<'a> {
    bytes: &'a mut Vec<u8>,
}

impl Attributes<'_> {
    /// The attributes that `fill` writes, by themselves.
    pub(crate) fn collect(fill: impl FnOnce(&mut Attributes<'_>)) -> Vec<u8> {
        let mut bytes = Vec::new();
        fill(&mut Attributes { bytes: &mut bytes });
        bytes
    }

    /// An attribute with this payload.
    pub(crate) fn put(&mut self, kind: u16, payload: &[u8]) {
        let length = u16::try_from(4 + payload.len()).expect("an attribute's payload is below 64 KiB");
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(payload);
        pad(self.bytes);
    }

    /// A number in the machine's byte order.
    pub(crate) fn put_u32(&mut self, kind: u16, value: u32) {
        self.put(kind, &value.to_ne_bytes());
    }

    /// A number in network byte order.
    pub(crate) fn put_be32(&mut self, kind: u16, value: u32) {
        self.put(kind, &value.to_be_bytes());
    }

    /// A text, which the kernel wants to end in NUL.
    pub(crate) fn put_text(&mut self, kind: u16, text: &str) {
        let mut bytes = Vec::with_capacity(text.len() + 1);
        bytes.extend_from_slice(text.as_bytes());
        bytes.push(0);
        self.put(kind, &bytes);
    }

    /// Attributes within an attribute.
    pub(crate) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Attributes<'_>)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&(kind | NESTED).to_ne_bytes());
        fill(&mut Attributes { bytes: self.bytes });
        let length = u16::try_from(self.bytes.len() - start).expect("a nesting attribute is below 64 KiB");
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    }

    /// Bytes as they are, where a payload has a fixed part before its attributes.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        pad(self.bytes);
    }
}

/// The attributes in `bytes`, as far as they are well formed.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(bytes.get(0..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?);
        let payload = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind & KIND_MASK, payload))
    })
}

/// A text attribute without its NUL.
pub(crate) fn text_of(payload: &[u8]) -> &str {
    let end = payload.iter().position(|byte| *byte == 0).unwrap_or(payload.len());
    std::str::from_utf8(&payload[..end]).unwrap_or_default()
}

/// A number in network byte order; `None` when it is not four bytes.
pub(crate) fn be32_of(payload: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(payload.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::{Messages, attributes, be32_of, length_at, text_of};

    #[test]
    fn what_is_written_is_read_back_with_its_nesting() {
        let mut messages = Messages::new();
        messages.add("a test", (16, 0), &[0; 16], |attributes| {
            attributes.put_text(3, "lo");
            attributes.nest(18, |inner| inner.put_be32(1, 7));
        });
        assert_eq!(length_at(&messages.bytes, 0), messages.bytes.len());
        let read: Vec<_> = attributes(&messages.bytes[32..]).collect();
        assert_eq!(read.len(), 2);
        assert_eq!((read[0].0, text_of(read[0].1)), (3, "lo"));
        let inner: Vec<_> = attributes(read[1].1).map(|(kind, payload)| (kind, be32_of(payload))).collect();
        assert_eq!((read[1].0, inner), (18, vec![(1, Some(7))]));
    }

    #[test]
    fn a_cut_or_lying_attribute_ends_the_reading() {
        for bytes in [&[9, 0, 1, 0, 1][..], &[2, 0, 1, 0], &[0, 0, 0, 0], &[5]] {
            assert_eq!(attributes(bytes).count(), 0, "{bytes:?}");
        }
    }
}
