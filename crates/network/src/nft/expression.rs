//! The expressions that nftables rules are made of, as the kernel reads them (Linux `nf_tables.h`).
//!
//! A rule is evaluated from left to right over registers of four bytes; an expression that does not match ends it.

use std::net::Ipv4Addr;

use crate::cidr::Cidr;
use crate::netlink::Attributes;

/// The first of sixteen four-byte registers.
pub(super) const R0: u32 = 8;
/// Where a lookup leaves its result, behind the key.
pub(super) const RESULT: u32 = R0 + 4;
const VERDICT: u32 = 0;

const LIST_ELEMENT: u16 = 1;
const VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
const VERDICT_CHAIN: u16 = 2;
/// `NFT_JUMP`: go to a chain and come back after its end.
const JUMP: i32 = -3;
/// `NFT_GOTO`: go to a chain; its end is the end of this one too.
const GOTO: i32 = -4;
/// `NFT_RETURN`: this chain has nothing against the packet.
const RETURN: i32 = -5;
const DROP: i32 = 0;

const COMPARE_EQUAL: u32 = 0;
const COMPARE_UNEQUAL: u32 = 1;

/// One end of a packet.
#[derive(Clone, Copy)]
pub(super) enum End {
    Source,
    Destination,
}

/// A packet's way in or out.
#[derive(Clone, Copy)]
pub(super) enum Way {
    In,
    Out,
}

/// Writes the expressions of one rule.
pub(super) struct Rule<'a, 'b> {
    list: &'a mut Attributes<'b>,
}

impl<'a, 'b> Rule<'a, 'b> {
    pub(super) fn new(list: &'a mut Attributes<'b>) -> Rule<'a, 'b> {
        Rule { list }
    }

