//! Frame: the bytes of SPDY's frames, read and written. Pure: no connection, no compression.
//!
//! ```text
//! data      0 | stream (31)                     flags (8) | length (24) | payload
//! control   1 | version 3 (15) | kind (16)      flags (8) | length (24) | payload
//! ```

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// The bytes of every frame before its payload.
pub(super) const HEAD_BYTES: usize = 8;
/// The longest payload of a control frame that is read. Ours hold a few headers.
pub(super) const CONTROL_BYTES_MAX: usize = 64 << 10;
/// The largest flow control window (31 bits).
pub(super) const WINDOW_MAX: i64 = 0x7fff_ffff;
/// The version that frames name; 3.1 is 3 on the wire.
const VERSION: u16 = 3;
const FLAG_FIN: u8 = 1;
const FLAG_UNIDIRECTIONAL: u8 = 2;
const SETTING_INITIAL_WINDOW: u32 = 7;

/// What a connection breaks for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FrameError {
    #[error("expected a frame of SPDY version {VERSION}, found version {0}")]
    Version(u16),
    #[error("expected a control frame of at most {CONTROL_BYTES_MAX} bytes, found one of {0}")]
    TooLong(usize),
    #[error("expected {expected} bytes in a frame of kind {kind}, found {found}")]
    Length { kind: u16, expected: usize, found: usize },
    #[error("a frame of kind {0} names stream 0")]
    NoStream(u16),
}

/// The first bytes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Head {
    /// `length` bytes for a stream follow.
    Data { stream: u32, fin: bool, length: usize },
    /// `length` bytes of a control frame follow.
    Control { kind: u16, flags: u8, length: usize },
}

/// A control frame. A `block` is compressed headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Control {
    SynStream { stream: u32, fin: bool, unidirectional: bool, block: Bytes },
    SynReply { stream: u32, fin: bool, block: Bytes },
    Reset { stream: u32, status: u32 },
    Settings { initial_window: Option<u32> },
    Ping { id: u32 },
    GoAway { last_stream: u32, status: u32 },
    Headers { stream: u32, fin: bool, block: Bytes },
    WindowUpdate { stream: u32, delta: u32 },
}

impl Head {
    /// Refuses what must not be read any further.
    pub fn read(bytes: [u8; HEAD_BYTES]) -> Result<Head, FrameError> {
        let mut bytes = &bytes[..];
        let (first, second) = (bytes.get_u32(), bytes.get_u32());
        let [flags, ..] = second.to_be_bytes();
        let length = (second & 0x00ff_ffff) as usize;
        if first & 0x8000_0000 == 0 {
            return match first {
                0 => Err(FrameError::NoStream(0)),
                stream => Ok(Head::Data { stream, fin: flags & FLAG_FIN != 0, length }),
            };
        }
        let (version, kind) = ((first >> 16) as u16 & 0x7fff, (first & 0xffff) as u16);
        match (version, length) {
            (VERSION, 0..=CONTROL_BYTES_MAX) => Ok(Head::Control { kind, flags, length }),
            (VERSION, _) => Err(FrameError::TooLong(length)),
            (other, _) => Err(FrameError::Version(other)),
        }
    }

    /// The head of a data frame.
    pub fn data(stream: u32, fin: bool, length: usize) -> [u8; HEAD_BYTES] {
        let length = u32::try_from(length).ok().filter(|length| *length < 1 << 24);
        let second = length.expect("chunks are far below 16 MiB") | u32::from(fin) << 24;
        let mut bytes = [0; HEAD_BYTES];
        bytes[..4].copy_from_slice(&(stream & 0x7fff_ffff).to_be_bytes());
        bytes[4..].copy_from_slice(&second.to_be_bytes());
        bytes
    }
}

