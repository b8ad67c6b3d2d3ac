//! A group: the transactions that share one log entry and one sync, and its form in the log.
//!
//! Form  count u32, then for each transaction: operations u32, then for each operation: tag u8, expectation u8 with its
//!       revision u64, key (length u32), and for a put: revision offset u32 (`NO_OFFSET` for none), value (length u32)

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::entry::Template;
use crate::op::{Committed, Conflict, Expect, Op};
use crate::wire::{Reader, put_bytes};

const TAG_PUT: u8 = 0;
const TAG_DELETE: u8 = 1;
const TAG_CHECK: u8 = 2;

const EXPECT_ANY: u8 = 0;
const EXPECT_ABSENT: u8 = 1;
const EXPECT_EXISTS: u8 = 2;
const EXPECT_REVISION: u8 = 3;

const NO_OFFSET: u32 = u32::MAX;

/// Bytes of an operation besides its key and value.
const OP_OVERHEAD: usize = 1 + 1 + 8 + 4 + 4 + 4;

/// Transactions in the order in which they take effect. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Group {
    body: Arc<Body>,
}

struct Body {
    transactions: Vec<Vec<Op>>,
    encoded: Bytes,
}

/// What became of each transaction of a group, in order.
#[derive(Debug)]
pub(crate) struct Outcomes(pub(crate) Vec<Result<Committed, Conflict>>);

impl Group {
    /// Encodes transactions whose sizes were checked against the limits.
    pub(crate) fn new(transactions: Vec<Vec<Op>>) -> Group {
        let size = 4 + transactions.iter().map(|ops| encoded_len(ops)).sum::<usize>();
        let mut out = Vec::with_capacity(size);
        out.extend_from_slice(&(transactions.len() as u32).to_le_bytes());
        for ops in &transactions {
            out.extend_from_slice(&(ops.len() as u32).to_le_bytes());
            ops.iter().for_each(|op| encode_op(&mut out, op));
        }
        Group { body: Arc::new(Body { transactions, encoded: out.into() }) }
    }

    /// Reads a group; `None` when the bytes are not one.
    pub(crate) fn decode(encoded: Bytes) -> Option<Group> {
        let mut reader = Reader::new(encoded.clone());
        let count = reader.u32()?;
        let mut transactions = Vec::new();
        for _ in 0..count {
            let ops_count = reader.u32()?;
            let mut ops = Vec::new();
            for _ in 0..ops_count {
                ops.push(decode_op(&mut reader)?);
            }
            transactions.push(ops);
        }
        reader.is_empty().then(|| Group { body: Arc::new(Body { transactions, encoded }) })
    }

    pub(crate) fn transactions(&self) -> &[Vec<Op>] {
        &self.body.transactions
    }

    pub(crate) fn encoded(&self) -> &Bytes {
        &self.body.encoded
    }
}

/// Bytes that a transaction takes in the log.
pub(crate) fn encoded_len(ops: &[Op]) -> usize {
    let bytes = |op: &Op| {
        let value_len = match op {
            Op::Put { value, .. } => value.bytes.len(),
            Op::Delete { .. } | Op::Check { .. } => 0,
        };
        OP_OVERHEAD + op.key().len() + value_len
    };
    4 + ops.iter().map(bytes).sum::<usize>()
}

fn encode_op(out: &mut Vec<u8>, op: &Op) {
    out.push(match op {
        Op::Put { .. } => TAG_PUT,
        Op::Delete { .. } => TAG_DELETE,
        Op::Check { .. } => TAG_CHECK,
    });
    let (expect, revision) = match op.expect() {
        Expect::Any => (EXPECT_ANY, 0),
        Expect::Absent => (EXPECT_ABSENT, 0),
        Expect::Exists => (EXPECT_EXISTS, 0),
        Expect::Revision(revision) => (EXPECT_REVISION, revision),
    };
    out.push(expect);
    out.extend_from_slice(&revision.to_le_bytes());
    put_bytes(out, op.key().as_bytes());
    if let Op::Put { value, .. } = op {
        out.extend_from_slice(&value.revision_at.unwrap_or(NO_OFFSET).to_le_bytes());
        put_bytes(out, &value.bytes);
    }
}

fn decode_op(reader: &mut Reader) -> Option<Op> {
    let tag = reader.u8()?;
    let expect_tag = reader.u8()?;
    let revision = reader.u64()?;
    let expect = match expect_tag {
        EXPECT_ANY => Expect::Any,
        EXPECT_ABSENT => Expect::Absent,
        EXPECT_EXISTS => Expect::Exists,
        EXPECT_REVISION => Expect::Revision(revision),
        _ => return None,
    };
    let key = Arc::from(std::str::from_utf8(&reader.bytes()?).ok()?);
    match tag {
        TAG_PUT => {
            let revision_at = Some(reader.u32()?).filter(|&at| at != NO_OFFSET);
            let bytes = reader.bytes()?;
            if revision_at.is_some_and(|at| at as usize > bytes.len()) {
                return None;
            }
            Some(Op::Put { key, value: Template { bytes, revision_at }, expect })
        }
        TAG_DELETE => Some(Op::Delete { key, expect }),
        TAG_CHECK => Some(Op::Check { key, expect }),
        _ => None,
    }
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "group of {} transactions, {} bytes", self.body.transactions.len(), self.body.encoded.len())
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::Group;
    use crate::entry::Template;
    use crate::op::{Expect, Op};

    fn sample() -> Group {
        Group::new(vec![
            vec![
                Op::put("a", Template::with_revision_at(&b"{}"[..], 1), Expect::Absent),
                Op::delete("b", Expect::Revision(7)),
            ],
            vec![Op::check("ключ", Expect::Exists)],
            vec![Op::put("c", Template::plain(&b""[..]), Expect::Any)],
        ])
    }

    #[test]
    fn a_group_survives_its_encoding() {
        let group = sample();
        let decoded = Group::decode(group.encoded().clone()).expect("a group decodes");
        assert_eq!(decoded.transactions(), group.transactions());
    }

    #[test]
    fn a_cut_or_extended_group_is_refused() {
        let encoded = sample().encoded().clone();
        for len in 0..encoded.len() {
            assert!(Group::decode(encoded.slice(..len)).is_none(), "cut at {len}");
        }
        let longer = [&encoded[..], b"x"].concat();
        assert!(Group::decode(longer.into()).is_none());
    }
}
