//! IP addresses and ranges of them.
//!
//! Rules
//!   R1 strict  IPv4 parts have no leading zeros; addresses have no zone; IPv4 inside IPv6 is refused
//!
//! Source: Kubernetes "CEL in Kubernetes", IP and CIDR libraries.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use super::super::budget::EvalError;
use super::super::cost::{Charge, Grow};
use super::super::opaque::Opaque;
use super::super::value::Value;
use super::args::Args;
use super::{Answer, Row, failed, no_overload};
use Charge::{One, Scan};

const READ: Charge = Scan(0, 1, Grow::Unknown);

/// A range of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    ip: IpAddr,
    bits: u8,
}

impl fmt::Display for Cidr {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.ip, self.bits)
    }
}

pub(super) const ROWS: &[Row] = &[
    Row("ip(string) -> ip", READ, |_, args| give_ip(read_ip(args.text(0)?)?)),
    Row("isIP(string) -> bool", READ, |_, args| Ok(Value::Bool(read_ip(args.text(0)?).is_ok()))),
    Row("ip.isCanonical(string) -> bool", Scan(0, 2, Grow::Unknown), |_, args| {
        let text = args.text(0)?;
        Ok(Value::Bool(read_ip(text)?.to_string() == **text))
    }),
    Row("<ip>.family() -> int", One, |_, args| Ok(Value::Int(if take_ip(args, 0)?.is_ipv4() { 4 } else { 6 }))),
    Row("<ip>.isUnspecified() -> bool", One, |_, args| Ok(Value::Bool(take_ip(args, 0)?.is_unspecified()))),
    Row("<ip>.isLoopback() -> bool", One, |_, args| Ok(Value::Bool(take_ip(args, 0)?.is_loopback()))),
    Row("<ip>.isLinkLocalMulticast() -> bool", One, |_, args| {
        Ok(Value::Bool(match take_ip(args, 0)? {
            IpAddr::V4(ip) => ip.octets()[..3] == [224, 0, 0],
            IpAddr::V6(ip) => ip.segments()[0] & 0xff0f == 0xff02,
        }))
    }),
    Row("<ip>.isLinkLocalUnicast() -> bool", One, |_, args| Ok(Value::Bool(is_link_local(take_ip(args, 0)?)))),
    Row("<ip>.isGlobalUnicast() -> bool", One, |_, args| {
        let ip = take_ip(args, 0)?;
        let broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
        let special = ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || is_link_local(ip);
        Ok(Value::Bool(!broadcast && !special))
    }),
    Row("cidr(string) -> cidr", READ, |_, args| Ok(Value::Opaque(Opaque::Cidr(read_cidr(args.text(0)?)?)))),
    Row("isCIDR(string) -> bool", READ, |_, args| Ok(Value::Bool(read_cidr(args.text(0)?).is_ok()))),
    Row("<cidr>.containsIP(string) -> bool", Scan(1, 1, Grow::Unknown), |_, args| {
        let ip = read_ip(args.text(1)?)?;
        Ok(Value::Bool(take_cidr(args, 0)?.contains(ip)))
    }),
    Row("<cidr>.containsIP(ip) -> bool", One, |_, args| {
        Ok(Value::Bool(take_cidr(args, 0)?.contains(take_ip(args, 1)?)))
    }),
    Row("<cidr>.containsCIDR(string) -> bool", Scan(1, 1, Grow::Unknown), |_, args| {
        let inner = read_cidr(args.text(1)?)?;
        Ok(Value::Bool(take_cidr(args, 0)?.covers(inner)))
    }),
    Row("<cidr>.containsCIDR(cidr) -> bool", One, |_, args| {
        Ok(Value::Bool(take_cidr(args, 0)?.covers(take_cidr(args, 1)?)))
    }),
    Row("<cidr>.ip() -> ip", One, |_, args| give_ip(take_cidr(args, 0)?.ip)),
    Row("<cidr>.masked() -> cidr", One, |_, args| {
        let cidr = take_cidr(args, 0)?;
        Ok(Value::Opaque(Opaque::Cidr(Cidr { ip: masked(cidr.ip, cidr.bits), bits: cidr.bits })))
    }),
    Row("<cidr>.prefixLength() -> int", One, |_, args| Ok(Value::Int(i64::from(take_cidr(args, 0)?.bits)))),
];

fn give_ip<'a>(ip: IpAddr) -> Answer<'a> {
    Ok(Value::Opaque(Opaque::Ip(ip)))
}

fn take_ip(args: &[Value], at: usize) -> Result<IpAddr, EvalError> {
    match args.opaque(at)? {
        Opaque::Ip(ip) => Ok(*ip),
        _ => Err(no_overload()),
    }
}

fn take_cidr(args: &[Value], at: usize) -> Result<Cidr, EvalError> {
    match args.opaque(at)? {
        Opaque::Cidr(cidr) => Ok(*cidr),
        _ => Err(no_overload()),
    }
}

/// R1.
fn read_ip(text: &str) -> Result<IpAddr, EvalError> {
    let shown: String = text.chars().take(64).collect();
    let Ok(ip) = text.parse::<IpAddr>() else {
        return failed(format!("IP Address {shown:?} parse error during conversion from string"));
    };
    if matches!(ip, IpAddr::V6(ip) if is_mapped(ip)) {
        return failed(format!("IPv4-mapped IPv6 address {shown:?} is not allowed"));
    }
    Ok(ip)
}

fn is_mapped(ip: Ipv6Addr) -> bool {
    ip.to_ipv4_mapped().is_some()
}

fn read_cidr(text: &str) -> Result<Cidr, EvalError> {
    let shown: String = text.chars().take(64).collect();
    let read = || {
        let (ip, digits) = text.split_once('/')?;
        let ip = read_ip(ip).ok()?;
        let plain = !digits.is_empty() && digits.len() <= 3 && digits.bytes().all(|byte| byte.is_ascii_digit());
        let canonical = plain && (digits == "0" || !digits.starts_with('0'));
        let bits: u8 = canonical.then(|| digits.parse().ok())??;
        (bits <= width(ip)).then_some(Cidr { ip, bits })
    };
    read().map_or_else(|| failed(format!("network address parse error during conversion from string: {shown:?}")), Ok)
}

fn width(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 32 } else { 128 }
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

fn masked(ip: IpAddr, bits: u8) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            IpAddr::V4((u32::from(ip) & mask).into())
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
            IpAddr::V6((u128::from(ip) & mask).into())
        }
    }
}

impl Cidr {
    fn contains(self, ip: IpAddr) -> bool {
        self.ip.is_ipv4() == ip.is_ipv4() && masked(ip, self.bits) == masked(self.ip, self.bits)
    }

    fn covers(self, inner: Cidr) -> bool {
        self.bits <= inner.bits && self.contains(inner.ip)
    }
}
