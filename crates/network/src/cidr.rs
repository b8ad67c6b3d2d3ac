//! Cidr: an IPv4 network, as `10.42.0.0/24`.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// An IPv4 network in canonical form: no host bit is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr {
    address: Ipv4Addr,
    prefix_length: u8,
}

/// Why a text is not a network.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CidrError {
    /// Not of the form address/length.
    #[error("expected an IPv4 network such as 10.42.0.0/24, found {0:?}")]
    Form(String),
    /// The address has bits set that the prefix does not cover.
    #[error("network {found} has host bits set: write {expected}")]
    HostBits {
        /// What was given.
        found: String,
        /// The network that contains it.
        expected: Cidr,
    },
}

impl Cidr {
    /// The network of `prefix_length` bits that contains `address`; `None` when the length is over 32.
    pub fn containing(address: Ipv4Addr, prefix_length: u8) -> Option<Cidr> {
        let mask = mask_of(prefix_length)?;
        Some(Cidr { address: Ipv4Addr::from_bits(address.to_bits() & mask), prefix_length })
    }

    /// The first address, which names the network.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// How many leading bits name the network.
    pub fn prefix_length(&self) -> u8 {
        self.prefix_length
    }

    /// The network's bits set, the others clear.
    pub fn mask(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(mask_of(self.prefix_length).expect("a Cidr has at most 32 prefix bits"))
    }

    /// Whether `address` lies in the network.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        address.to_bits() & self.mask().to_bits() == self.address.to_bits()
    }

    /// How many addresses the network has.
    pub fn size(&self) -> u64 {
        1 << (32 - u32::from(self.prefix_length))
    }

    /// The address `index` places after the first; `None` beyond the network.
    pub fn nth(&self, index: u32) -> Option<Ipv4Addr> {
        (u64::from(index) < self.size()).then(|| Ipv4Addr::from_bits(self.address.to_bits() + index))
    }
}

fn mask_of(prefix_length: u8) -> Option<u32> {
    match prefix_length {
        0 => Some(0),
        1..=32 => Some(u32::MAX << (32 - u32::from(prefix_length))),
        _ => None,
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.address, self.prefix_length)
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Cidr, CidrError> {
        let form = || CidrError::Form(text.to_owned());
        let (address, length) = text.split_once('/').ok_or_else(form)?;
        let address: Ipv4Addr = address.parse().map_err(|_| form())?;
        let length: u8 = length.parse().map_err(|_| form())?;
        let expected = Cidr::containing(address, length).ok_or_else(form)?;
        if expected.address != address {
            return Err(CidrError::HostBits { found: text.to_owned(), expected });
        }
        Ok(expected)
    }
}

#[cfg(test)]
mod tests {
    use super::{Cidr, CidrError};

    #[test]
    fn a_network_reads_as_it_prints_and_counts_its_addresses() {
        let cidr: Cidr = "10.42.3.0/24".parse().expect("a well-formed network");
        assert_eq!(cidr.to_string(), "10.42.3.0/24");
        assert_eq!(cidr.nth(1).map(|address| address.to_string()).as_deref(), Some("10.42.3.1"));
        assert_eq!(cidr.nth(256), None);
        assert!(cidr.contains("10.42.3.255".parse().expect("an address")));
        assert!(!cidr.contains("10.42.4.0".parse().expect("an address")));
    }

    #[test]
    fn host_bits_and_nonsense_are_refused() {
        assert!(matches!("10.42.3.1/24".parse::<Cidr>(), Err(CidrError::HostBits { .. })));
        for text in ["", "10.42.0.0", "10.42.0.0/33", "a/8", "10.42.0.0/-1", "fd00::/8"] {
            assert!(matches!(text.parse::<Cidr>(), Err(CidrError::Form(_))), "{text}");
        }
    }
}
