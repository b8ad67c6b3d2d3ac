//! Continue tokens: where a paged list goes on, bound to the list it came from.
//!
//! Rules
//!   R1 bound        a token carries a MAC over the resource, namespace and selectors of its list; with any other list it
//!                   is refused (A14), so nobody reads another namespace through a token
//!   R2 consistent   it names the revision of the first page; all pages show that revision, or 410 when it is compacted
//!   R3 going on     that 410 holds a token without a revision: the rest of the list as it is now
//!
//! Shape: base64url(revision 8 bytes, 0 for none ‖ MAC 16 bytes ‖ the last key of the page before).

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use windlass_api::ApiError;
use windlass_store::Revision;

/// Longest token: a key has at most 1,024 bytes.
const TOKEN_BYTES_MAX: usize = 2048;
const MAC_BYTES: usize = 16;
const REVISION_BYTES: usize = 8;

/// What tokens are sealed with. Kept over restarts where the cluster's CA is known.
#[derive(Clone)]
pub(crate) struct PageKey(pub [u8; 32]);

/// Where a list goes on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Position {
    /// The revision that all pages show; `None` shows the newest (R3).
    pub revision: Option<Revision>,
    /// The last key of the page before.
    pub after: String,
}

impl Position {
    /// An empty store has no pages, so no page is ever at revision 0.
    fn revision_on_wire(&self) -> u64 {
        self.revision.unwrap_or(0)
    }
}

impl PageKey {
    /// A token for this position in the list that `scope` names.
    pub fn seal(&self, scope: &[&str], position: &Position) -> String {
        let mut bytes = position.revision_on_wire().to_be_bytes().to_vec();
        bytes.extend_from_slice(&self.mac(scope, position));
        bytes.extend_from_slice(position.after.as_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The position a token names, if it belongs to the list that `scope` names.
    pub fn open(&self, scope: &[&str], token: &str) -> Result<Position, ApiError> {
        let wrong = || ApiError::bad_request("continue key is not valid: it does not belong to this list");
        if token.len() > TOKEN_BYTES_MAX {
            return Err(wrong());
        }
        let bytes = URL_SAFE_NO_PAD.decode(token.trim_end_matches('=')).map_err(|_| wrong())?;
        let (revision, rest) = bytes.split_at_checked(REVISION_BYTES).ok_or_else(wrong)?;
        let (mac, after) = rest.split_at_checked(MAC_BYTES).ok_or_else(wrong)?;
        let revision = match u64::from_be_bytes(revision.try_into().expect("split at eight bytes")) {
            0 => None,
            revision => Some(revision),
        };
        let after = String::from_utf8(after.to_vec()).map_err(|_| wrong())?;
        let position = Position { revision, after };
        let differing = self.mac(scope, &position).iter().zip(mac).fold(0, |all, (left, right)| all | (left ^ right));
        if differing == 0 { Ok(position) } else { Err(wrong()) }
    }

    /// HMAC-SHA256 (RFC 2104), cut to 16 bytes; every part is preceded by its length, so parts cannot run together.
    fn mac(&self, scope: &[&str], position: &Position) -> [u8; MAC_BYTES] {
        const BLOCK_BYTES: usize = 64;
        let keyed = |pad: u8| {
            let mut block = [pad; BLOCK_BYTES];
            block.iter_mut().zip(self.0).for_each(|(byte, key)| *byte ^= key);
            Sha256::new_with_prefix(block)
        };
        let mut inner = keyed(0x36);
        inner.update(position.revision_on_wire().to_be_bytes());
        for part in scope.iter().copied().chain([position.after.as_str()]) {
            inner.update((part.len() as u64).to_be_bytes());
            inner.update(part);
        }
        let mut outer = keyed(0x5c);
        outer.update(inner.finalize());
        let whole = outer.finalize();
        let mut mac = [0; MAC_BYTES];
        mac.copy_from_slice(&whole[..MAC_BYTES]);
        mac
    }
}

#[cfg(test)]
mod tests {
    use super::{PageKey, Position};

    #[test]
    fn a_token_opens_for_its_own_list_only() {
        let key = PageKey([7; 32]);
        let position = Position { revision: Some(42), after: "o/pods/ns/p".to_owned() };
        let token = key.seal(&["pods", "ns", "", ""], &position);
        assert_eq!(key.open(&["pods", "ns", "", ""], &token), Ok(position));
        let newest = Position { revision: None, after: "o/pods/ns/p".to_owned() };
        assert_eq!(key.open(&["pods", "ns", "", ""], &key.seal(&["pods", "ns", "", ""], &newest)), Ok(newest));
        for scope in
            [["pods", "other", "", ""], ["secrets", "ns", "", ""], ["pods", "ns", "a=b", ""], ["pods", "", "ns", ""]]
        {
            assert_eq!(key.open(&scope, &token).map_err(|error| error.code()), Err(400));
        }
        assert!(PageKey([8; 32]).open(&["pods", "ns", "", ""], &token).is_err());
        assert!(key.open(&["pods", "ns", "", ""], "AAAA").is_err());
        assert!(key.open(&["pods", "ns", "", ""], &"A".repeat(5000)).is_err());
    }
}