impl Control {
    /// Reads a payload; `None` for a kind that is to be ignored, as the draft wants for all unknown ones.
    pub fn read(kind: u16, flags: u8, mut payload: Bytes) -> Result<Option<Control>, FrameError> {
        let found = payload.len();
        let fits = |is_fitting: bool, expected: usize| match is_fitting {
            true => Ok(()),
            false => Err(FrameError::Length { kind, expected, found }),
        };
        let stream_of = |payload: &mut Bytes| match payload.get_u32() & 0x7fff_ffff {
            0 => Err(FrameError::NoStream(kind)),
            stream => Ok(stream),
        };
        let fin = flags & FLAG_FIN != 0;
        Ok(Some(match kind {
            1 => {
                fits(found >= 10, 10)?;
                let stream = stream_of(&mut payload)?;
                payload.advance(6);
                Control::SynStream { stream, fin, unidirectional: flags & FLAG_UNIDIRECTIONAL != 0, block: payload }
            }
            2 => {
                fits(found >= 4, 4)?;
                Control::SynReply { stream: stream_of(&mut payload)?, fin, block: payload }
            }
            3 => {
                fits(found == 8, 8)?;
                Control::Reset { stream: stream_of(&mut payload)?, status: payload.get_u32() }
            }
            4 => {
                fits(found >= 4, 4)?;
                let count = payload.get_u32() as usize;
                fits(count.checked_mul(8) == Some(payload.len()), count.saturating_mul(8).saturating_add(4))?;
                Control::Settings { initial_window: initial_window(payload) }
            }
            6 => {
                fits(found == 4, 4)?;
                Control::Ping { id: payload.get_u32() }
            }
            7 => {
                fits(found == 8, 8)?;
                Control::GoAway { last_stream: payload.get_u32() & 0x7fff_ffff, status: payload.get_u32() }
            }
            8 => {
                fits(found >= 4, 4)?;
                Control::Headers { stream: stream_of(&mut payload)?, fin, block: payload }
            }
            9 => {
                fits(found == 8, 8)?;
                let (stream, delta) = (payload.get_u32() & 0x7fff_ffff, payload.get_u32() & 0x7fff_ffff);
                Control::WindowUpdate { stream, delta }
            }
            _ => return Ok(None),
        }))
    }

    /// Appends the whole frame.
    pub fn write(&self, out: &mut BytesMut) {
        let (kind, flags) = self.kind_and_flags();
        out.put_u16(0x8000 | VERSION);
        out.put_u16(kind);
        let length_at = out.len();
        out.put_u32(0);
        match self {
            Control::SynStream { stream, block, .. } => {
                out.put_u32(*stream);
                out.put_bytes(0, 6);
                out.put_slice(block);
            }
            Control::SynReply { stream, block, .. } | Control::Headers { stream, block, .. } => {
                out.put_u32(*stream);
                out.put_slice(block);
            }
            Control::Reset { stream: first, status: second }
            | Control::GoAway { last_stream: first, status: second }
            | Control::WindowUpdate { stream: first, delta: second } => {
                out.put_u32(*first);
                out.put_u32(*second);
            }
            Control::Settings { initial_window } => {
                out.put_u32(u32::from(initial_window.is_some()));
                if let Some(window) = initial_window {
                    out.put_u32(SETTING_INITIAL_WINDOW);
                    out.put_u32(*window);
                }
            }
            Control::Ping { id } => out.put_u32(*id),
        }
        let length = u32::try_from(out.len() - length_at - 4).ok().filter(|length| *length < 1 << 24);
        let second = length.expect("header blocks are bounded far below 16 MiB") | u32::from(flags) << 24;
        out[length_at..length_at + 4].copy_from_slice(&second.to_be_bytes());
    }

    fn kind_and_flags(&self) -> (u16, u8) {
        let fin = |fin: &bool| if *fin { FLAG_FIN } else { 0 };
        match self {
            Control::SynStream { fin: ends, unidirectional, .. } => {
                (1, fin(ends) | if *unidirectional { FLAG_UNIDIRECTIONAL } else { 0 })
            }
            Control::SynReply { fin: ends, .. } => (2, fin(ends)),
            Control::Reset { .. } => (3, 0),
            Control::Settings { .. } => (4, 0),
            Control::Ping { .. } => (6, 0),
            Control::GoAway { .. } => (7, 0),
            Control::Headers { fin: ends, .. } => (8, fin(ends)),
            Control::WindowUpdate { .. } => (9, 0),
        }
    }
}

/// The last value of the only setting that concerns us.
fn initial_window(mut entries: Bytes) -> Option<u32> {
    let mut window = None;
    while entries.remaining() >= 8 {
        let (id, value) = (entries.get_u32() & 0x00ff_ffff, entries.get_u32());
        if id == SETTING_INITIAL_WINDOW {
            window = Some(value & 0x7fff_ffff);
        }
    }
    window
}

