//! A certificate with another subject: rcgen writes one organization, and a request may name several.
//!
//! Flow    the certificate is taken apart into its DER elements, gets the other subject, and is signed anew
//! Source: RFC 5280, section 4.1; X.690, section 8.1

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

const SEQUENCE: u8 = 0x30;
const BIT_STRING: u8 = 0x03;
/// The place of the subject among a certificate's fields: behind version, serial, algorithm, issuer and validity.
const SUBJECT_PLACE: usize = 5;
/// Characters in a line of PEM.
const PEM_LINE: usize = 64;

/// The certificate (DER) with this subject (DER), signed by whoever signed it before. `None` when it is not one.
pub(super) fn with_subject<E>(
    certificate: &[u8],
    subject: &[u8],
    sign: impl FnOnce(&[u8]) -> Result<Vec<u8>, E>,
) -> Option<Result<Vec<u8>, E>> {
    let parts = elements(content(certificate)?)?;
    let [body, algorithm, _signature] = parts.as_slice() else { return None };
    let mut fields = elements(content(body)?)?;
    *fields.get_mut(SUBJECT_PLACE)? = subject;
    let body = element(SEQUENCE, &fields.concat());
    Some(sign(&body).map(|signature| {
        // No unused bits.
        let signature = element(BIT_STRING, &[&[0], &signature[..]].concat());
        element(SEQUENCE, &[&body, *algorithm, &signature].concat())
    }))
}

/// A certificate in PEM.
pub(super) fn pem(certificate: &[u8]) -> String {
    let text = STANDARD.encode(certificate);
    let mut pem = "-----BEGIN CERTIFICATE-----\n".to_owned();
    for line in text.as_bytes().chunks(PEM_LINE) {
        pem.extend(line.iter().copied().map(char::from));
        pem.push('\n');
    }
    pem + "-----END CERTIFICATE-----\n"
}

fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let length = &length[length.iter().take_while(|byte| **byte == 0).count()..];
    let mut bytes = vec![tag];
    match content.len() {
        short @ 0..0x80 => bytes.push(short as u8),
        _ => {
            bytes.push(0x80 | length.len() as u8);
            bytes.extend_from_slice(length);
        }
    }
    bytes.extend_from_slice(content);
    bytes
}

/// What is in an element.
fn content(element: &[u8]) -> Option<&[u8]> {
    let (head, length) = head(element)?;
    element.get(head..head + length)
}

/// Elements that follow each other.
fn elements(mut bytes: &[u8]) -> Option<Vec<&[u8]>> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let (head, length) = head(bytes)?;
        let (first, rest) = bytes.split_at_checked(head + length)?;
        found.push(first);
        bytes = rest;
    }
    Some(found)
}

/// How long the head of the first element is, and its content.
fn head(bytes: &[u8]) -> Option<(usize, usize)> {
    const LENGTH_BYTES_MAX: usize = 4;
    let first = usize::from(*bytes.get(1)?);
    if first < 0x80 {
        return Some((2, first));
    }
    let count = first & 0x7f;
    if count == 0 || count > LENGTH_BYTES_MAX {
        return None;
    }
    let length = bytes.get(2..2 + count)?.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
    Some((2 + count, length))
}

#[cfg(test)]
mod tests {
    use super::{content, element, elements, pem, with_subject};

    #[test]
    fn elements_of_every_length_come_back() {
        for length in [0, 1, 127, 128, 255, 256, 65_535, 65_536] {
            let inner = vec![7; length];
            let outer = element(4, &inner);
            assert_eq!(content(&outer), Some(&inner[..]), "{length}");
            let twice = [&outer[..], &outer].concat();
            assert_eq!(elements(&twice).expect("two elements"), [&outer[..], &outer], "{length}");
            assert!(elements(&twice[..twice.len() - 1]).is_none() || length == 0, "{length}");
        }
        assert!(content(&[0x30, 0x80]).is_none() && content(&[0x30]).is_none());
    }

    #[test]
    fn what_is_no_certificate_gets_no_subject() {
        for bytes in [&b""[..], &[0x30, 0x00], &[0x30, 0x02, 0x05, 0x00], b"certificate"] {
            assert!(with_subject(bytes, &[0x30, 0x00], |_| Ok::<_, ()>(Vec::new())).is_none(), "{bytes:?}");
        }
    }

    #[test]
    fn pem_has_lines() {
        assert_eq!(pem(b"abc"), "-----BEGIN CERTIFICATE-----\nYWJj\n-----END CERTIFICATE-----\n");
        assert!(pem(&[0; 100]).lines().all(|line| line.len() <= 64));
    }
}
