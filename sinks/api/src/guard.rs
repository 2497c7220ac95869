//! Which addresses a sink may connect to, so that a URL in a config or in a push cannot be used to reach into the gateway's own
//! network (server-side request forgery).
//!
//! It promises a judgement on addresses alone, made from the tables below: pure, without DNS or sockets. Whoever connects MUST ask
//! it for the very address that it connects to, at the time of connecting: a name can resolve to something else a moment later. A
//! URL whose host is an address itself skips the resolver and MUST be judged too.
//!
//! Refused is what is not an ordinary public destination: the special-purpose registries of IANA (RFC 6890 and its updates), all of
//! IPv6 that is not global unicast, and forms of IPv6 that carry an IPv4 address which is refused. It cannot know a NAT64 prefix of
//! the operator's own, nor that a public address is routed inside.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Judges addresses. By default only public ones pass.
#[derive(Debug, Clone, Default)]
pub struct Guard {
    allowed: Vec<IpNet>,
}

/// Why an address is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{address} is {kind}")]
pub struct Refused {
    pub address: IpAddr,
    pub kind: AddressKind,
}

/// A name resolved to nothing that may be connected to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoneAllowed {
    #[error("the name has no address")]
    Empty,
    /// The first of those refused stands for all.
    #[error("{0}")]
    Refused(Refused),
}

/// What a refused address is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressKind {
    Unspecified,
    Loopback,
    Private,
    LinkLocal,
    SharedNat,
    Documentation,
    Benchmarking,
    Protocol,
    Multicast,
    Reserved,
    /// Inside of a cloud, though public by its number.
    CloudPlatform,
    /// Translates to, or tunnels to, an IPv4 address of an unknown kind.
    Translation,
}

impl fmt::Display for AddressKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unspecified => "an unspecified address",
            Self::Loopback => "a loopback address",
            Self::Private => "a private address",
            Self::LinkLocal => "a link-local address",
            Self::SharedNat => "a carrier's shared address",
            Self::Documentation => "an address for documentation",
            Self::Benchmarking => "an address for benchmarks",
            Self::Protocol => "an address for protocol use",
            Self::Multicast => "a multicast address",
            Self::Reserved => "a reserved address",
            Self::CloudPlatform => "an address of a cloud's platform",
            Self::Translation => "an address that is translated locally",
        })
    }
}

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6(a: u16, b: u16, c: u16, prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0), prefix)
}

/// IANA IPv4 Special-Purpose Address Registry, what of it is not for everybody; and multicast, class E, Azure's platform address.
const REFUSED_V4: [(Ipv4Net, AddressKind); 17] = [
    (v4(0, 0, 0, 0, 8), AddressKind::Unspecified),
    (v4(10, 0, 0, 0, 8), AddressKind::Private),
    (v4(100, 64, 0, 0, 10), AddressKind::SharedNat),
    (v4(127, 0, 0, 0, 8), AddressKind::Loopback),
    (v4(168, 63, 129, 16, 32), AddressKind::CloudPlatform),
    (v4(169, 254, 0, 0, 16), AddressKind::LinkLocal),
    (v4(172, 16, 0, 0, 12), AddressKind::Private),
    (v4(192, 0, 0, 0, 24), AddressKind::Protocol),
    (v4(192, 0, 2, 0, 24), AddressKind::Documentation),
    (v4(192, 88, 99, 0, 24), AddressKind::Protocol),
    (v4(192, 168, 0, 0, 16), AddressKind::Private),
    (v4(198, 18, 0, 0, 15), AddressKind::Benchmarking),
    (v4(198, 51, 100, 0, 24), AddressKind::Documentation),
    (v4(203, 0, 113, 0, 24), AddressKind::Documentation),
    (v4(233, 252, 0, 0, 24), AddressKind::Documentation),
    (v4(224, 0, 0, 0, 4), AddressKind::Multicast),
    (v4(240, 0, 0, 0, 4), AddressKind::Reserved),
];

/// IANA IPv6 Special-Purpose Address Registry. The first that matches counts; what matches none and is not of 2000::/3 is reserved.
const REFUSED_V6: [(Ipv6Net, AddressKind); 13] = [
    (Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 128), AddressKind::Unspecified),
    (Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128), AddressKind::Loopback),
    (v6(0x64, 0xff9b, 1, 48), AddressKind::Translation),
    (v6(0x100, 0, 0, 64), AddressKind::Reserved),
    (v6(0x2001, 2, 0, 48), AddressKind::Benchmarking),
    (v6(0x2001, 0, 0, 23), AddressKind::Protocol),
    (v6(0x2001, 0xdb8, 0, 32), AddressKind::Documentation),
    (v6(0x3fff, 0, 0, 20), AddressKind::Documentation),
    (v6(0x5f00, 0, 0, 16), AddressKind::Protocol),
    (v6(0xfc00, 0, 0, 7), AddressKind::Private),
    (v6(0xfe80, 0, 0, 10), AddressKind::LinkLocal),
    (v6(0xfec0, 0, 0, 10), AddressKind::Private),
    (v6(0xff00, 0, 0, 8), AddressKind::Multicast),
];