#[cfg(test)]
mod tests {
    use bytes::{Bytes, BytesMut};

    use super::{Control, FrameError, HEAD_BYTES, Head};

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn read_back(bytes: &[u8]) -> Control {
        let (head, payload) = bytes.split_at(HEAD_BYTES);
        match Head::read(head.try_into().expect("eight bytes")).expect("a good head") {
            Head::Control { kind, flags, length } => {
                assert_eq!(length, payload.len());
                Control::read(kind, flags, Bytes::copy_from_slice(payload))
                    .expect("a good frame")
                    .expect("a known kind")
            }
            data => panic!("{data:?} is no control frame"),
        }
    }

    #[test]
    fn control_frames_are_as_the_draft_draws_them() {
        let block = Bytes::from_static(b"zz");
        let table = [
            (
                Control::SynStream { stream: 1, fin: true, unidirectional: false, block: block.clone() },
                "800300010100000c0000000100000000000",
                "07a7a",
            ),
            (Control::SynReply { stream: 3, fin: false, block: block.clone() }, "8003000200000006", "000000037a7a"),
            (Control::Reset { stream: 5, status: 5 }, "8003000300000008", "0000000500000005"),
            (Control::Settings { initial_window: Some(65536) }, "800300040000000c", "000000010000000700010000"),
            (Control::Settings { initial_window: None }, "8003000400000004", "00000000"),
            (Control::Ping { id: 7 }, "8003000600000004", "00000007"),
            (Control::GoAway { last_stream: 9, status: 1 }, "8003000700000008", "0000000900000001"),
            (Control::Headers { stream: 1, fin: true, block }, "8003000801000006", "000000017a7a"),
            (Control::WindowUpdate { stream: 0, delta: 256 }, "8003000900000008", "0000000000000100"),
        ];
        for (control, head, payload) in table {
            let mut out = BytesMut::new();
            control.write(&mut out);
            assert_eq!(hex(&out), format!("{head}{payload}"), "{control:?}");
            assert_eq!(read_back(&out), control);
        }
    }

    #[test]
    fn a_data_frame_names_its_stream_its_length_and_its_end() {
        assert_eq!(hex(&Head::data(3, true, 5)), "0000000301000005");
        assert_eq!(Head::read(Head::data(3, true, 5)), Ok(Head::Data { stream: 3, fin: true, length: 5 }));
        assert_eq!(Head::read(Head::data(3, false, 0)), Ok(Head::Data { stream: 3, fin: false, length: 0 }));
    }

    #[test]
    fn hostile_frames_are_refused() {
        let too_long = [0x80, 3, 0, 1, 0, 0xff, 0xff, 0xff];
        assert_eq!(Head::read(too_long), Err(FrameError::TooLong(0xff_ffff)));
        assert_eq!(Head::read([0x80, 2, 0, 1, 0, 0, 0, 0]), Err(FrameError::Version(2)));
        assert_eq!(Head::read([0; 8]), Err(FrameError::NoStream(0)));
        assert_eq!(Head::read(*b"GET / HT"), Ok(Head::Data { stream: 0x4745_5420, fin: true, length: 0x20_4854 }));
        for (kind, payload) in [
            (1, &[0, 0, 0, 1][..]),
            (2, &[0, 0, 0]),
            (3, &[0, 0, 0, 1]),
            (4, &[0xff, 0xff, 0xff, 0xff]),
            (4, &[0, 0, 0, 1, 0, 0, 0, 7]),
            (6, &[]),
            (7, &[0; 7]),
            (8, &[]),
            (9, &[0; 9]),
        ] {
            let read = Control::read(kind, 0, Bytes::from_static(payload));
            assert!(matches!(read, Err(FrameError::Length { .. })), "{kind}: {read:?}");
        }
        for kind in [1, 2, 3, 8] {
            let length = if kind == 3 { 8 } else { 10 };
            let read = Control::read(kind, 0, Bytes::from_static(&[0; 10][..length]));
            assert_eq!(read, Err(FrameError::NoStream(kind)));
        }
        assert_eq!(Control::read(5, 0, Bytes::new()), Ok(None), "an unknown kind is passed over");
    }
}
