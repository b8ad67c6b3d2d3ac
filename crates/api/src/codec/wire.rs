//! Protobuf as it is on the wire: numbered fields, read one by one and written one by one, whatever they mean.
//!
//! Guarantees  reading copies nothing, and every length is checked against what is left
//! Source: protobuf encoding.

use super::DecodeError;

/// A value on the wire, before its type is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire<'a> {
    /// Whole numbers, flags, enums.
    Varint(u64),
    /// Eight bytes.
    Fixed64(u64),
    /// Four bytes, which nothing here needs.
    Fixed32,
    /// Text, bytes, messages.
    Bytes(&'a [u8]),
}

pub(super) fn syntax(message: impl Into<String>) -> DecodeError {
    DecodeError::Syntax { format: "protobuf", message: message.into() }
}

fn expected(what: &str, found: &Wire) -> DecodeError {
    syntax(format!("expected {what}, found {found:?}"))
}

impl<'a> Wire<'a> {
    /// A whole number; a negative one is in two's complement.
    pub fn number(self) -> Result<i64, DecodeError> {
        match self {
            Wire::Varint(number) => Ok(number as i64),
            other => Err(expected("a number", &other)),
        }
    }

    /// A flag.
    pub fn flag(self) -> Result<bool, DecodeError> {
        Ok(self.number()? != 0)
    }

    /// Bytes.
    pub fn bytes(self) -> Result<&'a [u8], DecodeError> {
        match self {
            Wire::Bytes(bytes) => Ok(bytes),
            other => Err(expected("bytes", &other)),
        }
    }

    /// Text.
    pub fn text(self) -> Result<String, DecodeError> {
        let text = std::str::from_utf8(self.bytes()?);
        text.map(str::to_owned).map_err(|error| syntax(format!("expected text in UTF-8, found {error}")))
    }

    /// A message inside.
    pub fn message(self) -> Result<Reader<'a>, DecodeError> {
        Ok(Reader::new(self.bytes()?))
    }

    /// One entry of a map of texts.
    pub fn pair(self) -> Result<(String, String), DecodeError> {
        let (mut key, mut value) = (String::new(), String::new());
        let mut reader = self.message()?;
        while let Some((tag, wire)) = reader.field()? {
            match tag {
                1 => key = wire.text()?,
                2 => value = wire.text()?,
                _ => {}
            }
        }
        Ok((key, value))
    }
}

/// Reads fields off the front of some bytes.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    pub(super) rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads this message.
    pub fn new(message: &'a [u8]) -> Reader<'a> {
        Reader { rest: message }
    }

    pub(super) fn varint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for (index, byte) in self.rest.iter().enumerate().take(10) {
            value |= u64::from(byte & 0x7f).checked_shl(7 * index as u32).unwrap_or(0);
            if byte & 0x80 == 0 {
                self.rest = &self.rest[index + 1..];
                return Ok(value);
            }
        }
        Err(syntax("expected a number of at most ten bytes, found none"))
    }

    pub(super) fn take(&mut self, length: u64) -> Result<&'a [u8], DecodeError> {
        let found = self.rest.len();
        match usize::try_from(length).ok().and_then(|length| self.rest.split_at_checked(length)) {
            Some((taken, rest)) => {
                self.rest = rest;
                Ok(taken)
            }
            None => Err(syntax(format!("expected {length} bytes, found {found}"))),
        }
    }

    /// The next field's tag and value; `None` at the end.
    pub fn field(&mut self) -> Result<Option<(u32, Wire<'a>)>, DecodeError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let tag = u32::try_from(key >> 3).ok().filter(|tag| *tag > 0);
        let tag = tag.ok_or_else(|| syntax("expected a field number from 1 to 2^29-1, found another"))?;
        let wire = match key & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => {
                let bytes = self.take(8)?.try_into().expect("eight bytes were taken");
                Wire::Fixed64(u64::from_le_bytes(bytes))
            }
            2 => {
                let length = self.varint()?;
                Wire::Bytes(self.take(length)?)
            }
            5 => {
                self.take(4)?;
                Wire::Fixed32
            }
            other => return Err(syntax(format!("expected wire type 0, 1, 2 or 5, found {other} in field {tag}"))),
        };
        Ok(Some((tag, wire)))
    }
}