const GLOBAL_UNICAST: Ipv6Net = v6(0x2000, 0, 0, 3);

/// RFC 6052 section 2.1: the well-known prefix of NAT64.
const NAT64: Ipv6Net = v6(0x64, 0xff9b, 0, 96);
/// RFC 3056.
const SIX_TO_FOUR: Ipv6Net = v6(0x2002, 0, 0, 16);
/// RFC 4380.
const TEREDO: Ipv6Net = v6(0x2001, 0, 0, 32);
/// RFC 4291 section 2.5.5.1; deprecated.
const V4_COMPATIBLE: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 96);

impl Guard {
    /// `allowed` passes, whatever it is for. An IPv6 form that carries an IPv4 address passes where either of the two is allowed.
    pub fn new(allowed: Vec<IpNet>) -> Self {
        Self { allowed }
    }

    /// Whether `address` may be connected to.
    ///
    /// # Errors
    /// When it is refused, and why.
    pub fn judge(&self, address: IpAddr) -> Result<(), Refused> {
        let refused = |kind| Err(Refused { address, kind });
        if self.allows(address) {
            return Ok(());
        }
        match address.to_canonical() {
            IpAddr::V4(canonical) => self.judge_v4(canonical).or_else(refused),
            IpAddr::V6(canonical) => self.judge_v6(canonical).or_else(refused),
        }
    }

    /// Those of a name's addresses that may be connected to, in their order.
    ///
    /// # Errors
    /// When there is none.
    pub fn select(&self, addresses: impl IntoIterator<Item = SocketAddr>) -> Result<Vec<SocketAddr>, NoneAllowed> {
        let mut first_refused = None;
        let mut selected = Vec::new();
        for address in addresses {
            match self.judge(address.ip()) {
                Ok(()) => selected.push(address),
                Err(refused) => first_refused = first_refused.or(Some(refused)),
            }
        }
        match first_refused {
            _ if !selected.is_empty() => Ok(selected),
            Some(refused) => Err(NoneAllowed::Refused(refused)),
            None => Err(NoneAllowed::Empty),
        }
    }

    /// An IPv4-mapped address is the IPv4 address: the packets are the same.
    fn allows(&self, address: IpAddr) -> bool {
        let is_in = |address: IpAddr| self.allowed.iter().any(|network| network.contains(&address));
        is_in(address) || is_in(address.to_canonical())
    }

    fn judge_v4(&self, address: Ipv4Addr) -> Result<(), AddressKind> {
        if self.allows(address.into()) {
            return Ok(());
        }
        match REFUSED_V4.iter().find(|(network, _)| network.contains(&address)) {
            Some((_, kind)) => Err(*kind),
            None => Ok(()),
        }
    }

    fn judge_v6(&self, address: Ipv6Addr) -> Result<(), AddressKind> {
        if let Some(carried) = carried_v4(address) {
            return carried.into_iter().try_for_each(|address| self.judge_v4(address));
        }
        match REFUSED_V6.iter().find(|(network, _)| network.contains(&address)) {
            Some((_, kind)) => Err(*kind),
            None if GLOBAL_UNICAST.contains(&address) => Ok(()),
            None => Err(AddressKind::Reserved),
        }
    }
}

/// The IPv4 addresses that packets to `address` end up at, if it is a form that carries some.
fn carried_v4(address: Ipv6Addr) -> Option<Vec<Ipv4Addr>> {
    let bits = address.to_bits();
    // Taking 32 of the 128 bits.
    let at = |shift: u32| Ipv4Addr::from_bits((bits >> shift) as u32);
    if address.is_loopback() || address.is_unspecified() {
        None
    } else if NAT64.contains(&address) || V4_COMPATIBLE.contains(&address) {
        Some(vec![at(0)])
    } else if SIX_TO_FOUR.contains(&address) {
        Some(vec![at(80)])
    } else if TEREDO.contains(&address) {
        // The server, and the client, whose bits are turned over.
        Some(vec![at(64), Ipv4Addr::from_bits(!at(0).to_bits())])
    } else {
        None
    }
}

#[cfg(test)]
mod tests;