    fn push(&mut self, name: &str, fill: impl FnOnce(&mut Attributes<'_>)) -> &mut Self {
        self.list.nest(LIST_ELEMENT, |expression| {
            expression.put_text(1, name);
            expression.nest(2, fill);
        });
        self
    }

    /// An address of the IP header into `register`.
    pub(super) fn load_address(&mut self, end: End, register: u32) -> &mut Self {
        const NETWORK_HEADER: u32 = 1;
        let offset = match end {
            End::Source => 12,
            End::Destination => 16,
        };
        self.load_payload(NETWORK_HEADER, (offset, 4), register)
    }

    /// The transport header's destination port into `register`.
    pub(super) fn load_port(&mut self, register: u32) -> &mut Self {
        const TRANSPORT_HEADER: u32 = 2;
        self.load_payload(TRANSPORT_HEADER, (2, 2), register)
    }

    fn load_payload(&mut self, base: u32, (offset, length): (u32, u32), register: u32) -> &mut Self {
        self.push("payload", |payload| {
            payload.put_be32(1, register);
            payload.put_be32(2, base);
            payload.put_be32(3, offset);
            payload.put_be32(4, length);
        })
    }

    /// The transport protocol's number into `register`.
    pub(super) fn load_protocol(&mut self, register: u32) -> &mut Self {
        const TRANSPORT_PROTOCOL: u32 = 16;
        self.load_meta(TRANSPORT_PROTOCOL, register)
    }

    fn load_meta(&mut self, key: u32, register: u32) -> &mut Self {
        self.push("meta", |meta| {
            meta.put_be32(1, register);
            meta.put_be32(2, key);
        })
    }

    /// Four bytes into `register`.
    pub(super) fn load_value(&mut self, value: [u8; 4], register: u32) -> &mut Self {
        self.push("immediate", |immediate| {
            immediate.put_be32(1, register);
            immediate.nest(2, |data| data.put(VALUE, &value));
        })
    }

    /// A random number below `bound` into `register`.
    pub(super) fn load_random(&mut self, bound: u32, register: u32) -> &mut Self {
        const RANDOM: u32 = 1;
        self.push("numgen", |numgen| {
            numgen.put_be32(1, register);
            numgen.put_be32(2, bound);
            numgen.put_be32(3, RANDOM);
            numgen.put_be32(4, 0);
        })
    }

    /// The client's address, hashed to a number below `bound`, into `register`.
    pub(super) fn load_source_hash(&mut self, bound: u32, register: u32) -> &mut Self {
        const JENKINS: u32 = 0;
        /// Any fixed number: the same client must meet the same endpoint after a restart.
        const SEED: u32 = 0x7769_6e64;
        self.load_address(End::Source, register).push("hash", |hash| {
            hash.put_be32(1, register);
            hash.put_be32(2, register);
            hash.put_be32(3, 4);
            hash.put_be32(4, bound);
            hash.put_be32(5, SEED);
            hash.put_be32(6, 0);
            hash.put_be32(7, JENKINS);
        })
    }

    fn compare(&mut self, register: u32, operation: u32, value: &[u8]) -> &mut Self {
        self.push("cmp", |cmp| {
            cmp.put_be32(1, register);
            cmp.put_be32(2, operation);
            cmp.nest(3, |data| data.put(VALUE, value));
        })
    }

    /// Goes on when the address lies in `cidr`, or when it does not.
    pub(super) fn address_in(&mut self, end: End, cidr: Cidr, within: bool) -> &mut Self {
        self.load_address(end, R0).push("bitwise", |bitwise| {
            bitwise.put_be32(1, R0);
            bitwise.put_be32(2, R0);
            bitwise.put_be32(3, 4);
            bitwise.nest(4, |mask| mask.put(VALUE, &cidr.mask().octets()));
            bitwise.nest(5, |xor| xor.put(VALUE, &[0; 4]));
        });
        let operation = if within { COMPARE_EQUAL } else { COMPARE_UNEQUAL };
        self.compare(R0, operation, &cidr.address().octets())
    }

    /// Goes on when the interface's name begins with `prefix`.
    pub(super) fn interface_begins(&mut self, way: Way, prefix: &str) -> &mut Self {
        let key = match way {
            Way::In => 6,
            Way::Out => 7,
        };
        self.load_meta(key, R0).compare(R0, COMPARE_EQUAL, prefix.as_bytes())
    }

    /// Goes on when the packet came in where no answer to its source would go out.
    pub(super) fn source_is_forged(&mut self) -> &mut Self {
        const RESULT_INTERFACE: u32 = 1;
        const SOURCE_AND_IN_INTERFACE: u32 = 1 | 8;
        self.load_fib(RESULT_INTERFACE, SOURCE_AND_IN_INTERFACE).compare(R0, COMPARE_EQUAL, &[0; 4])
    }

    /// Goes on when the destination is an address of this machine.
    pub(super) fn destination_is_local(&mut self) -> &mut Self {
        const RESULT_KIND: u32 = 3;
        const DESTINATION: u32 = 2;
        const KIND_LOCAL: u32 = 2;
        self.load_fib(RESULT_KIND, DESTINATION).compare(R0, COMPARE_EQUAL, &KIND_LOCAL.to_ne_bytes())
    }

    fn load_fib(&mut self, result: u32, flags: u32) -> &mut Self {
        self.push("fib", |fib| {
            fib.put_be32(1, R0);
            fib.put_be32(2, result);
            fib.put_be32(3, flags);
        })
    }

    /// Goes on when the connection was sent to another destination than its client named.
    pub(super) fn connection_is_redirected(&mut self) -> &mut Self {
        const STATUS: u32 = 2;
        const DESTINATION_CHANGED: u32 = 1 << 5;
        self.connection_has(STATUS, DESTINATION_CHANGED)
    }

    /// Goes on when the packet tells about a connection that is allowed, such as that its packets are too large.
    pub(super) fn is_about_a_connection(&mut self) -> &mut Self {
        const STATE: u32 = 0;
        const RELATED: u32 = 1 << 2;
        self.connection_has(STATE, RELATED)
    }

    /// Goes on when the packet answers the one who began the connection.
    pub(super) fn is_reply(&mut self) -> &mut Self {
        const DIRECTION: u32 = 1;
        const REPLY: u8 = 1;
        self.load_connection(DIRECTION).compare(R0, COMPARE_EQUAL, &[REPLY])
    }

    fn connection_has(&mut self, key: u32, bit: u32) -> &mut Self {
        self.load_connection(key).push("bitwise", |bitwise| {
            bitwise.put_be32(1, R0);
            bitwise.put_be32(2, R0);
            bitwise.put_be32(3, 4);
            bitwise.nest(4, |mask| mask.put(VALUE, &bit.to_ne_bytes()));
            bitwise.nest(5, |xor| xor.put(VALUE, &[0; 4]));
        });
        self.compare(R0, COMPARE_UNEQUAL, &[0; 4])
    }

    fn load_connection(&mut self, key: u32) -> &mut Self {
        self.push("ct", |ct| {
            ct.put_be32(1, R0);
            ct.put_be32(2, key);
        })
    }

    /// Goes on when the key at the registers from `key` is in the set.
    pub(super) fn is_in(&mut self, set: &str, key: u32) -> &mut Self {
        self.push("lookup", |lookup| {
            lookup.put_text(1, set);
            lookup.put_be32(2, key);
        })
    }

    /// Goes on when the key at the registers from `key` is in the map; its value goes to [`RESULT`].
    pub(super) fn look_up(&mut self, map: &str, key: u32) -> &mut Self {
        self.look_up_into(map, key, RESULT)
    }

    /// Jumps to the chain that the map holds for the key.
    pub(super) fn jump_by(&mut self, map: &str, key: u32) -> &mut Self {
        self.look_up_into(map, key, VERDICT)
    }

    fn look_up_into(&mut self, map: &str, key: u32, result: u32) -> &mut Self {
        self.push("lookup", |lookup| {
            lookup.put_text(1, map);
            lookup.put_be32(2, key);
            lookup.put_be32(3, result);
        })
    }

    /// Drops the packet.
    pub(super) fn drop(&mut self) -> &mut Self {
        self.decide(DROP, None)
    }

    /// Leaves the chain.
    pub(super) fn leave(&mut self) -> &mut Self {
        self.decide(RETURN, None)
    }

    /// Lets another chain decide.
    pub(super) fn go_to(&mut self, chain: &str) -> &mut Self {
        self.decide(GOTO, Some(chain))
    }

    fn decide(&mut self, code: i32, chain: Option<&str>) -> &mut Self {
        self.push("immediate", |immediate| {
            immediate.put_be32(1, VERDICT);
            immediate.nest(2, |data| {
                data.nest(DATA_VERDICT, |verdict| {
                    verdict.put_be32(VERDICT_CODE, code as u32);
                    if let Some(chain) = chain {
                        verdict.put_text(VERDICT_CHAIN, chain);
                    }
                });
            });
        })
    }

    /// Tells the sender that nobody listens there (ICMP port unreachable).
    pub(super) fn refuse(&mut self) -> &mut Self {
        const ICMP_UNREACHABLE: u32 = 0;
        const PORT_UNREACHABLE: u8 = 3;
        self.push("reject", |reject| {
            reject.put_be32(1, ICMP_UNREACHABLE);
            reject.put(2, &[PORT_UNREACHABLE]);
        })
    }

    /// Sends the connection to the address at [`RESULT`] and the port behind it.
    pub(super) fn redirect(&mut self) -> &mut Self {
        const DESTINATION: u32 = 1;
        self.push("nat", |nat| {
            nat.put_be32(1, DESTINATION);
            nat.put_be32(2, libc::NFPROTO_IPV4 as u32);
            nat.put_be32(3, RESULT);
            nat.put_be32(5, RESULT + 1);
        })
    }

    /// Lets the connection come from `address`.
    pub(super) fn source_becomes(&mut self, address: Ipv4Addr) -> &mut Self {
        const SOURCE: u32 = 0;
        self.load_value(address.octets(), R0).push("nat", |nat| {
            nat.put_be32(1, SOURCE);
            nat.put_be32(2, libc::NFPROTO_IPV4 as u32);
            nat.put_be32(3, R0);
        })
    }

    /// Lets the connection come from the address of the interface it leaves by.
    pub(super) fn masquerade(&mut self) -> &mut Self {
        self.push("masq", |_| {})
    }
}

/// The element data that jumps to `chain`.
pub(super) fn put_jump(data: &mut Attributes<'_>, chain: &str) {
    data.nest(DATA_VERDICT, |verdict| {
        verdict.put_be32(VERDICT_CODE, JUMP as u32);
        verdict.put_text(VERDICT_CHAIN, chain);
    });
}