/// Writes fields one behind the other. What is empty or zero is left out, as it means the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Writer(Vec<u8>);

impl Writer {
    /// An empty message.
    pub fn new() -> Writer {
        Writer::default()
    }

    fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    fn block(&mut self, tag: u32, bytes: &[u8]) {
        self.varint(u64::from(tag) << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    /// A whole number, or an enum's.
    pub fn number(mut self, tag: u32, number: i64) -> Writer {
        if number != 0 {
            self.varint(u64::from(tag) << 3);
            self.varint(number as u64);
        }
        self
    }

    /// A flag.
    pub fn flag(self, tag: u32, flag: bool) -> Writer {
        self.number(tag, i64::from(flag))
    }

    /// Text.
    pub fn text(self, tag: u32, text: &str) -> Writer {
        self.bytes(tag, text.as_bytes())
    }

    /// Bytes.
    pub fn bytes(mut self, tag: u32, bytes: &[u8]) -> Writer {
        if !bytes.is_empty() {
            self.block(tag, bytes);
        }
        self
    }

    /// A list of texts, or one more of it; empty ones count.
    pub fn texts<'a>(mut self, tag: u32, texts: impl IntoIterator<Item = &'a str>) -> Writer {
        texts.into_iter().for_each(|text| self.block(tag, text.as_bytes()));
        self
    }

    /// A message inside, or one more of a list; an empty one is there too.
    pub fn message(mut self, tag: u32, message: &Writer) -> Writer {
        self.block(tag, &message.0);
        self
    }

    /// A map of texts.
    pub fn pairs<'a>(mut self, tag: u32, pairs: impl IntoIterator<Item = (&'a String, &'a String)>) -> Writer {
        for (key, value) in pairs {
            self.block(tag, &Writer::new().text(1, key).text(2, value).0);
        }
        self
    }

    /// The message.
    pub fn finish(self) -> Vec<u8> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::{Reader, Wire, Writer};

    #[test]
    fn what_is_written_is_read_again() {
        let pairs = [("k".to_owned(), "v".to_owned())].into_iter().collect::<std::collections::BTreeMap<_, _>>();
        let inner = Writer::new().text(1, "x");
        let bytes = Writer::new()
            .number(1, 300)
            .number(2, -1)
            .number(3, 0)
            .text(4, "a")
            .texts(5, ["", "b"])
            .message(6, &inner)
            .pairs(7, &pairs)
            .flag(8, true)
            .finish();
        let (mut reader, mut shown) = (Reader::new(&bytes), Vec::new());
        while let Some((tag, wire)) = reader.field().expect("well formed") {
            shown.push(match tag {
                1 | 2 => format!("{tag}={}", wire.number().expect("a number")),
                4 | 5 => format!("{tag}={:?}", wire.text().expect("a text")),
                6 => format!(
                    "{tag}={:?}",
                    wire.message().expect("a message").field().expect("well formed").expect("one")
                ),
                7 => format!("{tag}={:?}", wire.pair().expect("a pair")),
                8 => format!("{tag}={}", wire.flag().expect("a flag")),
                other => format!("{other}?"),
            });
        }
        let expected = "1=300 2=-1 4=\"a\" 5=\"\" 5=\"b\" 6=(1, Bytes([120])) 7=(\"k\", \"v\") 8=true";
        assert_eq!(shown.join(" "), expected);
        assert!(Wire::Varint(1).bytes().is_err() && Wire::Bytes(b"\xff").text().is_err());
    }
}
